/* Tensors of more than 2^32 numbers, which a GPU has room for: is every place counted in 64 bits? The emulated device
 * takes pages where they are written to alone, and of a grid it runs the first blocks and the last ones. So a kernel
 * gets a tall tensor, of which the last ROWS rows are something, and must make of these what it makes of them alone. */
#include "nn/cuda/attention.h"
#include "nn/cuda/kernels.h"
#include "nn/ops.h"

#include "base/rng.h"

#include <cuda_runtime_api.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS = 5, WIDTH = 8192 };
static const int64_t TALL = ((int64_t)1 << 32) / WIDTH + 3 * ROWS;

/* The same rows as a tensor of their own and as the last ones of a tall one. */
struct both {
    char *alone, *tall;
    size_t row; /* bytes */
};

static void *device(size_t bytes)
{
    void *p;
    assert_int_equal(cudaMalloc(&p, bytes), cudaSuccess);
    assert_int_equal(cudaMemsetAsync(p, 0, bytes < 1 << 20 ? bytes : 1 << 20, NULL), cudaSuccess);
    return p;
}

static char *end_of(const struct both *x)
{
    return x->tall + (size_t)(TALL - ROWS) * x->row;
}

static void send(void *to, const void *from, size_t bytes)
{
    assert_int_equal(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, NULL), cudaSuccess);
}

/* Numbers between -1 and 1, as they lie in both types. */
static void fill(void *to, size_t n, bool bf16, uint64_t which)
{
    struct mode_rng rng = mode_rng_for(7, MODE_RNG_TEST, 9, which);
    float *x = test_malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        x[i] = (float)mode_rng_uniform(&rng) * 2 - 1;
        memcpy(&bits, &x[i], sizeof bits);
        if (bf16) ((uint16_t *)x)[i] = (uint16_t)(bits >> 16);
    }
    send(to, x, n * (bf16 ? 2 : 4));
    test_free(x);
}

static struct both both_of(int64_t width, bool bf16, uint64_t which)
{
    struct both x = {.row = (size_t)width * (bf16 ? 2 : 4)};
    x.alone = device(ROWS * x.row);
    x.tall = device((size_t)TALL * x.row);
    fill(x.alone, (size_t)(ROWS * width), bf16, which);
    fill(end_of(&x), (size_t)(ROWS * width), bf16, which);
    return x;
}

static void same_from(const struct both *x, size_t from)
{
    char *a = test_malloc(ROWS * x->row), *b = test_malloc(ROWS * x->row);
    assert_int_equal(cudaMemcpy(a, x->alone, ROWS * x->row, cudaMemcpyDeviceToHost), cudaSuccess);
    assert_int_equal(cudaMemcpy(b, end_of(x), ROWS * x->row, cudaMemcpyDeviceToHost), cudaSuccess);
    for (size_t r = 0; r < ROWS; r++) assert_memory_equal(a + r * x->row + from, b + r * x->row + from, x->row - from);
    test_free(a);
    test_free(b);
}

static void same(const struct both *x)
{
    same_from(x, 0);
}

static void clear(struct both *x)
{
    assert_int_equal(cudaFree(x->alone), cudaSuccess);
    assert_int_equal(cudaFree(x->tall), cudaSuccess);
}

static void ends(const char *blocks)
{
    assert_int_equal(setenv("MODE_EMULATOR_ENDS", blocks, 1), 0);
}

static void test_rows_are_what_they_are_alone(void **state)
{
    (void)state;
    for (int half = 0; half < 2; half++) {
        struct both x = both_of(WIDTH, half, 1), y = both_of(WIDTH, half, 2), f = both_of(WIDTH, false, 3);
        struct both one = both_of(2, false, 4);
        float *w = device(WIDTH * 4), *g = device(WIDTH * 4), *work = device((size_t)mode__cuda_norm_work(TALL, WIDTH) * 4);
        void *bias = device(WIDTH * 4);
        ends("20");
        fill(w, WIDTH, false, 5);
        fill(g, WIDTH, false, 6);
        fill(bias, WIDTH, half, 7);
#define EACH(name, rows) for (int64_t rows = ROWS, at = 0; at < 2; at++, rows = TALL)
#define OF(b) (at ? (b).tall : (b).alone)
        EACH("gelu", m) mode__cuda_epilogue(NULL, half, OF(y), OF(x), m, WIDTH, NULL, MODE_ACT_GELU);
        same(&y);
        EACH("bias", m) mode__cuda_epilogue(NULL, half, OF(y), OF(x), m, WIDTH, bias, MODE_ACT_NONE);
        same(&y);
        EACH("slope", m) mode__cuda_activate_back(NULL, half, OF(y), OF(x), m, WIDTH, MODE_ACT_GELU);
        same(&y);
        EACH("scale", m) mode__cuda_scale(NULL, half, OF(y), OF(x), g, OF(y), m, WIDTH);
        same(&y);
        EACH("norm", m) mode__cuda_layernorm(NULL, half, OF(y), (float *)OF(one), OF(x), w, g, m, WIDTH, 1e-5f);
        same(&y);
        same(&one);
        ends("1");
        EACH("norm back", m) mode__cuda_layernorm_back(NULL, half, OF(y), w, g, work, OF(y), OF(x), (float *)OF(one), w,
                                                       OF(x), m, WIDTH);
        same(&y);
        ends("20");
        one.row = 4;
        EACH("l2norm", m) mode__cuda_l2norm(NULL, half, (float *)OF(f), (float *)OF(one), OF(x), m, WIDTH);
        same(&f);
        same(&one);
        EACH("l2norm back", m) mode__cuda_l2norm_back(NULL, half, OF(y), (float *)OF(f), (float *)OF(f),
                                                      (float *)OF(one), m, WIDTH);
        same(&y);
        clear(&x);
        clear(&y);
        clear(&f);
        clear(&one);
        void *const all[] = {w, g, work, bias};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) assert_int_equal(cudaFree(all[i]), cudaSuccess);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_are_what_they_are_alone),
    };
    setenv("MODE_EMULATOR_MEMORY", "1099511627776", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
