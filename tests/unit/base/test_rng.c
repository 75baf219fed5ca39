/* Philox against the known answer of the Random123 distribution, and the properties that we rely on. */
#include "base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void test_philox_gives_the_known_answer(void **state)
{
    (void)state; /* philox4x32-10, counter 0, key 0 -> 6627e8d5 e169c58d bc57ac4c 9b00dbd8 */
    struct mode_rng r = {0};
    assert_int_equal(mode_rng_u32(&r), 0x6627e8d5);
    assert_int_equal(mode_rng_u32(&r), 0xe169c58d);
    assert_int_equal(mode_rng_u32(&r), 0xbc57ac4c);
    assert_int_equal(mode_rng_u32(&r), 0x9b00dbd8);
}

static void test_purposes_and_items_are_independent_streams(void **state)
{
    (void)state;
    struct mode_rng a = mode_rng_for(1, MODE_RNG_CROP, 0, 5), b = mode_rng_for(1, MODE_RNG_ORDER, 0, 5),
                    c = mode_rng_for(1, MODE_RNG_CROP, 1, 5), a2 = mode_rng_for(1, MODE_RNG_CROP, 0, 5);
    uint64_t x = mode_rng_u64(&a);
    assert_true(x == mode_rng_u64(&a2));
    assert_false(x == mode_rng_u64(&b));
    assert_false(x == mode_rng_u64(&c));
}

static void test_shuffle_is_a_permutation(void **state)
{
    (void)state;
    uint32_t v[101];
    int seen[101] = {0};
    for (uint32_t i = 0; i < 101; i++) v[i] = i;
    struct mode_rng r = mode_rng_for(7, MODE_RNG_TEST, 0, 0);
    mode_rng_shuffle_u32(&r, v, 101);
    int moved = 0;
    for (uint32_t i = 0; i < 101; i++) {
        seen[v[i]]++;
        moved += v[i] != i;
    }
    for (int i = 0; i < 101; i++) assert_int_equal(seen[i], 1);
    assert_true(moved > 80);
}

static void test_normal_has_unit_variance(void **state)
{
    (void)state;
    struct mode_rng r = mode_rng_for(3, MODE_RNG_TEST, 0, 0);
    double s = 0, q = 0;
    int n = 200000;
    for (int i = 0; i < n; i++) {
        double x = mode_rng_normal(&r);
        s += x;
        q += x * x;
    }
    assert_true(fabs(s / n) < 0.01);
    assert_true(fabs(q / n - 1.0) < 0.02);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_philox_gives_the_known_answer),
        cmocka_unit_test(test_purposes_and_items_are_independent_streams),
        cmocka_unit_test(test_shuffle_is_a_permutation),
        cmocka_unit_test(test_normal_has_unit_variance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
