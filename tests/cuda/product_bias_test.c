/* Gradients of weights with those of biases: their numbers by both ways, and which way they take. cuBLASLt alone makes
 * what our way makes, but for the order of the bias's sums, and adds to what is there; the clock's choice is kept, and a
 * text brings it back, to the byte, for row counts that are alike; a text from before there was this choice, and no
 * text, change nothing; where cuBLASLt refuses, our way makes the same bytes as ever and says so. On an emulated GPU. */
#include "base/rng.h"
#include "base/str.h"
#include "nn/backend.h"
#include "nn/cuda/product_bias.h"
#include "nn/ops.h"
#include "tensor/half.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { M = 2100, LESS = 2060 /* alike */, FAR = 3000, N = 24, K = 16 };

/* A layer of n outputs and k inputs that has seen `rows` rows. */
struct layer {
    struct mode_backend *be;
    struct mode_tensor dy, x, w, dw, db;
};

/* With how = "own" or "fused" in the environment; NULL: by rule. */
static struct mode_backend *open_as(const char *name, const char *how)
{
    struct mode_backend *be;
    struct mode_error err;
    if (how) setenv("MODE_CUDA_BIASES", how, 1);
    assert_int_equal(mode_backend_open(&be, name, &err), MODE_OK);
    unsetenv("MODE_CUDA_BIASES");
    return be;
}

static struct mode_tensor drawn(struct mode_backend *be, enum mode_dtype type, int64_t rows, int64_t cols, int number)
{
    struct mode_tensor here = mode_tensor_2d(NULL, type, rows, cols), there = here;
    struct mode_rng rng = mode_rng_for(6, MODE_RNG_TEST, (uint64_t)number, (uint64_t)cols);
    struct mode_error err;
    here.data = mode_xmalloc(mode_tensor_bytes(&here));
    for (int64_t i = 0; i < rows * cols; i++) {
        const float v = (float)mode_rng_normal(&rng);
        if (type == MODE_DTYPE_BF16)
            ((uint16_t *)here.data)[i] = mode_f32_to_bf16(v);
        else
            mode_f32(&here)[i] = v;
    }
    assert_int_equal(mode_backend_alloc(be, &there.data, mode_tensor_bytes(&here), &err), MODE_OK);
    mode_backend_copy(be, there.data, here.data, mode_tensor_bytes(&here));
    free(here.data);
    return there;
}

static struct layer layer_of(struct mode_backend *be, int64_t rows, int64_t n, int64_t k)
{
    const enum mode_dtype act = mode_backend_activations(be);
    struct layer l = {be,
                      drawn(be, act, rows, n, 1),
                      drawn(be, act, rows, k, 2),
                      drawn(be, act, n, k, 3),
                      drawn(be, MODE_DTYPE_F32, n, k, 4),
                      drawn(be, MODE_DTYPE_F32, 1, n, 5)};
    l.db = mode_tensor_1d(l.db.data, MODE_DTYPE_F32, n);
    return l;
}

static void layer_clear(struct layer *l)
{
    struct mode_tensor *all[] = {&l->dy, &l->x, &l->w, &l->dw, &l->db};
    for (int i = 0; i < 5; i++) mode_backend_free(l->be, all[i]->data);
}

static void back(void *ctx)
{
    struct layer *l = ctx;
    mode_linear_back(l->be, NULL, &l->dw, &l->db, &l->dy, &l->x, &l->w);
}

/* Of dw and db what was there at first and what `times` rounds added; to be freed. */
struct gradients {
    float *dw, *db;
};

static struct gradients gradients_of(struct mode_backend *be, int64_t rows, int64_t n, int64_t k, int times)
{
    struct layer l = layer_of(be, rows, n, k);
    struct gradients g = {mode_xmalloc((size_t)(n * k) * sizeof(float)), mode_xmalloc((size_t)n * sizeof(float))};
    for (int i = 0; i < times; i++) back(&l);
    mode_backend_copy(be, g.dw, l.dw.data, (size_t)(n * k) * sizeof(float));
    mode_backend_copy(be, g.db, l.db.data, (size_t)n * sizeof(float));
    layer_clear(&l);
    return g;
}

static void gradients_clear(struct gradients *g)
{
    free(g->dw);
    free(g->db);
}

static bool same(const float *a, const float *b, int64_t n)
{
    return memcmp(a, b, (size_t)n * sizeof *a) == 0;
}

static long fused(const struct mode_backend *be)
{
    long refused;
    return mode__bias_ways_fused(mode__cuda_of(be)->bias_ways, &refused);
}

static void note(char *text, size_t size, const struct mode_backend *be)
{
    FILE *out = fmemopen(text, size, "w");
    mode__bias_ways_note(mode__cuda_of(be)->bias_ways, out);
    fclose(out);
}

/* The sums of dy's columns in double, three times, and what was there. */
static void check_sums(const char *name, const float *db, int64_t rows, int64_t n)
{
    struct mode_backend *be = open_as(name, NULL);
    struct layer l = layer_of(be, rows, n, 1);
    float *before = mode_xmalloc((size_t)n * sizeof *before);
    void *dy = mode_xmalloc(mode_tensor_bytes(&l.dy));
    mode_backend_copy(be, dy, l.dy.data, mode_tensor_bytes(&l.dy));
    mode_backend_copy(be, before, l.db.data, (size_t)n * sizeof *before);
    for (int64_t j = 0; j < n; j++) {
        double want = before[j], size = fabs(want);
        for (int64_t i = j; i < rows * n; i += n) {
            const double v = l.dy.dtype == MODE_DTYPE_BF16 ? mode_bf16_to_f32(((uint16_t *)dy)[i]) : ((float *)dy)[i];
            want += 3 * v;
            size += 3 * fabs(v);
        }
        assert_true(fabs(db[j] - want) <= (strstr(name, "tf32") ? 1e-3 : 1e-6) * size);
    }
    free(dy);
    free(before);
    layer_clear(&l);
    mode_backend_close(&be);
}

/* Three times, as the pieces of a step are: what is there is added to. */
static void test_numbers_are_right(void **state)
{
    static const struct {
        int64_t rows, n, k;
        bool odd; /* of bf16 rows of no whole 4 bytes are refused */
    } cases[] = {{1, 2, 2, false},    {1, 1, 1, true},    {37, 24, 16, false},  {193, 17, 7, true},
                 {130, 64, 6, false}, {501, 7, 10, true}, {700, 130, 34, false}};
    static const char *const names[] = {"cuda", "cuda-tf32", "cuda-bf16"};
    (void)state;
    for (int b = 0; b < 3; b++)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            const int64_t rows = cases[i].rows, n = cases[i].n, k = cases[i].k;
            const bool refuses = b == 2 && cases[i].odd;
            struct mode_backend *own = open_as(names[b], "own"), *be = open_as(names[b], "fused");
            struct gradients want = gradients_of(own, rows, n, k, 3), got = gradients_of(be, rows, n, k, 3);
            long refused;
            assert_int_equal(mode__bias_ways_fused(mode__cuda_of(be)->bias_ways, &refused), refuses ? 0 : 3);
            assert_int_equal(refused, refuses ? 3 : 0);
            assert_int_equal(fused(own), 0);
            assert_true(same(got.dw, want.dw, n * k));
            if (rows > 500) assert_int_equal(same(got.db, want.db, n), refuses); /* another order of sums */
            check_sums(names[b], want.db, rows, n);
            check_sums(names[b], got.db, rows, n);
            gradients_clear(&want);
            gradients_clear(&got);
            mode_backend_close(&own);
            mode_backend_close(&be);
        }
}

/* What the clock chose for M rows, with these words for the pair with sums, NULL: without its line. To be freed. */
static char *text_with(const char *words)
{
    struct mode_backend *be = open_as("cuda-bf16", NULL);
    struct mode_str text = {0};
    int found = 0;
    mode_backend_measure_products(be, true);
    struct gradients g = gradients_of(be, M, N, K, 1);
    mode_backend_measure_products(be, false);
    char *all = mode_backend_algorithms(be);
    for (char *line = all; *line;) {
        char *end = strchr(line, '\n'), *key = strstr(line, " 1000 ");
        if (!key || key > end)
            mode_str_printf(&text, "%.*s\n", (int)(end - line), line);
        else if (words)
            mode_str_printf(&text, "%.*s%s\n", (int)(key + 6 - line), line, words);
        found += key && key < end;
        line = end + 1;
    }
    assert_int_equal(found, 1);
    free(all);
    gradients_clear(&g);
    mode_backend_close(&be);
    return text.data;
}

#define ONES " 0000000000000001 0000000000000001 0000000000000001 0000000000000001 0000000000000001 0000000000000000"
static const char *const words[] = {
    "0000000000000000 0000000000000000 0000000000000000 0000000000000000 0000000000000000 0000000000000000 "
    "0000000000000000 0000000000000000",
    "0000000000006c74 0000000000000000" ONES, "0000000000006c74 0000000000000001" ONES};

static void test_the_clocks_choice_comes_back(void **state)
{
    static const int64_t rows[] = {M, LESS, FAR};
    (void)state;
    setenv("MODE_EMULATOR_CUDNN", "old", 1); /* these words are not for a version of it */
    for (int r = 0; r < 3; r++) {
        struct gradients rule, got[4];
        struct mode_backend *be = open_as("cuda-bf16", NULL);
        rule = gradients_of(be, rows[r], N, K, 1);
        assert_int_equal(fused(be), 0);
        mode_backend_close(&be);
        for (int i = 0; i < 4; i++) { /* the last: a text from before there was a choice */
            char *text = text_with(i < 3 ? words[i] : NULL), why_not[400], *kept;
            struct mode_error err;
            be = open_as("cuda-bf16", NULL);
            got[i] = gradients_of(be, rows[r], N, K, 1); /* what was met before is asked again */
            gradients_clear(&got[i]);
            assert_int_equal(mode_backend_use_algorithms(be, text, why_not, sizeof why_not, &err), MODE_OK);
            assert_string_equal(why_not, "");
            got[i] = gradients_of(be, rows[r], N, K, 1);
            assert_int_equal(fused(be), (i == 1 || i == 2) && rows[r] != FAR);
            kept = mode_backend_algorithms(be);
            assert_string_equal(kept, text);
            free(kept);
            free(text);
            mode_backend_close(&be);
        }
        assert_true(same(got[0].db, rule.db, N) && same(got[3].db, rule.db, N));
        assert_int_equal(same(got[1].db, rule.db, N), rows[r] == FAR);
        assert_int_equal(same(got[2].dw, got[1].dw, N * K), rows[r] == FAR); /* the second algorithm's */
        gradients_clear(&rule);
        for (int i = 0; i < 4; i++) gradients_clear(&got[i]);
    }
    unsetenv("MODE_EMULATOR_CUDNN");
}

/* One text after the other in one backend. */
static void test_a_new_text_is_asked_for_what_was_met(void **state)
{
    char *text[] = {text_with(words[0]), text_with(words[1])}, why_not[400];
    struct mode_backend *be = open_as("cuda-bf16", NULL);
    struct gradients rule = gradients_of(be, M, N, K, 1), got;
    struct mode_error err;
    (void)state;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(mode_backend_use_algorithms(be, text[i % 2], why_not, sizeof why_not, &err), MODE_OK);
        got = gradients_of(be, M, N, K, 1);
        assert_int_equal(same(got.db, rule.db, N), i % 2 == 0);
        gradients_clear(&got);
    }
    gradients_clear(&rule);
    free(text[0]);
    free(text[1]);
    mode_backend_close(&be);
}

/* Scratch lies elsewhere after something needed more of it; the plan is the one from before. */
static void test_sums_go_to_where_scratch_is_now(void **state)
{
    struct mode_backend *be = open_as("cuda-bf16", "fused");
    struct gradients before = gradients_of(be, 100, N, K, 1), more = gradients_of(be, FAR, 16 * N, K, 1),
                     after = gradients_of(be, 100, N, K, 1);
    (void)state;
    assert_true(same(after.db, before.db, N));
    assert_int_equal(fused(be), 3);
    gradients_clear(&before);
    gradients_clear(&more);
    gradients_clear(&after);
    mode_backend_close(&be);
}

/* Both times are in the profile, and the faster way is the one that is taken; what is measured changes no gradient but
 * by its algorithm. */
static void test_the_faster_way_is_taken(void **state)
{
    struct mode_backend *be = open_as("cuda-bf16", NULL);
    float alone, own;
    (void)state;
    mode_backend_measure_products(be, true);
    struct gradients first = gradients_of(be, M, N, K, 1), few = gradients_of(be, 100, N, K, 1);
    mode_backend_measure_products(be, false);
    struct gradients again = gradients_of(be, M, N, K, 1);
    char text[1000];
    note(text, sizeof text, be);
    const char *times = strstr(text, "alone ");
    assert_non_null(strstr(text, "gradients of weights and biases [24 x 16, 2304]: "));
    while (times && sscanf(times, "alone %f ms, our way %f ms", &alone, &own) != 2) times = strstr(times + 1, "alone ");
    assert_non_null(times);
    if (alone != own) assert_int_equal(fused(be), alone < own ? 2 : 0);
    assert_null(strchr(strchr(text, '\n') + 1, '\n')); /* few rows are not measured */
    assert_true(same(first.db, again.db, N) && same(first.dw, again.dw, N * K));
    gradients_clear(&first);
    gradients_clear(&few);
    gradients_clear(&again);
    mode_backend_close(&be);
}

static void test_where_it_is_refused_it_is_our_way(void **state)
{
    struct mode_backend *be = open_as("cuda-bf16", "own");
    struct gradients want = gradients_of(be, M, N, K, 1), got;
    (void)state;
    mode_backend_measure_products(be, true);
    got = gradients_of(be, M, N, K, 1);
    char *kept = mode_backend_algorithms(be);
    assert_int_equal(fused(be), 0);
    assert_null(strstr(kept, " 1000 ")); /* nor is it measured */
    free(kept);
    gradients_clear(&got);
    mode_backend_close(&be);
    setenv("MODE_EMULATOR_SUMS", "refused", 1);
    for (int measured = 0; measured < 2; measured++) {
        be = open_as("cuda-bf16", measured ? NULL : "fused");
        mode_backend_measure_products(be, measured);
        got = gradients_of(be, M, N, K, 1);
        assert_int_equal(fused(be), 0);
        assert_true(same(got.db, want.db, N));
        char text[1000];
        note(text, sizeof text, be);
        assert_non_null(strstr(text, ": cuBLASLt refuses it alone\n"));
        kept = mode_backend_algorithms(be);
        assert_int_equal(strstr(kept, " 1000 0000000000000000 0000000000000000 ") != NULL, measured);
        free(kept);
        gradients_clear(&got);
        mode_backend_close(&be);
    }
    unsetenv("MODE_EMULATOR_SUMS");
    gradients_clear(&want);
}

static void test_recorded_it_is_what_it_was(void **state)
{
    struct mode_backend *be = open_as("cuda-bf16", "fused");
    struct layer l = layer_of(be, M, N, K);
    struct gradients want = gradients_of(be, M, N, K, 5);
    struct mode_backend_repeats r;
    const struct mode_sequence key = {0};
    float dw[N * K], db[N];
    (void)state;
    for (int i = 0; i < 5; i++) mode_backend_repeat(be, &key, back, &l);
    mode_backend_copy(be, dw, l.dw.data, sizeof dw);
    mode_backend_copy(be, db, l.db.data, sizeof db);
    assert_true(same(dw, want.dw, N * K) && same(db, want.db, N));
    mode_backend_repeats(be, &r);
    assert_string_equal(r.why_not, "");
    assert_true(r.replayed > 0);
    layer_clear(&l);
    gradients_clear(&want);
    mode_backend_close(&be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers_are_right),
        cmocka_unit_test(test_the_clocks_choice_comes_back),
        cmocka_unit_test(test_a_new_text_is_asked_for_what_was_met),
        cmocka_unit_test(test_sums_go_to_where_scratch_is_now),
        cmocka_unit_test(test_the_faster_way_is_taken),
        cmocka_unit_test(test_where_it_is_refused_it_is_our_way),
        cmocka_unit_test(test_recorded_it_is_what_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
