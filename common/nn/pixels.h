/* pixels.h - decoded pictures of many sizes in one piece of memory, as mode_picture_patches (nn/ops.h) reads them.
 *
 * The memory begins with a table of one struct mode_pixels_window per picture; what a window points to lies behind it,
 * anywhere: 8-bit RGB of the part of the picture that the resize reads, and for each of its two directions the taps,
 * the inputs and weights of every output. Taps are made on the host (data/resize_taps.h), so nothing here or on a
 * device knows of filters, boxes and crops: a flip would be the same taps in reverse order, a direction that stays as
 * it is has one tap per output (mode_pixels_same).
 *
 * Source:  Pillow's resize of 8-bit pictures: weights of 22 fractional bits, half added, cut to 0 .. 255 after either
 *          pass; across first, but for very thin pictures (data/resize.h).
 * Threads: pure. */
#ifndef MODE_NN_PIXELS_H
#define MODE_NN_PIXELS_H

#include <stddef.h>
#include <stdint.h>

enum {
    MODE_PIXELS_BITS = 22,         /* of a weight, fractional */
    MODE_PIXELS_BETWEEN = 32 << 20 /* bytes between the two passes that a device makes room for, so that they stay in
                                    * its cache: of as many pictures as fit, of one at least */
};

struct mode_pixels_window {
    int64_t rgb;                    /* bytes from the beginning: [height, width, 3]               */
    int64_t across, down;           /* likewise, multiples of 4: taps to n_x and to n_y outputs   */
    int32_t width, height;          /* of what was decoded                                        */
    int32_t across_most, down_most; /* weights that every output of the direction has room for    */
    int32_t x, y, n_x, n_y;         /* where the outputs lie in the model's input                 */
    int32_t down_first, unused;     /* the order of the passes                                    */
};

/* Such a batch. Its memory is the backend's; the table lies where the host can read it as well. */
struct mode_pictures {
    const struct mode_pixels_window *windows; /* the table                                                    */
    const void *bytes;                        /* the table and all that it points to                          */
    size_t n_bytes;
    const float *levels; /* [3, 256]: what a byte of each channel becomes                */
    uint8_t border;      /* the byte around a window that does not fill its model's input */
};

/* Taps to n outputs, i32: [n] the first input of each, [n] how many inputs it has, [most, n] their weights. */
size_t mode_pixels_taps_bytes(int64_t n, int64_t most);
/* From weights k [n, most], one output after another; input `from` of theirs is the window's first. */
void mode_pixels_taps(int32_t *to, int64_t n, int64_t most, const int *first, const int *count, const int32_t *k,
                      int from);
/* n outputs that are the n inputs; most is 1. */
void mode_pixels_same(int32_t *to, int64_t n);

/* Bytes of the picture between the two passes. */
static inline int64_t mode_pixels_between(const struct mode_pixels_window *w)
{
    return 3 * (w->down_first ? (int64_t)w->n_y * w->width : (int64_t)w->height * w->n_x);
}

#endif
