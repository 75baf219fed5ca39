#include "cluster/cost.h"

#include "base/parallel.h"
#include "tensor/tensor.h"

#include <cblas.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static pthread_once_t blas_once = PTHREAD_ONCE_INIT;

static void blas_one_thread(void)
{
    openblas_set_num_threads(1); /* we cut the work ourselves, into fixed blocks */
}

static double square_length(const float *v, int d)
{
    double s = 0;
    for (int j = 0; j < d; j++) s += (double)v[j] * v[j];
    return s;
}

struct lengths {
    const float *v;
    float *out;
    int64_t n;
    int d;
};

static void lengths_item(void *ctx, int64_t item, int thread)
{
    struct lengths *l = ctx;
    (void)thread;
    int64_t end = (item + 1) * MODE_COST_BLOCK < l->n ? (item + 1) * MODE_COST_BLOCK : l->n;
    for (int64_t i = item * MODE_COST_BLOCK; i < end; i++) l->out[i] = (float)square_length(l->v + i * l->d, l->d);
}

enum mode_status mode_cost_open(struct mode_cost *cost, enum mode_metric metric, const float *x, int64_t n,
                                const float *c, int k, int d, struct mode_error *err)
{
    MODE_ASSERT(n >= 0 && k >= 1 && d >= 1);
    pthread_once(&blas_once, blas_one_thread);
    *cost = (struct mode_cost){.metric = metric, .x = x, .c = c, .n = n, .k = k, .d = d};
    if (metric == MODE_METRIC_COSINE) return MODE_OK;
    cost->x_sq = malloc(((size_t)n + 1) * sizeof *cost->x_sq);
    cost->c_sq = malloc((size_t)k * sizeof *cost->c_sq);
    if (!cost->x_sq || !cost->c_sq) {
        mode_cost_close(cost);
        return MODE_FAIL(err, MODE_E_MEMORY, "clustering: no memory for the lengths of %lld rows", (long long)n);
    }
    struct lengths lx = {x, cost->x_sq, n, d}, lc = {c, cost->c_sq, k, d};
    mode_parallel_for((n + MODE_COST_BLOCK - 1) / MODE_COST_BLOCK, lengths_item, &lx);
    mode_parallel_for((k + MODE_COST_BLOCK - 1) / MODE_COST_BLOCK, lengths_item, &lc);
    return MODE_OK;
}

void mode_cost_close(struct mode_cost *cost)
{
    free(cost->x_sq);
    free(cost->c_sq);
    *cost = (struct mode_cost){0};
}

void mode_cost_block(const struct mode_cost *cost, float *out, int64_t first, int rows)
{
    int k = cost->k, d = cost->d;
    MODE_ASSERT(first >= 0 && rows >= 0 && first + rows <= cost->n);
    if (rows == 0) return;
    bool cosine = cost->metric == MODE_METRIC_COSINE;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, k, d, cosine ? -1.0f : -2.0f, cost->x + first * d, d,
                cost->c, d, 0.0f, out, k);
    for (int i = 0; i < rows; i++) {
        float *o = out + (int64_t)i * k, base = cosine ? 1.0f : cost->x_sq[first + i];
        for (int j = 0; j < k; j++) {
            float v = o[j] + base + (cosine ? 0.0f : cost->c_sq[j]);
            o[j] = v > 0.0f ? v : 0.0f; /* rounding can take an exact hit below zero */
        }
    }
}

struct check {
    const float *x;
    int64_t n;
    int d;
    bool unit;
    _Atomic int64_t bad; /* smallest bad row */
};

static bool row_is_bad(const float *row, int d, bool unit)
{
    double s = square_length(row, d);
    return !isfinite(s) || (unit && fabs(sqrt(s) - 1.0) > 1e-3);
}

static void check_item(void *ctx, int64_t item, int thread)
{
    struct check *c = ctx;
    (void)thread;
    int64_t end = (item + 1) * MODE_COST_BLOCK < c->n ? (item + 1) * MODE_COST_BLOCK : c->n;
    for (int64_t i = item * MODE_COST_BLOCK; i < end; i++) {
        if (!row_is_bad(c->x + i * c->d, c->d, c->unit)) continue;
        int64_t seen = atomic_load(&c->bad);
        while (i < seen && !atomic_compare_exchange_weak(&c->bad, &seen, i)) continue;
        return;
    }
}

enum mode_status mode_rows_check(const float *x, int64_t n, int d, bool unit, const int64_t *number, const char *what,
                                 struct mode_error *err)
{
    struct check c = {.x = x, .n = n, .d = d, .unit = unit, .bad = INT64_MAX};
    mode_parallel_for((n + MODE_COST_BLOCK - 1) / MODE_COST_BLOCK, check_item, &c);
    int64_t bad = atomic_load(&c.bad);
    if (bad == INT64_MAX) return MODE_OK;
    double s = square_length(x + bad * d, d);
    long long row = (long long)(number ? number[bad] : bad);
    if (!isfinite(s)) return MODE_FAIL(err, MODE_E_VALUE, "%s: row %lld holds a value that is not finite", what, row);
    return MODE_FAIL(err, MODE_E_VALUE, "%s: row %lld has length %.6f, expected 1 (unit rows)", what, row, sqrt(s));
}
