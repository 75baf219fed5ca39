/* GEMMs with a fused activation or its derivative, by cuDNN: their values, and which implementation runs. The choice by
 * timing is kept, and a text restores it, bit-identical, for similar row counts; the default does not change; where
 * cuDNN is too old, takes no graph or fails, the implementation without cuDNN runs, bit-identical to the default, and
 * the profile says so; a captured run equals op by op. On an emulated GPU, whose cuDNN has two candidates for such a
 * GEMM: knob 0, and knob 1, whose sums are larger. */
#include "base/rng.h"
#include "base/str.h"
#include "nn/backend.h"
#include "nn/cuda/product_act.h"
#include "nn/ops.h"
#include "tensor/half.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { M = 2100, LESS = 2060 /* similar row counts */, FAR = 3000, N = 24, K = 16, MOST = FAR * N };

static struct mode_backend *open_one(void)
{
    struct mode_backend *be;
    struct mode_error err;
    assert_int_equal(mode_backend_open(&be, "cuda-bf16", &err), MODE_OK);
    return be;
}

/* A backend that uses cuDNN wherever it can. */
static struct mode_backend *open_for_cudnn(void)
{
    setenv("MODE_CUDA_ACTIVATIONS", "cudnn", 1);
    struct mode_backend *be = open_one();
    unsetenv("MODE_CUDA_ACTIVATIONS");
    return be;
}

static struct mode_tensor matrix(struct mode_backend *be, int64_t rows, int64_t cols, int number)
{
    struct mode_rng rng = mode_rng_for(5, MODE_RNG_TEST, (uint64_t)number, (uint64_t)cols);
    struct mode_error err;
    void *data;
    const size_t bytes = (size_t)(rows * cols) * 2;
    uint16_t *drawn = mode_xmalloc(bytes);
    assert_int_equal(mode_backend_alloc(be, &data, bytes, &err), MODE_OK);
    for (int64_t i = 0; i < rows * cols; i++) drawn[i] = mode_f32_to_bf16((float)mode_rng_normal(&rng));
    mode_backend_copy(be, data, drawn, bytes);
    free(drawn);
    return mode_tensor_2d(data, MODE_DTYPE_BF16, rows, cols);
}

struct tensors {
    struct mode_backend *be;
    struct mode_tensor dy, w, x, z, dz, dw;
};

static void back(void *ctx)
{
    struct tensors *t = ctx;
    mode_linear_back_act(t->be, &t->dz, &t->dw, NULL, &t->dy, &t->x, &t->w, &t->z, MODE_ACT_QUICK_GELU);
}

static struct tensors make(struct mode_backend *be, int64_t rows)
{
    struct tensors t = {.be = be,
                        .dy = matrix(be, rows, K, 1),
                        .w = matrix(be, K, N, 2),
                        .x = matrix(be, rows, N, 3),
                        .z = matrix(be, rows, N, 4),
                        .dz = matrix(be, rows, N, 5),
                        .dw = matrix(be, K, 2 * N, 6)};
    t.dw = mode_tensor_2d(t.dw.data, MODE_DTYPE_F32, K, N);
    return t;
}

static void clear(struct tensors *t)
{
    struct mode_tensor *all[] = {&t->dy, &t->w, &t->x, &t->z, &t->dz, &t->dw};
    for (int i = 0; i < 6; i++) mode_backend_free(t->be, all[i]->data);
}

/* dz [rows, N] */
static void run(struct mode_backend *be, uint16_t *dz, int64_t rows)
{
    struct tensors t = make(be, rows);
    back(&t);
    mode_backend_copy(be, dz, t.dz.data, (size_t)(rows * N) * 2);
    clear(&t);
}

static long by_cudnn(const struct mode_backend *be)
{
    long failed;
    return mode__product_ways_by_cudnn(be, &failed);
}

/* The timed choices as a text, but only the line of the GEMM with a derivative, its words replaced by these. The caller
 * frees it. */
static char *text_with(const char *words)
{
    static uint16_t dz[MOST];
    struct mode_backend *be = open_one();
    struct mode_str text = {0};
    int found = 0;
    mode_backend_measure_products(be, true);
    run(be, dz, M);
    mode_backend_measure_products(be, false);
    char *all = mode_backend_algorithms(be);
    for (char *line = all; *line;) {
        char *end = strchr(line, '\n');
        const bool head = line == all || line == strchr(all, '\n') + 1;
        char *key = strstr(line, " 16 16 16 16 7 "); /* alignments, QuickGELU, backward */
        if (key && key < end) {
            mode_str_printf(&text, "%.*s%s\n", (int)(key + 15 - line), line, words);
            found++;
        } else if (head) {
            mode_str_printf(&text, "%.*s\n", (int)(end - line), line);
        }
        line = end + 1;
    }
    assert_int_equal(found, 1);
    free(all);
    mode_backend_close(&be);
    return text.data;
}

#define ZEROS                 " 0000000000000000 0000000000000000 0000000000000000 0000000000000000 0000000000000000"
#define ENGINE(version, knob) version " 0000000000000004 00000019" knob ZEROS

static void test_the_clock_is_asked_once_and_its_choice_comes_back(void **state)
{
    static const char *const words[] = {"0000000000000000 0000000000000000 0000000000000000" ZEROS,
                                        ENGINE("00000000000169b8", "00000000"), ENGINE("00000000000169b8", "00000001")};
    static const int64_t rows[] = {M, LESS, FAR};
    static uint16_t rule[MOST], dz[3][MOST];
    (void)state;
    for (int r = 0; r < 3; r++) {
        const size_t bytes = (size_t)(rows[r] * N) * 2;
        struct mode_backend *be = open_one();
        run(be, rule, rows[r]);
        assert_int_equal(by_cudnn(be), 0);
        mode_backend_close(&be);
        for (int i = 0; i < 3; i++) {
            char *text = text_with(words[i]), why_not[400], *kept;
            struct mode_error err;
            be = open_one();
            run(be, dz[i], rows[r]); /* known shapes are looked up again */
            assert_int_equal(mode_backend_use_algorithms(be, text, why_not, sizeof why_not, &err), MODE_OK);
            assert_string_equal(why_not, "");
            run(be, dz[i], rows[r]);
            assert_int_equal(by_cudnn(be), i > 0 && rows[r] != FAR);
            kept = mode_backend_algorithms(be);
            assert_string_equal(kept, text);
            free(kept);
            free(text);
            mode_backend_close(&be);
        }
        assert_memory_equal(dz[0], rule, bytes);
        assert_int_equal(memcmp(dz[1], rule, bytes) != 0, rows[r] != FAR); /* no rounding before the activation */
        assert_int_equal(memcmp(dz[2], dz[1], bytes) != 0, rows[r] != FAR);
    }
}

/* Two texts in one backend, one after the other. */
static void test_a_new_text_is_asked_for_what_was_met(void **state)
{
    static uint16_t dz[2][MOST], again[MOST];
    struct mode_error err;
    char why_not[400], *text[] = {text_with(ENGINE("00000000000169b8", "00000000")),
                                  text_with(ENGINE("00000000000169b8", "00000001"))};
    struct mode_backend *be;
    (void)state;
    for (int i = 0; i < 2; i++) {
        be = open_one();
        assert_int_equal(mode_backend_use_algorithms(be, text[i], why_not, sizeof why_not, &err), MODE_OK);
        run(be, dz[i], M);
        mode_backend_close(&be);
    }
    be = open_one();
    for (int i = 0; i < 4; i++) {
        assert_int_equal(mode_backend_use_algorithms(be, text[i % 2], why_not, sizeof why_not, &err), MODE_OK);
        run(be, again, M);
        assert_memory_equal(again, dz[i % 2], (size_t)M * N * 2);
    }
    mode_backend_close(&be);
    free(text[0]);
    free(text[1]);
}

/* The profile's lines, valid until the next call. */
static const char *note_of(const struct mode_backend *be)
{
    static char text[4000];
    FILE *out = fmemopen(text, sizeof text, "w");
    mode__product_ways_note(be, out);
    fclose(out);
    return text;
}

/* The profile has both times, and the faster implementation is used. */
static void test_the_faster_way_is_taken(void **state)
{
    static uint16_t dz[MOST];
    struct mode_backend *be = open_one();
    float dnn, own;
    (void)state;
    mode_backend_measure_products(be, true);
    run(be, dz, M);
    mode_backend_measure_products(be, false);
    run(be, dz, M);
    const char *text = note_of(be);
    const char *times = strstr(text, "; ");
    assert_non_null(times);
    assert_int_equal(sscanf(times, "; %f ms, our way %f ms", &dnn, &own), 2);
    if (dnn != own) assert_int_equal(by_cudnn(be), dnn < own ? 2 : 0);
    assert_int_equal(strstr(text, "]: cuDNN, 2 times") != NULL, by_cudnn(be) == 2);
    mode_backend_close(&be);
}

/* Also shapes that a text had decided. */
static void test_what_was_met_is_timed_when_measuring(void **state)
{
    static uint16_t dz[MOST];
    struct mode_backend *be = open_one();
    struct mode_error err;
    char *text = text_with(ENGINE("00000000000169b8", "00000000")), why_not[400];
    (void)state;
    assert_int_equal(mode_backend_use_algorithms(be, text, why_not, sizeof why_not, &err), MODE_OK);
    run(be, dz, M);
    mode_backend_measure_products(be, true);
    run(be, dz, M);
    assert_non_null(strstr(note_of(be), " ms, our way "));
    free(text);
    mode_backend_close(&be);
}

static void test_a_text_for_another_cudnn_is_said(void **state)
{
    char *text = text_with(ENGINE("00000000000169b7", "00000000")), why_not[400];
    struct mode_backend *be = open_one();
    struct mode_error err;
    static uint16_t dz[MOST];
    (void)state;
    assert_int_equal(mode_backend_use_algorithms(be, text, why_not, sizeof why_not, &err), MODE_OK);
    assert_non_null(strstr(why_not, "they are for cuDNN 92599; here is 92600"));
    run(be, dz, M);
    assert_int_equal(by_cudnn(be), 0);
    mode_backend_close(&be);
    free(text);
}

static void test_an_engine_that_is_not_there_is_counted(void **state)
{
    char *text = text_with(ENGINE("00000000000169b8", "00000007")), why_not[400];
    struct mode_backend *be = open_one();
    struct mode_error err;
    static uint16_t rule[MOST], dz[MOST];
    long failed;
    (void)state;
    run(be, rule, M);
    assert_int_equal(mode_backend_use_algorithms(be, text, why_not, sizeof why_not, &err), MODE_OK);
    run(be, dz, M);
    assert_int_equal(mode__product_ways_by_cudnn(be, &failed), 0);
    assert_int_equal(failed, 1);
    assert_memory_equal(dz, rule, (size_t)M * N * 2);
    mode_backend_close(&be);
    free(text);
}

static void test_without_a_cudnn_that_can_it_is_our_way(void **state)
{
    static const struct {
        const char *how, *said;
        long failed;
    } cases[] = {{"old", "there is no cuDNN", 0},
                 {"none", "no engine takes the graph", 1},
                 {"broken", "a run: ", 1},
                 {"chance", "engine 4, candidate 2 of 3", 0},
                 {"", "engine 4, candidate 1 of 2", 0}};
    static uint16_t rule[MOST], dz[MOST];
    struct mode_backend *be = open_one();
    (void)state;
    run(be, rule, M);
    mode_backend_close(&be);
    setenv("MODE_CUDA_ACTIVATIONS", "cudnn", 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        long failed;
        setenv("MODE_EMULATOR_CUDNN", cases[i].how, 1);
        be = open_one();
        for (int times = 0; times < 2; times++) {
            run(be, dz, M);
            assert_int_equal(memcmp(dz, rule, (size_t)M * N * 2) == 0, strncmp(cases[i].said, "engine", 6) != 0);
        }
        assert_int_equal(mode__product_ways_by_cudnn(be, &failed), strncmp(cases[i].said, "engine", 6) ? 0 : 2);
        assert_int_equal(failed, cases[i].failed);
        assert_non_null(strstr(note_of(be), cases[i].said));
        mode_backend_close(&be);
    }
    unsetenv("MODE_EMULATOR_CUDNN");
    setenv("MODE_CUDA_ACTIVATIONS", "own", 1);
    be = open_one();
    mode_backend_measure_products(be, true);
    run(be, dz, M);
    assert_int_equal(by_cudnn(be), 0);
    mode_backend_close(&be);
    unsetenv("MODE_CUDA_ACTIVATIONS");
}

/* cuDNN requires addresses and rows that are multiples of 16 bytes: it gets no others. */
static void test_tensors_at_other_addresses_are_ours(void **state)
{
    enum { ROWS = 20, PLACES = 4, ODD = 12 };
    struct mode_backend *be = open_for_cudnn();
    long failed;
    (void)state;
    struct tensors t = make(be, ROWS + 1);
    struct mode_tensor *const of[PLACES] = {&t.dz, &t.z, &t.dy, &t.w};
    t.x.dim[0] = t.dz.dim[0] = t.z.dim[0] = t.dy.dim[0] = ROWS;
    t.w.dim[0] = t.dw.dim[0] = t.dy.dim[1] = ODD; /* each has memory to spare */
    back(&t);
    assert_int_equal(mode__product_ways_by_cudnn(be, &failed) + failed, 0);
    t.w.dim[0] = t.dw.dim[0] = t.dy.dim[1] = K / 2;
    for (int i = 0; i <= PLACES; i++) {
        if (i < PLACES) of[i]->data = (char *)of[i]->data + 8;
        back(&t);
        if (i < PLACES) of[i]->data = (char *)of[i]->data - 8;
        assert_int_equal(mode__product_ways_by_cudnn(be, &failed), i == PLACES);
        assert_int_equal(failed, 0);
    }
    clear(&t);
    mode_backend_close(&be);
}

static void test_recorded_it_is_what_it_was(void **state)
{
    static uint16_t once[MOST], dz[MOST];
    struct mode_backend *be;
    struct mode_backend_repeats r;
    (void)state;
    be = open_for_cudnn();
    run(be, once, M);
    struct tensors t = make(be, M);
    const struct mode_sequence key = {0};
    for (int i = 0; i < 4; i++) {
        memset(dz, 0xff, sizeof dz);
        mode_backend_copy(be, t.dz.data, dz, (size_t)M * N * 2);
        mode_backend_repeat(be, &key, back, &t);
        mode_backend_copy(be, dz, t.dz.data, (size_t)M * N * 2);
        assert_memory_equal(dz, once, (size_t)M * N * 2);
    }
    mode_backend_repeats(be, &r);
    assert_string_equal(r.why_not, "");
    assert_true(r.replayed > 0);
    clear(&t);
    mode_backend_close(&be);
}

static double rounded(double x)
{
    return mode_bf16_to_f32(mode_f32_to_bf16((float)x));
}

/* act(x) and its derivative */
static double function_of(double x, enum mode_act act, double *slope)
{
    double s = act == MODE_ACT_GELU ? 0.5 * erfc(-x * M_SQRT1_2) : 1 / (1 + exp(-1.702 * x));
    *slope = s + x * (act == MODE_ACT_GELU ? exp(-0.5 * x * x) / sqrt(2 * M_PI) : 1.702 * s * (1 - s));
    return x * s;
}

static double *numbers(struct mode_backend *be, const struct mode_tensor *t)
{
    const int64_t n = mode_tensor_count(t);
    uint16_t *here = mode_xmalloc((size_t)n * 2);
    double *x = mode_xmalloc((size_t)n * sizeof *x);
    mode_backend_copy(be, here, t->data, (size_t)n * 2);
    for (int64_t i = 0; i < n; i++) x[i] = mode_bf16_to_f32(here[i]);
    free(here);
    return x;
}

/* One row by cuDNN against sums in double, rounded as stored. */
static void check(struct mode_backend *be, enum mode_act act, int64_t rows)
{
    struct tensors t = make(be, rows);
    struct mode_tensor v = matrix(be, N, K, 7), b = matrix(be, 1, N, 8), y = matrix(be, rows, N, 9),
                       z = matrix(be, rows, N, 10), alone = matrix(be, rows, N, 11);
    b = mode_tensor_1d(b.data, MODE_DTYPE_BF16, N);
    mode_linear_act(be, &y, &z, &t.dy, &v, &b, act); /* dy [rows, K] as the input */
    mode_linear_act(be, &alone, NULL, &t.dy, &v, &b, act);
    mode_linear_back_act(be, &t.dz, &t.dw, NULL, &t.dy, &t.x, &t.w, &t.z, act);
    double *dy = numbers(be, &t.dy), *w = numbers(be, &t.w), *at = numbers(be, &t.z), *got_dz = numbers(be, &t.dz),
           *vv = numbers(be, &v), *bb = numbers(be, &b), *got_y = numbers(be, &y), *got_z = numbers(be, &z),
           *got_alone = numbers(be, &alone), slope, nothing;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < N; j++) {
            double up = bb[j], down = 0;
            for (int64_t p = 0; p < K; p++) {
                up += dy[i * K + p] * vv[j * K + p];
                down += dy[i * K + p] * w[p * N + j];
            }
            (void)function_of(at[i * N + j], act, &slope);
            assert_true(fabs(got_dz[i * N + j] - down * slope) <= 0.004 * fabs(down * slope) + 1e-5);
            assert_true(fabs(got_z[i * N + j] - up) <= 0.004 * fabs(up) + 1e-5);
            const double want = function_of(got_z[i * N + j], act, &nothing);
            assert_true(fabs(got_y[i * N + j] - rounded(want)) <= 0.004 * fabs(want) + 1e-5);
            assert_true(got_alone[i * N + j] == got_y[i * N + j]);
        }
    double *all[] = {dy, w, at, got_dz, vv, bb, got_y, got_z, got_alone};
    for (int i = 0; i < 9; i++) free(all[i]);
    struct mode_tensor *more[] = {&v, &b, &y, &z, &alone};
    for (int i = 0; i < 5; i++) mode_backend_free(be, more[i]->data);
    clear(&t);
}

static void test_numbers_are_right(void **state)
{
    static const int64_t rows[] = {1, 37, 200};
    struct mode_backend *be = open_for_cudnn();
    long failed;
    (void)state;
    for (int i = 0; i < 3; i++) {
        check(be, MODE_ACT_GELU, rows[i]);
        check(be, MODE_ACT_QUICK_GELU, rows[i]);
    }
    assert_int_equal(mode__product_ways_by_cudnn(be, &failed), 18); /* three GEMMs each time */
    assert_int_equal(failed, 0);
    mode_backend_close(&be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers_are_right),
        cmocka_unit_test(test_the_clock_is_asked_once_and_its_choice_comes_back),
        cmocka_unit_test(test_a_new_text_is_asked_for_what_was_met),
        cmocka_unit_test(test_the_faster_way_is_taken),
        cmocka_unit_test(test_what_was_met_is_timed_when_measuring),
        cmocka_unit_test(test_a_text_for_another_cudnn_is_said),
        cmocka_unit_test(test_an_engine_that_is_not_there_is_counted),
        cmocka_unit_test(test_without_a_cudnn_that_can_it_is_our_way),
        cmocka_unit_test(test_tensors_at_other_addresses_are_ours),
        cmocka_unit_test(test_recorded_it_is_what_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
