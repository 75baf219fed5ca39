/* The ensembling step on small files made here: tables byte for byte, refusals, and an HTML page that escapes hostile
 * text. */
#include "base/file.h"
#include "base/rng.h"
#include "base/str.h"
#include "data/safetensors.h"
#include "data/tar.h"
#include "ensemble/metrics.h"
#include "pipeline/ensemble_run.h"
#include "pipeline/result.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jpeglib.h>

enum { M = 12, N = 2, D = 8, MODELS = 4, SHARDS = 2, SAMPLES = 40, IMAGES = 30, CLASSES = 4, TEXTS = 20, PICS = 10 };
static char dir[] = "/tmp/mode-ensemble-XXXXXX";
static const char *const models[] = {"expert-0", "expert-1", "dense", "seed"};
static float fine[M * D], coarse[N * D];
static const char *router_params; /* for run(), with the next */
static int top_experts;
static char digest[MODE_DIGEST_HEX];

static char *at(const char *fmt, ...)
{
    va_list args;
    char name[128];
    va_start(args, fmt);
    vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    return mode_path_join(dir, name);
}

static void unit(float *v, uint64_t a, uint64_t b)
{
    struct mode_rng r = mode_rng_for(4, MODE_RNG_TEST, a, b);
    double s = 0;
    for (int j = 0; j < D; j++) {
        v[j] = (float)mode_rng_normal(&r);
        s += (double)v[j] * v[j];
    }
    for (int j = 0; j < D; j++) v[j] /= (float)sqrt(s);
}

static void make_centres(void)
{
    int32_t map[M];
    int64_t size[M];
    for (int i = 0; i < M; i++) {
        unit(fine + i * D, 1, (uint64_t)i);
        map[i] = i % N;
        size[i] = 5;
    }
    for (int i = 0; i < N; i++) unit(coarse + i * D, 2, (uint64_t)i);
    char id[] = "enc", cert[] = "{}", *path = at("centres");
    struct mode_centres c = {.m = M,
                             .n = N,
                             .d = D,
                             .fine = fine,
                             .coarse = coarse,
                             .fine_to_coarse = map,
                             .fine_size = size,
                             .metric = MODE_METRIC_EUCLIDEAN,
                             .encoder_id = id,
                             .certificate = cert,
                             .sample_size = 60};
    assert_int_equal(mode_centres_save(&c, path, NULL), MODE_OK);
    assert_int_equal(mode_digest_file(path, digest, NULL, NULL), MODE_OK);
    free(path);
}

static void make_words(const char *task, int k)
{
    float *x = malloc(sizeof *x * (size_t)k * D);
    for (int i = 0; i < k; i++) unit(x + i * D, 3, (uint64_t)i);
    struct mode_tensor t = mode_tensor_2d(x, MODE_DTYPE_F32, k, D);
    char key[] = "encoder_id", id[] = "enc", *path = at("words-%s", task);
    struct mode_meta meta = {key, id};
    t.name = "feat";
    assert_int_equal(mode_safetensors_write(path, &t, 1, &meta, 1, NULL), MODE_OK);
    free(path);
    free(x);
}

/* Scores of model m on a task: correct for sample i if (i + m) % 5 >= wrong. */
static void make_logits(const char *task, int model, bool retrieval, int wrong, int shift)
{
    int cols = retrieval ? TEXTS : CLASSES;
    float *x = calloc((size_t)IMAGES * (size_t)cols, sizeof *x);
    int32_t truth[64];
    for (int i = 0; i < IMAGES; i++) {
        for (int c = 0; c < cols; c++) {
            struct mode_rng r = mode_rng_for(5, MODE_RNG_TEST, (uint64_t)(model * 100 + i), (uint64_t)c);
            x[i * cols + c] = (float)(0.2 * mode_rng_uniform(&r));
        }
        if (!retrieval) {
            truth[i] = (i + shift) % CLASSES;
            x[i * cols + ((i + model) % 5 >= wrong ? truth[i] : (truth[i] + 1) % cols)] = 0.5f;
        }
    }
    for (int q = 0; retrieval && q < TEXTS; q++) {
        truth[q] = q;
        if ((q + model) % 5 >= wrong) x[q * cols + q] = 0.5f;
    }
    struct mode_tensor t[] = {mode_tensor_2d(x, MODE_DTYPE_F32, IMAGES, cols),
                              mode_tensor_1d(truth, MODE_DTYPE_I32, retrieval ? TEXTS : IMAGES)};
    t[0].name = "cosine";
    t[1].name = retrieval ? "image_of_text" : "target";
    char *path = at("logits-%s-%s", models[model], task);
    assert_int_equal(mode_safetensors_write(path, t, 2, NULL, 0, NULL), MODE_OK);
    free(path);
    free(x);
}

static size_t make_picture(unsigned char **out, int n)
{
    struct jpeg_compress_struct c;
    struct jpeg_error_mgr e;
    unsigned long size = 0;
    unsigned char rgb[3 * 160];
    c.err = jpeg_std_error(&e);
    jpeg_create_compress(&c);
    *out = NULL;
    jpeg_mem_dest(&c, out, &size);
    c.image_width = 160;
    c.image_height = 100 + (unsigned)n % 60;
    c.input_components = 3;
    c.in_color_space = JCS_RGB;
    jpeg_set_defaults(&c);
    jpeg_start_compress(&c, TRUE);
    while (c.next_scanline < c.image_height) {
        for (unsigned i = 0; i < sizeof rgb; i++)
            rgb[i] = (unsigned char)(i * (unsigned)(n + 3) + c.next_scanline * (i % 3 + 1));
        JSAMPROW row = rgb;
        jpeg_write_scanlines(&c, &row, 1);
    }
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    return size;
}

static void make_shard(int s, const char *centres)
{
    static const char *const captions[] = {"a red apple on a table", "flag of <script>alert('x')</script> & co",
                                           "green apple \"fresh\"", "a house by the sea", "flag of a far country"};
    struct mode_sample sample[SAMPLES] = {0};
    uint32_t rows[SAMPLES];
    char key[SAMPLES][16], name[] = "shard";
    struct mode_captions c = {.shard_name = name, .n_samples = SAMPLES, .samples = sample, .rows = rows};
    struct mode_tar_writer *tar;
    struct mode_tar_data whole;
    uint64_t offset = 0;
    char *p_cap = at("captions-%d", s), *p_assign = at("assign-%d", s), *p_tar = at("%d.tar", s);
    assert_int_equal(mode_tar_writer_open(&tar, p_tar, NULL), MODE_OK);
    int32_t id[SAMPLES];
    float distance[SAMPLES];
    for (int i = 0; i < SAMPLES; i++) {
        unsigned char *jpeg;
        size_t size = make_picture(&jpeg, i + s);
        snprintf(key[i], sizeof key[i], "%04d", i);
        sample[i] = (struct mode_sample){.image_offset = offset + MODE_TAR_BLOCK,
                                         .image_size = size,
                                         .key = key[i],
                                         .caption = "",
                                         .caption_count = 1,
                                         .fate = i % 8 == 7 ? MODE_FATE_BAD_IMAGE : MODE_FATE_KEPT};
        if (i == 3) memset(jpeg, 0, size); /* was kept, but no longer decodes */
        assert_int_equal(mode_tar_writer_add(tar, key[i], jpeg, size, NULL), MODE_OK);
        offset += MODE_TAR_BLOCK + (size + MODE_TAR_BLOCK - 1) / MODE_TAR_BLOCK * MODE_TAR_BLOCK;
        free(jpeg);
        c.fate_count[sample[i].fate]++;
        if (sample[i].fate != MODE_FATE_KEPT) continue;
        sample[i].caption = captions[i % 5];
        id[c.n_rows] = (i * 5 + s) % M;
        distance[c.n_rows] = 0.1f * (float)(i % 7);
        rows[c.n_rows++] = (uint32_t)i;
    }
    assert_int_equal(mode_tar_writer_finish(&tar, NULL), MODE_OK);
    assert_int_equal(mode_tar_data_open(&whole, p_tar, NULL), MODE_OK);
    c.shard_size = c.data_size = whole.size;
    mode_tar_data_close(&whole);
    char meta_key[] = "centres", *value = mode_xstrdup(centres);
    struct mode_tensor t[] = {mode_tensor_1d(id, MODE_DTYPE_I32, c.n_rows),
                              mode_tensor_1d(distance, MODE_DTYPE_F32, c.n_rows)};
    struct mode_meta meta = {meta_key, value};
    t[0].name = "fine_id";
    t[1].name = "distance";
    assert_int_equal(mode_captions_save(&c, p_cap, NULL), MODE_OK);
    assert_int_equal(mode_safetensors_write(p_assign, t, 2, &meta, 1, NULL), MODE_OK);
    free(value);
    free(p_cap);
    free(p_assign);
    free(p_tar);
}

static void make_curve(int model)
{
    struct mode_str s = {0};
    for (int i = 0; i < 300; i++)
        mode_str_printf(&s, "{\"step\": %d, \"loss\": %.4f}\n", i + 1, 4.5 * exp(-i / 120.0) + model * 0.1);
    char *path = at("steps-%d", model);
    assert_int_equal(mode_file_write_atomic(path, s.data, s.len, NULL), MODE_OK);
    free(path);
    path = at("train-%d", model);
    mode_str_reset(&s);
    mode_str_printf(&s, "{\"name\": \"%s\", \"in_cluster\": 35, \"end_step\": 300, \"final_loss\": 0.5}",
                    models[model]);
    assert_int_equal(mode_file_write_atomic(path, s.data, s.len, NULL), MODE_OK);
    mode_str_clear(&s);
    free(path);
}

static int setup(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(dir));
    make_centres();
    make_words("flags", CLASSES);
    make_words("pairs", TEXTS);
    for (int m = 0; m < MODELS; m++) {
        make_logits("flags", m, false, m, 0);
        make_logits("pairs", m, true, m, 0);
        make_curve(m);
    }
    for (int s = 0; s < SHARDS; s++) make_shard(s, digest);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return mode_dir_remove(dir, NULL);
}

/* A run over the files above; the paths live until the process ends. */
static enum mode_status run(const char *suffix, const char *router, struct mode_error *err)
{
    static const char *steps[MODELS], *train[MODELS], *logits[2][MODELS];
    static struct mode_corpus_shard shard[SHARDS];
    static struct mode_ensemble_run_task task[2];
    static const char *names[] = {"flags", "pairs"};
    for (int m = 0; m < MODELS && !steps[m]; m++) {
        steps[m] = at("steps-%d", m);
        train[m] = at("train-%d", m);
        for (int t = 0; t < 2; t++) logits[t][m] = at("logits-%s-%s", models[m], names[t]);
    }
    for (int t = 0; t < 2 && !task[t].name; t++)
        task[t] = (struct mode_ensemble_run_task){.name = names[t],
                                                  .kind = t ? MODE_TASK_RETRIEVAL : MODE_TASK_CLASSIFICATION,
                                                  .words = at("words-%s", names[t]),
                                                  .logits = logits[t]};
    for (int s = 0; s < SHARDS && !shard[s].tar; s++)
        shard[s] = (struct mode_corpus_shard){at("captions-%d", s), at("assign-%d", s), at("%d.tar", s)};
    char *centres = at("centres"), *csv = at("result%s.csv", suffix), *summary = at("summary%s.json", suffix),
         *html = at("report%s.html", suffix), *weights = at("weights%s.json", suffix);
    struct mode_ensemble_run r = {.run_name = "a <b>run</b>",
                                  .router = router,
                                  .router_params = router_params,
                                  .top_experts = top_experts,
                                  .spec = "name: x\n",
                                  .seed = 1,
                                  .centres = centres,
                                  .n_models = MODELS,
                                  .n_tasks = 2,
                                  .n_shards = SHARDS,
                                  .model = models,
                                  .steps = steps,
                                  .train = train,
                                  .task = task,
                                  .shard = shard};
    struct mode_ensemble_outputs out = {csv, summary, html, weights};
    char *sentence = NULL;
    enum mode_status st = mode_ensemble_run(&r, &out, &sentence, err);
    if (!st) assert_non_null(strstr(sentence, "the dense model"));
    free(sentence);
    free(centres);
    free(csv);
    free(summary);
    free(html);
    free(weights);
    return st;
}

/* Inlined at -O3, GCC 12 takes what it returns for the address of `data`. */
static __attribute__((noinline)) char *text_of(const char *name)
{
    char *path = at("%s", name), *data;
    size_t size;
    assert_int_equal(mode_file_read(path, 0, &data, &size, NULL), MODE_OK);
    free(path);
    return data;
}

static void test_result_csv_is_this_to_the_byte(void **state)
{
    (void)state; /* expected values from an independent computation on the same files */
    struct mode_error err;
    if (run("", "reference", &err)) fail_msg("%s", err.text);
    char *csv = text_of("result.csv");
    assert_string_equal(
        csv,
        ",dataset,num_classes,expert-0,expert-1,expert-max,all_unit,ensemble,dense,seed,metric\n"
        "0,flags,4,100.0000,80.0000,100.0000,86.6667,86.6667,60.0000,40.0000,acc1\n"
        "1,pairs "
        "text_retrieval_recall@1,20,66.6667,53.3333,66.6667,66.6667,66.6667,40.0000,33.3333,text_retrieval_recall@1\n"
        "2,pairs "
        "image_retrieval_recall@1,30,100.0000,80.0000,100.0000,100.0000,100.0000,60.0000,45.0000,image_retrieval_"
        "recall@1\n"
        "3,average_retrieval,,83.3333,66.6667,83.3333,83.3333,83.3333,50.0000,39.1667,\n"
        "4,average,,100.0000,80.0000,100.0000,86.6667,86.6667,60.0000,40.0000,\n");
    free(csv);
}

/* A multilabel task of its own, and one whose name asks for the mean per class: scores as those of "flags", of which
 * image i has classes i and, every third one, also i + 1. */
static void test_several_labels_and_the_mean_per_class(void **state)
{
    (void)state;
    enum { TASKS = 2 };
    static const char *const skipped[] = {"the task <films> is left out"};
    struct mode_error err;
    int32_t target[IMAGES * CLASSES] = {0};
    const char *logits[TASKS][MODELS];
    char *words = at("words-flags"), *centres = at("centres");
    float *cosine[N];
    for (int i = 0; i < IMAGES; i++) {
        target[i * CLASSES + i % CLASSES] = 1;
        if (i % 3 == 0) target[i * CLASSES + (i + 1) % CLASSES] = 1;
    }
    for (int m = 0; m < MODELS; m++) {
        struct mode_safetensors f;
        char *from = at("logits-%s-flags", models[m]), *to = at("logits-%s-scenes", models[m]);
        assert_int_equal(mode_safetensors_open(&f, from, &err), MODE_OK);
        const struct mode_result r = {.task_name = "scenes",
                                      .model_name = models[m],
                                      .kind = MODE_TASK_MULTILABEL,
                                      .n = IMAGES,
                                      .c = CLASSES,
                                      .cosine = mode_safetensors_find(&f, "cosine")->data,
                                      .truth = target};
        if (mode_result_write_logits(to, &r, &err)) fail_msg("%s", err.text);
        if (m < N) {
            cosine[m] = malloc(sizeof(float) * IMAGES * CLASSES);
            memcpy(cosine[m], r.cosine, sizeof(float) * IMAGES * CLASSES);
        }
        mode_safetensors_close(&f);
        logits[0][m] = to;
        logits[1][m] = from;
    }
    const struct mode_ensemble_run_task task[TASKS] = {
        {.name = "scenes", .kind = MODE_TASK_MULTILABEL, .words = words, .logits = logits[0]},
        {.name = "wds_vtab-pets", .kind = MODE_TASK_CLASSIFICATION, .words = words, .logits = logits[1]}};
    char *out[] = {at("result-s.csv"), at("summary-s.json"), at("report-s.html"), at("weights-s.json")};
    const struct mode_ensemble_outputs outputs = {out[0], out[1], out[2], out[3]};
    const struct mode_ensemble_run r = {.run_name = "s",
                                        .router = "reference",
                                        .centres = centres,
                                        .n_models = MODELS,
                                        .n_tasks = TASKS,
                                        .model = models,
                                        .task = task,
                                        .skipped = skipped,
                                        .n_skipped = 1};
    if (mode_ensemble_run(&r, &outputs, NULL, &err)) fail_msg("%s", err.text);

    /* the ensemble's own figure from weights.json and the experts' scores */
    json_t *summary = json_load_file(out[1], 0, NULL), *weights = json_load_file(out[3], 0, NULL);
    const json_t *w = json_object_get(
        json_object_get(json_object_get(json_array_get(json_object_get(weights, "tasks"), 0), "routers"), "reference"),
        "weights");
    float mixed[IMAGES * CLASSES];
    for (int i = 0; i < IMAGES * CLASSES; i++) {
        double sum = 0;
        for (int k = 0; k < N; k++) sum += json_real_value(json_array_get(w, (size_t)k)) * (double)cosine[k][i];
        mixed[i] = (float)sum;
    }
    double want, of_expert;
    assert_int_equal(mode_mean_average_precision(&want, mixed, target, IMAGES, CLASSES, &err), MODE_OK);
    assert_int_equal(mode_mean_average_precision(&of_expert, cosine[1], target, IMAGES, CLASSES, &err), MODE_OK);
    assert_true(want > of_expert && want < 1);
    json_t *row = json_array_get(json_object_get(summary, "rows"), 0),
           *metrics = json_array_get(json_object_get(summary, "tasks"), 0);
    assert_string_equal(json_string_value(json_object_get(row, "metric")), "mean_average_precision");
    assert_string_equal(json_string_value(json_object_get(metrics, "kind")), "multilabel");
    double got = json_real_value(
        json_object_get(json_object_get(json_object_get(row, "ensembles"), "reference"), "value"));
    assert_true(fabs(got - want) < 1e-9);
    got = json_real_value(
        json_object_get(json_object_get(json_object_get(metrics, "ensembles"), "reference"), "mean_average_precision"));
    assert_true(fabs(got - want) < 1e-9);
    got = json_real_value(json_object_get(json_object_get(json_object_get(row, "models"), "expert-1"), "value"));
    assert_true(fabs(got - of_expert) < 1e-9);
    assert_string_equal(
        json_string_value(json_object_get(json_array_get(json_object_get(summary, "rows"), 1), "metric")),
        "mean_per_class_recall");
    assert_string_equal(json_string_value(json_array_get(json_object_get(summary, "skipped"), 0)), skipped[0]);

    char *csv = text_of("result-s.csv"), *html = text_of("report-s.html");
    assert_non_null(strstr(csv, ",mean_average_precision\n1,wds_vtab-pets,"));
    assert_non_null(strstr(csv, ",mean_per_class_recall\n2,average,"));
    assert_non_null(strstr(html, "mean average precision, 4 answers"));
    assert_non_null(strstr(html, "Not evaluated: the task &lt;films&gt; is left out."));
    json_decref(summary);
    json_decref(weights);
    for (int m = 0; m < MODELS; m++) free((char *)logits[0][m]), free((char *)logits[1][m]);
    for (int i = 0; i < 4; i++) free(out[i]);
    for (int k = 0; k < N; k++) free(cosine[k]);
    free(words), free(centres), free(csv), free(html);
}

/* Each caption is near one expert's data, the task as a whole near both. That expert ranks the right picture first for
 * its captions; the other one is wrong with more confidence. Image retrieval uses the weights of the caption, text
 * retrieval those of the task. */
static void test_retrieval_has_weights_of_its_own_for_every_caption(void **state)
{
    (void)state;
    enum { K = 4 };
    static const enum mode_router routers[] = {MODE_ROUTER_PAPER, MODE_ROUTER_REFERENCE, MODE_ROUTER_SHARE,
                                               MODE_ROUTER_UNIFORM};
    const char *logits[N];
    int32_t truth[K] = {0, 1, 2, 3};
    char key[] = "encoder_id", id[] = "enc", *words = at("words-asked"), *centres = at("centres");
    struct mode_meta meta = {key, id};
    struct mode_tensor feat = mode_tensor_2d(fine, MODE_DTYPE_F32, K,
                                             D); /* caption q: fine centre q, of expert q % N */
    struct mode_error err;
    feat.name = "feat";
    assert_int_equal(mode_safetensors_write(words, &feat, 1, &meta, 1, NULL), MODE_OK);
    for (int m = 0; m < N; m++) {
        float cosine[K * K] = {0};
        for (int q = 0; q < K; q++) cosine[(q % N == m ? q : (q + 1) % K) * K + q] = q % N == m ? 0.5f : 0.9f;
        const struct mode_result r = {.task_name = "asked",
                                      .model_name = models[m],
                                      .kind = MODE_TASK_RETRIEVAL,
                                      .n = K,
                                      .c = K,
                                      .cosine = cosine,
                                      .truth = truth};
        char *path = at("logits-%s-asked", models[m]);
        if (mode_result_write_logits(path, &r, &err)) fail_msg("%s", err.text);
        logits[m] = path;
    }
    const struct mode_ensemble_source task = {
        .name = "asked", .kind = MODE_TASK_RETRIEVAL, .words_path = words, .logits_path = logits};
    const struct mode_ensemble_spec spec = {.centres_path = centres,
                                            .model = models,
                                            .n_models = N,
                                            .task = &task,
                                            .n_tasks = 1,
                                            .params = MODE_ROUTER_PARAMS_DEFAULT};
    struct mode_ensemble e;
    if (mode_ensemble_open(&e, &spec, &err)) fail_msg("%s", err.text);
    assert_int_equal(e.n_rows, 2);
    for (int k = 0; k < 4; k++) {
        const enum mode_router router = routers[k];
        const double image = router == MODE_ROUTER_UNIFORM ? 0 : 1;
        const json_t *metrics = e.task[0].router_metrics[router];
        const double got[] = {mode_outcome_mean(&e.row[0].router[router], NULL),
                              mode_outcome_mean(&e.row[1].router[router], NULL),
                              json_number_value(json_object_get(metrics, "text_retrieval_recall@1")),
                              json_number_value(json_object_get(metrics, "image_retrieval_recall@1"))},
                     want[] = {0, image, 0, image};
        for (int i = 0; i < 4; i++)
            if (got[i] != want[i]) fail_msg("%s: %d is %g, expected %g", mode_router_name(router), i, got[i], want[i]);
    }
    mode_ensemble_close(&e);
    for (int m = 0; m < N; m++) free((char *)(uintptr_t)logits[m]);
    free(words), free(centres);
}

/* The 26 tasks of the MoDE paper, in its order, and the averages it reports; retrieval tasks are not part of them. */
static void test_the_average_is_that_of_the_paper(void **state)
{
    (void)state;
    enum { TASKS = 26, SYSTEMS = 11 };
    static const double percent[SYSTEMS][TASKS] = {
        {65.5, 80.6, 91.3, 70.2, 63.4, 63.0, 70.7, 26.8, 52.8, 88.7, 91.9, 68.5, 41.5,
         35.9, 95.4, 52.6, 64.2, 35.8, 30.7, 17.2, 55.5, 66.1, 45.4, 30.6, 56.4, 53.4},
        {66.4, 82.3, 91.3, 70.9, 67.0, 63.7, 73.8, 30.1, 52.6, 89.9, 92.1, 69.2, 37.9,
         33.2, 95.7, 53.5, 64.1, 35.2, 33.9, 17.1, 58.4, 66.6, 45.9, 30.0, 58.0, 54.5},
        {70.8, 86.8, 90.1, 66.5, 70.8, 66.6, 74.1, 27.9, 55.9, 90.4, 93.8, 72.3, 47.8,
         44.6, 97.2, 55.4, 68.8, 43.8, 33.4, 22.6, 52.9, 68.0, 49.5, 22.8, 54.8, 60.6},
        {71.6, 87.8, 91.4, 68.9, 74.7, 67.2, 77.3, 32.6, 56.2, 91.3, 93.9, 74.9, 43.7,
         46.6, 97.2, 54.4, 70.0, 44.0, 29.8, 22.9, 55.7, 68.6, 50.0, 29.7, 55.2, 58.0},
        {67.6, 82.6, 95.2, 77.7, 67.8, 66.8, 77.2, 26.9, 58.9, 90.9, 92.5, 69.7, 42.7,
         48.3, 96.3, 49.9, 66.5, 39.2, 29.3, 17.7, 50.0, 68.0, 47.6, 19.4, 53.5, 53.1},
        {68.8, 85.8, 95.2, 79.0, 74.4, 67.5, 83.3, 29.5, 60.3, 91.9, 92.9, 72.1, 49.7,
         46.9, 96.4, 50.3, 66.8, 51.6, 28.5, 19.6, 50.1, 68.4, 48.3, 21.6, 52.6, 52.2},
        {70.7, 88.4, 96.1, 80.5, 80.8, 67.9, 87.1, 44.6, 59.9, 92.2, 93.2, 79.4, 50.1,
         49.8, 97.1, 60.3, 67.7, 48.5, 26.1, 18.9, 55.3, 68.1, 48.3, 25.7, 54.1, 51.9},
        {72.1, 88.3, 95.7, 79.0, 71.4, 68.5, 82.9, 30.3, 62.1, 91.7, 93.3, 73.9, 66.1,
         47.0, 98.4, 51.1, 71.1, 46.6, 16.6, 22.7, 50.5, 73.0, 52.5, 30.8, 57.4, 59.0},
        {74.2, 91.6, 96.5, 82.0, 80.9, 71.2, 88.9, 42.2, 63.0, 93.6, 93.6, 78.9, 66.8,
         49.0, 98.5, 53.8, 71.5, 57.5, 32.4, 26.7, 61.7, 73.8, 53.9, 27.4, 57.0, 59.4},
        {79.2, 93.4, 97.6, 84.2, 80.1, 73.8, 88.7, 44.6, 68.1, 94.7, 95.4, 81.8, 64.4,
         55.1, 99.3, 59.2, 74.6, 56.3, 29.7, 34.0, 67.3, 81.6, 62.0, 25.9, 58.0, 66.7},
        {79.4, 94.0, 97.8, 85.6, 83.5, 74.2, 91.2, 48.7, 69.1, 95.6, 95.6, 81.4, 71.4,
         54.3, 99.3, 61.0, 76.5, 63.3, 34.7, 34.0, 70.9, 81.6, 62.2, 24.6, 55.7, 66.7}};
    static const double stated[SYSTEMS] = {58.2, 59.0, 61.1, 62.1, 59.8, 61.7, 64.0, 63.5, 67.2, 69.8, 71.2};
    struct mode_outcome model[TASKS + 1][SYSTEMS];
    double value[TASKS + 1][SYSTEMS];
    struct mode_ensemble_row row[TASKS + 1] = {0};
    const struct mode_ensemble e = {.n = SYSTEMS, .n_models = SYSTEMS, .n_rows = TASKS + 1, .dense = -1, .row = row};
    for (int t = 0; t <= TASKS; t++) {
        row[t].family = t < TASKS ? MODE_FAMILY_CLASSIFICATION : MODE_FAMILY_RETRIEVAL;
        row[t].model = model[t];
        for (int m = 0; m < SYSTEMS; m++) {
            value[t][m] = t < TASKS ? percent[m][t] / 100 : 0.5;
            model[t][m] = (struct mode_outcome){.n = 1, .value = &value[t][m], .n_strata = 1};
        }
    }
    assert_int_equal(mode_ensemble_rows(&e, MODE_FAMILY_CLASSIFICATION), TASKS);
    for (int m = 0; m < SYSTEMS; m++) {
        double average = mode_ensemble_model_average(&e, MODE_FAMILY_CLASSIFICATION, m);
        if (!(fabs(average - stated[m]) < 0.05 + 1e-9))
            fail_msg("system %d: %f, the paper says %f", m, average, stated[m]);
        assert_true(fabs(mode_ensemble_model_average(&e, MODE_FAMILY_RETRIEVAL, m) - 50) < 1e-9);
    }
}

/* Field number `at` of the line that starts with "<n>,<name>". */
static double field(const char *csv, const char *name, int at)
{
    const char *p = strstr(csv, name);
    assert_non_null(p);
    for (int i = 0; i < at; i++) p = strchr(p, ',') + 1;
    return strtod(p, NULL);
}

static void test_uniform_is_all_unit(void **state)
{
    (void)state;
    struct mode_error err;
    if (run("-u", "uniform", &err)) fail_msg("%s", err.text);
    char *csv = text_of("result-u.csv");
    static const char *const rows[] = {"flags,", "pairs text", "pairs image", "average_retrieval,", "average,"};
    for (int i = 0; i < 5; i++) /* name, classes, two experts, their best, all_unit, ensemble */
        assert_true(field(csv, rows[i], 5) == field(csv, rows[i], 6));
    free(csv);
}

static void test_fewer_experts_are_said_to_be_an_approximation(void **state)
{
    (void)state;
    struct mode_error err;
    top_experts = 1;
    router_params = "lambda=0.1";
    enum mode_status st = run("-t", "paper", &err);
    top_experts = 0;
    router_params = NULL;
    if (st) fail_msg("%s", err.text);
    char *weights_path = at("weights-t.json"), *summary_path = at("summary-t.json"), *html = text_of("report-t.html"),
         *csv = text_of("result-t.csv");
    json_t *weights = json_load_file(weights_path, 0, NULL), *summary = json_load_file(summary_path, 0, NULL), *task;
    assert_int_equal(json_integer_value(json_object_get(weights, "top_experts")), 1);
    assert_true(json_real_value(json_object_get(json_object_get(weights, "params"), "lambda")) == 0.1);
    assert_true(json_real_value(json_object_get(json_object_get(weights, "params"), "tau")) == 0.25);
    size_t i;
    json_array_foreach(json_object_get(weights, "tasks"), i, task)
    {
        const char *name;
        json_t *r;
        json_object_foreach(json_object_get(task, "routers"), name, r)
        {
            double w = json_real_value(json_array_get(json_object_get(r, "weights"), 0));
            bool uniform = strcmp(name, "uniform") == 0;
            if (uniform ? w != 0.5 : w != 0 && w != 1) fail_msg("%s: %f", name, w);
        }
    }
    assert_int_equal(json_integer_value(json_object_get(summary, "top_experts")), 1);
    assert_non_null(strstr(html, "The ensemble (approximate: 1 of 2 experts) "));
    assert_non_null(strstr(html, "only the 1 greatest of 2 are kept"));
    char *sentences = json_dumps(json_object_get(json_object_get(summary, "routers"), "share"), 0),
         *plain = json_dumps(json_object_get(json_object_get(summary, "routers"), "uniform"), 0);
    assert_non_null(strstr(sentences, "(approximate: 1 of 2 experts)"));
    assert_null(strstr(plain, "approximate"));
    free(sentences), free(plain);
    /* one expert per task: the ensemble's scores are that expert's; the uniform average is unchanged */
    double mine = field(csv, "flags,", 6);
    assert_true(mine == field(csv, "flags,", 2) || mine == field(csv, "flags,", 3));
    assert_true(fabs(field(csv, "flags,", 5) - 86.6667) < 1e-9);
    json_decref(weights);
    json_decref(summary);
    free(weights_path), free(summary_path), free(html), free(csv);
}

/* Two classes and a name that asks for the area under the ROC curve. */
static void test_hateful_memes_is_an_area(void **state)
{
    (void)state;
    struct mode_error err;
    int32_t target[IMAGES];
    float x[N][IMAGES * 2];
    const char *logits[N], *names[] = {"expert-0", "expert-1"};
    char *words = at("words-memes"), *centres = at("centres");
    make_words("memes", 2);
    for (int i = 0; i < IMAGES; i++) target[i] = i % 3 == 0;
    for (int m = 0; m < N; m++) {
        for (int i = 0; i < IMAGES; i++) {
            struct mode_rng r = mode_rng_for(6, MODE_RNG_TEST, (uint64_t)m, (uint64_t)i);
            x[m][2 * i] = 0.9f; /* always predicts the first class: only the order of the margins is informative */
            x[m][2 * i + 1] = (float)(0.2 * mode_rng_uniform(&r)) + 0.1f * (float)(target[i] && m == 0);
        }
        char *path = at("logits-%s-memes", names[m]);
        const struct mode_result r = {.task_name = "memes",
                                      .model_name = names[m],
                                      .kind = MODE_TASK_CLASSIFICATION,
                                      .n = IMAGES,
                                      .c = 2,
                                      .cosine = x[m],
                                      .truth = target};
        if (mode_result_write_logits(path, &r, &err)) fail_msg("%s", err.text);
        logits[m] = path;
    }
    const struct mode_ensemble_run_task task = {
        .name = "HatefulMemes", .kind = MODE_TASK_CLASSIFICATION, .words = words, .logits = logits};
    char *out[] = {at("result-h.csv"), at("summary-h.json"), at("report-h.html"), at("weights-h.json")};
    const struct mode_ensemble_outputs outputs = {out[0], out[1], out[2], out[3]};
    const struct mode_ensemble_run r = {.run_name = "h",
                                        .router = "paper",
                                        .centres = centres,
                                        .n_models = N,
                                        .n_tasks = 1,
                                        .model = names,
                                        .task = &task};
    char *sentence = NULL;
    if (mode_ensemble_run(&r, &outputs, &sentence, &err)) fail_msg("%s", err.text);
    assert_non_null(strstr(sentence, "of 1 classification row)"));
    struct mode_classification_metrics m;
    assert_int_equal(mode_classification_measure(&m, x[0], target, IMAGES, 2, &err), MODE_OK);
    char *csv = text_of("result-h.csv"), *html = text_of("report-h.html");
    assert_true(m.roc_auc > 0.7 && fabs(m.acc1 - 2.0 / 3) < 1e-9);
    assert_true(fabs(field(csv, "HatefulMemes,", 2) - 100 * m.roc_auc) < 1e-4);
    assert_true(fabs(field(csv, "average,", 2) - 100 * m.roc_auc) < 1e-4);
    assert_non_null(strstr(csv, ",roc_auc\n1,average,"));
    assert_null(strstr(csv, "average_retrieval"));
    assert_non_null(strstr(html, "area under ROC, 2 answers"));
    json_t *summary = json_load_file(out[1], 0, NULL);
    json_t *row = json_array_get(json_object_get(summary, "rows"), 0);
    assert_true(json_real_value(json_object_get(row, "chance")) == 0.5);
    assert_null(json_object_get(summary, "averages_retrieval"));
    json_decref(summary);
    for (int k = 0; k < N; k++) free((char *)logits[k]);
    for (int i = 0; i < 4; i++) free(out[i]);
    free(words), free(centres), free(csv), free(html), free(sentence);
}

static void test_same_inputs_give_the_same_bytes(void **state)
{
    (void)state;
    static const char *const names[][2] = {{"result-a.csv", "result-b.csv"},
                                           {"summary-a.json", "summary-b.json"},
                                           {"report-a.html", "report-b.html"},
                                           {"weights-a.json", "weights-b.json"}};
    struct mode_error err;
    assert_int_equal(run("-a", "share", &err) | run("-b", "share", &err), MODE_OK);
    for (int i = 0; i < 4; i++) {
        char da[MODE_DIGEST_HEX], db[MODE_DIGEST_HEX], *pa = at("%s", names[i][0]), *pb = at("%s", names[i][1]);
        assert_int_equal(mode_digest_file(pa, da, NULL, &err) | mode_digest_file(pb, db, NULL, &err), MODE_OK);
        if (strcmp(da, db) != 0) fail_msg("%s differs", names[i][0]);
        free(pa);
        free(pb);
    }
}

static void test_report_shows_hostile_text_as_text(void **state)
{
    (void)state;
    struct mode_error err;
    assert_int_equal(run("", "share", &err), MODE_OK);
    char *html = text_of("report.html");
    assert_null(strstr(html, "<script"));
    assert_null(strstr(html, "<b>run"));
    assert_non_null(strstr(html, "a &lt;b&gt;run&lt;/b&gt;"));
    assert_non_null(strstr(html, "&lt;script&gt;alert("));
    assert_non_null(strstr(html, "data:image/jpeg;base64,"));
    assert_null(strstr(html, "http")); /* no external resources */
    assert_null(strstr(html, "url("));
    assert_null(strstr(html, ">nan"));
    assert_null(strstr(html, "\"nan"));
    assert_null(strstr(html, "inf "));
    assert_non_null(strstr(html, " could not be read and ")); /* the zeroed ones */
    free(html);
}

static void test_a_chart_is_drawn_for_wide_and_for_narrow_screens(void **state)
{
    (void)state;
    struct mode_error err;
    assert_int_equal(run("", "share", &err), MODE_OK);
    char *html = text_of("report.html");
    static const char *const labels[] = {"aria-label=\"training loss\"", "aria-label=\"scores per task\""};
    for (int k = 0; k < 2; k++) {
        int n[2] = {0};
        for (const char *p = html; (p = strstr(p, "<svg class=")) != NULL; p++)
            if (memmem(p, strcspn(p, ">"), labels[k], strlen(labels[k])))
                n[strncmp(p + strcspn(p, "nw"), "narrow", 6) == 0]++;
        if (n[0] != 1 || n[1] != 1) fail_msg("%s: %d wide and %d narrow drawings", labels[k], n[0], n[1]);
    }
    assert_non_null(strstr(html, "<g class=narrow>")); /* the map's labels */
    free(html);
}

static void test_patch_dropout_is_reported(void **state)
{
    (void)state;
    struct mode_error err;
    static const char with[] = "{\"name\": \"seed\", \"end_step\": 300, \"final_loss\": 0.5, \"patch_dropout\": 0.25}";
    static const char words[] = "drops 25&nbsp;% of every picture";
    char *train = at("train-0");
    for (int k = 0; k < 2; k++) {
        if (k) assert_int_equal(mode_file_write_atomic(train, with, strlen(with), NULL), MODE_OK);
        assert_int_equal(run("", "share", &err), MODE_OK);
        char *html = text_of("report.html");
        assert_int_equal(strstr(html, words) != NULL, k);
        assert_int_equal(strstr(html, "train.patch_dropout") != NULL, k);
        free(html);
    }
    make_curve(0);
    free(train);
}

static void test_locked_towers_are_reported(void **state)
{
    (void)state;
    struct mode_error err;
    static const char with[] = "{\"name\": \"seed\", \"end_step\": 300, \"final_loss\": 0.5, \"lock_image\": true, "
                               "\"lock_text\": true, \"lock_text_unlocked_layers\": 2}";
    char *train = at("train-0");
    for (int k = 0; k < 2; k++) {
        if (k) assert_int_equal(mode_file_write_atomic(train, with, strlen(with), NULL), MODE_OK);
        assert_int_equal(run("", "share", &err), MODE_OK);
        char *html = text_of("report.html");
        assert_int_equal(strstr(html, "<code>train.init</code> (<code>train.lock_image</code>)") != NULL, k);
        assert_int_equal(strstr(html, ", but those of its last 2 layers (<code>train.lock_text</code>)") != NULL, k);
        free(html);
    }
    make_curve(0);
    free(train);
}

static void test_models_are_shown_seed_dense_experts(void **state)
{
    (void)state;
    struct mode_error err;
    static const char *const order[] = {"seed", "dense", "expert-0", "expert-1"};
    assert_int_equal(run("", "share", &err), MODE_OK);
    char *html = text_of("report.html"), *at = strstr(html, "<h2>Training</h2>"), buf[64];
    static const char *const as[][2] = {{"</i>", "</span>"}, {"<title>", "</title></path>"}, {"<tr><td>", "</td>"}};
    for (int k = 0; k < 3; k++) /* legend, curves, table */
        for (int m = 0; m < 4; m++) {
            snprintf(buf, sizeof buf, "%s%s%s", as[k][0], order[m], as[k][1]);
            at = at ? strstr(at, buf) : NULL;
            if (!at) fail_msg("%s is not where it belongs", buf);
        }
    free(html);
}

static void test_summary_says_what_scripts_want(void **state)
{
    (void)state;
    struct mode_error err;
    assert_int_equal(run("", "share", &err), MODE_OK);
    char *path = at("summary.json");
    json_t *o = json_load_file(path, 0, NULL), *ledger = json_object_get(o, "ledger");
    free(path);
    assert_non_null(o);
    assert_int_equal(json_integer_value(json_object_get(ledger, "samples")), SHARDS * SAMPLES);
    assert_int_equal(json_integer_value(json_object_get(ledger, "kept")), SHARDS * (SAMPLES - SAMPLES / 8));
    assert_true(json_is_true(json_object_get(ledger, "reconciles")));
    assert_int_equal(json_array_size(json_object_get(o, "rows")), 3);
    json_t *row = json_array_get(json_object_get(o, "rows"), 0),
           *dense = json_object_get(json_object_get(row, "models"), "dense");
    assert_true(fabs(json_real_value(json_object_get(dense, "value")) - 0.6) < 1e-9);
    assert_true(json_is_true(json_object_get(dense, "above_chance")));
    json_t *against = json_object_get(json_object_get(json_object_get(o, "routers"), "share"), "against");
    assert_non_null(
        strstr(json_string_value(json_object_get(json_array_get(against, 0), "sentence")), "of 1 classification row)"));
    assert_true(fabs(json_real_value(json_object_get(json_object_get(o, "averages"), "dense")) - 60) < 1e-9);
    assert_true(fabs(json_real_value(json_object_get(json_object_get(o, "averages_retrieval"), "dense")) - 50) < 1e-9);
    assert_string_equal(json_string_value(json_object_get(o, "best_single_expert_retrieval")), "expert-0");
    assert_non_null(json_object_get(json_object_get(o, "routers_retrieval"), "share"));
    assert_null(json_object_get(o, "top_experts"));
    assert_string_equal(json_string_value(json_object_get(json_array_get(against, 0), "verdict")), "better");
    assert_non_null(json_object_get(json_object_get(o, "routers"), "reference"));
    json_decref(o);
}

static void test_time_and_memory_are_put_in_afterwards(void **state)
{
    (void)state;
    static const struct mode_report_stage stage[] = {{"captions", "captions", 2, 1.5, 50 << 20, ""},
                                                     {"words", "embed", 0, 0, 0, ""},
                                                     {"train-seed", "train", 1, 600, 900 << 20, "cpu-avx2, cuda"}};
    static const struct mode_report_process process[] = {{"coordinator", 12 << 20}, {"a <redis>", 7 << 20}};
    const struct mode_report_cost cost = {"k3y", stage, 3, process, 2};
    struct mode_error err;
    assert_int_equal(run("-c", "share", &err), MODE_OK);
    char *html = at("report-c.html"), *summary = at("summary-c.json"), *before = text_of("summary-c.json");
    if (mode_report_complete(html, summary, &cost, "no such folder", &err)) fail_msg("%s", err.text);
    char *page = text_of("report-c.html"), *after = text_of("summary-c.json");
    assert_non_null(strstr(page, "<td>train-seed</td><td>1</td><td>600.0</td><td>900 MiB</td><td>cpu-avx2, cuda</td>"));
    assert_null(strstr(page, "<td>words</td>")); /* no task, no row */
    assert_non_null(strstr(page, "<td>a &lt;redis&gt;</td><td>7 MiB</td>"));
    assert_non_null(strstr(page, "</html>"));
    json_t *o = json_loads(after, 0, NULL);
    assert_int_equal(json_array_size(json_object_get(o, "stages")), 2);
    json_t *x = json_array_get(json_object_get(o, "processes"), 0);
    assert_string_equal(json_string_value(json_object_get(x, "name")), "coordinator");
    assert_int_equal(json_integer_value(json_object_get(x, "peak_rss_bytes")), 12 << 20);
    size_t same = strlen(before) - 3; /* all but the closing brace and the comma before it is unchanged */
    assert_memory_equal(before, after, same);
    assert_int_equal(mode_report_complete(html, summary, &cost, "no such folder", &err), MODE_E_FORMAT); /* only once */
    json_decref(o);
    free(html);
    free(summary);
    free(before);
    free(page);
    free(after);
}

/* Number of points with the title `what` in the chart under this heading. */
static int points_of(const char *page, const char *title, const char *what)
{
    const char *from = strstr(page, title), *to = from ? strstr(from, "</svg>") : NULL;
    int n = 0;
    for (const char *p = from; p && (p = strstr(p, what)) != NULL && p < to; p++) n++;
    return n;
}

static void test_results_while_they_trained_are_put_in_afterwards(void **state)
{
    (void)state;
    static const struct mode_report_stage stage[] = {{"captions", "captions", 2, 1.5, 50 << 20, ""}};
    static const struct mode_report_cost cost = {"k3y", stage, 1, NULL, 0};
    static const char row[] = "{\"step\": %d, \"dataset\": \"flags\", \"metrics\": {\"acc1\": 0.%d}}\n"
                              "{\"step\": %d, \"dataset\": \"pairs\", \"metrics\": {\"text_retrieval_recall@1\": "
                              "0.25, \"image_retrieval_recall@1\": null}}\n";
    struct mode_error err;
    struct mode_str rows = {0};
    char *html = at("report-v.html"), *summary = at("summary-v.json"), *folder = at("validation"),
         *file = at("validation/dense.jsonl"), *empty = at("no-validation");
    assert_int_equal(run("-v", "share", &err), MODE_OK);
    /* no model was evaluated: no section */
    char *plain = at("report-p.html"), *plain_summary = at("summary-p.json");
    assert_int_equal(run("-p", "share", &err), MODE_OK);
    assert_int_equal(mode_report_complete(plain, plain_summary, &cost, empty, &err), MODE_OK);
    char *page = text_of("report-p.html");
    assert_null(strstr(page, "while they trained"));
    assert_non_null(strstr(page, "<h2>Time and memory</h2>"));
    free(page);

    mode_str_printf(&rows, row, 0, 11, 0);
    mode_str_add_cstr(&rows, "no row\n");
    mode_str_printf(&rows, row, 1, 43, 1);
    assert_int_equal(mode_dir_make(folder, &err), MODE_OK);
    assert_int_equal(mode_file_write_atomic(file, rows.data, rows.len, &err), MODE_OK);
    if (mode_report_complete(html, summary, &cost, folder, &err)) fail_msg("%s", err.text);
    page = text_of("report-v.html");
    const char *loss = strstr(page, "<h2>Training</h2>"), *results = strstr(page, "Results while they trained"),
               *ledger = strstr(page, "<h2>Ledger");
    assert_true(loss && results && ledger && loss < results && results < ledger);
    /* the only classification row is its own mean; the last point is the final evaluation */
    assert_int_equal(points_of(results, "<h3>flags</h3>", "<title>dense, step "), 3);
    assert_int_equal(points_of(results, "<h3>flags</h3>", "<title>dense, step 1: 43.00%</title>"), 1);
    assert_int_equal(points_of(results, "<h3>flags</h3>", ": 60.00%</title>"), 1);
    assert_int_equal(points_of(results, "<h3>flags</h3>", "<title>expert-0, step "), 1); /* was not evaluated */
    /* a step that one row lacks is not part of the mean */
    assert_int_equal(points_of(results, "<h3>Mean of 2 retrieval rows</h3>", "<title>dense, step "), 1);
    assert_int_equal(points_of(results, "<h3>pairs text_retrieval_recall@1</h3>", "<title>dense, step "), 3);
    assert_int_equal(points_of(results, "<h3>pairs image_retrieval_recall@1</h3>", "<title>dense, step "), 1);
    assert_int_equal(points_of(results, "<h3>pairs image_retrieval_recall@1</h3>", "nan"), 0);
    mode_str_clear(&rows);
    free(page), free(html), free(summary), free(folder), free(file), free(empty), free(plain), free(plain_summary);
}

static void test_what_does_not_belong_together_is_refused(void **state)
{
    (void)state;
    struct mode_error err;
    make_logits("flags", 1, false, 1, 1); /* other targets than expert-0's file */
    assert_int_equal(run("-x", "share", &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "right answers differ"));
    make_logits("flags", 1, false, 1, 0);
    make_shard(1, "0000");
    assert_int_equal(run("-x", "share", &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "assigned with centres"));
    make_shard(1, digest);
    make_words("flags", CLASSES + 1);
    assert_int_equal(run("-x", "share", &err), MODE_E_FORMAT);
    make_words("flags", CLASSES);
    assert_int_equal(run("-x", "nearest", &err), MODE_E_VALUE);
    char *none = at("result-x.csv");
    assert_false(mode_file_exists(none));
    free(none);
    assert_int_equal(run("-x", "paper", &err), MODE_OK);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_result_csv_is_this_to_the_byte),
        cmocka_unit_test(test_several_labels_and_the_mean_per_class),
        cmocka_unit_test(test_retrieval_has_weights_of_its_own_for_every_caption),
        cmocka_unit_test(test_the_average_is_that_of_the_paper),
        cmocka_unit_test(test_uniform_is_all_unit),
        cmocka_unit_test(test_fewer_experts_are_said_to_be_an_approximation),
        cmocka_unit_test(test_hateful_memes_is_an_area),
        cmocka_unit_test(test_same_inputs_give_the_same_bytes),
        cmocka_unit_test(test_report_shows_hostile_text_as_text),
        cmocka_unit_test(test_a_chart_is_drawn_for_wide_and_for_narrow_screens),
        cmocka_unit_test(test_patch_dropout_is_reported),
        cmocka_unit_test(test_locked_towers_are_reported),
        cmocka_unit_test(test_models_are_shown_seed_dense_experts),
        cmocka_unit_test(test_summary_says_what_scripts_want),
        cmocka_unit_test(test_time_and_memory_are_put_in_afterwards),
        cmocka_unit_test(test_results_while_they_trained_are_put_in_afterwards),
        cmocka_unit_test(test_what_does_not_belong_together_is_refused),
    };
    (void)argv;
    return cmocka_run_group_tests(tests, setup,
                                  argc > 1 ? NULL : teardown); /* any argument: keep the files to look at */
}
