#include "optim/logistic.h"

#include "base/parallel.h"
#include "base/str.h"
#include "nn/ops.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ITEM = 32, MOST_ROWS = 4096, LEAST_ROWS = 64, HISTORY = 10, MEAN_ROWS = 256, MEAN_ITEMS = 64 };
static const double LEAST_CURVE = 1e-3; /* floor of a column's curvature, relative to the mean: for constant columns */
static const int64_t SCORES = (int64_t)1 << 22; /* scores of a batch at most */

/* Rows of a batch. It affects the rounding of f32 sums, so it depends on c alone. */
static int64_t rows_at_a_time(int64_t c)
{
    const int64_t rows = SCORES / c / ITEM * ITEM;
    return rows > MOST_ROWS ? MOST_ROWS : rows < LEAST_ROWS ? LEAST_ROWS : rows;
}

struct mode_logistic_room {
    int64_t rows;         /* of a batch at most */
    double strength;      /* C of the fit */
    double *curve;        /* [d]: estimate of the Hessian's diagonal by column, without the penalty */
    float *w32, *b32;     /* [c, d], [c]: GEMM operands */
    float *dw32;          /* [c, d]: gradient of a batch; 0 between batches */
    double *g;            /* [c, d]: accumulated gradient */
    float *score;         /* [rows, c]: scores, then softmax - onehot(label) */
    double *loss, *size;  /* [rows / ITEM]; size: magnitude of the scores whose difference the loss is */
    double *column;       /* [rows / ITEM, c]: column sums of softmax - onehot, for the bias's gradient */
    const int32_t *label; /* [rows] of the batch */
    int64_t some, c;      /* rows of the batch, classes */
};

static int64_t numbers(int64_t d, int64_t c)
{
    return c * (d + 1);
}

/* The factor of |w|^2 / 2. */
static double penalty_of(const struct mode_logistic *m, double strength)
{
    return (m->c == 2 ? 2 : 1) / (strength * (double)m->n);
}

/* Diagonal preconditioner: the Hessian's diagonal of a weight is about its column's curvature plus the penalty, that of
 * a bias about 1 / c. */
static void metric(void *ctx, double *v)
{
    const struct mode_logistic *m = ctx;
    const int64_t w_numbers = m->c * m->d;
    const double penalty = penalty_of(m, m->room->strength);
    for (int64_t i = 0; i < w_numbers; i++) v[i] /= m->room->curve[i % m->d] + penalty;
    for (int64_t k = 0; k < m->c; k++) v[w_numbers + k] *= (double)m->c;
}

static struct mode_lbfgs search_of(const struct mode_logistic_options *o)
{
    struct mode_lbfgs l = MODE_LBFGS_DEFAULT;
    l.history = HISTORY;
    l.metric = metric;
    if (o) l.max_iterations = o->max_iterations;
    return l;
}

size_t mode_logistic_bytes(int64_t d, int64_t c)
{
    const struct mode_lbfgs l = search_of(NULL);
    const int64_t rows = rows_at_a_time(c), items = rows / ITEM;
    return mode_lbfgs_bytes(&l, numbers(d, c)) +
           sizeof(double) * (size_t)(3 * numbers(d, c) + (1 + MEAN_ITEMS) * d + items * (c + 2)) +
           sizeof(float) * (size_t)(2 * c * d + c + rows * c);
}

/* ---- the mean ---- */

struct shift {
    float *x;
    int64_t n, d, first; /* first: row of item 0 */
    double *part;        /* [MEAN_ITEMS, d] */
    const double *mean;
    bool squares; /* sum x^2 instead of x */
};

static void sum_item(void *ctx, int64_t item, int thread)
{
    const struct shift *s = ctx;
    const int64_t from = s->first + item * MEAN_ROWS, to = from + MEAN_ROWS < s->n ? from + MEAN_ROWS : s->n;
    double *part = s->part + item * s->d;
    (void)thread;
    for (int64_t k = 0; k < s->d; k++) part[k] = 0;
    for (int64_t i = from; i < to; i++)
        for (int64_t k = 0; k < s->d; k++) {
            const double x = s->x[i * s->d + k];
            part[k] += s->squares ? x * x : x;
        }
}

static void column_means(double *mean, const float *x, int64_t n, int64_t d, bool squares)
{
    struct shift s = {.x = (float *)(uintptr_t)x, .n = n, .d = d, .squares = squares};
    s.part = mode_xmalloc((size_t)(MEAN_ITEMS * d) * sizeof *s.part);
    memset(mean, 0, (size_t)d * sizeof *mean);
    for (; s.first < n; s.first += MEAN_ITEMS * MEAN_ROWS) {
        const int64_t left = (n - s.first + MEAN_ROWS - 1) / MEAN_ROWS, items = left < MEAN_ITEMS ? left : MEAN_ITEMS;
        mode_parallel_for(items, sum_item, &s);
        for (int64_t i = 0; i < items; i++)
            for (int64_t k = 0; k < d; k++) mean[k] += s.part[i * d + k];
    }
    for (int64_t k = 0; k < d; k++) mean[k] /= (double)n;
    free(s.part);
}

void mode_rows_mean(double *mean, const float *x, int64_t n, int64_t d)
{
    column_means(mean, x, n, d, false);
}

static void less_item(void *ctx, int64_t item, int thread)
{
    const struct shift *s = ctx;
    const int64_t from = item * MEAN_ROWS, to = from + MEAN_ROWS < s->n ? from + MEAN_ROWS : s->n;
    (void)thread;
    for (int64_t i = from; i < to; i++)
        for (int64_t k = 0; k < s->d; k++) s->x[i * s->d + k] = (float)(s->x[i * s->d + k] - s->mean[k]);
}

void mode_rows_less(float *x, int64_t n, int64_t d, const double *mean)
{
    struct shift s = {.x = x, .n = n, .d = d, .mean = mean};
    mode_parallel_for((n + MEAN_ROWS - 1) / MEAN_ROWS, less_item, &s);
}

/* ---- the objective ---- */

/* ITEM rows of scores become softmax - onehot(label); sums up their loss. */
static void softmax_item(void *ctx, int64_t item, int thread)
{
    struct mode_logistic_room *room = ctx;
    const int64_t c = room->c, from = item * ITEM, to = from + ITEM < room->some ? from + ITEM : room->some;
    double loss = 0, size = 0, *column = room->column + item * c;
    (void)thread;
    for (int64_t k = 0; k < c; k++) column[k] = 0;
    for (int64_t i = from; i < to; i++) {
        float *s = room->score + i * c, most = s[0];
        const float own = s[room->label[i]];
        double sum = 0;
        for (int64_t k = 1; k < c; k++) most = s[k] > most ? s[k] : most;
        for (int64_t k = 0; k < c; k++) {
            s[k] = expf(s[k] - most);
            sum += s[k];
        }
        loss += log(sum) + ((double)most - own);
        size += fabs((double)most) + fabs((double)own);
        const double share = 1 / sum;
        for (int64_t k = 0; k < c; k++) {
            const double p = s[k] * share;
            s[k] = (float)p;
            column[k] += p;
        }
        s[room->label[i]] = (float)((double)s[room->label[i]] - 1);
        column[room->label[i]] -= 1;
    }
    room->loss[item] = loss;
    room->size[item] = size;
}

/* w and b as f32 GEMM operands. */
static void round_weights(struct mode_logistic *m, const double *theta)
{
    struct mode_logistic_room *room = m->room;
    for (int64_t i = 0; i < m->c * m->d; i++) room->w32[i] = (float)theta[i];
    for (int64_t k = 0; k < m->c; k++) room->b32[k] = (float)theta[m->c * m->d + k];
}

/* Accumulate a class's gradient over the batch in f64, and zero it for the next batch. */
static void gather_item(void *ctx, int64_t k, int thread)
{
    struct mode_logistic *m = ctx;
    double *g = m->room->g + k * m->d;
    float *some = m->room->dw32 + k * m->d;
    (void)thread;
    for (int64_t j = 0; j < m->d; j++) g[j] += some[j];
    memset(some, 0, (size_t)m->d * sizeof *some);
}

/* The objective; theta [c * (d + 1)]: weights, then biases; g likewise. */
static double value_of(void *ctx, const double *theta, double *g, double *noise)
{
    struct mode_logistic *m = ctx;
    struct mode_logistic_room *room = m->room;
    const int64_t d = m->d, c = m->c, w_numbers = c * d;
    double loss = 0, size = 0, squares = 0, *db = g + w_numbers;
    struct mode_tensor w = mode_tensor_2d(room->w32, MODE_DTYPE_F32, c, d),
                       b = mode_tensor_1d(room->b32, MODE_DTYPE_F32, c),
                       dw = mode_tensor_2d(room->dw32, MODE_DTYPE_F32, c, d);
    round_weights(m, theta);
    memset(g, 0, (size_t)numbers(d, c) * sizeof *g);
    room->g = g;
    for (int64_t at = 0; at < m->n; at += room->rows) {
        const int64_t some = m->n - at < room->rows ? m->n - at : room->rows, items = (some + ITEM - 1) / ITEM;
        struct mode_tensor x = mode_tensor_2d((void *)(uintptr_t)(m->x + at * d), MODE_DTYPE_F32, some, d),
                           y = mode_tensor_2d(room->score, MODE_DTYPE_F32, some, c);
        mode_linear(m->be, &y, &x, &w, &b);
        room->label = m->label + at;
        room->some = some;
        mode_parallel_for(items, softmax_item, room);
        mode_linear_back(m->be, NULL, &dw, NULL, &y, &x, &w);
        mode_parallel_for(c, gather_item, m);
        for (int64_t i = 0; i < items; i++) {
            loss += room->loss[i];
            size += room->size[i];
            for (int64_t k = 0; k < c; k++) db[k] += room->column[i * c + k];
        }
    }
    const double n = (double)m->n, penalty = penalty_of(m, room->strength);
    for (int64_t i = 0; i < w_numbers; i++) {
        g[i] = g[i] / n + penalty * theta[i];
        squares += theta[i] * theta[i];
    }
    for (int64_t k = 0; k < c; k++) db[k] /= n;
    *noise = FLT_EPSILON * size / n;
    return loss / n + penalty / 2 * squares;
}

double mode_logistic_value(struct mode_logistic *m, double strength, double *dw, double *db)
{
    const int64_t n_numbers = numbers(m->d, m->c), w_numbers = m->c * m->d;
    double noise, *g = mode_xmalloc((size_t)n_numbers * sizeof *g);
    m->room->strength = strength;
    const double value = value_of(m, m->w, g, &noise);
    memcpy(dw, g, (size_t)w_numbers * sizeof *dw);
    memcpy(db, g + w_numbers, (size_t)m->c * sizeof *db);
    free(g);
    return value;
}

/* ---- the fit ---- */

enum mode_status mode_logistic_fit(struct mode_logistic *m, const struct mode_logistic_options *o,
                                   struct mode_logistic_fit *fit, struct mode_error *err)
{
    struct mode_logistic_room *room = m->room;
    const int64_t n_numbers = numbers(m->d, m->c);
    struct mode_lbfgs l = search_of(o);
    struct mode_lbfgs_result r;
    double noise, length = 0, *zero = calloc((size_t)(2 * n_numbers), sizeof *zero), *g = zero + n_numbers;
    if (!zero)
        return MODE_FAIL(err, MODE_E_MEMORY, "no memory for the weights of %lld classes of %lld numbers",
                         (long long)m->c, (long long)m->d);
    room->strength = o->strength;
    /* the reference for the tolerance: independent of n, of the scale of x and of the starting point */
    (void)value_of(m, zero, g, &noise);
    for (int64_t i = 0; i < n_numbers; i++) length += g[i] * g[i];
    length = sqrt(length);
    free(zero);
    /* if all rows are equal this gradient is only rounding error, and no fraction of it can be reached */
    const bool nothing = length <= DBL_EPSILON;
    l.enough = nothing ? DBL_EPSILON : o->tolerance * length;
    enum mode_status st = mode_lbfgs_minimise(&l, m->w, n_numbers, value_of, m, &r, err);
    if (st) return st;
    *fit = (struct mode_logistic_fit){.objective = r.value,
                                      .gradient = nothing ? 0 : r.gradient / length,
                                      .iterations = r.iterations,
                                      .evaluations = r.evaluations,
                                      .converged = r.end == MODE_LBFGS_CONVERGED};
    return MODE_OK;
}

void mode_logistic_scores(struct mode_logistic *m, float *scores, const float *x, int64_t n)
{
    struct mode_logistic_room *room = m->room;
    const int64_t d = m->d, c = m->c;
    struct mode_tensor w = mode_tensor_2d(room->w32, MODE_DTYPE_F32, c, d),
                       b = mode_tensor_1d(room->b32, MODE_DTYPE_F32, c),
                       in = mode_tensor_2d((void *)(uintptr_t)x, MODE_DTYPE_F32, n, d),
                       out = mode_tensor_2d(scores, MODE_DTYPE_F32, n, c);
    round_weights(m, m->w);
    mode_linear(m->be, &out, &in, &w, &b);
}

/* ---- opening ---- */

static enum mode_status check(const struct mode_logistic *m, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    if (m->n < 1 || m->d < 1)
        return MODE_FAIL(err, MODE_E_VALUE, "%lld rows of %lld numbers: nothing to learn from", (long long)m->n,
                         (long long)m->d);
    if (m->c < 2) return MODE_FAIL(err, MODE_E_VALUE, "%lld class: at least two are needed", (long long)m->c);
    int64_t *rows = mode_xcalloc((size_t)m->c, sizeof *rows);
    for (int64_t i = 0; !st && i < m->n; i++) {
        if (m->label[i] < 0 || m->label[i] >= m->c)
            st = MODE_FAIL(err, MODE_E_VALUE, "the label of row %lld is %d, expected 0 to %lld", (long long)i,
                           m->label[i], (long long)m->c - 1);
        else
            rows[m->label[i]]++;
    }
    for (int64_t k = 0; !st && k < m->c; k++)
        if (!rows[k]) st = MODE_FAIL(err, MODE_E_VALUE, "class %lld has no row to learn from", (long long)k);
    free(rows);
    for (int64_t i = 0; !st && i < m->n * m->d; i++)
        if (!isfinite(m->x[i]))
            st = MODE_FAIL(err, MODE_E_VALUE, "number %lld of row %lld is %f, a finite number is needed",
                           (long long)(i % m->d), (long long)(i / m->d), (double)m->x[i]);
    return st;
}

enum mode_status mode_logistic_open(struct mode_logistic *m, struct mode_backend *be, const float *x,
                                    const int32_t *label, int64_t n, int64_t d, int64_t c, struct mode_error *err)
{
    *m = (struct mode_logistic){.be = be, .x = x, .label = label, .n = n, .d = d, .c = c};
    MODE_ASSERT(!mode_backend_is_device(be));
    enum mode_status st = check(m, err);
    if (st) return st;
    struct mode_logistic_room *room = m->room = mode_xcalloc(1, sizeof *room);
    const int64_t rows = rows_at_a_time(c), items = rows / ITEM;
    double mean = 0;
    room->rows = rows;
    room->c = c;
    m->w = calloc((size_t)numbers(d, c), sizeof *m->w);
    room->curve = malloc((size_t)d * sizeof *room->curve);
    room->w32 = malloc((size_t)(c * d) * sizeof *room->w32);
    room->b32 = malloc((size_t)c * sizeof *room->b32);
    room->dw32 = calloc((size_t)(c * d), sizeof *room->dw32);
    room->score = malloc((size_t)(rows * c) * sizeof *room->score);
    room->loss = malloc((size_t)(2 * items) * sizeof *room->loss);
    room->column = malloc((size_t)(items * c) * sizeof *room->column);
    if (!m->w || !room->curve || !room->w32 || !room->b32 || !room->dw32 || !room->score || !room->loss ||
        !room->column)
        return MODE_FAIL(err, MODE_E_MEMORY, "no memory for %lld classes of %lld features", (long long)c, (long long)d);
    m->b = m->w + c * d;
    room->size = room->loss + items;
    column_means(room->curve, x, n, d, true);
    for (int64_t k = 0; k < d; k++) mean += room->curve[k] / (double)d;
    for (int64_t k = 0; k < d; k++) room->curve[k] = fmax(room->curve[k], LEAST_CURVE * mean) / (double)c;
    return MODE_OK;
}

void mode_logistic_close(struct mode_logistic *m)
{
    struct mode_logistic_room *room = m->room;
    free(m->w);
    if (room) {
        free(room->curve);
        free(room->w32);
        free(room->b32);
        free(room->dw32);
        free(room->score);
        free(room->loss);
        free(room->column);
    }
    free(room);
    *m = (struct mode_logistic){0};
}
