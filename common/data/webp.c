#include "data/image_codecs.h"

#include <webp/decode.h>

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
    if (f.has_animation) return MODE_FAIL(err, MODE_E_FORMAT, "WebP: an animation, not a picture");
    if ((st = mode_image_reserve(im, (uint64_t)f.width, (uint64_t)f.height, limits, err))) return st;
    const int stride = im->width * 3;
    if (!WebPDecodeRGBInto(data, size, im->rgb, (size_t)stride * (size_t)im->height, stride)) {
        mode_image_clear(im);
        return MODE_FAIL(err, MODE_E_FORMAT, "WebP: the picture is damaged or cut short");
    }
    return MODE_OK;
}
