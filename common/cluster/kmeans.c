#include "cluster/kmeans.h"

#include "base/parallel.h"
#include "base/rng.h"
#include "base/str.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* k different rows, drawn without replacement. Rows equal to one already taken are passed over as long as
 * there are others, so that duplicate captions do not start two centres at one place. */
static enum mode_status draw_start(float *centres, const float *x, int64_t n, int d, const struct mode_kmeans_params *p,
                                   struct mode_error *err)
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
    for (int64_t i = 0; have < p->k; i++) /* fewer different rows than centres */
        memcpy(centres + (int64_t)have++ * d, x + (int64_t)order[i] * d, row_bytes);
    free(order);
    return MODE_OK;
}

struct update {
    float *centres;
    const float *x;
    const int64_t *first; /* [k + 1] into members */
    const int32_t *members;
    double *sum; /* [threads, d] */
    int d;
    bool unit;
};

/* Mean of one centre's rows, added in row order. */
static void update_item(void *ctx, int64_t k, int thread)
{
    struct update *u = ctx;
    double *sum = u->sum + (int64_t)thread * u->d, scale;
    int64_t rows = u->first[k + 1] - u->first[k];
    memset(sum, 0, (size_t)u->d * sizeof *sum);
    for (int64_t i = u->first[k]; i < u->first[k + 1]; i++) {
        const float *row = u->x + (int64_t)u->members[i] * u->d;
        for (int j = 0; j < u->d; j++) sum[j] += row[j];
    }
    if (u->unit) {
        double s = 0;
        for (int j = 0; j < u->d; j++) s += sum[j] * sum[j];
        if (!(s > 1e-24)) return; /* rows that cancel have no direction: the centre stays */
        scale = 1 / sqrt(s);
    } else {
        scale = 1.0 / (double)rows;
    }
    for (int j = 0; j < u->d; j++) u->centres[k * u->d + j] = (float)(sum[j] * scale);
}

static void move_centres(float *centres, const int32_t *id, const float *x, int64_t n, int d, int64_t *first,
                         int32_t *members, double *sum, const struct mode_kmeans_params *p)
{
    memset(first, 0, ((size_t)p->k + 1) * sizeof *first);
    for (int64_t i = 0; i < n; i++) first[id[i] + 1]++;
    for (int k = 0; k < p->k; k++) first[k + 1] += first[k];
    for (int64_t i = 0; i < n; i++) members[first[id[i]]++] = (int32_t)i; /* first[k] is now k's end */
    memmove(first + 1, first, (size_t)p->k * sizeof *first);
    first[0] = 0;
    struct update u = {centres, x, first, members, sum, d, p->metric == MODE_METRIC_COSINE};
    mode_parallel_for(p->k, update_item, &u);
}

enum mode_status mode_kmeans_train(float *centres, int32_t *id, struct mode_kmeans_stats *stats, const float *x,
                                   int64_t n, int d, const struct mode_kmeans_params *p, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    struct mode_kmeans_stats s = {0};
    MODE_ASSERT(p->k >= 1 && d >= 1 && p->iterations >= 1 && n < INT32_MAX - p->k);
    if (p->k > n)
        return MODE_FAIL(
            err, MODE_E_VALUE,
            "k-means: %lld rows cannot fill %d centres, each needs at least one. HINT: ask for fewer centres",
            (long long)n, p->k);
    double *price = calloc((size_t)p->k, sizeof *price);
    int64_t *first = malloc(((size_t)p->k + 1) * sizeof *first);
    int32_t *members = malloc((size_t)n * sizeof *members);
    double *sum = malloc((size_t)mode_parallel_threads() * (size_t)d * sizeof *sum);
    if (!price || !first || !members || !sum) {
        st = MODE_FAIL(err, MODE_E_MEMORY, "k-means: no memory for %lld rows", (long long)n);
        goto out;
    }
    if ((st = draw_start(centres, x, n, d, p, err))) goto out;
    double before = INFINITY, fell = INFINITY;
    for (int it = 0; it < p->iterations; it++) {
        struct mode_balanced_params bp = MODE_BALANCED_PARAMS_DEFAULT;
        struct mode_balanced_stats bs;
        struct mode_cost cost;
        if (p->stopping && p->stopping(p->ctx)) {
            st = MODE_FAIL(err, MODE_E_STOPPED, "k-means: stopped after %d iterations", it);
            goto out;
        }
        /* prices of the last round are worth about as much as the centres have settled */
        if (fell < 0.1 * before)
            bp.start = 8 * fabs(fell) + 0.01 * before;
        else
            memset(price, 0, (size_t)p->k * sizeof *price);
        if ((st = mode_cost_open(&cost, p->metric, x, n, centres, p->k, d, err))) goto out;
        st = mode_balanced_assign(id, price, &bs, &cost, &bp, err);
        mode_cost_close(&cost);
        if (st) goto out;
        move_centres(centres, id, x, n, d, first, members, sum, p);
        s.iterations = it + 1;
        s.objective = bs.objective / (double)n;
        if (it == 0) s.first_objective = s.objective;
        s.bound = bs.bound / (double)n;
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
    free(first);
    free(members);
    free(sum);
    return st;
}
