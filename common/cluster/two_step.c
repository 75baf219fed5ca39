#include "cluster/two_step.h"

#include "base/str.h"

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

enum mode_status mode_two_step_train(struct mode_centres *out, const float *x, int64_t n, int d,
                                     const struct mode_two_step_params *p, struct mode_error *err)
{
    enum mode_status st;
    struct mode_kmeans_stats fine, coarse;
    int m = p->fine;
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
    if ((st = mode_kmeans_train(out->coarse, out->fine_to_coarse, &coarse, out->fine, m, d, &kp, err))) goto out;
    struct mode_str s = {0};
    mode_str_add_cstr(&s, "{");
    add_level(&s, "fine", n, m, &fine);
    mode_str_add_cstr(&s, ", ");
    add_level(&s, "coarse", m, p->coarse, &coarse);
    mode_str_add_cstr(&s, "}");
    out->certificate = s.data;
out:
    free(id);
    return st;
}
