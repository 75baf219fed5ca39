/* pixels.h - decoded pictures of many sizes in one buffer, as mode_picture_patches (nn/ops.h) reads them.
 *
 * The buffer begins with a table of one struct mode_pixels_window per picture; what a window refers to follows the
 * table, anywhere: 8-bit RGB of the part of the picture that the resize reads, and for each of its two directions the
 * filter taps, which are the inputs and weights of every output. Taps are computed on the host (data/resize_taps.h), so
 * nothing here or on a device knows of filters, boxes and crops: a flip would be the same taps in reverse order, an
 * unscaled direction has one tap per output (mode_pixels_same).
 *
 * Source:  Pillow's resize of 8-bit pictures: weights of 22 fractional bits, rounded half up and clamped to 0 .. 255
 *          after each pass; horizontal first, except for very thin pictures (data/resize.h).
 * Threads: pure. */
#ifndef MODE_NN_PIXELS_H
#define MODE_NN_PIXELS_H

#include <stddef.h>
#include <stdint.h>

enum {
    MODE_PIXELS_BITS = 22,         /* fractional bits of a weight */
    MODE_PIXELS_BETWEEN = 32 << 20 /* bytes of intermediate pictures between the two passes, so that they stay in a
                                    * GPU's L2: of as many pictures as fit, at least one */
};

struct mode_pixels_window {
    int64_t rgb;                    /* byte offset: [height, width, 3] */
    int64_t across, down;           /* byte offsets, multiples of 4: taps to n_x and n_y outputs */
    int32_t width, height;          /* of the decoded part */
    int32_t across_most, down_most; /* weights per output in that direction's table */
    int32_t x, y, n_x, n_y;         /* the outputs' window in the model's input */
    int32_t down_first, unused;     /* down_first: the vertical pass comes first */
};

/* Such a batch. bytes is in the backend's memory; windows points to the host's copy of the table. */
struct mode_pictures {
    const struct mode_pixels_window *windows; /* the table                                                    */
    const void *bytes;                        /* the table and all that it refers to */
    size_t n_bytes;
    const float *levels; /* [3, 256]: the float of each byte, per channel */
    uint8_t border;      /* the byte around a window that does not fill its model's input */
};

/* Taps to n outputs, i32: [n] first input, [n] number of inputs, [most, n] weights. */
size_t mode_pixels_taps_bytes(int64_t n, int64_t most);
/* From weights k [n, most], an output per row; their input `from` is the window's input 0. */
void mode_pixels_taps(int32_t *to, int64_t n, int64_t most, const int *first, const int *count, const int32_t *k,
                      int from);
/* The identity: n outputs from n inputs; most is 1. */
void mode_pixels_same(int32_t *to, int64_t n);

/* Bytes of the intermediate picture between the two passes. */
static inline int64_t mode_pixels_between(const struct mode_pixels_window *w)
{
    return 3 * (w->down_first ? (int64_t)w->n_y * w->width : (int64_t)w->height * w->n_x);
}

#endif
