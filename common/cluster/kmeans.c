#include "cluster/kmeans.h"

#include "base/rng.h"
#include "nn/ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* k random rows without replacement. Duplicates of a chosen row are used only if there are fewer than k distinct rows:
 * duplicate captions must not give two equal initial centres. */
static enum mode_status initial_centres(float *centres, const float *x, int64_t n, int d,
                                        const struct mode_kmeans_params *p, struct mode_error *err)
{
    size_t row_bytes = (size_t)d * sizeof *x;
    uint32_t *order = malloc((size_t)n * sizeof *order);
    if (!order) return MODE_FAIL(err, MODE_E_MEMORY, "k-means: no memory for %lld row numbers", (long long)n);
    for (int64_t i = 0; i < n; i++) order[i] = (uint32_t)i;
    struct mode_rng rng = mode_rng_for(p->seed, MODE_RNG_KMEANS, p->stream, 0);
    mode_rng_shuffle_u32(&rng, order, (uint64_t)n);
    int have = 0;
    int64_t passed = 0;
    for (int64_t i = 0; i < n && have < p->k; i++) {
        const float *row = x + (int64_t)order[i] * d;
        bool seen = false;
        for (int j = 0; j < have && !seen; j++) seen = memcmp(centres + (int64_t)j * d, row, row_bytes) == 0;
        if (seen)
            order[passed++] = order[i];
        else
            memcpy(centres + (int64_t)have++ * d, row, row_bytes);
    }
    for (int64_t i = 0; have < p->k; i++) /* fewer distinct rows than centres */
        memcpy(centres + (int64_t)have++ * d, x + (int64_t)order[i] * d, row_bytes);
    free(order);
    return MODE_OK;
}

void mode_kmeans_move(struct mode_backend *be, float *centres, const int32_t *id, const float *x, int64_t n, int d,
                      int k, int32_t *first, int32_t *members, bool unit)
{
    struct mode_tensor means = mode_tensor_2d(centres, MODE_DTYPE_F32, k, d),
                       rows = mode_tensor_2d((void *)(uintptr_t)x, MODE_DTYPE_F32, n, d),
                       starts = mode_tensor_1d(first, MODE_DTYPE_I32, k + 1),
                       order = mode_tensor_1d(members, MODE_DTYPE_I32, n),
                       ids = mode_tensor_1d((void *)(uintptr_t)id, MODE_DTYPE_I32, n);
    mode_group_rows(be, &starts, &order, &ids);
    mode_group_means(be, &means, &rows, &starts, &order, unit);
    mode_backend_sync(be);
}

enum mode_status mode_kmeans_train(float *centres, int32_t *id, struct mode_kmeans_stats *stats, const float *x,
                                   int64_t n, int d, const struct mode_kmeans_params *p, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    struct mode_kmeans_stats s = {0};
    MODE_ASSERT(p->k >= 1 && d >= 1 && p->iterations >= 1 && n < INT32_MAX - p->k);
    if (p->k > n)
        return MODE_FAIL(
            err, MODE_E_VALUE, "k-means: %lld rows cannot fill %d centres, each needs at least one. HINT: %s",
            (long long)n, p->k,
            n ? "ask for fewer centres" : "no caption came here; `mode reconcile` tells what became of the samples");
    double *price = calloc((size_t)p->k, sizeof *price);
    const struct mode_balanced_params bp = MODE_BALANCED_PARAMS_DEFAULT;
    struct mode_balanced *balanced = NULL;
    struct mode_backend *own = NULL, *be = p->be;
    void *placed = NULL, *first = NULL, *members = NULL;
    const float *host = NULL;
    if (!price) {
        st = MODE_FAIL(err, MODE_E_MEMORY, "k-means: no memory for %lld rows", (long long)n);
        goto out;
    }
    if (!be && (st = mode_backend_open(&own, "cpu", err))) goto out;
    if (!be) be = own;
    if ((st = mode_backend_alloc(be, &first, ((size_t)p->k + 1) * sizeof(int32_t), err)) ||
        (st = mode_backend_alloc(be, &members, (size_t)n * sizeof(int32_t), err)))
        goto out;
    if ((st = mode_balanced_open(&balanced, n, p->k, d, &bp, err))) goto out;
    if ((st = initial_centres(centres, x, n, d, p, err))) goto out;
    if (mode_backend_is_device(be)) { /* every iteration reads all rows */
        size_t bytes = (size_t)n * (size_t)d * sizeof *x;
        if ((st = mode_backend_alloc(be, &placed, bytes, err))) goto out;
        host = x;
        mode_backend_copy(be, placed, x, bytes);
        x = placed;
    }
    double before = INFINITY, fell = INFINITY;
    for (int it = 0; it < p->iterations; it++) {
        struct mode_balanced_stats bs;
        const struct mode_cost cost = {be, p->metric, x, centres, n, p->k, d, host};
        if (p->stopping && p->stopping(p->ctx)) {
            st = MODE_FAIL(err, MODE_E_STOPPED, "k-means: stopped after %d iterations", it);
            goto out;
        }
        /* prices are a warm start only while centres hardly move: if one is too high, all others must rise to it */
        if (!(fell < 0.01 * before)) memset(price, 0, (size_t)p->k * sizeof *price);
        mode_balanced_assign(balanced, id, price, &bs, &cost);
        mode_kmeans_move(be, centres, id, x, n, d, p->k, first, members, p->metric == MODE_METRIC_COSINE);
        s.iterations = it + 1;
        s.objective = bs.objective / (double)n;
        if (it == 0) s.first_objective = s.objective;
        s.bound = bs.bound / (double)n;
        s.epsilon = bs.epsilon;
        s.bids += bs.bids;
        s.refreshed += bs.refreshed;
        s.largest = bs.largest;
        s.smallest = bs.smallest;
        if (p->progress) p->progress(p->ctx, it + 1, p->iterations, s.objective);
        fell = it > 0 ? before - s.objective : INFINITY;
        before = s.objective;
        if (fell <= p->tolerance * before) break;
    }
    if (stats) *stats = s;
out:
    free(price);
    mode_balanced_close(&balanced);
    for (int i = 0; be && i < 3; i++) mode_backend_free(be, i == 0 ? placed : i == 1 ? first : members);
    mode_backend_close(&own);
    return st;
}
