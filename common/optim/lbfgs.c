#include "optim/lbfgs.h"

#include "base/parallel.h"
#include "base/str.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 1 << 15, MOST_TRIES = 30 /* evaluations of a line search */ };
static const double DECREASE = 1e-4, CURVATURE = 0.9; /* c1 and c2 of the Wolfe conditions */

/* ---- long vectors, in pieces: reductions have a fixed order ---- */

struct vectors {
    double *to, *part;
    const double *a, *b;
    double times;
    int64_t n;
};

static void dot_piece(void *ctx, int64_t item, int thread)
{
    struct vectors *v = ctx;
    const int64_t from = item * PIECE, to = from + PIECE < v->n ? from + PIECE : v->n;
    double sum[4] = {0};
    int64_t i = from;
    (void)thread;
    for (; i + 4 <= to; i += 4)
        for (int k = 0; k < 4; k++) sum[k] += v->a[i + k] * v->b[i + k];
    for (; i < to; i++) sum[0] += v->a[i] * v->b[i];
    v->part[item] = sum[0] + sum[1] + (sum[2] + sum[3]);
}

static void add_piece(void *ctx, int64_t item, int thread)
{
    struct vectors *v = ctx;
    const int64_t from = item * PIECE, to = from + PIECE < v->n ? from + PIECE : v->n;
    (void)thread;
    for (int64_t i = from; i < to; i++) v->to[i] = v->a[i] + v->times * v->b[i];
}

static void by_pieces(int64_t n, mode_item_fn *fn, struct vectors *v)
{
    const int64_t pieces = (n + PIECE - 1) / PIECE;
    if (pieces == 1)
        fn(v, 0, 0);
    else
        mode_parallel_for(pieces, fn, v);
}

struct search {
    const struct mode_lbfgs *o;
    mode_lbfgs_value_fn *value;
    void *ctx;
    int64_t n;
    struct mode_lbfgs_result *r;
    double *x, *g;       /* the iterate and its gradient; x is the caller's */
    double *at, *at_g;   /* the trial point of the line search and its gradient */
    double *p;           /* the direction */
    double *s, *y;       /* [history, n] ring: steps, and differences of gradients */
    double *rho, *alpha; /* [history] */
    double *part;        /* partial sums of a reduction */
    double scale;        /* of H0 */
    double noise;        /* of the value at x */
    int kept, next;      /* pairs stored; slot of the next one */
};

static double dot(const struct search *l, const double *a, const double *b)
{
    struct vectors v = {.part = l->part, .a = a, .b = b, .n = l->n};
    double sum = 0;
    by_pieces(l->n, dot_piece, &v);
    for (int64_t i = 0; i < (l->n + PIECE - 1) / PIECE; i++) sum += l->part[i];
    return sum;
}

/* to = a + times * b; to may be a or b */
static void add(const struct search *l, double *to, const double *a, double times, const double *b)
{
    struct vectors v = {.to = to, .a = a, .b = b, .times = times, .n = l->n};
    by_pieces(l->n, add_piece, &v);
}

/* ---- the direction ---- */

static void direction(struct search *l)
{
    const int m = l->o->history;
    memcpy(l->p, l->g, (size_t)l->n * sizeof *l->p);
    for (int k = 1; k <= l->kept; k++) {
        const int i = (l->next - k + m) % m;
        l->alpha[i] = l->rho[i] * dot(l, l->s + i * l->n, l->p);
        add(l, l->p, l->p, -l->alpha[i], l->y + i * l->n);
    }
    if (l->o->metric) l->o->metric(l->ctx, l->p);
    for (int64_t i = 0; i < l->n; i++) l->p[i] *= l->scale;
    for (int k = l->kept; k >= 1; k--) {
        const int i = (l->next - k + m) % m;
        const double beta = l->rho[i] * dot(l, l->y + i * l->n, l->p);
        add(l, l->p, l->p, l->alpha[i] - beta, l->s + i * l->n);
    }
    for (int64_t i = 0; i < l->n; i++) l->p[i] = -l->p[i];
}

/* Store the pair of the step from x to `at`, if its curvature is positive: that keeps the inverse Hessian positive
 * definite. */
static void store_pair(struct search *l)
{
    double *s = l->s + l->next * l->n, *y = l->y + l->next * l->n;
    add(l, s, l->at, -1, l->x);
    add(l, y, l->at_g, -1, l->g);
    const double sy = dot(l, s, y), yy = dot(l, y, y);
    if (!(sy > 1e-16 * yy)) return;
    l->rho[l->next] = 1 / sy;
    l->next = (l->next + 1) % l->o->history;
    if (l->kept < l->o->history) l->kept++;
    if (!l->o->metric) {
        l->scale = sy / yy;
        return;
    }
    double *t = l->p; /* free until the next direction */
    memcpy(t, y, (size_t)l->n * sizeof *t);
    l->o->metric(l->ctx, t);
    l->scale = sy / dot(l, y, t);
}

/* ---- the line search ---- */

struct trial {
    double step, value, slope, noise; /* slope: along the direction */
};

static struct trial evaluate(struct search *l, double step)
{
    struct trial a = {.step = step};
    add(l, l->at, l->x, step, l->p);
    a.value = l->value(l->ctx, l->at, l->at_g, &a.noise);
    a.slope = dot(l, l->at_g, l->p);
    l->r->evaluations++;
    return a;
}

/* The minimum of the cubic through both values and slopes, at least a tenth of the interval from its ends; where the
 * values differ by no more than noise, the zero of the slopes' secant. */
static double interpolate(struct trial a, struct trial b, double noise)
{
    const double width = b.step - a.step, d = a.slope + b.slope - 3 * (a.value - b.value) / (a.step - b.step),
                 square = d * d - a.slope * b.slope;
    double t = 0.5;
    if (fabs(a.value - b.value) <= noise)
        t = a.slope * b.slope < 0 ? a.slope / (a.slope - b.slope) : 0.5;
    else if (isfinite(b.value) && square >= 0) {
        const double root = copysign(sqrt(square), width);
        t = 1 - (b.slope + root - d) / (b.slope - a.slope + 2 * root);
    }
    if (isnan(t)) t = 0.5;
    return a.step + (t < 0.1 ? 0.1 : t > 0.9 ? 0.9 : t) * width;
}

/* From x along p to a point that fulfils the Wolfe conditions: it is in `at`, its gradient in at_g. False: p is not a
 * descent direction, or none was found. */
static bool line_search(struct search *l, struct trial *found)
{
    const struct trial begin = {0, l->r->value, dot(l, l->g, l->p), l->noise};
    struct trial low = begin, high = begin;
    bool bounded = false;
    double step = 1;
    if (!(begin.slope < 0)) return false;
    for (int i = 0; i < MOST_TRIES; i++) {
        struct trial a = evaluate(l, step);
        const double noise = a.noise + begin.noise;
        const bool finite = isfinite(a.value) && isfinite(a.slope),
                   alike = finite && fabs(a.value - begin.value) <= noise,
                   lower = finite && (a.value <= begin.value + DECREASE * step * begin.slope ||
                                      (alike && a.slope <= (2 * DECREASE - 1) * begin.slope));
        if (lower && fabs(a.slope) <= -CURVATURE * begin.slope) {
            *found = a;
            return true;
        }
        if (!finite || (!alike && (!lower || (a.value >= low.value && low.step > 0)))) {
            high = a;
            if (!finite) high.value = INFINITY;
            bounded = true;
        } else {
            if (a.slope * (bounded ? high.step - low.step : 1) >= 0) {
                high = low;
                bounded = true;
            }
            low = a;
        }
        step = bounded ? interpolate(low, high, noise) : 4 * step;
    }
    return false;
}

static void drop_history(struct search *l)
{
    l->kept = l->next = 0;
    l->scale = l->o->first_step;
}

static void swap(double **a, double **b)
{
    double *t = *a;
    *a = *b;
    *b = t;
}

static void minimise(struct search *l)
{
    struct mode_lbfgs_result *r = l->r;
    r->end = MODE_LBFGS_CONVERGED;
    while (r->gradient = sqrt(dot(l, l->g, l->g)), r->gradient > l->o->enough) {
        struct trial found;
        if (r->iterations == l->o->max_iterations) {
            r->end = MODE_LBFGS_MOST_ITERATIONS;
            return;
        }
        direction(l);
        while (!line_search(l, &found)) {
            if (!l->kept) {
                r->end = MODE_LBFGS_NO_PROGRESS;
                return;
            }
            drop_history(l);
            direction(l);
        }
        store_pair(l);
        memcpy(l->x, l->at, (size_t)l->n * sizeof *l->x);
        swap(&l->g, &l->at_g);
        r->value = found.value;
        l->noise = found.noise;
        r->iterations++;
    }
}

static int64_t doubles(const struct mode_lbfgs *o, int64_t n)
{
    return (4 + 2 * (int64_t)o->history) * n + 2 * o->history + (n + PIECE - 1) / PIECE;
}

size_t mode_lbfgs_bytes(const struct mode_lbfgs *o, int64_t n)
{
    return (size_t)doubles(o, n) * sizeof(double);
}

enum mode_status mode_lbfgs_minimise(const struct mode_lbfgs *o, double *x, int64_t n, mode_lbfgs_value_fn *value,
                                     void *ctx, struct mode_lbfgs_result *result, struct mode_error *err)
{
    struct search l = {.o = o, .value = value, .ctx = ctx, .n = n, .r = result, .x = x};
    const int m = o->history;
    MODE_ASSERT(n > 0 && m > 0);
    double *all = malloc(mode_lbfgs_bytes(o, n));
    if (!all)
        return MODE_FAIL(err, MODE_E_MEMORY, "no memory for the %d steps of %lld numbers that L-BFGS remembers", m,
                         (long long)n);
    l.g = all;
    l.at = l.g + n;
    l.at_g = l.at + n;
    l.p = l.at_g + n;
    l.s = l.p + n;
    l.y = l.s + m * n;
    l.rho = l.y + m * n;
    l.alpha = l.rho + m;
    l.part = l.alpha + m;
    drop_history(&l);
    *result = (struct mode_lbfgs_result){.evaluations = 1};
    result->value = value(ctx, x, l.g, &l.noise);
    const double length = dot(&l, l.g, l.g);
    enum mode_status st = MODE_OK;
    if (isfinite(result->value) && isfinite(length))
        minimise(&l);
    else
        st = MODE_FAIL(err, MODE_E_VALUE,
                       "at the start the objective is %g and the norm of its gradient %g, expected finite numbers",
                       result->value, sqrt(length));
    free(all);
    return st;
}
