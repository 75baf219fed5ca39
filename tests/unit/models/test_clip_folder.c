/* One small model as an open_clip folder and as a Hugging Face folder, converted both ways: the same bytes, the same
 * features. Against open_clip and transformers themselves: tests/golden/check_weights.py. */
#include "base/file.h"
#include "base/str.h"
#include "data/safetensors.h"
#include "models/clip_folder.h"
#include "models/clip_train.h"
#include "nn/backend.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char model_cfg[] =
    "{\"embed_dim\":6,\"vision_cfg\":{\"image_size\":8,\"layers\":2,\"width\":8,\"head_width\":4,\"patch_size\":4,"
    "\"mlp_ratio\":2.5},\"text_cfg\":{\"context_length\":7,\"vocab_size\":20,\"width\":12,\"heads\":3,\"layers\":2}}";

struct world {
    char dir[64];
    struct mode_backend *be;
};

static char *in(const struct world *w, const char *name)
{
    return mode_path_join(w->dir, name);
}

static void ok(enum mode_status st, const struct mode_error *err)
{
    if (st) fail_msg("%s: %s", mode_status_name(st), err->text);
}

/* <name>/ as open_clip's folder */
static void save(const struct world *w, const char *name, const char *model, const char *preprocess)
{
    struct mode_error err = {0};
    struct mode_clip *clip;
    char *dir = in(w, name), *config = mode_path_join(dir, "open_clip_config.json"),
         *weights = mode_path_join(dir, "open_clip_model.safetensors");
    ok(mode_clip_create(&clip, w->be, model, preprocess, 7, &err), &err);
    ok(mode_dir_make(dir, &err), &err);
    ok(mode_clip_save(clip, config, weights, &err), &err);
    mode_clip_close(&clip);
    free(dir);
    free(config);
    free(weights);
}

static enum mode_status convert(const struct world *w, const char *from, const char *to, enum mode_clip_format format,
                                struct mode_error *err)
{
    struct mode_clip_files f;
    char *source = in(w, from), *out = in(w, to), *note = NULL;
    enum mode_status st = mode_clip_files_find(&f, source, err);
    if (!st) st = mode_clip_convert(out, &f, format, NULL, &note, err);
    if (!st) assert_string_equal(note, "");
    mode_clip_files_clear(&f);
    free(note);
    free(source);
    free(out);
    return st;
}

static void same_file(const struct world *w, const char *a, const char *b, bool same)
{
    struct mode_error err = {0};
    char *path[2] = {in(w, a), in(w, b)}, *data[2];
    size_t size[2];
    for (int i = 0; i < 2; i++) ok(mode_file_read(path[i], 0, &data[i], &size[i], &err), &err);
    if ((size[0] == size[1] && memcmp(data[0], data[1], size[0]) == 0) != same)
        fail_msg("%s and %s are %s", a, b, same ? "not the same" : "the same");
    for (int i = 0; i < 2; i++) {
        free(path[i]);
        free(data[i]);
    }
}

static void features(const struct world *w, const char *name, float out[4 * 6])
{
    struct mode_error err = {0};
    struct mode_clip *clip;
    char *dir = in(w, name);
    float pixels[2 * 3 * 8 * 8];
    const int32_t ids[] = {18, 3, 4, 19, 18, 19}, n_ids[] = {4, 2};
    for (int i = 0; i < 2 * 3 * 8 * 8; i++) pixels[i] = (float)(i % 23) / 7 - 1;
    ok(mode_clip_load(&clip, w->be, dir, &err), &err);
    ok(mode_clip_encode_images(clip, out, pixels, 2, 0, &err), &err);
    ok(mode_clip_encode_texts(clip, out + 2 * 6, ids, n_ids, 2, 0, &err), &err);
    mode_clip_close(&clip);
    free(dir);
}

static void test_there_and_back_again_changes_nothing(void **state)
{
    const struct world *w = *state;
    struct mode_error err = {0};
    float want[4 * 6], got[4 * 6];
    save(w, "first", model_cfg, NULL);
    ok(convert(w, "first", "hf", MODE_CLIP_HF, &err), &err);
    ok(convert(w, "hf", "second", MODE_CLIP_OPEN_CLIP, &err), &err);
    ok(convert(w, "second", "hf2", MODE_CLIP_HF, &err), &err);
    ok(convert(w, "hf2", "third", MODE_CLIP_OPEN_CLIP, &err), &err);
    same_file(w, "first/open_clip_model.safetensors", "second/open_clip_model.safetensors", true);
    same_file(w, "first/open_clip_model.safetensors", "third/open_clip_model.safetensors", true);
    same_file(w, "second/open_clip_config.json", "third/open_clip_config.json", true);
    same_file(w, "hf/model.safetensors", "hf2/model.safetensors", true);
    same_file(w, "hf/config.json", "hf2/config.json", true);
    same_file(w, "hf/preprocessor_config.json", "hf2/preprocessor_config.json", true);
    features(w, "first", want);
    features(w, "hf", got);
    assert_memory_equal(want, got, sizeof want);
    features(w, "third", got);
    assert_memory_equal(want, got, sizeof want);
}

static void test_hugging_faces_names_and_shapes(void **state)
{
    const struct world *w = *state;
    struct mode_error err = {0};
    struct mode_safetensors ours, theirs;
    save(w, "a", model_cfg, NULL);
    ok(convert(w, "a", "b", MODE_CLIP_HF, &err), &err);
    char *a = in(w, "a/open_clip_model.safetensors"), *b = in(w, "b/model.safetensors");
    ok(mode_safetensors_open(&ours, a, &err), &err);
    ok(mode_safetensors_open(&theirs, b, &err), &err);
    assert_int_equal(theirs.n_tensors, ours.n_tensors + 4 * 2 * 2); /* two more for each fused weight and bias */
    const struct mode_tensor *qkv = mode_safetensors_find(&ours, "transformer.resblocks.1.attn.in_proj_weight"),
                             *k = mode_safetensors_find(&theirs, "text_model.encoder.layers.1.self_attn.k_proj.weight"),
                             *proj = mode_safetensors_find(&ours, "visual.proj"),
                             *turned = mode_safetensors_find(&theirs, "visual_projection.weight");
    assert_non_null(k);
    assert_non_null(turned);
    assert_non_null(mode_safetensors_find(&theirs, "vision_model.pre_layrnorm.weight"));
    assert_memory_equal(k->data, (const char *)qkv->data + 12 * 12 * 4, 12 * 12 * 4);
    assert_int_equal(turned->dim[0], 6);
    assert_int_equal(turned->dim[1], 8);
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 6; j++) assert_true(mode_f32(turned)[j * 8 + i] == mode_f32(proj)[i * 6 + j]);
    mode_safetensors_close(&ours);
    mode_safetensors_close(&theirs);
    free(a);
    free(b);
}

/* ---- what cannot be expressed ------------------------------------------------------------------------------- */

static void test_what_hugging_face_cannot_say_is_refused_by_name(void **state)
{
    const struct world *w = *state;
    static const struct {
        const char *image, *text, *preprocess, *words;
    } cases[] = {{"\"no_ln_pre\":true,", "", NULL, "no_ln_pre"},
                 {"\"ls_init_value\":0.1,", "", NULL, "layer scale"},
                 {"\"pool_type\":\"avg\",", "", NULL, "pooled by the mean"},
                 {"", "\"no_causal_mask\":true,", NULL, "no_causal_mask"},
                 {"", "\"pool_type\":\"first\",", NULL, "first or last"},
                 {"", "\"proj_bias\":true,", NULL, "projection with a bias"},
                 {"", "", "{\"resize_mode\":\"longest\"}", "longest"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mode_error err = {0};
        char name[16], *out;
        char *model = mode_xasprintf(
            "{\"embed_dim\":6,\"vision_cfg\":{%s\"image_size\":8,\"layers\":1,\"width\":8,\"head_width\":4,"
            "\"patch_size\":4},\"text_cfg\":{%s\"context_length\":7,\"vocab_size\":20,\"width\":12,\"heads\":3,"
            "\"layers\":1}}",
            cases[i].image, cases[i].text);
        snprintf(name, sizeof name, "odd%zu", i);
        save(w, name, model, cases[i].preprocess);
        assert_int_equal(convert(w, name, "odd-hf", MODE_CLIP_HF, &err), MODE_E_VALUE);
        if (!strstr(err.text, cases[i].words)) fail_msg("%s", err.text);
        out = in(w, "odd-hf");
        assert_false(mode_file_exists(out)); /* nor any part of it */
        free(out);
        free(model);
    }
}

/* A Hugging Face config.json over a folder of weights that fit the first of the cases. */
static void test_hugging_face_configs(void **state)
{
    const struct world *w = *state;
    static const char base[] = "\"hidden_size\":8,\"intermediate_size\":20,\"num_hidden_layers\":1,"
                               "\"num_attention_heads\":2";
    static const struct {
        const char *top, *text, *image, *preprocess, *words; /* words NULL: loads */
    } cases[] = {
        {"", "", "", NULL, NULL},
        {"\"text_config_dict\":{\"vocab_size\":20},", ",\"vocab_size\":9", "", NULL, NULL}, /* overrides text_config */
        {"", ",\"hidden_act\":\"gelu\"", ",\"hidden_act\":\"gelu\"", NULL, NULL},
        {"", ",\"hidden_act\":\"gelu_new\",\"layer_norm_eps\":1e-6", ",\"hidden_act\":\"gelu\"", NULL, NULL},
        {"", ",\"eos_token_id\":2", "", NULL, NULL},
        {"", ",\"eos_token_id\":5", "", NULL, NULL},
        {"", "", "", "{\"size\":8,\"crop_size\":8,\"resample\":3}", NULL},
        {"", "", "", "{\"size\":{\"shortest_edge\":8},\"crop_size\":{\"height\":8,\"width\":8}}", NULL},
        {"", "", "", "{\"size\":{\"height\":8,\"width\":8},\"do_center_crop\":false}", NULL},
        {"", ",\"hidden_act\":\"gelu\"", "", NULL, "quick_gelu is for both"},
        {"", ",\"hidden_act\":\"relu\"", "", NULL, "hidden_act is \"relu\""},
        {"", ",\"eos_token_id\":[1,2]", "", NULL, "eos_token_id"},
        {"", ",\"eos_token_id\":20", "", NULL, "eos_token_id"},
        {"", "", ",\"num_channels\":4", NULL, "num_channels"},
        {"\"quantization_config\":{},", "", "", NULL, "quantization_config"},
        {"", ",\"num_attention_heads\":3", "", NULL, "line"}, /* a duplicate key */
        {"\"projection_dim\":7,", "", "", NULL, "line"},
        {"", "", "", "{\"size\":10,\"crop_size\":8}", "the same side"},
        {"", "", "", "{\"size\":{\"height\":8,\"width\":9}}", "the same side"},
        {"", "", "", "{\"size\":224,\"crop_size\":224}", "differs from the model's"},
        {"", "", "", "{\"size\":8,\"resample\":1}", "resample"},
        {"", "", "", "{\"size\":8,\"do_normalize\":false}", "do_normalize"},
        {"", "", "", "{\"size\":8,\"rescale_factor\":0.5}", "rescale_factor"},
    };
    struct mode_error err = {0};
    struct mode_clip *clip;
    save(w, "plain",
         "{\"embed_dim\":6,\"vision_cfg\":{\"image_size\":8,\"layers\":1,\"width\":8,\"head_width\":4,"
         "\"patch_size\":4,\"mlp_ratio\":2.5},\"text_cfg\":{\"context_length\":7,\"vocab_size\":20,\"width\":8,"
         "\"heads\":2,\"layers\":1,\"mlp_ratio\":2.5}}",
         NULL);
    ok(convert(w, "plain", "any", MODE_CLIP_HF, &err), &err);
    char *dir = in(w, "any"), *config = mode_path_join(dir, "config.json"),
         *preprocess = mode_path_join(dir, "preprocessor_config.json");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bool eos = strstr(cases[i].text, "eos_token_id") != NULL;
        char *text = mode_xasprintf(
            "{%s\"model_type\":\"clip\",\"projection_dim\":6,\"top_k\":50,\"text_config\":{%s%s%s%s,"
            "\"max_position_embeddings\":7},\"vision_config\":{%s,\"image_size\":8,\"patch_size\":4%s}}",
            cases[i].top, base, strstr(cases[i].text, "vocab") ? "" : ",\"vocab_size\":20", cases[i].text,
            eos ? "" : ",\"eos_token_id\":19", base, cases[i].image);
        ok(mode_file_write_atomic(config, text, strlen(text), &err), &err);
        const char *p = cases[i].preprocess ? cases[i].preprocess : "{\"size\":8}";
        ok(mode_file_write_atomic(preprocess, p, strlen(p), &err), &err);
        enum mode_status st = mode_clip_load(&clip, w->be, dir, &err);
        if (cases[i].words ? !st || !strstr(err.text, cases[i].words) : st != MODE_OK)
            fail_msg("%s, %s: got %s: %s", text, p, mode_status_name(st), st ? err.text : "");
        mode_clip_close(&clip);
        free(text);
    }
    free(dir);
    free(config);
    free(preprocess);
}

/* ---- the tensors --------------------------------------------------------------------------------------------- */

/* Writes "a" again as "b" with one tensor changed. */
static enum mode_status load_changed(const struct world *w, const char *name, const char *new_name, int dims,
                                     enum mode_dtype dtype, bool doubled, struct mode_error *err)
{
    struct mode_safetensors f;
    struct mode_clip *clip;
    static const double zeros[512];
    char *from = in(w, "whole/open_clip_model.safetensors"), *config = in(w, "whole/open_clip_config.json"),
         *to = in(w, "changed.safetensors");
    ok(mode_safetensors_open(&f, from, err), err);
    struct mode_tensor *list = mode_xcalloc(f.n_tensors + 1, sizeof *list);
    size_t n = 0;
    for (size_t i = 0; i < f.n_tensors; i++) {
        list[n++] = f.tensors[i];
        if (!name || strcmp(f.tensors[i].name, name) != 0) continue;
        struct mode_tensor *t = &list[doubled ? n++ : n - 1];
        *t = f.tensors[i];
        if (!new_name) {
            n--;
            continue;
        }
        t->name = new_name;
        t->n_dims = dims < 0 ? t->n_dims : dims;
        if (dtype) {
            t->dtype = dtype;
            t->data = (void *)(uintptr_t)zeros;
        }
    }
    ok(mode_safetensors_write(to, list, n, NULL, 0, err), err);
    enum mode_status st = mode_clip_load_files(&clip, w->be, config, to, err);
    if (!st && dtype) assert_non_null(strstr(mode_clip_note(clip), mode_dtype_name(dtype)));
    mode_clip_close(&clip);
    mode_safetensors_close(&f);
    free(list);
    free(from);
    free(config);
    free(to);
    return st;
}

static void test_every_tensor_must_be_the_models(void **state)
{
    const struct world *w = *state;
    static const char scale[] = "logit_scale", bias[] = "visual.ln_pre.bias";
    static const struct {
        const char *name, *new_name;
        int dims;
        enum mode_dtype dtype;
        bool doubled;
        const char *words; /* NULL: loads */
    } cases[] = {{NULL, NULL, -1, 0, false, NULL},
                 {scale, scale, 1, 0, false, NULL}, /* [1] for [] */
                 {scale, "module.logit_scale", -1, 0, false, NULL},
                 {scale, "_orig_mod.module.logit_scale", -1, 0, false, NULL},
                 {"ln_final.bias", "text.ln_final.bias", -1, 0, false, NULL},
                 {bias, bias, -1, MODE_DTYPE_F16, false, NULL},
                 {bias, bias, -1, MODE_DTYPE_BF16, false, NULL},
                 {bias, bias, -1, MODE_DTYPE_F64, false, NULL},
                 {bias, "text_model.embeddings.position_ids", -1, 0, true, NULL},
                 {bias, bias, -1, MODE_DTYPE_I32, false, "is I32"},
                 {bias, "visual.ln_pre.beta", -1, 0, false, "visual.ln_pre.beta is not a parameter"},
                 {bias, "visual.ln_pre.beta", -1, 0, true, "visual.ln_pre.beta is not a parameter of this model"},
                 {bias, "module.visual.ln_pre.bias", -1, 0, true, "is there twice"},
                 {bias, NULL, -1, 0, false, "visual.ln_pre.bias is missing"},
                 {scale, "attn_mask", -1, 0, true, NULL}};
    save(w, "whole", model_cfg, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mode_error err = {0};
        enum mode_status st = load_changed(w, cases[i].name, cases[i].new_name, cases[i].dims, cases[i].dtype,
                                           cases[i].doubled, &err);
        if (cases[i].words ? !st || !strstr(err.text, cases[i].words) : st != MODE_OK)
            fail_msg("case %zu: got %s: %s", i, mode_status_name(st), err.text);
    }
}

static void test_folders_that_hold_no_model(void **state)
{
    const struct world *w = *state;
    struct mode_error err = {0};
    struct mode_clip_files f;
    char *dir = in(w, "empty"), *config = mode_path_join(dir, "config.json");
    ok(mode_dir_make(dir, &err), &err);
    assert_int_equal(mode_clip_files_find(&f, dir, &err), MODE_E_NOINPUT);
    assert_non_null(strstr(err.text, "neither open_clip_config.json nor config.json"));
    mode_clip_files_clear(&f);
    ok(mode_file_write_atomic(config, "{\"model_type\":\"clip\"}", 21, &err), &err);
    assert_int_equal(mode_clip_files_find(&f, dir, &err), MODE_E_NOINPUT);
    assert_non_null(strstr(err.text, "beside the config"));
    mode_clip_files_clear(&f);
    ok(mode_file_write_atomic(config, "{\"model_type\":\"bert\"}", 21, &err), &err);
    assert_int_equal(mode_clip_files_find(&f, dir, &err), MODE_E_FORMAT);
    mode_clip_files_clear(&f);
    save(w, "given", model_cfg, NULL);
    assert_int_equal(convert(w, "given", "empty", MODE_CLIP_HF, &err), MODE_E_CREATE);
    free(dir);
    free(config);
}

static int setup(void **state)
{
    static struct world w;
    struct mode_error err;
    strcpy(w.dir, "/tmp/mode-clip-folder-XXXXXX");
    *state = &w;
    return !mkdtemp(w.dir) || mode_backend_open(&w.be, "ref", &err);
}

static int teardown(void **state)
{
    struct world *w = *state;
    mode_backend_close(&w->be);
    return (int)mode_dir_remove(w->dir, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back_again_changes_nothing),
        cmocka_unit_test(test_hugging_faces_names_and_shapes),
        cmocka_unit_test(test_what_hugging_face_cannot_say_is_refused_by_name),
        cmocka_unit_test(test_hugging_face_configs),
        cmocka_unit_test(test_every_tensor_must_be_the_models),
        cmocka_unit_test(test_folders_that_hold_no_model),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
