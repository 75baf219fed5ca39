/* The sampler: which rows, in which order. */
#include "base/rng.h"
#include "pipeline/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS = 1003, EXPERTS = 3 };

static void make_coarse(int32_t *coarse)
{
    struct mode_rng r = mode_rng_for(11, MODE_RNG_TEST, 0, 0);
    for (int i = 0; i < ROWS; i++) coarse[i] = mode_rng_below(&r, 10) < 6 ? 0 : 1 + (int32_t)mode_rng_below(&r, 2);
}

static void test_experts_divide_the_rows_among_them(void **state)
{
    (void)state;
    int32_t coarse[ROWS];
    int owners[ROWS] = {0};
    make_coarse(coarse);
    for (int32_t e = 0; e < EXPERTS; e++) {
        struct mode_pool p;
        assert_int_equal(mode_pool_init(&p, ROWS, coarse, e, 0.02, 5, NULL), MODE_OK);
        for (uint32_t i = 0; i < p.n_in; i++) {
            assert_int_equal(coarse[p.in[i]], e);
            owners[p.in[i]]++;
        }
        mode_pool_clear(&p);
    }
    for (int i = 0; i < ROWS; i++) assert_int_equal(owners[i], 1);
}

static void test_an_epoch_holds_own_rows_once_and_the_exact_share_of_others(void **state)
{
    (void)state;
    int32_t coarse[ROWS];
    static const double ratios[] = {0.0, 0.001, 0.02, 0.5, 1.0};
    make_coarse(coarse);
    for (size_t r = 0; r < sizeof ratios / sizeof *ratios; r++)
        for (int32_t e = 0; e < EXPERTS; e++)
            for (uint64_t epoch = 0; epoch < 3; epoch++) {
                struct mode_pool p;
                int seen[ROWS] = {0};
                uint32_t rows[ROWS], epochs[ROWS], out = 0, in = 0;
                assert_int_equal(mode_pool_init(&p, ROWS, coarse, e, ratios[r], 5, NULL), MODE_OK);
                assert_int_equal(p.n_out, (uint32_t)(int)(ratios[r] * (ROWS - p.n_in)));
                uint32_t n = mode_pool_size(&p);
                mode_pool_draw(&p, epoch * n, n, rows, epochs);
                for (uint32_t i = 0; i < n; i++) {
                    assert_int_equal(epochs[i], epoch);
                    seen[rows[i]]++;
                    if (coarse[rows[i]] == e)
                        in++;
                    else
                        out++;
                }
                for (int i = 0; i < ROWS; i++) assert_in_range(seen[i], 0, 1);
                assert_int_equal(in, p.n_in);
                assert_int_equal(out, p.n_out);
                mode_pool_clear(&p);
            }
}

static void test_epochs_differ_in_order_and_in_the_rows_from_outside(void **state)
{
    (void)state;
    int32_t coarse[ROWS];
    uint32_t a[ROWS], b[ROWS], epochs[ROWS];
    struct mode_pool p;
    make_coarse(coarse);
    assert_int_equal(mode_pool_init(&p, ROWS, coarse, 0, 0.1, 5, NULL), MODE_OK);
    uint32_t n = mode_pool_size(&p), moved = 0;
    mode_pool_draw(&p, 0, n, a, epochs);
    mode_pool_draw(&p, n, n, b, epochs);
    bool out_a[ROWS] = {0};
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++) {
        moved += a[i] != b[i];
        out_a[a[i]] = coarse[a[i]] != 0;
    }
    for (uint32_t i = 0; i < n; i++) kept += out_a[b[i]];
    assert_true(moved > n * 9 / 10);
    assert_true(kept < p.n_out * 3 / 4);
    mode_pool_clear(&p);
    moved = 0; /* another seed, another order of the same rows */
    assert_int_equal(mode_pool_init(&p, ROWS, NULL, MODE_POOL_ALL, 0, 5, NULL), MODE_OK);
    mode_pool_draw(&p, 0, ROWS, a, epochs);
    mode_pool_clear(&p);
    assert_int_equal(mode_pool_init(&p, ROWS, NULL, MODE_POOL_ALL, 0, 6, NULL), MODE_OK);
    mode_pool_draw(&p, 0, ROWS, b, epochs);
    mode_pool_clear(&p);
    for (int i = 0; i < ROWS; i++) moved += a[i] != b[i];
    assert_true(moved > ROWS * 9 / 10);
}

/* A step's rows are a function of its number: reading steps in any order, or starting in the middle, gives the same as
 * one pass; and batches cross the end of an epoch without losing a row. */
static void test_a_step_does_not_depend_on_the_steps_before(void **state)
{
    (void)state;
    enum { BATCH = 37, STEPS = 60 };
    int32_t coarse[ROWS];
    uint32_t all[STEPS * BATCH], epochs[STEPS * BATCH], rows[BATCH], es[BATCH];
    struct mode_pool p;
    make_coarse(coarse);
    assert_int_equal(mode_pool_init(&p, ROWS, coarse, 1, 0.02, 5, NULL), MODE_OK);
    assert_true(mode_pool_size(&p) % BATCH != 0);
    mode_pool_draw(&p, 0, STEPS * BATCH, all, epochs);
    for (int s = STEPS - 1; s >= 0; s -= 7) {
        mode_pool_draw(&p, (uint64_t)s * BATCH, BATCH, rows, es);
        assert_memory_equal(rows, all + s * BATCH, sizeof rows);
        assert_memory_equal(es, epochs + s * BATCH, sizeof es);
    }
    uint32_t n = mode_pool_size(&p), times[ROWS] = {0};
    for (uint32_t i = 0; i < 2 * n; i++) times[all[i]]++;
    for (uint32_t i = 0; i < p.n_in; i++) assert_int_equal(times[p.in[i]], 2);
    mode_pool_clear(&p);
}

static void test_the_dense_pool_is_every_row(void **state)
{
    (void)state;
    struct mode_pool p;
    uint32_t rows[ROWS], epochs[ROWS], seen[ROWS] = {0};
    assert_int_equal(mode_pool_init(&p, ROWS, NULL, MODE_POOL_ALL, 0.02, 5, NULL), MODE_OK);
    assert_int_equal(mode_pool_size(&p), ROWS);
    mode_pool_draw(&p, ROWS, ROWS, rows, epochs);
    for (int i = 0; i < ROWS; i++) seen[rows[i]]++;
    for (int i = 0; i < ROWS; i++) assert_int_equal(seen[i], 1);
    mode_pool_clear(&p);
}

static void test_an_empty_pool_is_refused(void **state)
{
    (void)state;
    struct mode_pool p;
    struct mode_error err = {0};
    int32_t coarse[4] = {0, 0, 1, 1};
    assert_int_equal(mode_pool_init(&p, 4, coarse, 2, 0.5, 5, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "expert 2"));
    mode_pool_clear(&p);
    assert_int_equal(mode_pool_init(&p, 0, coarse, MODE_POOL_ALL, 0.5, 5, &err), MODE_E_VALUE);
    mode_pool_clear(&p);
    assert_int_equal(mode_pool_init(&p, 4, coarse, 1, -0.1, 5, &err), MODE_E_VALUE);
    mode_pool_clear(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_experts_divide_the_rows_among_them),
        cmocka_unit_test(test_an_epoch_holds_own_rows_once_and_the_exact_share_of_others),
        cmocka_unit_test(test_epochs_differ_in_order_and_in_the_rows_from_outside),
        cmocka_unit_test(test_a_step_does_not_depend_on_the_steps_before),
        cmocka_unit_test(test_the_dense_pool_is_every_row),
        cmocka_unit_test(test_an_empty_pool_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
