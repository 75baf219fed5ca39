/* nearest.h - nearest centres, costs and group means.
 *
 * A GEMM in f32 finds the few centres that could be nearest; those are compared exactly, in double. */
#ifndef MODE_NN_CPU_NEAREST_H
#define MODE_NN_CPU_NEAREST_H

#include "nn/cpu/gemm.h"

#include <math.h>

enum { NEAREST_ROWS = 64, FEW_ROWS = 4 };

#if defined(__AMX_BF16__)
/* six partial products per product, and up to 2^-21 of it omitted */
#define SUM_ERROR(d) (6.0 * (double)(d) + 24)
#else
#define SUM_ERROR(d) ((double)(d) + 1)
#endif

struct nearest {
    int32_t *id;
    float *distance, *dot, *c_sq; /* dot [n, k]: x.c, for costs overwritten by the cost; c_sq [k] */
    const float *x, *c;
    int64_t n, k, d;
    double c_max; /* largest |c| */
    bool cosine;
};

/* A centre's rank, the score to minimise: |c|^2 - 2 x.c, or -x.c; terms that are equal for all centres of a row are
 * dropped. */
INLINE v8 rank8(v8 dot, v8 c_sq, bool cosine)
{
    return cosine ? -dot : c_sq - 2.0f * dot;
}

/* The margin, an error bound: twice the largest error of a rank. With u = 2^-24, a dot product of d terms, summed in
 * any order, has an error of at most g sum |x_j c_j|, g = SUM_ERROR(d) u / (1 - SUM_ERROR(d) u), and that sum is at
 * most |x| |c| (Cauchy-Schwarz). Twice that for 2 x.c; |c|^2 is rounded once, the difference once, and the limit
 * computed from the smallest rank once more. Sums in double have a relative error of a billionth, and values so small
 * that floats are subnormal (flushed to zero by AMX) add less than 1e-30. */
INLINE double margin_of(const struct nearest *a, double size)
{
    const double u = 0x1p-24, part = SUM_ERROR(a->d) * u, c = a->c_max;
    if (part > 0.5) return INFINITY;
    const double dot = size * c * (part / (1 - part) + 4 * u);
    return 2.001 * (a->cosine ? dot : 2 * dot + 4 * u * c * c) + 1e-30;
}

INLINE bool any8(v8i mask)
{
    typedef int64_t v4l __attribute__((vector_size(32)));
    v4l m = (v4l)mask;
    return (m[0] | m[1] | m[2] | m[3]) != 0;
}

/* Exact costs of the centres k .. end - 1 within the limit; *best and *id are updated. */
INLINE void measure_below(const struct nearest *a, const float *x, const float *dot, float limit, int64_t k,
                          int64_t end, double *best, int32_t *id)
{
    for (; k < end; k++) {
        if (rank8(splat8(dot[k]), splat8(a->c_sq[k]), a->cosine)[0] > limit) continue;
        double v = mode__exact_cost(x, a->c + k * a->d, a->d, a->cosine);
        if (v >= *best) continue;
        *best = v;
        *id = (int32_t)k;
    }
}

static void nearest_item(void *ctx, int64_t item, int thread)
{
    const struct nearest *a = ctx;
    (void)thread;
    for (int64_t i = item * NEAREST_ROWS; i < min64(a->n, (item + 1) * NEAREST_ROWS); i++) {
        const float *dot = a->dot + i * a->k, *x = a->x + i * a->d;
        int64_t k8 = a->k / 8 * 8, k;
        v8 least = splat8(INFINITY);
        float smallest = INFINITY;
        for (k = 0; k < k8; k += 8) {
            v8 r = rank8(load8(dot + k), load8(a->c_sq + k), a->cosine);
            least = select8(r < least, r, least);
        }
        for (int j = 0; j < 8; j++) smallest = least[j] < smallest ? least[j] : smallest;
        for (; k < a->k; k++) {
            float r = rank8(splat8(dot[k]), splat8(a->c_sq[k]), a->cosine)[0];
            smallest = r < smallest ? r : smallest;
        }
        float limit = INFINITY; /* after overflow any centre may be nearest */
        if (isfinite(smallest)) limit = (float)(smallest + margin_of(a, sqrt(mode__exact_dot(x, x, a->d))));
        double best = INFINITY;
        int32_t id = 0;
        for (k = 0; k < k8; k += 8) { /* NaN counts as within the limit */
            v8 r = rank8(load8(dot + k), load8(a->c_sq + k), a->cosine);
            if (any8(~(r > limit))) measure_below(a, x, dot, limit, k, k + 8, &best, &id);
        }
        measure_below(a, x, dot, limit, k8, a->k, &best, &id);
        a->id[i] = id;
        if (a->distance) a->distance[i] = mode__exact_distance(best, a->cosine);
    }
}

static void lengths_item(void *ctx, int64_t item, int thread)
{
    struct nearest *a = ctx;
    (void)thread;
    for (int64_t k = item * NEAREST_ROWS; k < min64(a->k, (item + 1) * NEAREST_ROWS); k++)
        a->c_sq[k] = (float)mode__exact_dot(a->c + k * a->d, a->c + k * a->d, a->d);
}

/* The GEMM, then the squared lengths: those reuse the GEMM's scratch. */
static void compute_dots(struct mode_backend *be, struct nearest *a)
{
    gemm(be, a->dot, NULL, a->n, a->k, a->d, (struct view){a->x, a->d, 1}, (struct view){a->c, 1, a->d}, NULL, false);
    a->c_sq = mode__backend_work(be, (size_t)a->k * sizeof *a->c_sq);
    mode_parallel_for(ceil_div(a->k, NEAREST_ROWS), lengths_item, a);
    float most = 0; /* not fmax: GCC 12 crashes vectorising it on aarch64 */
    for (int64_t k = 0; k < a->k; k++) most = a->c_sq[k] > most ? a->c_sq[k] : most;
    a->c_max = sqrt(most);
}

static void cpu_nearest_rows(struct mode_backend *be, struct mode_tensor *id, struct mode_tensor *distance,
                             struct mode_tensor *work, const struct mode_tensor *x, const struct mode_tensor *ready,
                             const struct mode_tensor *c, bool cosine)
{
    (void)ready;
    int64_t n = x->dim[0], d = x->dim[1], w = work->dim[0];
    struct nearest a = {.dot = mode_f32(work), .c = mode_f32(c), .k = c->dim[0], .d = d, .cosine = cosine};
    for (int64_t i = 0; i < n; i += w) {
        a.n = min64(w, n - i);
        a.x = mode_f32(x) + i * d;
        a.id = (int32_t *)id->data + i;
        a.distance = distance ? mode_f32(distance) + i : NULL;
        compute_dots(be, &a);
        mode_parallel_for(ceil_div(a.n, NEAREST_ROWS), nearest_item, &a);
    }
}

static void costs_item(void *ctx, int64_t item, int thread)
{
    const struct nearest *a = ctx;
    (void)thread;
    for (int64_t i = item * NEAREST_ROWS; i < min64(a->n, (item + 1) * NEAREST_ROWS); i++) {
        float *o = a->dot + i * a->k,
              base = a->cosine ? 1 : (float)mode__exact_dot(a->x + i * a->d, a->x + i * a->d, a->d);
        for (int64_t k = 0; k < a->k; k++) {
            float v = a->cosine ? base - o[k] : base + a->c_sq[k] - 2 * o[k];
            o[k] = v > 0 ? v : 0; /* rounding can make a zero distance negative */
        }
    }
}

/* For few rows packing c would cost more than the GEMM. */
static void costs_of_few(const struct nearest *a)
{
    for (int64_t i = 0; i < a->n; i++)
        for (int64_t k = 0; k < a->k; k++) {
            const float *x = a->x + i * a->d, *c = a->c + k * a->d;
            v8 s = {0}, t = {0};
            int64_t j = 0;
            for (; j + 16 <= a->d; j += 16) {
                v8 p = load8(x + j), q = load8(x + j + 8), u = p - load8(c + j), v = q - load8(c + j + 8);
                s += a->cosine ? p * load8(c + j) : u * u;
                t += a->cosine ? q * load8(c + j + 8) : v * v;
            }
            for (; j < a->d; j += 8) {
                int64_t n = min64(8, a->d - j);
                v8 p = n == 8 ? load8(x + j) : load_part(x + j, n), q = n == 8 ? load8(c + j) : load_part(c + j, n);
                s += a->cosine ? p * q : (p - q) * (p - q);
            }
            float v = a->cosine ? 1 - sum8(s + t) : sum8(s + t);
            a->dot[i * a->k + k] = v > 0 ? v : 0;
        }
}

static void cpu_costs(struct mode_backend *be, struct mode_tensor *cost, const struct mode_tensor *x,
                      const struct mode_tensor *c, bool cosine)
{
    struct nearest a = {.dot = mode_f32(cost),
                        .x = mode_f32(x),
                        .c = mode_f32(c),
                        .n = x->dim[0],
                        .k = c->dim[0],
                        .d = x->dim[1],
                        .cosine = cosine};
    if (a.n < FEW_ROWS) {
        costs_of_few(&a);
        return;
    }
    compute_dots(be, &a);
    mode_parallel_for(ceil_div(a.n, NEAREST_ROWS), costs_item, &a);
}

static void cpu_group_rows(struct mode_backend *be, struct mode_tensor *first, struct mode_tensor *members,
                           const struct mode_tensor *id)
{
    (void)be;
    mode__group_rows(first->data, members->data, id->data, id->dim[0], first->dim[0] - 1);
}

struct group_means {
    float *means;
    double *sum; /* [threads, 2, d] */
    const float *x;
    const int32_t *first, *members;
    int64_t d;
    bool unit;
};

static void group_means_item(void *ctx, int64_t i, int thread)
{
    const struct group_means *g = ctx;
    mode__exact_mean(g->means + i * g->d, g->sum + thread * 2 * g->d, g->x, g->members + g->first[i],
                     g->first[i + 1] - g->first[i], g->d, g->unit);
}

static void cpu_group_means(struct mode_backend *be, struct mode_tensor *means, const struct mode_tensor *x,
                            const struct mode_tensor *first, const struct mode_tensor *members, bool unit)
{
    struct group_means g = {.means = mode_f32(means),
                            .x = mode_f32(x),
                            .first = first->data,
                            .members = members->data,
                            .d = x->dim[1],
                            .unit = unit};
    g.sum = mode__backend_work(be, (size_t)(mode_parallel_threads() * 2 * g.d) * sizeof *g.sum);
    mode_parallel_for(means->dim[0], group_means_item, &g);
}

#endif
