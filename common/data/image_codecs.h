/* image_codecs.h - the decoders behind image.h; each takes a file already known by its magic and gives RGB.
 *
 * The limits are checked before memory is taken. Errors: MODE_E_FORMAT corrupt, MODE_E_VALUE over a limit,
 * MODE_E_MEMORY.
 *
 * Threads: pure. */
#ifndef MODE_DATA_IMAGE_CODECS_H
#define MODE_DATA_IMAGE_CODECS_H

#include "data/image.h"

enum { MODE_JPEG_MAX_SCANS = 100 };

/* With im NULL only the header is read. width and height are set on MODE_OK. */
enum mode_status mode_jpeg_decode(struct mode_image *im, int *width, int *height, const uint8_t *data, size_t size,
                                  const struct mode_image_limits *limits, struct mode_error *err);
enum mode_status mode_png_decode(struct mode_image *im, int *width, int *height, const uint8_t *data, size_t size,
                                 const struct mode_image_limits *limits, struct mode_error *err);
enum mode_status mode_webp_decode(struct mode_image *im, int *width, int *height, const uint8_t *data, size_t size,
                                  const struct mode_image_limits *limits, struct mode_error *err);

/* Check width x height against limits and make room for the pixels. */
enum mode_status mode_image_reserve(struct mode_image *im, uint64_t width, uint64_t height,
                                    const struct mode_image_limits *limits, struct mode_error *err);

#endif
