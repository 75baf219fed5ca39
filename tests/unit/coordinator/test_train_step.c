/* The newest step of a training: in /metrics and in the status while it runs, and not afterwards. */
#include "server.h"

#include "base/str.h"
#include "msg/status_json.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char session[] = "11111111111111111111111111111111";
static const char *const keys[2] = {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                                    "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"};

/* A worker that runs two trainings. */
static void begin(struct core *c)
{
    struct core_options o = CORE_OPTIONS_DEFAULT;
    core_init(c, &o, 1, 0);
    core_task_want(c, keys[0], "train", "train/seed", "demo", 0, 0, false, 0);
    core_task_want(c, keys[1], "train", "train/expert-1", "other", 1, 0, false, 0);
    c->dispatch = true;
    core_handle(c,
                &(struct core_event){.type = CORE_EV_HELLO,
                                     .session = session,
                                     .service = "train",
                                     .code = "v",
                                     .name = "w",
                                     .node = "n",
                                     .build = "v",
                                     .n = 2},
                3000);
    core_handle(c, &(struct core_event){.type = CORE_EV_CREDIT, .session = session, .n = 2, .key = ""}, 3000);
    assert_int_equal(c->task[0].state, CORE_LEASED);
    assert_int_equal(c->task[1].state, CORE_LEASED);
}

static void progress(struct core *c, int task, bool known, double loss)
{
    static const struct core_score score[] = {{"colour", "acc1", 0.5, 3000}, {"a \"b\"\\\n", "acc5", 0.75, 3000}};
    core_handle(c,
                &(struct core_event){.type = CORE_EV_PROGRESS,
                                     .session = session,
                                     .key = keys[task],
                                     .fence = c->task[task].fence,
                                     .done = 12,
                                     .total = 40,
                                     .unit = "steps",
                                     .train = {known, loss, 5e-4, 14.25, 812.5},
                                     .score = score,
                                     .n_scores = known ? 2 : 0},
                4000);
}

static bool says(const struct core *c, const char *line)
{
    struct mode_str s = {0};
    http_train_metrics(&s, c);
    http_score_metrics(&s, c);
    bool found = strstr(s.data, line) != NULL;
    mode_str_clear(&s);
    return found;
}

static void test_metrics_are_of_trainings_that_go_on(void **state)
{
    (void)state;
    struct core c;
    begin(&c);
    progress(&c, 0, true, 3.5);
    progress(&c, 1, false, 0); /* a worker of an earlier version, or no step yet */
    assert_true(says(&c, "# HELP mode_train_loss Loss of the latest step of a running training.\n"
                         "# TYPE mode_train_loss gauge\nmode_train_loss{run=\"demo\",model=\"seed\"} 3.5\n# HELP"));
    assert_true(says(&c, "mode_train_step{run=\"demo\",model=\"seed\"} 12\n"));
    assert_true(says(&c, "mode_train_learning_rate{run=\"demo\",model=\"seed\"} 0.0005\n"));
    assert_true(says(&c, "mode_train_logit_scale{run=\"demo\",model=\"seed\"} 14.25\n"));
    assert_true(says(&c, "mode_train_samples_per_second{run=\"demo\",model=\"seed\"} 812.5\n"));
    assert_true(
        says(&c, "# TYPE mode_validation gauge\n"
                 "mode_validation{run=\"demo\",model=\"seed\",task=\"colour\",metric=\"acc1\"} 0.5\n"
                 "mode_validation{run=\"demo\",model=\"seed\",task=\"a \\\"b\\\"\\\\\\n\",metric=\"acc5\"} 0.75\n"));
    assert_true(says(&c, "mode_validation_step{run=\"demo\",model=\"seed\",task=\"colour\",metric=\"acc1\"} 3000\n"));
    assert_false(says(&c, "run=\"other\""));
    progress(&c, 1, true, 2.25);
    assert_true(says(&c, "mode_train_loss{run=\"other\",model=\"expert-1\"} 2.25\n"));
    core_task_commit(&c, 0); /* it is done */
    assert_false(says(&c, "run=\"demo\""));
    core_handle(
        &c, &(struct core_event){.type = CORE_EV_RELEASE, .session = session, .key = keys[1], .fence = c.task[1].fence},
        5000);
    assert_false(says(&c, "{")); /* returned: its step is dropped */
    core_clear(&c);
}

static void test_the_status_has_it(void **state)
{
    (void)state;
    Mode__TrainStep step = MODE__TRAIN_STEP__INIT;
    Mode__Score score = MODE__SCORE__INIT, *scores[1] = {&score};
    Mode__TaskRow rows[2] = {MODE__TASK_ROW__INIT, MODE__TASK_ROW__INIT}, *at[2] = {&rows[0], &rows[1]};
    Mode__Worker w = MODE__WORKER__INIT, *workers[1] = {&w};
    Mode__StatusReply r = MODE__STATUS_REPLY__INIT;
    step.loss = 3.5;
    step.lr = 5e-4;
    step.logit_scale = 14.25;
    step.samples_per_s = 812.5;
    rows[0].run = rows[1].run = "demo";
    rows[0].label = "train/seed";
    rows[0].train = &step;
    rows[0].scores = rows[1].scores = scores;
    rows[0].n_scores = rows[1].n_scores = 1;
    score.task = "colour";
    score.metric = "acc1";
    score.value = 0.5;
    score.step = 3000;
    w.tasks = at;
    w.n_tasks = 2;
    r.workers = workers;
    r.n_workers = 1;
    char *text = mode_status_json(&r);
    json_t *o = json_loads(text, 0, NULL),
           *tasks = json_object_get(json_array_get(json_object_get(o, "workers"), 0), "tasks");
    const json_t *train = json_object_get(json_array_get(tasks, 0), "train");
    assert_string_equal(json_string_value(json_object_get(json_array_get(tasks, 0), "run")), "demo");
    assert_true(json_real_value(json_object_get(train, "loss")) == 3.5);
    assert_true(json_real_value(json_object_get(train, "lr")) == 5e-4);
    assert_true(json_real_value(json_object_get(train, "logit_scale")) == 14.25);
    assert_true(json_real_value(json_object_get(train, "samples_per_s")) == 812.5);
    const json_t *result = json_array_get(json_object_get(train, "validation"), 0);
    assert_string_equal(json_string_value(json_object_get(result, "task")), "colour");
    assert_string_equal(json_string_value(json_object_get(result, "metric")), "acc1");
    assert_true(json_real_value(json_object_get(result, "value")) == 0.5);
    assert_int_equal(json_integer_value(json_object_get(result, "step")), 3000);
    train = json_object_get(json_array_get(tasks, 1), "train"); /* evaluated before its first step */
    assert_null(json_object_get(train, "loss"));
    assert_int_equal(json_array_size(json_object_get(train, "validation")), 1);
    json_decref(o);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_metrics_are_of_trainings_that_go_on),
                                       cmocka_unit_test(test_the_status_has_it)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
