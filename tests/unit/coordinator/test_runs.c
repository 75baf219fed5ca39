/* Runs of many shards: tasks that become ready are passed on in parts, and a run's files can be read. */
#include "plan_world.h"
#include "run.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SHARDS = 300 };

static char folder[] = "/tmp/mode-runs-XXXXXX";
static struct mode_store *store;
static struct core core;
static struct runs runs;

static void put_file(const char *name)
{
    assert_int_equal(put_file_in(folder, name, name), MODE_OK);
}

static int set_up(void **state)
{
    (void)state;
    struct mode_error err = {0};
    const struct core_options options = CORE_OPTIONS_DEFAULT;
    char name[64];
    mode_log_set_level(MODE_LOG_ERROR);
    if (!mkdtemp(folder)) return 1;
    for (int i = 0; i < SHARDS; i++) {
        snprintf(name, sizeof name, "shards/a \"quoted\" one %03d.tar", i);
        put_file(name);
    }
    put_file("enc/config.json");
    put_file("m.gz");
    core_init(&core, &options, 1, 0);
    return mode_store_open(&store, folder, &err) || runs_load(&runs, store, &core, &fake_world, &err);
}

static int tear_down(void **state)
{
    (void)state;
    struct mode_error err = {0};
    runs_clear(&runs);
    core_clear(&core);
    mode_store_close(&store);
    return mode_dir_remove(folder, &err) != MODE_OK;
}

#define REST "data: {train: shards}\nencoder: {dir: enc}\nmodel: ViT-B-32\ntokenizer: {merges: m.gz}\n"
static const char spec[] = "name: many\n" REST, other[] = "name: many\nseed: 7\n" REST;

static const struct run_submission *submit(const char *text, const char *key, bool dry)
{
    const struct run_submission *x = runs_submit(&runs, text, folder, key, dry);
    double until = mode_clock_s() + 60;
    while (!x->ended && mode_clock_s() < until) runs_planned(&runs, 0);
    assert_true(x->ended);
    return x;
}

static void test_tasks_are_handed_over_in_parts(void **state)
{
    (void)state;
    const struct run_submission *x = submit(spec, "1", false);
    if (x->st) fail_msg("%s", x->err.text);
    assert_true(x->created);
    assert_int_equal(x->warnings.n, 0);
    struct run *run = runs_find(&runs, x->run);
    assert_int_equal(x->tasks, run->plan->n_nodes);
    assert_ptr_equal(runs_submit(&runs, spec, folder, "1", false), x); /* repeated */
    x = submit(spec, "2", false);                                      /* by another: the same run */
    assert_int_equal(x->st, MODE_OK);
    assert_false(x->created);
    assert_string_equal(x->run, "many");
    x = submit(other, "3", false);
    assert_int_equal(x->st, MODE_E_TEMP);
    x = submit(other, "4", true); /* dry run */
    assert_int_equal(x->st, MODE_OK);
    assert_int_equal(x->tasks, run->plan->n_nodes);
    assert_null(x->run);
    assert_int_equal(runs.n, 1);
    assert_true(runs_advance(&runs, NULL, NULL, 0, mode_clock_s() - 1)); /* out of time: there is more to do */
    assert_int_equal(core.n_tasks, 0);
    int turns = 0;
    while (runs_advance(&runs, NULL, NULL, 0, mode_clock_s() + 1e-4)) turns++;
    assert_true(turns > 2);
    assert_int_equal(core.n_tasks, SHARDS);
    assert_int_equal(run->plan->n_in[PLAN_LIVE], SHARDS);
    assert_false(runs_advance(&runs, NULL, NULL, 0, HUGE_VAL)); /* all wait for workers */
    assert_int_equal(core.n_tasks, SHARDS);
}

static void test_plan_of_a_run_is_written(void **state)
{
    (void)state;
    struct run *run = runs_find(&runs, "many");
    run_cancel(&runs, run, 0); /* this writes the file */
    char *path = mode_xasprintf("%s/runs/many/plan.json", folder);
    json_t *o = json_load_file(path, JSON_REJECT_DUPLICATES, NULL), *node;
    assert_non_null(o);
    assert_int_equal(json_integer_value(json_object_get(o, "experts")), 4);
    assert_int_equal(json_array_size(json_object_get(o, "shards")), SHARDS);
    assert_string_equal(json_string_value(json_array_get(json_object_get(o, "shards"), 7)),
                        run->plan->shards.shard[7].path);
    assert_int_equal(json_array_size(json_object_get(o, "shard_end")), 1);
    assert_int_equal(json_array_size(json_object_get(o, "nodes")), run->plan->n_nodes);
    node = json_array_get(json_object_get(o, "nodes"), 5);
    assert_string_equal(json_string_value(json_object_get(node, "stage")), "captions");
    assert_string_equal(json_string_value(json_object_get(node, "label")), "captions/0005");
    assert_string_equal(json_string_value(json_object_get(node, "key")), run->plan->node[5].key);
    assert_true(json_is_false(json_object_get(node, "done")));
    json_decref(o);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_tasks_are_handed_over_in_parts),
                                       cmocka_unit_test(test_plan_of_a_run_is_written)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
