/* rows.h - layer scale, and mean pooling of sequences. */
#ifndef MODE_NN_CPU_ROWS_H
#define MODE_NN_CPU_ROWS_H

#include "nn/cpu/gemm.h"

enum { ROWS_BLOCK = 64, ROWS_CHUNKS = 32 };

struct rows {
    int64_t m, d, chunk, skip;
    float *out, *partial;
    const float *x, *g, *add, *dy;
    const int32_t *offsets;
};

static void scale_rows(void *ctx, int64_t item, int thread)
{
    const struct rows *r = ctx;
    int64_t d = r->d;
    (void)thread;
    for (int64_t i = item * ROWS_BLOCK; i < min64(r->m, (item + 1) * ROWS_BLOCK); i++) {
        const float *x = r->x + i * d, *add = r->add + i * d;
        float *y = r->out + i * d;
        for (int64_t j = 0; j < d; j++) y[j] = x[j] * r->g[j] + add[j];
    }
}

static void cpu_scale(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *x,
                      const struct mode_tensor *g, const struct mode_tensor *add)
{
    struct rows r = {
        .m = x->dim[0], .d = x->dim[1], .out = mode_f32(y), .x = mode_f32(x), .g = mode_f32(g), .add = mode_f32(add)};
    (void)be;
    mode_parallel_for(ceil_div(r.m, ROWS_BLOCK), scale_rows, &r);
}

static void scale_back_chunk(void *ctx, int64_t item, int thread)
{
    const struct rows *r = ctx;
    int64_t d = r->d;
    float *dg = r->partial + item * d;
    (void)thread;
    memset(dg, 0, (size_t)d * sizeof *dg);
    for (int64_t i = item * r->chunk; i < min64(r->m, (item + 1) * r->chunk); i++) {
        const float *x = r->x + i * d, *dy = r->dy + i * d;
        float *dx = r->out + i * d;
        for (int64_t j = 0; j < d; j++) {
            dg[j] += dy[j] * x[j];
            dx[j] = dy[j] * r->g[j];
        }
    }
}

static void cpu_scale_back(struct mode_backend *be, struct mode_tensor *dx, struct mode_tensor *dg,
                           const struct mode_tensor *dy, const struct mode_tensor *x, const struct mode_tensor *g)
{
    struct rows r = {
        .m = x->dim[0], .d = x->dim[1], .out = mode_f32(dx), .x = mode_f32(x), .g = mode_f32(g), .dy = mode_f32(dy)};
    r.chunk = max64(ROWS_BLOCK, ceil_div(r.m, ROWS_CHUNKS));
    int64_t n = ceil_div(r.m, r.chunk);
    r.partial = mode__backend_work(be, (size_t)(max64(n, 1) * r.d) * sizeof *r.partial);
    mode_parallel_for(n, scale_back_chunk, &r);
    for (int64_t c = 0; c < n; c++)
        for (int64_t j = 0; j < r.d; j++) mode_f32(dg)[j] += r.partial[c * r.d + j];
}

static void mean_sequence(void *ctx, int64_t item, int thread)
{
    const struct rows *r = ctx;
    int64_t first = r->offsets[item] + r->skip, end = r->offsets[item + 1], d = r->d;
    float *y = r->out + item * d, share = 1.0f / (float)(end - first);
    (void)thread;
    memset(y, 0, (size_t)d * sizeof *y);
    for (int64_t i = first; i < end; i++)
        for (int64_t j = 0; j < d; j++) y[j] += r->x[i * d + j];
    for (int64_t j = 0; j < d; j++) y[j] *= share;
}

static void cpu_mean_rows(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *x,
                          const struct mode_tensor *offsets, int64_t skip)
{
    struct rows r = {.d = x->dim[1], .skip = skip, .out = mode_f32(y), .x = mode_f32(x), .offsets = offsets->data};
    (void)be;
    mode_parallel_for(y->dim[0], mean_sequence, &r);
}

static void mean_back_sequence(void *ctx, int64_t item, int thread)
{
    const struct rows *r = ctx;
    int64_t begin = r->offsets[item], first = begin + r->skip, end = r->offsets[item + 1], d = r->d;
    const float *dy = r->dy + item * d;
    float share = 1.0f / (float)(end - first);
    (void)thread;
    memset(r->out + begin * d, 0, (size_t)(r->skip * d) * sizeof *r->out);
    for (int64_t i = first; i < end; i++)
        for (int64_t j = 0; j < d; j++) r->out[i * d + j] = dy[j] * share;
}

static void cpu_mean_rows_back(struct mode_backend *be, struct mode_tensor *dx, const struct mode_tensor *dy,
                               const struct mode_tensor *offsets, int64_t skip)
{
    struct rows r = {.d = dx->dim[1], .skip = skip, .out = mode_f32(dx), .dy = mode_f32(dy), .offsets = offsets->data};
    (void)be;
    mode_parallel_for(dy->dim[0], mean_back_sequence, &r);
}

#endif
