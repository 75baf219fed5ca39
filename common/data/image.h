/* image.h - picture files to RGB pixels, and pixels to the models' input.
 *
 * The type is detected from the content, never from the name. Limits are checked against the header before decoding.
 * EXIF orientation is ignored (as open_clip does). Resizing is Pillow's bicubic (a = -0.5, antialiased, 8-bit fixed
 * point, horizontal pass first), byte for byte.
 *
 * All functions that read a picture file do so in a decoder process (data/decoder.h): a picture that crashes it is
 * MODE_E_FORMAT.
 *
 * Threads: any. */
#ifndef MODE_DATA_IMAGE_H
#define MODE_DATA_IMAGE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mode_image {
    uint8_t *rgb; /* [height, width, 3], owned */
    int width, height;
};

/* A part of a picture: columns x0 .. x1 - 1, rows y0 .. y1 - 1. */
struct mode_box {
    uint32_t x0, y0, x1, y1;
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
/* What other file type it seems to be ("a GIF", "a web page", ...), for error texts; never NULL. */
const char *mode_image_looks_like(const uint8_t *data, size_t size);

/* Whether the file is complete up to its end marker (JPEG's EOI, PNG's IEND, the length in a WebP's header), judged by
 * its structure without decoding. data must be one of the three types. */
bool mode_image_is_whole(const uint8_t *data, size_t size);

/* Width and height from the header, which must lie within the first 64 MiB of the file. */
enum mode_status mode_image_header(const uint8_t *data, size_t size, int *width, int *height, struct mode_error *err);
/* Decode JPEG (baseline, progressive, grey, CMYK, YCCK), PNG (palette, 16 bit, alpha dropped as Pillow's
 * convert("RGB") does), WebP (the first frame of an animation, as Pillow does) to RGB. MODE_E_FORMAT: not an image or
 * corrupt; MODE_E_VALUE: over a limit. */
enum mode_status mode_image_decode(struct mode_image *im, const uint8_t *data, size_t size,
                                   const struct mode_image_limits *limits, struct mode_error *err);
/* Checks that it decodes. Errors as for mode_image_decode; width and height are set if the header is valid, else 0. */
enum mode_status mode_image_probe(const uint8_t *data, size_t size, const struct mode_image_limits *limits, int *width,
                                  int *height, struct mode_error *err);
void mode_image_clear(struct mode_image *im);

/* Pillow's Image.resize((width, height), BICUBIC, box=(x0, y0, x1, y1)); the box may be fractional. */
enum mode_status mode_image_resize(struct mode_image *out, const struct mode_image *in, int width, int height,
                                   double x0, double y0, double x1, double y1, struct mode_error *err);

enum mode_filter { MODE_FILTER_BICUBIC, MODE_FILTER_BILINEAR };
enum mode_resize { MODE_RESIZE_SHORTEST, MODE_RESIZE_LONGEST, MODE_RESIZE_SQUASH };

/* open_clip's preprocess_cfg */
struct mode_preprocess {
    int size; /* model input side, pixels */
    float mean[3], std[3];
    int resize_mode; /* enum mode_resize */
    int filter;      /* enum mode_filter, of the evaluation transform; training is always bicubic, as in open_clip */
    uint8_t fill;    /* padding of resize mode `longest`, before normalisation */
};
void mode_preprocess_default(struct mode_preprocess *p, int size); /* OpenAI's mean and std, shortest, bicubic */

/* Evaluation transform: resize, centre crop, normalise. out [3, size, size] f32. */
enum mode_status mode_preprocess_eval(const struct mode_preprocess *p, const struct mode_image *im, float *out,
                                      struct mode_error *err);

/* The random resized crop of one sample of one epoch: area in [scale_min, scale_max] of the picture, aspect in
 * 3/4 .. 4/3. The draws come from mode_rng_for(seed, MODE_RNG_CROP, epoch, sample). */
struct mode_crop_draw {
    double scale_min, scale_max;
    uint64_t seed, epoch, sample;
};
/* Training transform: random resized crop, normalise. */
enum mode_status mode_preprocess_train(const struct mode_preprocess *p, const struct mode_image *im,
                                       const struct mode_crop_draw *draw, float *out, struct mode_error *err);

/* Both from a picture file: the same floats as after mode_image_decode, but a JPEG is resized row by row as it is
 * decoded, and outside the crop only the entropy-coded data is parsed. */
struct mode_picture {
    const uint8_t *data;
    size_t size;
    const struct mode_image_limits *limits;
    const struct mode_box *blur; /* faces to hide, n_blur of them; data/face_boxes.h */
    uint32_t n_blur;
};
enum mode_status mode_preprocess_eval_file(const struct mode_preprocess *p, const struct mode_picture *f, float *out,
                                           struct mode_error *err);
enum mode_status mode_preprocess_train_file(const struct mode_preprocess *p, const struct mode_picture *f,
                                            const struct mode_crop_draw *draw, float *out, struct mode_error *err);

/* One attempt of torchvision's RandomResizedCrop for a drawn area share and aspect ratio. False: it does not fit. After
 * ten attempts mode_crop_fallback is used: a centre crop at the nearest allowed aspect ratio. */
bool mode_crop_size(int width, int height, double share, double aspect, int *w, int *h);
void mode_crop_fallback(int width, int height, int *x, int *y, int *w, int *h);

#endif
