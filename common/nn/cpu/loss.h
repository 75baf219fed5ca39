/* loss.h - CLIP's loss, a block of rows of logits at a time: forward a GEMM and two passes over them, backward a pass
 * and two GEMMs. The loss is accumulated in double. */
#ifndef MODE_NN_CPU_LOSS_H
#define MODE_NN_CPU_LOSS_H

#include "nn/cpu/gemm.h"

#include <math.h>

struct contrastive { /* a block of logits [rows, n] */
    int64_t rows, n;
    float *s, scale, *col32;
    double *row, *col, *row_slope;
    int64_t diagonal; /* column of row 0's pair */
    bool more;        /* col already includes earlier rows */
    float times;      /* logits are times * s: 1 when s holds logits */
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
    c->row[i] = max + log(sum);
}

/* Eight neighbouring columns. */
static void loss_columns(void *ctx, int64_t item, int thread)
{
    const struct contrastive *c = ctx;
    int64_t j = item * 8, n = min64(8, c->n - j);
    v8 max = splat8(-INFINITY);
    double sum[8] = {0};
    (void)thread;
    for (int64_t i = 0; i < c->rows; i++) max = max8(max, load_part(c->s + i * c->n + j, n));
    for (int64_t i = 0; i < c->rows; i++) {
        v8 e = exp8(load_part(c->s + i * c->n + j, n) - max);
        for (int l = 0; l < 8; l++) sum[l] += e[l];
    }
    for (int64_t l = 0; l < n; l++) {
        double lse = max[l] + log(sum[l]);
        c->col[j + l] = c->more ? mode_log_add(c->col[j + l], lse) : lse;
    }
}

/* Logits become the gradient of a b^T. */
static void loss_gradient_row(void *ctx, int64_t i, int thread)
{
    struct contrastive *c = ctx;
    float *s = c->s + i * c->n, share = 0.5f / (float)c->n, row = (float)c->row[i];
    int64_t diagonal = c->diagonal + i;
    double slope = 0;
    (void)thread;
    for (int64_t j = 0; j < c->n; j += 8) {
        int64_t n = min64(8, c->n - j);
        v8 x = load_part(s + j, n) * c->times;
        v8 g = (exp8(x - row) + exp8(x - load_part(c->col32 + j, n))) * share;
        if (diagonal >= j && diagonal < j + 8) g[diagonal - j] -= 2 * share;
        for (int64_t l = 0; l < n; l++) slope += (double)g[l] * x[l];
        store_part(s + j, g * c->scale, n);
    }
    c->row_slope[i] = slope;
}

/* s [rows, n] = rows i.. of a times b^T */
static void loss_products(struct mode_backend *be, float *s, const struct mode_tensor *a, int64_t i, int64_t rows,
                          const struct mode_tensor *b)
{
    int64_t n = b->dim[0], e = b->dim[1];
    gemm(be, s, NULL, rows, n, e, (struct view){mode_f32(a) + i * e, e, 1}, (struct view){mode_f32(b), 1, e}, NULL,
         false);
}

static void cpu_contrastive(struct mode_backend *be, struct mode_tensor *row, struct mode_tensor *col,
                            struct mode_tensor *work, const struct mode_tensor *a, const struct mode_tensor *b,
                            const struct mode_tensor *logit_scale)
{
    int64_t m = a->dim[0], n = b->dim[0], t = work->dim[0];
    for (int64_t i = 0; i < m; i += t) {
        int64_t rows = min64(t, m - i);
        struct contrastive c = {.rows = rows,
                                .n = n,
                                .s = mode_f32(work),
                                .scale = expf(mode_f32(logit_scale)[0]),
                                .row = (double *)row->data + i,
                                .col = col->data,
                                .more = i > 0};
        loss_products(be, c.s, a, i, rows, b);
        mode_parallel_for(rows, loss_row, &c);
        mode_parallel_for(ceil_div(n, 8), loss_columns, &c);
    }
}

struct loss_joined {
    double *col;
    const double *each;
    int64_t size, n;
};

enum { JOINED_COLUMNS = 1024 };

static void loss_join_block(void *ctx, int64_t item, int thread)
{
    const struct loss_joined *c = ctx;
    int64_t end = (item + 1) * JOINED_COLUMNS < c->n ? (item + 1) * JOINED_COLUMNS : c->n;
    (void)thread;
    for (int64_t j = item * JOINED_COLUMNS; j < end; j++) {
        c->col[j] = c->each[j];
        for (int64_t i = 1; i < c->size; i++) c->col[j] = mode_log_add(c->col[j], c->each[i * c->n + j]);
    }
}

static void cpu_join_columns(struct mode_backend *be, struct mode_tensor *col, const struct mode_tensor *each)
{
    struct loss_joined c = {col->data, each->data, each->dim[0], col->dim[0]};
    (void)be;
    mode_parallel_for(ceil_div(c.n, JOINED_COLUMNS), loss_join_block, &c);
}

static void cpu_contrastive_back(struct mode_backend *be, double *loss, struct mode_tensor *da, struct mode_tensor *db,
                                 struct mode_tensor *dlogit_scale, struct mode_tensor *work,
                                 const struct mode_tensor *a, const struct mode_tensor *b,
                                 const struct mode_tensor *logit_scale, const struct mode_tensor *row,
                                 const struct mode_tensor *col, int64_t first)
{
    int64_t m = a->dim[0], n = b->dim[0], e = a->dim[1], t = work->dim[0];
    double total = 0, slope = 0;
    for (int64_t i = 0; i < m; i += t) {
        int64_t rows = min64(t, m - i);
        struct contrastive c = {.rows = rows,
                                .n = n,
                                .s = mode_f32(work),
                                .scale = expf(mode_f32(logit_scale)[0]),
                                .row = (double *)row->data + i,
                                .col = col->data,
                                .diagonal = first + i,
                                .times = 1};
        if (t < m) {
            loss_products(be, c.s, a, i, rows, b);
            c.times = c.scale;
        }
        c.row_slope = mode__backend_work(be, (size_t)rows * sizeof *c.row_slope + (size_t)n * sizeof *c.col32);
        c.col32 = (float *)(c.row_slope + rows);
        for (int64_t j = 0; j < n; j++) c.col32[j] = (float)c.col[j];
        for (int64_t k = 0; k < rows; k++) {
            double logit = c.s[k * n + c.diagonal + k] * c.times;
            total += c.row[k] + c.col[c.diagonal + k] - 2 * logit;
        }
        mode_parallel_for(rows, loss_gradient_row, &c);
        for (int64_t k = 0; k < rows; k++) slope += c.row_slope[k];
        gemm(be, mode_f32(da) + i * e, NULL, rows, e, n, (struct view){c.s, n, 1}, (struct view){mode_f32(b), e, 1},
             NULL, false);
        gemm(be, mode_f32(db), NULL, n, e, rows, (struct view){c.s, 1, n}, (struct view){mode_f32(a) + i * e, e, 1},
             NULL, i > 0);
    }
    *loss = total / (2.0 * (double)n);
    mode_f32(dlogit_scale)[0] += (float)slope;
}

#endif
