#include "cluster/nearest.h"

#include "base/parallel.h"
#include "cluster/cost.h"

#include <math.h>
#include <stdlib.h>

struct nearest {
    const struct mode_cost *cost;
    int32_t *id;
    float *distance;
    float *scratch; /* [threads, MODE_COST_BLOCK, k] */
    double c_max;   /* largest |c| */
};

static double exact(const struct mode_cost *c, const float *x, const float *y)
{
    double s = 0;
    if (c->metric == MODE_METRIC_COSINE) {
        for (int j = 0; j < c->d; j++) s += (double)x[j] * y[j];
        return 1 - s;
    }
    for (int j = 0; j < c->d; j++) {
        double t = (double)x[j] - y[j];
        s += t * t;
    }
    return s;
}

static void nearest_item(void *ctx, int64_t item, int thread)
{
    struct nearest *a = ctx;
    const struct mode_cost *c = a->cost;
    int64_t first = item * MODE_COST_BLOCK;
    int rows = c->n - first < MODE_COST_BLOCK ? (int)(c->n - first) : MODE_COST_BLOCK;
    float *block = a->scratch + (int64_t)thread * MODE_COST_BLOCK * c->k;
    mode_cost_block(c, block, first, rows);
    for (int i = 0; i < rows; i++) {
        const float *row = block + (int64_t)i * c->k, *x = c->x + (first + i) * c->d;
        float least = row[0];
        for (int k = 1; k < c->k; k++) least = row[k] < least ? row[k] : least;
        /* rounding of |x|^2 + |c|^2 - 2 x.c in f32: a few units in the last place of its largest term, more
         * for long sums */
        double x_len = c->x_sq ? sqrt(c->x_sq[first + i]) : 1;
        double size = (x_len + a->c_max) * (x_len + a->c_max);
        float margin = (float)(size * 1.2e-7 * (8 + 0.25 * c->d));
        double best = INFINITY;
        int32_t id = 0;
        for (int k = 0; k < c->k; k++) {
            if (row[k] > least + 2 * margin) continue;
            double v = exact(c, x, c->c + (int64_t)k * c->d);
            if (v < best) {
                best = v;
                id = k;
            }
        }
        a->id[first + i] = id;
        if (a->distance) {
            best = best > 0 ? best : 0;
            a->distance[first + i] = (float)(c->metric == MODE_METRIC_COSINE ? best : sqrt(best));
        }
    }
}

enum mode_status mode_nearest(int32_t *id, float *distance, enum mode_metric metric, const float *x, int64_t n,
                              const float *c, int k, int d, struct mode_error *err)
{
    struct mode_cost cost;
    enum mode_status st = mode_cost_open(&cost, metric, x, n, c, k, d, err);
    if (st) return st;
    struct nearest a = {.cost = &cost, .id = id, .distance = distance, .c_max = 1};
    a.scratch = malloc((size_t)mode_parallel_threads() * MODE_COST_BLOCK * (size_t)k * sizeof *a.scratch);
    if (!a.scratch) {
        mode_cost_close(&cost);
        return MODE_FAIL(err, MODE_E_MEMORY, "nearest centre: no memory for blocks of %d x %d", MODE_COST_BLOCK, k);
    }
    if (cost.c_sq) {
        a.c_max = 0;
        for (int j = 0; j < k; j++) a.c_max = fmax(a.c_max, sqrt(cost.c_sq[j]));
    }
    mode_parallel_for((n + MODE_COST_BLOCK - 1) / MODE_COST_BLOCK, nearest_item, &a);
    free(a.scratch);
    mode_cost_close(&cost);
    return MODE_OK;
}
