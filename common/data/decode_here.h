/* decode_here.h - decodes picture files in the calling process: for the decoder processes (data/decoder.h) and for
 * fuzzing. All other code uses image.h and window.h, which delegate to a decoder process.
 *
 * Threads: pure. */
#ifndef MODE_DATA_DECODE_HERE_H
#define MODE_DATA_DECODE_HERE_H

#include "data/image.h"
#include "data/window.h"

/* Like mode_image_header and mode_image_decode. */
enum mode_status mode__header_here(const uint8_t *data, size_t size, int *width, int *height, struct mode_error *err);
enum mode_status mode__decode_here(struct mode_image *im, const uint8_t *data, size_t size,
                                   const struct mode_image_limits *limits, struct mode_error *err);

/* MODE_E_VALUE. */
enum mode_status mode__preprocess_check(const struct mode_preprocess *p, const struct mode_crop_draw *draw,
                                        struct mode_error *err);

/* The first half of mode_preprocess_*_file and mode_window_file: writes the window's bytes to `to`: the decoded pixels
 * if they are at most `unresized` bytes, else the resized ones, at most p->size * p->size * 3 bytes. plainly: decode
 * the whole picture first. width, height: the picture's. draw NULL: the evaluation transform. */
struct mode_half {
    const struct mode_preprocess *p;
    const struct mode_crop_draw *draw;
    size_t unresized;
    bool plainly;
    uint8_t *to;
    int width, height;
    bool resized;
};
enum mode_status mode__window_here(struct mode_half *half, const struct mode_picture *f, struct mode_error *err);

/* The second half. half holds the request and the result of the first half, which is untrusted: the picture's size,
 * above 0, and bytes, at least half->unresized and p->size * p->size * 3 of them. MODE_E_FORMAT: size and bytes are
 * inconsistent with the request. */
enum mode_status mode__window_floats(float *out, const struct mode_half *half, const uint8_t *bytes,
                                     struct mode_error *err);
/* Sets *refused when the sink has no room for the unresized window; the caller then resizes it and calls again with
 * *refused unchanged. */
enum mode_status mode__window_sink(const struct mode_half *half, const uint8_t *bytes,
                                   const struct mode_window_sink *sink, bool *refused, struct mode_error *err);

#endif
