/* Validation during training: the same scores as an evaluation, no effect on the training, every point once. With
 * MODE_TEST_BACKEND=cuda on a GPU, where nothing may be allocated after the first step. */
#include "train_world.h"

#include "data/evalset.h"
#include "data/tokenizer.h"
#include "models/clip.h"
#include "nn/backend.h"
#include "pipeline/evaluate.h"
#include "tfevents_reader.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

enum { BATCH = 10, TOTAL = 12, EVERY = 4, TASKS = 2 };

static struct world world;
static struct mode_backend *be;
static char *dirs[TASKS];

static int setup(void **state)
{
    const char *name = getenv("MODE_TEST_BACKEND");
    (void)state;
    world_open(&world);
    dirs[0] = world_write_task(&world, false);
    dirs[1] = world_write_task(&world, true);
    return mode_backend_open(&be, name ? name : "cpu", NULL) != MODE_OK;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < TASKS; i++) free(dirs[i]);
    mode_backend_close(&be);
    world_close(&world);
    return 0;
}

static struct mode_validation *tasks(bool last)
{
    const struct mode_validation_options o = {.n = TASKS, .dir = dirs, .every = EVERY, .last = last, .batch = 5};
    struct mode_validation *v;
    struct mode_error err;
    world_ok(mode_validation_open(&v, &o, &err), &err);
    return v;
}

struct run {
    struct world_training t;
    uint64_t stop_in; /* with stops: stop during the validation after this step */
    bool stops, validates;
    int results;
    size_t left; /* free memory of the device after the last step */
};

static void on_progress(void *ctx, const struct mode_train_progress *p)
{
    struct run *r = ctx;
    size_t total;
    r->validates = false;
    r->t.seen = p->step;
    mode_backend_room(be, &r->left, &total);
}

static void on_validating(void *ctx)
{
    struct run *r = ctx;
    size_t left, total;
    r->validates = true;
    mode_backend_room(be, &left, &total);
    if (r->left) assert_int_equal(left, r->left); /* nothing is allocated between steps */
}

static void on_validated(void *ctx, const struct mode_validation_result *result)
{
    struct run *r = ctx;
    r->results++;
    if (r->t.seen == 0) r->t.seen = result->step; /* the step it resumes from */
    assert_int_equal(result->step, r->t.seen);
    assert_true(result->value >= 0 && result->value <= 1 && result->seconds > 0);
}

static bool on_stopping(void *ctx)
{
    const struct run *r = ctx;
    return world_on_stopping(ctx) || (r->stops && r->validates && r->t.seen == r->stop_in);
}

static enum mode_status train(const char *name, const struct mode_validation *v, struct run *r, const char *resume,
                              const struct mode_board_place *board, struct mode_train_result *result,
                              struct mode_error *err)
{
    struct mode_train_spec spec = world_train_spec(&world, BATCH, TOTAL);
    char *dir = mode_path_join(world.dir, name);
    r->t.world = &world;
    r->t.run = name;
    struct mode_train_hooks hooks = world_train_hooks(&r->t);
    hooks.progress = on_progress;
    hooks.validating = on_validating;
    hooks.validated = on_validated;
    hooks.stopping = on_stopping;
    hooks.resume_from = resume;
    hooks.board = board;
    spec.checkpoint_steps = 4;
    spec.validation = v;
    enum mode_status st = world_train(result, dir, be, &spec, &hooks, err);
    free(dir);
    return st;
}

static char *text_of(const char *run, const char *file)
{
    char *path = mode_xasprintf("%s/%s/%s", world.dir, run, file), *text = NULL;
    struct mode_error err;
    world_ok(mode_file_read(path, 0, &text, NULL, &err), &err);
    free(path);
    return text;
}

static bool same_file(const char *a, const char *b, const char *file)
{
    char *x = mode_xasprintf("%s/%s/%s", world.dir, a, file), *y = mode_xasprintf("%s/%s/%s", world.dir, b, file);
    char dx[MODE_DIGEST_HEX], dy[MODE_DIGEST_HEX];
    bool ok = mode_digest_file(x, dx, NULL, NULL) == MODE_OK && mode_digest_file(y, dy, NULL, NULL) == MODE_OK;
    free(x);
    free(y);
    return ok && strcmp(dx, dy) == 0;
}

static void expect_same_model(const char *a, const char *b)
{
    for (int i = 0; i < WORLD_FILES; i++) assert_true(same_file(a, b, world_files[i]));
}

/* The row that evaluating the model in folder gives. */
static json_t *evaluated(const char *folder, const char *task, uint64_t step)
{
    struct mode_error err;
    struct mode_evalset set;
    struct mode_tokenizer *tokenizer;
    struct mode_clip *clip;
    json_t *o;
    char *dir = mode_path_join(world.dir, folder), *config = mode_path_join(dir, MODE_FILE_CLIP_CONFIG),
         *weights = mode_path_join(dir, MODE_FILE_CLIP_WEIGHTS);
    world_ok(mode_evalset_open(&set, task, &err), &err);
    world_ok(mode_tokenizer_open_clip(&tokenizer, world.merges, MODE_CLIP_CLEAN_OPENAI, &err), &err);
    world_ok(mode_clip_load_files(&clip, be, config, weights, &err), &err);
    float *cosine = mode_xcalloc((size_t)set.n_images * (size_t)mode_evaluate_columns(&set), sizeof *cosine);
    world_ok(mode_evaluate(cosine, clip, tokenizer, &set, 64, NULL, &err), &err);
    const struct mode_result r = mode_evaluate_result(&set, cosine, "");
    world_ok(mode_result_json(&o, &r, &err), &err);
    json_t *row = json_pack("{s:I, s:O, s:O, s:O}", "step", (json_int_t)step, "dataset", json_object_get(o, "dataset"),
                            "metrics", json_object_get(o, "metrics"), "main_metrics",
                            json_object_get(o, "main_metrics"));
    json_decref(o);
    free(cosine);
    mode_clip_close(&clip);
    mode_tokenizer_close(&tokenizer);
    mode_evalset_close(&set);
    free(dir);
    free(config);
    free(weights);
    return row;
}

static void test_the_numbers_are_those_of_an_evaluation(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct mode_validation *v = tasks(true);
    struct run plain = {0}, whole = {0};
    struct mode_train_result r;
    world_ok(train("plain", NULL, &plain, NULL, NULL, NULL, &err), &err);
    world_ok(train("whole", v, &whole, NULL, NULL, &r, &err), &err);
    mode_validation_close(&v);
    expect_same_model("plain", "whole");
    assert_int_equal(whole.results, 4 * TASKS);
    assert_true(r.validation_seconds > 0);
    char *none = mode_path_join(world.dir, "plain/" MODE_FILE_VALIDATION),
         *text = text_of("whole", MODE_FILE_VALIDATION), *line = text;
    assert_false(mode_file_exists(none));
    for (uint64_t step = 0; step <= TOTAL; step += EVERY)
        for (int i = 0; i < TASKS; i++, line = strchr(line, '\n') + 1) {
            json_t *row = json_loads(line, JSON_DISABLE_EOF_CHECK, NULL);
            char *folder = step == TOTAL ? mode_xstrdup("whole")
                                         : mode_xasprintf("whole/ckpt/step-%010llu", (unsigned long long)step);
            assert_int_equal(json_integer_value(json_object_get(row, "step")), step);
            json_t *want = step ? evaluated(folder, dirs[i], step) : NULL;
            char *a = json_dumps(row, JSON_SORT_KEYS | JSON_REAL_PRECISION(10)),
                 *b = want ? json_dumps(want, JSON_SORT_KEYS | JSON_REAL_PRECISION(10)) : NULL;
            if (want) assert_string_equal(a, b);
            json_decref(row);
            json_decref(want);
            free(a);
            free(b);
            free(folder);
        }
    assert_string_equal(line, "");
    free(text);
    free(none);
    free(plain.t.last);
    free(whole.t.last);
}

static void test_every_point_is_there_once(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct mode_validation *v = tasks(true);
    char *curve = mode_path_join(world.dir, "curve"), *four = mode_path_join(world.dir, "pieces/ckpt/step-0000000004");
    /* stopped during the first validation, the one after step 8, and the last; killed in between */
    struct run zero = {.stops = true}, eight = {.stops = true, .stop_in = 8}, killed = {.t.stop_at = 7},
               twelve = {.stops = true, .stop_in = TOTAL}, end = {0};
    const struct mode_board_place place[] = {{curve, 1}, {curve, 2}, {curve, 3}, {curve, 4}, {curve, 5}};
    assert_int_equal(train("pieces", v, &zero, NULL, &place[0], NULL, &err), MODE_E_STOPPED);
    assert_null(zero.t.last); /* nothing is lost */
    assert_int_equal(train("pieces", v, &eight, NULL, &place[1], NULL, &err), MODE_E_STOPPED);
    assert_non_null(strstr(err.text, "stopped after step 8"));
    assert_int_equal(train("pieces", v, &killed, four, &place[2], NULL, &err), MODE_E_STOPPED); /* as if killed */
    assert_int_equal(train("pieces", v, &twelve, four, &place[3], NULL, &err), MODE_E_STOPPED);
    assert_non_null(strstr(twelve.t.last, "step-0000000012"));
    world_ok(train("pieces", v, &end, twelve.t.last, &place[4], NULL, &err), &err);
    expect_same_model("plain", "pieces");
    assert_true(same_file("whole", "pieces", MODE_FILE_VALIDATION));

    size_t n;
    struct read_event *e = reader_load(&n, curve, ".val");
    assert_int_equal(n, 1 + 4);
    for (uint64_t i = 0; i < 4; i++) {
        assert_int_equal(e[i + 1].step, i * EVERY);
        assert_non_null(reader_value_of(&e[i + 1], "val/colours-zeroshot-val-top1"));
        assert_non_null(reader_value_of(&e[i + 1], "val/pairs-text_retrieval_recall@1"));
    }
    free(e);
    free(reader_load(&n, curve, ".train"));
    assert_int_equal(n, TOTAL + 2);

    /* resuming without validation keeps earlier results; in a run the last point comes from the evaluation */
    struct run on = {0}, runs = {0};
    char *before = text_of("pieces/ckpt/step-0000000008", MODE_FILE_VALIDATION), *eighth;
    eighth = mode_path_join(world.dir, "pieces/ckpt/step-0000000008");
    world_ok(train("without", NULL, &on, eighth, NULL, NULL, &err), &err);
    char *after = text_of("without", MODE_FILE_VALIDATION);
    assert_string_equal(before, after);
    mode_validation_close(&v);
    v = tasks(false);
    world_ok(train("run", v, &runs, NULL, NULL, NULL, &err), &err);
    assert_int_equal(runs.results, 3 * TASKS);
    char *all[] = {curve,     four,        eight.t.last, killed.t.last, twelve.t.last, end.t.last,
                   on.t.last, runs.t.last, before,       after,         eighth};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    mode_validation_close(&v);
}

/* A copy of the first task whose last picture is truncated. */
static char *broken_task(void)
{
    struct mode_error err;
    char *text;
    size_t size;
    char *from = mode_path_join(dirs[0], "test/0.tar"), *dir = mode_path_join(world.dir, "broken"),
         *test = mode_path_join(dir, "test"), *to = mode_path_join(test, "0.tar");
    static const char *const words[] = {"classnames.txt", "zeroshot_classification_templates.txt", "test/nshards.txt"};
    world_ok(mode_dir_make(test, &err), &err);
    for (int i = 0; i < 3; i++) {
        char *a = mode_path_join(dirs[0], words[i]), *b = mode_path_join(dir, words[i]);
        world_ok(mode_file_copy(a, b, false, &err), &err);
        free(a);
        free(b);
    }
    world_ok(mode_file_read(from, 0, &text, &size, &err), &err);
    char *last = NULL;
    for (size_t i = 0; i + 4 < size; i++)
        if (memcmp(text + i, "IDAT", 4) == 0) last = text + i;
    memset(last + 4, 0, 40);
    world_ok(mode_file_write_atomic(to, text, size, &err), &err);
    free(text);
    free(from);
    free(test);
    free(to);
    return dir;
}

static void test_a_bad_task_ends_the_training_before_its_first_step(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct mode_validation *v;
    struct run r = {0};
    char *broken = broken_task(), *missing = mode_path_join(world.dir, "nowhere"), *twice[] = {dirs[0], dirs[0]};
    char digest[MODE_DIGEST_HEX], *path = mode_path_join(world.dir, "validation.json");
    struct mode_validation_options o = {.n = 1, .dir = &broken, .every = EVERY, .batch = 64};
    world_ok(mode_validation_open(&v, &o, &err), &err);
    assert_int_equal(train("bad", v, &r, NULL, NULL, NULL, &err), MODE_E_FORMAT);
    assert_non_null(strstr(err.text, "training seed, validation after step 0: task broken: picture s0000011"));
    assert_int_equal(r.t.seen, 0);
    mode_validation_close(&v);

    o.dir = &missing;
    assert_int_equal(mode_validation_open(&v, &o, &err), MODE_E_NOINPUT);
    assert_null(v);
    o.dir = twice;
    o.n = 2;
    assert_int_equal(mode_validation_open(&v, &o, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "colours"));

    /* as a run saves it */
    world_ok(mode_validation_open_saved(&v, path, true, &err), &err);
    assert_null(v);
    world_ok(mode_evalset_digest(dirs[0], digest, &err), &err);
    const char *planned = digest;
    o = (struct mode_validation_options){.n = 1, .dir = dirs, .digest = &planned, .every = 7, .batch = 3};
    world_ok(mode_validation_save(&o, path, &err), &err);
    world_ok(mode_validation_open_saved(&v, path, true, &err), &err);
    assert_int_equal(mode_validation_every(v), 7);
    assert_true(mode_validation_due(v, 21, 5, 40) && mode_validation_due(v, 5, 5, 40));
    assert_false(mode_validation_due(v, 20, 5, 40) || mode_validation_due(v, 42, 5, 42));
    mode_validation_close(&v);
    digest[0] = digest[0] == 'a' ? 'b' : 'a';
    world_ok(mode_validation_save(&o, path, &err), &err);
    assert_int_equal(mode_validation_open_saved(&v, path, true, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "changed since"));
    world_ok(mode_validation_open_saved(&v, path, false, &err), &err);
    mode_validation_close(&v);
    world_ok(mode_file_write_atomic(path, "{\"every\": 7}", 12, &err), &err);
    assert_int_equal(mode_validation_open_saved(&v, path, true, &err), MODE_E_FORMAT);
    free(broken);
    free(missing);
    free(path);
}

static bool has(const char *dir, const char *name)
{
    char *path = mode_path_join(dir, name);
    const bool is = mode_file_exists(path);
    free(path);
    return is;
}

static void begin(const char *dir, const char *model, const char *key, bool writes)
{
    struct mode_error err;
    char *path;
    world_ok(mode_validation_begin(&path, dir, model, key, &err), &err);
    if (writes) world_ok(mode_file_write_atomic(path, key, strlen(key), &err), &err);
    free(path);
}

static void test_rows_of_a_run_stay_with_their_training(void **state)
{
    (void)state;
    struct mode_error err;
    char *dir = mode_path_join(world.dir, "of a run"), *old = mode_path_join(dir, "old.jsonl"),
         *model[] = {"expert-1", "expert-11"}, *none;
    const char *const first[] = {"aa", "bb"}, *const second[] = {"aa", "cc"};
    mode_validation_keep(dir, 2, model, first); /* there is no folder: nothing was evaluated */
    for (int i = 0; i < 2; i++) begin(dir, model[i], first[i], true);
    world_ok(mode_file_write_atomic(old, "", 0, &err), &err); /* of no known model */
    begin(dir, model[0], first[0], false);                    /* killed and resumed */
    mode_validation_keep(dir, 2, model, first);
    assert_true(has(dir, "expert-1.jsonl") && has(dir, "expert-11.jsonl"));
    assert_false(has(dir, "old.jsonl"));
    mode_validation_keep(dir, 2, model, second); /* one has another key now, and no results with it */
    assert_true(has(dir, "expert-1.jsonl") && has(dir, "expert-1.key"));
    assert_false(has(dir, "expert-11.jsonl") || has(dir, "expert-11.key"));
    begin(dir, model[0], "dd", false); /* another key: no rows yet */
    assert_false(has(dir, "expert-1.jsonl"));
    begin(dir, model[0], "dd", true);
    mode_validation_keep(dir, 1, model, first);
    assert_false(has(dir, "expert-1.jsonl"));
    assert_int_equal(mode_validation_begin(&none, "/dev/null/x", "m", "aa", &err), MODE_E_CREATE);
    assert_null(none);
    free(dir);
    free(old);
}

int main(void)
{
    const struct CMUnitTest all[] = {cmocka_unit_test(test_the_numbers_are_those_of_an_evaluation),
                                     cmocka_unit_test(test_every_point_is_there_once),
                                     cmocka_unit_test(test_a_bad_task_ends_the_training_before_its_first_step),
                                     cmocka_unit_test(test_rows_of_a_run_stay_with_their_training)};
    return cmocka_run_group_tests(all, setup, teardown);
}
