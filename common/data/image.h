/* image.h - picture files to RGB pixels, and pixels to the models' input.
 *
 * The type is decided by content, never by name. Limits are checked in the header before anything is decoded.
 * EXIF orientation is ignored (as open_clip does). Resizing is Pillow's bicubic (a = -0.5, antialiased, 8-bit
 * fixed point, horizontal pass first), byte for byte.
 *
 * Threads: pure. */
#ifndef MODE_DATA_IMAGE_H
#define MODE_DATA_IMAGE_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct mode_image {
    uint8_t *rgb; /* [height, width, 3], owned */
    int width, height;
};

struct mode_image_limits {
    uint64_t max_pixels; /* width * height  */
    uint32_t max_side;
    size_t max_bytes; /* of the file     */
};
#define MODE_IMAGE_LIMITS_DEFAULT                                                                                      \
    {                                                                                                                  \
        .max_pixels = 64000000, .max_side = 16384, .max_bytes = (size_t)64 << 20                                       \
    }

enum mode_image_type { MODE_IMAGE_UNKNOWN, MODE_IMAGE_JPEG, MODE_IMAGE_PNG, MODE_IMAGE_WEBP };
enum mode_image_type mode_image_sniff(const uint8_t *data, size_t size);

/* Width and height from the header only. */
enum mode_status mode_image_header(const uint8_t *data, size_t size, int *width, int *height, struct mode_error *err);
/* Decode JPEG (baseline, progressive, grey, CMYK, YCCK), PNG (palette, 16 bit, alpha dropped as Pillow's
 * convert("RGB") does), WebP to RGB. MODE_E_FORMAT: not an image or corrupt; MODE_E_VALUE: over a limit. */
enum mode_status mode_image_decode(struct mode_image *im, const uint8_t *data, size_t size,
                                   const struct mode_image_limits *limits, struct mode_error *err);
void mode_image_clear(struct mode_image *im);

/* Pillow's Image.resize((width, height), BICUBIC, box=(x0, y0, x1, y1)); the box may be fractional. */
enum mode_status mode_image_resize(struct mode_image *out, const struct mode_image *in, int width, int height,
                                   double x0, double y0, double x1, double y1, struct mode_error *err);

/* open_clip's preprocess_cfg */
struct mode_preprocess {
    int size; /* model input side, pixels */
    float mean[3], std[3];
    int resize_mode; /* enum mode_resize */
};
enum mode_resize { MODE_RESIZE_SHORTEST, MODE_RESIZE_LONGEST, MODE_RESIZE_SQUASH };
void mode_preprocess_default(struct mode_preprocess *p, int size); /* OpenAI's mean and std, shortest */

/* Evaluation transform: resize, centre crop, normalise. out [3, size, size] f32. */
enum mode_status mode_preprocess_eval(const struct mode_preprocess *p, const struct mode_image *im, float *out,
                                      struct mode_error *err);
/* Training transform: random resized crop (area in [scale_min, scale_max], aspect 3/4..4/3), normalise. The
 * draws come from mode_rng_for(seed, MODE_RNG_CROP, epoch, sample). */
enum mode_status mode_preprocess_train(const struct mode_preprocess *p, const struct mode_image *im, double scale_min,
                                       double scale_max, uint64_t seed, uint64_t epoch, uint64_t sample, float *out,
                                       struct mode_error *err);

#endif
