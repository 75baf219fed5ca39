/* Training on a small world: resume, fork, errors. */
#include "train_world.h"

#include "base/parallel.h"
#include "data/safetensors.h"
#include "models/clip.h"
#include "nn/backend.h"
#include "tfevents_reader.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

enum { BATCH = 10, FORK = 6, TOTAL = 12 };

static struct world world;
static struct mode_backend *be;

static int setup(void **state)
{
    (void)state;
    world_open(&world);
    return mode_backend_open(&be, "cpu", NULL) != MODE_OK;
}

static int teardown(void **state)
{
    (void)state;
    mode_backend_close(&be);
    world_close(&world);
    return 0;
}

static char *file_of(const char *run, const char *file)
{
    return mode_xasprintf("%s/%s/%s", world.dir, run, file);
}

static struct mode_train_spec spec_of(uint64_t start, uint64_t end, const struct mode_train_parent *parent)
{
    struct mode_train_spec spec = world_train_spec(&world, BATCH, TOTAL);
    spec.start_step = start;
    spec.end_step = end;
    spec.checkpoint_steps = 4;
    spec.parent = parent;
    return spec;
}

struct stopper {
    struct world_training t;
    const struct mode_board_place *board;
};

static enum mode_status train(const char *run, const struct mode_train_spec *spec, struct stopper *stopper,
                              const char *resume_from, struct mode_train_result *result, struct mode_error *err)
{
    char *dir = file_of(run, "");
    struct stopper own = {0};
    if (!stopper) stopper = &own;
    stopper->t.world = &world;
    stopper->t.run = run;
    struct mode_train_hooks hooks = world_train_hooks(&stopper->t);
    hooks.resume_from = resume_from;
    hooks.board = stopper->board;
    enum mode_status st = world_train(result, dir, be, spec, &hooks, err);
    free(dir);
    if (stopper == &own) free(own.t.last);
    return st;
}

static bool same_file(const char *a, const char *b, const char *file)
{
    char *x = file_of(a, file), *y = file_of(b, file), dx[MODE_DIGEST_HEX], dy[MODE_DIGEST_HEX];
    bool ok = mode_digest_file(x, dx, NULL, NULL) == MODE_OK && mode_digest_file(y, dy, NULL, NULL) == MODE_OK;
    free(x);
    free(y);
    return ok && strcmp(dx, dy) == 0;
}

/* The fingerprint of a checkpoint must not change between versions: otherwise an upgrade could not resume the
 * checkpoints of a workspace, and days of work would end in a failed task. */
static void expect_fingerprint(const char *checkpoint)
{
    char *path = mode_path_join(checkpoint, "fingerprint"), *text = NULL;
    struct mode_error err = {0};
    world_ok(mode_file_read(path, 0, &text, NULL, &err), &err);
    assert_string_equal(text, "c89b9964346f7ddd09c988b8eeb4314dc3481954d14c43f45c7c8c2daa2798b8");
    free(text);
    free(path);
}

static void test_an_interrupted_training_ends_with_the_same_bytes(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct mode_train_spec spec = spec_of(0, TOTAL, NULL);
    struct mode_train_result r;
    struct stopper whole = {0}, first = {.t.stop_at = 5}, second = {.t.stop_at = 9}, third = {0};
    world_ok(train("whole", &spec, &whole, NULL, &r, &err), &err);
    assert_int_equal(whole.t.checkpoints, 2); /* after 4 and 8; not after the last */
    assert_int_equal(r.samples_seen, TOTAL * BATCH);
    assert_int_equal(train("pieces", &spec, &first, NULL, &r, &err), MODE_E_STOPPED);
    assert_int_equal(first.t.seen, 5);
    expect_fingerprint(first.t.last);
    assert_int_equal(train("pieces", &spec, &second, first.t.last, &r, &err), MODE_E_STOPPED);
    assert_int_equal(r.resumed_at, 5);
    world_ok(train("pieces", &spec, &third, second.t.last, &r, &err), &err);
    assert_int_equal(r.resumed_at, 9);
    assert_int_equal(r.steps_run, TOTAL - 9);
    for (int i = 0; i < WORLD_FILES; i++) assert_true(same_file("whole", "pieces", world_files[i]));

    spec.lr = 2e-3; /* a checkpoint of another training */
    assert_int_equal(train("other", &spec, NULL, second.t.last, &r, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "other parameters"));
    free(whole.t.last);
    free(first.t.last);
    free(second.t.last);
    free(third.t.last);
}

/* By windows, stopped in the middle of windows and epochs; a checkpoint with another order is refused. */
static void test_by_windows_an_interrupted_training_ends_with_the_same_bytes(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct mode_train_spec spec = spec_of(0, TOTAL, NULL);
    struct mode_train_result r;
    struct stopper whole = {0}, pieces = {0};
    char *from = NULL;
    spec.window_shards = 2;
    world_ok(train("windows", &spec, &whole, NULL, &r, &err), &err);
    for (uint64_t stop = 1; stop < TOTAL; stop += 3) {
        pieces = (struct stopper){.t.stop_at = stop};
        assert_int_equal(train("windows-pieces", &spec, &pieces, from, &r, &err), MODE_E_STOPPED);
        free(from);
        from = pieces.t.last;
    }
    struct mode_train_spec other = spec;
    for (uint32_t w = 0; w < 2; w++) {
        other.window_shards = w;
        assert_int_equal(train("windows-other", &other, NULL, from, &r, &err), MODE_E_VALUE);
        assert_non_null(strstr(err.text, "other parameters"));
    }
    world_ok(train("windows-pieces", &spec, NULL, from, &r, &err), &err);
    for (int i = 0; i < WORLD_FILES; i++) assert_true(same_file("windows", "windows-pieces", world_files[i]));
    assert_false(same_file("windows", "whole", MODE_FILE_CLIP_WEIGHTS));
    free(whole.t.last);
    free(from);
}

static json_t *row_of(const char *run, int line);
static double number(const json_t *o, const char *key);

/* The rows of steps.jsonl and the TensorBoard events are the same series. */
static void expect_curve(const char *dir, const char *run, uint64_t first, uint64_t last)
{
    size_t n;
    struct read_event *e = reader_load(&n, dir, ".train");
    assert_int_equal(n, last - first + 3);
    for (uint64_t i = 0; i <= last - first; i++) {
        json_t *row = row_of(run, (int)i);
        const struct read_event *x = &e[i + 2];
        assert_int_equal(x->step, first + i);
        assert_int_equal(json_integer_value(json_object_get(row, "step")), first + i);
        assert_true(*reader_value_of(x, "train/loss") == (float)number(row, "loss"));
        assert_true(*reader_value_of(x, "train/lr") == (float)number(row, "lr"));
        assert_true(*reader_value_of(x, "train/scale") == (float)number(row, "logit_scale"));
        assert_true(*reader_value_of(x, "train/samples_per_second") > 0);
        json_decref(row);
    }
    free(e);
}

/* As if killed: stopped at step 6 and resumed from the checkpoint of step 4, so steps 5 and 6 run twice. */
static void test_a_curve_has_every_step_once(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct mode_train_spec spec = spec_of(0, TOTAL, NULL);
    struct mode_train_result r;
    char *straight = file_of("board", "straight"), *killed = file_of("board", "killed"), *four;
    const struct mode_board_place a = {straight, 1}, b = {killed, 1}, c = {killed, 2};
    struct stopper whole = {.board = &a}, first = {.t.stop_at = 6, .board = &b}, second = {.board = &c};
    world_ok(train("curve", &spec, &whole, NULL, &r, &err), &err);
    expect_curve(straight, "curve", 1, TOTAL);
    assert_int_equal(train("killed", &spec, &first, NULL, &r, &err), MODE_E_STOPPED);
    four = file_of("killed", "ckpt/step-0000000004");
    world_ok(train("killed", &spec, &second, four, &r, &err), &err);
    assert_int_equal(r.resumed_at, 4);
    expect_curve(killed, "curve", 1, TOTAL); /* the other training's rows */
    for (int i = 0; i < WORLD_FILES; i++) {
        assert_true(same_file("curve", "killed", world_files[i]));
        assert_true(same_file("curve", "whole", world_files[i])); /* that one had no curve */
    }
    assert_int_equal(whole.t.notices + second.t.notices, 0);

    /* if it cannot be written the training goes on without it, and says so once */
    char *file = file_of("curve", MODE_FILE_STEPS);
    const struct mode_board_place no = {file, 1};
    struct stopper none = {.board = &no};
    world_ok(train("none", &spec, &none, NULL, &r, &err), &err);
    assert_int_equal(none.t.notices, 1);
    assert_true(same_file("curve", "none", MODE_FILE_CLIP_WEIGHTS));
    free(file);
    free(none.t.last);
    free(whole.t.last);
    free(first.t.last);
    free(second.t.last);
    free(four);
    free(straight);
    free(killed);
}

struct inside {
    enum mode_status st;
    struct mode_error err;
};

static void train_in_item(void *ctx, int64_t item, int thread)
{
    struct inside *x = ctx;
    struct mode_train_spec spec = spec_of(0, TOTAL, NULL);
    (void)item;
    (void)thread;
    x->st = train("serial", &spec, NULL, NULL, NULL, &x->err);
}

static void test_the_number_of_threads_does_not_show(void **state)
{
    (void)state;
    struct inside x = {0};
    assert_true(mode_parallel_threads() > 1);
    mode_parallel_for(1, train_in_item, &x); /* inside an item everything runs on one thread */
    world_ok(x.st, &x.err);
    for (int i = 0; i < WORLD_FILES; i++) assert_true(same_file("whole", "serial", world_files[i]));
}

/* Gradient caching, clipping and less memory: the losses of a whole batch, bit-identical after an interruption in the
 * middle of an epoch, and activation checkpointing does not change them. */
static void test_accumulation_and_clipping_resume_to_the_same_bytes(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct mode_train_spec spec = spec_of(0, TOTAL, NULL);
    struct stopper first = {.t.stop_at = 5}, second = {0}, other = {0};
    spec.grad_clip_norm = 0.5;
    world_ok(train("clipped", &spec, NULL, NULL, NULL, &err), &err);
    spec.accumulate = 3;
    world_ok(train("accumulated", &spec, NULL, NULL, NULL, &err), &err);
    spec.checkpoint_activations = true;
    assert_int_equal(train("interrupted", &spec, &first, NULL, NULL, &err), MODE_E_STOPPED);
    world_ok(train("interrupted", &spec, &second, first.t.last, NULL, &err), &err);
    for (int i = 0; i < WORLD_FILES; i++) assert_true(same_file("accumulated", "interrupted", world_files[i]));
    bool clipped = false;
    for (int i = 0; i < TOTAL; i++) {
        json_t *one = row_of("clipped", i), *pieces = row_of("accumulated", i), *free_row = row_of("whole", i);
        assert_true(fabs(number(one, "loss") - number(pieces, "loss")) < 1e-4 * number(one, "loss"));
        assert_true(fabs(number(one, "grad_norm") - number(pieces, "grad_norm")) < 1e-3 * number(one, "grad_norm"));
        clipped = clipped || number(one, "grad_norm") > 0.5;
        if (i == 4) assert_true(fmod(number(one, "epoch"), 1) > 0); /* where it was interrupted */
        assert_null(json_object_get(free_row, "grad_norm"));
        json_decref(one);
        json_decref(pieces);
        json_decref(free_row);
    }
    assert_true(clipped);
    assert_false(same_file("clipped", "whole", MODE_FILE_CLIP_WEIGHTS));
    spec.accumulate = 2;
    assert_int_equal(train("other2", &spec, &other, first.t.last, NULL, &err), MODE_E_VALUE);
    spec.accumulate = BATCH + 1;
    assert_int_equal(train("other3", &spec, &other, NULL, NULL, &err), MODE_E_VALUE);
    free(first.t.last);
    free(second.t.last);
    free(other.t.last);
}

static void train_dropping_in_item(void *ctx, int64_t item, int thread)
{
    struct inside *x = ctx;
    struct mode_train_spec spec = spec_of(0, TOTAL, NULL);
    (void)item;
    (void)thread;
    spec.patch_dropout = 0.5;
    x->st = train("drops-serial", &spec, NULL, NULL, NULL, &x->err);
}

/* The patches of a step are those of its samples: the same bytes after an interruption, with one thread, and with
 * recomputed activations; within rounding the same with accumulation. */
static void test_patch_dropout_resumes_to_the_same_bytes(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct mode_train_spec spec = spec_of(0, TOTAL, NULL), other;
    struct stopper whole = {0}, first = {.t.stop_at = 5}, second = {0}, none = {0};
    struct inside x = {0};
    char *summary = NULL, *path = file_of("drops", MODE_FILE_TRAIN);
    spec.patch_dropout = 0.5;
    world_ok(train("drops", &spec, &whole, NULL, NULL, &err), &err);
    assert_string_equal(whole.t.notice, "patch dropout 0.5: a step computes 2 of the 4 patches of every picture");
    world_ok(mode_file_read(path, 0, &summary, NULL, &err), &err);
    assert_non_null(strstr(summary, "\"patch_dropout\": 0.5"));
    assert_true(same_file("drops", "whole", MODE_FILE_CLIP_CONFIG));
    assert_false(same_file("drops", "whole", MODE_FILE_CLIP_WEIGHTS));
    mode_parallel_for(1, train_dropping_in_item, &x);
    world_ok(x.st, &x.err);
    spec.checkpoint_activations = true;
    assert_int_equal(train("drops-pieces", &spec, &first, NULL, NULL, &err), MODE_E_STOPPED);
    for (int k = 0; k < 2; k++) {
        other = spec;
        other.patch_dropout = k ? 0.25 : 0;
        assert_int_equal(train("drops-other", &other, &none, first.t.last, NULL, &err), MODE_E_VALUE);
        assert_non_null(strstr(err.text, "other parameters"));
    }
    world_ok(train("drops-pieces", &spec, &second, first.t.last, NULL, &err), &err);
    for (int i = 0; i < WORLD_FILES; i++) {
        assert_true(same_file("drops", "drops-pieces", world_files[i]));
        assert_true(same_file("drops", "drops-serial", world_files[i]));
    }
    spec.accumulate = 3;
    world_ok(train("drops-accumulated", &spec, &none, NULL, NULL, &err), &err);
    for (int i = 0; i < TOTAL; i++) {
        json_t *one = row_of("drops", i), *pieces = row_of("drops-accumulated", i);
        assert_true(fabs(number(one, "loss") - number(pieces, "loss")) < 1e-4 * number(one, "loss"));
        json_decref(one);
        json_decref(pieces);
    }
    spec.patch_dropout = 1;
    assert_int_equal(train("drops-all", &spec, &none, NULL, NULL, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "a patch dropout of 1, expected"));
    free(summary);
    free(path);
    free(whole.t.last);
    free(first.t.last);
    free(second.t.last);
    free(none.t.last);
}

/* The tensors of a file: how many, and how many of them have a name that begins with this. */
static size_t tensors_of(const char *run, const char *file, const char *begin, size_t *n)
{
    struct mode_safetensors f;
    struct mode_error err = {0};
    char *path = file_of(run, file);
    world_ok(mode_safetensors_open(&f, path, &err), &err);
    size_t found = 0;
    for (size_t i = 0; i < f.n_tensors; i++) found += strncmp(f.tensors[i].name, begin, strlen(begin)) == 0;
    *n = f.n_tensors;
    mode_safetensors_close(&f);
    free(path);
    return found;
}

static void same_visual(const char *a, const char *b, bool same)
{
    struct mode_safetensors x, y;
    struct mode_error err = {0};
    char *px = file_of(a, MODE_FILE_CLIP_WEIGHTS), *py = file_of(b, MODE_FILE_CLIP_WEIGHTS);
    world_ok(mode_safetensors_open(&x, px, &err), &err);
    world_ok(mode_safetensors_open(&y, py, &err), &err);
    for (size_t i = 0; i < x.n_tensors; i++) {
        const struct mode_tensor *t = &x.tensors[i], *u = mode_safetensors_find(&y, t->name);
        if (strncmp(t->name, "visual.", 7) == 0)
            assert_int_equal(memcmp(t->data, u->data, mode_tensor_bytes(t)) == 0, same);
    }
    mode_safetensors_close(&x);
    mode_safetensors_close(&y);
    free(px);
    free(py);
}

/* A locked image tower: its weights stay those of the parent, it has no moments, interruptions and accumulation as
 * without locks; another lock is another training. From the moments of a training without locks it goes on, the other
 * way round it is refused. */
static void test_a_locked_tower_stays_and_resumes_to_the_same_bytes(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct mode_train_spec spec = spec_of(0, FORK, NULL), other;
    struct stopper whole = {0}, first = {.t.stop_at = FORK + 2}, second = {0}, none = {0};
    char *weights = file_of("open", MODE_FILE_CLIP_WEIGHTS), *moments = file_of("open", MODE_FILE_CLIP_OPTIMIZER);
    char *locked = file_of("locked", MODE_FILE_CLIP_OPTIMIZER), *summary = NULL,
         *path = file_of("locked", "train.json");
    const struct mode_train_parent parent = {NULL, weights, moments};
    size_t n, all;
    world_ok(train("open", &spec, &none, NULL, NULL, &err), &err);
    assert_true(tensors_of("open", MODE_FILE_CLIP_OPTIMIZER, "exp_avg.visual.", &all) > 0);
    spec = spec_of(FORK, TOTAL, &parent);
    spec.lock = (struct mode_clip_lock){.image = true, .text = true, .text_unlocked_layers = 2};
    world_ok(train("locked", &spec, &whole, NULL, NULL, &err), &err);
    assert_non_null(strstr(whole.t.notice, "locked: image tower, text tower but its last 2 layers: "));
    assert_int_equal(tensors_of("locked", MODE_FILE_CLIP_OPTIMIZER, "exp_avg.visual.", &n), 0);
    assert_true(n > 0 && n < all / 2);
    same_visual("locked", "open", true);
    assert_false(same_file("locked", "open", MODE_FILE_CLIP_WEIGHTS));
    world_ok(mode_file_read(path, 0, &summary, NULL, &err), &err);
    assert_non_null(strstr(summary, "\"lock_image\": true"));
    assert_null(strstr(summary, "lock_image_unlocked_groups"));
    assert_non_null(strstr(summary, "\"lock_text_unlocked_layers\": 2"));
    assert_int_equal(train("locked-pieces", &spec, &first, NULL, NULL, &err), MODE_E_STOPPED);
    for (int k = 0; k < 4; k++) {
        other = spec;
        other.lock = (struct mode_clip_lock){k != 1, k != 2, k == 3, 2 + (k == 0)};
        assert_int_equal(train("locked-other", &other, &none, first.t.last, NULL, &err), MODE_E_VALUE);
        assert_non_null(strstr(err.text, "other parameters"));
    }
    spec.checkpoint_activations = true;
    world_ok(train("locked-pieces", &spec, &second, first.t.last, NULL, &err), &err);
    for (int i = 0; i < WORLD_FILES; i++) assert_true(same_file("locked", "locked-pieces", world_files[i]));
    spec.accumulate = 3;
    world_ok(train("locked-accumulated", &spec, &none, NULL, NULL, &err), &err);
    for (int i = 0; i < TOTAL - FORK; i++) {
        json_t *one = row_of("locked", i), *pieces = row_of("locked-accumulated", i);
        assert_true(fabs(number(one, "loss") - number(pieces, "loss")) < 1e-4 * number(one, "loss"));
        json_decref(one);
        json_decref(pieces);
    }
    const struct mode_train_parent of_locked = {NULL, weights, locked};
    spec = world_train_spec(&world, BATCH, TOTAL + 2);
    spec.start_step = TOTAL;
    spec.end_step = TOTAL + 2;
    spec.parent = &of_locked;
    assert_int_equal(train("unlocked", &spec, &none, NULL, NULL, &err), MODE_E_FORMAT);
    assert_non_null(strstr(err.text, "has no moments of "));
    assert_non_null(strstr(err.text, "--fresh-optimizer"));
    free(summary);
    free(path);
    free(locked);
    free(weights);
    free(moments);
    free(whole.t.last);
    free(first.t.last);
    free(second.t.last);
    free(none.t.last);
}

static json_t *row_of(const char *run, int line)
{
    char *path = file_of(run, MODE_FILE_STEPS), *text = NULL, *at;
    assert_int_equal(mode_file_read(path, 0, &text, NULL, NULL), MODE_OK);
    at = text;
    while (line-- > 0) at = strchr(at, '\n') + 1;
    json_t *row = json_loads(at, JSON_DISABLE_EOF_CHECK, NULL);
    assert_non_null(row);
    free(text);
    free(path);
    return row;
}

static double number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    assert_true(json_is_number(v));
    return json_number_value(v);
}

static void test_a_continuation_goes_on_where_the_seed_ended(void **state)
{
    (void)state;
    struct mode_error err = {0};
    char *config = file_of("seed", MODE_FILE_CLIP_CONFIG), *weights = file_of("seed", MODE_FILE_CLIP_WEIGHTS),
         *optimizer = file_of("seed", MODE_FILE_CLIP_OPTIMIZER);
    const struct mode_train_parent parent = {config, weights, optimizer};
    struct mode_train_spec spec = spec_of(0, FORK, NULL);
    world_ok(train("seed", &spec, NULL, NULL, NULL, &err), &err);

    /* the dense continuation equals a training without a fork: same weights, same moments */
    spec = spec_of(FORK, TOTAL, &parent);
    world_ok(train("dense", &spec, NULL, NULL, NULL, &err), &err);
    assert_true(same_file("whole", "dense", MODE_FILE_CLIP_WEIGHTS));
    assert_true(same_file("whole", "dense", MODE_FILE_CLIP_OPTIMIZER));

    /* an expert starts from the same step and rate, on pairs of its own */
    struct mode_train_result r;
    spec.name = "expert-1";
    spec.expert = 1;
    world_ok(train("expert", &spec, NULL, NULL, &r, &err), &err);
    assert_false(same_file("dense", "expert", MODE_FILE_CLIP_WEIGHTS));
    assert_int_equal(r.in_cluster + r.outside, WORLD_SHARDS * WORLD_ROWS);
    assert_int_equal(r.out_of_cluster, (uint64_t)(0.1 * (double)r.outside));
    json_t *a = row_of("whole", FORK), *b = row_of("expert", 0);
    assert_int_equal((int)number(b, "step"), FORK + 1);
    assert_true(number(a, "lr") == number(b, "lr"));
    assert_true(number(a, "samples_seen") == number(b, "samples_seen"));
    json_decref(a);
    json_decref(b);

    /* with twice the stride: the learning rates of every second step */
    spec.end_step = FORK + 3;
    spec.schedule_stride = 2;
    world_ok(train("short", &spec, NULL, NULL, NULL, &err), &err);
    for (int i = 0; i < 3; i++) {
        a = row_of("whole", FORK + 2 * i);
        b = row_of("short", i);
        assert_true(fabs(number(a, "lr") - number(b, "lr")) < 1e-12);
        json_decref(a);
        json_decref(b);
    }
    free(config);
    free(weights);
    free(optimizer);
}

/* A selection of exactly a group's clusters trains to the same bytes as the group's expert. Any other selection is
 * another model and refuses its checkpoints, even if the pools have the same size. */
static void test_a_selection_is_trained_as_a_group(void **state)
{
    (void)state;
    struct mode_error err = {0};
    char *config = file_of("seed", MODE_FILE_CLIP_CONFIG), *weights = file_of("seed", MODE_FILE_CLIP_WEIGHTS),
         *optimizer = file_of("seed", MODE_FILE_CLIP_OPTIMIZER);
    const struct mode_train_parent parent = {config, weights, optimizer};
    char *group = world_selection(&world, "of-group", (const int[]){0, 3}, 2),
         *others = world_selection(&world, "of-others", (const int[]){1, 2}, 2),
         *none = world_selection(&world, "no-clusters", NULL, 0);
    struct mode_train_spec spec = spec_of(FORK, TOTAL, &parent);
    struct mode_train_result r;
    spec.name = "of-words";
    spec.selection = group;
    spec.centres = NULL;
    world_ok(train("selected", &spec, NULL, NULL, &r, &err), &err);
    assert_true(same_file("expert", "selected", MODE_FILE_CLIP_WEIGHTS));
    assert_true(same_file("expert", "selected", MODE_FILE_STEPS));
    assert_int_equal(r.in_cluster + r.outside, WORLD_SHARDS * WORLD_ROWS);
    char *path = file_of("selected", MODE_FILE_TRAIN), digest[MODE_DIGEST_HEX];
    world_ok(mode_digest_file(group, digest, NULL, &err), &err);
    json_t *o = json_load_file(path, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(o, "selection")), digest);
    assert_int_equal(json_integer_value(json_object_get(o, "expert")), -1);
    json_decref(o);
    free(path);
    path = file_of("dense", MODE_FILE_TRAIN);
    o = json_load_file(path, 0, NULL);
    assert_null(json_object_get(o, "selection"));
    json_decref(o);
    free(path);

    struct stopper s = {0};
    s.t.stop_at = FORK + 2;
    spec.checkpoint_steps = 1;
    assert_int_equal(train("stopped", &spec, &s, NULL, NULL, &err), MODE_E_STOPPED);
    spec.selection = others;
    assert_int_equal(train("stopped", &spec, NULL, s.t.last, NULL, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "of a training with other parameters or data"));
    spec.selection = group;
    world_ok(train("resumed", &spec, NULL, s.t.last, NULL, &err), &err);
    assert_true(same_file("selected", "resumed", MODE_FILE_CLIP_WEIGHTS));
    spec.selection = none;
    assert_int_equal(train("bad", &spec, NULL, NULL, NULL, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "none of the 93 pairs lies in a fine cluster that "));
    free(s.t.last);
    free(group);
    free(others);
    free(none);
    free(config);
    free(weights);
    free(optimizer);
}

static void test_a_continuation_never_starts_from_something_else(void **state)
{
    (void)state;
    struct mode_error err = {0};
    char *config = file_of("seed", MODE_FILE_CLIP_CONFIG), *weights = file_of("seed", MODE_FILE_CLIP_WEIGHTS),
         *optimizer = file_of("seed", MODE_FILE_CLIP_OPTIMIZER), *missing = file_of("nowhere", MODE_FILE_CLIP_WEIGHTS);
    struct mode_train_parent parent = {config, weights, optimizer};
    struct mode_train_spec spec = spec_of(FORK, TOTAL, NULL);
    assert_int_equal(train("bad", &spec, NULL, NULL, NULL, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "parent"));

    parent.weights = missing;
    spec.parent = &parent;
    assert_int_equal(train("bad", &spec, NULL, NULL, NULL, &err), MODE_E_NOINPUT);

    parent.weights = weights;
    spec.start_step = FORK + 1; /* the seed ended one step earlier */
    assert_int_equal(train("bad", &spec, NULL, NULL, NULL, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "ended at step 6"));

    spec.start_step = FORK; /* a wider parent model */
    spec.model_config = "{\"embed_dim\": 32, \"vision_cfg\": {\"image_size\": 16, \"layers\": 1, \"width\": 32, "
                        "\"head_width\": 16, \"patch_size\": 8}, \"text_cfg\": {\"context_length\": 16, "
                        "\"vocab_size\": 49408, \"width\": 32, \"heads\": 2, \"layers\": 1}}";
    assert_int_equal(train("bad", &spec, NULL, NULL, NULL, &err), MODE_E_VALUE);
    char *wide = mode_xasprintf("{\"model_cfg\": %s, \"preprocess_cfg\": %s}", spec.model_config, WORLD_PREPROCESS);
    char *wide_path = mode_path_join(world.dir, "wide.json");
    world_ok(mode_file_write_atomic(wide_path, wide, strlen(wide), &err), &err);
    parent.config = wide_path; /* even when the config says so */
    assert_int_equal(train("bad", &spec, NULL, NULL, NULL, &err), MODE_E_SHAPE);
    parent.config = config;
    free(wide);
    free(wide_path);

    parent.weights = optimizer; /* not weights at all */
    spec.model_config = WORLD_MODEL;
    assert_int_equal(train("bad", &spec, NULL, NULL, NULL, &err), MODE_E_FORMAT);
    char *out = file_of("bad", MODE_FILE_CLIP_WEIGHTS);
    assert_false(mode_file_exists(out));
    free(out);
    free(config);
    free(weights);
    free(optimizer);
    free(missing);
}

static void test_what_is_odd_about_a_parent_is_said(void **state)
{
    (void)state;
    static const uint16_t half = 0;
    struct mode_error err = {0};
    struct mode_safetensors f;
    char *weights = file_of("seed", MODE_FILE_CLIP_WEIGHTS), *odd = mode_path_join(world.dir, "odd.safetensors");
    world_ok(mode_safetensors_open(&f, weights, &err), &err);
    struct mode_tensor *list = mode_xcalloc(f.n_tensors, sizeof *list);
    for (size_t i = 0; i < f.n_tensors; i++) {
        list[i] = f.tensors[i];
        if (strcmp(list[i].name, "logit_scale") != 0) continue;
        list[i].dtype = MODE_DTYPE_F16;
        list[i].data = (void *)(uintptr_t)&half;
    }
    world_ok(mode_safetensors_write(odd, list, f.n_tensors, NULL, 0, &err), &err);
    struct mode_train_parent parent = {NULL, weights, NULL};
    struct mode_train_spec spec = spec_of(0, 1, &parent);
    struct stopper s = {0};
    world_ok(train("odd", &spec, &s, NULL, NULL, &err), &err);
    assert_int_equal(s.t.notices, 0); /* no notes about a file written by mode */
    parent.weights = odd;
    world_ok(train("odd", &spec, &s, NULL, NULL, &err), &err);
    assert_int_equal(s.t.notices, 1);
    assert_non_null(strstr(s.t.notice, "odd.safetensors: 1 of "));
    assert_non_null(strstr(s.t.notice, "F16, computed with as F32"));
    mode_safetensors_close(&f);
    free(s.t.last);
    free(list);
    free(odd);
    free(weights);
}

static void test_a_loss_that_is_not_finite_ends_the_training(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct mode_train_spec spec = spec_of(0, TOTAL, NULL);
    spec.lr = 1e30;
    spec.warmup_steps = 0;
    assert_int_equal(train("nan", &spec, NULL, NULL, NULL, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "loss of step"));
}

/* A seed of constant rate and a continuation with a cooldown are one training with that schedule, also interrupted. */
static void test_a_fork_with_a_cooldown_continues_a_constant_rate(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct mode_train_result r;
    struct mode_train_spec spec = spec_of(0, TOTAL, NULL);
    char *config = file_of("flat", MODE_FILE_CLIP_CONFIG), *weights = file_of("flat", MODE_FILE_CLIP_WEIGHTS),
         *optimizer = file_of("flat", MODE_FILE_CLIP_OPTIMIZER), *summary = file_of("cooled", MODE_FILE_TRAIN);
    const struct mode_train_parent parent = {config, weights, optimizer};
    struct stopper first = {.t.stop_at = 10}, second = {0};
    spec.schedule = MODE_SCHEDULE_CONSTANT_COOLDOWN;
    spec.cooldown_steps = 4;
    spec.cooldown_power = 1.5;
    spec.cooldown_end = 1e-4;
    world_ok(train("one", &spec, NULL, NULL, NULL, &err), &err);
    struct mode_train_spec flat = spec_of(0, FORK, NULL); /* knows neither the cooldown nor the total */
    flat.schedule = MODE_SCHEDULE_CONSTANT;
    flat.total_steps = FORK;
    world_ok(train("flat", &flat, NULL, NULL, NULL, &err), &err);
    spec.start_step = FORK;
    spec.parent = &parent;
    assert_int_equal(train("cooled", &spec, &first, NULL, NULL, &err), MODE_E_STOPPED);
    struct mode_train_spec other = spec;
    for (int i = 0; i < 4; i++) { /* a checkpoint of another schedule */
        other = spec;
        if (i == 0) other.schedule = MODE_SCHEDULE_COSINE;
        if (i == 1) other.cooldown_steps = 5;
        if (i == 2) other.cooldown_power = 1;
        if (i == 3) other.cooldown_end = 0;
        assert_int_equal(train("other", &other, NULL, first.t.last, NULL, &err), MODE_E_VALUE);
        assert_non_null(strstr(err.text, "other parameters"));
    }
    world_ok(train("cooled", &spec, &second, first.t.last, &r, &err), &err);
    assert_int_equal(r.resumed_at, 10);
    assert_true(same_file("one", "cooled", MODE_FILE_CLIP_WEIGHTS));
    assert_true(same_file("one", "cooled", MODE_FILE_CLIP_OPTIMIZER));
    for (int i = 0; i < TOTAL; i++) {
        json_t *a = row_of("one", i), *b = i < FORK ? row_of("flat", i) : row_of("cooled", i - FORK);
        assert_true(json_equal(a, b));
        const double want = i < 3   ? spec.lr * (i + 1) / 3
                            : i < 8 ? spec.lr
                                    : spec.cooldown_end + (spec.lr - spec.cooldown_end) * pow((12. - i) / 4, 1.5);
        assert_true(fabs(number(a, "lr") - want) < 1e-11);
        json_decref(a);
        json_decref(b);
    }
    json_t *o = json_load_file(summary, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(o, "schedule")), "constant_cooldown");
    assert_int_equal(json_integer_value(json_object_get(o, "cooldown_steps")), 4);
    assert_true(number(o, "cooldown_power") == 1.5 && number(o, "cooldown_end") == 1e-4);
    json_decref(o);

    /* with twice the stride: half the steps of the cooldown, to the same end */
    spec.end_step = FORK + 3;
    spec.schedule_stride = 2;
    world_ok(train("short", &spec, NULL, NULL, NULL, &err), &err);
    for (int i = 0; i < 3; i++) {
        json_t *a = row_of("one", FORK + 2 * i), *b = row_of("short", i);
        assert_true(number(a, "lr") == number(b, "lr"));
        json_decref(a);
        json_decref(b);
    }
    free(first.t.last);
    free(second.t.last);
    free(config);
    free(weights);
    free(optimizer);
    free(summary);
}

static void test_impossible_trainings_are_refused(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct mode_train_spec spec = spec_of(0, TOTAL + 1, NULL);
    assert_int_equal(train("bad", &spec, NULL, NULL, NULL, &err), MODE_E_VALUE);
    spec = spec_of(0, TOTAL, NULL);
    spec.batch = WORLD_SHARDS * WORLD_ROWS + 1;
    assert_int_equal(train("bad", &spec, NULL, NULL, NULL, &err), MODE_E_VALUE);
    assert_non_null(strstr(err.text, "pool"));
    spec = spec_of(0, TOTAL, NULL);
    spec.schedule_stride = 1.5;
    assert_int_equal(train("bad", &spec, NULL, NULL, NULL, &err), MODE_E_VALUE);
    spec = spec_of(0, TOTAL, NULL);
    spec.beta2 = 1;
    assert_int_equal(train("bad", &spec, NULL, NULL, NULL, &err), MODE_E_VALUE);
    for (int i = 0; i < 4; i++) {
        spec = spec_of(0, TOTAL, NULL);
        spec.schedule = MODE_SCHEDULE_CONSTANT_COOLDOWN;
        spec.cooldown_steps = i == 0 ? 0 : i == 1 ? TOTAL + 1 : 3;
        spec.cooldown_power = i == 2 ? 0 : 1;
        spec.cooldown_end = i == 3 ? 2 * spec.lr : 0;
        assert_int_equal(train("bad", &spec, NULL, NULL, NULL, &err), MODE_E_VALUE);
        assert_non_null(strstr(err.text, "a cooldown in the last"));
    }
}

static void test_the_loss_falls(void **state)
{
    (void)state;
    json_t *first = row_of("whole", 0), *last = row_of("whole", TOTAL - 1);
    double chance = log(BATCH);
    assert_true(fabs(number(first, "loss") - chance) < 0.5 * chance);
    assert_true(number(last, "loss") < number(first, "loss"));
    json_decref(first);
    json_decref(last);
}

/* The mean of the last 50 steps, or of all if there are fewer. */
static void test_the_final_loss_is_the_mean_of_the_last_steps(void **state)
{
    (void)state;
    static const char *const runs[] = {"whole", "longer"};
    static const int steps[] = {TOTAL, MODE_TRAIN_FINAL_STEPS + 3};
    struct mode_error err = {0};
    struct mode_train_spec spec = world_train_spec(&world, BATCH, (uint64_t)steps[1]);
    spec.checkpoint_steps = 0;
    world_ok(train("longer", &spec, NULL, NULL, NULL, &err), &err);
    for (int k = 0; k < 2; k++) {
        char *path = file_of(runs[k], MODE_FILE_TRAIN);
        json_t *o = json_load_file(path, 0, NULL);
        const int n = steps[k] < MODE_TRAIN_FINAL_STEPS ? steps[k] : MODE_TRAIN_FINAL_STEPS;
        double sum = 0;
        for (int i = steps[k] - n; i < steps[k]; i++) {
            json_t *row = row_of(runs[k], i);
            sum += number(row, "loss");
            json_decref(row);
        }
        assert_true(fabs(number(o, "final_loss") - sum / n) < 1e-8);
        json_decref(o);
        free(path);
    }
}

/* From the same weights: the seed decides pairs and crops. */
static void test_the_seed_decides_what_is_seen(void **state)
{
    (void)state;
    struct mode_error err = {0};
    char *config = file_of("whole", MODE_FILE_CLIP_CONFIG), *weights = file_of("whole", MODE_FILE_CLIP_WEIGHTS);
    const struct mode_train_parent parent = {config, weights, NULL};
    static const char *const runs[] = {"seed-5", "seed-5-again", "seed-6"};
    double loss[3];
    for (int k = 0; k < 3; k++) {
        struct mode_train_spec spec = spec_of(0, 1, &parent);
        spec.seed = k < 2 ? 5 : 6;
        world_ok(train(runs[k], &spec, NULL, NULL, NULL, &err), &err);
        json_t *row = row_of(runs[k], 0);
        loss[k] = number(row, "loss");
        json_decref(row);
    }
    assert_true(loss[0] == loss[1] && fabs(loss[0] - loss[2]) > 1e-4);
    free(config);
    free(weights);
}

/* Between 1 and 100 after every step, as in open_clip. */
static void test_the_logit_scale_stays_within_its_limits(void **state)
{
    (void)state;
    static const double begin[] = {10, -5, 4.62}, end[] = {100, 1, 100}; /* begin: logarithms; exp(4.62) = 101.5 */
    struct mode_error err = {0};
    char *dir = file_of("scale", "");
    for (int k = 0; k < 3; k++) {
        struct mode_train_spec spec = spec_of(0, 1, NULL);
        struct mode_clip *clip;
        char *config = mode_xasprintf("{\"init_logit_scale\": %g, %s", begin[k], strchr(WORLD_MODEL, '{') + 1);
        spec.model_config = config;
        world_ok(train("scale", &spec, NULL, NULL, NULL, &err), &err);
        world_ok(mode_clip_load(&clip, be, dir, &err), &err);
        if (!(fabs((double)mode_clip_logit_scale(clip) - end[k]) < 1e-4 * end[k]))
            fail_msg("logit scale %g after a step from exp(%g)", (double)mode_clip_logit_scale(clip), begin[k]);
        mode_clip_close(&clip);
        free(config);
    }
    free(dir);
}

int main(void)
{
    mode_parallel_set_threads(3);
    const struct CMUnitTest tests[] = {
        /* in this order: later ones compare with the files of earlier ones */
        cmocka_unit_test(test_an_interrupted_training_ends_with_the_same_bytes),
        cmocka_unit_test(test_by_windows_an_interrupted_training_ends_with_the_same_bytes),
        cmocka_unit_test(test_a_curve_has_every_step_once),
        cmocka_unit_test(test_the_number_of_threads_does_not_show),
        cmocka_unit_test(test_accumulation_and_clipping_resume_to_the_same_bytes),
        cmocka_unit_test(test_patch_dropout_resumes_to_the_same_bytes),
        cmocka_unit_test(test_a_locked_tower_stays_and_resumes_to_the_same_bytes),
        cmocka_unit_test(test_a_continuation_goes_on_where_the_seed_ended),
        cmocka_unit_test(test_a_selection_is_trained_as_a_group),
        cmocka_unit_test(test_a_continuation_never_starts_from_something_else),
        cmocka_unit_test(test_what_is_odd_about_a_parent_is_said),
        cmocka_unit_test(test_a_loss_that_is_not_finite_ends_the_training),
        cmocka_unit_test(test_a_fork_with_a_cooldown_continues_a_constant_rate),
        cmocka_unit_test(test_impossible_trainings_are_refused),
        cmocka_unit_test(test_the_loss_falls),
        cmocka_unit_test(test_the_final_loss_is_the_mean_of_the_last_steps),
        cmocka_unit_test(test_the_seed_decides_what_is_seen),
        cmocka_unit_test(test_the_logit_scale_stays_within_its_limits)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
