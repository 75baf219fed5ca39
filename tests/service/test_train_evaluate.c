/* The work functions of train and evaluate, as a worker calls them: packed request in, files and counts out.
 */
#include "clip_world.h"

#include "base/parallel.h"
#include "data/evalset.h"
#include "evaluate.h"
#include "held_outputs.h"
#include "msg/worker.h"
#include "pipeline/checkpoint.h"
#include "pipeline/given.h"
#include "proto/evaluate.pb-c.h"
#include "proto/train.pb-c.h"
#include "train.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

enum { MAX_INPUTS = 2 * WORLD_SHARDS + 4 };

static struct world world;

static int setup(void **state)
{
    (void)state;
    world_open(&world);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_close(&world);
    return 0;
}

static Mode__TrainRequest request_of(char *name, uint64_t start, uint64_t end, int32_t expert, char *digest)
{
    Mode__TrainRequest r = MODE__TRAIN_REQUEST__INIT;
    r.name = name;
    r.model_config = (char *)WORLD_MODEL;
    r.preprocess_config = (char *)WORLD_PREPROCESS;
    r.tokenizer_path = world.merges;
    r.tokenizer_digest = digest;
    r.seed = 5;
    r.batch = 10;
    r.lr = 1e-3;
    r.beta1 = 0.9;
    r.beta2 = 0.98;
    r.eps = 1e-6;
    r.weight_decay = 0.2;
    r.warmup_steps = 2;
    r.total_steps = 6;
    r.start_step = start;
    r.end_step = end;
    r.has_expert = 1;
    r.expert = expert;
    r.out_ratio = 0.1;
    r.n_shard_paths = WORLD_SHARDS;
    r.shard_paths = world.tar;
    r.checkpoint_steps = 2;
    r.scale_min = 0.9;
    r.scale_max = 1;
    return r;
}

/* The outputs of a training in folder. Steps of AdamW amplify rounding more than one GEMM does. */
static void hold_training(const char *name, const char *folder)
{
    static const char *const files[] = {MODE_FILE_CLIP_CONFIG, MODE_FILE_CLIP_WEIGHTS, MODE_FILE_CLIP_OPTIMIZER,
                                        MODE_FILE_STEPS, MODE_FILE_TRAIN};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *path = mode_path_join(folder, files[i]), *what = mode_xasprintf("%s/%s", name, files[i]);
        held_file("train", what, path, world.dir, 1e-4);
        free(path);
        free(what);
    }
}

static size_t shard_inputs(struct mode_local_input *in, bool assign)
{
    static char names[2 * WORLD_SHARDS][32];
    size_t n = 0;
    for (int s = 0; s < WORLD_SHARDS; s++) {
        snprintf(names[n], sizeof names[n], "captions/%04d", s);
        in[n] = (struct mode_local_input){names[n], world.captions[s]};
        n++;
    }
    for (int s = 0; assign && s < WORLD_SHARDS; s++) {
        snprintf(names[n], sizeof names[n], "assign/%04d", s);
        in[n] = (struct mode_local_input){names[n], world.assign[s]};
        n++;
    }
    return n;
}

static enum mode_status run_train(Mode__TrainRequest *r, const struct mode_local_input *in, size_t n, const char *out,
                                  struct mode_local_report *report, struct mode_error *err)
{
    size_t size = mode__train_request__get_packed_size(r);
    uint8_t *packed = mode_xmalloc(size);
    mode__train_request__pack(r, packed);
    enum mode_status st = mode_job_run_local(report, train_work, packed, size, in, n, out, err);
    free(packed);
    return st;
}

static void test_seed_then_expert_then_evaluation(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct mode_local_report report = {0};
    struct mode_local_input in[MAX_INPUTS];
    char digest[MODE_DIGEST_HEX], name[] = "seed", expert[] = "expert-1", odd[] = "linear";
    char *seed_dir = mode_path_join(world.dir, "seed"), *expert_dir = mode_path_join(world.dir, "expert-1");
    char *seed_config = mode_path_join(seed_dir, MODE_FILE_CLIP_CONFIG),
         *weights = mode_path_join(seed_dir, MODE_FILE_CLIP_WEIGHTS),
         *optimizer = mode_path_join(seed_dir, MODE_FILE_CLIP_OPTIMIZER);
    world_ok(mode_digest_file(world.merges, digest, NULL, &err), &err);
    world_ok(mode_dir_make(seed_dir, &err), &err);
    world_ok(mode_dir_make(expert_dir, &err), &err);

    Mode__TrainRequest r = request_of(name, 0, 4, -1, digest);
    size_t n = shard_inputs(in, false);
    r.schedule = odd; /* never another schedule than the requested one */
    assert_int_equal(run_train(&r, in, n, seed_dir, NULL, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "its schedule is \"linear\", expected one of cosine|"));
    r.schedule = NULL;
    world_ok(run_train(&r, in, n, seed_dir, &report, &err), &err);
    assert_int_equal(report.rows_in, WORLD_SHARDS * WORLD_ROWS);
    assert_int_equal(report.rows_out, WORLD_SHARDS * WORLD_ROWS);
    assert_int_equal(report.rejected, 0);
    hold_training(name, seed_dir);
    json_t *note = json_loads(report.note, 0, NULL);
    assert_int_equal(json_integer_value(json_object_get(note, "steps")), 4);
    json_decref(note);
    free(report.note);

    r = request_of(expert, 4, 6, 1, digest);
    n = shard_inputs(in, true);
    in[n++] = (struct mode_local_input){"centres", world.centres};
    assert_int_equal(run_train(&r, in, n, expert_dir, NULL, &err), MODE_E_VALUE); /* no parent: no start from scratch */
    assert_non_null(strstr(err.text, "parent"));
    in[n++] = (struct mode_local_input){"parent/" MODE_FILE_CLIP_CONFIG, seed_config};
    in[n++] = (struct mode_local_input){"parent/" MODE_FILE_CLIP_WEIGHTS, weights};
    in[n++] = (struct mode_local_input){"parent/" MODE_FILE_CLIP_OPTIMIZER, optimizer};
    report = (struct mode_local_report){0};
    world_ok(run_train(&r, in, n, expert_dir, &report, &err), &err);
    assert_int_equal(report.rows_in, report.rows_out + report.rejected);
    assert_true(report.rejected > 0);
    free(report.note);
    hold_training(expert, expert_dir);

    /* evaluate the expert */
    char *task_dir = world_write_task(&world, false), task_digest[MODE_DIGEST_HEX], task[] = "colours";
    char *config = mode_path_join(expert_dir, MODE_FILE_CLIP_CONFIG),
         *model = mode_path_join(expert_dir, MODE_FILE_CLIP_WEIGHTS), *out = mode_path_join(world.dir, "eval");
    world_ok(mode_evalset_digest(task_dir, task_digest, &err), &err);
    world_ok(mode_dir_make(out, &err), &err);
    Mode__EvaluateRequest e = MODE__EVALUATE_REQUEST__INIT;
    e.model_name = expert;
    e.task_name = task;
    e.task_dir = task_dir;
    e.task_digest = task_digest;
    e.tokenizer_path = world.merges;
    e.tokenizer_digest = digest;
    e.batch = 5;
    const struct mode_local_input model_in[] = {{MODE_FILE_CLIP_CONFIG, config}, {MODE_FILE_CLIP_WEIGHTS, model}};
    uint8_t packed[4096];
    size_t size = mode__evaluate_request__pack(&e, packed);
    report = (struct mode_local_report){0};
    world_ok(mode_job_run_local(&report, evaluate_work, packed, size, model_in, 2, out, &err), &err);
    assert_int_equal(report.rows_out, 12);
    free(report.note);
    char *metrics = mode_path_join(out, "metrics.json"), *logits = mode_path_join(out, "logits.safetensors");
    held_file("evaluate", "metrics.json", metrics, world.dir, 1e-3);
    held_file("evaluate", "logits.safetensors", logits, world.dir, 1e-3);
    json_t *o = json_load_file(metrics, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(o, "model")), "expert-1");
    json_decref(o);

    /* a task that differs from the planned one */
    task_digest[0] = task_digest[0] == 'a' ? 'b' : 'a';
    size = mode__evaluate_request__pack(&e, packed);
    assert_int_equal(mode_job_run_local(NULL, evaluate_work, packed, size, model_in, 2, out, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "changed since"));
    char *all[] = {seed_dir, seed_config, expert_dir, weights, optimizer, task_dir,
                   config,   model,       out,        metrics, logits};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static void given_parents(struct mode_local_input *in, size_t *n, char *const file[3], bool optimizer)
{
    in[(*n)++] = (struct mode_local_input){"parent/" MODE_FILE_CLIP_CONFIG, file[0]};
    in[(*n)++] = (struct mode_local_input){"parent/" MODE_FILE_CLIP_WEIGHTS, file[1]};
    if (optimizer) in[(*n)++] = (struct mode_local_input){"parent/" MODE_FILE_CLIP_OPTIMIZER, file[2]};
}

/* A model is imported as it was planned or not at all; training continues from it, at its step. */
static void test_a_given_model_is_taken_in_and_gone_on_from(void **state)
{
    (void)state;
    static const char *const files[] = {MODE_FILE_CLIP_CONFIG, MODE_FILE_CLIP_WEIGHTS, MODE_FILE_CLIP_OPTIMIZER,
                                        MODE_FILE_TRAIN, MODE_FILE_STEPS};
    struct mode_error err = {0};
    struct mode_local_report report = {0};
    struct mode_local_input in[MAX_INPUTS];
    struct mode_given g;
    char merges[MODE_DIGEST_HEX], digest[MODE_DIGEST_HEX], weights[MODE_DIGEST_HEX], nothing[] = "", name[] = "seed",
                                                                                     expert[] = "expert-0";
    char *elsewhere = mode_path_join(world.dir, "elsewhere"), *taken = mode_path_join(world.dir, "taken"),
         *on = mode_path_join(world.dir, "on"), *given[3], *out[5], *made[5];
    for (int i = 0; i < 5; i++) {
        if (i < 3) given[i] = mode_path_join(elsewhere, files[i]);
        out[i] = mode_path_join(taken, files[i]);
        made[i] = mode_path_join(on, files[i]);
    }
    world_ok(mode_dir_make(elsewhere, &err), &err);
    world_ok(mode_dir_make(taken, &err), &err);
    world_ok(mode_dir_make(on, &err), &err);
    world_ok(mode_digest_file(world.merges, merges, NULL, &err), &err);
    Mode__TrainRequest r = request_of(name, 0, 3, -1, merges);
    size_t n = shard_inputs(in, false);
    world_ok(run_train(&r, in, n, elsewhere, &report, &err), &err);
    free(report.note);

    for (int moments = 1; moments >= 0; moments--) {
        if (!moments) assert_int_equal(unlink(given[2]), 0);
        const uint64_t step = moments ? 3 : 0;
        world_ok(mode_given_find(&g, elsewhere, &err), &err);
        world_ok(mode_given_digest(&g, digest, &err), &err);
        mode_given_clear(&g);
        Mode__TrainRequest take = MODE__TRAIN_REQUEST__INIT;
        take.name = name;
        take.model_config = r.model_config;
        take.preprocess_config = r.preprocess_config;
        take.tokenizer_path = take.tokenizer_digest = nothing;
        take.init_path = elsewhere;
        take.init_digest = merges; /* the digest of other files */
        assert_int_equal(run_train(&take, NULL, 0, taken, NULL, &err), MODE_E_VALUE);
        assert_non_null(strstr(err.text, "has changed since the run was planned"));
        take.init_digest = digest;
        report = (struct mode_local_report){0};
        world_ok(run_train(&take, NULL, 0, taken, &report, &err), &err);
        assert_true(report.rows_in == 0 && report.rows_out == 0 && strstr(report.note, digest));
        free(report.note);
        world_ok(mode_digest_file(out[1], weights, NULL, &err), &err);
        json_t *train = json_load_file(out[3], 0, NULL);
        assert_string_equal(json_string_value(json_object_get(train, "init")), weights);
        assert_int_equal(json_integer_value(json_object_get(train, "end_step")), step);
        json_decref(train);

        /* the seed continues, and an expert forks without training in between */
        for (int k = 0; k < 2; k++) {
            Mode__TrainRequest next = request_of(k ? expert : name, step, step + 2, k - 1, merges);
            next.init = weights;
            n = shard_inputs(in, k == 1);
            if (k) in[n++] = (struct mode_local_input){"centres", world.centres};
            assert_int_equal(run_train(&next, in, n, on, NULL, &err), MODE_E_VALUE); /* never from random weights */
            assert_non_null(strstr(err.text, "parent"));
            given_parents(in, &n, out, moments);
            world_ok(run_train(&next, in, n, on, &report, &err), &err);
            free(report.note);
            train = json_load_file(made[3], 0, NULL);
            assert_string_equal(json_string_value(json_object_get(train, "init")), weights);
            assert_int_equal(json_integer_value(json_object_get(train, "start_step")), step);
            json_decref(train);
        }
    }
    for (int i = 0; i < 5; i++) {
        if (i < 3) free(given[i]);
        free(out[i]);
        free(made[i]);
    }
    free(elsewhere);
    free(taken);
    free(on);
}

static void test_nonsense_is_refused(void **state)
{
    (void)state;
    struct mode_error err = {0};
    const uint8_t rubbish[] = {0xff, 0xff, 0xff, 0xff, 1, 2, 3};
    assert_int_equal(mode_job_run_local(NULL, train_work, rubbish, sizeof rubbish, NULL, 0, world.dir, &err),
                     MODE_E_FORMAT);
    assert_int_equal(mode_job_run_local(NULL, evaluate_work, rubbish, sizeof rubbish, NULL, 0, world.dir, &err),
                     MODE_E_FORMAT);
}

int main(void)
{
    mode_parallel_set_threads(2);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seed_then_expert_then_evaluation),
        cmocka_unit_test(test_a_given_model_is_taken_in_and_gone_on_from),
        cmocka_unit_test(test_nonsense_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
