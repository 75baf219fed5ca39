#include "base/rng.h"
#include "data/image.h"
#include "data/resize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void mode_preprocess_default(struct mode_preprocess *p, int size)
{
    *p = (struct mode_preprocess){.size = size,
                                  .mean = {0.48145466f, 0.4578275f, 0.40821073f},
                                  .std = {0.26862954f, 0.26130258f, 0.27577711f},
                                  .resize_mode = MODE_RESIZE_SHORTEST};
}

/* [size, size, 3] bytes to [3, size, size] floats: (v / 255 - mean) / std, in single precision as torchvision
 * does */
static void normalise(const struct mode_preprocess *p, const uint8_t *rgb, float *out)
{
    float table[3][256];
    const size_t n = (size_t)p->size * (size_t)p->size;
    for (int c = 0; c < 3; c++)
        for (int v = 0; v < 256; v++) table[c][v] = ((float)v / 255.0f - p->mean[c]) / p->std[c];
    for (size_t i = 0; i < n; i++, rgb += 3) {
        out[i] = table[0][rgb[0]];
        out[n + i] = table[1][rgb[1]];
        out[2 * n + i] = table[2][rgb[2]];
    }
}

static enum mode_status check(const struct mode_preprocess *p, const struct mode_image *im, struct mode_error *err)
{
    if (p->size < 1 || p->size > 1 << 14)
        return MODE_FAIL(err, MODE_E_VALUE, "input size %d, expected 1 to %d", p->size, 1 << 14);
    if (!im->rgb || im->width < 1 || im->height < 1)
        return MODE_FAIL(err, MODE_E_VALUE, "an empty picture cannot be preprocessed");
    return MODE_OK;
}

static struct mode_rgb_view view_of(const struct mode_image *im, int x, int y, int w, int h)
{
    const size_t stride = (size_t)im->width * 3;
    const size_t last = (size_t)(y + h - 1) * stride + (size_t)(x + w) * 3;
    return (struct mode_rgb_view){.rgb = im->rgb + (size_t)y * stride + (size_t)x * 3,
                                  .stride = stride,
                                  .tail = stride * (size_t)im->height - last,
                                  .width = w,
                                  .height = h};
}

/* Size after the resize step; rounding as torchvision (shortest) and open_clip (longest) do. */
static void resized_size(const struct mode_preprocess *p, const struct mode_image *im, int64_t *w, int64_t *h)
{
    const int64_t s = p->size;
    *w = *h = s;
    if (p->resize_mode == MODE_RESIZE_SHORTEST) {
        if (im->width <= im->height)
            *h = (int64_t)((double)(s * im->height) / im->width);
        else
            *w = (int64_t)((double)(s * im->width) / im->height);
    } else if (p->resize_mode == MODE_RESIZE_LONGEST) {
        const double ratio = fmax((double)im->width / (double)s, (double)im->height / (double)s);
        *w = (int64_t)rint(im->width / ratio); /* halves to even, as Python's round */
        *h = (int64_t)rint(im->height / ratio);
        if (*w < 1) *w = 1;
        if (*h < 1) *h = 1;
    }
}

/* Centre crop of one direction: n pixels to s. Where n < s, `to` blank pixels come before. */
static void centre(int64_t n, int64_t s, int64_t *from, int64_t *to, int64_t *count)
{
    if (n >= s) {
        *from = (int64_t)rint((double)(n - s) / 2.0);
        *to = 0;
        *count = s;
    } else {
        *from = 0;
        *to = (s - n) / 2;
        *count = n;
    }
}

enum mode_status mode_preprocess_eval(const struct mode_preprocess *p, const struct mode_image *im, float *out,
                                      struct mode_error *err)
{
    struct mode_image_limits limits = MODE_IMAGE_LIMITS_DEFAULT;
    struct mode_image resized = {0};
    int64_t w, h, from_x, from_y, to_x, to_y, n_x, n_y;
    uint8_t *crop = NULL;
    enum mode_status st = check(p, im, err);
    if (st) return st;
    resized_size(p, im, &w, &h);
    if (w > (int64_t)limits.max_pixels / h)
        return MODE_FAIL(err, MODE_E_VALUE, "a picture of %dx%d pixels is too thin: resized it would have %lld x %lld",
                         im->width, im->height, (long long)w, (long long)h);
    if ((st = mode_image_resize(&resized, im, (int)w, (int)h, 0, 0, im->width, im->height, err))) goto out;
    const size_t size = (size_t)p->size;
    crop = calloc(size * size, 3);
    if (!crop) {
        st = MODE_FAIL(err, MODE_E_MEMORY, "no memory for a crop of %zu x %zu pixels", size, size);
        goto out;
    }
    centre(w, p->size, &from_x, &to_x, &n_x);
    centre(h, p->size, &from_y, &to_y, &n_y);
    for (int64_t y = 0; y < n_y; y++)
        memcpy(crop + ((size_t)(to_y + y) * size + (size_t)to_x) * 3,
               resized.rgb + ((size_t)(from_y + y) * (size_t)w + (size_t)from_x) * 3, (size_t)n_x * 3);
    normalise(p, crop, out);
out:
    free(crop);
    mode_image_clear(&resized);
    return st;
}

/* torchvision's RandomResizedCrop.get_params: ten tries, then the centre at the nearest allowed aspect. */
static void random_crop(struct mode_rng *r, int width, int height, double scale_min, double scale_max, int *x, int *y,
                        int *w, int *h)
{
    const double ratio_min = 3.0 / 4.0, ratio_max = 4.0 / 3.0;
    const double log_min = log(ratio_min), log_max = log(ratio_max);
    for (int i = 0; i < 10; i++) {
        const double area = (double)width * height * (scale_min + (scale_max - scale_min) * mode_rng_uniform(r));
        const double aspect = exp(log_min + (log_max - log_min) * mode_rng_uniform(r));
        const double cw = rint(sqrt(area * aspect)), ch = rint(sqrt(area / aspect));
        if (cw < 1 || cw > width || ch < 1 || ch > height) continue;
        *w = (int)cw;
        *h = (int)ch;
        *y = (int)mode_rng_below(r, (uint64_t)(height - *h) + 1);
        *x = (int)mode_rng_below(r, (uint64_t)(width - *w) + 1);
        return;
    }
    const double aspect = (double)width / height;
    *w = width;
    *h = height;
    if (aspect < ratio_min)
        *h = (int)rint(width / ratio_min);
    else if (aspect > ratio_max)
        *w = (int)rint(height * ratio_max);
    *x = (width - *w) / 2;
    *y = (height - *h) / 2;
}

enum mode_status mode_preprocess_train(const struct mode_preprocess *p, const struct mode_image *im, double scale_min,
                                       double scale_max, uint64_t seed, uint64_t epoch, uint64_t sample, float *out,
                                       struct mode_error *err)
{
    int x, y, w, h;
    enum mode_status st = check(p, im, err);
    if (st) return st;
    if (!(scale_min > 0 && scale_min <= scale_max && scale_max <= 1))
        return MODE_FAIL(err, MODE_E_VALUE, "crop area %g to %g, expected 0 < smallest <= largest <= 1", scale_min,
                         scale_max);
    struct mode_rng r = mode_rng_for(seed, MODE_RNG_CROP, epoch, sample);
    random_crop(&r, im->width, im->height, scale_min, scale_max, &x, &y, &w, &h);
    const size_t size = (size_t)p->size;
    uint8_t *crop = malloc(size * size * 3);
    if (!crop) return MODE_FAIL(err, MODE_E_MEMORY, "no memory for a crop of %zu x %zu pixels", size, size);
    const struct mode_rgb_view view = view_of(im, x, y, w, h);
    st = mode_resize_rgb(crop, p->size, p->size, &view, 0, 0, w, h, true, err);
    if (!st) normalise(p, crop, out);
    free(crop);
    return st;
}
