/* Deduplication: of frequent rows the copies that would fill a second centre are dropped, and nothing else. */
#include "base/rng.h"
#include "cluster/equal_rows.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { D = 3, MOST = 4000 };

/* Row i encodes kind[i] in its first column and in the sign of a zero, which comparing floats would ignore. */
static void make(float *x, const int *kind, int n)
{
    for (int i = 0; i < n; i++) {
        x[i * D] = (float)(kind[i] / 2);
        x[i * D + 1] = kind[i] % 2 ? -0.0f : 0.0f;
        x[i * D + 2] = 1;
    }
}

/* The largest cap, by exhaustive search. */
static int64_t brute(const int *kind, int n, int k, int64_t *different, int64_t *left)
{
    int times[MOST] = {0}, high = 0;
    int64_t best = 0;
    *different = 0;
    for (int i = 0; i < n; i++) *different += times[kind[i]]++ == 0;
    for (int j = 0; j < MOST; j++) high = times[j] > high ? times[j] : high;
    *left = n;
    const int64_t centres = k < *different ? k : *different;
    if (high * centres <= n) return 0;
    for (int64_t cap = 1; cap <= high; cap++) {
        int64_t rows = 0;
        for (int j = 0; j < MOST; j++) rows += times[j] < cap ? times[j] : cap;
        if (cap * centres > rows) continue;
        best = cap;
        *left = rows;
    }
    return best;
}

static void test_what_is_left(void **state)
{
    (void)state;
    static float x[MOST * D], before[MOST * D];
    static int kind[MOST];
    int capped = 0, clamped = 0;
    for (int t = 0; t < 200; t++) {
        struct mode_rng r = mode_rng_for(4, MODE_RNG_TEST, 1, (uint64_t)t);
        const int n = 1 + (int)mode_rng_below(&r, t % 10 ? 300 : MOST - 1), k = 1 + (int)mode_rng_below(&r, 64);
        const int kinds = 1 + (int)mode_rng_below(&r, t % 3 ? 40 : MOST - 1);
        for (int i = 0; i < n; i++) { /* some are far more frequent than others */
            double u = mode_rng_uniform(&r);
            kind[i] = (int)((t % 2 ? u * u * u * u : u) * kinds);
        }
        make(x, kind, n);
        memcpy(before, x, sizeof x);
        struct mode_equal_rows e;
        int64_t different, left, most = brute(kind, n, k, &different, &left);
        assert_int_equal(mode_equal_rows_cap(&e, x, n, D, k, NULL), MODE_OK);
        assert_int_equal(e.different, different);
        assert_int_equal(e.most, most);
        assert_int_equal(e.rows, left);
        if (!most) assert_memory_equal(x, before, sizeof x);
        int seen[MOST] = {0};
        int64_t at = 0;
        for (int i = 0; i < n; i++) /* the first of each, in their order */
            if (!most || seen[kind[i]]++ < most) {
                assert_memory_equal(x + at * D, before + (int64_t)i * D, D * sizeof *x);
                at++;
            }
        assert_int_equal(at, e.rows);
        capped += most > 0;
        clamped += different < k;
    }
    assert_true(capped > 20 && capped < 180 && clamped > 20);
}

static void test_nothing_is_fine(void **state)
{
    (void)state;
    struct mode_equal_rows e;
    float x[D] = {0};
    assert_int_equal(mode_equal_rows_cap(&e, x, 0, D, 5, NULL), MODE_OK);
    assert_true(e.rows == 0 && e.different == 0 && e.most == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_what_is_left), cmocka_unit_test(test_nothing_is_fine)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
