/* Linear probes: concatenated features of several models, the validation split, the choice of C, and refusals. */
#include "clip_world.h"

#include "data/evalset.h"
#include "models/clip.h"
#include "models/clip_train.h"
#include "nn/backend.h"
#include "pipeline/checkpoint.h"
#include "pipeline/probe.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { TRAIN = 64, TEST = 24, E = 16 };

static char dir[] = "/tmp/mode-probe-XXXXXX", *task, *model[3];
static struct mode_backend *be;
static struct mode_evalset train, test;

static void write_model(int k, const char *config, float by)
{
    struct mode_clip *clip;
    struct mode_error err;
    size_t n;
    char name[16];
    snprintf(name, sizeof name, "expert-%d", k);
    model[k] = mode_path_join(dir, name);
    char *to[] = {mode_path_join(model[k], MODE_FILE_CLIP_CONFIG), mode_path_join(model[k], MODE_FILE_CLIP_WEIGHTS)};
    world_ok(mode_dir_make(model[k], &err), &err);
    world_ok(mode_clip_create(&clip, be, config, WORLD_PREPROCESS, (uint64_t)k + 1, &err), &err);
    struct mode_param *p = mode_clip_params(clip, &n);
    for (size_t i = 0; i < n; i++)
        for (int64_t j = 0; j < mode_tensor_count(&p[i].value); j++) mode_f32(&p[i].value)[j] *= by;
    world_ok(mode_clip_save(clip, to[0], to[1], &err), &err);
    mode_clip_close(&clip);
    free(to[0]);
    free(to[1]);
}

static void write_text(const char *name, const char *text)
{
    struct mode_error err;
    char *path = mode_path_join(task, name);
    world_ok(mode_file_write_atomic(path, text, strlen(text), &err), &err);
    free(path);
}

/* n pictures; the label of picture i is labels[i % period]. */
static void write_split(const char *split, int n, const int *labels, int period)
{
    struct mode_tar_writer *tar = NULL;
    struct mode_error err;
    char *folder = mode_path_join(task, split), *path = mode_path_join(folder, "0.tar"),
         *shards = mode_path_join(split, "nshards.txt"), name[32], text[8];
    world_ok(mode_dir_make(folder, &err), &err);
    write_text(shards, "1\n");
    world_ok(mode_tar_writer_open(&tar, path, &err), &err);
    for (int i = 0; i < n; i++) {
        size_t size;
        const int class = labels[i % period];
        uint8_t *png = world_png(class, (uint64_t)(n * 1000 + i), 20, &size);
        snprintf(text, sizeof text, "%d", class);
        snprintf(name, sizeof name, "s%07d.cls", i);
        world_ok(mode_tar_writer_add(tar, name, text, strlen(text), &err), &err);
        snprintf(name, sizeof name, "s%07d.png", i);
        world_ok(mode_tar_writer_add(tar, name, png, size, &err), &err);
        free(png);
    }
    world_ok(mode_tar_writer_finish(&tar, &err), &err);
    free(folder);
    free(path);
    free(shards);
}

static const int colours[] = {0, 1, 2, 3, 0, 0, 1, 0}; /* of 64: 32, 16, 8, 8 */

static int setup(void **state)
{
    static const char narrow[] =
        "{\"embed_dim\": 8, \"vision_cfg\": {\"image_size\": 16, \"layers\": 1, \"width\": 32, \"head_width\": 16, "
        "\"patch_size\": 8}, \"text_cfg\": {\"context_length\": 16, \"vocab_size\": 49408, \"width\": 32, \"heads\": "
        "2, "
        "\"layers\": 1}}";
    struct mode_error err;
    (void)state;
    assert_non_null(mkdtemp(dir));
    task = mode_path_join(dir, "colours");
    world_ok(mode_backend_open(&be, "cpu", &err), &err);
    write_model(0, WORLD_MODEL, 1);
    write_model(1, WORLD_MODEL, 1.5f);
    write_model(2, narrow, 1);
    write_split("train", TRAIN, colours, 8);
    write_split("test", TEST, colours, 8);
    write_text("classnames.txt", "red\ngreen\nblue\nwhite\nof which there is no picture\n");
    write_text("zeroshot_classification_templates.txt", "{c}\n");
    world_ok(mode_evalset_open_split(&train, task, "train", &err), &err);
    world_ok(mode_evalset_open(&test, task, &err), &err);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mode_evalset_close(&train);
    mode_evalset_close(&test);
    mode_backend_close(&be);
    for (int k = 0; k < 3; k++) free(model[k]);
    mode_dir_remove(dir, NULL);
    free(task);
    return 0;
}

static struct mode_probe_spec spec_of(int n_models)
{
    return (struct mode_probe_spec){
        .be = be, .models = model, .n_models = n_models, .batch = 3, .seed = 5, .held_back = 0.25};
}

/* Every model's part has norm 1, and the scores are those of a regression on rows concatenated by the test. */
static void test_features_stand_side_by_side(void **state)
{
    static float rows[2][TRAIN * 2 * E], part[TRAIN * E], scores[TEST * 4];
    int32_t label[TRAIN];
    const struct mode_evalset *const sets[] = {&train, &test};
    struct mode_probe_spec s = spec_of(2);
    struct mode_probe p;
    struct mode_logistic m;
    struct mode_logistic_options o = MODE_LOGISTIC_DEFAULT;
    struct mode_logistic_fit fit;
    struct mode_error err;
    double mean[2 * E];
    (void)state;
    assert_int_equal(train.n_images, TRAIN);
    for (int k = 0; k < 2; k++) {
        struct mode_clip *clip;
        world_ok(mode_clip_load(&clip, be, model[k], &err), &err);
        for (int t = 0; t < 2; t++) {
            const struct mode_evalset *set = sets[t];
            struct mode_encode_picture picture[TRAIN];
            for (int i = 0; i < set->n_images; i++)
                picture[i] = (struct mode_encode_picture){set->image[i], set->image_size[i], set->image_key[i]};
            world_ok(mode_encode_pictures(clip, part, picture, set->n_images, 3, false, NULL, &err), &err);
            for (int i = 0; i < set->n_images; i++) {
                double square = 0;
                for (int j = 0; j < E; j++) square += (double)part[i * E + j] * part[i * E + j];
                assert_true(fabs(square - 1) < 1e-5);
                memcpy(&rows[t][(i * 2 + k) * E], part + i * E, E * sizeof *part);
            }
        }
        mode_clip_close(&clip);
    }
    for (int i = 0; i < TRAIN; i++) label[i] = train.label[i];
    mode_rows_mean(mean, rows[0], TRAIN, 2 * E);
    mode_rows_less(rows[0], TRAIN, 2 * E, mean);
    mode_rows_less(rows[1], TEST, 2 * E, mean);
    o.strength = s.strength = 3;
    world_ok(mode_logistic_open(&m, be, rows[0], label, TRAIN, 2 * E, 4, &err), &err);
    world_ok(mode_logistic_fit(&m, &o, &fit, &err), &err);
    mode_logistic_scores(&m, scores, rows[1], TEST);
    mode_logistic_close(&m);

    world_ok(mode_probe(&p, &s, &train, &test, &err), &err);
    assert_int_equal(p.width, 2 * E);
    assert_int_equal(p.c, 4); /* the fifth class has no pictures */
    assert_int_equal(p.n_held_back, 0);
    assert_int_equal(p.n_tries, 0);
    assert_true(isnan(p.at.accuracy) && p.at.fit.converged && p.at.fit.iterations == fit.iterations);
    assert_memory_equal(p.scores, scores, sizeof scores);
    assert_memory_equal(p.target, test.label, sizeof(int32_t) * TEST);
    const struct mode_result r = mode_probe_result(&p, &test, "both");
    json_t *metrics;
    world_ok(mode_result_metrics(&metrics, &r, NULL, &err), &err);
    assert_true(json_number_value(json_object_get(metrics, "acc1")) > 0.6); /* colours are easy */
    json_decref(metrics);
    mode_probe_clear(&p);
}

static void count_tries(void *ctx, const struct mode_probe *p)
{
    assert_int_equal(++*(int *)ctx, p->n_tries);
}

static void test_c_is_chosen_by_pictures_that_are_held_back(void **state)
{
    struct mode_probe_spec s = spec_of(1);
    struct mode_probe p, again;
    struct mode_error err;
    int told = 0;
    (void)state;
    s.tried = count_tries;
    s.ctx = &told;
    world_ok(mode_probe(&p, &s, &train, &test, &err), &err);
    assert_int_equal(p.n_held_back, 16); /* 8, 4, 2 and 2 */
    assert_int_equal(told, p.n_tries);
    assert_in_range(p.n_tries, 11, MODE_PROBE_TRIES); /* at an end of the range only one side is tried */
    const struct mode_probe_try *best = &p.tries[0];
    for (int i = 0; i < p.n_tries; i++) {
        const struct mode_probe_try *t = &p.tries[i];
        if (i < 7) assert_true(fabs(log10(t->strength) - (2 * i - 6)) < 1e-9);
        if (t->accuracy > best->accuracy || (t->accuracy == best->accuracy && t->strength < best->strength)) best = t;
    }
    assert_true(p.at.strength == best->strength && p.at.accuracy == best->accuracy);
    assert_true(best->accuracy > 0.6);
    assert_int_equal(mode_probe(&again, &s, &train, &test, (told = 0, &err)), MODE_OK);
    assert_memory_equal(again.scores, p.scores, sizeof(float) * TEST * 4);
    assert_memory_equal(again.tries, p.tries, sizeof p.tries);
    mode_probe_clear(&again);
    s.held_back = 1e-6; /* at least one picture of each class is in either split */
    told = 0;
    world_ok(mode_probe(&again, &s, &train, &test, &err), &err);
    assert_int_equal(again.n_held_back, 4);
    mode_probe_clear(&again);
    s.held_back = 1 - 1e-6;
    told = 0;
    world_ok(mode_probe(&again, &s, &train, &test, &err), &err);
    assert_int_equal(again.n_held_back, TRAIN - 4);
    mode_probe_clear(&again);
    mode_probe_clear(&p);
}

static void refused(const struct mode_probe_spec *s, const struct mode_evalset *of, const struct mode_evalset *on,
                    enum mode_status st, const char *words)
{
    struct mode_probe p;
    struct mode_error err;
    const enum mode_status was = mode_probe(&p, s, of, on, &err);
    if (was != st || !strstr(err.text, words)) fail_msg("%s, expected \"%s\"", was ? err.text : "no refusal", words);
    mode_probe_clear(&p);
}

static void test_what_is_refused(void **state)
{
    struct mode_probe_spec s = spec_of(1);
    struct mode_evalset other = train;
    int32_t label[TRAIN];
    char *names[5];
    (void)state;
    other.kind = MODE_TASK_RETRIEVAL;
    refused(&s, &other, &test, MODE_E_FORMAT, "kind retrieval; a linear probe needs a classification task");
    other = train;
    other.n_classes = 4;
    refused(&s, &other, &test, MODE_E_VALUE, "have 4 classes, task colours has 5");
    other = train;
    memcpy(names, train.classes, sizeof names);
    names[2] = (char *)"azure";
    other.classes = names;
    refused(&s, &other, &test, MODE_E_VALUE,
            "class 2 of the training pictures of colours is \"azure\", of task colours \"blue\"");
    other = train;
    other.label = label;
    for (int i = 0; i < TRAIN; i++) label[i] = train.label[i] == 3 ? 0 : train.label[i];
    refused(&s, &other, &test, MODE_E_VALUE, "class 3, \"white\", has test pictures (3) and no training picture");
    memset(label, 0, sizeof label);
    struct mode_evalset red = test;
    int32_t all_red[TEST] = {0};
    red.label = all_red;
    refused(&s, &other, &red, MODE_E_VALUE, "all training pictures are of one class");
    other.n_images = 4; /* one of each */
    for (int i = 0; i < 4; i++) label[i] = i;
    refused(&s, &other, &test, MODE_E_VALUE, "no class has two training pictures");
    s.memory = 1000;
    refused(&s, &train, &test, MODE_E_MEMORY, "of which features 5.6 kB; 1.0 kB are free. HINT");
    s.memory = 0;
    s.n_models = 3;
    refused(&s, &train, &test, MODE_E_SHAPE, "expert-2 has vectors of 8 numbers, those before it of 16");
    s.n_models = 1;
    static const uint8_t nothing[64];
    const uint8_t *image[TEST];
    size_t size[TEST];
    memcpy(image, test.image, sizeof image);
    memcpy(size, test.image_size, sizeof size);
    image[7] = nothing;
    size[7] = sizeof nothing;
    other = test;
    other.image = image;
    other.image_size = size;
    refused(&s, &train, &other, MODE_E_FORMAT, "picture s0000007");
}

/* A model that diverged. */
static void test_features_that_are_no_numbers(void **state)
{
    struct mode_probe_spec s = spec_of(1);
    struct mode_clip *clip;
    struct mode_error err;
    size_t n;
    char *dirs[] = {mode_path_join(dir, "lost")},
         *to[] = {mode_path_join(dirs[0], MODE_FILE_CLIP_CONFIG), mode_path_join(dirs[0], MODE_FILE_CLIP_WEIGHTS)};
    (void)state;
    world_ok(mode_dir_make(dirs[0], &err), &err);
    world_ok(mode_clip_create(&clip, be, WORLD_MODEL, WORLD_PREPROCESS, 1, &err), &err);
    struct mode_param *p = mode_clip_params(clip, &n);
    for (size_t i = 0; i < n; i++) mode_f32(&p[i].value)[0] = NAN;
    world_ok(mode_clip_save(clip, to[0], to[1], &err), &err);
    mode_clip_close(&clip);
    s.models = dirs;
    refused(&s, &train, &test, MODE_E_VALUE, "of its features is nan, expected a finite one");
    free(dirs[0]);
    free(to[0]);
    free(to[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_features_stand_side_by_side),
                                       cmocka_unit_test(test_c_is_chosen_by_pictures_that_are_held_back),
                                       cmocka_unit_test(test_what_is_refused),
                                       cmocka_unit_test(test_features_that_are_no_numbers)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
