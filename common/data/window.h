/* window.h - preprocessing split in two: the window of a picture that the resize reads, as bytes, and the filter
 * weights.
 *
 * The first half, decoding, runs on the host and is here. The second may run on a device (nn/pixels.h) and produces the
 * same floats as mode_preprocess_*_file. Parts of a JPEG outside the crop are not decoded.
 *
 * Threads: any. */
#ifndef MODE_DATA_WINDOW_H
#define MODE_DATA_WINDOW_H

#include "data/image.h"
#include "data/resize_taps.h"

struct mode_window {
    int width, height;                     /* of the decoded part                                                 */
    int column, row;                       /* its first ones, as the taps count them                              */
    const struct mode_taps *across, *down; /* to n_x and n_y outputs; NULL: this direction is not resized         */
    bool down_first;                       /* the order of the passes (data/resize.h)                             */
    int x, y, n_x, n_y;                    /* position of the outputs in the model's input; the rest is p->fill   */
};

/* Called once the size is known: returns where the window's height * width * 3 bytes go. NULL: no room, which is always
 * so above `most` bytes. Then the host also resizes, and asks again for the result, a window of n_x * n_y pixels that
 * needs no resizing; that request must succeed. w is valid during the call. */
struct mode_window_sink {
    size_t most;
    uint8_t *(*place)(void *ctx, const struct mode_window *w);
    void *ctx;
};

/* Errors are those of mode_preprocess_eval_file and mode_preprocess_train_file. draw NULL: the evaluation transform. */
enum mode_status mode_window_file(const struct mode_preprocess *p, const struct mode_picture *f,
                                  const struct mode_crop_draw *draw, const struct mode_window_sink *sink,
                                  struct mode_error *err);

/* What byte v of channel c becomes: (v / 255 - mean) / std, in single precision as torchvision does. */
void mode_preprocess_levels(const struct mode_preprocess *p, float levels[3][256]);

#endif
