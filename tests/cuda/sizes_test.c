/* Tensors of more than 2^32 elements, which fit on a GPU: is every index computed in 64 bits? The emulated device
 * commits only pages that are written, and runs only the first and last blocks of a grid. So a kernel gets a tall
 * tensor whose last ROWS rows hold values, and must give the same results as on these rows alone. */
#include "nn/cuda/attention.h"
#include "nn/cuda/kernels.h"
#include "nn/ops.h"
#include "nn/pixels.h"

#include "base/rng.h"

#include <cuda_runtime_api.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS = 5, WIDTH = 8192 };
static const int64_t TALL = ((int64_t)1 << 32) / WIDTH + 3 * ROWS;

/* The same rows as a tensor of their own and at the end of a tall one. */
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

/* Random values between -1 and 1, in either type. */
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
        float *w = device(WIDTH * 4), *g = device(WIDTH * 4), *dw = device(2 * WIDTH * 4),
              *work = device((size_t)mode__cuda_norm_work(TALL, WIDTH) * 4);
        void *bias = device(WIDTH * 4);
        ends("64");
        fill(w, WIDTH, false, 5);
        fill(g, WIDTH, false, 6);
        fill(bias, WIDTH, half, 7);
#define EACH(rows) for (int64_t rows = ROWS, at = 0; at < 2; at++, rows = TALL)
#define OF(b)      (at ? (b).tall : (b).alone)
        EACH(m) mode__cuda_epilogue(NULL, half, OF(y), OF(x), m, WIDTH, NULL, MODE_ACT_GELU);
        same(&y);
        EACH(m) mode__cuda_epilogue(NULL, half, OF(y), OF(x), m, WIDTH, bias, MODE_ACT_NONE);
        same(&y);
        EACH(m) mode__cuda_activate_back(NULL, half, OF(y), OF(x), m, WIDTH, MODE_ACT_GELU);
        same(&y);
        EACH(m) mode__cuda_scale(NULL, half, OF(y), OF(x), g, OF(y), m, WIDTH);
        same(&y);
        EACH(m) mode__cuda_layernorm(NULL, half, OF(y), (float *)OF(one), OF(x), w, g, m, WIDTH, 1e-5f);
        same(&y);
        same(&one);
        ends("1");
        EACH(m)
        mode__cuda_layernorm_back(NULL, half, OF(y), dw, dw + WIDTH, work, OF(y), OF(x), (float *)OF(one), w, OF(x), m,
                                  WIDTH);
        same(&y);
        ends("64");
        one.row = 4;
        EACH(m) mode__cuda_l2norm(NULL, half, (float *)OF(f), (float *)OF(one), OF(x), m, WIDTH);
        same(&f);
        same(&one);
        EACH(m) mode__cuda_l2norm_back(NULL, half, OF(y), (float *)OF(f), (float *)OF(f), (float *)OF(one), m, WIDTH);
        same(&y);
        clear(&x);
        clear(&y);
        clear(&f);
        clear(&one);
        void *const all[] = {w, g, dw, work, bias};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) assert_int_equal(cudaFree(all[i]), cudaSuccess);
    }
}

/* Index lists of the last rows. */
static int32_t *list_of(const int32_t *numbers, size_t n)
{
    int32_t *p = device(n * sizeof *p);
    send(p, numbers, n * sizeof *p);
    return p;
}

static void test_rows_are_found_by_lists(void **state)
{
    const int32_t at_end = (int32_t)(TALL - ROWS), near[] = {0, 1, 2, 3, 4},
                  far[] = {at_end, at_end + 1, at_end + 2, at_end + 3, at_end + 4}, all_near[] = {0, ROWS},
                  all_far[] = {at_end, at_end + ROWS};
    int32_t *rows[] = {list_of(near, ROWS), list_of(far, ROWS)},
            *offsets[] = {list_of(all_near, 2), list_of(all_far, 2)};
    (void)state;
    ends("64");
    for (int half = 0; half < 2; half++) {
        struct both x = both_of(WIDTH, half, 1), few = {.row = x.row, .alone = device(2 * ROWS * x.row)};
        char *y = few.alone;
        few.tall = y + ROWS * x.row - (size_t)(TALL - ROWS) * x.row; /* it ends after the first result */
        for (int at = 0; at < 2; at++)
            mode__cuda_gather(NULL, half, y + (at ? ROWS * x.row : 0), OF(x), rows[at], ROWS, WIDTH);
        same(&few);
        for (int at = 0; at < 2; at++) mode__cuda_scatter_add(NULL, half, OF(x), y, rows[at], ROWS, WIDTH);
        same(&x);
        for (int at = 0; at < 2; at++)
            mode__cuda_mean_rows(NULL, half, y + (at ? ROWS * x.row : 0), OF(x), offsets[at], 1, WIDTH, 1);
        same(&few);
        for (int at = 0; at < 2; at++) mode__cuda_mean_rows_back(NULL, half, OF(x), y, offsets[at], 1, WIDTH, 1);
        same(&x);
        if (!half) { /* the means of groups */
            double *sum = device((size_t)mode__cuda_mean_places(1, ROWS) * WIDTH * sizeof *sum);
            for (int at = 0; at < 2; at++)
                mode__cuda_group_means(NULL, (float *)(y + (at ? ROWS * x.row : 0)), sum, (float *)OF(x), offsets[0],
                                       rows[at], 1, ROWS, WIDTH, false);
            same(&few);
            assert_int_equal(cudaFree(sum), cudaSuccess);
        }
        clear(&x);
        assert_int_equal(cudaFree(y), cudaSuccess);
    }
    for (int at = 0; at < 2; at++) {
        assert_int_equal(cudaFree(rows[at]), cudaSuccess);
        assert_int_equal(cudaFree(offsets[at]), cudaSuccess);
    }
}

/* The last sequence of a packed batch, forward and backward; in f32 the last head, with which the grid ends. */
static void test_attention_finds_its_rows(void **state)
{
    enum { HEADS = 128, DH = WIDTH / HEADS };
    (void)state;
    const int32_t near[] = {0, ROWS}, far[] = {(int32_t)(TALL - ROWS), (int32_t)TALL};
    int32_t *offsets[] = {list_of(near, 2), list_of(far, 2)};
    for (int half = 0; half < 2; half++) {
        struct both x = both_of(3 * WIDTH, half, 1), out = both_of(WIDTH, half, 2), dout = both_of(WIDTH, half, 3);
        struct both dx = both_of(3 * WIDTH, half, 4), lse = both_of(HEADS, false, 5), delta = both_of(HEADS, false, 6);
        ends(half ? "256" : "8");
        EACH(m)
        {
            const struct mode__cuda_attention a = {.q = OF(x),
                                                   .kv = OF(x),
                                                   .lq = 3 * WIDTH,
                                                   .lk = 3 * WIDTH,
                                                   .k_at = WIDTH,
                                                   .v_at = 2 * WIDTH,
                                                   .heads = HEADS,
                                                   .dh = DH,
                                                   .rows_q = m,
                                                   .rows_k = m,
                                                   .n_seq = 1,
                                                   .q_offsets = offsets[at],
                                                   .kv_offsets = offsets[at],
                                                   .longest = ROWS,
                                                   .bf16 = half};
            mode__cuda_attention(NULL, OF(out), (float *)OF(lse), &a);
            mode__cuda_attention_back(NULL, OF(dx), OF(dx), (float *)OF(delta), OF(dout), OF(out), (float *)OF(lse),
                                      &a);
        }
        same_from(&out, half ? 0 : out.row - DH * 4);
        same_from(&dx, half ? 0 : dx.row - DH * 4);
        struct both *const all[] = {&x, &out, &dout, &dx, &lse, &delta};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) clear(all[i]);
    }
    for (int at = 0; at < 2; at++) assert_int_equal(cudaFree(offsets[at]), cudaSuccess);
}

/* More sequences than a grid has rows of blocks: of one row each, so that the result is the value. */
static void test_attention_of_more_sequences_than_a_grid_has_rows(void **state)
{
    enum { N = 70001, DH = 8 };
    int32_t *offsets = test_malloc((N + 1) * sizeof *offsets);
    uint16_t x[3 * DH], out[DH], *there = device((size_t)N * sizeof x), *results = device((size_t)N * sizeof out);
    (void)state;
    for (int i = 0; i <= N; i++) offsets[i] = i;
    int32_t *list = list_of(offsets, N + 1);
    ends("64");
    for (int i = 0; i < N; i += N - 1) fill(there + (size_t)i * 3 * DH, 3 * DH, true, (uint64_t)i);
    const struct mode__cuda_attention a = {.q = there,
                                           .kv = there,
                                           .lq = 3 * DH,
                                           .lk = 3 * DH,
                                           .k_at = DH,
                                           .v_at = 2 * DH,
                                           .heads = 1,
                                           .dh = DH,
                                           .rows_q = N,
                                           .rows_k = N,
                                           .n_seq = N,
                                           .q_offsets = list,
                                           .kv_offsets = list,
                                           .longest = 1,
                                           .bf16 = true};
    mode__cuda_attention(NULL, results, NULL, &a);
    for (int i = 0; i < N; i += N - 1) {
        assert_int_equal(cudaMemcpy(x, there + (size_t)i * 3 * DH, sizeof x, cudaMemcpyDeviceToHost), cudaSuccess);
        assert_int_equal(cudaMemcpy(out, results + (size_t)i * DH, sizeof out, cudaMemcpyDeviceToHost), cudaSuccess);
        assert_memory_equal(out, x + 2 * DH, sizeof out);
    }
    assert_int_equal(cudaFree(there), cudaSuccess);
    assert_int_equal(cudaFree(results), cudaSuccess);
    assert_int_equal(cudaFree(list), cudaSuccess);
    test_free(offsets);
}

/* n pictures of side x side that keep their size: the table, taps for both directions, and pixels, each picture one
 * byte further. */
static struct mode_pictures pictures_of(int64_t n, int64_t side)
{
    const size_t table = (size_t)n * sizeof(struct mode_pixels_window), taps = mode_pixels_taps_bytes(side, 1),
                 bytes = table + taps + (size_t)(3 * side * side + n);
    char *host = test_malloc(bytes);
    struct mode_pixels_window *w = (void *)host;
    for (int64_t i = 0; i < n; i++)
        w[i] = (struct mode_pixels_window){.rgb = (int64_t)(table + taps) + i % 5,
                                           .across = (int64_t)table,
                                           .down = (int64_t)table,
                                           .width = (int32_t)side,
                                           .height = (int32_t)side,
                                           .across_most = 1,
                                           .down_most = 1,
                                           .n_x = (int32_t)side,
                                           .n_y = (int32_t)side};
    mode_pixels_same((int32_t *)(void *)(host + table), side);
    for (size_t at = table + taps; at < bytes; at++) host[at] = (char)(at * 7);
    float *levels = device(3 * 256 * sizeof *levels);
    fill(levels, 3 * 256, false, 8);
    void *there = device(bytes);
    send(there, host, bytes);
    return (struct mode_pictures){.windows = w, .bytes = there, .n_bytes = bytes, .levels = levels};
}

static void clear_pictures(struct mode_pictures *p)
{
    assert_int_equal(cudaFree((void *)(uintptr_t)p->bytes), cudaSuccess);
    assert_int_equal(cudaFree((void *)(uintptr_t)p->levels), cudaSuccess);
    test_free((void *)(uintptr_t)p->windows);
}

/* The last picture of a full launch, between the passes and at the end; and one at any position. */
static void test_pictures_find_their_places(void **state)
{
    enum { SIDE = 224, N = MODE__CUDA_PIXELS_MOST, NUMBERS = 3 * SIDE * SIDE, BLOCKS = NUMBERS / (4 * 256) + 1 };
    static uint16_t alone[NUMBERS], last[NUMBERS], off[NUMBERS];
    struct mode_pictures p = pictures_of(N, SIDE);
    uint8_t *between = device((size_t)N * NUMBERS);
    uint16_t *cols = device((size_t)N * NUMBERS * 2);
    (void)state;
    ends("1000");
    mode__cuda_picture_patches(NULL, true, cols, between, NUMBERS, &p, N - 1, 1, SIDE, 32);
    assert_int_equal(cudaMemcpy(alone, cols, sizeof alone, cudaMemcpyDeviceToHost), cudaSuccess);
    mode__cuda_picture_patches(NULL, true, cols + 1, between, NUMBERS, &p, N - 1, 1, SIDE, 32);
    assert_int_equal(cudaMemcpy(off, cols + 1, sizeof off, cudaMemcpyDeviceToHost), cudaSuccess);
    assert_memory_equal(alone, off, sizeof off);
    char blocks[16];
    snprintf(blocks, sizeof blocks, "%d", (int)BLOCKS);
    ends(blocks);
    mode__cuda_picture_patches(NULL, true, cols, between, NUMBERS, &p, 0, N, SIDE, 32);
    assert_int_equal(cudaMemcpy(last, cols + (size_t)(N - 1) * NUMBERS, sizeof last, cudaMemcpyDeviceToHost),
                     cudaSuccess);
    assert_memory_equal(alone, last, sizeof last);
    assert_int_equal(cudaFree(between), cudaSuccess);
    assert_int_equal(cudaFree(cols), cudaSuccess);
    clear_pictures(&p);
}

/* A grid has at most 65,535 rows; the rest goes to another launch. */
static void test_more_pictures_than_a_grid_has_rows(void **state)
{
    enum { N = MODE__CUDA_PIXELS_MOST + 2 };
    static const int64_t seen[] = {0, 1, N - 3, N - 2, N - 1};
    struct mode_pictures p = pictures_of(N, 1);
    struct mode_tensor cols = mode_tensor_2d(device(N * 3 * sizeof(float)), MODE_DTYPE_F32, N, 3);
    struct mode_backend *be;
    struct mode_error err;
    uint8_t rgb[8];
    float levels[3 * 256], got[3];
    (void)state;
    assert_int_equal(mode_backend_open(&be, "cuda", &err), MODE_OK);
    ends("64");
    mode_picture_patches(be, &cols, &p, 0, 1, 1);
    mode_backend_copy(be, levels, p.levels, sizeof levels);
    mode_backend_copy(be, rgb, (const char *)p.bytes + p.windows[0].rgb, sizeof rgb);
    for (size_t i = 0; i < sizeof seen / sizeof *seen; i++) {
        mode_backend_copy(be, got, mode_f32(&cols) + 3 * seen[i], sizeof got);
        for (int c = 0; c < 3; c++) assert_true(got[c] == levels[c * 256 + rgb[seen[i] % 5 + c]]);
    }
    mode_backend_close(&be);
    assert_int_equal(cudaFree(cols.data), cudaSuccess);
    clear_pictures(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_are_what_they_are_alone),
        cmocka_unit_test(test_rows_are_found_by_lists),
        cmocka_unit_test(test_attention_finds_its_rows),
        cmocka_unit_test(test_attention_of_more_sequences_than_a_grid_has_rows),
        cmocka_unit_test(test_pictures_find_their_places),
        cmocka_unit_test(test_more_pictures_than_a_grid_has_rows),
    };
    setenv("MODE_EMULATOR_MEMORY", "1099511627776", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
