/* Rounds of balanced k-means on synthetic rows: how long a round takes, how many bids it makes, and how close it gets
 * to the lower bound. From the build folder:
 *
 *     cmake --build . --target balanced-bench
 *     MODE_THREADS=1 bin/balanced-bench KIND ROWS CENTRES WIDTH ROUNDS
 *
 * KIND: normal (random directions), clustered (around 4 CENTRES directions), skewed (the same, some of them with many
 * more rows than others), duplicates (skewed, and half of the rows are copies of one of 50 rows).
 *
 * A round is the assignment, with its costs on the CPU, and the means. The time of the costs alone is printed first: a
 * GPU would save it. */
#include "base/parallel.h"
#include "base/rng.h"
#include "cluster/kmeans.h"
#include "nn/backend.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct now {
    double wall, cpu;
};

static double seconds(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static struct now now(void)
{
    return (struct now){seconds(CLOCK_MONOTONIC), seconds(CLOCK_PROCESS_CPUTIME_ID)};
}

static void made_unit(float *v, int d)
{
    double s = 0;
    for (int j = 0; j < d; j++) s += (double)v[j] * v[j];
    for (int j = 0; j < d; j++) v[j] = (float)(v[j] / sqrt(s));
}

struct rows {
    float *x, *around;
    int64_t n;
    int k, d;
    const char *kind;
};

enum { SEED = 11, BLOCK = 1024, REPEATED = 50 };

static void directions(void *ctx, int64_t item, int thread)
{
    struct rows *r = ctx;
    struct mode_rng g = mode_rng_for(SEED, MODE_RNG_TEST, 1, (uint64_t)item);
    float *v = r->around + item * r->d;
    (void)thread;
    for (int j = 0; j < r->d; j++) v[j] = (float)mode_rng_normal(&g);
    made_unit(v, r->d);
}

static void some_rows(void *ctx, int64_t item, int thread)
{
    struct rows *r = ctx;
    struct mode_rng g = mode_rng_for(SEED, MODE_RNG_TEST, 2, (uint64_t)item);
    const bool normal = !strcmp(r->kind, "normal"), duplicates = !strcmp(r->kind, "duplicates"),
               skewed = duplicates || !strcmp(r->kind, "skewed");
    (void)thread;
    for (int64_t i = item * BLOCK; i < r->n && i < (item + 1) * BLOCK; i++) {
        float *v = r->x + i * r->d;
        double u = mode_rng_uniform(&g);
        const float *a = r->around + (int64_t)(4 * r->k * (skewed ? u * u * u : u)) * r->d;
        const float noise = (float)(0.8 / sqrt(r->d));
        if (duplicates && mode_rng_below(&g, 2)) {
            memcpy(v, r->around + (int64_t)(REPEATED * u * u) * r->d, (size_t)r->d * sizeof *v);
            continue;
        }
        for (int j = 0; j < r->d; j++)
            v[j] = normal ? (float)mode_rng_normal(&g) : a[j] + noise * (float)mode_rng_normal(&g);
        made_unit(v, r->d);
    }
}

static void said(void *ctx, int iteration, int iterations, double objective)
{
    struct now *before = ctx, t = now();
    (void)iterations;
    printf("round %d: %.3f s of wall time, %.3f s of CPU time, mean cost %.7f\n", iteration, t.wall - before->wall,
           t.cpu - before->cpu, objective);
    fflush(stdout);
    *before = t;
}

int main(int argc, char **argv)
{
    struct mode_backend *be;
    struct mode_error err;
    if (argc != 6) {
        fprintf(stderr, "usage: balanced-bench normal|clustered|skewed|duplicates ROWS CENTRES WIDTH ROUNDS\n");
        return 2;
    }
    struct rows r = {.kind = argv[1], .n = atoll(argv[2]), .k = atoi(argv[3]), .d = atoi(argv[4])};
    const int rounds = atoi(argv[5]);
    if (mode_backend_open(&be, "cpu", &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    r.x = malloc((size_t)r.n * (size_t)r.d * sizeof *r.x);
    r.around = malloc(4 * (size_t)r.k * (size_t)r.d * sizeof *r.around);
    float *centres = malloc((size_t)r.k * (size_t)r.d * sizeof *centres);
    float *costs = malloc((size_t)8192 * (size_t)r.k * sizeof *costs);
    int32_t *id = malloc((size_t)r.n * sizeof *id);
    if (!r.x || !r.around || !centres || !costs || !id) return 1;
    mode_parallel_for(4 * (int64_t)r.k, directions, &r);
    mode_parallel_for((r.n + BLOCK - 1) / BLOCK, some_rows, &r);
    const struct mode_cost cost = {be, MODE_METRIC_EUCLIDEAN, r.x, r.x, r.n, r.k, r.d, NULL};
    struct now t = now();
    for (int64_t i = 0; i < r.n; i += 8192) mode_cost_rows(&cost, costs, i, r.n - i < 8192 ? r.n - i : 8192);
    printf("%s, %lld rows, %d centres, %d dimensions, %d threads; costs of all rows alone: %.3f s of CPU time\n",
           r.kind, (long long)r.n, r.k, r.d, mode_parallel_threads(), now().cpu - t.cpu);
    struct mode_kmeans_params p = MODE_KMEANS_PARAMS_DEFAULT;
    struct mode_kmeans_stats s;
    t = now();
    p.be = be;
    p.k = r.k;
    p.iterations = rounds;
    p.tolerance = -1; /* all rounds */
    p.seed = SEED;
    p.progress = said;
    p.ctx = &t;
    if (mode_kmeans_train(centres, id, &s, r.x, r.n, r.d, &p, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    uint64_t bytes = 1469598103934665603u;
    for (int64_t i = 0; i < r.n; i++) bytes = (bytes ^ (uint32_t)id[i]) * 1099511628211u;
    printf("all rounds: %.2f bids, %.3f rebuilt lists per row; last round: mean cost %.7f, lower bound %.7f, epsilon "
           "%.7f; sizes %lld to %lld; ids %016llx\n",
           (double)s.bids / (double)r.n, (double)s.refreshed / (double)r.n, s.objective, s.bound, s.epsilon,
           (long long)s.smallest, (long long)s.largest, (unsigned long long)bytes);
    free(r.x);
    free(r.around);
    free(centres);
    free(costs);
    free(id);
    mode_backend_close(&be);
    return 0;
}
