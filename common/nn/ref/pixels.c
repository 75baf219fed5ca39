#include "nn/ref/ref.h"

#include <stdlib.h>

/* Output o of n; its inputs are at in, in + step, ... */
static uint8_t weigh(const uint8_t *in, int64_t step, const int32_t *taps, int64_t n, int64_t o)
{
    const int32_t first = taps[o], count = taps[n + o];
    int32_t sum = 1 << (MODE_PIXELS_BITS - 1);
    for (int64_t j = 0; j < count; j++) sum += in[(first + j) * step] * taps[(2 + j) * n + o];
    sum >>= MODE_PIXELS_BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* [rows, n, 3] of [rows, width, 3] */
static void across(uint8_t *out, const uint8_t *in, int64_t rows, int64_t width, const int32_t *taps, int64_t n)
{
    for (int64_t y = 0; y < rows; y++)
        for (int64_t x = 0; x < n; x++)
            for (int64_t c = 0; c < 3; c++) out[(y * n + x) * 3 + c] = weigh(in + y * width * 3 + c, 3, taps, n, x);
}

/* [n, columns, 3] of [height, columns, 3] */
static void down(uint8_t *out, const uint8_t *in, int64_t columns, const int32_t *taps, int64_t n)
{
    for (int64_t y = 0; y < n; y++)
        for (int64_t i = 0; i < columns * 3; i++) out[y * columns * 3 + i] = weigh(in + i, columns * 3, taps, n, y);
}

/* [n_y, n_x, 3] of one picture, in the scratch */
static const uint8_t *resized(struct mode_backend *be, const struct mode_pictures *pictures,
                              const struct mode_pixels_window *w)
{
    const uint8_t *base = pictures->bytes, *rgb = base + w->rgb;
    const int32_t *to_x = (const int32_t *)(const void *)(base + w->across),
                  *to_y = (const int32_t *)(const void *)(base + w->down);
    uint8_t *between = mode__backend_work(be, (size_t)(mode_pixels_between(w) + w->n_x * (int64_t)w->n_y * 3)),
            *done = between + mode_pixels_between(w);
    if (w->down_first) {
        down(between, rgb, w->width, to_y, w->n_y);
        across(done, between, w->n_y, w->width, to_x, w->n_x);
    } else {
        across(between, rgb, w->height, w->width, to_x, w->n_x);
        down(done, between, w->n_x, to_y, w->n_y);
    }
    return done;
}

void mode__ref_picture_patches(struct mode_backend *be, struct mode_tensor *cols, const struct mode_pictures *pictures,
                               int64_t first, int64_t side, int64_t p)
{
    const int64_t g = side / p, n = cols->dim[0] / (g * g);
    int64_t at = 0;
    for (int64_t b = 0; b < n; b++) {
        const struct mode_pixels_window *w = &pictures->windows[first + b];
        const uint8_t *done = resized(be, pictures, w);
        for (int64_t patch = 0; patch < g * g; patch++)
            for (int64_t c = 0; c < 3; c++)
                for (int64_t i = 0; i < p * p; i++) {
                    const int64_t y = patch / g * p + i / p - w->y, x = patch % g * p + i % p - w->x;
                    const bool inside = y >= 0 && y < w->n_y && x >= 0 && x < w->n_x;
                    const uint8_t v = inside ? done[(y * w->n_x + x) * 3 + c] : pictures->border;
                    mode__ref_put(cols, at++, (double)pictures->levels[c * 256 + v]);
                }
    }
}
