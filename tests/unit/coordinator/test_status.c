/* A STATUS reply fits into a message, however many workers there are, and says what it leaves out; running tasks are
 * summed in one unit. */
#include "server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { WORKERS = 500, TASKS = 64 };

static Mode__TaskRow row = MODE__TASK_ROW__INIT, *rows[WORKERS][TASKS];
static Mode__Worker worker[5000], *workers[5000];

static void fill(Mode__StatusReply *r, size_t n_workers, size_t n_tasks)
{
    mode__status_reply__init(r);
    r->version = "0";
    row.key = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    row.run = row.service = row.label = row.unit = "some text";
    for (size_t w = 0; w < n_workers; w++) {
        mode__worker__init(&worker[w]);
        worker[w].name = worker[w].service = worker[w].node = "some text";
        worker[w].n_tasks = n_tasks;
        if (n_tasks) worker[w].tasks = rows[w];
        for (size_t t = 0; t < n_tasks; t++) rows[w][t] = &row;
        workers[w] = &worker[w];
    }
    r->workers = workers;
    r->n_workers = n_workers;
}

static void test_what_fits_stays_whole(void **state)
{
    (void)state;
    Mode__StatusReply r;
    fill(&r, 100, 4);
    status_fit(&r, 1 << 20);
    assert_int_equal(r.n_workers, 100);
    assert_int_equal(worker[99].n_tasks, 4);
    assert_false(r.has_tasks_left_out);
    assert_false(r.has_workers_left_out);
}

static void test_running_tasks_are_left_out_first(void **state)
{
    (void)state;
    Mode__StatusReply r;
    fill(&r, WORKERS, TASKS);
    assert_true(mode__status_reply__get_packed_size(&r) > 1 << 20);
    status_fit(&r, 1 << 20);
    assert_true(mode__status_reply__get_packed_size(&r) <= 1 << 20);
    assert_int_equal(r.n_workers, WORKERS);
    assert_false(r.has_workers_left_out);
    size_t left = 0;
    for (int w = 0; w < WORKERS; w++) left += worker[w].n_tasks;
    assert_true(left > 0);
    assert_int_equal(left + r.tasks_left_out, WORKERS * TASKS);
}

static void test_workers_are_left_out_when_need_be(void **state)
{
    (void)state;
    Mode__StatusReply r;
    fill(&r, 5000, 0); /* more than a repeated field may hold */
    status_fit(&r, 1 << 20);
    assert_int_equal(r.n_workers, MODE_WIRE_MAX_REPEATED);
    assert_int_equal(r.workers_left_out, 5000 - MODE_WIRE_MAX_REPEATED);
    fill(&r, 5000, 0);
    status_fit(&r, 10000);
    assert_true(mode__status_reply__get_packed_size(&r) <= 10000);
    assert_int_equal(r.n_workers + r.workers_left_out, 5000);
    assert_true(r.n_workers > 50);
}

static struct core_task running(const char *unit, uint64_t done, uint64_t total, double rate)
{
    struct core_task t = {.done = done, .total = total, .rate = rate};
    snprintf(t.unit, sizeof t.unit, "%s", unit);
    return t;
}

static void test_a_task_that_has_not_begun_hides_no_unit(void **state)
{
    (void)state;
    const struct core_task tasks[] = {running("", 0, 0, 0),
                                      running("texts", 10, 100, 2),
                                      running("", 0, 0, 0),
                                      running("texts", 5, 100, 1),
                                      running("bytes of the shard", 7000, 9000, 500),
                                      running("", 0, 0, 0)};
    Mode__Stage s = MODE__STAGE__INIT;
    status_add_running(&s, &tasks[0]);
    assert_null(s.unit);
    for (size_t i = 1; i < sizeof tasks / sizeof *tasks; i++) status_add_running(&s, &tasks[i]);
    assert_string_equal(s.unit, "texts");
    assert_int_equal(s.leased, 6);
    assert_int_equal(s.live_done, 15);
    assert_int_equal(s.live_total, 200);
    assert_true(s.live_rate > 2.9 && s.live_rate < 3.1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_what_fits_stays_whole),
                                       cmocka_unit_test(test_running_tasks_are_left_out_first),
                                       cmocka_unit_test(test_workers_are_left_out_when_need_be),
                                       cmocka_unit_test(test_a_task_that_has_not_begun_hides_no_unit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
