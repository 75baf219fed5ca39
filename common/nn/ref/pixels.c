#include "nn/ref/ref.h"

#include <stdlib.h>

/* Output o of n: its inputs lie at in, in + step, ... */
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

void mode__ref_pixels(struct mode_backend *be, struct mode_tensor *pixels, const struct mode_tensor *bytes,
                      const struct mode_pixels_window *windows, const struct mode_tensor *levels, uint8_t border)
{
    const int64_t s = pixels->dim[2];
    const float *level = mode_f32(levels);
    for (int64_t b = 0; b < pixels->dim[0]; b++) {
        const struct mode_pixels_window *w = &windows[b];
        const uint8_t *base = bytes->data, *rgb = base + w->rgb;
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
        float *out = mode_f32(pixels) + b * 3 * s * s;
        for (int64_t c = 0; c < 3; c++)
            for (int64_t i = 0; i < s * s; i++) out[c * s * s + i] = level[c * 256 + border];
        for (int64_t c = 0; c < 3; c++)
            for (int64_t y = 0; y < w->n_y; y++)
                for (int64_t x = 0; x < w->n_x; x++)
                    out[(c * s + w->y + y) * s + w->x + x] = level[c * 256 + done[(y * w->n_x + x) * 3 + c]];
    }
}
