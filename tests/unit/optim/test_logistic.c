/* L-BFGS on functions with a known minimum; logistic regression: value and gradient against their definition in double
 * and against finite differences, centred rows, and what it refuses. */
#include "base/rng.h"
#include "nn/backend.h"
#include "optim/lbfgs.h"
#include "optim/logistic.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- L-BFGS ---- */

static double rosenbrock(void *ctx, const double *x, double *g, double *noise)
{
    const double a = 1 - x[0], b = x[1] - x[0] * x[0];
    (void)noise;
    ++*(int *)ctx;
    g[0] = -2 * a - 400 * x[0] * b;
    g[1] = 200 * b;
    return a * a + 100 * b * b;
}

static void test_a_curved_valley_is_followed_to_its_end(void **state)
{
    struct mode_lbfgs o = MODE_LBFGS_DEFAULT;
    struct mode_lbfgs_result r;
    double x[2] = {-1.2, 1};
    int seen = 0;
    (void)state;
    o.enough = 1e-9;
    assert_int_equal(mode_lbfgs_minimise(&o, x, 2, rosenbrock, &seen, &r, NULL), MODE_OK);
    assert_int_equal(r.end, MODE_LBFGS_CONVERGED);
    assert_true(fabs(x[0] - 1) < 1e-7 && fabs(x[1] - 1) < 1e-7 && r.gradient <= 1e-9);
    assert_true(r.iterations < 60 && seen == r.evaluations);
    o.max_iterations = 3;
    x[0] = -1.2, x[1] = 1;
    assert_int_equal(mode_lbfgs_minimise(&o, x, 2, rosenbrock, &seen, &r, NULL), MODE_OK);
    assert_int_equal(r.end, MODE_LBFGS_MOST_ITERATIONS);
    assert_int_equal(r.iterations, 3);
    assert_true(r.value < 24.2);
}

enum { LONG = 100003 };

/* sum of (i % 100 + 1) (x_i - 1)^2 / 2, in many pieces */
static double bowl(void *ctx, const double *x, double *g, double *noise)
{
    double sum = 0;
    (void)ctx, (void)noise;
    for (int i = 0; i < LONG; i++) {
        g[i] = (i % 100 + 1) * (x[i] - 1);
        sum += g[i] * (x[i] - 1) / 2;
    }
    return sum;
}

static void bowl_metric(void *ctx, double *v)
{
    (void)ctx;
    for (int i = 0; i < LONG; i++) v[i] /= i % 100 + 1;
}

static void test_a_metric_that_is_right_leaves_one_step(void **state)
{
    struct mode_lbfgs o = MODE_LBFGS_DEFAULT;
    struct mode_lbfgs_result r;
    double *x = calloc(LONG, sizeof *x);
    (void)state;
    assert_int_equal(mode_lbfgs_minimise(&o, x, LONG, bowl, NULL, &r, NULL), MODE_OK);
    assert_int_equal(r.end, MODE_LBFGS_CONVERGED);
    assert_true(r.iterations > 10);
    for (int i = 0; i < LONG; i++) assert_true(fabs(x[i] - 1) < 1e-6);
    memset(x, 0, LONG * sizeof *x);
    o.metric = bowl_metric;
    assert_int_equal(mode_lbfgs_minimise(&o, x, LONG, bowl, NULL, &r, NULL), MODE_OK);
    assert_int_equal(r.iterations, 1);
    free(x);
}

/* A constant value, as if differences were below the stated rounding error; the gradient alone leads to the minimum. */
static double hidden(void *ctx, const double *x, double *g, double *noise)
{
    (void)ctx;
    for (int i = 0; i < 2; i++) g[i] = (i + 1) * (x[i] - 3);
    *noise = 1;
    return 7;
}

static double wrong(void *ctx, const double *x, double *g, double *noise)
{
    (void)noise;
    g[0] = -1; /* wrong sign: not a descent direction */
    return *(double *)ctx + x[0];
}

static void test_where_values_say_nothing_slopes_do_and_nothing_goes_on_for_ever(void **state)
{
    struct mode_lbfgs o = MODE_LBFGS_DEFAULT;
    struct mode_lbfgs_result r;
    struct mode_error err;
    double x[2] = {0}, start = 0;
    (void)state;
    assert_int_equal(mode_lbfgs_minimise(&o, x, 2, hidden, NULL, &r, NULL), MODE_OK);
    assert_int_equal(r.end, MODE_LBFGS_CONVERGED);
    assert_true(fabs(x[0] - 3) < 1e-5 && fabs(x[1] - 3) < 1e-5);
    x[0] = 0;
    assert_int_equal(mode_lbfgs_minimise(&o, x, 1, wrong, &start, &r, NULL), MODE_OK);
    assert_int_equal(r.end, MODE_LBFGS_NO_PROGRESS);
    assert_true(x[0] == 0 && r.value == 0);
    start = NAN;
    assert_int_equal(mode_lbfgs_minimise(&o, x, 1, wrong, &start, &r, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "at the start"));
}

/* ---- logistic regression ---- */

enum { N = 9001, D = 5, C = 3 }; /* more rows than one chunk */

static float x[N * D];
static int32_t label[N];
static struct mode_backend *be;

static int setup(void **state)
{
    struct mode_rng r = mode_rng_for(1, MODE_RNG_TEST, 8, 0);
    (void)state;
    for (int i = 0; i < N; i++) {
        label[i] = (int32_t)mode_rng_below(&r, C);
        for (int k = 0; k < D; k++) x[i * D + k] = (float)(2 + mode_rng_normal(&r) + (k == label[i]));
    }
    return mode_backend_open(&be, "cpu", NULL);
}

static int teardown(void **state)
{
    (void)state;
    mode_backend_close(&be);
    return 0;
}

/* The objective by its definition; g [C, D] and then [C]. */
static double slow(double *g, const double *w, const double *b, double strength)
{
    double loss = 0, squares = 0;
    memset(g, 0, sizeof(double) * C * (D + 1));
    for (int i = 0; i < N; i++) {
        double z[C], sum = 0;
        for (int c = 0; c < C; c++) {
            z[c] = b[c];
            for (int k = 0; k < D; k++) z[c] += w[c * D + k] * x[i * D + k];
            sum += exp(z[c]);
        }
        loss += log(sum) - z[label[i]];
        for (int c = 0; c < C; c++) {
            const double p = exp(z[c]) / sum - (c == label[i]);
            for (int k = 0; k < D; k++) g[c * D + k] += p * x[i * D + k] / N;
            g[C * D + c] += p / N;
        }
    }
    for (int i = 0; i < C * D; i++) {
        g[i] += w[i] / (strength * N);
        squares += w[i] * w[i];
    }
    return loss / N + squares / (2 * strength * N);
}

static void test_value_and_gradient_are_those_of_the_definition(void **state)
{
    struct mode_logistic m;
    struct mode_rng r = mode_rng_for(2, MODE_RNG_TEST, 8, 0);
    double g[C * (D + 1)], want[C * (D + 1)], other[C * (D + 1)];
    (void)state;
    assert_int_equal(mode_logistic_open(&m, be, x, label, N, D, C, NULL), MODE_OK);
    for (int i = 0; i < C * D; i++) m.w[i] = mode_rng_normal(&r);
    for (int i = 0; i < C; i++) m.b[i] = mode_rng_normal(&r);
    const double strength = 1e-3, value = mode_logistic_value(&m, strength, g, g + C * D),
                 slow_value = slow(want, m.w, m.b, strength);
    assert_true(fabs(value - slow_value) < 1e-6 * slow_value);
    for (int i = 0; i < C * (D + 1); i++) assert_true(fabs(g[i] - want[i]) < 1e-6);
    for (int i = 0; i < C * (D + 1); i++) { /* and against central differences */
        double *at = i < C * D ? &m.w[i] : &m.b[i - C * D], was = *at;
        const double step = 1e-2;
        *at = was + step;
        const double up = mode_logistic_value(&m, strength, other, other + C * D);
        *at = was - step;
        const double down = mode_logistic_value(&m, strength, other, other + C * D);
        *at = was;
        if (!(fabs((up - down) / (2 * step) - g[i]) < 2e-4))
            fail_msg("number %d: the gradient is %g, differences say %g", i, g[i], (up - down) / (2 * step));
    }
    mode_logistic_close(&m);
}

/* Centring the rows does not change the minimum: the scores are the same. */
static void test_the_mean_of_the_rows_changes_nothing_but_the_way(void **state)
{
    static float centred[N * D], scores[2][N * C];
    struct mode_logistic m;
    struct mode_logistic_options o = MODE_LOGISTIC_DEFAULT;
    struct mode_logistic_fit fit[2];
    double mean[D], left[D];
    (void)state;
    memcpy(centred, x, sizeof centred);
    mode_rows_mean(mean, centred, N, D);
    for (int k = 0; k < D; k++) {
        double sum = 0;
        for (int i = 0; i < N; i++) sum += x[i * D + k];
        assert_true(fabs(sum / N - mean[k]) < 1e-12);
    }
    mode_rows_less(centred, N, D, mean);
    mode_rows_mean(left, centred, N, D);
    for (int k = 0; k < D; k++) assert_true(fabs(left[k]) < 1e-7);
    o.tolerance = 1e-7;
    for (int i = 0; i < 2; i++) {
        const float *rows = i ? centred : x;
        assert_int_equal(mode_logistic_open(&m, be, rows, label, N, D, C, NULL), MODE_OK);
        assert_int_equal(mode_logistic_fit(&m, &o, &fit[i], NULL), MODE_OK);
        assert_true(fit[i].converged && fit[i].gradient <= 1e-7);
        mode_logistic_scores(&m, scores[i], rows, N);
        mode_logistic_close(&m);
    }
    assert_true(fabs(fit[0].objective - fit[1].objective) < 1e-7);
    for (int i = 0; i < N * C; i++) assert_true(fabsf(scores[0][i] - scores[1][i]) < 1e-3f);
    assert_true(fit[1].iterations < fit[0].iterations);
}

/* A collapsed model has equal features for all pictures: the start is the minimum, and counts as converged. */
static void test_rows_that_are_all_alike(void **state)
{
    enum { ROWS = 300, CLASSES = 5 };
    static float alike[ROWS * D];
    static int32_t of[ROWS];
    struct mode_logistic_options o = MODE_LOGISTIC_DEFAULT;
    struct mode_logistic_fit fit;
    struct mode_logistic m;
    struct mode_error err;
    double mean[D];
    (void)state;
    for (int i = 0; i < ROWS * D; i++) alike[i] = 0.1f;
    for (int i = 0; i < ROWS; i++) of[i] = i % CLASSES;
    mode_rows_mean(mean, alike, ROWS, D);
    mode_rows_less(alike, ROWS, D, mean);
    assert_int_equal(mode_logistic_open(&m, be, alike, of, ROWS, D, CLASSES, &err), MODE_OK);
    for (o.strength = 1e-6; o.strength < 1e7; o.strength *= 100) {
        assert_int_equal(mode_logistic_fit(&m, &o, &fit, &err), MODE_OK);
        assert_true(fit.converged && fit.gradient == 0 && fabs(fit.objective - log(CLASSES)) < 1e-12);
    }
    mode_logistic_close(&m);
}

static void test_what_cannot_be_learnt_from_is_refused(void **state)
{
    static const struct {
        int64_t n, d, c;
        const char *words;
    } sizes[] = {{0, D, C, "nothing to learn from"},
                 {N, 0, C, "nothing to learn from"},
                 {N, D, 1, "at least two"},
                 {N, D, C + 1, "class 3 has no row"},
                 {N, D, C - 1, "expected 0 to 1"}};
    struct mode_logistic m;
    struct mode_error err;
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_int_equal(mode_logistic_open(&m, be, x, label, sizes[i].n, sizes[i].d, sizes[i].c, &err), MODE_E_VALUE);
        assert_non_null(strstr(err.text, sizes[i].words));
        mode_logistic_close(&m);
    }
    x[17 * D + 4] = NAN;
    assert_int_equal(mode_logistic_open(&m, be, x, label, N, D, C, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "number 4 of row 17"));
    mode_logistic_close(&m);
    for (int i = 0; i < N * D; i++) x[i] = (float)(i % 7 - 3) * 1e38f; /* finite, but sums overflow */
    struct mode_logistic_options o = MODE_LOGISTIC_DEFAULT;
    struct mode_logistic_fit fit;
    assert_int_equal(mode_logistic_open(&m, be, x, label, N, D, C, &err), MODE_OK);
    assert_int_equal(mode_logistic_fit(&m, &o, &fit, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "its gradient"));
    mode_logistic_close(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_curved_valley_is_followed_to_its_end),
        cmocka_unit_test(test_a_metric_that_is_right_leaves_one_step),
        cmocka_unit_test(test_where_values_say_nothing_slopes_do_and_nothing_goes_on_for_ever),
        cmocka_unit_test(test_value_and_gradient_are_those_of_the_definition),
        cmocka_unit_test(test_the_mean_of_the_rows_changes_nothing_but_the_way),
        cmocka_unit_test(test_rows_that_are_all_alike),
        cmocka_unit_test(test_what_cannot_be_learnt_from_is_refused), /* overwrites the rows */
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
