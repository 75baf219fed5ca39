/* Evaluation end to end on a small generated task: scores against a slow second implementation, the result's
 * JSON. */
#include "train_world.h"

#include "base/parallel.h"
#include "data/evalset.h"
#include "data/tokenizer.h"
#include "models/clip.h"
#include "nn/backend.h"
#include "pipeline/evaluate.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

enum { N = 12, MAX_E = 64, MAX_TEXTS = 2 * N, SIDE = 16 };

static struct world world;
static struct mode_backend *be;
static struct mode_tokenizer *tokenizer;
static struct mode_clip *clip;
static char *model_dir;

/* A model trained on colours for 60 steps. */
static int setup(void **state)
{
    struct mode_error err = {0};
    (void)state;
    world_open(&world);
    model_dir = mode_path_join(world.dir, "model");
    struct mode_train_spec spec = world_train_spec(&world, 31, 60);
    spec.lr = 3e-3;
    spec.weight_decay = 0.1;
    spec.warmup_steps = 5;
    world_ok(mode_backend_open(&be, "cpu", &err), &err);
    world_ok(world_train(NULL, model_dir, be, &spec, NULL, &err), &err);
    world_ok(mode_clip_load(&clip, be, model_dir, &err), &err);
    world_ok(mode_tokenizer_open_clip(&tokenizer, world.merges, MODE_CLIP_CLEAN_OPENAI, &err), &err);
    MODE_ASSERT(mode_clip_embed_dim(clip) <= MAX_E);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mode_clip_close(&clip);
    mode_tokenizer_close(&tokenizer);
    mode_backend_close(&be);
    free(model_dir);
    world_close(&world);
    return 0;
}

static void to_unit(double *v, int e)
{
    double norm = 0;
    for (int j = 0; j < e; j++) norm += v[j] * v[j];
    for (int j = 0; j < e; j++) v[j] /= sqrt(norm);
}

static void slow_text(double *out, const char *text)
{
    int32_t ids[16], n = mode_tokenizer_encode(tokenizer, text, strlen(text), ids, 16);
    float v[MAX_E];
    assert_int_equal(mode_clip_encode_texts(clip, v, ids, &n, 1, 1, NULL), MODE_OK);
    for (int j = 0; j < mode_clip_embed_dim(clip); j++) out[j] = (double)v[j];
    to_unit(out, mode_clip_embed_dim(clip));
}

static void slow_image(double *out, const uint8_t *data, size_t size)
{
    static float pixels[3 * SIDE * SIDE];
    const struct mode_image_limits limits = MODE_IMAGE_LIMITS_DEFAULT;
    struct mode_image im;
    float v[MAX_E];
    assert_int_equal(mode_image_decode(&im, data, size, &limits, NULL), MODE_OK);
    assert_int_equal(mode_preprocess_eval(mode_clip_preprocess(clip), &im, pixels, NULL), MODE_OK);
    assert_int_equal(mode_clip_encode_images(clip, v, pixels, 1, 1, NULL), MODE_OK);
    for (int j = 0; j < mode_clip_embed_dim(clip); j++) out[j] = (double)v[j];
    to_unit(out, mode_clip_embed_dim(clip));
    mode_image_clear(&im);
}

static void check_scores(const struct mode_evalset *set, const float *cosine, double texts[][MAX_E], int64_t c)
{
    double worst = 0;
    for (int i = 0; i < set->n_images; i++) {
        double image[MAX_E];
        slow_image(image, set->image[i], set->image_size[i]);
        for (int64_t k = 0; k < c; k++) {
            double dot = 0;
            for (int j = 0; j < mode_clip_embed_dim(clip); j++) dot += image[j] * texts[k][j];
            worst = fmax(worst, fabs(dot - (double)cosine[i * c + k]));
        }
    }
    assert_true(worst < 1e-5); /* dot products of 16 f32 terms: about 1e-6 */
}

static double metric(const char *path, const char *key)
{
    json_t *o = json_load_file(path, 0, NULL);
    const json_t *v = json_object_get(json_object_get(o, "metrics"), key);
    assert_non_null(v);
    double x = json_is_null(v) ? NAN : json_number_value(v);
    json_decref(o);
    return x;
}

static void test_classification(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct mode_evalset set;
    char *dir = world_write_task(&world, false);
    char *names = mode_path_join(dir, "classnames.txt"), *text;
    size_t size;
    world_ok(mode_file_read(names, 0, &text, &size, &err), &err);
    char *second = strchr(strchr(text, '\n') + 1, '\n'); /* a second name for class 1 */
    char *more = mode_xasprintf("%.*s\tdifferently called%s", (int)(second - text), text, second);
    world_ok(mode_file_write_atomic(names, more, strlen(more), &err), &err);
    free(names), free(text), free(more);
    float cosine[N * 4], other[N * 4];
    double texts[4][MAX_E] = {{0}};
    world_ok(mode_evalset_open(&set, dir, &err), &err);
    assert_int_equal(mode_evaluate_columns(&set), 4);
    world_ok(mode_evaluate(cosine, clip, tokenizer, &set, 256, NULL, &err), &err);
    for (int k = 0; k < 4; k++) {
        const int its = mode_evalset_n_prompts(&set, k);
        assert_int_equal(its, k == 1 ? 4 : 2);
        for (int t = 0; t < its; t++) {
            char *prompt = mode_evalset_prompt(&set, t, k);
            double v[MAX_E];
            slow_text(v, prompt);
            for (int j = 0; j < mode_clip_embed_dim(clip); j++) texts[k][j] += v[j] / its;
            free(prompt);
        }
        to_unit(texts[k], mode_clip_embed_dim(clip));
    }
    check_scores(&set, cosine, texts, 4);
    world_ok(mode_evaluate(other, clip, tokenizer, &set, 3, NULL, &err), &err); /* a last batch that is partial */
    for (int i = 0; i < N * 4; i++) assert_true(fabsf(cosine[i] - other[i]) < 1e-5f);

    char *path = mode_path_join(world.dir, "metrics.json"), *logits = mode_path_join(world.dir, "logits.safetensors");
    const struct mode_result r = mode_evaluate_result(&set, cosine, "seed");
    world_ok(mode_result_write_metrics(path, &r, &err), &err);
    world_ok(mode_result_write_logits(logits, &r, &err), &err);
    assert_true(metric(path, "acc1") >= 0.75); /* it has learnt colours; chance is 0.25 */
    assert_true(metric(path, "acc1") == metric(path, "mean_per_class_recall")); /* 3 of each class */
    assert_true(isnan(metric(path, "acc5")));                                   /* 4 classes: null */
    json_t *o = json_load_file(path, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(o, "task")), "zeroshot_classification");
    assert_string_equal(json_string_value(json_object_get(o, "dataset")), "colours");
    json_decref(o);

    struct mode_safetensors f;
    const struct mode_tensor *t;
    const int64_t shape[] = {N, 4};
    world_ok(mode_safetensors_open(&f, logits, &err), &err);
    world_ok(mode_safetensors_need(&f, "cosine", MODE_DTYPE_F32, 2, shape, &t, &err), &err);
    assert_memory_equal(t->data, cosine, sizeof cosine);
    world_ok(mode_safetensors_need(&f, "target", MODE_DTYPE_I32, 1, shape, &t, &err), &err);
    for (int i = 0; i < N; i++) assert_int_equal(((const int32_t *)t->data)[i], i % 4);
    mode_safetensors_close(&f);
    mode_evalset_close(&set);
    free(dir);
    free(path);
    free(logits);
}

static void test_retrieval(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct mode_evalset set;
    char *dir = world_write_task(&world, true);
    float cosine[N * MAX_TEXTS];
    static double texts[MAX_TEXTS][MAX_E];
    world_ok(mode_evalset_open(&set, dir, &err), &err);
    assert_int_equal(mode_evaluate_columns(&set), MAX_TEXTS);
    world_ok(mode_evaluate(cosine, clip, tokenizer, &set, 256, NULL, &err), &err);
    for (int k = 0; k < MAX_TEXTS; k++) slow_text(texts[k], set.texts[k]);
    check_scores(&set, cosine, texts, MAX_TEXTS);

    char *path = mode_path_join(world.dir, "metrics.json");
    const struct mode_result r = mode_evaluate_result(&set, cosine, "seed");
    world_ok(mode_result_write_metrics(path, &r, &err), &err);
    double image1 = metric(path, "image_retrieval_recall@1"), image10 = metric(path, "image_retrieval_recall@10");
    assert_true(image1 <= image10 && image10 <= 1);
    assert_true(metric(path, "text_retrieval_recall@10") >= metric(path, "text_retrieval_recall@5"));
    mode_evalset_close(&set);
    free(dir);
    free(path);
}

static void test_a_task_with_a_bad_picture_is_an_error(void **state)
{
    (void)state;
    struct mode_error err = {0};
    uint8_t rubbish[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n', 0};
    const struct mode_encode_picture p = {rubbish, sizeof rubbish, "s0000007"};
    float out[MAX_E];
    assert_int_not_equal(mode_encode_pictures(clip, out, &p, 1, 8, false, NULL, &err), MODE_OK);
    assert_non_null(strstr(err.text, "s0000007"));
}

static bool stop_at_once(void *ctx, uint64_t done, uint64_t total, const char *unit)
{
    (void)ctx;
    (void)done;
    (void)total;
    (void)unit;
    return false;
}

static void test_evaluation_stops_when_asked(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct mode_evalset set;
    char *dir = world_write_task(&world, false);
    float cosine[N * 4];
    const struct mode_encode_hook hook = {.more = stop_at_once};
    world_ok(mode_evalset_open(&set, dir, &err), &err);
    assert_int_equal(mode_evaluate(cosine, clip, tokenizer, &set, 2, &hook, &err), MODE_E_STOPPED);
    mode_evalset_close(&set);
    free(dir);
}

int main(void)
{
    mode_parallel_set_threads(3);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_classification),
        cmocka_unit_test(test_retrieval),
        cmocka_unit_test(test_a_task_with_a_bad_picture_is_an_error),
        cmocka_unit_test(test_evaluation_stops_when_asked),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
