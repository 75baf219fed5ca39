/* One training by several ranks: the same files as by one process, resuming with another number of ranks, and errors
 * and stops that end all ranks. */
#include "socket_ranks.h"
#include "train_world.h"

#include "base/clock.h"
#include "base/parallel.h"
#include "data/safetensors.h"
#include "nn/backend.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

enum { BATCH = 12, TOTAL = 14 };

static struct world world;

struct job {                  /* one run by several processes */
    struct world_training t;  /* of the process itself, as rank */
    const char *run, *resume; /* folders; resume may be NULL */
    uint64_t stop_at;         /* rank `odd` gets a stop after this step; 0: none */
    uint64_t die_at;          /* process `odd` is killed there */
    int odd;
    int64_t batch, accumulate;
    double odd_lr; /* of process `odd`; 0: as the others */
    double patch_dropout;
    struct mode_clip_lock lock;
    const char *says; /* every rank's error contains it */
    bool alone, validates;
    int rank;
};

static void on_progress(void *ctx, const struct mode_train_progress *p)
{
    struct job *j = ctx;
    j->t.seen = p->step;
    if (j->rank == j->odd && j->die_at == p->step) raise(SIGKILL);
}

static int process(int rank, int size, const char *place, void *ctx)
{
    struct job j = *(struct job *)ctx;
    struct mode_ranks *g = NULL;
    struct mode_backend *be;
    struct mode_error err = {0};
    char *dir = mode_path_join(world.dir, j.run), *resume = j.resume ? mode_path_join(world.dir, j.resume) : NULL;
    const bool odd = rank == j.odd;
    j.t = (struct world_training){.world = &world, .run = j.run, .stop_at = odd ? j.stop_at : 0};
    j.rank = rank;
    mode_parallel_set_threads(1);
    struct mode_train_spec spec = world_train_spec(&world, j.batch ? j.batch : BATCH, TOTAL);
    if (odd && j.odd_lr > 0) spec.lr = j.odd_lr;
    spec.grad_clip_norm = 1;
    spec.accumulate = j.accumulate;
    spec.patch_dropout = j.patch_dropout;
    spec.lock = j.lock;
    spec.centres = NULL;
    enum mode_status st = mode_backend_open(&be, "cpu", &err);
    char *task = mode_path_join(world.dir, "colours");
    const struct mode_validation_options o = {.n = 1, .dir = &task, .every = 5, .last = true, .batch = 5};
    struct mode_validation *v = NULL;
    if (!st && j.validates) st = mode_validation_open(&v, &o, &err);
    spec.validation = v;
    if (!st && !j.alone) st = socket_ranks_open(&g, rank, size, place, &err);
    struct mode_train_hooks hooks = world_train_hooks(&j.t);
    hooks.progress = on_progress;
    hooks.resume_from = resume;
    hooks.group = g;
    if (!st) st = world_train(NULL, dir, be, &spec, &hooks, &err);
    mode_ranks_close(&g, st == MODE_OK);
    mode_backend_close(&be);
    mode_validation_close(&v);
    free(task);
    free(dir);
    free(resume);
    free(j.t.last);
    if (st && (!j.says || !strstr(err.text, j.says))) {
        fprintf(stderr, "process %d of %d: %s\n", rank, size, err.text);
        return j.says ? 1 : mode_status_exit_code(st);
    }
    return mode_status_exit_code(st);
}

static void run(int size, struct job job, const int *expected)
{
    int ended[MODE_RANKS_MAX];
    run_ranks(ended, size, process, &job);
    for (int r = 0; r < size; r++) assert_int_equal(ended[r], expected ? expected[r] : 0);
}

static int setup(void **state)
{
    (void)state;
    world_open(&world);
    free(world_write_task(&world, false));
    run(1, (struct job){.run = "alone", .alone = true}, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_close(&world);
    return 0;
}

/* The largest relative distance of a tensor; without the key bias, whose gradient is rounding noise. */
static double distance(const char *run, const char *file, const char *alone)
{
    struct mode_safetensors a = {0}, b = {0};
    struct mode_error err;
    char *x = mode_xasprintf("%s/%s/%s", world.dir, run, file), *y = mode_xasprintf("%s/%s/%s", world.dir, alone, file);
    double most = 0;
    world_ok(mode_safetensors_open(&a, x, &err), &err);
    world_ok(mode_safetensors_open(&b, y, &err), &err);
    assert_int_equal(a.n_tensors, b.n_tensors);
    for (size_t i = 0; i < b.n_tensors; i++) {
        const struct mode_tensor *want = &b.tensors[i], *t = mode_safetensors_find(&a, want->name);
        int64_t n = mode_tensor_count(want);
        double off = 0, all = 1e-30;
        assert_non_null(t);
        for (int64_t k = 0; k < n; k++) {
            if (strstr(want->name, "in_proj_bias") && k >= n / 3 && k < 2 * (n / 3)) continue;
            off += pow((double)mode_f32(t)[k] - mode_f32(want)[k], 2);
            all += pow(mode_f32(want)[k], 2);
        }
        most = fmax(most, sqrt(off / all));
    }
    mode_safetensors_close(&a);
    mode_safetensors_close(&b);
    free(x);
    free(y);
    return most;
}

static char *text_of(const char *name, const char *file)
{
    struct mode_error err;
    char *path = mode_xasprintf("%s/%s/%s", world.dir, name, file), *text = NULL;
    world_ok(mode_file_read(path, 0, &text, NULL, &err), &err);
    free(path);
    return text;
}

/* The largest relative difference of any number in steps.jsonl. */
static double rows_distance(const char *name, const char *alone)
{
    char *a = text_of(name, MODE_FILE_STEPS), *b = text_of(alone, MODE_FILE_STEPS), *x = a, *y = b;
    double most = 0;
    for (int line = 0; line < TOTAL; line++) {
        json_t *p = json_loads(x, JSON_DISABLE_EOF_CHECK, NULL), *q = json_loads(y, JSON_DISABLE_EOF_CHECK, NULL);
        const char *key;
        json_t *value;
        assert_non_null(p);
        json_object_foreach(q, key, value)
        {
            double want = json_number_value(value), got = json_number_value(json_object_get(p, key));
            most = fmax(most, fabs(got - want) / fmax(fabs(want), 1e-30));
        }
        json_decref(p);
        json_decref(q);
        x = strchr(x, '\n') + 1;
        y = strchr(y, '\n') + 1;
    }
    assert_true(*x == '\0' && *y == '\0');
    free(a);
    free(b);
    return most;
}

static void agrees(const char *name, const char *alone)
{
    double weights = distance(name, MODE_FILE_CLIP_WEIGHTS, alone),
           moments = distance(name, MODE_FILE_CLIP_OPTIMIZER, alone), rows = rows_distance(name, alone);
    char *a = text_of(name, MODE_FILE_CLIP_CONFIG), *b = text_of(alone, MODE_FILE_CLIP_CONFIG);
    printf("%s: rows %.1e, weights %.1e, moments %.1e\n", name, rows, weights, moments);
    assert_true(rows < 2e-5 && weights < 2e-5 && moments < 2e-4);
    assert_string_equal(a, b);
    free(a);
    free(b);
}

static void agrees_with_alone(const char *name)
{
    agrees(name, "alone");
}

static void test_several_processes_write_the_files_of_one(void **state)
{
    (void)state;
    run(2, (struct job){.run = "two"}, NULL);
    agrees_with_alone("two");
    run(4, (struct job){.run = "four", .accumulate = 3}, NULL); /* micro-batches of 1: the loss is the whole batch's */
    agrees_with_alone("four");
    run(3, (struct job){.run = "again"}, NULL);
    run(3, (struct job){.run = "once more"}, NULL);
    for (int i = 0; i < WORLD_FILES; i++) { /* the same number of ranks: the same bytes */
        char *a = mode_xasprintf("%s/again/%s", world.dir, world_files[i]), x[MODE_DIGEST_HEX], y[MODE_DIGEST_HEX];
        char *b = mode_xasprintf("%s/once more/%s", world.dir, world_files[i]);
        assert_int_equal(mode_digest_file(a, x, NULL, NULL), MODE_OK);
        assert_int_equal(mode_digest_file(b, y, NULL, NULL), MODE_OK);
        assert_string_equal(x, y);
        free(a);
        free(b);
    }
}

/* Every picture keeps the same patches, whoever computes it. */
static void test_patch_dropout_is_that_of_one_process(void **state)
{
    (void)state;
    run(1, (struct job){.run = "dropping", .alone = true, .patch_dropout = 0.5}, NULL);
    run(3, (struct job){.run = "three dropping", .patch_dropout = 0.5}, NULL);
    agrees("three dropping", "dropping");
    run(2, (struct job){.run = "two dropping", .patch_dropout = 0.5, .accumulate = 2}, NULL);
    agrees("two dropping", "dropping");
    assert_true(rows_distance("dropping", "alone") > 1e-3);
}

/* Moments of locked parameters are in no file, whoever writes it; any number of processes resumes it. */
static void test_a_locked_tower_is_that_of_one_process(void **state)
{
    static const struct mode_clip_lock lock = {.image = true, .text = true, .text_unlocked_layers = 2};
    const int stopped[] = {143, 143, 143};
    (void)state;
    run(1, (struct job){.run = "locked", .alone = true, .lock = lock}, NULL);
    run(2, (struct job){.run = "two locked", .lock = lock, .stop_at = 5, .says = "after step 5"}, stopped);
    run(3,
        (struct job){.run = "two locked", .lock = lock, .accumulate = 1, .resume = "two locked/ckpt/step-0000000005"},
        NULL);
    agrees("two locked", "locked");
    assert_true(rows_distance("locked", "alone") > 1e-3);
}

static bool same_file(const char *a, const char *b, const char *file)
{
    char *x = text_of(a, file), *y = text_of(b, file);
    const bool same = strcmp(x, y) == 0;
    free(x);
    free(y);
    return same;
}

/* Rank 0 evaluates while the others wait; the result of the training is unchanged. */
static void test_one_evaluates_and_the_others_wait(void **state)
{
    const int stopped[] = {143, 143, 143};
    (void)state;
    run(3, (struct job){.run = "watched", .validates = true}, NULL);
    run(3, (struct job){.run = "parts", .validates = true, .stop_at = 10, .odd = 1, .says = "after step 10"}, stopped);
    run(3, (struct job){.run = "parts", .validates = true, .resume = "parts/ckpt/step-0000000010"}, NULL);
    run(3, (struct job){.run = "unwatched"}, NULL);
    for (int i = 0; i < 2; i++) assert_true(same_file(i ? "watched" : "parts", "unwatched", MODE_FILE_STEPS));
    assert_true(same_file("watched", "parts", MODE_FILE_VALIDATION));
    char *rows = text_of("watched", MODE_FILE_VALIDATION), *line = rows;
    for (int step = 0; step < TOTAL + 5; step += 5, line = strchr(line, '\n') + 1) {
        int said = -1;
        assert_int_equal(sscanf(line, "{\"step\": %d, \"dataset\": \"colours\"", &said), 1);
        assert_int_equal(said, step < TOTAL ? step : TOTAL);
    }
    assert_string_equal(line, "");
    free(rows);
}

static void test_one_goes_on_from_many_and_many_from_one(void **state)
{
    const int all_stopped[] = {143, 143, 143};
    (void)state;
    run(1, (struct job){.run = "relay", .alone = true, .stop_at = 4, .says = "stopped after step 4"}, all_stopped);
    run(3,
        (struct job){.run = "relay",
                     .resume = "relay/ckpt/step-0000000004",
                     .stop_at = 9, /* one rank is stopped, all stop there */
                     .odd = 2,
                     .says = "stopped after step 9"},
        all_stopped);
    run(2, (struct job){.run = "relay", .resume = "relay/ckpt/step-0000000009", .stop_at = 11, .says = "step 11"},
        all_stopped);
    run(1, (struct job){.run = "relay", .resume = "relay/ckpt/step-0000000011", .alone = true}, NULL);
    agrees_with_alone("relay");
}

static void test_when_one_dies_the_others_end_at_once(void **state)
{
    (void)state;
    for (int odd = 0; odd < 3; odd++) {
        int expected[] = {69, 69, 69};
        expected[odd] = 128 + SIGKILL;
        double began = mode_clock_s();
        run(3, (struct job){.run = "killed", .die_at = 3, .odd = odd, .says = "has ended, so process"}, expected);
        assert_true(mode_clock_s() - began < MEET_S); /* no rank waits for a missing one */
    }
}

static void test_what_does_not_fit_is_refused(void **state)
{
    const int refused[] = {65, 65, 65};
    (void)state;
    run(3, (struct job){.run = "odd", .batch = 13, .says = "cannot be shared by 3 processes"}, refused);
    run(3, (struct job){.run = "odd", .accumulate = 5, .says = "no piece empty"}, refused);
    run(3,
        (struct job){.run = "odd", .odd = 1, .odd_lr = 2e-3, .says = "process 1 of 3 was started with other options"},
        refused);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_several_processes_write_the_files_of_one),
        cmocka_unit_test(test_patch_dropout_is_that_of_one_process),
        cmocka_unit_test(test_a_locked_tower_is_that_of_one_process),
        cmocka_unit_test(test_one_evaluates_and_the_others_wait),
        cmocka_unit_test(test_one_goes_on_from_many_and_many_from_one),
        cmocka_unit_test(test_when_one_dies_the_others_end_at_once),
        cmocka_unit_test(test_what_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
