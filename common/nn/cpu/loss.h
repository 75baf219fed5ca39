/* loss.h - CLIP's loss: three matrix products and two passes over the logits. Sums of the loss are in double. */
#ifndef MODE_NN_CPU_LOSS_H
#define MODE_NN_CPU_LOSS_H

#include "nn/cpu/gemm.h"

#include <math.h>

struct contrastive {
    int64_t n;
    float *s, scale; /* logits [n, n], without the scale at first */
    float *row, *col;
    double *row_loss, *row_slope;
};

static void loss_row(void *ctx, int64_t i, int thread)
{
    struct contrastive *c = ctx;
    float *s = c->s + i * c->n, max = -INFINITY;
    double sum = 0;
    int64_t j = 0;
    (void)thread;
    for (; j < c->n; j++) {
        s[j] *= c->scale;
        max = s[j] > max ? s[j] : max;
    }
    for (j = 0; j + 8 <= c->n; j += 8) sum += sum8(exp8(load8(s + j) - max));
    for (; j < c->n; j++) sum += expf(s[j] - max);
    c->row[i] = (float)(max + log(sum));
    c->row_loss[i] = max + log(sum) - s[i];
}

/* Eight neighbouring columns. */
static void loss_columns(void *ctx, int64_t item, int thread)
{
    struct contrastive *c = ctx;
    int64_t j = item * 8, n = min64(8, c->n - j);
    v8 max = splat8(-INFINITY);
    double sum[8] = {0};
    (void)thread;
    for (int64_t i = 0; i < c->n; i++) max = max8(max, load_part(c->s + i * c->n + j, n));
    for (int64_t i = 0; i < c->n; i++) {
        v8 e = exp8(load_part(c->s + i * c->n + j, n) - max);
        for (int l = 0; l < 8; l++) sum[l] += e[l];
    }
    for (int64_t l = 0; l < n; l++) c->col[j + l] = (float)(max[l] + log(sum[l]));
}

/* Logits become the gradient of the products a b^T. */
static void loss_gradient_row(void *ctx, int64_t i, int thread)
{
    struct contrastive *c = ctx;
    float *s = c->s + i * c->n, share = 0.5f / (float)c->n;
    double slope = 0;
    (void)thread;
    for (int64_t j = 0; j < c->n; j += 8) {
        int64_t n = min64(8, c->n - j);
        v8 x = load_part(s + j, n);
        v8 g = (exp8(x - c->row[i]) + exp8(x - load_part(c->col + j, n))) * share;
        if (i >= j && i < j + 8) g[i - j] -= 2 * share;
        for (int64_t l = 0; l < n; l++) slope += (double)g[l] * x[l];
        store_part(s + j, g * c->scale, n);
    }
    c->row_slope[i] = slope;
}

static void cpu_contrastive(struct mode_backend *be, double *loss, struct mode_tensor *da, struct mode_tensor *db,
                            struct mode_tensor *dlogit_scale, struct mode_tensor *work, const struct mode_tensor *a,
                            const struct mode_tensor *b, const struct mode_tensor *logit_scale)
{
    int64_t n = a->dim[0], e = a->dim[1];
    struct contrastive c = {.n = n, .s = mode_f32(work), .scale = expf(mode_f32(logit_scale)[0])};
    double total = 0, slope = 0;
    gemm(be, c.s, NULL, n, n, e, (struct view){mode_f32(a), e, 1}, (struct view){mode_f32(b), 1, e}, NULL, false);
    c.row_loss = mode__backend_work(be, (size_t)n * (2 * sizeof(double) + 2 * sizeof(float)));
    c.row_slope = c.row_loss + n;
    c.row = (float *)(c.row_slope + n);
    c.col = c.row + n;
    mode_parallel_for(n, loss_row, &c);
    mode_parallel_for(ceil_div(n, 8), loss_columns, &c);
    for (int64_t i = 0; i < n; i++) total += c.row_loss[i] + c.col[i] - c.s[i * n + i];
    *loss = total / (2.0 * (double)n);
    mode_parallel_for(n, loss_gradient_row, &c);
    for (int64_t i = 0; i < n; i++) slope += c.row_slope[i];
    mode_f32(dlogit_scale)[0] += (float)slope;
    gemm(be, mode_f32(da), NULL, n, e, n, (struct view){c.s, n, 1}, (struct view){mode_f32(b), e, 1}, NULL, false);
    gemm(be, mode_f32(db), NULL, n, e, n, (struct view){c.s, 1, n}, (struct view){mode_f32(a), e, 1}, NULL, false);
}

#endif
