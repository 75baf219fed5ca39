/* embed.h - embedding lookup, patches (im2col), gather and scatter: memory-bound. */
#ifndef MODE_NN_CPU_EMBED_H
#define MODE_NN_CPU_EMBED_H

#include "nn/cpu/gemm.h"
#include "nn/ref/ref.h"

enum { EMBED_COLUMNS = 32, COPY_ROWS = 64 };

struct embed {
    const int32_t *id, *o, *rows;
    int64_t d, n, p, size, patches; /* patches: of an image; those that are there, with kept */
    const int32_t *kept;
    int64_t all_patches;
    float *x, *table, *pos, *cls, *patch;
    const float *in, *in_table, *in_pos, *in_cls, *in_patch;
};

static void embed_sequence(void *ctx, int64_t b, int thread)
{
    const struct embed *e = ctx;
    int64_t d = e->d;
    (void)thread;
    for (int64_t r = e->o[b]; r < e->o[b + 1]; r++) {
        const float *t = e->in_table + e->id[r] * d, *p = e->in_pos + (r - e->o[b]) * d;
        float *x = e->x + r * d;
        for (int64_t j = 0; j < d; j++) x[j] = t[j] + p[j];
    }
}

static void cpu_embed(struct mode_backend *be, struct mode_tensor *x, const struct mode_tensor *table,
                      const struct mode_tensor *pos, const struct mode_tensor *ids, const struct mode_tensor *offsets)
{
    struct embed e = {.id = ids->data,
                      .o = offsets->data,
                      .d = x->dim[1],
                      .x = mode_f32(x),
                      .in_table = mode_f32(table),
                      .in_pos = mode_f32(pos)};
    (void)be;
    mode_parallel_for(offsets->dim[0] - 1, embed_sequence, &e);
}

/* An item is a strip of columns: rows of the same token are added by one thread, in order. */
static void embed_back_strip(void *ctx, int64_t item, int thread)
{
    const struct embed *e = ctx;
    int64_t d = e->d, j0 = item * EMBED_COLUMNS, j1 = min64(d, j0 + EMBED_COLUMNS);
    (void)thread;
    for (int64_t b = 0; b < e->n; b++)
        for (int64_t r = e->o[b]; r < e->o[b + 1]; r++) {
            const float *g = e->in + r * d;
            float *t = e->table + e->id[r] * d, *p = e->pos + (r - e->o[b]) * d;
            for (int64_t j = j0; j < j1; j++) {
                t[j] += g[j];
                p[j] += g[j];
            }
        }
}

static void cpu_embed_back(struct mode_backend *be, struct mode_tensor *dtable, struct mode_tensor *dpos,
                           const struct mode_tensor *dx, const struct mode_tensor *ids,
                           const struct mode_tensor *offsets)
{
    struct embed e = {.id = ids->data,
                      .o = offsets->data,
                      .d = dx->dim[1],
                      .n = offsets->dim[0] - 1,
                      .table = mode_f32(dtable),
                      .pos = mode_f32(dpos),
                      .in = mode_f32(dx)};
    (void)be;
    mode_parallel_for(ceil_div(e.d, EMBED_COLUMNS), embed_back_strip, &e);
}

/* Unused on CPUs: rows are resized as they leave the decoder (data/preprocess.c). */
static void cpu_picture_patches(struct mode_backend *be, struct mode_tensor *cols, const struct mode_pictures *pictures,
                                int64_t first, int64_t side, int64_t p)
{
    mode__ref_picture_patches(be, cols, pictures, first, side, p);
}

static void patches_image(void *ctx, int64_t b, int thread)
{
    const struct embed *e = ctx;
    int64_t p = e->p, s = e->size, g = s / p;
    float *out = e->x + b * g * g * 3 * p * p;
    (void)thread;
    for (int64_t gy = 0; gy < g; gy++)
        for (int64_t gx = 0; gx < g; gx++)
            for (int64_t c = 0; c < 3; c++)
                for (int64_t y = 0; y < p; y++) {
                    memcpy(out, e->in + ((b * 3 + c) * s + gy * p + y) * s + gx * p, (size_t)p * sizeof *out);
                    out += p;
                }
}

static void cpu_patches(struct mode_backend *be, struct mode_tensor *cols, const struct mode_tensor *pixels, int64_t p)
{
    struct embed e = {.p = p, .size = pixels->dim[2], .x = mode_f32(cols), .in = mode_f32(pixels)};
    (void)be;
    mode_parallel_for(pixels->dim[0], patches_image, &e);
}

/* The position of row i of image b. */
static int64_t position_of(const struct embed *e, int64_t b, int64_t i)
{
    return e->kept && i > 0 ? 1 + e->kept[b * e->patches + i - 1] % e->all_patches : i;
}

static void image_tokens_image(void *ctx, int64_t b, int thread)
{
    const struct embed *e = ctx;
    int64_t d = e->d, t = e->patches + 1;
    (void)thread;
    for (int64_t i = 0; i < t; i++) {
        const float *src = i == 0 ? e->in_cls : e->in_patch + (b * e->patches + i - 1) * d;
        const float *p = e->in_pos + position_of(e, b, i) * d;
        float *x = e->x + (b * t + i) * d;
        for (int64_t j = 0; j < d; j++) x[j] = src[j] + p[j];
    }
}

static void cpu_image_tokens(struct mode_backend *be, struct mode_tensor *x, const struct mode_tensor *patch,
                             const struct mode_tensor *cls, const struct mode_tensor *pos,
                             const struct mode_tensor *kept)
{
    const int64_t n = x->dim[0] - patch->dim[0];
    struct embed e = {.d = x->dim[1],
                      .patches = n > 0 ? patch->dim[0] / n : 0,
                      .kept = kept ? kept->data : NULL,
                      .all_patches = pos->dim[0] - 1,
                      .x = mode_f32(x),
                      .in_patch = mode_f32(patch),
                      .in_cls = mode_f32(cls),
                      .in_pos = mode_f32(pos)};
    (void)be;
    mode_parallel_for(n, image_tokens_image, &e);
}

/* An item is one position in the image, summed over images in order. */
static void image_tokens_back_place(void *ctx, int64_t i, int thread)
{
    const struct embed *e = ctx;
    int64_t d = e->d, t = e->patches + 1;
    float *pos = e->pos + i * d;
    (void)thread;
    for (int64_t b = 0; b < e->n; b++) {
        const float *g = e->in + (b * t + i) * d;
        for (int64_t j = 0; j < d; j++) pos[j] += g[j];
        if (i > 0)
            memcpy(e->patch + (b * e->patches + i - 1) * d, g, (size_t)d * sizeof *g);
        else
            for (int64_t j = 0; j < d; j++) e->cls[j] += g[j];
    }
}

/* An item is a strip of columns: the rows of a position, which every image has elsewhere, are added by one thread, in
 * the order of the images. */
static void kept_tokens_back_strip(void *ctx, int64_t item, int thread)
{
    const struct embed *e = ctx;
    int64_t d = e->d, t = e->patches + 1, j0 = item * EMBED_COLUMNS, j1 = min64(d, j0 + EMBED_COLUMNS);
    (void)thread;
    for (int64_t b = 0; b < e->n; b++)
        for (int64_t i = 0; i < t; i++) {
            const float *g = e->in + (b * t + i) * d;
            float *pos = e->pos + position_of(e, b, i) * d;
            for (int64_t j = j0; j < j1; j++) pos[j] += g[j];
            if (i > 0)
                memcpy(e->patch + (b * e->patches + i - 1) * d + j0, g + j0, (size_t)(j1 - j0) * sizeof *g);
            else
                for (int64_t j = j0; j < j1; j++) e->cls[j] += g[j];
        }
}

static void cpu_image_tokens_back(struct mode_backend *be, struct mode_tensor *dpatch, struct mode_tensor *dcls,
                                  struct mode_tensor *dpos, const struct mode_tensor *dx,
                                  const struct mode_tensor *kept)
{
    const int64_t n = dx->dim[0] - dpatch->dim[0];
    struct embed e = {.d = dx->dim[1],
                      .n = n,
                      .patches = n > 0 ? dpatch->dim[0] / n : 0,
                      .kept = kept ? kept->data : NULL,
                      .all_patches = dpos->dim[0] - 1,
                      .patch = mode_f32(dpatch),
                      .cls = mode_f32(dcls),
                      .pos = mode_f32(dpos),
                      .in = mode_f32(dx)};
    (void)be;
    if (kept)
        mode_parallel_for(ceil_div(e.d, EMBED_COLUMNS), kept_tokens_back_strip, &e);
    else
        mode_parallel_for(dpos->dim[0], image_tokens_back_place, &e);
}

static void gather_rows(void *ctx, int64_t item, int thread)
{
    const struct embed *e = ctx;
    (void)thread;
    for (int64_t i = item * COPY_ROWS; i < min64(e->n, (item + 1) * COPY_ROWS); i++)
        memcpy(e->x + i * e->d, e->in + e->rows[i] * e->d, (size_t)e->d * sizeof *e->x);
}

static void cpu_gather(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *x,
                       const struct mode_tensor *rows)
{
    struct embed e = {.d = x->dim[1], .n = rows->dim[0], .rows = rows->data, .x = mode_f32(y), .in = mode_f32(x)};
    (void)be;
    mode_parallel_for(ceil_div(e.n, COPY_ROWS), gather_rows, &e);
}

static void scatter_rows(void *ctx, int64_t item, int thread)
{
    const struct embed *e = ctx;
    (void)thread;
    for (int64_t i = item * COPY_ROWS; i < min64(e->n, (item + 1) * COPY_ROWS); i++) {
        const float *y = e->in + i * e->d;
        float *x = e->x + e->rows[i] * e->d;
        for (int64_t j = 0; j < e->d; j++) x[j] += y[j];
    }
}

static void cpu_scatter_add(struct mode_backend *be, struct mode_tensor *x, const struct mode_tensor *y,
                            const struct mode_tensor *rows)
{
    struct embed e = {.d = x->dim[1], .n = rows->dim[0], .rows = rows->data, .x = mode_f32(x), .in = mode_f32(y)};
    (void)be;
    mode_parallel_for(ceil_div(e.n, COPY_ROWS), scatter_rows, &e);
}

#endif
