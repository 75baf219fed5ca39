/* The TensorBoard curve of a model: one file, every step once, whenever processes are killed. */
#include "pipeline/board.h"
#include "tfevents_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static char *root;

static int setup(void **state)
{
    (void)state;
    return mode_dir_temporary(&root, NULL) != MODE_OK;
}

static int teardown(void **state)
{
    (void)state;
    mode_dir_remove(root, NULL);
    free(root);
    return 0;
}

static const struct mode_board_pace pace = {400, 0.01, 0.25, 2};

static char *row_of(uint64_t step, double loss)
{
    return mode_xasprintf("{\"step\": %llu, \"epoch\": 0.5, \"loss\": %.9g, \"lr\": 0.001, \"logit_scale\": 14.3, "
                          "\"samples_seen\": 10}\n",
                          (unsigned long long)step, loss);
}

static double loss_of(uint64_t step)
{
    return 5 + 1.0 / (double)(step + 2);
}

/* steps.jsonl for steps first to last; the caller frees */
static char *rows_of(uint64_t first, uint64_t last)
{
    struct mode_str s = {0};
    for (uint64_t i = first; i <= last; i++) {
        char *row = row_of(i, loss_of(i));
        mode_str_add_cstr(&s, row);
        free(row);
    }
    return s.data;
}

static void ok(enum mode_status st, const struct mode_error *err)
{
    if (st) fprintf(stderr, "%s\n", err->text);
    assert_int_equal(st, MODE_OK);
}

/* Writes steps from..to, resumed from a checkpoint of step from - 1. */
static void train(const char *dir, uint64_t fence, uint64_t from, uint64_t to)
{
    struct mode_error err = {0};
    struct mode_board *b;
    const struct mode_board_place place = {dir, fence};
    char *done = rows_of(1, from - 1);
    ok(mode_board_open(&b, &place, 0, done, NULL, &err), &err);
    for (uint64_t i = from; i <= to; i++) {
        char *row = row_of(i, loss_of(i));
        ok(mode_board_add(b, row, &pace, &err), &err);
        free(row);
    }
    mode_board_close(&b);
    free(done);
}

/* Steps 1..last, each once, in order. */
static struct read_event *expect_steps(const char *dir, uint64_t last)
{
    size_t n;
    struct read_event *e = reader_load(&n, dir, ".train");
    assert_int_equal(n, last + 2);
    assert_string_equal(e[0].version, "brain.Event:2");
    assert_true(e[1].start && e[1].step == 0);
    for (uint64_t i = 1; i <= last; i++) {
        assert_int_equal(e[i + 1].step, i);
        assert_true(*reader_value_of(&e[i + 1], "train/loss") == (float)loss_of(i));
    }
    return e;
}

static int files_in(const char *dir)
{
    DIR *d = opendir(dir);
    int n = 0;
    for (const struct dirent *e; (e = readdir(d));) n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(d);
    return n;
}

static void test_a_step_has_open_clip_s_tags(void **state)
{
    (void)state;
    char *dir = mode_path_join(root, "tags/seed");
    train(dir, 1, 1, 3);
    struct read_event *e = expect_steps(dir, 3);
    assert_int_equal(e[4].n, 7);
    assert_true(*reader_value_of(&e[4], "train/lr") == 0.001f);
    assert_true(*reader_value_of(&e[4], "train/scale") == 14.3f);
    assert_true(*reader_value_of(&e[4], "train/samples_per_second") == 400);
    assert_true(*reader_value_of(&e[4], "train/samples_per_second_per_gpu") == 200);
    assert_true(*reader_value_of(&e[4], "train/data_time") == 0.01f);
    assert_true(*reader_value_of(&e[4], "train/batch_time") == 0.25f);
    assert_true(e[4].wall_s > 1.6e9);
    free(e);
    free(dir);
}

static void test_steps_that_are_done_again_are_there_once(void **state)
{
    (void)state;
    char *dir = mode_path_join(root, "again");
    train(dir, 1, 1, 9); /* killed; its checkpoint is of step 6 */
    char *first = reader_find(dir, ".train");
    struct read_event *before = expect_steps(dir, 9);
    train(dir, 2, 7, 8); /* killed again, before a checkpoint of its own */
    free(expect_steps(dir, 8));
    train(dir, 3, 7, 12);
    struct read_event *after = expect_steps(dir, 12);
    for (int i = 2; i < 8; i++) { /* steps before the checkpoint keep their wall time and throughput */
        assert_true(before[i].wall_s == after[i].wall_s);
        assert_int_equal(after[i].n, 7);
    }
    char *last = reader_find(dir, ".train");
    assert_true(strcmp(first, last) < 0); /* TensorBoard reads files in this order */
    assert_int_equal(files_in(dir), 2);   /* and the second attempt's, truncated for its reader; the first's is gone */
    free(first);
    free(last);
    free(before);
    free(after);
    free(dir);
}

static void test_half_a_record_and_a_lost_file_cost_nothing(void **state)
{
    (void)state;
    char *dir = mode_path_join(root, "torn");
    train(dir, 1, 1, 5);
    char *path = reader_find(dir, ".train");
    struct stat s;
    assert_int_equal(stat(path, &s), 0);
    assert_int_equal(truncate(path, s.st_size - 20), 0); /* power loss while step 5 was written */
    train(dir, 2, 6, 7);
    struct read_event *e = expect_steps(dir, 7);
    assert_int_equal(e[5].n, 7);
    assert_int_equal(e[6].n, 3); /* from the row, which has no throughput */
    free(e);
    free(path);
    assert_int_equal(mode_dir_remove(dir, NULL), MODE_OK);
    train(dir, 3, 5, 6);
    free(expect_steps(dir, 6));
    free(dir);
}

static void test_another_training_s_file_is_replaced(void **state)
{
    (void)state;
    struct mode_error err = {0};
    char *dir = mode_path_join(root, "other"), *row = row_of(1, 77);
    const struct mode_board_place place = {dir, 1};
    struct mode_board *b;
    ok(mode_board_open(&b, &place, 0, NULL, NULL, &err), &err);
    ok(mode_board_add(b, row, &pace, &err), &err);
    assert_int_equal(mode_board_add(b, "{\"step\": 2, \"loss\": 5, \"logit_scale\": nan}\n", &pace, &err),
                     MODE_E_FORMAT);
    mode_board_close(&b);
    const struct mode_scalar result = {"val/x", 0.5};
    ok(mode_board_results(&place, 1, &result, 1, &err), &err);
    train(dir, 2, 3, 4);
    struct read_event *e = expect_steps(dir, 4);
    assert_int_equal(e[2].n, 3); /* not the first step of the other attempt */
    assert_null(reader_find(dir, ".val"));
    free(e);
    free(row);
    free(dir);
}

static void test_an_attempt_that_is_over_writes_nothing(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct mode_board *b;
    char *dir = mode_path_join(root, "fence");
    char *row = row_of(1, loss_of(1));
    const struct mode_board_place early = {dir, 3}, late = {dir, 4};
    struct mode_board *hung;
    ok(mode_board_open(&hung, &early, 0, NULL, NULL, &err), &err);
    train(dir, 5, 1, 4);
    ok(mode_board_add(hung, row, &pace, &err), &err); /* it has not noticed yet that its lease is lost */
    free(expect_steps(dir, 4));
    mode_board_close(&hung);
    free(row);
    assert_int_equal(mode_board_open(&b, &late, 0, NULL, NULL, &err), MODE_E_TEMP);
    assert_null(b);
    free(expect_steps(dir, 4));
    free(dir);
}

static void test_a_finished_model_s_curve_is_made_whole_once(void **state)
{
    (void)state;
    struct mode_error err = {0};
    char *dir = mode_path_join(root, "whole"), *rows = rows_of(1, 6);
    const struct mode_board_place place = {dir, 9};
    uint64_t last = 0;
    ok(mode_board_complete(&last, &place, rows, &err), &err); /* reused from another run */
    assert_int_equal(last, 6);
    assert_int_equal(mode_board_complete(&last, &place, "no steps", &err), MODE_E_FORMAT);
    ok(mode_board_complete(&last, &place, "", &err), &err); /* a given model, not trained: the file stays as it is */
    assert_int_equal(last, 0);
    free(expect_steps(dir, 6));
    char *first = reader_find(dir, ".train");
    ok(mode_board_complete(&last, &place, rows, &err), &err);
    char *again = reader_find(dir, ".train");
    assert_string_equal(first, again);

    const struct mode_scalar result[] = {{"val/digits-zeroshot-val-top1", 0.25}, {"val/digits-zeroshot-val-top5", 0.5}};
    ok(mode_board_results(&place, 6, result, 2, &err), &err);
    char *val = reader_find(dir, ".val");
    ok(mode_board_results(&place, 6, result, 2, &err), &err);
    char *val_again = reader_find(dir, ".val");
    assert_string_equal(val, val_again);
    ok(mode_board_results(&place, 6, result, 1, &err), &err); /* fewer tasks now */
    size_t n;
    struct read_event *e = reader_load(&n, dir, ".val");
    assert_int_equal(n, 2);
    assert_true(e[1].step == 6 && e[1].n == 1 && e[1].value[0] == 0.25f);
    free(expect_steps(dir, 6));
    char *all[] = {dir, rows, first, again, val, val_again};
    for (size_t i = 0; i < 6; i++) free(all[i]);
    free(e);
}

static char *result_of(uint64_t step)
{
    return mode_xasprintf("{\"step\": %llu, \"dataset\": \"digits\", \"metrics\": {\"acc1\": %.2f, \"acc5\": null}}\n"
                          "{\"step\": %llu, \"dataset\": \"signs\", \"metrics\": {\"mean_average_precision\": 0.5}}\n",
                          (unsigned long long)step, (double)step / 100, (unsigned long long)step);
}

/* Points of these steps, each once, in order. */
static struct read_event *expect_points(const char *dir, const uint64_t *step, size_t n)
{
    size_t there;
    struct read_event *e = reader_load(&there, dir, ".val");
    assert_int_equal(there, n + 1);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(e[i + 1].step, step[i]);
        assert_int_equal(e[i + 1].n, 2);
        assert_true(*reader_value_of(&e[i + 1], "val/digits-zeroshot-val-top1") == (float)((double)step[i] / 100));
        assert_true(*reader_value_of(&e[i + 1], "val/signs-mean_average_precision") == 0.5f);
    }
    return e;
}

static void test_results_while_it_trains_are_there_once(void **state)
{
    (void)state;
    struct mode_error err = {0};
    struct mode_board *b;
    char *dir = mode_path_join(root, "points"), *point[] = {result_of(0), result_of(4), result_of(8), result_of(12)},
         *known = mode_xasprintf("%s%s", point[0], point[1]), *rows = rows_of(1, 6);
    struct mode_board_place place = {dir, 1};
    ok(mode_board_open(&b, &place, 0, NULL, NULL, &err), &err);
    for (int i = 0; i < 3; i++) ok(mode_board_validated(b, point[i], &err), &err);
    mode_board_close(&b); /* killed; its checkpoint is of step 6 */
    struct read_event *before = expect_points(dir, (const uint64_t[]){0, 4, 8}, 3), *after;
    place.fence = 2;
    ok(mode_board_open(&b, &place, 0, rows, known, &err), &err);
    free(expect_points(dir, (const uint64_t[]){0, 4}, 2));
    ok(mode_board_validated(b, point[2], &err), &err);
    after = expect_points(dir, (const uint64_t[]){0, 4, 8}, 3);
    for (int i = 1; i < 3; i++) assert_true(before[i].wall_s == after[i].wall_s); /* their original wall time */
    mode_board_close(&b);

    /* the coordinator adds the last point, replacing one of that step, and keeps the others */
    const struct mode_scalar last[] = {{"val/digits-zeroshot-val-top1", 0.12},
                                       {"val/signs-mean_average_precision", 0.5}};
    char *grown = reader_find(dir, ".val");
    ok(mode_board_results(&place, 12, last, 2, &err), &err);
    free(expect_points(dir, (const uint64_t[]){0, 4, 8, 12}, 4));
    char *file = reader_find(dir, ".val");
    assert_string_equal(grown, file); /* appended to the file that a reader has open */
    ok(mode_board_results(&place, 12, last, 2, &err), &err);
    char *again = reader_find(dir, ".val");
    assert_string_equal(file, again);

    /* a training that starts over drops them */
    place.fence = 3;
    ok(mode_board_open(&b, &place, 0, NULL, "", &err), &err);
    assert_null(reader_find(dir, ".val"));
    mode_board_close(&b);
    char *all[] = {dir, point[0], point[1], point[2], point[3], known, rows, file, again, grown};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    free(before);
    free(after);
}

static void test_a_folder_is_for_one_training(void **state)
{
    (void)state;
    struct mode_error err = {0};
    char *dir = mode_path_join(root, "used");
    ok(mode_board_unused(dir, &err), &err);
    train(dir, 0, 1, 1);
    assert_int_equal(mode_board_unused(dir, &err), MODE_E_CREATE);
    assert_non_null(strstr(err.text, dir));
    free(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_step_has_open_clip_s_tags),
                                       cmocka_unit_test(test_steps_that_are_done_again_are_there_once),
                                       cmocka_unit_test(test_half_a_record_and_a_lost_file_cost_nothing),
                                       cmocka_unit_test(test_another_training_s_file_is_replaced),
                                       cmocka_unit_test(test_an_attempt_that_is_over_writes_nothing),
                                       cmocka_unit_test(test_a_finished_model_s_curve_is_made_whole_once),
                                       cmocka_unit_test(test_results_while_it_trains_are_there_once),
                                       cmocka_unit_test(test_a_folder_is_for_one_training)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
