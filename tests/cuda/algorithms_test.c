/* GEMM algorithms as a text: the choices are restored in another backend without timing; those for another GPU are
 * skipped, with a note; invalid text is an error. On an emulated GPU, whose cuBLASLt has two algorithms: 0, the
 * default, and 1, split-K in two parts. */
#include "base/rng.h"
#include "base/str.h"
#include "nn/backend.h"
#include "nn/cuda/device.h"
#include "nn/cuda/winners.h"
#include "nn/ops.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { M = 26, N = 16, K = 200, LESS = 25 /* similar: within an eighth */, FAR = 48 };

static struct mode_backend *open_one(const char *name)
{
    struct mode_backend *be;
    struct mode_error err;
    assert_int_equal(mode_backend_open(&be, name, &err), MODE_OK);
    return be;
}

static struct mode_tensor matrix(struct mode_backend *be, int64_t rows, int64_t cols)
{
    struct mode_rng rng = mode_rng_for(5, MODE_RNG_TEST, (uint64_t)rows, (uint64_t)cols);
    struct mode_error err;
    void *data;
    float *drawn = mode_xmalloc((size_t)(rows * cols) * sizeof *drawn);
    assert_int_equal(mode_backend_alloc(be, &data, (size_t)(rows * cols) * sizeof(float), &err), MODE_OK);
    for (int64_t i = 0; i < rows * cols; i++) drawn[i] = (float)mode_rng_normal(&rng);
    mode_backend_copy(be, data, drawn, (size_t)(rows * cols) * sizeof *drawn);
    free(drawn);
    return mode_tensor_2d(data, MODE_DTYPE_F32, rows, cols);
}

/* y [rows, N] = x w^T */
static void multiply(struct mode_backend *be, float *to, int64_t rows)
{
    struct mode_tensor x = matrix(be, rows, K), w = matrix(be, N, K), y = matrix(be, rows, N);
    mode_linear(be, &y, &x, &w, NULL);
    mode_backend_copy(be, to, y.data, (size_t)(rows * N) * sizeof *to);
    mode_backend_free(be, x.data);
    mode_backend_free(be, w.data);
    mode_backend_free(be, y.data);
}

/* dw [N, K] = the sum of dy^T x over rows */
static void gradient(struct mode_backend *be, float *to, int64_t rows)
{
    struct mode_tensor x = matrix(be, rows, K), w = matrix(be, N, K), dy = matrix(be, rows, N), dw = matrix(be, N, K);
    mode_zero(be, &dw);
    mode_linear_back(be, NULL, &dw, NULL, &dy, &x, &w);
    mode_backend_copy(be, to, dw.data, N * K * sizeof *to);
    struct mode_tensor *all[] = {&x, &w, &dy, &dw};
    for (int i = 0; i < 4; i++) mode_backend_free(be, all[i]->data);
}

/* The text with the timed choice for M rows; by number: with another algorithm in its place. The caller frees it. */
static char *chosen_for(void (*run)(struct mode_backend *be, float *to, int64_t rows), const char *backend, int number)
{
    struct mode_backend *be = open_one(backend);
    float y[N * K]; /* or [M, N] */
    mode_backend_measure_products(be, true);
    run(be, y, M);
    mode_backend_measure_products(be, false);
    char *text = mode_backend_algorithms(be), *last = text;
    for (int line = 0; line < 2; line++) last = strchr(last, '\n') + 1;
    assert_true(strlen(last) > 8 * 16 && !strchr(last, '\n')[1]); /* one GEMM */
    strchr(last, '\n')[-(6 * 17) - 1] = (char)('0' + number);     /* the second of 8 words */
    mode_backend_close(&be);
    return text;
}

static char *chosen(const char *backend, int number)
{
    return chosen_for(multiply, backend, number);
}

static void by_text(float *y, char **back, const char *text, int64_t rows)
{
    struct mode_backend *be = open_one("cuda");
    struct mode_error err;
    char why_not[400];
    multiply(be, y, rows); /* a plan by default, which the text must replace */
    assert_int_equal(mode_backend_use_algorithms(be, text, why_not, sizeof why_not, &err), MODE_OK);
    assert_string_equal(why_not, "");
    multiply(be, y, rows);
    if (back) *back = mode_backend_algorithms(be);
    mode_backend_close(&be);
}

static void test_what_was_chosen_is_chosen_again(void **state)
{
    static const int64_t rows[] = {M, LESS, FAR};
    float rule[FAR * N], first[FAR * N], second[FAR * N];
    char *text[] = {chosen("cuda", 0), chosen("cuda", 1)}, *back;
    (void)state;
    for (int i = 0; i < 3; i++) {
        const size_t bytes = (size_t)(rows[i] * N) * sizeof *rule;
        struct mode_backend *be = open_one("cuda");
        multiply(be, rule, rows[i]);
        mode_backend_close(&be);
        by_text(first, NULL, text[0], rows[i]);
        by_text(second, &back, text[1], rows[i]);
        assert_memory_equal(first, rule, bytes);
        assert_int_equal(memcmp(second, rule, bytes) != 0, rows[i] != FAR);
        assert_string_equal(back, text[1]);
        free(back);
    }
    free(text[0]);
    free(text[1]);
}

/* cuBLASLt checks the algorithm: one that it no longer knows is replaced by the default. */
static void test_an_algorithm_that_is_none_is_not_used(void **state)
{
    static float rule[M * N], y[M * N];
    char *text = chosen("cuda", 1), why_not[400];
    struct mode_backend *be = open_one("cuda");
    struct mode_error err;
    (void)state;
    multiply(be, rule, M);
    strstr(text, " 0000000000006c74 ")[16] = '5';
    assert_int_equal(mode_backend_use_algorithms(be, text, why_not, sizeof why_not, &err), MODE_OK);
    multiply(be, y, M);
    assert_memory_equal(y, rule, sizeof y);
    assert_int_equal(mode__cuda_products_refused(mode__cuda_of(be)->products), 0);
    mode_backend_close(&be);
    free(text);
}

/* Gradients of weights are summed over rows: row counts are similar there, too. */
static void test_gradients_of_alike_rows_are_made_alike(void **state)
{
    static const int64_t rows[] = {M, LESS, FAR};
    static float rule[N * K], got[N * K];
    char *text = chosen_for(gradient, "cuda", 1), why_not[400];
    struct mode_error err;
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct mode_backend *be = open_one("cuda");
        gradient(be, rule, rows[i]);
        assert_int_equal(mode_backend_use_algorithms(be, text, why_not, sizeof why_not, &err), MODE_OK);
        gradient(be, got, rows[i]);
        assert_int_equal(memcmp(got, rule, sizeof rule) != 0, rows[i] != FAR);
        mode_backend_close(&be);
    }
    free(text);
}

/* cuBLASLt is given the alignment of each tensor: it refuses none, whatever was planned before. */
static void test_products_at_any_address_are_cublaslts(void **state)
{
    enum { TENSORS = 4, PLACES = 5 };
    static const int64_t off[PLACES] = {0, 64, 8, 2, 1}; /* elements past a multiple of 256 bytes */
    static float want[M * N], got[M * N];
    struct mode_backend *be = open_one("cuda");
    struct mode_tensor x = matrix(be, M, K), w = matrix(be, N, K), add = matrix(be, M, N), room[TENSORS];
    const struct mode_tensor *from[] = {&x, &w, &add};
    static const int64_t rows[TENSORS] = {M, N, M, M}, cols[TENSORS] = {K, K, N, N};
    (void)state;
    for (int t = 0; t < TENSORS; t++) room[t] = matrix(be, rows[t] + 1, cols[t] > 64 ? cols[t] : 64);
    for (int t = 0; t < TENSORS; t++)
        for (int i = 0; i < PLACES; i++) {
            struct mode_tensor at[TENSORS];
            for (int k = 0; k < TENSORS; k++) {
                at[k] = mode_tensor_2d(mode_f32(&room[k]) + (k == t ? off[i] : 0), MODE_DTYPE_F32, rows[k], cols[k]);
                if (k < 3) mode_backend_copy(be, at[k].data, from[k]->data, mode_tensor_bytes(from[k]));
            }
            mode_linear_add(be, &at[3], &at[0], &at[1], NULL, &at[2]);
            mode_backend_copy(be, t + i == 0 ? want : got, at[3].data, sizeof got);
            if (t + i > 0) assert_memory_equal(got, want, sizeof got);
        }
    assert_int_equal(mode__cuda_products_done(mode__cuda_of(be)->products), TENSORS * PLACES);
    assert_int_equal(mode__cuda_products_refused(mode__cuda_of(be)->products), 0);
    struct mode_tensor *all[] = {&x, &w, &add, &room[0], &room[1], &room[2], &room[3]};
    for (int i = 0; i < 7; i++) mode_backend_free(be, all[i]->data);
    mode_backend_close(&be);
}

/* Same size and addresses, every type and every transpose: no GEMM uses the plan of another. */
static void test_products_of_one_size_are_told_apart(void **state)
{
    enum { SIDE = 16, WAYS = 16, NUMBERS = SIDE * SIDE };
    static float want[WAYS][NUMBERS], got[NUMBERS];
    uint16_t drawn[4 * NUMBERS]; /* values of every type */
    struct mode_rng rng = mode_rng_for(5, MODE_RNG_TEST, 0, 1);
    struct mode_error err;
    void *at;
    (void)state;
    for (int i = 0; i < 4 * NUMBERS; i++) drawn[i] = (uint16_t)(0x3c00 + mode_rng_below(&rng, 0x400));
    for (int alone = 1; alone >= 0; alone--) {
        struct mode_backend *be = open_one("cuda");
        for (int w = 0; w < WAYS; w++) {
            const int type = w / 4; /* f32; bf16 to f32 and to bf16; fp16 */
            if (alone) mode_backend_close(&be);
            if (alone) be = open_one("cuda");
            assert_int_equal(mode_backend_alloc(be, &at, 3 * sizeof got, &err), MODE_OK);
            mode_backend_copy(be, at, drawn, sizeof drawn);
            const struct mode__product p = {.a = at,
                                            .b = (char *)at + sizeof got,
                                            .c = (char *)at + 2 * sizeof got,
                                            .a_transposed = w % 2,
                                            .b_transposed = w / 2 % 2,
                                            .m = SIDE,
                                            .n = SIDE,
                                            .k = SIDE,
                                            .bf16 = type == 1 || type == 2,
                                            .c_bf16 = type == 2,
                                            .f16 = type == 3};
            mode__cuda_product(be, &p);
            mode_backend_copy(be, alone ? want[w] : got, p.c, sizeof got);
            if (!alone) assert_memory_equal(got, want[w], sizeof got);
            mode_backend_free(be, at);
        }
        assert_int_equal(mode__cuda_products_refused(mode__cuda_of(be)->products), 0);
        mode_backend_close(&be);
    }
    for (int w = 1; w < WAYS; w++) assert_memory_not_equal(want[w], want[0], sizeof got);
}

/* An evicted plan is not mistaken for its successor. */
static void test_more_products_than_there_are_plans(void **state)
{
    enum { MANY = 4000 };
    struct mode_backend *be = open_one("cuda");
    struct mode_error err;
    void *at;
    (void)state;
    assert_int_equal(mode_backend_alloc(be, &at, (2 * MANY + 64) * sizeof(float), &err), MODE_OK);
    float *f = at, ones[MANY + 64];
    struct mode_tensor all = mode_tensor_1d(f + MANY + 64, MODE_DTYPE_F32, MANY);
    for (int i = 0; i < MANY + 64; i++) ones[i] = 1;
    mode_backend_copy(be, f, ones, sizeof ones);
    for (int64_t m = 1; m < MANY; m++) {
        struct mode_tensor x = mode_tensor_2d(f + 64, MODE_DTYPE_F32, m, 1),
                           w = mode_tensor_2d(f, MODE_DTYPE_F32, 1, 1),
                           y = mode_tensor_2d(all.data, MODE_DTYPE_F32, m, 1);
        float end[2];
        mode_zero(be, &all);
        mode_linear(be, &y, &x, &w, NULL);
        mode_backend_copy(be, end, mode_f32(&all) + m - 1, sizeof end);
        assert_true(end[0] == 1 && end[1] == 0);
    }
    mode_backend_free(be, at);
    mode_backend_close(&be);
}

struct product {
    struct mode_backend *be;
    struct mode_tensor x, w, y;
};

static void multiply_again(void *ctx)
{
    struct product *p = ctx;
    mode_linear(p->be, &p->y, &p->x, &p->w, NULL);
}

/* A sequence captured before is not replayed with the algorithms of then. */
static void test_graphs_know_the_algorithms_of_now(void **state)
{
    struct product p = {.be = open_one("cuda")};
    const struct mode_sequence key = {.owner = &p};
    struct mode_backend_repeats r;
    struct mode_error err;
    float want[M * N], y[M * N];
    char *text = chosen("cuda", 1), why_not[400];
    (void)state;
    by_text(want, NULL, text, M);
    p.x = matrix(p.be, M, K);
    p.w = matrix(p.be, N, K);
    p.y = matrix(p.be, M, N);
    for (int i = 0; i < 3; i++) mode_backend_repeat(p.be, &key, multiply_again, &p);
    mode_backend_repeats(p.be, &r);
    assert_true(r.recorded == 1 && r.replayed == 2);
    mode_backend_copy(p.be, y, p.y.data, sizeof y);
    assert_memory_not_equal(y, want, sizeof y);
    assert_int_equal(mode_backend_use_algorithms(p.be, text, why_not, sizeof why_not, &err), MODE_OK);
    mode_backend_repeat(p.be, &key, multiply_again, &p);
    mode_backend_copy(p.be, y, p.y.data, sizeof y);
    assert_memory_equal(y, want, sizeof y);
    mode_backend_repeat(p.be, &key, multiply_again, &p);
    mode_backend_measure_products(p.be, true);
    mode_backend_measure_products(p.be, false);
    for (int i = 0; i < 2; i++) mode_backend_repeat(p.be, &key, multiply_again, &p);
    mode_backend_repeats(p.be, &r);
    assert_true(r.recorded == 3 && r.replayed == 4); /* nor with those from before timing */
    mode_backend_free(p.be, p.x.data);
    mode_backend_free(p.be, p.w.data);
    mode_backend_free(p.be, p.y.data);
    mode_backend_close(&p.be);
    free(text);
}

/* When the table is full an algorithm is forgotten; no GEMM gets another's. */
static void test_more_algorithms_than_there_is_room_for(void **state)
{
    enum { MANY = 5000 };
    struct mode__winners *all = mode__winners_new();
    struct mode__product_key key;
    cublasLtMatmulAlgo_t algo;
    int kept = 0;
    (void)state;
    memset(&key, 0, sizeof key);
    memset(&algo, 0, sizeof algo);
    for (key.m = 1; key.m <= MANY; key.m++) {
        algo.data[0] = (uint64_t)key.m;
        mode__winner_set(all, &key, &algo);
        assert_int_equal(mode__winner(all, &key)->data[0], key.m);
    }
    for (key.m = 1; key.m <= MANY; key.m++) {
        const cublasLtMatmulAlgo_t *found = mode__winner(all, &key);
        kept += found != NULL;
        if (found) assert_int_equal(found->data[0], key.m);
    }
    assert_true(kept > 1000 && kept < MANY);
    mode__winners_free(all);
}

/* GEMMs that differ in any one value of the key are distinct, in a text, too. */
static void test_a_text_has_every_number(void **state)
{
    struct mode__product_key key[MODE__PRODUCT_KEY_NUMBERS + 1];
    struct mode__winners *all = mode__winners_new(), *back = mode__winners_new();
    struct mode_str text = {0};
    struct mode_error err;
    (void)state;
    for (int i = 0; i <= MODE__PRODUCT_KEY_NUMBERS; i++) {
        struct mode__product_key *k = &key[i];
        memset(k, 0, sizeof *k);
        int64_t *const wide[] = {&k->m, &k->n, &k->k};
        int32_t *const rest[] = {&k->a_transposed, &k->b_transposed, &k->bf16, &k->c_bf16,  &k->f16,
                                 &k->fp8,          &k->bias,         &k->add,  &k->align_a, &k->align_b,
                                 &k->align_c,      &k->align_d,      &k->act};
        for (int j = 0; j < 3; j++) *wide[j] = 10 + j + 100 * (i == j);
        for (int j = 3; j < MODE__PRODUCT_KEY_NUMBERS; j++) *rest[j - 3] = 10 + j + 100 * (i == j);
        mode__winner_set(all, k, &(cublasLtMatmulAlgo_t){{1, (uint64_t)i + 2, UINT64_MAX, 4, 5, 6, 7, (uint64_t)i}});
    }
    mode__winners_print(all, &text);
    assert_int_equal(mode__winners_parse(back, text.data, 1, &err), MODE_OK);
    for (int i = 0; i <= MODE__PRODUCT_KEY_NUMBERS; i++) {
        const cublasLtMatmulAlgo_t *found = mode__winner(back, &key[i]);
        assert_non_null(found);
        assert_memory_equal(found, mode__winner(all, &key[i]), sizeof *found);
    }
    mode__winners_free(all);
    mode__winners_free(back);
    free(text.data);
}

static void test_what_is_for_another_gpu_is_said(void **state)
{
    static const char *const backends[] = {"cuda-tf32", "cpu"};
    char *text = chosen("cuda", 1), *other = mode_xstrdup(text), why_not[400];
    struct mode_error err;
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct mode_backend *be = open_one(backends[i]);
        assert_int_equal(mode_backend_use_algorithms(be, text, why_not, sizeof why_not, &err), MODE_OK);
        assert_non_null(strstr(why_not, "they are for "));
        assert_non_null(strstr(why_not, i ? "cpu" : "this is cuda-tf32"));
        mode_backend_close(&be);
    }
    float rule[M * N], y[M * N];
    setenv("MODE_EMULATOR_MULTIPROCESSORS", "66", 1);
    struct mode_backend *be = open_one("cuda");
    assert_int_equal(mode_backend_use_algorithms(be, text, why_not, sizeof why_not, &err), MODE_OK);
    unsetenv("MODE_EMULATOR_MULTIPROCESSORS");
    assert_non_null(strstr(why_not, "they are for cuda, emulated GPU, 132 "));
    assert_non_null(strstr(why_not, "this is cuda, emulated GPU, 66 "));
    mode_backend_close(&be);
    be = open_one("cuda");
    strstr(other, "cuBLASLt ")[9] = '9';
    multiply(be, rule, M);
    assert_int_equal(mode_backend_use_algorithms(be, other, why_not, sizeof why_not, &err), MODE_OK);
    assert_non_null(strstr(why_not, "cuBLASLt 9"));
    multiply(be, y, M);
    assert_memory_equal(y, rule, sizeof y);
    mode_backend_close(&be);
    free(text);
    free(other);
}

/* Truncated anywhere, or with any one character changed: an error, or recognised as another GPU's; never values out of
 * range. */
static void test_what_is_no_such_text_is_an_error(void **state)
{
    struct mode_backend *be = open_one("cuda");
    char *text = chosen("cuda", 1), *bad = mode_xstrdup(text), why_not[400];
    const size_t size = strlen(text), head = (size_t)(strchr(strchr(text, '\n') + 1, '\n') + 1 - text);
    struct mode_error err;
    (void)state;
    for (size_t n = 0; n < size; n++) {
        memcpy(bad, text, n);
        bad[n] = 0;
        if (n == head) continue; /* no GEMMs, which is valid */
        assert_int_equal(mode_backend_use_algorithms(be, bad, why_not, sizeof why_not, &err), MODE_E_FORMAT);
    }
    memcpy(bad, text, size + 1);
    for (size_t n = 0; n < size; n++) {
        static const char others[] = "\n-x ";
        for (const char *c = others; *c; c++) {
            bad[n] = *c;
            enum mode_status st = mode_backend_use_algorithms(be, bad, why_not, sizeof why_not, &err);
            if (text[n] != *c && n >= head) assert_int_equal(st, MODE_E_FORMAT);
            if (text[n] != *c && n < head) assert_true(st == MODE_E_FORMAT || why_not[0]);
            bad[n] = text[n];
        }
    }
    assert_int_equal(mode_backend_use_algorithms(be, "ten lines\nof prose\n", why_not, sizeof why_not, &err),
                     MODE_E_FORMAT);
    assert_non_null(strstr(err.text, "\"ten lines\""));
    free(text);
    free(bad);
    mode_backend_close(&be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_chosen_is_chosen_again),
        cmocka_unit_test(test_an_algorithm_that_is_none_is_not_used),
        cmocka_unit_test(test_gradients_of_alike_rows_are_made_alike),
        cmocka_unit_test(test_products_at_any_address_are_cublaslts),
        cmocka_unit_test(test_products_of_one_size_are_told_apart),
        cmocka_unit_test(test_more_products_than_there_are_plans),
        cmocka_unit_test(test_graphs_know_the_algorithms_of_now),
        cmocka_unit_test(test_more_algorithms_than_there_is_room_for),
        cmocka_unit_test(test_a_text_has_every_number),
        cmocka_unit_test(test_what_is_for_another_gpu_is_said),
        cmocka_unit_test(test_what_is_no_such_text_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
