#include "cluster/cost.h"

#include "base/parallel.h"
#include "nn/ops.h"

#include <math.h>
#include <stdatomic.h>

static double square_length(const float *v, int d)
{
    double s = 0;
    for (int j = 0; j < d; j++) s += (double)v[j] * v[j];
    return s;
}

void mode_cost_rows(const struct mode_cost *cost, float *out, int64_t first, int64_t rows)
{
    MODE_ASSERT(first >= 0 && rows >= 0 && first + rows <= cost->n);
    struct mode_tensor costs = mode_tensor_2d(out, MODE_DTYPE_F32, rows, cost->k),
                       x = mode_tensor_2d((void *)(uintptr_t)(cost->x + first * cost->d), MODE_DTYPE_F32, rows,
                                          cost->d),
                       c = mode_tensor_2d((void *)(uintptr_t)cost->c, MODE_DTYPE_F32, cost->k, cost->d);
    if (rows == 0) return;
    mode_costs(cost->be, &costs, &x, &c, cost->metric == MODE_METRIC_COSINE);
    mode_backend_sync(cost->be);
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
    int64_t end = (item + 1) * MODE_ROWS_BLOCK < c->n ? (item + 1) * MODE_ROWS_BLOCK : c->n;
    for (int64_t i = item * MODE_ROWS_BLOCK; i < end; i++) {
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
    mode_parallel_for((n + MODE_ROWS_BLOCK - 1) / MODE_ROWS_BLOCK, check_item, &c);
    int64_t bad = atomic_load(&c.bad);
    if (bad == INT64_MAX) return MODE_OK;
    double s = square_length(x + bad * d, d);
    long long row = (long long)(number ? number[bad] : bad);
    if (!isfinite(s)) return MODE_FAIL(err, MODE_E_VALUE, "%s: row %lld holds a value that is not finite", what, row);
    return MODE_FAIL(err, MODE_E_VALUE, "%s: row %lld has length %.6f, expected 1 (unit rows)", what, row, sqrt(s));
}
