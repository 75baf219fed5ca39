/* The pure core: restarts of the coordinator and of workers, and messages that are repeated or late. */
#include "core_world.h"

/* The previous coordinator's leases are unknown: all workers get time to reconnect and report them. */
static void test_after_a_restart_leases_wait_for_their_holders(void **state)
{
    (void)state;
    uint16_t failures[CORE_FAIL_COUNT] = {0};
    for (int remembered = 0; remembered < 2; remembered++) {
        struct core c;
        struct core_options o = CORE_OPTIONS_DEFAULT;
        int64_t now = 0, handed = 0, checked = 0;
        core_init(&c, &o, 2, 0);
        want(&c, key_a, 0, false, 0);
        want(&c, key_b, 1, false, 0);
        core_task_restore(&c, 0, CORE_LEASED, 1, (uint64_t)1 << 32 | 5, failures, 0);
        core_returning(&c, remembered, 0);
        hello(&c, session_2, "w2", 1, 0);
        say(&c, CORE_EV_CREDIT, session_2, 1, 0);
        core_actions_clear(&c);
        while (now < 2 * o.return_ms) {
            pass(&c, &now, 1000);
            if (!handed && c.task[1].state == CORE_LEASED) handed = now;
            if (!checked && find(&c, CORE_ACT_CHECK)) checked = now;
        }
        assert_in_range(checked, o.return_ms, o.return_ms + 1000);
        assert_in_range(handed, remembered ? o.settle_ms : o.return_ms,
                        (remembered ? o.settle_ms : o.return_ms) + 1000);
        core_clear(&c);
    }
}

/* A task's failure count survives a restart: a poisoned task is not retried forever. */
static void test_budgets_go_on_after_a_restart(void **state)
{
    (void)state;
    struct core c;
    uint16_t failures[CORE_FAIL_COUNT] = {[CORE_FAIL_CRASH] = 2};
    begin(&c, false, false);
    want(&c, key_a, 0, false, 0);
    core_task_restore(&c, 0, CORE_READY, 2, 7, failures, 0);
    hello(&c, session_1, "w1", 1, 0);
    about(&c, CORE_EV_FAIL, session_1, key_a, c.task[0].fence, false, CORE_FAIL_CRASH, 10);
    assert_int_equal(c.task[0].state, CORE_QUARANTINED);
    core_clear(&c);
}

/* Redis may have lost fences of this epoch: those of the next epoch are larger than all of them. */
static void test_another_epoch_has_larger_fences(void **state)
{
    (void)state;
    struct core c;
    begin(&c, false, false);
    want(&c, key_a, 0, false, 0);
    hello(&c, session_1, "w1", 2, 0);
    core_set_epoch(&c, 4, 10);
    want(&c, key_b, 1, false, 20);
    assert_true(c.task[0].fence == ((uint64_t)1 << 32 | 1));
    assert_true(c.task[1].fence == ((uint64_t)4 << 32 | 1));
    core_clear(&c);
}

static void test_lost_result_costs_no_second_run(void **state)
{
    (void)state;
    for (int mutant = 0; mutant < 2; mutant++) {
        struct core c;
        begin(&c, false, mutant);
        want(&c, key_a, 0, false, 0);
        hello(&c, session_1, "w1", 1, 10);
        uint64_t fence = c.task[0].fence;
        for (int64_t now = 1000; now < 40000; now += 1000) tick(&c, now);
        if (mutant) {
            assert_null(find(&c, CORE_ACT_CHECK)); /* it would be run again */
            assert_int_equal(c.task[0].state, CORE_READY);
        } else {
            assert_non_null(find(&c, CORE_ACT_CHECK));
            about(&c, CORE_EV_CHECKED, "", key_a, fence, true, 0, 40000);
            assert_int_equal(c.task[0].state, CORE_COMMITTED);
        }
        core_clear(&c);
    }
}

static void test_held_lease_survives_a_restart(void **state)
{
    (void)state;
    struct core c;
    uint16_t failures[CORE_FAIL_COUNT] = {0};
    uint64_t fence = (uint64_t)7 << 32 | 3;
    struct core_lease held = {.fence = fence};
    snprintf(held.key, sizeof held.key, "%s", key_a);
    for (int forgotten = 0; forgotten < 2; forgotten++) { /* also when Redis lost everything */
        struct core_options o = CORE_OPTIONS_DEFAULT;
        core_init(&c, &o, 8, 0);
        c.settled_ms = 2000;
        uint32_t t = want(&c, key_a, 0, false, 0);
        if (!forgotten) core_task_restore(&c, t, CORE_LEASED, 1, fence, failures, 0);
        hello_holding(&c, "n", &held, 100);
        assert_non_null(find(&c, CORE_ACT_KEPT));
        assert_int_equal(c.task[t].state, CORE_LEASED);
        assert_true(c.task[t].fence == fence);
        core_clear(&c);
    }
}

/* A worker without replies (because the coordinator was frozen, say) repeats its failure and its HELLO, which names the
 * tasks that it reports. All of it arrives at once; the failure counts once. */
static void test_a_failure_that_is_said_again_counts_once(void **state)
{
    (void)state;
    struct core c;
    begin(&c, false, false);
    want(&c, key_a, 0, false, 0);
    hello(&c, session_1, "w1", 1, 0);
    uint64_t fence = c.task[0].fence;
    struct core_lease held = {.fence = fence};
    snprintf(held.key, sizeof held.key, "%s", key_a);
    for (int i = 0; i < 4; i++) {
        core_actions_clear(&c);
        about(&c, CORE_EV_FAIL, session_1, key_a, fence, false, CORE_FAIL_CRASH, 20000);
        assert_non_null(find(&c, CORE_ACT_ACK));
        assert_int_equal(find(&c, CORE_ACT_ACK)->verdict, i ? CORE_STALE : CORE_NOTED);
        hello_holding(&c, "w1", &held, 20000);
        assert_non_null(find(&c, CORE_ACT_DROPPED));
        assert_int_equal(c.task[0].state, CORE_RETRY_WAIT);
        assert_int_equal(c.task[0].failures[CORE_FAIL_CRASH], 1);
    }
    core_clear(&c);
}

/* So does a returned task, and one that Redis has as failed: its lease is not taken for a live one. */
static void test_what_is_over_is_not_held(void **state)
{
    (void)state;
    uint16_t failures[CORE_FAIL_COUNT] = {0};
    struct core c;
    begin(&c, false, false);
    want(&c, key_a, 0, false, 0);
    hello(&c, session_1, "w1", 1, 0);
    struct core_lease held = {.fence = c.task[0].fence};
    snprintf(held.key, sizeof held.key, "%s", key_a);
    about(&c, CORE_EV_RELEASE, session_1, key_a, held.fence, false, 0, 10);
    core_actions_clear(&c);
    hello_holding(&c, "w1", &held, 20); /* the reply was lost */
    assert_non_null(find(&c, CORE_ACT_DROPPED));
    assert_int_equal(c.task[0].state, CORE_READY);
    core_clear(&c);

    begin(&c, false, false);
    want(&c, key_a, 0, false, 0);
    core_task_restore(&c, 0, CORE_RETRY_WAIT, 1, held.fence, failures, 0);
    hello_holding(&c, "w1", &held, 20);
    assert_non_null(find(&c, CORE_ACT_DROPPED));
    assert_int_equal(c.task[0].state, CORE_RETRY_WAIT);
    core_clear(&c);
}

/* Another worker has held and returned the task since: the earlier holder holds nothing. */
static void test_a_lease_of_before_the_last_one_is_not_held(void **state)
{
    (void)state;
    struct core c;
    begin(&c, false, false);
    want(&c, key_a, 0, false, 0);
    hello(&c, session_1, "w1", 1, 0);
    struct core_lease held = {.fence = c.task[0].fence};
    snprintf(held.key, sizeof held.key, "%s", key_a);
    about(&c, CORE_EV_CLAIM_LOST, "", key_a, held.fence, false, 0, 10); /* it was sent but could not be recorded */
    assert_int_equal(c.task[0].attempt, 0);                             /* nobody had it */
    hello(&c, session_2, "w2", 1, 20);
    assert_int_equal(c.task[0].attempt, 1);
    assert_true(c.task[0].fence > held.fence);
    core_handle(
        &c,
        &(struct core_event){.type = CORE_EV_ASSIGN_ACK, .session = session_2, .key = key_a, .fence = c.task[0].fence},
        30); /* it has no credit */
    assert_int_equal(c.task[0].state, CORE_READY);
    core_actions_clear(&c);
    hello_holding(&c, "w1", &held, 40);
    assert_non_null(find(&c, CORE_ACT_DROPPED));
    assert_int_equal(c.task[0].state, CORE_READY);
    core_clear(&c);
}

/* One of a worker's machines joined or left: it sends HELLO again, and keeps its tasks. */
static void test_what_a_worker_computes_with_may_change(void **state)
{
    static const char *const devices[] = {"2 machines, 1 missing", "2 machines, 16 GPUs"};
    (void)state;
    struct core c;
    begin(&c, false, false);
    for (int i = 0; i < 2; i++) {
        const struct core_event e = {.type = CORE_EV_HELLO,
                                     .session = session_1,
                                     .service = "train",
                                     .code = "v",
                                     .name = "w1",
                                     .node = "n",
                                     .build = "v",
                                     .device = devices[i],
                                     .n = 1};
        core_handle(&c, &e, 10 * i);
        assert_int_equal(c.n_workers, 1);
        assert_string_equal(c.worker[0].device, devices[i]);
    }
    core_clear(&c);
}

/* A restarted worker says so: the leases of its dead predecessor are freed at once, and only those. */
static void test_next_incarnation_frees_the_leases_of_the_dead_one(void **state)
{
    (void)state;
    for (int committed = 0; committed < 2; committed++) { /* it may have got that far before it died */
        struct core c;
        begin(&c, false, false);
        want(&c, key_a, 0, false, 0);
        hello_as(&c, session_1, "w", 5, 10);
        say(&c, CORE_EV_CREDIT, session_1, 1, 10);
        uint64_t old = c.task[0].fence;
        core_actions_clear(&c);
        hello_as(&c, session_2, "w", 6, 20);
        assert_non_null(find(&c, CORE_ACT_CHECK));
        assert_null(find(&c, CORE_ACT_NAME_TAKEN));
        assert_int_equal(core_find_worker(&c, session_1), CORE_NONE);
        about(&c, CORE_EV_CHECKED, "", key_a, old, committed, 0, 20);
        if (committed) {
            assert_int_equal(c.task[0].state, CORE_COMMITTED);
            core_clear(&c);
            continue;
        }
        assert_int_equal(c.task[0].state, CORE_READY);
        say(&c, CORE_EV_CREDIT, session_2, 1, 21);
        assert_int_equal(c.task[0].state, CORE_LEASED);
        assert_true(c.task[0].fence > old);
        /* the predecessor was not dead: its messages about the old attempt change nothing */
        core_actions_clear(&c);
        about(&c, CORE_EV_FAIL, session_1, key_a, old, false, CORE_FAIL_INPUT, 30);
        assert_non_null(find(&c, CORE_ACT_UNKNOWN_SESSION));
        hello_as(&c, session_1, "w", 5, 31);
        assert_non_null(find(&c, CORE_ACT_NAME_TAKEN));
        core_actions_clear(&c);
        about(&c, CORE_EV_FAIL, session_2, key_a, old, false, CORE_FAIL_INPUT, 32);
        assert_int_equal(find(&c, CORE_ACT_ACK)->verdict, CORE_STALE);
        assert_int_equal(c.task[0].state, CORE_LEASED);
        core_clear(&c);
    }
}

static void test_a_name_is_not_taken_over_without_proof(void **state)
{
    (void)state;
    static const uint64_t pair[][2] = {{0, 0}, {0, 9}, {5, 5}, {5, 4}, {5, 0}}; /* first, second */
    for (size_t i = 0; i < sizeof pair / sizeof *pair; i++) {
        struct core c;
        begin(&c, false, false);
        want(&c, key_a, 0, false, 0);
        hello_as(&c, session_1, "w", pair[i][0], 10);
        say(&c, CORE_EV_CREDIT, session_1, 1, 10);
        hello_as(&c, session_2, "w", pair[i][1], 20);
        assert_non_null(find(&c, CORE_ACT_NAME_TAKEN));
        assert_null(find(&c, CORE_ACT_CHECK));
        assert_int_equal(core_find_worker(&c, session_2), CORE_NONE);
        assert_int_equal(c.task[0].state, CORE_LEASED);
        core_clear(&c);
    }
}

/* The caller has checked that the commit record is gone. */
static void test_a_done_task_whose_record_is_gone_is_done_again(void **state)
{
    (void)state;
    struct core c;
    begin(&c, false, false);
    uint32_t t = want(&c, key_a, 0, false, 0);
    hello(&c, session_1, "w1", 1, 10);
    core_task_commit(&c, t);
    core_task_unwant(&c, t, 20);
    say(&c, CORE_EV_CREDIT, session_1, 1, 20);
    assert_int_equal(want(&c, key_a, 0, false, 30), t);
    assert_int_equal(c.task[t].state, CORE_LEASED);
    assert_int_equal(c.task[t].wanted, 1);
    core_clear(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_failure_that_is_said_again_counts_once),
        cmocka_unit_test(test_next_incarnation_frees_the_leases_of_the_dead_one),
        cmocka_unit_test(test_a_name_is_not_taken_over_without_proof),
        cmocka_unit_test(test_after_a_restart_leases_wait_for_their_holders),
        cmocka_unit_test(test_lost_result_costs_no_second_run),
        cmocka_unit_test(test_budgets_go_on_after_a_restart),
        cmocka_unit_test(test_another_epoch_has_larger_fences),
        cmocka_unit_test(test_what_is_over_is_not_held),
        cmocka_unit_test(test_a_lease_of_before_the_last_one_is_not_held),
        cmocka_unit_test(test_held_lease_survives_a_restart),
        cmocka_unit_test(test_what_a_worker_computes_with_may_change),
        cmocka_unit_test(test_a_done_task_whose_record_is_gone_is_done_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
