/* `mode verify`: on every backend everything is within tolerance, for every kind of tower; and wrong results are found.
 */
#include "base/file.h"
#include "base/rng.h"
#include "base/str.h"
#include "clip_variants.h"
#include "data/safetensors.h"
#include "models/clip_train.h"
#include "nn/backend.h"
#include "pipeline/verify.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct count {
    int parts, rows, over;
    double share;
    char worst[200], note[200];
};

static void on_begin(void *ctx, const char *part)
{
    (void)part;
    ((struct count *)ctx)->parts++;
}

static void on_row(void *ctx, const struct mode_verify_row *row)
{
    struct count *c = ctx;
    double share = row->error / row->tolerance;
    c->rows++;
    c->over += !(share <= 1);
    if (!(share <= c->share)) {
        c->share = share;
        snprintf(c->worst, sizeof c->worst, "%s, %s: %g of %g at %lld: %.9g for %.9g", row->stage, row->tensor,
                 row->error, row->tolerance, (long long)row->worst, row->ours, row->exact);
    }
}

static void on_note(void *ctx, const char *text)
{
    struct count *c = ctx;
    snprintf(c->note, sizeof c->note, "%s", text);
}

static struct mode_backend *open_backend(const char *name)
{
    struct mode_backend *be;
    struct mode_error err;
    if (mode_backend_open(&be, name, &err) != MODE_OK) fail_msg("%s", err.text);
    return be;
}

static void assert_within(const struct count *c)
{
    if (c->over) fail_msg("%d of %d are over; %s", c->over, c->rows, c->worst);
}

static void test_stored_vectors_agree_on_every_backend(void **state)
{
    static const char *const names[] = {"ref", "cpu", "cpu-plain"};
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct count c = {0};
        const struct mode_verify_hooks hooks = {&c, on_begin, on_row, on_note};
        struct mode_backend *be = open_backend(names[i]);
        struct mode_error err;
        if (mode_verify_reference(be, &hooks, &err)) fail_msg("%s", err.text);
        assert_within(&c);
        assert_int_equal(c.parts, 6);
        assert_true(c.rows > 400);
        mode_backend_close(&be);
    }
}

static void test_pictures_and_texts_agree(void **state)
{
    struct count c = {0};
    const struct mode_verify_hooks hooks = {&c, on_begin, on_row, on_note};
    const char *merges = getenv("MODE_CLIP_MERGES");
    struct mode_error err;
    (void)state;
    if (mode_verify_preprocessing(&hooks, &err)) fail_msg("%s", err.text);
    assert_within(&c);
    assert_int_equal(c.rows, 8);
    if (!merges) return;
    if (mode_verify_tokenizer(merges, &hooks, &err)) fail_msg("%s", err.text);
    assert_within(&c);
    assert_int_equal(c.rows, 38);
}

/* A model folder with weights of the magnitude of trained ones. */
static char *folder_of(int i, struct mode_backend *be)
{
    struct mode_clip *clip;
    struct mode_error err;
    char *cfg = variant(i), dir[] = "/tmp/mode-verify-XXXXXX";
    assert_non_null(mkdtemp(dir));
    char *config = mode_path_join(dir, "open_clip_config.json"),
         *weights = mode_path_join(dir, "open_clip_model.safetensors");
    if (mode_clip_create(&clip, be, cfg, NULL, 5, &err)) fail_msg("%s", err.text);
    variant_perturb(clip);
    if (mode_clip_save(clip, config, weights, &err)) fail_msg("%s", err.text);
    mode_clip_close(&clip);
    free(cfg);
    free(config);
    free(weights);
    return mode_xstrdup(dir);
}

static void test_every_kind_of_model_agrees_with_double(void **state)
{
    static const char *const names[] = {"ref", "cpu", "cpu-plain"};
    (void)state;
    for (int k = 0; k < 3; k++) {
        struct mode_backend *be = open_backend(names[k]);
        for (int i = 0; i < VARIANTS; i++) {
            struct count c = {0};
            const struct mode_verify_hooks hooks = {&c, on_begin, on_row, on_note};
            struct mode_error err;
            char *dir = folder_of(i, be);
            if (mode_verify_model(be, dir, 4, &hooks, &err)) fail_msg("%s", err.text);
            assert_within(&c);
            assert_true(c.rows > 80);
            assert_string_equal(c.note, "");
            assert_int_equal(mode_dir_remove(dir, &err), MODE_OK);
            free(dir);
        }
        mode_backend_close(&be);
    }
}

/* The note that `mode convert` and `mode train --init` give about such a file is given here too. */
static void test_what_was_taken_of_the_weights_is_said(void **state)
{
    static const double zeros[512];
    struct mode_backend *be = open_backend("cpu");
    struct mode_safetensors f;
    struct mode_error err;
    struct count c = {0};
    const struct mode_verify_hooks hooks = {&c, on_begin, on_row, on_note};
    char *dir = folder_of(0, be), *weights = mode_path_join(dir, "open_clip_model.safetensors"),
         *wider = mode_path_join(dir, "wider");
    (void)state;
    assert_int_equal(mode_safetensors_open(&f, weights, &err), MODE_OK);
    for (size_t i = 0; i < f.n_tensors; i++) {
        if (strcmp(f.tensors[i].name, "ln_final.bias") != 0) continue;
        f.tensors[i].dtype = MODE_DTYPE_F64;
        f.tensors[i].data = (void *)(uintptr_t)zeros;
    }
    assert_int_equal(mode_safetensors_write(wider, f.tensors, f.n_tensors, NULL, 0, &err), MODE_OK);
    mode_safetensors_close(&f);
    assert_int_equal(rename(wider, weights), 0);
    if (mode_verify_model(be, dir, 4, &hooks, &err)) fail_msg("%s", err.text);
    assert_within(&c);
    assert_non_null(strstr(c.note, "F64"));
    assert_int_equal(mode_dir_remove(dir, &err), MODE_OK);
    mode_backend_close(&be);
    free(wider);
    free(weights);
    free(dir);
}

/* Weights of another model, and missing reference vectors. */
static void test_what_is_wrong_is_found(void **state)
{
    static const int32_t n_ids[] = {3, 9, 1, 6, 2};
    struct mode_backend *be = open_backend("cpu");
    struct mode_safetensors f;
    struct mode_error err;
    struct count c = {0};
    struct mode_clip *clip;
    float pixels[5 * 3 * 144] = {0};
    int32_t ids[21];
    char *cfg = variant(0);
    (void)state;
    for (int i = 0; i < 21; i++) ids[i] = 1 + i;
    if (mode_safetensors_open(&f, MODE_SOURCE_DIR "/common/pipeline/verify_goldens.safetensors", &err) ||
        mode_clip_create(&clip, be,
                         "{\"embed_dim\": 12, \"quick_gelu\": true, \"vision_cfg\": {\"image_size\": 12,"
                         "\"patch_size\": 4, \"width\": 16, \"layers\": 2, \"head_width\": 8}, \"text_cfg\": "
                         "{\"context_length\": 9, \"vocab_size\": 23, \"width\": 12, \"heads\": 3, \"layers\": 2}}",
                         NULL, 1, &err) ||
        mode_clip_verify_stored(clip, &f, "0.", pixels, ids, n_ids, 5, on_row, &c, &err))
        fail_msg("%s", err.text);
    assert_true(c.over > c.rows / 2);
    mode_clip_close(&clip);
    if (mode_clip_create(&clip, be, cfg, NULL, 1, &err)) fail_msg("%s", err.text);
    assert_int_equal(mode_clip_verify_stored(clip, &f, "9.", pixels, ids, n_ids, 5, on_row, &c, &err), MODE_E_FORMAT);
    assert_non_null(strstr(err.text, "9.image.x"));
    mode_clip_close(&clip);
    mode_safetensors_close(&f);
    mode_backend_close(&be);
    free(cfg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stored_vectors_agree_on_every_backend),
        cmocka_unit_test(test_pictures_and_texts_agree),
        cmocka_unit_test(test_every_kind_of_model_agrees_with_double),
        cmocka_unit_test(test_what_was_taken_of_the_weights_is_said),
        cmocka_unit_test(test_what_is_wrong_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
