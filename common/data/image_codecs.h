/* image_codecs.h - the decoders behind image.h; each takes a file of a known type and returns RGB.
 *
 * Limits are checked before memory is allocated. Errors: MODE_E_FORMAT corrupt, MODE_E_VALUE over a limit,
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

/* Rows of a JPEG as they are decoded, without storing the picture. begin receives the picture's size and returns the
 * part that is needed; rows then receives that part from the top, at most 16 rows at a time: rgb points to pixel (x,
 * y), and `overread` bytes after a row's last pixel may be read too. The file is always read to its end, so that damage
 * is detected; the pixels are those of mode_jpeg_decode. */
struct mode_rows_wanted {
    int x, y, width, height;
    size_t overread; /* at most MODE_ROWS_OVERREAD */
};
enum { MODE_ROWS_OVERREAD = 32, MODE_ROWS_AT_ONCE = 16 };
struct mode_row_sink {
    enum mode_status (*begin)(void *ctx, int width, int height, struct mode_rows_wanted *wanted,
                              struct mode_error *err);
    void (*rows)(void *ctx, const uint8_t *rgb, size_t stride, int n);
    void *ctx;
};
enum mode_status mode_jpeg_rows(const struct mode_row_sink *sink, const uint8_t *data, size_t size,
                                const struct mode_image_limits *limits, struct mode_error *err);

enum mode_status mode_png_decode(struct mode_image *im, int *width, int *height, const uint8_t *data, size_t size,
                                 const struct mode_image_limits *limits, struct mode_error *err);
enum mode_status mode_webp_decode(struct mode_image *im, int *width, int *height, const uint8_t *data, size_t size,
                                  const struct mode_image_limits *limits, struct mode_error *err);

/* Check width x height against limits. */
enum mode_status mode_image_check(uint64_t width, uint64_t height, const struct mode_image_limits *limits,
                                  struct mode_error *err);
/* ... and allocate the pixels. */
enum mode_status mode_image_reserve(struct mode_image *im, uint64_t width, uint64_t height,
                                    const struct mode_image_limits *limits, struct mode_error *err);

#endif
