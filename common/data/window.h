/* window.h - preprocessing cut in two: the part of a picture that its resize reads, as bytes, and the weights.
 *
 * The first half is the host's and here: decoding. The second may be a device's (nn/pixels.h), and gives the floats
 * that mode_preprocess_*_file would have given. Of a JPEG nothing is decoded that the crop leaves out.
 *
 * Threads: any. */
#ifndef MODE_DATA_WINDOW_H
#define MODE_DATA_WINDOW_H

#include "data/image.h"
#include "data/resize_taps.h"

struct mode_window {
    int width, height;                     /* of the part that is decoded                                         */
    int column, row;                       /* its first ones, as the taps count them                              */
    const struct mode_taps *across, *down; /* to n_x and n_y outputs; NULL: the direction stays as it is          */
    bool down_first;                       /* the order of the passes (data/resize.h)                             */
    int x, y, n_x, n_y;                    /* where the outputs lie in the model's input; around them is p->fill  */
};

/* Asked once the size is known: where do the window's height * width * 3 bytes go? NULL: there is no room, as there
 * never is for more than `most`. Then the host resizes as well, and asks again for the result, a window of n_x * n_y
 * pixels that stays as it is; that must be given. w is valid during the call. */
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
