/* The exact arithmetic of nearest centres and group means: in double, in a fixed order, compiled once without FMA
 * contraction for every CPU backend; nn/cuda/nearest.cu and groups.cu take the same steps.
 *
 * A sum over columns: lane l sums columns l, l + 32, l + 64, ... from 0 on; then a tree reduction adds lane i + 16 to
 * lane i, then i + 8, ... i + 1. On a GPU that is a warp and its shuffles. Here lanes are eight vectors, which the
 * compiler splits into the machine's: any split is bit-identical. Rows of a group are summed MODE__PIECE_ROWS at a
 * time, then these partial sums in order: a GPU computes them in parallel, however uneven the groups are. */
#include "nn/backend_impl.h"

#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#if defined(__x86_64__)
#define WIDE static __attribute__((target("avx2")))
#else
#define WIDE static
#endif

enum { LANES = 32, WIDTH = 4, VECTORS = LANES / WIDTH };

typedef double v4d __attribute__((vector_size(WIDTH * sizeof(double))));
typedef double v4d_unaligned __attribute__((vector_size(WIDTH * sizeof(double)), aligned(8), may_alias));

static bool has_avx2(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2");
#else
    return false;
#endif
}

/* The next 32 columns: of a dot product, or of a squared distance. */
INLINE void add_columns(v4d s[VECTORS], const float *x, const float *y, bool dot)
{
    for (int v = 0; v < VECTORS; v++) {
        const float *p = x + v * WIDTH, *q = y + v * WIDTH;
        const v4d a = {p[0], p[1], p[2], p[3]}, b = {q[0], q[1], q[2], q[3]}, t = a - b;
        s[v] += dot ? a * b : t * t;
    }
}

INLINE double sum_of(const v4d s[VECTORS])
{
    double lane[LANES];
    memcpy(lane, s, sizeof lane);
    for (int m = LANES / 2; m; m /= 2)
        for (int i = 0; i < m; i++) lane[i] += lane[i + m];
    return lane[0];
}

INLINE double sum_over(const float *x, const float *y, int64_t d, bool dot)
{
    v4d s[VECTORS] = {{0}};
    float rest[2][LANES] = {{0}};
    int64_t j = 0;
    for (; j + LANES <= d; j += LANES) add_columns(s, x + j, y + j, dot);
    if (j < d) { /* adding +0 changes no lane: none is -0 */
        memcpy(rest[0], x + j, (size_t)(d - j) * sizeof *x);
        memcpy(rest[1], y + j, (size_t)(d - j) * sizeof *y);
        add_columns(s, rest[0], rest[1], dot);
    }
    return sum_of(s);
}

INLINE double squares_of(const double *x, int64_t d)
{
    double lane[LANES] = {0};
    for (int64_t j = 0; j < d; j++) lane[j % LANES] += x[j] * x[j];
    for (int m = LANES / 2; m; m /= 2)
        for (int i = 0; i < m; i++) lane[i] += lane[i + m];
    return lane[0];
}

INLINE void add_row(double *sum, const float *x, int64_t d)
{
    int64_t j = 0;
    for (; j + WIDTH <= d; j += WIDTH) *(v4d_unaligned *)(sum + j) += (v4d){x[j], x[j + 1], x[j + 2], x[j + 3]};
    for (; j < d; j++) sum[j] += x[j];
}

INLINE void add_members(double *sum, double *partial, const float *x, const int32_t *members, int64_t n, int64_t d)
{
    memset(sum, 0, (size_t)d * sizeof *sum);
    for (int64_t i = 0; i < n; i += MODE__PIECE_ROWS) {
        int64_t end = i + MODE__PIECE_ROWS < n ? i + MODE__PIECE_ROWS : n;
        memset(partial, 0, (size_t)d * sizeof *partial);
        for (int64_t r = i; r < end; r++) add_row(partial, x + members[r] * d, d);
        for (int64_t j = 0; j < d; j++) sum[j] += partial[j];
    }
}

WIDE double wide_sum(const float *x, const float *y, int64_t d, bool dot)
{
    return dot ? sum_over(x, y, d, true) : sum_over(x, y, d, false);
}

static double plain_sum(const float *x, const float *y, int64_t d, bool dot)
{
    return dot ? sum_over(x, y, d, true) : sum_over(x, y, d, false);
}

WIDE void wide_add_members(double *sum, double *partial, const float *x, const int32_t *members, int64_t n, int64_t d)
{
    add_members(sum, partial, x, members, n, d);
}

static void plain_add_members(double *sum, double *partial, const float *x, const int32_t *members, int64_t n,
                              int64_t d)
{
    add_members(sum, partial, x, members, n, d);
}

double mode__exact_dot(const float *x, const float *y, int64_t d)
{
    return has_avx2() ? wide_sum(x, y, d, true) : plain_sum(x, y, d, true);
}

double mode__exact_cost(const float *x, const float *y, int64_t d, bool cosine)
{
    if (cosine) return 1 - mode__exact_dot(x, y, d);
    return has_avx2() ? wide_sum(x, y, d, false) : plain_sum(x, y, d, false);
}

float mode__exact_distance(double cost, bool cosine)
{
    if (!(cost > 0)) return 0; /* rounding can make 1 - x.c negative */
    return (float)(cosine ? cost : sqrt(cost));
}

void mode__group_rows(int32_t *first, int32_t *members, const int32_t *id, int64_t n, int64_t k)
{
    memset(first, 0, ((size_t)k + 1) * sizeof *first);
    for (int64_t i = 0; i < n; i++) first[id[i] + 1]++;
    for (int64_t c = 0; c < k; c++) first[c + 1] += first[c];
    for (int64_t i = 0; i < n; i++) members[first[id[i]]++] = (int32_t)i; /* first[c] is now c's end */
    memmove(first + 1, first, (size_t)k * sizeof *first);
    first[0] = 0;
}

void mode__exact_mean(float *mean, double *sum, const float *x, const int32_t *members, int64_t n, int64_t d, bool unit)
{
    double scale = 1.0 / (double)n;
    if (n == 0) return;
    if (has_avx2())
        wide_add_members(sum, sum + d, x, members, n, d);
    else
        plain_add_members(sum, sum + d, x, members, n, d);
    if (unit) {
        double s = squares_of(sum, d);
        if (!(s > 1e-24)) return; /* rows that cancel have no direction */
        scale = 1 / sqrt(s);
    }
    for (int64_t j = 0; j < d; j++) mean[j] = (float)(sum[j] * scale);
}
