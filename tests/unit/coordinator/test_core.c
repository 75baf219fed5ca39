/* The pure core, rule by rule; restarts are in test_core_restart.c, crashes in test_core_simulator.c. */
#include "base/error.h"
#include "core_world.h"

static const char busy[] = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";

static void test_hands_out_no_more_than_the_credit(void **state)
{
    (void)state;
    struct core c;
    begin(&c, false, false);
    want(&c, key_a, 0, false, 0);
    want(&c, key_b, 1, false, 0);
    hello(&c, session_1, "w1", 1, 10);
    assert_int_equal(c.task[0].state, CORE_LEASED);
    assert_int_equal(c.task[1].state, CORE_READY);
    assert_true(c.task[0].fence == ((uint64_t)1 << 32 | 1));
    say(&c, CORE_EV_CREDIT, session_1, 1, 11); /* repeated before the task arrived: the same credit */
    assert_int_equal(c.task[1].state, CORE_READY);
    core_clear(&c);
}

static void test_done_only_when_the_commit_exists(void **state)
{
    (void)state;
    struct core c;
    begin(&c, false, false);
    want(&c, key_a, 0, false, 0);
    hello(&c, session_1, "w1", 1, 10);
    uint64_t fence = c.task[0].fence;
    core_actions_clear(&c);
    about(&c, CORE_EV_RESULT, session_1, key_a, fence, false, 0, 20);
    assert_non_null(find(&c, CORE_ACT_CHECK));
    assert_int_equal(c.task[0].state, CORE_LEASED);
    about(&c, CORE_EV_CHECKED, session_1, key_a, fence, false, 0, 20);
    assert_int_equal(find(&c, CORE_ACT_ACK)->verdict, CORE_MISSING);
    assert_int_equal(c.task[0].state, CORE_RETRY_WAIT);
    about(&c, CORE_EV_RESULT, session_1, key_a, fence, false, 0, 21);
    about(&c, CORE_EV_CHECKED, session_1, key_a, fence, true, 0, 21);
    assert_int_equal(c.task[0].state, CORE_COMMITTED);
    core_actions_clear(&c);
    about(&c, CORE_EV_RESULT, session_1, key_a, fence, false, 0, 22);
    assert_int_equal(find(&c, CORE_ACT_ACK)->verdict, CORE_ALREADY); /* reported twice: one commit */
    core_clear(&c);
}

static void test_three_crashes_are_the_end_and_input_errors_at_once(void **state)
{
    (void)state;
    struct core c;
    int64_t now = 10;
    begin(&c, false, false);
    want(&c, key_a, 0, false, 0);
    hello(&c, session_1, "w1", 2, now);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(c.task[0].state, CORE_LEASED);
        core_actions_clear(&c);
        about(&c, CORE_EV_FAIL, session_1, key_a, c.task[0].fence, false, CORE_FAIL_CRASH, now);
        if (i == 2)
            assert_non_null(strstr(find(&c, CORE_ACT_NOTE)->text, " failed 3 times (crash) and is not tried again: "));
        now += 5000; /* past the wait */
        tick(&c, now);
        say(&c, CORE_EV_CREDIT, session_1, 2, now);
    }
    assert_int_equal(c.task[0].state, CORE_QUARANTINED);
    want(&c, key_b, 1, false, now);
    assert_int_equal(c.task[1].state, CORE_LEASED);
    core_actions_clear(&c);
    about(&c, CORE_EV_FAIL, session_1, key_b, c.task[1].fence, false, CORE_FAIL_INPUT, now);
    assert_int_equal(c.task[1].state, CORE_QUARANTINED);
    assert_non_null(strstr(find(&c, CORE_ACT_NOTE)->text, " failed (input) and is not tried again: "));
    want(&c, key_b, 1, true, now); /* submitted again by a person: fresh budgets */
    assert_int_equal(c.task[1].failures[CORE_FAIL_INPUT], 0);
    assert_true(c.task[1].state == CORE_READY || c.task[1].state == CORE_LEASED);
    core_clear(&c);
}

static void test_what_a_run_does_without_is_not_given_up(void **state)
{
    (void)state;
    struct core c;
    begin(&c, false, false);
    want(&c, key_a, 0, false, 0);
    want(&c, key_a, 0, false, 0); /* another run, which cannot do without */
    hello(&c, session_1, "w1", 2, 10);
    core_handle(&c,
                &(struct core_event){.type = CORE_EV_FAIL,
                                     .session = session_1,
                                     .key = key_a,
                                     .fence = c.task[0].fence,
                                     .fail = CORE_FAIL_INPUT,
                                     .status = MODE_E_FORMAT},
                10);
    assert_int_equal(c.task[0].state, CORE_QUARANTINED);
    assert_int_equal(c.task[0].last_status, MODE_E_FORMAT);
    core_task_pardon(&c, 0);
    assert_int_equal(c.task[0].state, CORE_QUARANTINED);
    core_task_pardon(&c, 0);
    assert_int_equal(c.task[0].state, CORE_CANCELLED);
    want(&c, key_a, 0, false, 20);
    assert_int_equal(c.task[0].failures[CORE_FAIL_INPUT], 0);
    core_clear(&c);
}

static void done(struct core *c, const char *session, uint32_t t, int64_t now)
{
    about(c, CORE_EV_RESULT, session, c->task[t].key, c->task[t].fence, false, 0, now);
    about(c, CORE_EV_CHECKED, session, c->task[t].key, c->task[t].fence, true, 0, now);
    assert_int_equal(c->task[t].state, CORE_COMMITTED);
}

static void test_one_node_alone_cannot_condemn_a_task(void **state)
{
    (void)state;
    static const struct {
        enum core_fail why;
        int budget;
    } kind[] = {{CORE_FAIL_CRASH, 3}, {CORE_FAIL_STALL, 3}, {CORE_FAIL_ABSENT, 1}, {CORE_FAIL_OOM, 3}};
    for (size_t k = 0; k < 2 * sizeof kind / sizeof *kind; k++) {
        enum core_fail why = kind[k / 2].why;
        bool leaves = k % 2;
        struct core c;
        int64_t now = 10;
        begin(&c, false, false);
        want(&c, key_a, 0, false, 0);
        hello(&c, session_1, "w1", 1, now);
        hello(&c, session_2, "w2", 1, now);
        want(&c, busy, 0, false, now); /* the other one runs a task */
        assert_int_equal(c.task[1].worker, 1);
        for (int i = 0; i < kind[k / 2].budget; i++) {
            assert_int_equal(c.task[0].state, CORE_LEASED);
            about(&c, CORE_EV_FAIL, session_1, key_a, c.task[0].fence, false, why, now);
            pass(&c, &now, 65000);
        }
        assert_int_equal(c.task[0].state, CORE_READY); /* not again to w1, although it has credit: */
        want(&c, key_b, 9, false, now);
        assert_int_equal(c.task[2].state, CORE_LEASED);
        assert_int_equal(c.task[2].worker, 0);
        done(&c, session_1, 2, now);
        done(&c, session_2, 1, now);
        if (leaves) { /* no other worker is left */
            say(&c, CORE_EV_BYE, session_2, 0, now);
            pass(&c, &now, 2000);
            assert_int_equal(c.task[0].state, CORE_LEASED);
            about(&c, CORE_EV_FAIL, session_1, key_a, c.task[0].fence, false, why, now);
        } else {
            say(&c, CORE_EV_CREDIT, session_2, 1, now);
            assert_int_equal(c.task[0].state, CORE_LEASED);
            assert_int_equal(c.task[0].worker, 1);
            about(&c, CORE_EV_FAIL, session_2, key_a, c.task[0].fence, false, why, now);
        }
        assert_int_equal(c.task[0].state, CORE_QUARANTINED);
        core_clear(&c);
    }
}

static void test_alone_a_node_condemns_what_it_cannot_read(void **state)
{
    (void)state;
    struct core c;
    begin(&c, false, false);
    want(&c, key_a, 0, false, 0);
    hello(&c, session_1, "w1", 1, 10);
    about(&c, CORE_EV_FAIL, session_1, key_a, c.task[0].fence, false, CORE_FAIL_ABSENT, 20);
    assert_int_equal(c.task[0].state, CORE_QUARANTINED);
    core_clear(&c);
}

/* A worker without credit does not count as a second node: its compute process is not up, the task would wait forever.
 * */
static void test_a_worker_without_a_compute_process_is_not_waited_for(void **state)
{
    (void)state;
    struct core c;
    int64_t now = 10;
    begin(&c, false, false);
    want(&c, key_a, 0, false, 0);
    hello(&c, session_1, "w1", 1, now);
    hello_as(&c, session_2, "w2", 0, now);
    about(&c, CORE_EV_FAIL, session_1, key_a, c.task[0].fence, false, CORE_FAIL_ABSENT, now);
    pass(&c, &now, 50000);
    assert_int_equal(c.task[0].state, CORE_READY); /* it may still come up */
    pass(&c, &now, 20000);
    assert_int_equal(c.task[0].state, CORE_LEASED);
    about(&c, CORE_EV_FAIL, session_1, key_a, c.task[0].fence, false, CORE_FAIL_ABSENT, now);
    assert_int_equal(c.task[0].state, CORE_QUARANTINED);
    core_clear(&c);
}

/* What counts is the number of consecutive failures. */
static void test_a_task_done_begins_the_count_anew(void **state)
{
    (void)state;
    struct core c;
    char key[CORE_KEY];
    int64_t now = 10;
    begin(&c, false, false);
    hello(&c, session_1, "w1", 1, now);
    for (unsigned i = 0; i < 20; i++) {
        snprintf(key, sizeof key, "%064x", i);
        uint32_t t = want(&c, key, i, false, now);
        if (i == 0) hello(&c, session_2, "w2", 1, now);
        if (i == 0) say(&c, CORE_EV_CREDIT, session_2, 0, now);
        assert_int_equal(c.task[t].state, CORE_LEASED);
        if (i % 3 == 2)
            done(&c, session_1, t, now);
        else
            about(&c, CORE_EV_FAIL, session_1, key, c.task[t].fence, false, CORE_FAIL_ABSENT, now);
        say(&c, CORE_EV_CREDIT, session_1, 1, now);
        assert_int_equal(c.worker[0].cordon_until_ms, 0);
    }
    core_clear(&c);
}

/* A task that failed goes to another worker with credit, even before it must. */
static void test_another_node_is_preferred_after_a_failure(void **state)
{
    (void)state;
    struct core c;
    int64_t now = 10;
    begin(&c, false, false);
    want(&c, key_a, 0, false, 0);
    hello(&c, session_1, "w1", 2, now);
    about(&c, CORE_EV_FAIL, session_1, key_a, c.task[0].fence, false, CORE_FAIL_CRASH, now);
    hello(&c, session_2, "w2", 1, now);
    say(&c, CORE_EV_CREDIT, session_1, 2, now);
    pass(&c, &now, 2000);
    assert_int_equal(c.task[0].state, CORE_LEASED);
    assert_int_equal(c.task[0].worker, 1);
    core_clear(&c);
}

/* w1 does not see the data, w2 runs one long task: none of a hundred tasks is given up, w1 is tried with exponential
 * backoff, one task at a time, and all are done in the end. */
static void test_a_worker_that_fails_everything_is_cordoned(void **state)
{
    (void)state;
    enum { N = 100 };
    struct core c;
    char key[CORE_KEY];
    int64_t now = 10;
    unsigned failed = 0;
    begin(&c, false, false);
    hello(&c, session_2, "w2", 1, now);
    for (unsigned i = 0; i < N; i++) {
        snprintf(key, sizeof key, "%064x", i);
        want(&c, key, i, false, now);
    }
    hello(&c, session_1, "w1", 2, now);
    bool noted = false;
    for (int64_t end = now + 10 * 60000; now < end;) {
        unsigned held = 0;
        core_actions_clear(&c);
        for (uint32_t t = 0; t < N; t++) {
            if (c.task[t].state != CORE_LEASED || c.worker[c.task[t].worker].name[1] != '1') continue;
            assert_true(++held <= 1 || failed < CORE_FAILING);
            about(&c, CORE_EV_FAIL, session_1, c.task[t].key, c.task[t].fence, false, CORE_FAIL_ABSENT, now);
            failed++;
        }
        for (size_t i = 0; i < c.n_actions; i++)
            noted |= c.action[i].type == CORE_ACT_NOTE && strstr(c.action[i].text, "w1 on w1 gets no tasks for 60 s");
        pass(&c, &now, 1000);
    }
    assert_true(noted);
    assert_in_range(failed, CORE_FAILING + 2, CORE_FAILING + 4); /* after 1, 2, 4 minutes, plus those it held */
    uint32_t w1 = core_find_worker(&c, session_1);
    assert_true(c.worker[w1].cordon_until_ms > now);
    /* repaired and restarted, it is at once treated like any other */
    core_handle(&c, &(struct core_event){.type = CORE_EV_BYE, .session = session_1}, now);
    hello(&c, session_1, "w1", 2, now);
    w1 = core_find_worker(&c, session_1);
    assert_int_equal(c.worker[w1].held, 2);
    for (int i = 0; i < 3 * N; i++) {
        for (uint32_t t = 0; t < N; t++)
            if (c.task[t].state == CORE_LEASED) done(&c, c.worker[c.task[t].worker].session, t, now);
        say(&c, CORE_EV_CREDIT, session_2, 1, now);
        pass(&c, &now, 1000);
    }
    for (uint32_t t = 0; t < N; t++) assert_int_equal(c.task[t].state, CORE_COMMITTED);
    core_clear(&c);
}

/* A task that fails with different causes on different workers is given up, too. */
static void test_failures_of_different_kinds_come_to_an_end(void **state)
{
    (void)state;
    struct core c;
    int64_t now = 10;
    int failures = 0;
    begin(&c, false, false);
    want(&c, key_a, 0, false, 0);
    hello(&c, session_1, "w1", 1, now);
    hello(&c, session_2, "w2", 1, now);
    for (; c.task[0].state != CORE_QUARANTINED && failures < 30; failures++) {
        for (int i = 0; i < 3600 && c.task[0].state != CORE_LEASED; i++) {
            pass(&c, &now, 1000);
            say(&c, CORE_EV_CREDIT, session_2, 1, now);
        }
        assert_int_equal(c.task[0].state, CORE_LEASED);
        bool first = c.task[0].worker == 0;
        about(&c, CORE_EV_FAIL, first ? session_1 : session_2, key_a, c.task[0].fence, false,
              first ? CORE_FAIL_CRASH : CORE_FAIL_OOM, now);
    }
    assert_true(failures < 14);
    core_clear(&c);
}

static void test_release_goes_to_the_head_without_guilt(void **state)
{
    (void)state;
    struct core c;
    begin(&c, false, false);
    want(&c, key_a, 5, false, 0);
    hello(&c, session_1, "w1", 1, 10);
    want(&c, key_b, 1, false, 10); /* before a in the queue */
    about(&c, CORE_EV_RELEASE, session_1, key_a, c.task[0].fence, false, 0, 20);
    for (int f = 0; f < CORE_FAIL_COUNT; f++) assert_int_equal(c.task[0].failures[f], 0);
    say(&c, CORE_EV_CREDIT, session_1, 1, 30);
    assert_int_equal(c.task[0].state, CORE_LEASED);
    assert_int_equal(c.task[1].state, CORE_READY);
    core_clear(&c);
}

static void test_own_pause_expires_nobody(void **state)
{
    (void)state;
    struct core c;
    begin(&c, false, false);
    want(&c, key_a, 0, false, 0);
    hello(&c, session_1, "w1", 1, 10);
    tick(&c, 1000);
    core_actions_clear(&c);
    tick(&c, 3600 * 1000); /* the machine slept */
    assert_null(find(&c, CORE_ACT_CHECK));
    assert_int_equal(c.task[0].state, CORE_LEASED);
    /* nor while its broken connection may be reconnecting */
    for (int64_t now = 0; now < c.opt.return_ms; now += 1000) tick(&c, 3600 * 1000 + now);
    assert_null(find(&c, CORE_ACT_CHECK));
    assert_int_not_equal(core_find_worker(&c, session_1), CORE_NONE);
    tick(&c, 3600 * 1000 + c.opt.return_ms);
    assert_non_null(find(&c, CORE_ACT_CHECK));
    core_clear(&c);
}

static void test_breaker_stops_a_stage_whose_tasks_all_fail(void **state)
{
    (void)state;
    struct core c;
    char key[CORE_KEY];
    unsigned handed = 0;
    begin(&c, false, false);
    for (unsigned i = 0; i < 200; i++) {
        snprintf(key, sizeof key, "%064x", i);
        want(&c, key, i, false, 0);
    }
    hello(&c, session_1, "w1", 1, 10);
    for (int64_t now = 20; now < 3000; now += 10) {
        uint32_t held = CORE_NONE;
        for (uint32_t i = 0; i < c.n_active; i++)
            if (c.task[c.active[i]].state == CORE_LEASED) held = c.active[i];
        if (held == CORE_NONE) continue;
        handed++;
        about(&c, CORE_EV_FAIL, session_1, c.task[held].key, c.task[held].fence, false, CORE_FAIL_OTHER, now);
        say(&c, CORE_EV_CREDIT, session_1, 1, now);
    }
    assert_in_range(handed, 50, 60);
    /* then one task is tried, and if it fails the pause grows; a success ends it */
    int64_t now = 3000, opened = c.pool[0].broken_until_ms;
    for (int i = 1; i <= 3; i++) {
        say(&c, CORE_EV_CREDIT, session_1, 1, opened - 1);
        assert_int_equal(c.worker[0].held, 0);
        now = opened + 1000;
        c.worker[0].slots = 3;
        say(&c, CORE_EV_CREDIT, session_1, 3, now);
        assert_int_equal(c.worker[0].held, 1);
        uint32_t t = 0;
        while (c.task[t].state != CORE_LEASED) t++;
        if (i == 3) {
            done(&c, session_1, t, now);
            say(&c, CORE_EV_CREDIT, session_1, 3, now);
            assert_int_equal(c.worker[0].held, 3);
            break;
        }
        about(&c, CORE_EV_FAIL, session_1, c.task[t].key, c.task[t].fence, false, CORE_FAIL_OTHER, now);
        opened = c.pool[0].broken_until_ms;
        assert_int_equal(opened - now, 60000 << i);
    }
    core_clear(&c);
}

/* A worker whose device fails gets no tasks for a minute, then twice as long, at most sixteen; a success resets this.
 * Its tasks lose no attempts by it. */
static void test_a_broken_device_is_asked_less_and_less(void **state)
{
    (void)state;
    struct core c;
    int64_t now = 10, pause = 0;
    const int64_t minutes[] = {1, 2, 4, 8, 16, 16};
    begin(&c, false, false);
    want(&c, key_a, 0, false, 0);
    hello(&c, session_1, "w1", 1, now);
    for (size_t i = 0; i < sizeof minutes / sizeof *minutes; i++) {
        const int64_t failed = now;
        assert_int_equal(c.task[0].state, CORE_LEASED);
        about(&c, CORE_EV_FAIL, session_1, key_a, c.task[0].fence, false, CORE_FAIL_DEVICE, now);
        while (c.task[0].state != CORE_LEASED && now < failed + 3600000) {
            now += 5000;
            tick(&c, now);
            say(&c, CORE_EV_CREDIT, session_1, 1, now);
        }
        pause = now - failed;
        assert_in_range(pause, minutes[i] * 60000, minutes[i] * 60000 + 5000);
    }
    about(&c, CORE_EV_RESULT, session_1, key_a, c.task[0].fence, false, 0, now);
    about(&c, CORE_EV_CHECKED, session_1, key_a, c.task[0].fence, true, 0, now);
    assert_int_equal(c.task[0].state, CORE_COMMITTED);
    want(&c, key_b, 1, false, now);
    say(&c, CORE_EV_CREDIT, session_1, 1, now);
    assert_int_equal(c.task[1].state, CORE_LEASED);
    about(&c, CORE_EV_FAIL, session_1, key_b, c.task[1].fence, false, CORE_FAIL_DEVICE, now);
    assert_int_equal(c.worker[0].cordon_until_ms - now, 60000);
    core_clear(&c);
}

/* Without the check (the mutant) an old attempt's message would end the newer attempt. */
static void test_old_fence_changes_nothing(void **state)
{
    (void)state;
    for (int mutant = 0; mutant < 2; mutant++) {
        struct core c;
        begin(&c, mutant, false);
        want(&c, key_a, 0, false, 0);
        hello(&c, session_1, "w1", 1, 10);
        uint64_t old = c.task[0].fence;
        about(&c, CORE_EV_RELEASE, session_1, key_a, old, false, 0, 20);
        hello(&c, session_2, "w2", 1, 30);
        assert_int_equal(c.task[0].state, CORE_LEASED);
        assert_true(c.task[0].fence > old);
        core_actions_clear(&c);
        about(&c, CORE_EV_FAIL, session_1, key_a, old, false, CORE_FAIL_INPUT, 40);
        assert_int_equal(c.task[0].state, mutant ? CORE_QUARANTINED : CORE_LEASED);
        assert_int_equal(find(&c, CORE_ACT_ACK)->verdict, mutant ? CORE_NOTED : CORE_STALE);
        core_clear(&c);
    }
}

/* A lease expires after exactly that much silence; a message of its holder renews it, even after the store was queried.
 * The worker itself is then dropped. */
static void test_a_lease_lasts_as_long_as_it_is_said_to(void **state)
{
    (void)state;
    struct core c;
    begin(&c, false, false);
    const int64_t lease = c.opt.lease_ms;
    want(&c, key_a, 0, false, 0);
    hello(&c, session_1, "w1", 1, 0);
    for (int64_t from = 0; from <= 2 * lease; from += 2 * lease) {
        beat(&c, 1, from);
        core_actions_clear(&c);
        for (int64_t now = from + 5000; now <= from + lease; now += 5000) tick(&c, now);
        assert_null(find(&c, CORE_ACT_CHECK));
        assert_int_not_equal(core_find_worker(&c, session_1), CORE_NONE);
        if (from) break;
        c.worker[0].heard_ms = lease + 1; /* it sends messages, but not about this task */
        tick(&c, lease + 1);
        assert_non_null(find(&c, CORE_ACT_CHECK));
        beat(&c, 2, lease + 2);
        about(&c, CORE_EV_CHECKED, "", key_a, c.task[0].fence, false, 0, lease + 3);
        assert_int_equal(c.task[0].state, CORE_LEASED);
        assert_int_equal(c.task[0].failures[CORE_FAIL_LEASE_LOST], 0);
        for (int64_t now = lease + 5000; now < 2 * lease; now += 5000) beat(&c, 3, now), tick(&c, now);
    }
    const uint64_t fence = c.task[0].fence;
    tick(&c, 3 * lease + 1);
    assert_non_null(find(&c, CORE_ACT_CHECK));
    assert_int_equal(core_find_worker(&c, session_1), CORE_NONE);
    about(&c, CORE_EV_CHECKED, "", key_a, fence, false, 0, 3 * lease + 1);
    assert_int_equal(c.task[0].state, CORE_READY);
    assert_int_equal(c.task[0].failures[CORE_FAIL_LEASE_LOST], 1);
    core_clear(&c);
}

/* An old attempt reports success and the store has no commit: this says nothing about the current attempt. */
static void test_a_result_of_before_says_nothing_of_the_attempt_that_runs(void **state)
{
    (void)state;
    struct core c;
    begin(&c, false, false);
    want(&c, key_a, 0, false, 0);
    hello(&c, session_1, "w1", 1, 0);
    const uint64_t old = c.task[0].fence;
    about(&c, CORE_EV_RELEASE, session_1, key_a, old, false, 0, 10);
    hello(&c, session_2, "w2", 1, 20);
    core_actions_clear(&c);
    about(&c, CORE_EV_RESULT, session_1, key_a, old, false, 0, 30);
    assert_true(find(&c, CORE_ACT_CHECK)->fence == old);
    about(&c, CORE_EV_CHECKED, session_1, key_a, old, false, 0, 30);
    assert_int_equal(find(&c, CORE_ACT_ACK)->verdict, CORE_MISSING);
    assert_int_equal(c.task[0].state, CORE_LEASED);
    assert_int_equal(c.task[0].failures[CORE_FAIL_STORE], 0);
    core_clear(&c);
}

/* During a long batch no item is done, but the task makes progress: it keeps its lease, until progress stops. */
static void test_what_goes_on_unseen_stays(void **state)
{
    (void)state;
    struct core c;
    const int64_t stall = 60000;
    begin(&c, false, false);
    core_task_want(&c, key_a, "embed", "label", "run", 0, (uint64_t)stall, false, 0);
    hello(&c, session_1, "w1", 1, 0);
    const int64_t most = stall + c.opt.lease_ms;
    int64_t now = 0;
    for (uint64_t changes = 1; now <= 3 * most; now += 5000, changes++) {
        beat_of(&c, 7, changes, now);
        tick(&c, now);
        assert_int_equal(c.task[0].state, CORE_LEASED);
    }
    const uint64_t last = c.task[0].changes;
    for (int64_t until = now + most; now <= until; now += 5000) {
        beat_of(&c, 7, last, now);
        tick(&c, now);
    }
    assert_int_equal(c.task[0].state, CORE_RETRY_WAIT);
    assert_int_equal(c.task[0].failures[CORE_FAIL_STALL], 1);
    core_clear(&c);
}

/* Heartbeats arrive, the task makes no progress and the agent does not act: the lease is revoked. A pause of the
 * coordinator itself does not count as a stall. */
static void test_what_stands_still_is_taken_away(void **state)
{
    (void)state;
    struct core c;
    const int64_t stall = 60000;
    begin(&c, false, false);
    const int64_t most = stall + c.opt.lease_ms;
    core_task_want(&c, key_a, "embed", "label", "run", 0, (uint64_t)stall, false, 0);
    hello(&c, session_1, "w1", 1, 0);
    int64_t now = 0;
    for (; now <= most; now += 5000) beat(&c, (uint64_t)now / 10000, now), tick(&c, now); /* progress */
    const int64_t slept = 10 * most, moved = (now - 5000) / 10000 * 10000;
    tick(&c, now += slept);
    for (; now <= moved + slept + most; now += 5000) {
        beat(&c, (uint64_t)moved / 10000, now);
        tick(&c, now);
        assert_int_equal(c.task[0].state, CORE_LEASED);
    }
    core_actions_clear(&c);
    beat(&c, (uint64_t)moved / 10000, now += 5000);
    tick(&c, now);
    assert_string_equal(find(&c, CORE_ACT_CANCEL)->session, session_1);
    assert_int_equal(c.task[0].state, CORE_RETRY_WAIT);
    assert_int_equal(c.task[0].failures[CORE_FAIL_STALL], 1);
    core_clear(&c);
}

/* A store that is unreachable for a while fails no task and stops no stage; it is queried with backoff, up to a minute.
 * */
static void test_a_store_that_is_away_costs_nothing_but_time(void **state)
{
    (void)state;
    struct core c;
    begin(&c, false, false);
    want(&c, key_a, 0, false, 0);
    hello(&c, session_1, "w1", 1, 0);
    int64_t now = 0;
    for (int i = 0; i < 60; i++) {
        assert_int_equal(c.task[0].state, CORE_LEASED);
        about(&c, CORE_EV_FAIL, session_1, key_a, c.task[0].fence, false, CORE_FAIL_STORE, now);
        assert_int_equal(c.task[0].state, CORE_RETRY_WAIT);
        assert_int_equal(c.task[0].not_before_ms - now, i < 5 ? 2000 << i : 60000);
        now = c.task[0].not_before_ms;
        say(&c, CORE_EV_CREDIT, session_1, 1, now);
        tick(&c, now);
    }
    core_clear(&c);
}

/* No run needs the task any more: its worker is told to stop, and a draining worker gets nothing new. */
static void test_what_nobody_wants_is_cancelled_and_who_drains_gets_nothing(void **state)
{
    (void)state;
    struct core c;
    begin(&c, false, false);
    want(&c, key_a, 0, false, 0);
    want(&c, key_b, 1, false, 0);
    hello(&c, session_1, "w1", 1, 0);
    say(&c, CORE_EV_DRAIN, session_1, 0, 10);
    core_actions_clear(&c);
    core_task_unwant(&c, 0, 20);
    assert_string_equal(find(&c, CORE_ACT_CANCEL)->session, session_1);
    assert_int_equal(c.task[0].state, CORE_CANCELLED);
    say(&c, CORE_EV_CREDIT, session_1, 1, 30);
    assert_int_equal(c.task[1].state, CORE_READY);
    core_clear(&c);
}

/* What STATUS says of waiting tasks: nothing while workers are merely busy. */
static void test_says_what_ready_tasks_wait_for(void **state)
{
    (void)state;
    struct core c;
    begin(&c, false, false);
    want(&c, key_a, 0, false, 0);
    want(&c, key_b, 1, false, 0);
    struct core_wait w = core_wait(&c, "embed", 5);
    assert_int_equal(w.cause, CORE_WAIT_NO_WORKER);
    assert_int_equal(w.workers, 0);
    hello_as(&c, session_1, "w1", 0, 10); /* no credit: its compute process is not up yet */
    w = core_wait(&c, "embed", 10);
    assert_int_equal(w.cause, CORE_WAIT_NOT_READY);
    assert_int_equal(w.first, 0);
    say(&c, CORE_EV_CREDIT, session_1, 1, 11);
    assert_int_equal(c.task[0].state, CORE_LEASED);
    assert_int_equal(core_wait(&c, "embed", 12).cause, CORE_WAIT_NONE); /* key_b waits for its turn */
    assert_int_equal(core_wait(&c, "train", 12).cause, CORE_WAIT_NO_WORKER);
    about(&c, CORE_EV_FAIL, session_1, key_a, c.task[0].fence, false, CORE_FAIL_DEVICE, 20);
    w = core_wait(&c, "embed", 20);
    assert_int_equal(w.cause, CORE_WAIT_HELD_BACK);
    assert_int_equal(w.cordoned, 1);
    assert_int_equal(w.until_ms, 60020);
    assert_string_equal(c.worker[w.first].cordon_why, "because");
    assert_int_equal(core_wait(&c, "embed", 60020).cause, CORE_WAIT_NOT_READY); /* it has sent no credit since */
    hello(&c, session_2, "w2", 2, 30);
    assert_int_equal(core_wait(&c, "embed", 30).cause, CORE_WAIT_NONE);
    say(&c, CORE_EV_DRAIN, session_2, 0, 40); /* its tasks continue, others get no worker */
    w = core_wait(&c, "embed", 40);
    assert_int_equal(w.cause, CORE_WAIT_HELD_BACK);
    assert_int_equal(w.draining, 1);
    assert_int_equal(w.cordoned, 1);
    assert_int_equal(w.workers, 2);
    assert_int_equal(w.first, 0);
    c.dispatch = false; /* Redis is down: that is what they wait for */
    assert_int_equal(core_wait(&c, "embed", 40).cause, CORE_WAIT_NONE);
    c.dispatch = true;
    c.settled_ms = 100;
    assert_int_equal(core_wait(&c, "train", 40).cause, CORE_WAIT_NONE);
    c.pool[0].broken_until_ms = 500;
    w = core_wait(&c, "embed", 100);
    assert_int_equal(w.cause, CORE_WAIT_BREAKER);
    assert_int_equal(w.until_ms, 500);
    core_clear(&c);
}

/* A full disk uses up no attempts, however long it lasts. */
static void test_a_full_disk_costs_nothing_but_time(void **state)
{
    (void)state;
    struct core c;
    begin(&c, false, false);
    want(&c, key_a, 0, false, 0);
    hello(&c, session_1, "w1", 1, 10);
    int64_t now = 10;
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(c.task[0].state, CORE_LEASED);
        about(&c, CORE_EV_FAIL, session_1, key_a, c.task[0].fence, false, CORE_FAIL_FULL, now);
        assert_int_equal(c.task[0].state, CORE_RETRY_WAIT);
        assert_true(c.task[0].not_before_ms - now <= 60000);
        core_actions_clear(&c);
        for (int64_t until = now + 60000; now < until; now += 5000) say(&c, CORE_EV_CREDIT, session_1, 0, now);
        say(&c, CORE_EV_CREDIT, session_1, 1, now);
        tick(&c, now);
    }
    assert_int_equal(c.worker[0].cordon_until_ms, 0);
    assert_int_equal(c.task[0].guilt[0].node, 0);
    assert_int_equal(c.pool[0].failed[CORE_FAIL_FULL], 1000); /* visible in the metrics */
    core_clear(&c);
}

/* Its input is being verified, which may take longer than the wait for the next attempt. */
static void test_a_withheld_task_waits_for_its_release(void **state)
{
    (void)state;
    struct core c;
    begin(&c, false, false);
    want(&c, key_a, 0, false, 0);
    core_task_withhold(&c, 0); /* it has not failed */
    hello(&c, session_1, "w1", 1, 10);
    assert_int_equal(c.task[0].state, CORE_LEASED);
    about(&c, CORE_EV_FAIL, session_1, key_a, c.task[0].fence, false, CORE_FAIL_INTEGRITY, 20);
    core_task_withhold(&c, 0);
    for (int64_t now = 30; now < 100000; now += 5000) {
        say(&c, CORE_EV_CREDIT, session_1, 1, now);
        tick(&c, now);
        assert_int_equal(c.task[0].state, CORE_RETRY_WAIT);
        assert_true(core_next_tick_ms(&c, now) > now); /* nothing is due */
    }
    core_task_release(&c, 0);
    tick(&c, 100000);
    assert_int_equal(c.task[0].state, CORE_LEASED);
    about(&c, CORE_EV_FAIL, session_1, key_a, c.task[0].fence, false, CORE_FAIL_INTEGRITY, 100010);
    core_task_withhold(&c, 0);
    core_task_unwant(&c, 0, 100020); /* no run needs it any more, and then one does */
    want(&c, key_a, 0, false, 100030);
    say(&c, CORE_EV_CREDIT, session_1, 1, 100040);
    assert_int_equal(c.task[0].state, CORE_LEASED);
    core_clear(&c);
}

static void test_without_room_nothing_is_handed_out(void **state)
{
    (void)state;
    struct core c;
    begin(&c, false, false);
    c.no_room = true;
    want(&c, key_a, 0, false, 0);
    hello(&c, session_1, "w1", 1, 10);
    assert_int_equal(c.task[0].state, CORE_READY);
    assert_int_equal(core_wait(&c, "train", 20).cause, CORE_WAIT_NONE); /* it waits for the disk, not for workers */
    c.no_room = false;
    tick(&c, 20);
    assert_int_equal(c.task[0].state, CORE_LEASED);
    core_clear(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hands_out_no_more_than_the_credit),
        cmocka_unit_test(test_says_what_ready_tasks_wait_for),
        cmocka_unit_test(test_done_only_when_the_commit_exists),
        cmocka_unit_test(test_three_crashes_are_the_end_and_input_errors_at_once),
        cmocka_unit_test(test_what_a_run_does_without_is_not_given_up),
        cmocka_unit_test(test_one_node_alone_cannot_condemn_a_task),
        cmocka_unit_test(test_alone_a_node_condemns_what_it_cannot_read),
        cmocka_unit_test(test_a_worker_without_a_compute_process_is_not_waited_for),
        cmocka_unit_test(test_a_task_done_begins_the_count_anew),
        cmocka_unit_test(test_another_node_is_preferred_after_a_failure),
        cmocka_unit_test(test_a_worker_that_fails_everything_is_cordoned),
        cmocka_unit_test(test_failures_of_different_kinds_come_to_an_end),
        cmocka_unit_test(test_release_goes_to_the_head_without_guilt),
        cmocka_unit_test(test_own_pause_expires_nobody),
        cmocka_unit_test(test_breaker_stops_a_stage_whose_tasks_all_fail),
        cmocka_unit_test(test_a_broken_device_is_asked_less_and_less),
        cmocka_unit_test(test_old_fence_changes_nothing),
        cmocka_unit_test(test_a_lease_lasts_as_long_as_it_is_said_to),
        cmocka_unit_test(test_a_result_of_before_says_nothing_of_the_attempt_that_runs),
        cmocka_unit_test(test_what_stands_still_is_taken_away),
        cmocka_unit_test(test_what_goes_on_unseen_stays),
        cmocka_unit_test(test_a_store_that_is_away_costs_nothing_but_time),
        cmocka_unit_test(test_what_nobody_wants_is_cancelled_and_who_drains_gets_nothing),
        cmocka_unit_test(test_a_full_disk_costs_nothing_but_time),
        cmocka_unit_test(test_a_withheld_task_waits_for_its_release),
        cmocka_unit_test(test_without_room_nothing_is_handed_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
