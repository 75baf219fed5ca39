#include "cluster/two_step.h"

#include "base/str.h"
#include "cluster/nearest.h"

#include <stdlib.h>
#include <string.h>

static void add_level(struct mode_str *s, const char *name, int64_t rows, int k, const struct mode_kmeans_stats *t)
{
    mode_str_printf(s,
                    "\"%s\": {\"rows\": %lld, \"centres\": %d, \"largest\": %lld, \"smallest\": %lld, "
                    "\"objective\": %.9g, \"bound\": %.9g, \"first_objective\": %.9g, \"iterations\": %d}",
                    name, (long long)rows, k, (long long)t->largest, (long long)t->smallest, t->objective, t->bound,
                    t->first_objective, t->iterations);
}

/* live[j]: number of rows whose nearest fine centre is j; n_live: centres with any. id [n] and distance [n] (may be
 * NULL) receive the assignment. */
static enum mode_status count_nearest(int64_t *live, int *n_live, int32_t *id, float *distance, const float *x,
                                      int64_t n, const struct mode_centres *c, struct mode_backend *be,
                                      struct mode_error *err)
{
    enum mode_status st = mode_nearest(be, id, distance, c->metric, x, n, c->fine, c->m, c->d, err);
    if (st) return st;
    memset(live, 0, (size_t)c->m * sizeof *live);
    *n_live = 0;
    for (int64_t i = 0; i < n; i++) *n_live += live[id[i]]++ == 0;
    return MODE_OK;
}

/* While fewer fine centres are live than there are groups, move a dead one to the row farthest from all centres. Each
 * move puts a centre on a distinct row, which stays its own, so c->n moves suffice if c->n rows are distinct. */
static enum mode_status reseed(struct mode_centres *c, int64_t *live, int *n_live, int32_t *id, const float *x,
                               int64_t n, struct mode_backend *be, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    float *distance = malloc((size_t)n * sizeof *distance);
    if (!distance) return MODE_FAIL(err, MODE_E_MEMORY, "clustering: no memory for %lld distances", (long long)n);
    for (int moved = 0; !st; moved++) {
        int dead = 0;
        int64_t far = 0;
        if ((st = count_nearest(live, n_live, id, distance, x, n, c, be, err)) || *n_live >= c->n) break;
        while (live[dead]) dead++;
        for (int64_t i = 1; i < n; i++)
            if (distance[i] > distance[far]) far = i;
        if (moved == c->n)
            st = MODE_FAIL(err, MODE_E_VALUE,
                           "clustering: too few of the %lld rows differ for %d coarse groups. HINT: fewer groups",
                           (long long)n, c->n);
        memcpy(c->fine + (int64_t)dead * c->d, x + far * c->d, (size_t)c->d * sizeof *c->fine);
    }
    free(distance);
    return st;
}

/* Repeat the coarse step over the live fine centres; every other joins the group of its nearest live one. So every
 * group has a live centre, and no expert is without pairs. */
static enum mode_status group_live(struct mode_centres *c, struct mode_kmeans_stats *stats, const int64_t *live,
                                   int n_live, const struct mode_kmeans_params *kp, struct mode_error *err)
{
    const size_t row = (size_t)c->d * sizeof(float);
    float *centre = malloc((size_t)c->m * row);
    int32_t *group = malloc((size_t)c->m * sizeof *group), *near = malloc((size_t)c->m * sizeof *near);
    enum mode_status st = MODE_OK;
    int at = 0;
    if (!centre || !group || !near) {
        st = MODE_FAIL(err, MODE_E_MEMORY, "clustering: no memory for %d centres", c->m);
        goto out;
    }
    for (int j = 0; j < c->m; j++)
        if (live[j]) memcpy((char *)centre + (size_t)at++ * row, c->fine + (int64_t)j * c->d, row);
    if ((st = mode_kmeans_train(c->coarse, group, stats, centre, n_live, c->d, kp, err)) ||
        (st = mode_nearest(kp->be, near, NULL, c->metric, c->fine, c->m, centre, n_live, c->d, err)))
        goto out;
    for (int j = at = 0; j < c->m; j++) c->fine_to_coarse[j] = group[live[j] ? at++ : near[j]];
out:
    free(centre);
    free(group);
    free(near);
    return st;
}

enum mode_status mode_two_step_train(struct mode_centres *out, const float *x, int64_t n, int d,
                                     const struct mode_two_step_params *p, struct mode_error *err)
{
    enum mode_status st;
    struct mode_kmeans_stats fine, coarse;
    int m = p->fine, grouped = m, n_live;
    int64_t *live = NULL, *rows = NULL;
    *out = (struct mode_centres){
        .m = m, .n = p->coarse, .d = d, .metric = p->metric, .seed = p->seed, .sample_size = (uint64_t)n};
    if (p->coarse < 1 || m < p->coarse)
        return MODE_FAIL(err, MODE_E_VALUE,
                         "clustering: %d coarse groups of %d fine centres; expected 1 <= coarse <= fine", p->coarse, m);
    if (n >= INT32_MAX - m)
        return MODE_FAIL(err, MODE_E_VALUE,
                         "clustering: %lld rows, at most %d are supported. HINT: sample fewer per centre", (long long)n,
                         INT32_MAX - m - 1);
    if ((st = mode_rows_check(x, n, d, true, NULL, "clustering sample", err))) return st;
    int32_t *id = malloc(((size_t)n + 1) * sizeof *id);
    out->fine = malloc((size_t)m * (size_t)d * sizeof *out->fine);
    out->coarse = malloc((size_t)p->coarse * (size_t)d * sizeof *out->coarse);
    out->fine_to_coarse = malloc((size_t)m * sizeof *out->fine_to_coarse);
    out->fine_size = calloc((size_t)m, sizeof *out->fine_size);
    if (!id || !out->fine || !out->coarse || !out->fine_to_coarse || !out->fine_size) {
        st = MODE_FAIL(err, MODE_E_MEMORY, "clustering: no memory for %lld rows and %d centres", (long long)n, m);
        goto out;
    }
    struct mode_kmeans_params kp = {.be = p->be,
                                    .k = m,
                                    .iterations = p->fine_iterations,
                                    .tolerance = p->tolerance,
                                    .metric = p->metric,
                                    .seed = p->seed,
                                    .stream = 0,
                                    .progress = p->progress,
                                    .stopping = p->stopping,
                                    .ctx = p->ctx};
    if ((st = mode_kmeans_train(out->fine, id, &fine, x, n, d, &kp, err))) goto out;
    for (int64_t i = 0; i < n; i++) out->fine_size[id[i]]++;
    kp = (struct mode_kmeans_params){.be = p->be,
                                     .k = p->coarse,
                                     .iterations = p->coarse_iterations,
                                     .tolerance = p->tolerance,
                                     .metric = p->metric,
                                     .seed = p->seed,
                                     .stream = 1,
                                     .stopping = p->stopping,
                                     .ctx = p->ctx};
    live = malloc((size_t)m * sizeof *live);
    rows = calloc((size_t)p->coarse, sizeof *rows);
    if (!live || !rows) {
        st = MODE_FAIL(err, MODE_E_MEMORY, "clustering: no memory for %d centres", m);
        goto out;
    }
    if ((st = count_nearest(live, &n_live, id, NULL, x, n, out, p->be, err)) ||
        (n_live < p->coarse && (st = reseed(out, live, &n_live, id, x, n, p->be, err))) ||
        (st = mode_kmeans_train(out->coarse, out->fine_to_coarse, &coarse, out->fine, m, d, &kp, err)))
        goto out;
    int empty = p->coarse;
    for (int j = 0; j < m; j++) empty -= live[j] && rows[out->fine_to_coarse[j]]++ == 0;
    if (empty) {
        if ((st = group_live(out, &coarse, live, n_live, &kp, err))) goto out;
        grouped = n_live;
    }
    struct mode_str s = {0};
    mode_str_add_cstr(&s, "{");
    add_level(&s, "fine", n, m, &fine);
    mode_str_add_cstr(&s, ", ");
    add_level(&s, "coarse", grouped, p->coarse, &coarse);
    mode_str_add_cstr(&s, "}");
    out->certificate = s.data;
out:
    free(id);
    free(live);
    free(rows);
    return st;
}
