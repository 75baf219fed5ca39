#include "nn/ref/ref.h"

void mode__ref_embed(struct mode_backend *be, struct mode_tensor *x, const struct mode_tensor *table,
                     const struct mode_tensor *pos, const struct mode_tensor *ids, const struct mode_tensor *offsets)
{
    const int32_t *id = ids->data, *o = offsets->data;
    int64_t d = x->dim[1];
    (void)be;
    for (int64_t b = 0; b < offsets->dim[0] - 1; b++)
        for (int64_t r = o[b]; r < o[b + 1]; r++)
            for (int64_t j = 0; j < d; j++)
                mode__ref_put(x, r * d + j, mode_f32(table)[id[r] * d + j] + mode_f32(pos)[(r - o[b]) * d + j]);
}

void mode__ref_embed_back(struct mode_backend *be, struct mode_tensor *dtable, struct mode_tensor *dpos,
                          const struct mode_tensor *dx, const struct mode_tensor *ids,
                          const struct mode_tensor *offsets)
{
    const int32_t *id = ids->data, *o = offsets->data;
    int64_t d = dx->dim[1];
    (void)be;
    for (int64_t b = 0; b < offsets->dim[0] - 1; b++)
        for (int64_t r = o[b]; r < o[b + 1]; r++)
            for (int64_t j = 0; j < d; j++) {
                mode__ref_add(dtable, id[r] * d + j, mode__ref_get(dx, r * d + j));
                mode__ref_add(dpos, (r - o[b]) * d + j, mode__ref_get(dx, r * d + j));
            }
}

void mode__ref_patches(struct mode_backend *be, struct mode_tensor *cols, const struct mode_tensor *pixels, int64_t p)
{
    int64_t n = pixels->dim[0], s = pixels->dim[2], g = s / p;
    int64_t at = 0;
    (void)be;
    for (int64_t b = 0; b < n; b++)
        for (int64_t gy = 0; gy < g; gy++)
            for (int64_t gx = 0; gx < g; gx++)
                for (int64_t c = 0; c < 3; c++)
                    for (int64_t y = 0; y < p; y++)
                        for (int64_t x = 0; x < p; x++)
                            mode__ref_put(cols, at++,
                                          mode_f32(pixels)[((b * 3 + c) * s + gy * p + y) * s + gx * p + x]);
}

/* The position of row i of image b; each: rows of an image. */
static int64_t position_of(int64_t b, int64_t i, int64_t each, const struct mode_tensor *pos,
                           const struct mode_tensor *kept)
{
    if (!kept || i == 0) return i;
    return 1 + ((const int32_t *)kept->data)[b * (each - 1) + i - 1] % (pos->dim[0] - 1);
}

void mode__ref_image_tokens(struct mode_backend *be, struct mode_tensor *x, const struct mode_tensor *patch,
                            const struct mode_tensor *cls, const struct mode_tensor *pos,
                            const struct mode_tensor *kept)
{
    int64_t d = x->dim[1], n = x->dim[0] - patch->dim[0], t = n > 0 ? x->dim[0] / n : 0;
    (void)be;
    for (int64_t b = 0; b < n; b++)
        for (int64_t i = 0; i < t; i++)
            for (int64_t j = 0; j < d; j++)
                mode__ref_put(x, (b * t + i) * d + j,
                              (i == 0 ? mode_f32(cls)[j] : mode__ref_get(patch, (b * (t - 1) + i - 1) * d + j)) +
                                  mode_f32(pos)[position_of(b, i, t, pos, kept) * d + j]);
}

/* The row of image b with position p, or -1: it is not kept. */
static int64_t row_of(int64_t b, int64_t p, int64_t each, const struct mode_tensor *pos, const struct mode_tensor *kept)
{
    if (!kept) return p;
    for (int64_t i = 0; i < each; i++)
        if (position_of(b, i, each, pos, kept) == p) return i;
    return -1;
}

void mode__ref_image_tokens_back(struct mode_backend *be, struct mode_tensor *dpatch, struct mode_tensor *dcls,
                                 struct mode_tensor *dpos, const struct mode_tensor *dx, const struct mode_tensor *kept)
{
    int64_t d = dx->dim[1], n = dx->dim[0] - dpatch->dim[0], t = n > 0 ? dx->dim[0] / n : 0;
    (void)be;
    for (int64_t p = 0; p < dpos->dim[0]; p++)
        for (int64_t j = 0; j < d; j++) {
            double s = 0;
            for (int64_t b = 0; b < n; b++) {
                int64_t i = row_of(b, p, t, dpos, kept);
                if (i < 0) continue;
                double g = mode__ref_get(dx, (b * t + i) * d + j);
                s += g;
                if (i > 0) mode__ref_put(dpatch, (b * (t - 1) + i - 1) * d + j, g);
            }
            if (p == 0) mode__ref_add(dcls, j, s);
            mode__ref_add(dpos, p * d + j, s);
        }
}

void mode__ref_gather(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *x,
                      const struct mode_tensor *rows)
{
    const int32_t *r = rows->data;
    int64_t d = x->dim[1];
    (void)be;
    for (int64_t i = 0; i < rows->dim[0]; i++)
        for (int64_t j = 0; j < d; j++) mode__ref_put(y, i * d + j, mode__ref_get(x, r[i] * d + j));
}

void mode__ref_scatter_add(struct mode_backend *be, struct mode_tensor *x, const struct mode_tensor *y,
                           const struct mode_tensor *rows)
{
    const int32_t *r = rows->data;
    int64_t d = x->dim[1];
    (void)be;
    for (int64_t i = 0; i < rows->dim[0]; i++)
        for (int64_t j = 0; j < d; j++) mode__ref_add(x, r[i] * d + j, mode__ref_get(y, i * d + j));
}
