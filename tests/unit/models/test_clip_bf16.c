/* Training and inference in bf16 against f32, on the reference: loss and gradients, ten steps, the checkpoint that
 * moves both ways, a resumed training that is bit-identical, the memory plan. */
#include "models/clip_train.h"

#include "drawn_pairs.h"

#include "base/file.h"
#include "base/rng.h"
#include "base/str.h"
#include "nn/backend.h"
#include "optim/adamw.h"
#include "pipeline/checkpoint.h"
#include "tensor/half.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <unistd.h>

static const char SMALL[] = "{\"embed_dim\": 32, \"vision_cfg\": {\"image_size\": 24, \"patch_size\": 8, \"width\": 48,"
                            "                  \"layers\": 2, \"head_width\": 16, \"mlp_ratio\": 4},"
                            " \"text_cfg\": {\"context_length\": 9, \"vocab_size\": 61, \"width\": 32, \"heads\": 2,"
                            "                \"layers\": 2}}";
/* Mean pooling, layer scale, a text projection with a bias. */
static const char OTHER[] = "{\"embed_dim\": 32, \"quick_gelu\": true,"
                            " \"vision_cfg\": {\"image_size\": 24, \"patch_size\": 8, \"width\": 48, \"layers\": 2,"
                            "                  \"head_width\": 16, \"mlp_ratio\": 4, \"ls_init_value\": 0.5,"
                            "                  \"pool_type\": \"avg\", \"final_ln_after_pool\": true},"
                            " \"text_cfg\": {\"context_length\": 9, \"vocab_size\": 61, \"width\": 32, \"heads\": 2,"
                            "                \"layers\": 2, \"proj_bias\": true}}";
enum { PAIRS = 12, SIDE = 24, LONGEST = 9, VOCAB = 61, STEPS = 10 };

static float pixels[PAIRS * 3 * SIDE * SIDE];
static int32_t ids[PAIRS * LONGEST], n_ids[PAIRS];

static int setup(void **state)
{
    (void)state;
    draw_pairs(pixels, sizeof pixels / sizeof *pixels, ids, n_ids, PAIRS, LONGEST, VOCAB);
    return 0;
}

struct model {
    struct mode_backend *be;
    struct mode_clip *clip;
    struct mode_param *p;
    size_t n;
};

static void ok(enum mode_status st, const struct mode_error *err)
{
    if (st) fail_msg("%s", err->text);
}

/* A freshly initialised model has tiny gradients in places: with stir, weights are made larger. */
static struct model make(const char *backend, const char *cfg, bool stir)
{
    struct model m;
    struct mode_error err;
    ok(mode_backend_open(&m.be, backend, &err), &err);
    ok(mode_clip_create(&m.clip, m.be, cfg, NULL, 5, &err), &err);
    ok(mode_clip_train_begin(m.clip, PAIRS, &err), &err);
    m.p = mode_clip_params(m.clip, &m.n);
    for (size_t i = 0; stir && i < m.n; i++) {
        struct mode_rng r = mode_rng_for(3, MODE_RNG_TEST, 2, i);
        for (int64_t j = 0; j < mode_tensor_count(&m.p[i].value); j++)
            mode_f32(&m.p[i].value)[j] += 0.1f * (float)mode_rng_normal(&r);
    }
    mode_clip_refresh(m.clip);
    return m;
}

static void drop(struct model *m)
{
    mode_clip_close(&m->clip);
    mode_backend_close(&m->be);
}

static double step(struct model *m)
{
    struct mode_error err;
    double loss = NAN;
    ok(mode_clip_train_step(m->clip, &loss, pixels, ids, n_ids, PAIRS, &err), &err);
    return loss;
}

static double step_and_update(struct model *m, int64_t number)
{
    const struct mode_adamw options = {.lr = 3e-4, .beta1 = 0.9, .beta2 = 0.98, .eps = 1e-6, .weight_decay = 0.2};
    double loss = step(m);
    struct mode_adamw_step *now;
    struct mode_error err;
    ok(mode_adamw_begin(&now, m->be, &err), &err);
    mode_adamw_tell(now, &options, number);
    mode_adamw_update(m->be, m->p, m->n, now);
    mode_clip_clamp(m->clip);
    mode_backend_free(m->be, now);
    return loss;
}

static double distance(const struct mode_tensor *a, const struct mode_tensor *b)
{
    double diff = 0, size = 0;
    for (int64_t j = 0; j < mode_tensor_count(a); j++) {
        diff += pow((double)mode_f32(a)[j] - mode_f32(b)[j], 2);
        size += pow(mode_f32(b)[j], 2);
    }
    return sqrt(diff / fmax(size, 1e-30));
}

/* Tolerances for bf16: loss 5e-3; relative to their norm, gradients of matrices 3e-2, of vectors 8e-2. */
static void test_loss_and_gradients_are_near_those_of_f32(void **state)
{
    const char *const cfg[] = {SMALL, OTHER};
    (void)state;
    for (int k = 0; k < 2; k++) {
        struct model a = make("ref-bf16", cfg[k], true), b = make("ref", cfg[k], true);
        double la = step(&a), lb = step(&b), worst = 0;
        if (!(fabs(la - lb) <= 5e-3 * lb)) fail_msg("loss %.6g, in f32 %.6g", la, lb);
        assert_true(la != lb);
        for (size_t i = 0; i < a.n; i++) {
            if (a.p[i].frozen) continue;
            double d = distance(&a.p[i].grad, &b.p[i].grad), limit = a.p[i].value.n_dims >= 2 ? 3e-2 : 8e-2;
            worst = fmax(worst, d / limit);
            if (!(d <= limit)) fail_msg("%s: gradients are %.3g apart, %.3g allowed", a.p[i].name, d, limit);
        }
        assert_true(worst > 1e-3); /* something is rounded */
        drop(&a);
        drop(&b);
    }
}

static void test_ten_steps_keep_to_the_curve_of_f32(void **state)
{
    struct model a = make("ref-bf16", SMALL, false), b = make("ref", SMALL, false);
    double first = 0, last = 0;
    (void)state;
    for (int i = 1; i <= STEPS; i++) {
        double la = step_and_update(&a, i), lb = step_and_update(&b, i);
        if (!(fabs(la - lb) <= 2e-2 * lb)) fail_msg("step %d: loss %.6g, in f32 %.6g", i, la, lb);
        if (i == 1) first = la;
        last = la;
    }
    assert_true(last < 0.8 * first);
    drop(&a);
    drop(&b);
}

static void assert_copies_are_rounded_values(const struct model *m)
{
    size_t copied = 0;
    for (size_t i = 0; i < m->n; i++) {
        const struct mode_tensor *copy = mode_param_copy(&m->p[i]);
        if (!copy) continue;
        copied++;
        for (int64_t j = 0; j < mode_tensor_count(copy); j++)
            assert_int_equal(((const uint16_t *)copy->data)[j], mode_f32_to_bf16(mode_f32(&m->p[i].value)[j]));
    }
    assert_int_equal(copied, 2 * 2 * 8 + 3); /* the blocks', two projections, the convolution */
}

static void test_the_copies_follow_the_parameters(void **state)
{
    struct model a = make("ref-bf16", SMALL, true);
    (void)state;
    assert_copies_are_rounded_values(&a);
    step_and_update(&a, 1);
    assert_copies_are_rounded_values(&a);
    drop(&a);
}

static void assert_near(const float *a, const float *b, int64_t e)
{
    for (int64_t i = 0; i < PAIRS; i++) {
        double cosine = 0;
        for (int64_t j = 0; j < e; j++) cosine += (double)a[i * e + j] * b[i * e + j];
        if (!(1 - cosine <= 5e-4)) fail_msg("row %d: the features' cosine is %.7f", (int)i, cosine);
    }
}

/* What one backend saves the other loads bit-identically, and computes nearly the same features with. */
static void test_a_checkpoint_moves_both_ways(void **state)
{
    const char *const names[] = {"ref-bf16", "cpu", "ref-bf16"};
    char dir[] = "/tmp/mode-bf16-XXXXXX";
    struct mode_error err;
    (void)state;
    assert_non_null(mkdtemp(dir));
    char *config = mode_path_join(dir, "open_clip_config.json"),
         *weights = mode_path_join(dir, "open_clip_model.safetensors");
    for (int way = 0; way < 2; way++) {
        struct model a = make(names[way], SMALL, true), b = make(names[way + 1], SMALL, false);
        float image[2][PAIRS * 32], text[2][PAIRS * 32], raw[PAIRS * 32];
        step_and_update(&a, 1);
        ok(mode_clip_save(a.clip, config, weights, &err), &err);
        ok(mode_clip_read_weights(b.clip, weights, &err), &err);
        for (size_t i = 0; i < a.n; i++)
            assert_memory_equal(a.p[i].value.data, b.p[i].value.data, mode_tensor_bytes(&a.p[i].value));
        struct model *const m[] = {&a, &b};
        for (int k = 0; k < 2; k++) {
            ok(mode_clip_encode_images(m[k]->clip, image[k], pixels, PAIRS, 0, &err), &err);
            ok(mode_clip_encode_texts(m[k]->clip, text[k], ids, n_ids, PAIRS, 0, &err), &err);
            ok(mode_clip_encode_images(m[k]->clip, raw, pixels, PAIRS, 1, &err), &err);
            for (int i = 0; i < PAIRS; i++) { /* raw rows have the direction of unit rows */
                double length = 0, cosine = 0;
                for (int j = 0; j < 32; j++) {
                    length += pow(raw[i * 32 + j], 2);
                    cosine += (double)raw[i * 32 + j] * image[k][i * 32 + j];
                }
                assert_true(fabs(cosine / sqrt(length) - 1) < 1e-6 && fabs(length - 1) > 1e-3);
            }
        }
        assert_near(image[0], image[1], 32);
        assert_near(text[0], text[1], 32);
        drop(&a);
        drop(&b);
    }
    unlink(config);
    unlink(weights);
    rmdir(dir);
    free(config);
    free(weights);
}

static void test_a_resumed_training_ends_at_the_same_bits(void **state)
{
    char dir[] = "/tmp/mode-bf16-XXXXXX";
    struct mode_error err;
    uint64_t at = 0;
    (void)state;
    assert_non_null(mkdtemp(dir));
    char *config = mode_path_join(dir, "c"), *weights = mode_path_join(dir, "w.safetensors"),
         *moments = mode_path_join(dir, "m.safetensors");
    struct model a = make("ref-bf16", SMALL, false), b = make("ref-bf16", SMALL, true);
    for (int i = 1; i <= 5; i++) {
        step_and_update(&a, i);
        if (i != 3) continue;
        ok(mode_clip_save(a.clip, config, weights, &err), &err);
        ok(mode_checkpoint_save_moments(moments, a.be, a.p, a.n, 3, &err), &err);
    }
    ok(mode_clip_read_weights(b.clip, weights, &err), &err);
    ok(mode_checkpoint_load_moments(b.be, b.p, b.n, &at, moments, &err), &err);
    assert_int_equal(at, 3);
    for (int i = 4; i <= 5; i++) step_and_update(&b, i);
    for (size_t i = 0; i < a.n; i++) {
        assert_memory_equal(a.p[i].value.data, b.p[i].value.data, mode_tensor_bytes(&a.p[i].value));
        assert_memory_equal(a.p[i].m.data, b.p[i].m.data, mode_tensor_bytes(&a.p[i].m));
    }
    drop(&a);
    drop(&b);
    unlink(config);
    unlink(weights);
    unlink(moments);
    rmdir(dir);
    free(config);
    free(weights);
    free(moments);
}

/* Gradient caching and recomputed blocks give the same gradients up to rounding; the memory plan counts the bf16 copies
 * and half the bytes for activations. */
static void test_less_memory_gives_the_same_gradients(void **state)
{
    struct model a = make("ref-bf16", SMALL, true);
    struct model b;
    struct mode_error err;
    struct mode_clip_memory m16, m32;
    (void)state;
    ok(mode_backend_open(&b.be, "ref-bf16", &err), &err);
    ok(mode_clip_create(&b.clip, b.be, SMALL, NULL, 5, &err), &err);
    mode_clip_set_memory(b.clip, 3, true);
    ok(mode_clip_train_begin(b.clip, PAIRS, &err), &err);
    b.p = mode_clip_params(b.clip, &b.n);
    for (size_t i = 0; i < a.n; i++) memcpy(b.p[i].value.data, a.p[i].value.data, mode_tensor_bytes(&a.p[i].value));
    mode_clip_refresh(b.clip);
    assert_true(step(&a) == step(&b));
    for (size_t i = 0; i < a.n; i++)
        if (!a.p[i].frozen) assert_true(distance(&a.p[i].grad, &b.p[i].grad) < 1e-2);
    struct model c = make("ref", SMALL, false);
    mode_clip_memory(&m16, a.clip, PAIRS);
    mode_clip_memory(&m32, c.clip, PAIRS);
    assert_true(m32.copies == 0 && m16.copies > 0 && m16.copies < m16.parameters / 2);
    assert_true(m16.activations < 0.6 * (double)m32.activations && m16.turns < 0.6 * (double)m32.turns);
    assert_int_equal(m16.total, m16.parameters + m16.copies + m16.gradients + m16.moments + m16.activations +
                                    m16.turns + m16.workspace);
    drop(&a);
    drop(&b);
    drop(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loss_and_gradients_are_near_those_of_f32),
        cmocka_unit_test(test_ten_steps_keep_to_the_curve_of_f32),
        cmocka_unit_test(test_the_copies_follow_the_parameters),
        cmocka_unit_test(test_a_checkpoint_moves_both_ways),
        cmocka_unit_test(test_a_resumed_training_ends_at_the_same_bits),
        cmocka_unit_test(test_less_memory_gives_the_same_gradients),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
