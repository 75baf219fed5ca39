#include "data/face_boxes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_box(const json_t *v)
{
    const size_t n = json_is_array(v) ? json_array_size(v) : 0;
    if (n != 4 && n != 5) return false;
    for (size_t i = 0; i < n; i++)
        if (!json_is_number(json_array_get(v, i)) || !isfinite(json_number_value(json_array_get(v, i)))) return false;
    return true;
}

static uint32_t within(double v, uint32_t most)
{
    return v <= 0 ? 0 : v >= most ? most : (uint32_t)v;
}

bool mode_face_boxes(struct mode_box **boxes, uint32_t *n, const json_t *v, uint32_t width, uint32_t height, char *why,
                     size_t why_size)
{
    const bool one = is_box(v);
    const size_t count = !v || json_is_null(v) ? 0 : one ? 1 : json_array_size(v);
    bool relative = true;
    *boxes = NULL;
    *n = 0;
    if (v && !json_is_null(v) && !json_is_array(v)) {
        snprintf(why, why_size, "the boxes to blur are not a list");
        return false;
    }
    if (count > MODE_FACE_BOXES_MAX) {
        snprintf(why, why_size, "%zu boxes to blur, at most %d are read", count, MODE_FACE_BOXES_MAX);
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *b = one ? v : json_array_get(v, i);
        double c[4];
        if (!is_box(b)) {
            snprintf(why, why_size, "box %zu to blur is not [x0, y0, x1, y1]", i);
            return false;
        }
        for (size_t k = 0; k < 4; k++) c[k] = json_number_value(json_array_get(b, k));
        if (c[2] < c[0] || c[3] < c[1]) {
            snprintf(why, why_size, "box %zu to blur ends before it begins", i);
            return false;
        }
        for (size_t k = 0; k < 4; k++) relative = relative && c[k] <= 1;
    }
    struct mode_box *out = count ? malloc(count * sizeof *out) : NULL;
    if (count && !out) {
        snprintf(why, why_size, "no memory for %zu boxes", count);
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *b = one ? v : json_array_get(v, i);
        const double sx = relative ? width : 1, sy = relative ? height : 1;
        const struct mode_box box = {.x0 = within(floor(json_number_value(json_array_get(b, 0)) * sx), width),
                                     .y0 = within(floor(json_number_value(json_array_get(b, 1)) * sy), height),
                                     .x1 = within(ceil(json_number_value(json_array_get(b, 2)) * sx), width),
                                     .y1 = within(ceil(json_number_value(json_array_get(b, 3)) * sy), height)};
        if (box.x1 > box.x0 && box.y1 > box.y0) out[(*n)++] = box;
    }
    if (*n == 0) free(out);
    *boxes = *n ? out : NULL;
    return true;
}

/* Running mean over 2 r + 1 values of n that lie `step` apart; the end values extend beyond the ends. line: n bytes of
 * scratch. */
static void mean_line(uint8_t *p, size_t step, int n, int r, uint8_t *line)
{
    const int count = 2 * r + 1;
    int64_t sum = 0;
    for (int i = 0; i < n; i++) line[i] = p[(size_t)i * step];
    for (int i = -r; i <= r; i++) sum += line[i < 0 ? 0 : i < n ? i : n - 1];
    for (int i = 0; i < n; i++) {
        p[(size_t)i * step] = (uint8_t)((sum + r) / count);
        const int out = i - r, in = i + r + 1;
        sum += line[in < n ? in : n - 1] - line[out < 0 ? 0 : out];
    }
}

/* Three box filters in each direction approximate a Gaussian. */
static void blur(uint8_t *p, int w, int h, int channels, int r, uint8_t *line)
{
    const size_t row = (size_t)w * (size_t)channels;
    for (int c = 0; c < channels; c++)
        for (int pass = 0; pass < 3; pass++) {
            for (int y = 0; y < h; y++) mean_line(p + (size_t)y * row + c, (size_t)channels, w, r, line);
            for (int x = 0; x < w; x++) mean_line(p + (size_t)x * (size_t)channels + c, row, h, r, line);
        }
}

static enum mode_status blur_box(struct mode_image *im, const struct mode_box *b, struct mode_error *err)
{
    if (b->x0 >= b->x1 || b->y0 >= b->y1 || b->x1 > (uint32_t)im->width || b->y1 > (uint32_t)im->height)
        return MODE_FAIL(err, MODE_E_VALUE, "box (%u, %u)-(%u, %u) to blur is not inside a picture of %dx%d", b->x0,
                         b->y0, b->x1, b->y1, im->width, im->height);
    const int bw = (int)(b->x1 - b->x0), bh = (int)(b->y1 - b->y0), longer = bw > bh ? bw : bh;
    const double deviation = 0.1 * longer;
    const int grow = (int)(0.1 * longer);
    int r = (int)rint((sqrt(4 * deviation * deviation + 1) - 1) / 2); /* three box filters of width 2 r + 1 have this
                                                                         standard deviation */
    if (r < 1) r = 1;
    /* the window: where the mask's soft edge ends */
    const int reach = grow + 3 * r;
    const int x0 = (int)b->x0 > reach ? (int)b->x0 - reach : 0, y0 = (int)b->y0 > reach ? (int)b->y0 - reach : 0;
    const int x1 = im->width - (int)b->x1 > reach ? (int)b->x1 + reach : im->width;
    const int y1 = im->height - (int)b->y1 > reach ? (int)b->y1 + reach : im->height;
    const int w = x1 - x0, h = y1 - y0;
    const size_t n = (size_t)w * (size_t)h;
    uint8_t *soft = malloc(n * 3), *mask = calloc(n, 1), *line = malloc((size_t)(w > h ? w : h));
    enum mode_status st = MODE_OK;
    if (!soft || !mask || !line) {
        st = MODE_FAIL(err, MODE_E_MEMORY, "no memory to blur %d x %d pixels", w, h);
        goto out;
    }
    for (int y = 0; y < h; y++) {
        memcpy(soft + (size_t)y * (size_t)w * 3, im->rgb + ((size_t)(y0 + y) * (size_t)im->width + (size_t)x0) * 3,
               (size_t)w * 3);
        for (int x = 0; x < w; x++)
            if (x0 + x >= (int)b->x0 - grow && x0 + x < (int)b->x1 + grow && y0 + y >= (int)b->y0 - grow &&
                y0 + y < (int)b->y1 + grow)
                mask[(size_t)y * (size_t)w + (size_t)x] = 255;
    }
    blur(soft, w, h, 3, r, line);
    blur(mask, w, h, 1, r, line);
    for (int y = 0; y < h; y++) {
        uint8_t *px = im->rgb + ((size_t)(y0 + y) * (size_t)im->width + (size_t)x0) * 3;
        for (int x = 0; x < w; x++) {
            const int m = mask[(size_t)y * (size_t)w + (size_t)x];
            for (int c = 0; c < 3; c++, px++)
                *px = (uint8_t)((*px * (255 - m) + soft[((size_t)y * (size_t)w + (size_t)x) * 3 + (size_t)c] * m +
                                 127) /
                                255);
        }
    }
out:
    free(soft);
    free(mask);
    free(line);
    return st;
}

enum mode_status mode_faces_blur(struct mode_image *im, const struct mode_box *boxes, uint32_t n,
                                 struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    for (uint32_t i = 0; !st && i < n; i++) st = blur_box(im, &boxes[i], err);
    return st;
}
