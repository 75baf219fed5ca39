/* mode bench logistic - logistic regressions of `mode probe`, from zero weights to the minimum. */
#include "base/file.h"
#include "base/str.h"
#include "bench.h"
#include "bench_inputs.h"
#include "nn/backend.h"
#include "optim/logistic.h"
#include "verb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
    const char *data, *labels, *weights;
    int64_t width, rounds;
    double strength, tolerance, seconds;
    bool turns;
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct options, data, "data", NULL, "FILE", "float32 [N, D], raw: the rows"),
    MODE_OPT_STR(struct options, labels, "labels", NULL, "FILE", "float32 [N], raw: their classes, 0, 1, 2 ..."),
    MODE_OPT_INT(struct options, width, "width", "512", "D", "columns"),
    MODE_OPT_REAL(struct options, strength, "strength", "1", "C", "scikit-learn's C"),
    MODE_OPT_REAL(struct options, tolerance, "tolerance", "1e-5", "X",
                  "norm of the gradient at the end, relative to that at zero weights"),
    MODE_OPT_STR(struct options, weights, "weights", NULL, "FILE", "write float64 [K, D], then [K]: weights, biases"),
    BENCH_ROUNDS_OPTION(struct options, rounds),
    BENCH_TURNS_OPTIONS(struct options),
    MODE_OPT_END};

static const struct option_range ranges[] = {RANGE("width", 1, 1 << 20), RANGE_ABOVE("strength", 0),
                                             RANGE_ABOVE("tolerance", 0), RANGE_END};

/* Labels as numbers; *c classes. */
static enum mode_status read_labels(int32_t **label, int64_t *c, const struct options *o, int64_t n,
                                    struct mode_error *err)
{
    struct bench_floats f = {0};
    enum mode_status st = bench_floats_read(&f, o->labels, 1, err);
    if (!st && f.n != n)
        st = MODE_FAIL(err, MODE_E_VALUE, "%s: %lld labels, expected %lld, one for each row", o->labels, (long long)f.n,
                       (long long)n);
    if (!st) *label = mode_xmalloc((size_t)n * sizeof **label);
    for (int64_t i = 0; !st && i < n; i++) {
        if (!(f.data[i] >= 0 && f.data[i] < 1e6f))
            st = MODE_FAIL(err, MODE_E_VALUE, "%s: label %lld is %f, expected 0, 1, 2 ...", o->labels, (long long)i,
                           (double)f.data[i]);
        else if (((*label)[i] = (int32_t)f.data[i]) >= *c)
            *c = (*label)[i] + 1;
    }
    bench_floats_clear(&f);
    return st;
}

static enum mode_status write_weights(const struct options *o, const struct mode_logistic *m, struct mode_error *err)
{
    const size_t w = (size_t)(m->c * m->d) * sizeof *m->w, b = (size_t)m->c * sizeof *m->b;
    char *both = mode_xmalloc(w + b);
    memcpy(both, m->w, w);
    memcpy(both + w, m->b, b);
    enum mode_status st = mode_file_write_atomic(o->weights, both, w + b, err);
    free(both);
    return st;
}

static enum mode_status fit(struct mode_logistic *m, const struct options *o, struct mode_logistic_fit *f,
                            struct mode_error *err)
{
    struct mode_logistic_options how = MODE_LOGISTIC_DEFAULT;
    how.strength = o->strength;
    how.tolerance = o->tolerance;
    memset(m->w, 0, (size_t)(m->c * m->d) * sizeof *m->w);
    memset(m->b, 0, (size_t)m->c * sizeof *m->b);
    return mode_logistic_fit(m, &how, f, err);
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct options o = {0};
    struct bench_floats rows = {0};
    struct mode_backend *be = NULL;
    struct mode_logistic m = {0};
    struct mode_logistic_fit f = {0};
    float *some = NULL;
    double *mean = NULL;
    int32_t *label = NULL;
    int64_t c = 0;
    int n_args;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_", "mode bench logistic --data FILE --labels FILE [options]",
                          "One logistic regression of all rows of FILE, --rounds times, with MODE_THREADS threads.");
        return MODE_OK;
    }
    enum mode_status st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err);
    if (!st) st = arguments_check(n_args, 0, argv, NULL, err);
    if (!st) st = option_needed(o.data, "--data FILE", err);
    if (!st) st = option_needed(o.labels, "--labels FILE", err);
    if (!st) st = ranges_check(&o, table, bench_turns_ranges, err);
    if (!st) st = ranges_check(&o, table, ranges, err);
    if (!st) st = mode_backend_open(&be, "cpu", err);
    if (!st) st = bench_floats_read(&rows, o.data, o.width, err);
    if (!st) st = read_labels(&label, &c, &o, rows.n, err);
    if (!st) {
        some = mode_xmalloc((size_t)(rows.n * o.width) * sizeof *some);
        mean = mode_xmalloc((size_t)o.width * sizeof *mean);
    }
    for (int64_t round = 0; !st && round <= o.rounds && (round == 0 || bench_turn(o.turns)); round++) {
        struct bench_clock since = bench_now();
        int64_t times = 0;
        do { /* includes centring the rows */
            mode_logistic_close(&m);
            memcpy(some, rows.data, (size_t)(rows.n * o.width) * sizeof *some);
            mode_rows_mean(mean, some, rows.n, o.width);
            mode_rows_less(some, rows.n, o.width, mean);
            st = mode_logistic_open(&m, be, some, label, rows.n, o.width, c, err);
            if (!st) st = fit(&m, &o, &f, err);
            times++;
        } while (!st && round > 0 && bench_goes_on(since, o.seconds));
        if (!st && round > 0) bench_print("logistic", "fits", times, since);
    }
    if (!st)
        fprintf(stderr, "objective %.9f, gradient %.1e of the first, %d steps, %d values, %s\n", f.objective,
                f.gradient, f.iterations, f.evaluations, f.converged ? "converged" : "not converged");
    for (int64_t k = 0; !st && k < c; k++) /* for the rows as in the file */
        for (int64_t j = 0; j < o.width; j++) m.b[k] -= m.w[k * o.width + j] * mean[j];
    if (!st && o.weights) st = write_weights(&o, &m, err);
    mode_logistic_close(&m);
    free(some);
    free(mean);
    free(label);
    bench_floats_clear(&rows);
    mode_backend_close(&be);
    return st;
}

const struct mode_verb mode_bench_logistic = {"logistic", "logistic regressions of `mode probe`", run};
