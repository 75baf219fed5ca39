/* mode bench kmeans - one iteration of plain k-means: every row to its nearest centre, every centre to the mean of its
 * rows. MoDE's own k-means is balanced (cluster/kmeans.h); this one is for comparison with other implementations. */
#include "backend_option.h"
#include "base/str.h"
#include "bench.h"
#include "bench_inputs.h"
#include "cluster/kmeans.h"
#include "cluster/nearest.h"
#include "nn/backend.h"
#include "verb.h"

#include <stdio.h>
#include <stdlib.h>

static const double H200_PRODUCTS = 788; /* TFLOP/s of bf16, 8192 x 8192 x 8192; the data sheet says 989 */

struct options {
    struct backend_options backend;
    const char *data;
    int64_t width, centres, rounds;
    double peak, seconds;
    bool turns;
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct options, data, "data", NULL, "FILE",
                 "float32 [N, D], raw: the rows; the first K are the start"),
    MODE_OPT_INT(struct options, width, "width", "768", "D", "columns"),
    MODE_OPT_INT(struct options, centres, "centres", "1024", "K", "centres"),
    MODE_OPT_REAL(struct options, peak, "peak", "0", "TFLOP/s",
                  "peak of the device, of which 2 N K D operations per iteration are printed as a share at the end (0: "
                  "on a GPU 788, which 16-bit GEMMs reach on an H200; on a processor no share is printed)"),
    BENCH_ROUNDS_OPTION(struct options, rounds),
    BENCH_TURNS_OPTIONS(struct options),
    BACKEND_OPTIONS(struct options),
    MODE_OPT_END};

static const struct option_range ranges[] = {RANGE("width", 1, 1 << 20), RANGE("centres", 1, 1 << 24),
                                             RANGE_FROM("peak", 0), RANGE_END};

struct work {
    struct mode_backend *be;
    struct mode_nearest *rows; /* x, prepared once */
    float *x, *centres;        /* [n, d], [k, d]: in the backend's memory, like the others: [n], [k + 1], [n] */
    int32_t *id, *first, *members;
    int64_t n;
    int k, d;
};

static enum mode_status take(struct work *w, const float *rows, struct mode_error *err)
{
    const size_t row = (size_t)w->d * sizeof *rows;
    void *got[5] = {NULL};
    const size_t bytes[5] = {(size_t)w->n * row, (size_t)w->k * row, (size_t)w->n * sizeof *w->id,
                             ((size_t)w->k + 1) * sizeof *w->first, (size_t)w->n * sizeof *w->members};
    enum mode_status st = MODE_OK;
    for (int i = 0; !st && i < 5; i++) st = mode_backend_alloc(w->be, &got[i], bytes[i], err);
    w->x = got[0];
    w->centres = got[1];
    w->id = got[2];
    w->first = got[3];
    w->members = got[4];
    if (st) return st;
    mode_backend_copy(w->be, w->x, rows, bytes[0]);
    mode_backend_copy(w->be, w->centres, rows, bytes[1]);
    return mode_nearest_open(&w->rows, w->be, w->x, w->n, w->d, w->k, err);
}

static void give(struct work *w)
{
    if (!w->be) return;
    mode_nearest_close(&w->rows);
    mode_backend_free(w->be, w->first);
    mode_backend_free(w->be, w->members);
    mode_backend_free(w->be, w->x);
    mode_backend_free(w->be, w->centres);
    mode_backend_free(w->be, w->id);
}

static void iteration(struct work *w)
{
    mode_nearest_again(w->rows, w->id, NULL, MODE_METRIC_EUCLIDEAN, w->centres, w->k);
    mode_kmeans_move(w->be, w->centres, w->id, w->x, w->n, w->d, w->k, w->first, w->members, false);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void say(const struct work *w, double *seconds, int64_t rounds, double peak)
{
    if (rounds == 0) return;
    qsort(seconds, (size_t)rounds, sizeof *seconds, by_value);
    const double s = seconds[rounds / 2], rate = 2e-12 * (double)w->n * w->k * w->d / s;
    fprintf(stderr, "an iteration of %lld rows, %d centres, %d numbers each: %.3f ms (median), 2 N K D at %.2f TFLOP/s",
            (long long)w->n, w->k, w->d, 1e3 * s, rate);
    if (peak > 0) fprintf(stderr, ", %.1f %% of %g TFLOP/s", 100 * rate / peak, peak);
    fprintf(stderr, "\n");
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct options o = {0};
    struct bench_floats rows = {0};
    struct work w = {0};
    double *seconds = NULL;
    int64_t done = 0;
    int n_args;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(
            table, "MODE_", "mode bench kmeans --data FILE [options]",
            "One iteration of plain k-means on all rows of FILE, --rounds times, with MODE_THREADS threads.");
        return MODE_OK;
    }
    enum mode_status st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err);
    if (!st) st = arguments_check(n_args, 0, argv, NULL, err);
    if (!st) st = option_needed(o.data, "--data FILE", err);
    if (!st) st = ranges_check(&o, table, bench_turns_ranges, err);
    if (!st) st = ranges_check(&o, table, ranges, err);
    if (!st) st = backend_open(&w.be, &o.backend, err);
    if (!st) st = bench_floats_read(&rows, o.data, o.width, err);
    if (!st && (rows.n < o.centres || rows.n > INT32_MAX / 2))
        st = MODE_FAIL(err, MODE_E_VALUE, "%s: %lld rows; from %lld (--centres) to %d are expected", o.data,
                       (long long)rows.n, (long long)o.centres, INT32_MAX / 2);
    w.n = rows.n;
    w.k = (int)o.centres;
    w.d = (int)o.width;
    if (!st) st = take(&w, rows.data, err);
    bench_floats_clear(&rows);
    if (st) goto out;
    seconds = mode_xmalloc((size_t)o.rounds * sizeof *seconds);
    for (int64_t round = 0; round <= o.rounds && (round == 0 || bench_turn(o.turns)); round++) {
        struct bench_clock since = bench_now();
        int64_t times = 0;
        do {
            iteration(&w);
            times++;
        } while (round > 0 && bench_goes_on(since, o.seconds));
        if (round == 0) continue;
        seconds[done++] = (bench_now().wall - since.wall) / (double)times;
        bench_print("kmeans", "iterations", times, since);
    }
    say(&w, seconds, done, o.peak > 0 ? o.peak : mode_backend_is_device(w.be) ? H200_PRODUCTS : 0);
out:
    free(seconds);
    give(&w);
    mode_backend_close(&w.be);
    return st;
}

const struct mode_verb mode_bench_kmeans = {"kmeans", "one iteration of plain k-means", run};
