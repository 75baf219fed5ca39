/* GEMMs in FP8 (docs/decisions/0022-products-in-fp8.md) on "cuda-fp8" and its reference "ref-fp8": rounding, distance
 * from bf16, what stays bf16, and ten steps of training. On a machine without a GPU the kernels run on the host
 * (emulator/). tests/cuda/cuda_test.c compares the two backends. */
#include "drawn_pairs.h"

#include "base/rng.h"
#include "base/str.h"
#include "models/clip_config.h"
#include "models/clip_train.h"
#include "nn/ops.h"
#include "optim/adamw.h"
#include "tensor/half.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const narrow_backends[] = {"ref-fp8", "cuda-fp8"};
static struct mode_error err;

static void ok(enum mode_status st)
{
    if (st) fail_msg("%s", err.text);
}

static struct mode_backend *open_backend(const char *name)
{
    struct mode_backend *be;
    ok(mode_backend_open(&be, name, &err));
    return be;
}

/* In host memory. */
static struct mode_tensor matrix(enum mode_dtype dtype, int64_t rows, int64_t cols)
{
    return mode_tensor_2d(mode_xcalloc((size_t)(rows * cols), mode_dtype_size(dtype)), dtype, rows, cols);
}

static void set(struct mode_tensor *t, int64_t i, double x)
{
    ((uint16_t *)t->data)[i] = mode_f32_to_bf16((float)x);
}

static double get(const struct mode_tensor *t, int64_t i)
{
    return t->dtype == MODE_DTYPE_BF16 ? mode_bf16_to_f32(((const uint16_t *)t->data)[i]) : mode_f32(t)[i];
}

/* ---- one linear map, forward and backward ---- */

struct maps {
    struct mode_backend *be;
    struct mode_tensor x, w, b, dy, z, y, dx, dw, db;
};

static struct maps maps_of(const char *backend, int64_t m, int64_t n, int64_t k)
{
    struct maps a = {.be = open_backend(backend)};
    const enum mode_dtype half = MODE_DTYPE_BF16;
    struct mode_tensor *const drawn[] = {&a.x, &a.w, &a.b, &a.dy, &a.z};
    a.x = matrix(half, m, k);
    a.w = matrix(half, n, k);
    a.b = matrix(half, 1, n);
    a.dy = matrix(half, m, n);
    a.z = matrix(half, m, k);
    a.y = matrix(half, m, n);
    a.dx = matrix(half, m, k);
    a.dw = matrix(MODE_DTYPE_F32, n, k);
    a.db = matrix(MODE_DTYPE_F32, 1, n);
    for (uint64_t t = 0; t < 5; t++) {
        struct mode_rng r = mode_rng_for(17, MODE_RNG_TEST, t, 0);
        for (int64_t i = 0; i < mode_tensor_count(drawn[t]); i++) set(drawn[t], i, mode_rng_normal(&r));
    }
    a.b = mode_tensor_1d(a.b.data, half, n);
    a.db = mode_tensor_1d(a.db.data, MODE_DTYPE_F32, n);
    return a;
}

static void maps_clear(struct maps *a)
{
    struct mode_tensor *const all[] = {&a->x, &a->w, &a->b, &a->dy, &a->z, &a->y, &a->dx, &a->dw, &a->db};
    for (int i = 0; i < 9; i++) free(all[i]->data);
    mode_backend_close(&a->be);
}

/* Copies to the backend, runs, copies back. */
static void run(struct maps *a, bool narrow, bool bias)
{
    struct maps b = *a;
    struct mode_tensor *const here[] = {&a->x, &a->w, &a->b, &a->dy, &a->z, &a->y, &a->dx, &a->dw, &a->db},
                              *const there[] = {&b.x, &b.w, &b.b, &b.dy, &b.z, &b.y, &b.dx, &b.dw, &b.db};
    for (int i = 0; i < 9; i++) {
        ok(mode_backend_alloc(a->be, &there[i]->data, mode_tensor_bytes(here[i]), &err));
        mode_backend_copy(a->be, there[i]->data, here[i]->data, mode_tensor_bytes(here[i]));
    }
    mode_backend_narrow(a->be, narrow);
    mode_linear(a->be, &b.y, &b.x, &b.w, bias ? &b.b : NULL);
    mode_linear_back_act(a->be, &b.dx, &b.dw, &b.db, &b.dy, &b.x, &b.w, &b.z, MODE_ACT_QUICK_GELU);
    mode_backend_narrow(a->be, false);
    for (int i = 0; i < 9; i++) {
        mode_backend_copy(a->be, here[i]->data, there[i]->data, mode_tensor_bytes(here[i]));
        mode_backend_free(a->be, there[i]->data);
    }
}

static double distance(const struct mode_tensor *a, const struct mode_tensor *b)
{
    double diff = 0, size = 0;
    for (int64_t i = 0; i < mode_tensor_count(a); i++) {
        diff += (get(a, i) - get(b, i)) * (get(a, i) - get(b, i));
        size += get(b, i) * get(b, i);
    }
    return sqrt(diff / size);
}

static void assert_same_bytes(const struct mode_tensor *a, const struct mode_tensor *b)
{
    assert_memory_equal(a->data, b->data, mode_tensor_bytes(b));
}

static void assert_narrowed(const struct mode_backend *be, int64_t made, int64_t left)
{
    struct mode_backend_narrowed n;
    mode_backend_narrowed(be, &n);
    assert_int_equal(n.made, made);
    assert_int_equal(n.left, left);
}

/* ---- rounding ---- */

/* The nearest value of the format, by exhaustive search; a tie goes to the even code. */
static double nearest_of_all(double x, bool wide)
{
    const int bits = wide ? 2 : 3, least = wide ? -14 : -6, last = wide ? 0x7b : 0x7e;
    double best = 0, off = fabs(x);
    for (int code = 1; code <= last; code++) {
        int octave = code >> bits, rest = code % (1 << bits);
        double y = octave ? ldexp(1 + (double)rest / (1 << bits), octave - 1 + least)
                          : ldexp((double)rest / (1 << bits), least);
        double d = fabs(fabs(x) - y);
        if (d < off || (d == off && code % 2 == 0)) {
            best = y;
            off = d;
        }
    }
    return copysign(best, x);
}

/* GEMMs with the identity return operands as they were rounded. */
static void test_numbers_become_the_nearest_ones(void **state)
{
    enum { ROWS = 256, N = 16 };
    (void)state;
    for (int k = 0; k < 2; k++) {
        struct maps a = maps_of(narrow_backends[k], ROWS, N, N);
        struct mode_rng r = mode_rng_for(18, MODE_RNG_TEST, 0, 0);
        double most = 0;
        for (int64_t i = 0; i < ROWS * N; i++) { /* many octaves, with subnormals, underflow and ties */
            double x = ldexp(1 + (double)mode_rng_below(&r, 32) / 32, -(int)mode_rng_below(&r, 36));
            set(&a.x, i, mode_rng_below(&r, 2) ? x : -x);
            set(&a.dy, i, get(&a.x, i));
            set(&a.z, i, 100); /* where the activation's derivative is 1 */
            most = fmax(most, fabs(get(&a.x, i)));
        }
        for (int64_t i = 0; i < N * N; i++) set(&a.w, i, i % (N + 1) == 0);
        run(&a, true, false);
        assert_narrowed(a.be, 2, 0);
        for (int wide = 0; wide < 2; wide++) {
            double scale = exp2(floor(log2((wide ? 57344 : 448) / most)));
            for (int64_t i = 0; i < ROWS * N; i++) {
                double got = get(wide ? &a.dx : &a.y, i), want = nearest_of_all(get(&a.x, i) * scale, wide) / scale;
                if (got != want)
                    fail_msg("%s, E%dM%d: %.9g became %.9g, not %.9g", narrow_backends[k], 4 + wide, 3 - wide,
                             get(&a.x, i), got, want);
            }
        }
        maps_clear(&a);
    }
}

/* Scales are powers of two, so they change no significant digit. */
static void test_magnitudes_do_not_matter(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++) {
        struct maps a = maps_of(narrow_backends[k], 48, 32, 64), b = maps_of(narrow_backends[k], 48, 32, 64);
        for (int64_t i = 0; i < 48 * 64; i++) set(&b.x, i, ldexp(get(&a.x, i), 20));
        for (int64_t i = 0; i < 32 * 64; i++) set(&b.w, i, ldexp(get(&a.w, i), -30));
        for (int64_t i = 0; i < 48 * 32; i++) set(&b.dy, i, ldexp(get(&a.dy, i), -40));
        run(&a, true, false);
        run(&b, true, false);
        for (int64_t i = 0; i < 48 * 32; i++) assert_true(get(&b.y, i) == ldexp(get(&a.y, i), -10));
        for (int64_t i = 0; i < 48 * 64; i++) assert_true(get(&b.dx, i) == ldexp(get(&a.dx, i), -70));
        maps_clear(&a);
        maps_clear(&b);
    }
}

/* Errors of independent factors add in quadrature: at most the unit roundoffs of both formats, 2^-4 and 2^-3. Less than
 * a tenth of that would mean that nothing was rounded. */
static void test_products_are_as_far_from_bf16_as_the_formats_allow(void **state)
{
    const double e4m3 = 1.0 / 16, e5m2 = 1.0 / 8, forward = sqrt(2) * e4m3, back = hypot(e4m3, e5m2);
    (void)state;
    for (int k = 0; k < 2; k++) {
        struct maps a = maps_of(narrow_backends[k], 80, 96, 272), b = maps_of("ref-bf16", 80, 96, 272);
        run(&a, true, true);
        run(&b, false, true);
        double y = distance(&a.y, &b.y), dx = distance(&a.dx, &b.dx);
        if (!(y < forward && y > forward / 10)) fail_msg("%s: y is %.4f off", narrow_backends[k], y);
        if (!(dx < back && dx > back / 10)) fail_msg("%s: dx is %.4f off", narrow_backends[k], dx);
        maps_clear(&a);
        maps_clear(&b);
    }
}

static void test_gradients_of_weights_and_other_sizes_stay_bf16(void **state)
{
    static const int64_t shapes[][3] = {{48, 32, 64}, {47, 32, 64}, {48, 33, 64}, {48, 32, 72}};
    static const char *const plain[] = {"ref-bf16", "cuda-bf16"};
    (void)state;
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < 4; i++)
            for (int on = 0; on < 2; on++) {
                const int64_t *s = shapes[i];
                struct maps a = maps_of(narrow_backends[k], s[0], s[1], s[2]), b = maps_of(plain[k], s[0], s[1], s[2]);
                bool narrow = on && i == 0;
                run(&a, on, true);
                run(&b, on, true); /* no effect on these backends */
                assert_same_bytes(&a.dw, &b.dw);
                assert_same_bytes(&a.db, &b.db);
                assert_int_equal(memcmp(a.y.data, b.y.data, mode_tensor_bytes(&a.y)) == 0, !narrow);
                assert_int_equal(memcmp(a.dx.data, b.dx.data, mode_tensor_bytes(&a.dx)) == 0, !narrow);
                assert_narrowed(a.be, narrow ? 2 : 0, on && !narrow ? 2 : 0);
                assert_narrowed(b.be, 0, 0);
                maps_clear(&a);
                maps_clear(&b);
            }
}

/* NaN and overflow show in the result; an all-zero operand has no scale. */
static void test_what_is_not_finite_shows(void **state)
{
    static const double odd[] = {INFINITY, -INFINITY, NAN};
    (void)state;
    for (int k = 0; k < 2; k++) {
        struct maps a = maps_of(narrow_backends[k], 32, 16, 48);
        for (int i = 0; i < 3; i++) {
            double was = get(&a.x, 5 * 48 + 7);
            set(&a.x, 5 * 48 + 7, odd[i]);
            set(&a.dy, 9 * 16 + 3, odd[i]);
            run(&a, true, true);
            set(&a.x, 5 * 48 + 7, was);
            for (int64_t j = 0; j < 32 * 16; j++) assert_int_equal(isnan(get(&a.y, j)), j / 16 == 5);
            for (int64_t j = 0; j < 32 * 48; j++) assert_int_equal(isnan(get(&a.dx, j)), j / 48 == 9);
        }
        memset(a.x.data, 0, mode_tensor_bytes(&a.x));
        run(&a, true, true);
        for (int64_t j = 0; j < 32 * 16; j++) assert_true(get(&a.y, j) == get(&a.b, j % 16));
        maps_clear(&a);
    }
}

/* ---- training ---- */

enum { PAIRS = 16, SIDE = 24, LONGEST = 9, VOCAB = 61, STEPS = 10 };
static const struct mode_clip_config small = {.embed_dim = 32,
                                              .image = {48, 3, 2, 192, MODE_ACT_GELU, 1e-5f, false, 0},
                                              .text = {32, 2, 2, 128, MODE_ACT_GELU, 1e-5f, false, 0},
                                              .image_size = SIDE,
                                              .patch_size = 8,
                                              .context_length = LONGEST,
                                              .vocab_size = VOCAB,
                                              .image_ln_pre = true,
                                              .text_causal = true,
                                              .init_logit_scale = 2.6592600369327779};
static float pixels[PAIRS * 3 * SIDE * SIDE];
static int32_t ids[PAIRS * LONGEST], n_ids[PAIRS];

static int setup(void **state)
{
    (void)state;
    draw_pairs(pixels, sizeof pixels / sizeof *pixels, ids, n_ids, PAIRS, LONGEST, VOCAB);
    return 0;
}

struct training {
    struct mode_backend *be;
    struct mode_clip *clip;
    struct mode_param *p;
    size_t n;
    struct mode_adamw_step *now;
    double loss[STEPS];
    struct mode_backend_narrowed narrowed;
    struct mode_backend_repeats repeats;
};

static void step_ops(void *ctx)
{
    struct training *t = ctx;
    ok(mode_clip_train_compute(t->clip, &err));
    mode_adamw_update(t->be, t->p, t->n, t->now);
    mode_clip_clamp(t->clip);
}

static struct training train(const char *backend, bool dense, enum mode_clip_policy policy, bool graphs, int steps)
{
    struct training t = {.be = open_backend(backend)};
    struct mode_adamw opt = MODE_ADAMW_DEFAULT;
    struct mode_clip_blocks blocks = {0};
    blocks.image[policy] = blocks.text[policy] = 2;
    opt.lr = 1e-3;
    ok(mode_clip_create_plain(&t.clip, t.be, &small, 5, &err));
    mode_clip_set_savings(t.clip, dense, dense);
    mode_clip_set_blocks(t.clip, &blocks);
    mode_backend_record(t.be, graphs);
    ok(mode_clip_train_begin(t.clip, PAIRS, &err));
    ok(mode_adamw_begin(&t.now, t.be, &err));
    t.p = mode_clip_params(t.clip, &t.n);
    size_t work = t.be ? (size_t)mode_backend_narrow_work(t.be, 1, 1, 1) : 0;
    assert_int_equal(work > 0, strstr(backend, "fp8") != NULL);
    for (int i = 0; i < steps; i++) {
        struct mode_sequence key;
        mode_adamw_tell(t.now, &opt, i + 1);
        ok(mode_clip_train_load(t.clip, pixels, ids, n_ids, PAIRS, &err));
        assert_true(mode_clip_train_sequence(t.clip, &key));
        mode_backend_repeat(t.be, &key, step_ops, &t);
        t.loss[i] = mode_clip_train_loss(t.clip);
        if (i == 0) mode_backend_narrowed(t.be, &t.narrowed);
    }
    mode_backend_repeats(t.be, &t.repeats);
    mode_backend_free(t.be, t.now);
    mode_clip_close(&t.clip);
    mode_backend_close(&t.be);
    return t;
}

/* Counts: all GEMMs of both towers' blocks but the gradients of weights, and nothing else: 4 linear maps of 4 blocks,
 * forward and backward. Packed texts have other numbers of rows, and pooled rows are as many as there are pairs. */
static void test_ten_steps_follow_bf16(void **state)
{
    (void)state;
    struct training want = train("cuda-bf16", true, MODE_CLIP_KEEP, true, STEPS);
    assert_int_equal(want.narrowed.made + want.narrowed.left, 0);
    for (int k = 0; k < 2; k++) {
        struct training t = train(narrow_backends[k], true, MODE_CLIP_KEEP, true, STEPS);
        assert_int_equal(t.narrowed.made, 32);
        assert_int_equal(t.narrowed.left, 0);
        for (int i = 0; i < STEPS; i++) {
            printf("%s, step %d: loss %.6f, in bf16 %.6f\n", narrow_backends[k], i, t.loss[i], want.loss[i]);
            if (!(fabs(t.loss[i] - want.loss[i]) < 0.05 * want.loss[0]))
                fail_msg("%s, step %d: loss %.6f, in bf16 %.6f", narrow_backends[k], i, t.loss[i], want.loss[i]);
        }
        assert_true(t.loss[0] != want.loss[0]); /* FP8 was in use */
        assert_true(t.loss[STEPS - 1] < 0.8 * t.loss[0]);
    }
    assert_true(want.loss[STEPS - 1] < 0.8 * want.loss[0]);
}

static void test_graphs_and_policies_show_in_no_byte(void **state)
{
    (void)state;
    for (int dense = 0; dense < 2; dense++) {
        struct training want = train("cuda-fp8", dense, MODE_CLIP_KEEP, false, 3);
        assert_true(want.narrowed.made > 0 && (dense || want.narrowed.left > 0));
        for (int policy = 0; policy < MODE_CLIP_POLICIES; policy++) {
            struct training t = train("cuda-fp8", dense, (enum mode_clip_policy)policy, true, 3);
            assert_memory_equal(t.loss, want.loss, sizeof t.loss);
            assert_true(t.repeats.replayed > 0 && t.repeats.why_not[0] == 0);
        }
    }
}

static void test_an_older_gpu_is_refused(void **state)
{
    struct mode_backend *be;
    (void)state;
    setenv("MODE_EMULATOR_CAPABILITY", "86", 1);
    assert_int_equal(mode_backend_open(&be, "cuda-fp8", &err), MODE_E_DEVICE);
    assert_non_null(strstr(err.text, "capability 8.6"));
    ok(mode_backend_open(&be, "cuda-bf16", &err));
    mode_backend_close(&be);
    setenv("MODE_EMULATOR_CAPABILITY", "89", 1);
    ok(mode_backend_open(&be, "cuda-fp8", &err));
    mode_backend_close(&be);
    unsetenv("MODE_EMULATOR_CAPABILITY");
}

/* A cached plan is reused after the scratch buffer, which holds the scales of its operands, has moved. */
static void test_the_same_product_again_in_a_larger_scratch(void **state)
{
    struct maps a = maps_of("cuda-fp8", 16, 32, 48), large = maps_of("cuda-fp8", 128, 512, 256);
    struct mode_backend *other = large.be;
    (void)state;
    run(&a, true, true);
    struct mode_tensor first = matrix(MODE_DTYPE_BF16, 16, 32);
    memcpy(first.data, a.y.data, mode_tensor_bytes(&first));
    large.be = a.be;
    run(&large, true, true);
    large.be = other;
    run(&a, true, true);
    assert_same_bytes(&a.y, &first);
    free(first.data);
    maps_clear(&a);
    maps_clear(&large);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers_become_the_nearest_ones),
        cmocka_unit_test(test_magnitudes_do_not_matter),
        cmocka_unit_test(test_products_are_as_far_from_bf16_as_the_formats_allow),
        cmocka_unit_test(test_gradients_of_weights_and_other_sizes_stay_bf16),
        cmocka_unit_test(test_what_is_not_finite_shows),
        cmocka_unit_test(test_the_same_product_again_in_a_larger_scratch),
        cmocka_unit_test(test_ten_steps_follow_bf16),
        cmocka_unit_test(test_graphs_and_policies_show_in_no_byte),
        cmocka_unit_test(test_an_older_gpu_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
