/* Nearest centres by our own kernel for compute capability 9.0, on an emulated GPU: several rounds per cluster, where
 * it must not be used, and that it fails its self-test where wgmma is wrong (MODE_EMULATOR_PRODUCTS=wrong). The cases
 * of tests/ops run in cuda_test.c. */
#include "base/rng.h"
#include "cluster/nearest.h"
#include "nn/cuda/device.h"
#include "nn/cuda/kernels.h"
#include "nn/cuda/nearest.h"
#include "nn/ops.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N = 3000, K = 45, D = 24 };

static struct mode_backend *open_one(const char *name)
{
    struct mode_backend *be;
    struct mode_error err;
    assert_int_equal(mode_backend_open(&be, name, &err), MODE_OK);
    return be;
}

/* Assigns n rows of x to two sets of centres, by backend name; again: with prepared rows. */
static void assign(int32_t *id, float *distance, const char *name, const float *x, int64_t n, const float *c,
                   bool again)
{
    struct mode_backend *be = open_one(name);
    struct mode_nearest *a;
    struct mode_error err;
    if (again) assert_int_equal(mode_nearest_open(&a, be, x, n, D, K, &err), MODE_OK);
    for (int half = 0; half < 2; half++) {
        int32_t *to = id + half * N;
        float *far = distance + half * N;
        const int k = half ? K / 3 : K;
        if (again)
            mode_nearest_again(a, to, far, MODE_METRIC_EUCLIDEAN, c + half * D, k);
        else
            assert_int_equal(mode_nearest(be, to, far, MODE_METRIC_EUCLIDEAN, x, n, c + half * D, k, D, &err), MODE_OK);
    }
    if (again) mode_nearest_close(&a);
    mode_backend_close(&be);
}

/* Several launches, each of several rounds of its clusters, the last one partial; rows in host memory. */
static void test_many_rows_come_to_the_bytes_of_the_reference(void **state)
{
    static float x[N * D], c[(K + 1) * D], want_far[2 * N], far[2 * N];
    static int32_t want[2 * N], id[2 * N];
    struct mode_rng rng = mode_rng_for(7, MODE_RNG_TEST, 2, 0);
    static const int64_t rows[] = {N, 2304, 257, 0};
    (void)state;
    for (int i = 0; i < N * D; i++) x[i] = (float)mode_rng_normal(&rng);
    for (int i = 0; i < (K + 1) * D; i++) c[i] = (float)mode_rng_normal(&rng);
    assign(want, want_far, "ref", x, N, c, false);
    for (int m = 0; m < 2; m++) {
        setenv("MODE_EMULATOR_MULTIPROCESSORS", m ? "4" : "2", 1);
        for (int again = 0; again < 2; again++)
            for (int s = 0; s < 4; s++) {
                memset(id, 0xff, sizeof id);
                assign(id, far, "cuda", x, rows[s], c, again);
                for (int half = 0; half < 2; half++) {
                    assert_memory_equal(id + half * N, want + half * N, (size_t)rows[s] * sizeof *id);
                    assert_memory_equal(far + half * N, want_far + half * N, (size_t)rows[s] * sizeof *far);
                }
            }
    }
    unsetenv("MODE_EMULATOR_MULTIPROCESSORS");
}

static void test_the_kernel_is_used_where_it_is_trusted_and_of_use(void **state)
{
    const char *products = getenv("MODE_EMULATOR_PRODUCTS");
    const bool right = !products || strcmp(products, "wrong") != 0;
    struct mode_backend *be = open_one("cuda");
    (void)state;
    assert_int_equal(mode__cuda_nearest_by_tiles(be, 100000), right);
    assert_false(mode__cuda_nearest_by_tiles(be, 10));
    setenv("MODE_CUDA_NEAREST", "own", 1);
    assert_int_equal(mode__cuda_nearest_by_tiles(be, 10), right);
    setenv("MODE_CUDA_NEAREST", "library", 1);
    assert_false(mode__cuda_nearest_by_tiles(be, 100000));
    unsetenv("MODE_CUDA_NEAREST");
    mode_backend_close(&be);
}

/* NaN and values outside of fp16's range: the row, or all rows, are scored exactly. */
static void test_numbers_out_of_range_are_measured(void **state)
{
    enum { ROWS = 300 };
    static const float scales[] = {0, 1e-38f, 1e-30f, 1e30f, 3e37f};
    static float x[ROWS * D], c[K * D], far[2][ROWS];
    static int32_t id[2][ROWS];
    struct mode_rng rng = mode_rng_for(7, MODE_RNG_TEST, 2, 1);
    struct mode_backend *be = open_one("cuda"), *ref = open_one("ref");
    struct mode_error err;
    (void)state;
    for (int k = 0; k < 5; k++) {
        for (int i = 0; i < ROWS * D; i++) x[i] = scales[i / D % 5] * (float)mode_rng_normal(&rng);
        for (int i = 0; i < K * D; i++) c[i] = scales[k] * (float)mode_rng_normal(&rng);
        for (int b = 0; b < 2; b++)
            assert_int_equal(mode_nearest(b ? ref : be, id[b], far[b], MODE_METRIC_EUCLIDEAN, x, ROWS, c, K, D, &err),
                             MODE_OK);
        assert_memory_equal(id[0], id[1], sizeof id[0]);
        assert_memory_equal(far[0], far[1], sizeof far[0]);
    }
    mode_backend_close(&be);
    mode_backend_close(&ref);
}

/* Centres of almost equal length, and rows so short that the last digits of |c|^2 decide as much as directions do, or
 * so long that the last digits of scores do: the rounding of |c|^2, rank and cost stays within the error bound
 * (margin). Some centres are equal; of these the later one comes first in a lane's columns. */
static void test_rows_far_shorter_and_longer_than_centres(void **state)
{
    enum { ROWS = 600 };
    static float x[ROWS * D], c[K * D], far[2][ROWS];
    static int32_t id[2][ROWS];
    struct mode_rng rng = mode_rng_for(7, MODE_RNG_TEST, 2, 3);
    struct mode_backend *be = open_one("cuda"), *ref = open_one("ref");
    struct mode_error err;
    (void)state;
    for (int i = 0; i < K; i++) {
        double v[D], sum = 0;
        for (int j = 0; j < D; j++) v[j] = mode_rng_normal(&rng);
        for (int j = 0; j < D; j++) sum += v[j] * v[j];
        for (int j = 0; j < D; j++) c[i * D + j] = (float)(v[j] / sqrt(sum));
        if (i > 0 && i % 8 == 0) memcpy(c + i * D, c + (i - 1) * D, D * sizeof *c);
    }
    for (int i = 0; i < ROWS * D; i++) {
        const int row = i / D;
        x[i] = (float)ldexp(mode_rng_normal(&rng), row < ROWS / 2 ? -22 - row % 8 : 30 + row % 30);
    }
    for (int library = 0; library < 2; library++) {
        setenv("MODE_CUDA_NEAREST", library ? "library" : "own", 1);
        for (int b = 0; b < 2; b++)
            assert_int_equal(mode_nearest(b ? ref : be, id[b], far[b], MODE_METRIC_EUCLIDEAN, x, ROWS, c, K, D, &err),
                             MODE_OK);
        assert_memory_equal(id[0], id[1], sizeof id[0]);
        assert_memory_equal(far[0], far[1], sizeof far[0]);
    }
    unsetenv("MODE_CUDA_NEAREST");
    mode_backend_close(&be);
    mode_backend_close(&ref);
}

/* cuBLASLt GEMMs of fp16 and of f32 with the same sizes. */
static void test_costs_and_nearest_of_one_size(void **state)
{
    enum { ROWS = 64, CENTRES = 8, WIDTH = 16 }; /* equal alignments, too */
    static float x[ROWS * WIDTH], c[CENTRES * WIDTH], cost[ROWS * CENTRES];
    int32_t id[ROWS];
    struct mode_rng rng = mode_rng_for(7, MODE_RNG_TEST, 2, 2);
    struct mode_backend *be = open_one("cuda");
    struct mode_error err;
    void *room;
    (void)state;
    for (int i = 0; i < ROWS * WIDTH; i++) x[i] = (float)mode_rng_normal(&rng);
    for (int i = 0; i < CENTRES * WIDTH; i++) c[i] = (float)mode_rng_normal(&rng);
    setenv("MODE_CUDA_NEAREST", "library", 1);
    assert_int_equal(mode_backend_alloc(be, &room, 2 * sizeof cost, &err), MODE_OK);
    struct mode_tensor of_x = mode_tensor_2d(x, MODE_DTYPE_F32, ROWS, WIDTH),
                       of_c = mode_tensor_2d(c, MODE_DTYPE_F32, CENTRES, WIDTH),
                       of_work = mode_tensor_2d(room, MODE_DTYPE_F32, ROWS, CENTRES),
                       of_cost = mode_tensor_2d((float *)room + ROWS * CENTRES, MODE_DTYPE_F32, ROWS, CENTRES),
                       of_id = mode_tensor_1d(id, MODE_DTYPE_I32, ROWS);
    for (int times = 0; times < 2; times++) {
        mode_costs(be, &of_cost, &of_x, &of_c, false);
        mode_nearest_rows(be, &of_id, NULL, &of_work, &of_x, NULL, &of_c, false);
        mode_backend_copy(be, cost, of_cost.data, sizeof cost);
        for (int i = 0; i < ROWS; i++)
            for (int k = 0; k < CENTRES; k++) assert_true(cost[i * CENTRES + id[i]] <= cost[i * CENTRES + k] + 1e-5f);
    }
    assert_int_equal(mode__cuda_products_refused(mode__cuda_of(be)->products), 0);
    unsetenv("MODE_CUDA_NEAREST");
    mode_backend_free(be, room);
    mode_backend_close(&be);
}

/* The inputs of the error bound (margin), whichever warps of the block hold the longest centre and the one furthest
 * from its fp16 rounding. */
static void test_the_longest_of_all_centres(void **state)
{
    enum { CENTRES = 1000, TIMES = 30 };
    struct here {
        struct mode__cuda_halved of[CENTRES];
        float plus[4 * MODE__CUDA_CENTRE_PADDING], most[3];
    };
    static struct here h;
    struct mode_backend *be = open_one("cuda");
    struct mode_error err;
    void *memory;
    (void)state;
    assert_int_equal(mode_backend_alloc(be, &memory, sizeof h, &err), MODE_OK);
    struct here *at = memory;
    const struct mode__cuda_centres c = {at->plus, at->most};
    for (int t = 0; t < TIMES; t++) {
        for (int i = 0; i < CENTRES; i++) h.of[i] = (struct mode__cuda_halved){1, 2, 0.5f};
        h.of[t * 97 % CENTRES].size = 8;
        h.of[t * 61 % CENTRES].off = 0.75f;
        mode_backend_copy(be, memory, &h, sizeof h);
        mode__cuda_halved_centres(mode__cuda_of(be)->stream, &c, at->of, NULL, CENTRES, 1, true);
        mode_backend_copy(be, &h, memory, sizeof h);
        assert_true(h.most[0] == 8 && h.most[1] == 0.75f && h.most[2] == 1);
        assert_true(h.plus[CENTRES - 1] == 0 && isinf(h.plus[CENTRES]));
    }
    mode_backend_free(be, memory);
    mode_backend_close(&be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_kernel_is_used_where_it_is_trusted_and_of_use),
        cmocka_unit_test(test_many_rows_come_to_the_bytes_of_the_reference),
        cmocka_unit_test(test_numbers_out_of_range_are_measured),
        cmocka_unit_test(test_rows_far_shorter_and_longer_than_centres),
        cmocka_unit_test(test_costs_and_nearest_of_one_size),
        cmocka_unit_test(test_the_longest_of_all_centres),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
