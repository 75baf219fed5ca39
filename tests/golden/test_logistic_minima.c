/* Logistic regression against the minima that scikit-learn finds in double precision (make_logistic_goldens.py). */
#include "base/str.h"
#include "data/safetensors.h"
#include "nn/backend.h"
#include "optim/logistic.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MOST_CLASSES = 8 };

static const struct mode_tensor *need(const struct mode_safetensors *f, const char *name)
{
    const struct mode_tensor *t = mode_safetensors_find(f, name);
    if (!t) fail_msg("%s is missing", name);
    return t;
}

static double length(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (a[i] - (b ? b[i] : 0)) * (a[i] - (b ? b[i] : 0));
    return sqrt(sum);
}

static void check(const char *name, const char *backend)
{
    struct mode_safetensors f;
    struct mode_backend *be;
    struct mode_logistic m;
    struct mode_error err;
    char *path = mode_xasprintf("%s/tests/golden/logistic/%s.safetensors", MODE_SOURCE_DIR, name);
    if (mode_safetensors_open(&f, path, &err) || mode_backend_open(&be, backend, &err)) fail_msg("%s", err.text);
    const struct mode_tensor *x = need(&f, "x"), *w = need(&f, "w");
    const double *strength = need(&f, "strength")->data, *b = need(&f, "b")->data,
                 *objective = need(&f, "objective")->data;
    const int64_t n = x->dim[0], d = x->dim[1], c = w->dim[1];
    double *centre = mode_xmalloc((size_t)d * sizeof *centre);
    float *rows = mode_xmalloc((size_t)(n * d) * sizeof *rows);
    memcpy(rows, mode_f32(x), (size_t)(n * d) * sizeof *rows);
    mode_rows_mean(centre, rows, n, d);
    mode_rows_less(rows, n, d, centre);
    if (mode_logistic_open(&m, be, rows, need(&f, "label")->data, n, d, c, &err)) fail_msg("%s", err.text);
    for (int64_t i = 0; i < w->dim[0]; i++) { /* warm-started from the previous weights, as in a sweep */
        const double *want_w = (const double *)w->data + i * c * d, *want_b = b + i * c;
        struct mode_logistic_options o = MODE_LOGISTIC_DEFAULT;
        struct mode_logistic_fit fit;
        double mean = 0, b_found[MOST_CLASSES];
        const bool is_held = strength[i] <= 100; /* with less regularisation the scores' f32 rounding shows */
        const double limit = is_held ? 1e-5 : 1e-3, close = is_held ? 1e-7 : 1e-6;
        o.strength = strength[i];
        o.tolerance = is_held ? 1e-7 : 2e-6;
        if (mode_logistic_fit(&m, &o, &fit, &err)) fail_msg("%s", err.text);
        memcpy(b_found, m.b, (size_t)c * sizeof *b_found);
        for (int64_t k = 0; k < c; k++) { /* biases for the uncentred rows, less their mean */
            for (int64_t j = 0; j < d; j++) b_found[k] -= m.w[k * d + j] * centre[j];
            mean += b_found[k] / (double)c;
        }
        for (int64_t k = 0; k < c; k++) b_found[k] -= mean;
        const double off = fabs(fit.objective - objective[i]) / objective[i],
                     w_off = length(m.w, want_w, c * d) / length(want_w, NULL, c * d),
                     b_off = length(b_found, want_b, c) / (length(want_b, NULL, c) + 1);
        if (!fit.converged || !(off < close) || !(w_off < limit) || !(b_off < limit))
            fail_msg("%s on %s, C = %g: objective off by %.1e, weights by %.1e, biases by %.1e, gradient %.1e after %d "
                     "steps",
                     name, backend, strength[i], off, w_off, b_off, fit.gradient, fit.iterations);
    }
    free(rows);
    free(centre);
    mode_logistic_close(&m);
    mode_backend_close(&be);
    mode_safetensors_close(&f);
    free(path);
}

static void test_minima_are_those_of_scikit_learn(void **state)
{
    static const char *const names[] = {"many", "two", "long"}, *const backends[] = {"ref", "cpu", "cpu-plain"};
    (void)state;
    for (int i = 0; i < 9; i++) check(names[i % 3], backends[i / 3]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_minima_are_those_of_scikit_learn)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
