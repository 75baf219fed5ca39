#include "data/image.h"

#include "data/decode_here.h"
#include "data/image_codecs.h"
#include "data/resize.h"
#include "tensor/tensor.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum mode_image_type mode_image_sniff(const uint8_t *data, size_t size)
{
    if (size >= 3 && memcmp(data, "\xff\xd8\xff", 3) == 0) return MODE_IMAGE_JPEG;
    if (size >= 8 && memcmp(data, "\x89PNG\r\n\x1a\n", 8) == 0) return MODE_IMAGE_PNG;
    if (size >= 12 && memcmp(data, "RIFF", 4) == 0 && memcmp(data + 8, "WEBP", 4) == 0) return MODE_IMAGE_WEBP;
    return MODE_IMAGE_UNKNOWN;
}

const char *mode_image_looks_like(const uint8_t *data, size_t size)
{
    static const struct {
        size_t at, n;
        const char *bytes, *name;
    } known[] = {{0, 4, "GIF8", "a GIF"},
                 {0, 2, "BM", "a BMP"},
                 {0, 4, "II*\0", "a TIFF"},
                 {0, 4, "MM\0*", "a TIFF"},
                 {4, 8, "ftypavif", "an AVIF"},
                 {4, 8, "ftypavis", "an AVIF"},
                 {4, 7, "ftyphei", "a HEIF"},
                 {4, 8, "ftypmif1", "a HEIF"},
                 {0, 2, "\xff\x0a", "a JPEG XL"},
                 {4, 4, "JXL ", "a JPEG XL"},
                 {4, 4, "jP  ", "a JPEG 2000"},
                 {0, 4, "\xff\x4f\xff\x51", "a JPEG 2000"},
                 {0, 4, "8BPS", "a Photoshop file"},
                 {0, 4, "\0\0\1\0", "an icon file"},
                 {0, 4, "%PDF", "a PDF"},
                 {0, 2, "P6", "a PPM"},
                 {0, 2, "P5", "a PGM"}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (size >= known[i].at + known[i].n && memcmp(data + known[i].at, known[i].bytes, known[i].n) == 0)
            return known[i].name;
    }
    if (size == 0) return "an empty file";
    size_t i = 0;
    while (i < size && (data[i] == ' ' || data[i] == '\n' || data[i] == '\r' || data[i] == '\t')) i++;
    if (size - i >= 5 &&
        (!strncasecmp((const char *)data + i, "<!doc", 5) || !strncasecmp((const char *)data + i, "<html", 5)))
        return "a web page";
    if (size - i >= 4 && (!memcmp(data + i, "<svg", 4) || !memcmp(data + i, "<?xm", 4))) return "an SVG or other XML";
    return "something else";
}

/* Walks the segments and the coded data between them up to EOI. A thumbnail's EOI lies inside a segment, which is
 * skipped. */
static bool jpeg_is_whole(const uint8_t *data, size_t size)
{
    for (size_t at = 2; at < size;) {
        const uint8_t *mark = memchr(data + at, 0xff, size - at);
        if (!mark) return false;
        at = (size_t)(mark - data) + 1;
        while (at < size && data[at] == 0xff) at++;
        if (size - at < 1) return false;
        const uint8_t kind = data[at++];
        if (kind == 0xd9) return true;
        if (kind <= 0x01 || (kind >= 0xd0 && kind <= 0xd8))
            continue; /* not a segment: a stuffed 0xff, a restart
                                                                         marker */
        if (size - at < 2) return false;
        const size_t length = (size_t)data[at] << 8 | data[at + 1];
        if (length > size - at) return false;
        at += length < 2 ? 2 : length;
    }
    return false;
}

static bool png_is_whole(const uint8_t *data, size_t size)
{
    enum { LENGTH = 4, NAME = 4, CRC = 4 };
    for (size_t at = 8; size - at >= LENGTH + NAME + CRC;) {
        const uint64_t n = (uint64_t)data[at] << 24 | (uint64_t)data[at + 1] << 16 | (uint64_t)data[at + 2] << 8 |
                           data[at + 3];
        if (n > size - at - (LENGTH + NAME + CRC)) return false;
        if (memcmp(data + at + LENGTH, "IEND", NAME) == 0) return true;
        at += LENGTH + NAME + CRC + (size_t)n;
    }
    return false;
}

bool mode_image_is_whole(const uint8_t *data, size_t size)
{
    switch (mode_image_sniff(data, size)) {
    case MODE_IMAGE_JPEG: return jpeg_is_whole(data, size);
    case MODE_IMAGE_PNG: return png_is_whole(data, size);
    case MODE_IMAGE_WEBP:
        return ((uint64_t)data[7] << 24 | (uint64_t)data[6] << 16 | (uint64_t)data[5] << 8 | data[4]) <= size - 8;
    case MODE_IMAGE_UNKNOWN: break;
    }
    return false;
}

enum mode_status mode_image_check(uint64_t width, uint64_t height, const struct mode_image_limits *limits,
                                  struct mode_error *err)
{
    if (width == 0 || height == 0)
        return MODE_FAIL(err, MODE_E_FORMAT, "a picture of %llu x %llu pixels", (unsigned long long)width,
                         (unsigned long long)height);
    if (width > limits->max_side || height > limits->max_side)
        return MODE_FAIL(err, MODE_E_VALUE, "a picture of %llu x %llu pixels, at most %u a side are allowed",
                         (unsigned long long)width, (unsigned long long)height, limits->max_side);
    if (width * height > limits->max_pixels)
        return MODE_FAIL(err, MODE_E_VALUE, "a picture of %llu x %llu pixels, at most %llu in all are allowed",
                         (unsigned long long)width, (unsigned long long)height, (unsigned long long)limits->max_pixels);
    return MODE_OK;
}

enum mode_status mode_image_reserve(struct mode_image *im, uint64_t width, uint64_t height,
                                    const struct mode_image_limits *limits, struct mode_error *err)
{
    size_t bytes;
    enum mode_status st = mode_image_check(width, height, limits, err);
    *im = (struct mode_image){0};
    if (st) return st;
    uint8_t *rgb = mode_mul_size((size_t)(width * height), 3, &bytes) ? malloc(bytes) : NULL;
    if (!rgb)
        return MODE_FAIL(err, MODE_E_MEMORY, "no memory for a picture of %llu x %llu pixels", (unsigned long long)width,
                         (unsigned long long)height);
    *im = (struct mode_image){.rgb = rgb, .width = (int)width, .height = (int)height};
    return MODE_OK;
}

static enum mode_status decode(struct mode_image *im, int *width, int *height, const uint8_t *data, size_t size,
                               const struct mode_image_limits *limits, struct mode_error *err)
{
    if (size > limits->max_bytes)
        return MODE_FAIL(err, MODE_E_VALUE, "a picture file of %zu bytes, at most %zu are allowed", size,
                         limits->max_bytes);
    switch (mode_image_sniff(data, size)) {
    case MODE_IMAGE_JPEG: return mode_jpeg_decode(im, width, height, data, size, limits, err);
    case MODE_IMAGE_PNG: return mode_png_decode(im, width, height, data, size, limits, err);
    case MODE_IMAGE_WEBP: return mode_webp_decode(im, width, height, data, size, limits, err);
    case MODE_IMAGE_UNKNOWN: break;
    }
    return MODE_FAIL(err, MODE_E_FORMAT, "not a JPEG, PNG or WebP picture but %s", mode_image_looks_like(data, size));
}

enum mode_status mode__header_here(const uint8_t *data, size_t size, int *width, int *height, struct mode_error *err)
{
    const struct mode_image_limits any = {.max_pixels = UINT64_MAX, .max_side = UINT32_MAX, .max_bytes = SIZE_MAX};
    return decode(NULL, width, height, data, size, &any, err);
}

enum mode_status mode__decode_here(struct mode_image *im, const uint8_t *data, size_t size,
                                   const struct mode_image_limits *limits, struct mode_error *err)
{
    int width, height;
    *im = (struct mode_image){0};
    return decode(im, &width, &height, data, size, limits, err);
}

void mode_image_clear(struct mode_image *im)
{
    free(im->rgb);
    *im = (struct mode_image){0};
}

enum mode_status mode_image_resize(struct mode_image *out, const struct mode_image *in, int width, int height,
                                   double x0, double y0, double x1, double y1, struct mode_error *err)
{
    const struct mode_image_limits any = {.max_pixels = UINT64_MAX, .max_side = 1 << 24, .max_bytes = SIZE_MAX};
    const struct mode_rgb_view view = {
        .rgb = in->rgb, .stride = (size_t)in->width * 3, .width = in->width, .height = in->height};
    enum mode_status st = mode_image_reserve(out, width > 0 ? (uint64_t)width : 0, height > 0 ? (uint64_t)height : 0,
                                             &any, err);
    if (st) return st;
    st = mode_resize_rgb(out->rgb, width, height, &view, x0, y0, x1, y1, MODE_FILTER_BICUBIC, true, err);
    if (st) mode_image_clear(out);
    return st;
}
