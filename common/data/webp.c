#include "data/image_codecs.h"

#include <string.h>
#include <webp/decode.h>

static uint32_t le(const uint8_t *p, int n)
{
    uint32_t v = 0;
    for (int i = n - 1; i >= 0; i--) v = v << 8 | p[i];
    return v;
}

/* The next chunk of [*at, end): its FourCC, or NULL without another complete one. */
static const uint8_t *next_chunk(const uint8_t **at, const uint8_t *end, const uint8_t **body, size_t *size)
{
    const uint8_t *p = *at;
    if (end - p < 8) return NULL;
    const uint32_t n = le(p + 4, 4);
    if (n > (size_t)(end - p) - 8) return NULL;
    *body = p + 8;
    *size = n;
    *at = n + (n & 1) <= (size_t)(end - p) - 8 ? p + 8 + n + (n & 1) : end;
    return p;
}

/* The first frame of an animation, on black, into im of the canvas's size: what Pillow shows. Alpha is dropped, so
 * blending does not matter. */
static enum mode_status first_frame(struct mode_image *im, const uint8_t *data, size_t size, struct mode_error *err)
{
    enum { FRAME_HEADER = 16 };
    const uint8_t *at = data + 12, *end = data + size, *name, *body;
    size_t n;
    while ((name = next_chunk(&at, end, &body, &n)) && memcmp(name, "ANMF", 4) != 0) {
    }
    if (!name || n < FRAME_HEADER)
        return MODE_FAIL(err, MODE_E_FORMAT, "WebP: an animation whose first frame is missing or cut short");
    const int x = (int)le(body, 3) * 2, y = (int)le(body + 3, 3) * 2;
    const int w = (int)le(body + 6, 3) + 1, h = (int)le(body + 9, 3) + 1;
    const size_t stride = (size_t)im->width * 3;
    if (w > im->width - x || h > im->height - y)
        return MODE_FAIL(err, MODE_E_FORMAT, "WebP: frame of %dx%d at (%d, %d) on a canvas of %dx%d", w, h, x, y,
                         im->width, im->height);
    at = body + FRAME_HEADER;
    end = body + n;
    while ((name = next_chunk(&at, end, &body, &n)) && memcmp(name, "VP8 ", 4) != 0 && memcmp(name, "VP8L", 4) != 0) {
    }
    int got_w = 0, got_h = 0;
    uint8_t *rgb = im->rgb + (size_t)y * stride + (size_t)x * 3;
    memset(im->rgb, 0, stride * (size_t)im->height);
    if (!name || !WebPGetInfo(body, n, &got_w, &got_h) || got_w != w || got_h != h ||
        !WebPDecodeRGBInto(body, n, rgb, stride * (size_t)(h - 1) + (size_t)w * 3, (int)stride))
        return MODE_FAIL(err, MODE_E_FORMAT, "WebP: the animation's first frame is damaged or cut short");
    return MODE_OK;
}

enum mode_status mode_webp_decode(struct mode_image *im, int *width, int *height, const uint8_t *data, size_t size,
                                  const struct mode_image_limits *limits, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    WebPBitstreamFeatures f;
    VP8StatusCode rc = WebPGetFeatures(data, size, &f);
    if (rc != VP8_STATUS_OK) return MODE_FAIL(err, MODE_E_FORMAT, "WebP: the header is damaged (status %d)", (int)rc);
    *width = f.width;
    *height = f.height;
    if (!im) return MODE_OK;
    if ((st = mode_image_reserve(im, (uint64_t)f.width, (uint64_t)f.height, limits, err))) return st;
    const int stride = im->width * 3;
    if (f.has_animation) {
        if (le(data + 4, 4) > size - 8) {
            mode_image_clear(im);
            return MODE_FAIL(err, MODE_E_FORMAT, "WebP: the animation is cut short: %zu of %llu bytes", size,
                             (unsigned long long)le(data + 4, 4) + 8);
        }
        if ((st = first_frame(im, data, size, err))) mode_image_clear(im);
        return st;
    }
    if (!WebPDecodeRGBInto(data, size, im->rgb, (size_t)stride * (size_t)im->height, stride)) {
        mode_image_clear(im);
        return MODE_FAIL(err, MODE_E_FORMAT, "WebP: the picture is damaged or cut short");
    }
    return MODE_OK;
}
