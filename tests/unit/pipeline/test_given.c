/* The pretrained model of a run (train.init): the same bytes from every kind of file, which configs are the same
 * network, its identity, and whether it has moments. */
#include "pipeline/given.h"

#include "base/str.h"
#include "clip_world.h"
#include "data/weights.h"
#include "models/clip_train.h"
#include "nn/choice.h"
#include "pipeline/checkpoint.h"
#include "pipeline/model_config.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static char dir[] = "/tmp/mode-given-XXXXXX";
static char *ours, *hf, *weights; /* one model: open_clip folder, Hugging Face folder, the former's weights file */

static char *in(const char *folder, const char *name)
{
    return mode_path_join(folder, name);
}

static int set_up(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct mode_backend *be = NULL;
    struct mode_clip *clip = NULL;
    struct mode_clip_files f;
    char why[MODE_BACKEND_WHY];
    if (!mkdtemp(dir)) return 1;
    ours = in(dir, "ours");
    hf = in(dir, "hf");
    weights = in(ours, MODE_FILE_CLIP_WEIGHTS);
    char *config = in(ours, MODE_FILE_CLIP_CONFIG);
    world_ok(mode_dir_make(ours, &err), &err);
    world_ok(mode_backend_choose(&be, why, "cpu", NULL, &err), &err);
    world_ok(mode_clip_create(&clip, be, WORLD_MODEL, WORLD_PREPROCESS, 5, &err), &err);
    world_ok(mode_clip_save(clip, config, weights, &err), &err);
    world_ok(mode_clip_files_find(&f, ours, &err), &err);
    world_ok(mode_clip_convert(hf, &f, MODE_CLIP_HF, NULL, NULL, &err), &err);
    mode_clip_files_clear(&f);
    mode_clip_close(&clip);
    mode_backend_close(&be);
    free(config);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    struct mode_error err = {0};
    free(ours);
    free(hf);
    free(weights);
    return mode_dir_remove(dir, &err) != MODE_OK;
}

/* Digests of the three files that taking the model at path gives. */
static void taken(char hex[3][MODE_DIGEST_HEX], const char *path)
{
    static const char *const files[] = {MODE_FILE_CLIP_CONFIG, MODE_FILE_CLIP_WEIGHTS, MODE_FILE_TRAIN,
                                        MODE_FILE_CLIP_OPTIMIZER, MODE_FILE_STEPS};
    struct mode_error err = {0};
    struct mode_given g;
    char *out = in(dir, "out"), *at[5], *note;
    world_ok(mode_dir_make(out, &err), &err);
    for (int i = 0; i < 5; i++) at[i] = in(out, files[i]);
    const struct mode_train_outputs outputs = {
        .config = at[0], .weights = at[1], .optimizer = at[3], .steps = at[4], .summary = at[2]};
    world_ok(mode_given_find(&g, path, &err), &err);
    world_ok(mode_given_agree(&g, WORLD_MODEL, WORLD_PREPROCESS, &err), &err);
    world_ok(mode_given_take(&g, &outputs, &note, &err), &err);
    assert_string_equal(note, "");
    assert_false(mode_file_exists(at[3]));
    assert_true(mode_file_exists(at[4]));
    for (int i = 0; i < 3; i++) world_ok(mode_digest_file(at[i], hex[i], NULL, &err), &err);
    for (int i = 0; i < 5; i++) free(at[i]);
    world_ok(mode_dir_remove(out, &err), &err);
    mode_given_clear(&g);
    free(note);
    free(out);
}

static void test_every_kind_of_file_comes_to_the_same_bytes(void **state)
{
    (void)state;
    char a[3][MODE_DIGEST_HEX], b[3][MODE_DIGEST_HEX], c[3][MODE_DIGEST_HEX], original[MODE_DIGEST_HEX];
    struct mode_error err = {0};
    taken(a, ours);
    taken(b, hf);
    taken(c, weights);
    for (int i = 0; i < 3; i++) {
        assert_string_equal(a[i], b[i]);
        assert_string_equal(a[i], c[i]);
    }
    world_ok(mode_digest_file(weights, original, NULL, &err), &err);
    assert_string_equal(a[1], original);
}

/* The run's config with one value changed is refused with `refused`; NULL: it is the same network. */
static void compared(const char *path, const char *from, const char *to, const char *refusal)
{
    struct mode_error err = {0};
    struct mode_given g;
    const char *at = strstr(WORLD_MODEL, from);
    assert_non_null(at);
    char *model = mode_xasprintf("%.*s%s%s", (int)(at - WORLD_MODEL), WORLD_MODEL, to, at + strlen(from));
    world_ok(mode_given_find(&g, path, &err), &err);
    enum mode_status st = mode_given_agree(&g, model, WORLD_PREPROCESS, &err);
    assert_int_equal(st, refusal ? MODE_E_CONFIG : MODE_OK);
    if (refusal && !(strstr(err.text, refusal) && strstr(err.text, "config.json"))) fail_msg("%s", err.text);
    mode_given_clear(&g);
    free(model);
}

static void test_another_network_is_refused_by_what_differs(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct mode_given g;
    for (int k = 0; k < 2; k++) {
        const char *path = k ? hf : ours;
        compared(path, "\"embed_dim\": 16", "\"embed_dim\": 32", "embed_dim is 16, expected 32");
        compared(path, "\"layers\": 1, \"width\"", "\"layers\": 2, \"width\"", "vision_cfg.layers is 1, expected 2");
        compared(path, "\"patch_size\": 8", "\"patch_size\": 4", "vision_cfg.patch_size is 8, expected 4");
        compared(path, "\"context_length\": 16", "\"context_length\": 32",
                 "text_cfg.context_length is 16, expected 32");
        compared(path, "49408", "49409", "text_cfg.vocab_size is 49408, expected 49409");
        compared(path, "\"heads\": 2", "\"heads\": 4", "text_cfg: heads is 2, expected 4");
        compared(path, "{\"embed", "{\"quick_gelu\": true, \"embed", "quick_gelu is false, expected true");
        compared(path, "{\"embed", "{\"init_logit_scale\": 1, \"custom_text\": true, \"embed", NULL);
    }
    world_ok(mode_given_find(&g, hf, &err), &err);
    assert_int_equal(mode_given_agree(&g, WORLD_MODEL, "{\"mean\": [0.5, 0.5, 0.5]}", &err), MODE_E_CONFIG);
    if (!strstr(err.text, "mean is 0.481455")) fail_msg("%s", err.text);
    mode_given_clear(&g);
    /* a bare weights file has no config; its shapes are checked */
    world_ok(mode_given_find(&g, weights, &err), &err);
    world_ok(mode_given_agree(&g,
                              "{\"embed_dim\": 32, \"vision_cfg\": {\"image_size\": 16, \"patch_size\": 8}, "
                              "\"text_cfg\": {\"width\": 32}}",
                              NULL, &err),
             &err);
    assert_int_equal(mode_clip_files_check(&g.files, &err), MODE_E_SHAPE);
    if (!strstr(err.text, weights)) fail_msg("%s", err.text);
    mode_given_clear(&g);
}

static void digest_of(char hex[MODE_DIGEST_HEX], const char *path)
{
    struct mode_error err = {0};
    struct mode_given g;
    world_ok(mode_given_find(&g, path, &err), &err);
    world_ok(mode_given_agree(&g, WORLD_MODEL, WORLD_PREPROCESS, &err), &err);
    world_ok(mode_given_digest(&g, hex, &err), &err);
    mode_given_clear(&g);
}

static void copy(const char *to, const char *from, const char *name)
{
    struct mode_error err = {0};
    char *a = in(from, name), *b = in(to, name);
    world_ok(mode_file_copy(a, b, false, &err), &err);
    free(a);
    free(b);
}

static void test_identity_is_what_is_read(void **state)
{
    (void)state;
    struct mode_error err = {0};
    char a[MODE_DIGEST_HEX], b[MODE_DIGEST_HEX], *moved = in(dir, "moved"), *readme = in(moved, "README.md"),
                                                 *optimizer = in(moved, MODE_FILE_CLIP_OPTIMIZER),
                                                 *file = in(moved, MODE_FILE_CLIP_WEIGHTS);
    world_ok(mode_dir_make(moved, &err), &err);
    copy(moved, ours, MODE_FILE_CLIP_CONFIG);
    copy(moved, ours, MODE_FILE_CLIP_WEIGHTS);
    digest_of(a, ours);
    world_ok(mode_file_write_atomic(readme, "hello", 5, &err), &err);
    digest_of(b, moved);
    assert_string_equal(a, b);

    /* with moments the identity differs, and there is a step; the bare weights file has none */
    struct mode_given g;
    float x = 1;
    const int64_t dim[] = {1};
    struct mode_tensor t = mode_tensor_make(&x, MODE_DTYPE_F32, 1, dim);
    t.name = "exp_avg.x";
    const struct mode_meta meta = {(char *)(uintptr_t) "step", (char *)(uintptr_t) "7"};
    world_ok(mode_safetensors_write(optimizer, &t, 1, &meta, 1, &err), &err);
    digest_of(b, moved);
    assert_string_not_equal(a, b);
    world_ok(mode_given_find(&g, moved, &err), &err);
    assert_true(g.step == 7 && g.optimizer);
    mode_given_clear(&g);
    world_ok(mode_given_find_folder(&g, moved, true, &err), &err);
    assert_true(g.step == 0 && !g.optimizer);
    mode_given_clear(&g);
    world_ok(mode_given_find(&g, file, &err), &err);
    assert_true(g.step == 0 && !g.optimizer);
    mode_given_clear(&g);
    digest_of(a, weights);
    digest_of(b, file);
    assert_string_equal(a, b);

    /* one element of the weights */
    char *data;
    size_t size;
    world_ok(mode_file_read(file, 0, &data, &size, &err), &err);
    data[size - 1] ^= 1;
    world_ok(mode_file_write_atomic(file, data, size, &err), &err);
    digest_of(b, file);
    assert_string_not_equal(a, b);
    free(data);
    free(moved);
    free(readme);
    free(optimizer);
    free(file);
}

/* Without `model` the folder's own config is used, of either kind. */
static void test_a_folder_says_which_model_it_is(void **state)
{
    (void)state;
    struct mode_error err = {0};
    for (int k = 0; k < 2; k++) {
        struct mode_given g;
        char *model = NULL, *preprocess = NULL;
        world_ok(mode_model_config_found(&model, &preprocess, k ? hf : ours, "train.init", &err), &err);
        world_ok(mode_given_find(&g, ours, &err), &err);
        world_ok(mode_given_agree(&g, model, preprocess, &err), &err);
        mode_given_clear(&g);
        free(model);
        free(preprocess);
    }
    char *model = NULL, *preprocess = NULL;
    assert_int_equal(mode_model_config_found(&model, &preprocess, "/nonexistent", "train.init", &err), MODE_E_NOINPUT);
    assert_int_equal(strncmp(err.text, "train.init: /nonexistent", 24), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind_of_file_comes_to_the_same_bytes),
        cmocka_unit_test(test_another_network_is_refused_by_what_differs),
        cmocka_unit_test(test_identity_is_what_is_read),
        cmocka_unit_test(test_a_folder_says_which_model_it_is),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
