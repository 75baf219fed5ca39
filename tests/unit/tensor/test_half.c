/* 16-bit floats: all 65536 values converted to f32 and back, and the rounding between them. */
#include "tensor/half.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_every_f16_survives_the_way_through_f32(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = mode_f16_to_f32((uint16_t)h);
        bool nan = (h & 0x7c00) == 0x7c00 && (h & 0x3ff);
        assert_int_equal(isnan(f) != 0, nan);
        if (!nan)
            assert_int_equal(mode_f32_to_f16(f), h);
        else
            assert_true(isnan(mode_f16_to_f32(mode_f32_to_f16(f))));
    }
    assert_true(mode_f16_to_f32(0x3c00) == 1.0f);
    assert_true(mode_f16_to_f32(0xc000) == -2.0f);
    assert_true(mode_f16_to_f32(0x7bff) == 65504.0f);
    assert_true(mode_f16_to_f32(0x0001) == 0x1p-24f);
}

static void test_f32_rounds_to_the_nearest_even_f16(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7bff; h++) { /* between every two neighbours */
        float a = mode_f16_to_f32((uint16_t)h), b = mode_f16_to_f32((uint16_t)(h + 1)), mid = (a + b) / 2;
        assert_int_equal(mode_f32_to_f16(mid), h % 2 ? h + 1 : h);
        assert_int_equal(mode_f32_to_f16(nextafterf(mid, a)), h);
        assert_int_equal(mode_f32_to_f16(-nextafterf(mid, b)), (h + 1) | 0x8000);
    }
    assert_int_equal(mode_f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(mode_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(mode_f32_to_f16(-1e30f), 0xfc00);
}

static void test_bf16_is_the_upper_half(void **state)
{
    uint16_t in[2] = {0x3f80, 0xc049};
    float out[2];
    uint32_t bits;
    (void)state;
    assert_true(mode_half_to_f32(out, in, MODE_DTYPE_BF16, 2));
    assert_true(out[0] == 1.0f);
    memcpy(&bits, &out[1], sizeof bits);
    assert_int_equal(bits, 0xc0490000u);
    assert_false(mode_half_to_f32(out, in, MODE_DTYPE_I16, 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_f16_survives_the_way_through_f32),
        cmocka_unit_test(test_f32_rounds_to_the_nearest_even_f16),
        cmocka_unit_test(test_bf16_is_the_upper_half),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
