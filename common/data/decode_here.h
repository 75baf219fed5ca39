/* decode_here.h - picture files to pixels in the process that calls: what a decoder (data/decoder.h) runs, and what
 * fuzzing runs. Everybody else takes image.h and window.h, whose functions have it done.
 *
 * Threads: pure. */
#ifndef MODE_DATA_DECODE_HERE_H
#define MODE_DATA_DECODE_HERE_H

#include "data/image.h"
#include "data/window.h"

/* As mode_image_header and mode_image_decode. */
enum mode_status mode__header_here(const uint8_t *data, size_t size, int *width, int *height, struct mode_error *err);
enum mode_status mode__decode_here(struct mode_image *im, const uint8_t *data, size_t size,
                                   const struct mode_image_limits *limits, struct mode_error *err);

/* MODE_E_VALUE. */
enum mode_status mode__preprocess_check(const struct mode_preprocess *p, const struct mode_crop_draw *draw,
                                        struct mode_error *err);

/* The first half of mode_preprocess_*_file and mode_window_file: the window's bytes to `to`, as they are decoded if
 * they are at most `unresized`, else resized, which is at most p->size * p->size * 3. plainly: the whole picture is
 * decoded first. width, height: the picture's. draw NULL: the evaluation transform. */
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

/* The second half. half says what was asked for and, as anybody may have made it up, what came: the picture's size,
 * above 0, and bytes, of which there are at least half->unresized and p->size * p->size * 3. MODE_E_FORMAT: they do not
 * belong to each other. */
enum mode_status mode__window_floats(float *out, const struct mode_half *half, const uint8_t *bytes,
                                     struct mode_error *err);
/* *refused: the sink has no room for what was only decoded; it is to be resized, and given with *refused as it is. */
enum mode_status mode__window_sink(const struct mode_half *half, const uint8_t *bytes,
                                   const struct mode_window_sink *sink, bool *refused, struct mode_error *err);

#endif
