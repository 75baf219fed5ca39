/* norm.h - layer norm and L2 norm, 64 rows at a time. */
#ifndef MODE_NN_CPU_NORM_H
#define MODE_NN_CPU_NORM_H

#include "nn/cpu/gemm.h"

#include <math.h>

enum { NORM_ROWS = 64, NORM_CHUNKS = 32 };

INLINE float row_sum(const float *x, int64_t d)
{
    v8 s = splat8(0);
    int64_t j = 0;
    for (; j + 8 <= d; j += 8) s += load8(x + j);
    if (j < d) s += load_part(x + j, d - j);
    return sum8(s);
}

INLINE float row_dot(const float *a, const float *b, int64_t d)
{
    v8 s = splat8(0);
    int64_t j = 0;
    for (; j + 8 <= d; j += 8) s += load8(a + j) * load8(b + j);
    if (j < d) s += load_part(a + j, d - j) * load_part(b + j, d - j);
    return sum8(s);
}

struct norm {
    int64_t m, d, chunk, n_chunks;
    float *y, *stats, *dx, *partial;
    const float *x, *w, *b, *dy, *saved, *add;
    float eps;
};

static void layernorm_rows(void *ctx, int64_t item, int thread)
{
    const struct norm *n = ctx;
    int64_t d = n->d;
    (void)thread;
    for (int64_t i = item * NORM_ROWS; i < min64(n->m, (item + 1) * NORM_ROWS); i++) {
        const float *x = n->x + i * d;
        float *y = n->y + i * d;
        float mean = row_sum(x, d) / (float)d;
        v8 s = splat8(0);
        int64_t j = 0;
        for (; j + 8 <= d; j += 8) {
            v8 c = load8(x + j) - mean;
            s += c * c;
        }
        float var = sum8(s);
        for (; j < d; j++) var += (x[j] - mean) * (x[j] - mean);
        float rstd = 1.0f / sqrtf(var / (float)d + n->eps);
        if (n->stats) {
            n->stats[2 * i] = mean;
            n->stats[2 * i + 1] = rstd;
        }
        for (j = 0; j < d; j++) y[j] = (x[j] - mean) * rstd * n->w[j] + n->b[j];
    }
}

static void cpu_layernorm(struct mode_backend *be, struct mode_tensor *y, struct mode_tensor *stats,
                          const struct mode_tensor *x, const struct mode_tensor *w, const struct mode_tensor *b,
                          float eps)
{
    struct norm n = {.m = x->dim[0],
                     .d = x->dim[1],
                     .y = mode_f32(y),
                     .stats = stats ? mode_f32(stats) : NULL,
                     .x = mode_f32(x),
                     .w = mode_f32(w),
                     .b = mode_f32(b),
                     .eps = eps};
    (void)be;
    mode_parallel_for(ceil_div(n.m, NORM_ROWS), layernorm_rows, &n);
}

static void layernorm_back_chunk(void *ctx, int64_t item, int thread)
{
    const struct norm *n = ctx;
    int64_t d = n->d;
    float *dw = n->partial + item * 2 * d, *db = dw + d;
    (void)thread;
    memset(dw, 0, 2 * (size_t)d * sizeof *dw);
    for (int64_t i = item * n->chunk; i < min64(n->m, (item + 1) * n->chunk); i++) {
        const float *x = n->x + i * d, *dy = n->dy + i * d, *w = n->w;
        float *dx = n->dx + i * d, mean = n->saved[2 * i], rstd = n->saved[2 * i + 1];
        v8 sg = splat8(0), sgx = splat8(0);
        int64_t j = 0;
        for (; j + 8 <= d; j += 8) {
            v8 g = load8(dy + j), h = (load8(x + j) - mean) * rstd, gw = g * load8(w + j);
            sg += gw;
            sgx += gw * h;
            store8(dw + j, load8(dw + j) + g * h);
            store8(db + j, load8(db + j) + g);
        }
        float g = sum8(sg), gx = sum8(sgx);
        for (; j < d; j++) {
            float h = (x[j] - mean) * rstd;
            g += dy[j] * w[j];
            gx += dy[j] * w[j] * h;
            dw[j] += dy[j] * h;
            db[j] += dy[j];
        }
        g /= (float)d;
        gx /= (float)d;
        if (n->add) {
            const float *add = n->add + i * d;
            for (j = 0; j < d; j++) dx[j] = (dy[j] * w[j] - g - (x[j] - mean) * rstd * gx) * rstd + add[j];
        } else {
            for (j = 0; j < d; j++) dx[j] = (dy[j] * w[j] - g - (x[j] - mean) * rstd * gx) * rstd;
        }
    }
}

static void cpu_layernorm_back(struct mode_backend *be, struct mode_tensor *dx, struct mode_tensor *dw,
                               struct mode_tensor *db, const struct mode_tensor *dy, const struct mode_tensor *x,
                               const struct mode_tensor *stats, const struct mode_tensor *w,
                               const struct mode_tensor *add)
{
    struct norm n = {.m = x->dim[0],
                     .d = x->dim[1],
                     .dx = mode_f32(dx),
                     .x = mode_f32(x),
                     .w = mode_f32(w),
                     .dy = mode_f32(dy),
                     .saved = mode_f32(stats),
                     .add = add ? mode_f32(add) : NULL};
    if (n.m == 0) return;
    n.chunk = max64(NORM_ROWS, ceil_div(n.m, NORM_CHUNKS));
    n.n_chunks = ceil_div(n.m, n.chunk);
    n.partial = mode__backend_work(be, (size_t)(n.n_chunks * 2 * n.d) * sizeof *n.partial);
    mode_parallel_for(n.n_chunks, layernorm_back_chunk, &n);
    for (int64_t c = 1; c < n.n_chunks; c++)
        for (int64_t j = 0; j < 2 * n.d; j++) n.partial[j] += n.partial[c * 2 * n.d + j];
    for (int64_t j = 0; j < n.d; j++) {
        mode_f32(dw)[j] += n.partial[j];
        mode_f32(db)[j] += n.partial[n.d + j];
    }
}

static void l2norm_rows(void *ctx, int64_t item, int thread)
{
    const struct norm *n = ctx;
    (void)thread;
    for (int64_t i = item * NORM_ROWS; i < min64(n->m, (item + 1) * NORM_ROWS); i++) {
        const float *x = n->x + i * n->d;
        float *y = n->y + i * n->d, s = sqrtf(row_dot(x, x, n->d));
        s = s > 1e-12f ? s : 1e-12f;
        n->stats[i] = s;
        for (int64_t j = 0; j < n->d; j++) y[j] = x[j] / s;
    }
}

static void cpu_l2norm(struct mode_backend *be, struct mode_tensor *y, struct mode_tensor *norm,
                       const struct mode_tensor *x)
{
    struct norm n = {.m = x->dim[0], .d = x->dim[1], .y = mode_f32(y), .stats = mode_f32(norm), .x = mode_f32(x)};
    (void)be;
    mode_parallel_for(ceil_div(n.m, NORM_ROWS), l2norm_rows, &n);
}

static void l2norm_back_rows(void *ctx, int64_t item, int thread)
{
    const struct norm *n = ctx;
    (void)thread;
    for (int64_t i = item * NORM_ROWS; i < min64(n->m, (item + 1) * NORM_ROWS); i++) {
        const float *g = n->dy + i * n->d, *y = n->x + i * n->d;
        float *dx = n->dx + i * n->d, dot = row_dot(g, y, n->d), inv = 1.0f / n->saved[i];
        for (int64_t j = 0; j < n->d; j++) dx[j] = (g[j] - dot * y[j]) * inv;
    }
}

static void cpu_l2norm_back(struct mode_backend *be, struct mode_tensor *dx, const struct mode_tensor *dy,
                            const struct mode_tensor *y, const struct mode_tensor *norm)
{
    struct norm n = {.m = y->dim[0],
                     .d = y->dim[1],
                     .dx = mode_f32(dx),
                     .x = mode_f32(y),
                     .dy = mode_f32(dy),
                     .saved = mode_f32(norm)};
    (void)be;
    mode_parallel_for(ceil_div(n.m, NORM_ROWS), l2norm_back_rows, &n);
}

#endif
