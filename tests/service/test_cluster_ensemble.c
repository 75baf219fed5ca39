/* The work functions of cluster, assign and ensemble, as the worker calls them: packed requests and named files in,
 * outputs out. */
#include "assign.h"
#include "base/file.h"
#include "base/rng.h"
#include "base/str.h"
#include "cluster.h"
#include "cluster/centres.h"
#include "data/captions.h"
#include "data/safetensors.h"
#include "data/tar.h"
#include "ensemble.h"
#include "ensemble/selection.h"
#include "held_outputs.h"
#include "msg/worker.h"
#include "pipeline/assign.h"
#include "proto/assign.pb-c.h"
#include "proto/cluster.pb-c.h"
#include "proto/common.pb-c.h"
#include "proto/ensemble.pb-c.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { SHARDS = 3, ROWS = 100, D = 8, FINE = 12, COARSE = 3, CLASSES = 4, IMAGES = 20 };
static char dir[] = "/tmp/mode-services-XXXXXX";

static char *at(const char *name)
{
    return mode_path_join(dir, name);
}

static char *numbered(const char *format, int i)
{
    char name[64];
    snprintf(name, sizeof name, "%s%d", format, i);
    return at(name);
}

static void hold(const char *service, const char *name, double tolerance)
{
    char *path = at(name);
    held_file(service, name, path, dir, tolerance);
    free(path);
}

static void unit(float *v, uint64_t a, uint64_t b)
{
    struct mode_rng r = mode_rng_for(8, MODE_RNG_TEST, a, b);
    double s = 0;
    for (int j = 0; j < D; j++) {
        v[j] = (float)mode_rng_normal(&r);
        s += (double)v[j] * v[j];
    }
    for (int j = 0; j < D; j++) v[j] /= (float)sqrt(s);
}

static void write_feat(const char *path, int n, uint64_t stream)
{
    float *x = malloc(sizeof *x * (size_t)n * D);
    for (int i = 0; i < n; i++) unit(x + i * D, stream, (uint64_t)i);
    struct mode_tensor t = mode_tensor_2d(x, MODE_DTYPE_F32, n, D);
    char key[] = "encoder_id", id[] = "enc";
    struct mode_meta meta = {key, id};
    t.name = "feat";
    assert_int_equal(mode_safetensors_write(path, &t, 1, &meta, 1, NULL), MODE_OK);
    free(x);
}

static void write_captions(const char *path)
{
    struct mode_sample sample[ROWS] = {0};
    uint32_t rows[ROWS];
    char key[ROWS][8], name[] = "shard";
    struct mode_captions c = {.shard_name = name, .n_samples = ROWS, .n_rows = ROWS, .samples = sample, .rows = rows};
    for (uint32_t i = 0; i < ROWS; i++) {
        snprintf(key[i], sizeof key[i], "%u", i);
        sample[i] = (struct mode_sample){.key = key[i],
                                         .caption = i % 2 ? "a blue bird" : "an old house",
                                         .caption_count = 1,
                                         .image_size = 1,
                                         .fate = MODE_FATE_KEPT};
        rows[i] = i;
    }
    c.fate_count[MODE_FATE_KEPT] = ROWS;
    c.shard_size = c.data_size = 1024;
    assert_int_equal(mode_captions_save(&c, path, NULL), MODE_OK);
}

static int setup(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(dir));
    for (int s = 0; s < SHARDS; s++) {
        char *feat = numbered("feat", s), *cap = numbered("captions", s);
        write_feat(feat, ROWS, (uint64_t)s);
        write_captions(cap);
        free(feat);
        free(cap);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return mode_dir_remove(dir, NULL);
}

static Mode__ClusterRequest cluster_request(void)
{
    Mode__ClusterRequest r = MODE__CLUSTER_REQUEST__INIT;
    r.fine = FINE;
    r.coarse = COARSE;
    r.metric = (char *)"euclidean";
    r.seed = 5;
    r.sample_per_centre = 20;
    r.fine_iterations = 20;
    r.coarse_iterations = 20;
    r.encoder_id = (char *)"enc";
    return r;
}

static enum mode_status run_cluster(struct mode_local_report *report, const Mode__ClusterRequest *r, const char *out,
                                    struct mode_error *err)
{
    uint8_t packed[256];
    struct mode_local_input in[SHARDS];
    char name[SHARDS][16], *path[SHARDS];
    size_t size = mode__cluster_request__pack(r, packed);
    for (int s = 0; s < SHARDS; s++) {
        snprintf(name[s], sizeof name[s], "feat/%04d", s);
        path[s] = numbered("feat", s);
        in[s] = (struct mode_local_input){name[s], path[s]};
    }
    enum mode_status st = mode_job_run_local(report, cluster_work, packed, size, in, SHARDS, out, err);
    for (int s = 0; s < SHARDS; s++) free(path[s]);
    return st;
}

static void test_cluster_counts_rows_and_notes_the_certificate(void **state)
{
    (void)state;
    struct mode_local_report report = {0};
    struct mode_error err;
    char *out = at("cluster");
    Mode__ClusterRequest r = cluster_request();
    if (run_cluster(&report, &r, out, &err)) fail_msg("%s", err.text);
    assert_int_equal(report.rows_in, SHARDS * ROWS);
    assert_int_equal(report.rows_out, FINE * 20);
    hold("cluster", "cluster/centres.safetensors", 1e-5);
    assert_int_equal(report.rejected, SHARDS * ROWS - FINE * 20);
    json_t *note = json_loads(report.note, 0, NULL);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(note, "fine"), "largest")), 20);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(note, "coarse"), "smallest")), FINE / COARSE);
    json_decref(note);
    free(report.note);
    /* what must be refused */
    r.encoder_id = (char *)"another";
    assert_int_equal(run_cluster(NULL, &r, out, &err), MODE_E_VALUE);
    r = cluster_request();
    r.metric = (char *)"manhattan";
    assert_int_equal(run_cluster(NULL, &r, out, &err), MODE_E_VALUE);
    r = cluster_request();
    r.coarse = FINE + 1;
    assert_int_equal(run_cluster(NULL, &r, out, &err), MODE_E_VALUE);
    assert_int_equal(mode_job_run_local(NULL, cluster_work, "\xff\xff", 2, NULL, 0, out, &err), MODE_E_FORMAT);
    free(out);
}

static void assign_all(void)
{
    char *centres = at("cluster/centres.safetensors");
    for (int s = 0; s < SHARDS; s++) {
        uint8_t packed[64];
        Mode__AssignRequest r = MODE__ASSIGN_REQUEST__INIT;
        struct mode_local_report report = {0};
        struct mode_error err;
        char *feat = numbered("feat", s), *out = numbered("assign", s);
        r.shard_index = (uint32_t)s;
        r.encoder_id = (char *)"enc";
        size_t size = mode__assign_request__pack(&r, packed);
        struct mode_local_input in[] = {{"feat", feat}, {"centres", centres}};
        if (mode_job_run_local(&report, assign_work, packed, size, in, 2, out, &err)) fail_msg("%s", err.text);
        assert_int_equal(report.rows_in, ROWS);
        assert_int_equal(report.rows_out, ROWS);
        if (s == 0) hold("assign", "assign0/assign.safetensors", 1e-5);
        json_t *note = json_loads(report.note, 0, NULL), *pairs = json_object_get(note, "pairs"), *x;
        json_int_t sum = 0;
        size_t k;
        assert_true(json_array_size(pairs) > 1); /* for every expert; the coordinator plans with them */
        json_array_foreach(pairs, k, x) sum += json_integer_value(x);
        assert_int_equal(sum, ROWS);
        json_decref(note);
        free(report.note);
        assert_int_equal(mode_job_run_local(NULL, assign_work, packed, size, in, 1, out, &err),
                         MODE_E_VALUE); /* no centres */
        free(feat);
        free(out);
    }
    free(centres);
}

static char *assignment(int shard)
{
    char *folder = numbered("assign", shard), *path = mode_path_join(folder, "assign.safetensors");
    free(folder);
    return path;
}

/* Words of two tasks select clusters: those that a brute-force search finds, and the number of pairs in them. */
static void test_words_choose_clusters(void **state)
{
    (void)state;
    assign_all();
    struct mode_local_input in[3 + SHARDS];
    struct mode_local_report report = {0};
    struct mode_error err;
    struct mode_centres c;
    struct mode_selection s;
    uint8_t packed[64];
    size_t n = 0;
    char *words[2] = {at("words-a"), at("words-b")}, *out = at("selection"),
         *centres = at("cluster/centres.safetensors"), name[SHARDS][16], *path[SHARDS];
    bool want[FINE] = {false};
    uint64_t pairs = 0;
    in[n++] = (struct mode_local_input){"centres", centres};
    for (int i = 0; i < 2; i++) {
        write_feat(words[i], 3, 900 + (uint64_t)i);
        in[n++] = (struct mode_local_input){i ? "words/0001" : "words/0000", words[i]};
    }
    for (int i = 0; i < SHARDS; i++) {
        snprintf(name[i], sizeof name[i], "assign/%04d", i);
        in[n++] = (struct mode_local_input){name[i], path[i] = assignment(i)};
    }
    Mode__AssignRequest r = MODE__ASSIGN_REQUEST__INIT;
    r.encoder_id = (char *)"enc";
    r.has_nearest = 1;
    r.nearest = 1;
    size_t size = mode__assign_request__pack(&r, packed);
    if (mode_job_run_local(&report, assign_work, packed, size, in, n, out, &err)) fail_msg("%s", err.text);
    assert_int_equal(report.rows_in, 6);
    hold("assign", "selection/selection.safetensors", 1e-5);
    assert_int_equal(mode_centres_load(&c, centres, &err), MODE_OK);
    for (int i = 0; i < 2; i++)
        for (uint64_t k = 0; k < 3; k++) {
            float v[D];
            double least = INFINITY;
            int best = 0;
            unit(v, 900 + (uint64_t)i, k);
            for (int f = 0; f < c.m; f++) {
                double sum = 0;
                for (int j = 0; j < D; j++) sum += pow((double)v[j] - (double)c.fine[f * D + j], 2);
                if (sum < least) best = f;
                least = fmin(least, sum);
            }
            want[best] = true;
        }
    char *file = mode_path_join(out, "selection.safetensors");
    assert_int_equal(mode_selection_load(&s, file, &err), MODE_OK);
    for (int f = 0; f < FINE; f++) assert_int_equal(s.chosen[f], want[f]);
    for (int i = 0; i < SHARDS; i++) {
        uint64_t count[FINE] = {0};
        assert_int_equal(mode_assign_count(count, path[i], NULL, FINE, &err), MODE_OK);
        for (int f = 0; f < FINE; f++) pairs += want[f] ? count[f] : 0;
    }
    json_t *note = json_loads(report.note, 0, NULL);
    assert_int_equal(json_integer_value(json_object_get(note, "pairs")), pairs);
    assert_int_equal(json_integer_value(json_object_get(note, "rows")), SHARDS * ROWS);
    assert_int_equal(json_integer_value(json_object_get(note, "chosen")), s.n_chosen);
    json_decref(note);
    free(report.note);
    /* what must be refused */
    assert_int_equal(mode_job_run_local(NULL, assign_work, packed, size, in, 1, out, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "input \"words/0000\" is missing"));
    r.nearest = 0;
    size = mode__assign_request__pack(&r, packed);
    assert_int_equal(mode_job_run_local(NULL, assign_work, packed, size, in, n, out, &err), MODE_E_VALUE);
    r.nearest = 1;
    r.encoder_id = (char *)"another";
    size = mode__assign_request__pack(&r, packed);
    assert_int_equal(mode_job_run_local(NULL, assign_work, packed, size, in, n, out, &err), MODE_E_VALUE);
    for (int i = 0; i < SHARDS; i++) free(path[i]);
    mode_selection_clear(&s);
    mode_centres_clear(&c);
    free(words[0]);
    free(words[1]);
    free(centres);
    free(file);
    free(out);
}

static void write_logits(const char *path, int model)
{
    float x[IMAGES * CLASSES] = {0};
    int32_t target[IMAGES];
    for (int i = 0; i < IMAGES; i++) {
        target[i] = i % CLASSES;
        x[i * CLASSES + (i % 5 == model ? (i + 1) % CLASSES : target[i])] = 0.5f;
    }
    struct mode_tensor t[] = {mode_tensor_2d(x, MODE_DTYPE_F32, IMAGES, CLASSES),
                              mode_tensor_1d(target, MODE_DTYPE_I32, IMAGES)};
    t[0].name = "cosine";
    t[1].name = "target";
    assert_int_equal(mode_safetensors_write(path, t, 2, NULL, 0, NULL), MODE_OK);
}

/* A minimal evaluation task. */
static void write_task(const char *folder)
{
    static const struct {
        const char *name, *text;
    } files[] = {{"classnames.txt", "bird\nhouse\ntree\nsea\n"},
                 {"zeroshot_classification_templates.txt", "a {c}\n"},
                 {"test/nshards.txt", "1\n"}};
    char *test = mode_path_join(folder, "test");
    assert_int_equal(mode_dir_make(test, NULL), MODE_OK);
    free(test);
    for (int i = 0; i < 3; i++) {
        char *path = mode_path_join(folder, files[i].name);
        assert_int_equal(mode_file_write_atomic(path, files[i].text, strlen(files[i].text), NULL), MODE_OK);
        free(path);
    }
    static const unsigned char picture[] = {0xff, 0xd8, 0xff, 0xe0}; /* enough of a JPEG: it is never decoded here */
    struct mode_tar_writer *tar;
    char *path = mode_path_join(folder, "test/0.tar");
    assert_int_equal(mode_tar_writer_open(&tar, path, NULL), MODE_OK);
    assert_int_equal(mode_tar_writer_add(tar, "s0000000.cls", "0", 1, NULL), MODE_OK);
    assert_int_equal(mode_tar_writer_add(tar, "s0000000.jpg", picture, sizeof picture, NULL), MODE_OK);
    assert_int_equal(mode_tar_writer_finish(&tar, NULL), MODE_OK);
    free(path);
}

static void test_assign_and_ensemble_follow(void **state)
{
    (void)state;
    struct mode_local_input in[64];
    struct mode_error err;
    size_t n = 0;
    assign_all();
    char *task_dir = at("task"), *words = at("words"), *out = at("ensemble");
    write_task(task_dir);
    write_feat(words, CLASSES, 77);
    in[n++] = (struct mode_local_input){"centres", at("cluster/centres.safetensors")};
    for (int s = 0; s < SHARDS; s++) {
        char *folder = numbered("assign", s);
        in[n++] = (struct mode_local_input){mode_xasprintf("captions/%d", s), numbered("captions", s)};
        in[n++] = (struct mode_local_input){mode_xasprintf("assign/%d", s),
                                            mode_path_join(folder, "assign.safetensors")};
        free(folder);
    }
    in[n++] = (struct mode_local_input){mode_xstrdup("words/things"), words};
    for (int m = 0; m <= COARSE; m++) {
        char *path = numbered("logits", m);
        write_logits(path, m);
        in[n++] = (struct mode_local_input){
            m < COARSE ? mode_xasprintf("logits/expert-%d/things", m) : mode_xstrdup("logits/dense/things"), path};
    }

    uint8_t packed[512];
    char *shards[SHARDS] = {(char *)"/nonexistent/0.tar", (char *)"/nonexistent/1.tar", (char *)"/nonexistent/2.tar"};
    Mode__EnsembleTask task = MODE__ENSEMBLE_TASK__INIT, *tasks[] = {&task};
    Mode__EnsembleRequest r = MODE__ENSEMBLE_REQUEST__INIT;
    task.name = (char *)"things";
    task.dir = task_dir;
    task.kind = (char *)"classification";
    r.run_name = (char *)"run";
    r.router = (char *)"reference";
    r.router_params = (char *)"slope=5";
    r.experts = COARSE;
    r.tasks = tasks;
    r.n_tasks = 1;
    r.shard_paths = shards;
    r.n_shard_paths = SHARDS;
    r.spec_yaml = (char *)"name: run\n";
    size_t size = mode__ensemble_request__pack(&r, packed);
    struct mode_local_report report = {0};
    if (mode_job_run_local(&report, ensemble_work, packed, size, in, n, out, &err)) fail_msg("%s", err.text);
    assert_non_null(strstr(report.note, "The ensemble beats the dense model"));
    free(report.note);
    hold("ensemble", "ensemble/result.csv", 1e-6);
    hold("ensemble", "ensemble/weights.json", 1e-5);
    hold("ensemble", "ensemble/summary.json", 1e-5);
    char *path = at("ensemble/summary.json");
    json_t *o = json_load_file(path, 0, NULL);
    assert_true(json_is_true(json_object_get(json_object_get(o, "ledger"), "reconciles")));
    json_decref(o);
    free(path);
    static const char *const names[] = {"ensemble/result.csv", "ensemble/report.html", "ensemble/weights.json"};
    for (int i = 0; i < 3; i++) {
        path = at(names[i]);
        assert_true(mode_file_exists(path));
        free(path);
    }
    /* a model for the words of the task: one more column and comparison, the others unchanged */
    struct mode_local_input more[64];
    memcpy(more, in, sizeof in);
    char *selected_logits = at("logits0"), *selection = at("selection/selection.safetensors"), *with = at("with");
    char *own[] = {task.name};
    Mode__EnsembleSelected selected = MODE__ENSEMBLE_SELECTED__INIT, *list[] = {&selected};
    selected.name = (char *)"for-things";
    selected.tasks = own;
    selected.n_tasks = 1;
    r.selected = list;
    r.n_selected = 1;
    more[n] = (struct mode_local_input){"logits/for-things/things", selected_logits};
    more[n + 1] = (struct mode_local_input){"selection/for-things", selection};
    uint8_t packed_more[512];
    size_t size_more = mode__ensemble_request__pack(&r, packed_more);
    if (mode_job_run_local(NULL, ensemble_work, packed_more, size_more, more, n + 2, with, &err))
        fail_msg("%s", err.text);
    path = at("with/summary.json");
    o = json_load_file(path, 0, NULL);
    const json_t *x = json_array_get(json_object_get(o, "selected"), 0);
    assert_string_equal(json_string_value(json_object_get(x, "name")), "for-things");
    assert_int_equal(json_array_size(json_object_get(x, "against")), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(json_object_get(x, "against"), 0), "than")),
                        "the dense model");
    assert_true(json_integer_value(json_object_get(x, "rows")) > 0);
    assert_true(json_object_get(json_object_get(json_array_get(json_object_get(o, "rows"), 0), "models"),
                                "for-things") != NULL);
    json_decref(o);
    free(path);
    char *csv;
    path = at("with/result.csv");
    assert_int_equal(mode_file_read(path, 0, &csv, NULL, &err), MODE_OK);
    assert_non_null(strstr(csv, ",ensemble,dense,for-things,metric\n"));
    free(csv);
    free(path);
    assert_int_equal(mode_job_run_local(NULL, ensemble_work, packed_more, size_more, more, n + 1, with, &err),
                     MODE_E_VALUE);
    assert_non_null(strstr(err.text, "selection/for-things"));
    free(selected_logits);
    free(selection);
    free(with);
    /* an expert's scores are missing: named */
    for (size_t i = 0; i < n; i++) {
        if (strcmp(in[i].name, "logits/expert-1/things") != 0) continue;
        struct mode_local_input without[64];
        memcpy(without, in, sizeof in);
        without[i] = in[n - 1];
        assert_int_equal(mode_job_run_local(NULL, ensemble_work, packed, size, without, n - 1, out, &err),
                         MODE_E_VALUE);
        assert_non_null(strstr(err.text, "logits/expert-1/things"));
    }
    for (size_t i = 0; i < n; i++) {
        if (i) free((char *)in[i].name);
        free((char *)in[i].path);
    }
    free(task_dir);
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cluster_counts_rows_and_notes_the_certificate),
        cmocka_unit_test(test_words_choose_clusters),
        cmocka_unit_test(test_assign_and_ensemble_follow),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
