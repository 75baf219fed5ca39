/* The ensemble on the user's pictures: scores are the experts' cosines weighted by the router, with one set of weights
 * for all class names and one per query; dot products of the ensemble's vectors give the same scores. */
#include "clip_world.h"
#include "tiny_bert.h"

#include "data/tokenizer.h"
#include "models/bert.h"
#include "models/clip_train.h"
#include "nn/backend.h"
#include "pipeline/checkpoint.h"
#include "pipeline/embed.h"
#include "pipeline/evaluate.h"
#include "pipeline/predict.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { EXPERTS = 2, WORDS = 3, PICTURES = 4, MOST = 32 };

static char dir[] = "/tmp/mode-predict-XXXXXX", *encoder, *experts, *merges, *centres_path, *picture[PICTURES];
static char *words[WORDS] = {(char *)"red", (char *)"blue square", (char *)"picture of a"},
            *templates[] = {(char *)"a picture of {c}"};
static struct mode_backend *be;

static void write_expert(int k)
{
    struct mode_clip *clip;
    struct mode_error err;
    size_t n;
    char *folder = mode_xasprintf("%s/expert-%d", experts, k), *config = mode_path_join(folder, MODE_FILE_CLIP_CONFIG),
         *weights = mode_path_join(folder, MODE_FILE_CLIP_WEIGHTS);
    world_ok(mode_dir_make(folder, &err), &err);
    world_ok(mode_clip_create(&clip, be, WORLD_MODEL, WORLD_PREPROCESS, (uint64_t)k + 1, &err), &err);
    struct mode_param *p = mode_clip_params(clip, &n);
    for (size_t i = 0; i < n; i++) {
        struct mode_rng r = mode_rng_for((uint64_t)k, MODE_RNG_TEST, 7, i);
        for (int64_t j = 0; j < mode_tensor_count(&p[i].value); j++)
            mode_f32(&p[i].value)[j] += 0.2f * (float)mode_rng_normal(&r);
    }
    world_ok(mode_clip_save(clip, config, weights, &err), &err);
    mode_clip_close(&clip);
    free(folder);
    free(config);
    free(weights);
}

/* Each expert has one fine centre, at the features of one word. */
static void write_centres(void)
{
    static const char *const at[EXPERTS] = {"red", "picture of a"};
    struct mode_text_encoder *enc;
    struct mode_error err;
    float fine[EXPERTS * TINY_WIDTH];
    int32_t group[EXPERTS] = {0, 1};
    int64_t size[EXPERTS] = {1, 1};
    world_ok(mode_text_encoder_open(&enc, be, encoder, NULL, 0, &err), &err);
    world_ok(mode_text_encoder_encode(enc, fine, at, EXPERTS, NULL, NULL, &err), &err);
    struct mode_centres c = {.m = EXPERTS,
                             .n = EXPERTS,
                             .d = TINY_WIDTH,
                             .fine = fine,
                             .coarse = fine,
                             .fine_to_coarse = group,
                             .fine_size = size,
                             .metric = MODE_METRIC_EUCLIDEAN,
                             .seed = 1,
                             .sample_size = 2,
                             .encoder_id = (char *)(uintptr_t)mode_text_encoder_id(enc),
                             .certificate = (char *)"{}"};
    world_ok(mode_centres_save(&c, centres_path, &err), &err);
    mode_text_encoder_close(&enc);
}

static int setup(void **state)
{
    struct mode_error err;
    (void)state;
    assert_non_null(mkdtemp(dir));
    encoder = mode_path_join(dir, "encoder");
    experts = mode_path_join(dir, "experts");
    merges = mode_path_join(dir, "merges.txt");
    centres_path = mode_path_join(experts, "centres.safetensors");
    world_ok(mode_backend_open(&be, "cpu", &err), &err);
    world_ok(mode_dir_make(experts, &err), &err);
    tiny_write(encoder);
    world_write_merges(merges);
    write_centres();
    for (int k = 0; k < EXPERTS; k++) write_expert(k);
    for (int i = 0; i < PICTURES; i++) {
        size_t size;
        uint8_t *png = world_png(i, (uint64_t)i, 20, &size);
        picture[i] = mode_xasprintf("%s/%d.png", dir, i);
        world_ok(mode_file_write_atomic(picture[i], png, size, &err), &err);
        free(png);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mode_backend_close(&be);
    mode_dir_remove(dir, NULL);
    free(encoder), free(experts), free(merges), free(centres_path);
    for (int i = 0; i < PICTURES; i++) free(picture[i]);
    return 0;
}

static struct mode_evalset set_of(bool queries)
{
    if (queries) return (struct mode_evalset){.kind = MODE_TASK_RETRIEVAL, .n_texts = WORDS, .texts = words};
    return (struct mode_evalset){.kind = MODE_TASK_CLASSIFICATION,
                                 .n_classes = WORDS,
                                 .classes = words,
                                 .n_templates = 1,
                                 .templates = templates};
}

/* weight [WORDS, EXPERTS]: with queries, each one computed as if it were the only one. */
static void weigh(double *weight, const struct mode_evalset *set, bool queries, enum mode_router router)
{
    static const struct mode_router_params params = MODE_ROUTER_PARAMS_DEFAULT;
    struct mode_text_encoder *enc;
    struct mode_centres c;
    struct mode_error err;
    float *x;
    world_ok(mode_text_encoder_open(&enc, be, encoder, NULL, 0, &err), &err);
    world_ok(mode_embed_words(&x, enc, set, NULL, NULL, &err), &err);
    world_ok(mode_centres_load(&c, centres_path, &err), &err);
    for (int q = 0; q < WORDS; q++) {
        struct mode_near near;
        const int first = queries ? q : 0, n = queries ? 1 : WORDS;
        world_ok(mode_near_open(&near, &c, x + (ptrdiff_t)first * TINY_WIDTH, n, &err), &err);
        if (queries)
            mode_router_query_weights(weight + (ptrdiff_t)q * EXPERTS, &near, router, &params);
        else
            mode_router_weights(weight + (ptrdiff_t)q * EXPERTS, &near, router, &params);
        mode_near_close(&near);
    }
    mode_centres_clear(&c);
    free(x);
    mode_text_encoder_close(&enc);
}

/* score += an expert's cosines, each times its word's weight. */
static void add_expert(double *score, int k, const struct mode_evalset *set, const double *weight)
{
    struct mode_clip *clip;
    struct mode_tokenizer *tokenizer;
    struct mode_error err;
    float image[PICTURES * MOST], text[WORDS * MOST];
    char *folder = mode_xasprintf("%s/expert-%d", experts, k);
    world_ok(mode_clip_load(&clip, be, folder, &err), &err);
    world_ok(mode_tokenizer_open_clip(&tokenizer, merges, MODE_CLIP_CLEAN_OPENAI, &err), &err);
    const int e = mode_clip_embed_dim(clip);
    assert_true(e <= MOST);
    world_ok(mode_evaluate_texts(text, clip, tokenizer, set, 8, NULL, &err), &err);
    world_ok(mode_encode_picture_files(clip, image, picture, PICTURES, 8, false, NULL, NULL, &err), &err);
    for (int i = 0; i < PICTURES; i++)
        for (int q = 0; q < WORDS; q++)
            for (int j = 0; j < e; j++)
                score[i * WORDS + q] += weight[q * EXPERTS + k] * (double)image[i * e + j] * (double)text[q * e + j];
    mode_tokenizer_close(&tokenizer);
    mode_clip_close(&clip);
    free(folder);
}

static struct mode_predict_spec spec_of(const struct mode_evalset *set)
{
    return (struct mode_predict_spec){.be = be,
                                      .experts = experts,
                                      .encoder = encoder,
                                      .merges = merges,
                                      .words = set,
                                      .picture = picture,
                                      .n_pictures = PICTURES,
                                      .router = MODE_ROUTER_SHARE,
                                      .params = MODE_ROUTER_PARAMS_DEFAULT,
                                      .batch = 8};
}

static void check(bool queries)
{
    const struct mode_evalset set = set_of(queries);
    const struct mode_predict_spec spec = spec_of(&set);
    struct mode_prediction p;
    struct mode_ensemble_vectors v;
    struct mode_error err;
    double weight[WORDS * EXPERTS], score[PICTURES * WORDS] = {0};
    weigh(weight, &set, queries, spec.router);
    for (int k = 0; k < EXPERTS; k++) add_expert(score, k, &set, weight);
    /* or nothing was tested */
    assert_true(queries ? weight[0] > 0.6 && weight[4] < 0.4 : weight[0] > 0.01 && weight[0] < 0.99);

    world_ok(mode_predict(&p, &spec, &err), &err);
    world_ok(mode_predict_vectors(&v, &spec, &err), &err);
    assert_true(p.n == EXPERTS && p.columns == WORDS && v.n == EXPERTS && v.columns == WORDS);
    for (int i = 0; i < (queries ? WORDS : 1) * EXPERTS; i++)
        assert_true(fabs(p.weight[i] - weight[i]) < 1e-6 && fabs(v.weight[i] - weight[i]) < 1e-6);
    for (int i = 0; i < PICTURES; i++)
        for (int q = 0; q < WORDS; q++) {
            double product = 0;
            for (int64_t j = 0; j < v.width; j++)
                product += (double)v.pictures[i * v.width + j] * (double)v.words[q * v.width + j];
            if (!(fabs((double)p.score[i * WORDS + q] - score[i * WORDS + q]) < 1e-5) ||
                !(fabs(product - score[i * WORDS + q]) < 1e-5))
                fail_msg("picture %d, word %d: score %.6f, product %.6f, expected %.6f", i, q,
                         (double)p.score[i * WORDS + q], product, score[i * WORDS + q]);
        }
    mode_prediction_clear(&p);
    mode_ensemble_vectors_clear(&v);
}

static void test_class_names_are_one_task(void **state)
{
    (void)state;
    check(false);
}

static void test_every_query_has_weights_of_its_own(void **state)
{
    (void)state;
    check(true);
}

/* spec.failed is the index of the unreadable picture, so that a caller with a list can name its line. */
static void test_a_picture_that_is_not_there_is_pointed_at(void **state)
{
    const struct mode_evalset set = set_of(false);
    char *pictures[] = {picture[0], picture[1], (char *)(uintptr_t) "/nowhere/2.jpg", picture[0]};
    int64_t failed = -1;
    struct mode_predict_spec spec = spec_of(&set);
    struct mode_prediction p;
    struct mode_ensemble_vectors v;
    struct mode_error err;
    (void)state;
    spec.picture = pictures;
    spec.n_pictures = 4;
    spec.failed = &failed;
    assert_int_equal(mode_predict(&p, &spec, &err), MODE_E_NOINPUT);
    assert_int_equal(failed, 2);
    mode_prediction_clear(&p);
    failed = -1;
    assert_int_equal(mode_predict_vectors(&v, &spec, &err), MODE_E_NOINPUT);
    assert_int_equal(failed, 2);
    mode_ensemble_vectors_clear(&v);
    spec.encoder = "/nowhere"; /* not an error of a picture */
    failed = -1;
    assert_int_not_equal(mode_predict(&p, &spec, &err), MODE_OK);
    assert_int_equal(failed, 4);
    mode_prediction_clear(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_class_names_are_one_task),
        cmocka_unit_test(test_every_query_has_weights_of_its_own),
        cmocka_unit_test(test_a_picture_that_is_not_there_is_pointed_at),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
