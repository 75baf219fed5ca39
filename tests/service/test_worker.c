/* The worker runtime, task by task: done, failed, cancelled, returned, kept through a coordinator's restart. */
#include "base/clock.h"
#include "base/file.h"
#include "msg/runtime.h"
#include "worker_world.h"

static void test_a_task_is_done(void **state)
{
    struct fixture *f = *state;
    a_task_is_done(f);
    /* nothing is left behind */
    uint64_t removed;
    assert_int_equal(mode_store_sweep_tmp(f->store, 0, &removed, NULL, NULL, &f->err), MODE_OK);
    assert_int_equal(removed, 0);
    /* the same task once more: reported, not computed again */
    char key[MODE_DIGEST_HEX];
    start_task(f, key, "count 1", SOON_MS);
    const Mode__Envelope *e = wait_for(f, MODE__ENVELOPE__BODY_RESULT, SOON_MS);
    assert_non_null(e);
    assert_true(e->result->already);
    assert_int_equal(e->result->rows_out, 7);
}

/* The coordinator's cleanup tells from the name of a folder in tmp/ whether a process uses it. */
static void test_a_job_folder_names_its_hand_out(void **state)
{
    struct fixture *f = *state;
    const uint64_t fence = (uint64_t)3 << 32 | 17;
    char *dir = mode_job_folder(f->store, fence, 4711);
    assert_true(mode_job_folder_fence(mode_path_base(dir)) == fence);
    assert_true(mode_job_folder_fence("blob-1234") == 0);
    assert_true(mode_job_folder_fence("job-") == 0);
    free(dir);
}

static void test_results_and_failures_are_said_until_acknowledged(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    start_task(f, key, "count 2", SOON_MS);
    for (int i = 0; i < 2; i++)
        assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_RESULT, SOON_MS)); /* the first is "lost" */
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_COMMITTED);
    reject(f, MODE__REJECT_CODE__REJECT_UNKNOWN_SESSION);
    assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_HELLO, SOON_MS)); /* earlier messages have arrived by now */
    assert_int_equal(f->held, 0);
    wait_credit(f, 1);
    double until = mode_clock_s() + 3;
    while (mode_clock_s() < until) assert_int_not_equal(step(f, 50), MODE__ENVELOPE__BODY_RESULT);
    /* the second task runs while the first one's failure is not acknowledged yet */
    start_task(f, key, "bad", SOON_MS);
    uint64_t fence = f->fence;
    expect_fail(f, key, MODE__FAIL_CLASS__FAIL_INPUT);
    char key2[MODE_DIGEST_HEX];
    start_task(f, key2, "slow", SOON_MS);
    const Mode__Envelope *e = wait_for(f, MODE__ENVELOPE__BODY_FAIL, SOON_MS);
    assert_non_null(e);
    assert_int_equal(e->fail->fence, fence);
}

static void test_a_crash_is_reported_with_the_last_words(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    start_task(f, key, "crash", SOON_MS);
    const Mode__Fail *fail = expect_fail(f, key, MODE__FAIL_CLASS__FAIL_CRASH);
    assert_int_equal(fail->signal, SIGABRT);
    assert_non_null(memmem(fail->log_tail.data, fail->log_tail.len, "last words", 10));
    assert_int_equal(fail->done, 1);
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_NOTED);
    start_task(f, key, "exit", SOON_MS); /* a new compute process is up */
    fail = expect_fail(f, key, MODE__FAIL_CLASS__FAIL_CRASH);
    assert_int_equal(fail->exit_code, 5);
    assert_string_equal(fail->text, "the compute process exited with code 5 in the middle of the task");
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_NOTED);
    start_task(f, key, "exit 70", SOON_MS); /* without a message */
    fail = expect_fail(f, key, MODE__FAIL_CLASS__FAIL_DEVICE);
    assert_string_equal(fail->text, "the compute process ended with code 70 (a GPU failed) and without a message");
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_NOTED);
    start_task(f, key, "gpu", SOON_MS);
    fail = expect_fail(f, key, MODE__FAIL_CLASS__FAIL_DEVICE);
    assert_string_equal(fail->text, "the gpu failed");
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_NOTED);
    start_task(f, key, "peer", SOON_MS);
    fail = expect_fail(f, key, MODE__FAIL_CLASS__FAIL_STORE);
    assert_string_equal(fail->text, "the peer failed");
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_NOTED);
    a_task_is_done(f);
}

static void test_failures_have_their_class(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    start_task(f, key, "bad", SOON_MS);
    const Mode__Fail *fail = expect_fail(f, key, MODE__FAIL_CLASS__FAIL_INPUT);
    assert_int_equal(fail->status, MODE_E_FORMAT);
    assert_non_null(strstr(fail->text, "not a tar header ??"));
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_NOTED);
    start_task(f, key, "full", SOON_MS);
    expect_fail(f, key, MODE__FAIL_CLASS__FAIL_FULL);
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_NOTED);
    start_task(f, key, "broken", SOON_MS);
    expect_fail(f, key, MODE__FAIL_CLASS__FAIL_STORE);
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_NOTED);
    static const char *const absent[] = {"gone", "hidden"};
    for (int i = 0; i < 2; i++) {
        start_task(f, key, absent[i], SOON_MS);
        expect_fail(f, key, MODE__FAIL_CLASS__FAIL_ABSENT);
        acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_NOTED);
    }
    start_task(f, key, "cut", SOON_MS);
    fail = expect_fail(f, key, MODE__FAIL_CLASS__FAIL_STORE);
    assert_int_equal(fail->signal, SIGBUS);
    assert_non_null(strstr(fail->text, "a file was cut, or its disk failed, while it was read"));
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_NOTED);
    make_task(f, key, "count", "embed", CODE);
    wait_credit(f, 1);
    assign(f, key, 1, 0);
    expect_fail(f, key, MODE__FAIL_CLASS__FAIL_CODE);
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_NOTED);
    make_task(f, key, "count", "test", "test-1");
    wait_credit(f, 1);
    assign(f, key, 1, 0);
    expect_fail(f, key, MODE__FAIL_CLASS__FAIL_CODE);
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_NOTED);
    start_task(f, key, FIELD_15, SOON_MS);
    fail = expect_fail(f, key, MODE__FAIL_CLASS__FAIL_CODE);
    assert_non_null(strstr(fail->text, "it was made by a newer coordinator"));
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_NOTED);
    /* a corrupt commit record: whether the task is done is unknown, and it is not overwritten */
    make_task(f, key, "count 5", "test", CODE);
    char *record = mode_xasprintf("%s/commits/%s", f->space, key);
    assert_int_equal(mode_file_write_atomic(record, "none", 4, &f->err), MODE_OK);
    wait_credit(f, 1);
    assign(f, key, 1, 0);
    const Mode__Envelope *e = wait_for(f, MODE__ENVELOPE__BODY_FAIL, SOON_MS);
    assert_non_null(e);
    assert_int_equal(e->fail->class_, MODE__FAIL_CLASS__FAIL_INTEGRITY);
    assert_non_null(strstr(e->fail->text, "damaged"));
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_NOTED);
    free(record);
    /* an input whose bytes do not match its digest */
    char digest[MODE_DIGEST_HEX];
    make_task(f, key, "count 3", "test", CODE);
    mode_digest_bytes("captions", 8, digest);
    char *blob = mode_xasprintf("%s/blobs/%.2s/%s", f->space, digest, digest);
    unlink(blob);
    FILE *o = fopen(blob, "wb");
    fwrite("captiuns", 1, 8, o);
    fclose(o);
    free(blob);
    wait_credit(f, 1);
    assign(f, key, 1, 0);
    fail = expect_fail(f, key, MODE__FAIL_CLASS__FAIL_INTEGRITY);
    assert_non_null(strstr(fail->text, "captions/0007"));
    assert_string_equal(fail->digest, digest);
}

/* `task` takes longer than the stall limit but makes progress: it is done; `longer` for retries on a slow machine. */
static void expect_that_it_moves(struct fixture *f, const char *task, const char *longer)
{
    char key[MODE_DIGEST_HEX];
    int body = 0;
    for (uint64_t ms = 600; body != MODE__ENVELOPE__BODY_RESULT && ms < SOON_MS; ms *= 3) {
        const double until = mode_clock_s() + 4e-3 * SOON_MS;
        start_task(f, key, ms == 600 ? task : longer, ms);
        do body = step(f, 50);
        while (body != MODE__ENVELOPE__BODY_RESULT && mode_clock_s() < until &&
               (body != MODE__ENVELOPE__BODY_FAIL || f->last->msg->fail->fence != f->fence));
        acknowledge(f, key, f->fence,
                    body == MODE__ENVELOPE__BODY_FAIL ? MODE__VERDICT__VERDICT_NOTED
                                                      : MODE__VERDICT__VERDICT_COMMITTED);
    }
    assert_int_equal(body, MODE__ENVELOPE__BODY_RESULT);
}

static void test_standing_still_is_noticed(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    /* on a machine that does not schedule the process in that time, it gets more */
    uint64_t begun = 0;
    for (uint64_t ms = 600; !begun && ms < SOON_MS; ms *= 3) {
        char *want = mode_xasprintf("no progress at 1 of 10 for more than %d ms", (int)ms);
        start_task(f, key, "stall", ms);
        const Mode__Fail *fail = expect_fail(f, key, MODE__FAIL_CLASS__FAIL_STALL);
        assert_true(fail->seconds > 1e-3 * (double)ms);
        begun = fail->done;
        if (begun) assert_string_equal(fail->text, want);
        acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_NOTED);
        free(want);
    }
    assert_int_equal(begun, 1);
    expect_that_it_moves(f, "brief", "slow");
    expect_that_it_moves(f, "long", "longer");
}

static void test_heartbeats_carry_progress(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    uint64_t last = 0;
    bool rate = false;
    const double until = mode_clock_s() + 1e-3 * SOON_MS;
    start_task(f, key, "slow", SOON_MS);
    while (last <= 5 || !rate) {
        const Mode__Envelope *e = wait_for(f, MODE__ENVELOPE__BODY_PROGRESS, SOON_MS);
        assert_non_null(e);
        assert_true(mode_clock_s() < until);
        if (e->progress->n_tasks == 0) continue;
        const Mode__TaskProgress *t = e->progress->tasks[0];
        assert_string_equal(t->key, key);
        assert_true(t->has_changes && t->changes > 0);
        assert_true(t->done >= last || last == 1); /* a row arrived before the rounds */
        last = t->done;
        rate |= t->rate > 1;
        if (t->done > 1) assert_string_equal(t->unit, "rounds");
    }
}

/* The newest score of each task of a training, unless it is not finite. Scores are read after the step count: none may
 * be newer than the step that the next heartbeat reports. */
static void check_scores(const char *kind, const Mode__TaskProgress *t, uint64_t *newest)
{
    assert_true(*newest <= t->done + 1);
    if (strcmp(kind, "brief") == 0) assert_int_equal(t->n_scores, 0); /* what another task said is not this one's */
    for (size_t i = 0; i < t->n_scores; i++) {
        const Mode__Score *s = t->scores[i];
        assert_string_equal(s->task, i ? "cats & ?" : "colour");
        assert_string_equal(s->metric, "acc1");
        assert_int_equal(s->step % 10, 0);
        if (s->step > *newest) *newest = s->step;
        assert_true(i || s->value == 0.5);
    }
    if (t->done > 12)
        assert_int_equal(t->n_scores, strcmp(kind, "train") == 0 ? 2 : strcmp(kind, "brief") == 0 ? 0 : 1);
}

/* Follows a task until it is done; how many of its heartbeats reported a step, and the loss of the last. */
static int steps_told(struct fixture *f, const char *kind, double *loss)
{
    char key[MODE_DIGEST_HEX], *hold = hold_path(f->store); /* it runs until there are two heartbeats of it */
    const double until = mode_clock_s() + SOON_MS * 1e-3;
    int told = 0, beats = 0, body;
    uint64_t newest = 0;
    assert_int_equal(mode_file_write_atomic(hold, "", 0, &f->err), MODE_OK);
    start_task(f, key, kind, SOON_MS);
    while ((body = step(f, 50)) != MODE__ENVELOPE__BODY_RESULT) {
        assert_true(mode_clock_s() < until);
        if (beats >= 2 && (strcmp(kind, "train") != 0 || (told >= 2 && *loss < 1))) unlink(hold);
        if (body != MODE__ENVELOPE__BODY_PROGRESS || f->last->msg->progress->n_tasks == 0) continue;
        const Mode__TaskProgress *t = f->last->msg->progress->tasks[0];
        assert_string_equal(t->key, key);
        beats++;
        check_scores(kind, t, &newest);
        if (!t->train) continue;
        told++;
        assert_true(t->train->loss > 0 && t->train->loss <= *loss);
        *loss = t->train->loss;
        assert_true(t->train->lr == 1e-3 && t->train->logit_scale == 14.5 && t->train->samples_per_s == 800);
    }
    assert_true(beats >= 2);
    free(hold);
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_COMMITTED);
    return told;
}

static void test_heartbeats_of_a_training_tell_its_newest_step(void **state)
{
    struct fixture *f = *state;
    double loss = 5;
    assert_true(steps_told(f, "train", &loss) >= 2);
    assert_true(loss < 1);
    assert_int_equal(steps_told(f, "brief", &loss), 0);   /* what another task said is not this one's */
    assert_int_equal(steps_told(f, "diverge", &loss), 0); /* no message with a non-finite number */
}

/* The contents of a running task's first output, once it is done; the caller frees. */
static char *first_output(struct fixture *f, const char *key)
{
    char *path, *text;
    Mode__Commit *c;
    assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_RESULT, SOON_MS));
    assert_int_equal(mode_store_commit_get(f->store, &c, key, &f->err), MODE_OK);
    assert_int_equal(mode_store_blob_path(f->store, &path, c->outputs[0]->digest, c->outputs[0]->size, &f->err),
                     MODE_OK);
    assert_int_equal(mode_file_read(path, 0, &text, NULL, &f->err), MODE_OK);
    free(path);
    mode__commit__free_unpacked(c, NULL);
    return text;
}

static void test_a_task_knows_its_run_s_folder(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX], *text, *want = mode_path_join(mode_store_root(f->store), "runs/r1");
    start_task(f, key, "train", SOON_MS);
    text = first_output(f, key);
    assert_string_equal(text, want);
    free(want);
    free(text);
}

/* Any task that is told to stop before its work starts does so: wait until it works. */
static void start_work(struct fixture *f, char key[MODE_DIGEST_HEX], const char *request)
{
    const Mode__Envelope *e;
    start_task(f, key, request, SOON_MS);
    do e = wait_for(f, MODE__ENVELOPE__BODY_PROGRESS, SOON_MS);
    while (e && (e->progress->n_tasks == 0 || e->progress->tasks[0]->done < 2));
    assert_non_null(e);
}

static void test_cancel_stops_a_task_within_its_grace(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    const char *kinds[] = {"slow", "stubborn"}; /* one stops, long before the grace period ends; one must be killed */
    for (int i = 0; i < 2; i++) {
        start_work(f, key, kinds[i]);
        cancel(f, key, i ? 300 : 2 * SOON_MS);
        const Mode__Envelope *e = wait_for(f, MODE__ENVELOPE__BODY_RELEASE, SOON_MS);
        assert_non_null(e);
        assert_int_equal(e->release->reason, MODE__RELEASE_REASON__RELEASE_CANCELLED);
        assert_false(mode_store_commit_exists(f->store, key));
        acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_NOTED);
    }
    a_task_is_done(f);
}

static void test_sigterm_gives_the_task_back(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    const char *kinds[] = {"slow", "stubborn"};
    for (int i = 0; i < 2; i++) {
        start_work(f, key, kinds[i]);
        kill(f->worker, SIGTERM);
        const Mode__Envelope *e = wait_for(f, MODE__ENVELOPE__BODY_RELEASE, SOON_MS);
        assert_non_null(e);
        assert_int_equal(e->release->reason, MODE__RELEASE_REASON__RELEASE_STOPPING);
        acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_NOTED);
        assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_BYE, SOON_MS));
        assert_int_equal(worker_exit(f), 128 + SIGTERM);
    }
    start_worker(f, "--grace", "600");
    start_work(f, key, "stubborn");
    kill(f->worker, SIGINT);
    kill(f->worker, SIGTERM); /* the second signal: at once, whatever the grace period */
    assert_int_equal(worker_exit(f), 128 + SIGTERM);
}

static void test_drain_lets_the_task_finish(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    Mode__Envelope e;
    Mode__Drain d = MODE__DRAIN__INIT;
    start_task(f, key, "brief", SOON_MS);
    mode_envelope_init(&e, &f->counter, MODE__ENVELOPE__BODY_DRAIN);
    e.drain = &d;
    send_to_worker(f, &e);
    wait_credit(f, 0);
    assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_RESULT, SOON_MS));
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_COMMITTED);
    assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_BYE, SOON_MS));
    assert_int_equal(worker_exit(f), 0);
}

/* Docker would restart it: it stays, healthy and disconnected, until it is stopped. */
static void test_a_drained_worker_may_stay(void **state)
{
    struct fixture *f = *state;
    char *text = NULL;
    Mode__Envelope e;
    Mode__Drain d = MODE__DRAIN__INIT;
    start_worker(f, "--stay", NULL);
    wait_credit(f, 1);
    mode_envelope_init(&e, &f->counter, MODE__ENVELOPE__BODY_DRAIN);
    e.drain = &d;
    send_to_worker(f, &e);
    assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_BYE, SOON_MS));
    for (int i = 0; i < SOON_MS / 10 && !(text && strstr(text, " connected=0 ")); i++) {
        free(text);
        usleep(10000);
        if (mode_file_read(f->health, 0, &text, NULL, &f->err)) text = NULL;
    }
    assert_non_null(text);
    assert_non_null(strstr(text, " connected=0 "));
    free(text);
    assert_int_equal(waitpid(f->worker, NULL, WNOHANG), 0);
    kill(f->worker, SIGTERM);
    assert_int_equal(worker_exit(f), 128 + SIGTERM);
}

/* A retry would meet the same protocol. Checkpoints stay for the next attempt. */
static void test_a_coordinator_of_another_protocol_is_left(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    Mode__Envelope e;
    Mode__Ping ping = MODE__PING__INIT;
    start_task(f, key, "slow", SOON_MS);
    mode_envelope_init(&e, &f->counter, MODE__ENVELOPE__BODY_PING);
    e.ping = &ping;
    e.major = MODE_WIRE_MAJOR + 1;
    send_to_worker(f, &e);
    assert_int_equal(worker_exit(f), mode_status_exit_code(MODE_E_CONFIG));
    assert_false(mode_store_commit_exists(f->store, key));
}

static void test_a_new_attempt_goes_on_from_the_checkpoint(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX], *path, *text;
    start_task(f, key, "checkpoint", SOON_MS);
    expect_fail(f, key, MODE__FAIL_CLASS__FAIL_CRASH);
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_NOTED);
    start_task(f, key, "checkpoint", SOON_MS);
    text = first_output(f, key);
    assert_string_equal(text, "resumed");
    free(text);
    assert_int_equal(mode_store_checkpoint_latest(f->store, &path, key, NULL, &f->err), MODE_OK);
    assert_null(path); /* gone with the commit */
}

/* A worker that was frozen while publishing commits after all, and removes the task's checkpoints: the attempt that
 * continues from them must not count as failed. */
static void test_a_task_that_another_attempt_committed_is_done(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    bool created;
    Mode__Commit c = MODE__COMMIT__INIT;
    start_task(f, key, "overtaken", SOON_MS);
    c.key = key;
    c.service = c.worker = (char *)"test";
    c.rows_out = 5;
    assert_int_equal(mode_store_commit_create(f->store, &created, NULL, &c, &f->err), MODE_OK);
    const Mode__Envelope *e = wait_for(f, MODE__ENVELOPE__BODY_RESULT, SOON_MS);
    assert_non_null(e);
    assert_true(e->result->already);
    assert_int_equal(e->result->rows_out, 5);
}

/* The same if its process dies between the commit and its message: nothing is done twice. */
static void test_a_commit_stands_whoever_dies_after_it(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    bool created;
    Mode__Commit c = MODE__COMMIT__INIT;
    start_work(f, key, "slow"); /* if the commit exists before it starts, it says so */
    c.key = key;
    c.service = c.worker = (char *)"test";
    c.rows_out = 5;
    c.fence = f->fence;
    assert_int_equal(mode_store_commit_create(f->store, &created, NULL, &c, &f->err), MODE_OK);
    kill(child_of(f->worker), SIGKILL);
    const Mode__Envelope *e;
    do e = wait_for(f, MODE__ENVELOPE__BODY_RESULT, SOON_MS); /* and no FAIL before */
    while (e && e->result->fence != f->fence);
    assert_non_null(e);
    assert_false(e->result->already);
    assert_int_equal(e->result->rows_out, 5);
}

/* A repeated ASSIGN message counts once: while the task runs, and while its result is not acknowledged. */
static void test_a_task_that_is_said_twice_is_done_once(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    start_task(f, key, "brief", SOON_MS);
    for (int i = 0; i < 2; i++) {
        assign_again(f, key, 1, SOON_MS);
        const Mode__Envelope *e = wait_for(f, MODE__ENVELOPE__BODY_ASSIGN_ACK, SOON_MS);
        assert_non_null(e);
        assert_true(e->assign_ack->accepted);
        if (!i) assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_RESULT, SOON_MS));
    }
    assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_RESULT, SOON_MS));
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_COMMITTED);
    a_task_is_done(f); /* it has a free slot again */
}

/* On a file server others may see the record later: the result is sent again, also in the next HELLO. */
static void test_a_result_that_is_not_seen_yet_is_said_again(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    start_task(f, key, "count 4", SOON_MS);
    assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_RESULT, SOON_MS));
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_MISSING);
    reject(f, MODE__REJECT_CODE__REJECT_UNKNOWN_SESSION);
    assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_HELLO, SOON_MS));
    assert_int_equal(f->held, 1);
    assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_RESULT, SOON_MS));
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_COMMITTED);
    a_task_is_done(f);
}

/* Messages for another connection are ignored. Its name may still be taken by a process that just died: it sends
 * HELLO again. */
static void test_who_is_not_meant_does_not_listen(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX], own[sizeof f->session];
    start_task(f, key, "slow", SOON_MS);
    memcpy(own, f->session, sizeof own);
    memset(f->session, 'f', 32);
    cancel(f, key, 60000);
    memcpy(f->session, own, sizeof own);
    f->fence--;
    cancel(f, key, 60000); /* an earlier attempt */
    f->fence++;
    reject(f, MODE__REJECT_CODE__REJECT_NAME_TAKEN);
    const double until = mode_clock_s() + 1.5;
    while (mode_clock_s() < until) assert_int_not_equal(step(f, 50), MODE__ENVELOPE__BODY_RELEASE);
    assert_int_equal(waitpid(f->worker, NULL, WNOHANG), 0);
    cancel(f, key, 60000);
    assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_RELEASE, SOON_MS));
}

static void test_a_restarted_coordinator_finds_the_task_held(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    struct mode_endpoint e = {.endpoint = f->endpoint, .wire = MODE_WIRE_WORKER};
    start_task(f, key, "brief", SOON_MS);
    mode_socket_close(&f->server);
    usleep(300000);
    f->hellos = 0;
    f->epoch++;
    assert_int_equal(mode_socket_bind(&f->server, f->net, &e, &f->err), MODE_OK);
    assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_HELLO, SOON_MS));
    assert_int_equal(f->held, 1);
    const Mode__Envelope *r = wait_for(f, MODE__ENVELOPE__BODY_RESULT, SOON_MS);
    assert_non_null(r);
    assert_int_equal(r->result->fence, f->fence); /* the old fence: it was kept */
    /* messages of the old coordinator, waking up late, are ignored */
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_COMMITTED);
    wait_credit(f, 1);
    f->epoch--;
    make_task(f, key, "count 9", "test", CODE);
    assign(f, key, 1, 0);
    f->epoch++;
    assert_null(wait_for(f, MODE__ENVELOPE__BODY_ASSIGN_ACK, 700));
}

static void ping(struct fixture *f)
{
    Mode__Envelope e;
    Mode__Ping p = MODE__PING__INIT;
    mode_envelope_init(&e, &f->counter, MODE__ENVELOPE__BODY_PING);
    e.ping = &p;
    send_to_worker(f, &e);
}

/* A worker whose leases expire 0.8 s after the last reply; the task, yet to be assigned, takes 1.5 s. */
static void wait_for_short_leases(struct fixture *f, char *key)
{
    f->lease_ms = 1000;
    make_task(f, key, "brief", "test", CODE);
    start_worker(f, NULL, NULL);
    wait_credit(f, 1);
}

static void test_without_an_answer_nothing_is_published(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    wait_for_short_leases(f, key);
    f->mute = true; /* heartbeats unanswered from now on */
    assign(f, key, 1, SOON_MS);
    double until = mode_clock_s() + SOON_MS * 1e-3;
    for (bool waits = false; mode_clock_s() < until;) {
        int body = step(f, 50);
        assert_int_not_equal(body, MODE__ENVELOPE__BODY_RESULT);
        if (body == MODE__ENVELOPE__BODY_PROGRESS) ping(f); /* which acknowledges none of them */
        bool last = body == MODE__ENVELOPE__BODY_PROGRESS && f->last->msg->progress->n_tasks &&
                    f->last->msg->progress->tasks[0]->done == 149;
        if (last && !waits) until = mode_clock_s() + 1; /* everything is done except publishing */
        waits |= last;
        if (mode_clock_s() >= until) assert_true(waits);
        assert_false(mode_store_commit_exists(f->store, key));
    }
    f->mute = false; /* connected again: the result was kept */
    assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_RESULT, SOON_MS));
    assert_true(mode_store_commit_exists(f->store, key));
}

/* The agent is not scheduled when its lease expires; the compute process is. */
static void test_who_is_frozen_publishes_nothing(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    wait_for_short_leases(f, key);
    assign(f, key, 1, SOON_MS);
    assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_ASSIGN_ACK, SOON_MS));
    assert_int_equal(kill(f->worker, SIGSTOP), 0);
    for (const double until = mode_clock_s() + 3; mode_clock_s() < until; usleep(20000))
        assert_false(mode_store_commit_exists(f->store, key));
    assert_int_equal(kill(f->worker, SIGCONT), 0);
    assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_RESULT, SOON_MS));
    assert_true(mode_store_commit_exists(f->store, key));
}

static void test_a_dropped_lease_ends_the_work(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    start_task(f, key, "slow", SOON_MS);
    f->dropped = true;
    reject(f, MODE__REJECT_CODE__REJECT_UNKNOWN_SESSION);
    assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_HELLO, SOON_MS));
    assert_int_equal(f->held, 1);
    wait_credit(f, 1);
    f->dropped = false;
    a_task_is_done(f);
}

int main(int argc, char **argv)
{
    int code;
    if (worker_main(&code, argc, argv)) return code;
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        T(test_a_task_is_done),
        T(test_a_job_folder_names_its_hand_out),
        T(test_results_and_failures_are_said_until_acknowledged),
        T(test_a_crash_is_reported_with_the_last_words),
        T(test_failures_have_their_class),
        T(test_standing_still_is_noticed),
        T(test_heartbeats_carry_progress),
        T(test_heartbeats_of_a_training_tell_its_newest_step),
        T(test_a_task_knows_its_run_s_folder),
        T(test_cancel_stops_a_task_within_its_grace),
        T(test_sigterm_gives_the_task_back),
        T(test_drain_lets_the_task_finish),
        T(test_a_drained_worker_may_stay),
        T(test_a_coordinator_of_another_protocol_is_left),
        T(test_a_new_attempt_goes_on_from_the_checkpoint),
        T(test_a_task_that_another_attempt_committed_is_done),
        T(test_a_commit_stands_whoever_dies_after_it),
        T(test_a_task_that_is_said_twice_is_done_once),
        T(test_a_result_that_is_not_seen_yet_is_said_again),
        T(test_who_is_not_meant_does_not_listen),
        T(test_a_restarted_coordinator_finds_the_task_held),
        T(test_without_an_answer_nothing_is_published),
        T(test_who_is_frozen_publishes_nothing),
        T(test_a_dropped_lease_ends_the_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
