/* The worker runtime against a coordinator of a few lines: real processes, real sockets, real kills. This
 * executable is also the worker: `service-worker worker --coordinator ...` runs the agent, and the agent runs
 * it again as the compute process. */
#include "base/rng.h"
#include "base/str.h"
#include "base/version.h"
#include "msg/socket.h"
#include "msg/worker.h"
#include "store/artifacts.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include <cmocka.h>

#define CODE MODE_VERSION "/test-1"

/* ------------------------------------------------------------------------------------------------ the work
 */

static enum mode_status put(struct mode_job *job, const char *name, const char *text, struct mode_error *err)
{
    return mode_file_write_atomic(mode_job_output(job, name), text, strlen(text), err);
}

static enum mode_status test_work(struct mode_job *job, struct mode_error *err)
{
    size_t n;
    const uint8_t *request = mode_job_request(job, &n);
    char what[64];
    snprintf(what, sizeof what, "%.*s", (int)n, (const char *)request);
    mode_job_progress(job, 1, 10, "rows");
    if (strncmp(what, "count", 5) == 0) {
        struct mode_str s = {0};
        const char *name, *path;
        for (size_t i = 0; mode_job_input_at(job, i, &name, &path); i++) {
            char *text;
            enum mode_status st = mode_file_read(path, 0, &text, NULL, err);
            if (st) return st;
            mode_str_printf(&s, "%s=%s ", name, text);
            free(text);
        }
        mode_str_printf(&s, "%s", what);
        enum mode_status st = put(job, "z.txt", s.data, err);
        if (!st) st = put(job, "a.txt", "first", err);
        mode_str_clear(&s);
        mode_job_output(job, "never-written");
        mode_job_count_rows(job, 10, 7);
        mode_job_count_reject(job, "bad_image", 2);
        mode_job_count_reject(job, "no_caption", 1);
        mode_job_note(job, "{\"figure\":1}");
        return st;
    }
    if (strcmp(what, "crash") == 0) {
        fprintf(stderr, "last words \xff of the crash\n");
        abort();
    }
    if (strcmp(what, "exit") == 0) exit(5);
    if (strcmp(what, "stall") == 0)
        for (;;) sleep(1);
    if (strcmp(what, "stubborn") == 0)
        for (uint64_t i = 0;; i++) {
            mode_job_progress(job, i, 0, "rounds");
            usleep(10000);
        }
    if (strcmp(what, "slow") == 0) {
        for (uint64_t i = 0; i < 3000; i++) {
            mode_job_progress(job, i, 3000, "rounds");
            if (mode_job_stopping(job)) return MODE_FAIL(err, MODE_E_STOPPED, "stopped");
            usleep(10000);
        }
        return put(job, "out", "slow", err);
    }
    if (strcmp(what, "brief") == 0) {
        for (uint64_t i = 0; i < 150; i++) {
            mode_job_progress(job, i, 150, "rounds");
            usleep(10000);
        }
        return put(job, "out", "brief", err);
    }
    if (strcmp(what, "bad") == 0) return MODE_FAIL(err, MODE_E_FORMAT, "3.tar: byte 512: not a tar header \xff\xfe");
    if (strcmp(what, "full") == 0) return MODE_FAIL(err, MODE_E_IO, "no space left");
    if (strcmp(what, "checkpoint") == 0) {
        const char *latest = mode_job_checkpoint_latest(job);
        if (latest) {
            char *state = mode_path_join(latest, "state"), *text;
            enum mode_status st = mode_file_read(state, 0, &text, NULL, err);
            free(state);
            if (st) return st;
            st = put(job, "out", text, err);
            free(text);
            return st;
        }
        char *folder = mode_path_join(mode_job_checkpoint_mine(job), "step-1"),
             *state = mode_path_join(folder, "state");
        mode_dir_make(folder, err);
        mode_file_write_atomic(state, "resumed", 7, err);
        enum mode_status st = mode_job_checkpoint_done(job, "step-1", err);
        free(folder);
        free(state);
        if (st) return st;
        abort();
    }
    return MODE_FAIL(err, MODE_E_VALUE, "\"%s\" is not known here", what);
}

/* ------------------------------------------------------------------------------------------- the coordinator
 */

struct fixture {
    char dir[64];
    char *space, *endpoint, *keys, *health;
    const char *key_name;
    struct mode_store *store;
    struct mode_net *net;
    struct mode_socket *server;
    struct mode_error err;
    uint64_t counter, fence, epoch;
    uint32_t lease_ms;
    bool mute; /* does not answer */
    uint8_t route[256];
    size_t n_route;
    char session[33];
    int hellos, credit, progresses;
    size_t held;
    bool dropped; /* tell every held lease to be dropped */
    pid_t worker;
    struct mode_envelope *last;
};

static int open_fixture(void **state, bool tcp)
{
    struct fixture *f = mode_xcalloc(1, sizeof *f);
    strcpy(f->dir, "/tmp/mode-worker-XXXXXX");
    if (!mkdtemp(f->dir)) return -1;
    f->space = mode_path_join(f->dir, "space");
    f->health = mode_path_join(f->dir, "health");
    f->epoch = 3;
    f->lease_ms = 5000;
    if (mode_store_open(&f->store, f->space, &f->err) || mode_net_open(&f->net, &f->err)) return -1;
    struct mode_endpoint e = {.wire = MODE_WIRE_WORKER};
    f->endpoint = mode_xasprintf("ipc://%s/work", f->dir);
    e.endpoint = f->endpoint;
    if (tcp) {
        f->keys = mode_path_join(f->dir, "keys");
        f->key_name = "w1";
        e.endpoint = "tcp://127.0.0.1:*";
        e.key_dir = f->keys;
        e.key_name = "server";
        char *allow = mode_path_join(f->keys, "allow");
        if (mode_keys_add(f->keys, "w1", MODE_ROLE_WORKER, &f->err) || mode_net_allow(f->net, allow, &f->err))
            return -1;
        free(allow);
    }
    if (mode_socket_bind(&f->server, f->net, &e, &f->err)) return -1;
    if (tcp) {
        free(f->endpoint);
        f->endpoint = mode_xstrdup(mode_socket_endpoint(f->server));
    }
    *state = f;
    return 0;
}

static int set_up(void **state)
{
    return open_fixture(state, false);
}

static int set_up_tcp(void **state)
{
    return open_fixture(state, true);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    if (f->worker > 0) {
        kill(f->worker, SIGKILL);
        waitpid(f->worker, NULL, 0);
    }
    mode_envelope_free(&f->last);
    mode_socket_close(&f->server);
    mode_net_close(&f->net);
    mode_store_close(&f->store);
    usleep(50000); /* the kernel kills the compute process of a killed agent */
    mode_dir_remove(f->dir, NULL);
    free(f->space);
    free(f->endpoint);
    free(f->keys);
    free(f->health);
    free(f);
    return 0;
}

static void start_worker(struct fixture *f, const char *more, const char *more_value)
{
    const char *argv[24] = {"service-worker", "worker", "--coordinator", f->endpoint, "--workspace",   f->space,
                            "--threads",      "1",      "--grace",       "0.5",       "--health-file", f->health};
    int n = 12;
    if (f->keys) {
        argv[n++] = "--key-dir";
        argv[n++] = f->keys;
        argv[n++] = "--key-name";
        argv[n++] = f->key_name;
    }
    if (more) {
        argv[n++] = more;
        argv[n++] = more_value;
    }
    f->worker = fork();
    assert_true(f->worker >= 0);
    if (f->worker == 0) {
        setenv("MODE_LOG_LEVEL", "error", 0);
        execv("/proc/self/exe", (char *const *)argv);
        _exit(127);
    }
}

static void send_to_worker(struct fixture *f, Mode__Envelope *e)
{
    e->has_epoch = 1;
    e->epoch = f->epoch;
    e->session = f->session;
    enum mode_status st = mode_socket_send(f->server, f->route, f->n_route, e, &f->err);
    assert_true(st == MODE_OK || st == MODE_E_TEMP); /* it may have been killed meanwhile */
}

static void answer_hello(struct fixture *f, const Mode__Hello *h)
{
    Mode__Envelope e;
    Mode__Welcome w = MODE__WELCOME__INIT;
    mode_envelope_init(&e, &f->counter, MODE__ENVELOPE__BODY_WELCOME);
    w.heartbeat_ms = 100;
    w.lease_ms = f->lease_ms;
    if (f->dropped) {
        w.dropped = h->held;
        w.n_dropped = h->n_held;
    } else {
        w.kept = h->held;
        w.n_kept = h->n_held;
    }
    e.welcome = &w;
    snprintf(f->session, sizeof f->session, "%s", h->session);
    f->hellos++;
    f->held = h->n_held;
    assert_string_equal(h->service, "test");
    assert_string_equal(h->store_id, mode_store_id(f->store));
    send_to_worker(f, &e);
}

/* Take one message, answering the everyday ones. Returns its body's case, 0 after timeout_ms without any. */
static int step(struct fixture *f, int timeout_ms)
{
    zmq_pollitem_t item = {mode_socket_handle(f->server), 0, ZMQ_POLLIN, 0};
    struct mode_packet p;
    if (zmq_poll(&item, 1, timeout_ms) <= 0) return 0;
    assert_int_equal(mode_socket_recv(f->server, &p, &f->err), MODE_OK);
    if (!p.data) return 0;
    mode_envelope_free(&f->last);
    if (mode_envelope_unpack(&f->last, p.data, p.size, MODE_WIRE_WORKER, &f->err)) fail_msg("%s", f->err.text);
    memcpy(f->route, p.route, p.n_route);
    f->n_route = p.n_route;
    mode_packet_clear(&p);
    const Mode__Envelope *in = f->last->msg;
    switch (in->body_case) {
    case MODE__ENVELOPE__BODY_HELLO:
        if (!f->mute) answer_hello(f, in->hello);
        break;
    case MODE__ENVELOPE__BODY_CREDIT: f->credit = (int)in->credit->n; break;
    case MODE__ENVELOPE__BODY_PROGRESS: {
        Mode__Envelope e;
        Mode__Ping ping = MODE__PING__INIT;
        f->progresses++;
        if (f->mute) break;
        mode_envelope_init(&e, &f->counter, MODE__ENVELOPE__BODY_PING);
        e.ping = &ping;
        e.has_reply_to = 1;
        e.reply_to = in->id;
        send_to_worker(f, &e);
        break;
    }
    default: break;
    }
    return (int)in->body_case;
}

static const Mode__Envelope *wait_for(struct fixture *f, Mode__Envelope__BodyCase body, int timeout_ms)
{
    double until = mode_clock_s() + timeout_ms * 1e-3;
    while (mode_clock_s() < until)
        if (step(f, 50) == (int)body) return f->last->msg;
    return NULL;
}

static void wait_credit(struct fixture *f, int n)
{
    double until = mode_clock_s() + 10;
    f->credit = -1;
    while (f->credit != n && mode_clock_s() < until) step(f, 50);
    assert_int_equal(f->credit, n);
}

static void make_task(struct fixture *f, char key[MODE_DIGEST_HEX], const char *request, const char *service,
                      const char *code)
{
    Mode__TaskSpec t = MODE__TASK_SPEC__INIT;
    char digest[MODE_DIGEST_HEX];
    assert_int_equal(mode_store_put_bytes(f->store, digest, "captions", 8, &f->err), MODE_OK);
    Mode__Input in = MODE__INPUT__INIT, *ins[] = {&in};
    in.name = "captions/0007";
    in.digest = digest;
    in.size = 8;
    t.service = (char *)(uintptr_t)service;
    t.code_version = (char *)(uintptr_t)code;
    t.request = (ProtobufCBinaryData){strlen(request), (uint8_t *)(uintptr_t)request};
    t.inputs = ins;
    t.n_inputs = 1;
    assert_int_equal(mode_store_task_put(f->store, key, &t, &f->err), MODE_OK);
}

static void assign(struct fixture *f, char *key, uint32_t attempt, uint64_t stall_ms)
{
    Mode__Envelope e;
    Mode__Assign a = MODE__ASSIGN__INIT;
    mode_envelope_init(&e, &f->counter, MODE__ENVELOPE__BODY_ASSIGN);
    a.key = key;
    a.fence = f->fence = f->epoch << 32 | ++f->counter;
    a.attempt = attempt;
    a.stall_ms = stall_ms;
    a.label = "test/0007";
    a.run = "r1";
    e.assign = &a;
    send_to_worker(f, &e);
}

static void acknowledge(struct fixture *f, char *key, uint64_t fence, Mode__Verdict verdict)
{
    Mode__Envelope e;
    Mode__ResultAck a = MODE__RESULT_ACK__INIT;
    mode_envelope_init(&e, &f->counter, MODE__ENVELOPE__BODY_RESULT_ACK);
    a.key = key;
    a.fence = fence;
    a.verdict = verdict;
    e.result_ack = &a;
    send_to_worker(f, &e);
}

static void cancel(struct fixture *f, char *key, uint32_t grace_ms)
{
    Mode__Envelope e;
    Mode__Cancel c = MODE__CANCEL__INIT;
    mode_envelope_init(&e, &f->counter, MODE__ENVELOPE__BODY_CANCEL);
    c.key = key;
    c.fence = f->fence;
    c.grace_ms = grace_ms;
    e.cancel = &c;
    send_to_worker(f, &e);
}

static int worker_exit(struct fixture *f)
{
    int status = -1;
    for (int i = 0; i < 1000; i++) {
        pid_t got = waitpid(f->worker, &status, WNOHANG);
        if (got == f->worker) {
            f->worker = 0;
            return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
        }
        if (f->server) step(f, 10);
    }
    return -1000;
}

static void start_task(struct fixture *f, char key[MODE_DIGEST_HEX], const char *request, uint64_t stall_ms)
{
    make_task(f, key, request, "test", CODE);
    if (f->worker <= 0) start_worker(f, NULL, NULL);
    wait_credit(f, 1);
    assign(f, key, 1, stall_ms);
    const Mode__Envelope *e = wait_for(f, MODE__ENVELOPE__BODY_ASSIGN_ACK, 5000);
    assert_non_null(e);
    assert_true(e->assign_ack->accepted);
}

static const Mode__Fail *expect_fail(struct fixture *f, const char *key, Mode__FailClass fail_class)
{
    const Mode__Envelope *e = wait_for(f, MODE__ENVELOPE__BODY_FAIL, 10000);
    assert_non_null(e);
    assert_string_equal(e->fail->key, key);
    assert_int_equal(e->fail->fence, f->fence);
    assert_int_equal(e->fail->class_, fail_class);
    assert_false(mode_store_commit_exists(f->store, key));
    return e->fail;
}

/* ------------------------------------------------------------------------------------------------- the tests
 */

static void a_task_is_done(struct fixture *f)
{
    char key[MODE_DIGEST_HEX], *path, *text;
    Mode__Commit *c;
    start_task(f, key, "count 1", 10000);
    const Mode__Envelope *e = wait_for(f, MODE__ENVELOPE__BODY_RESULT, 10000);
    assert_non_null(e);
    assert_string_equal(e->result->key, key);
    assert_int_equal(e->result->fence, f->fence);
    assert_false(e->result->already);
    assert_int_equal(e->result->rows_out, 7);
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_COMMITTED);
    assert_int_equal(mode_store_commit_get(f->store, &c, key, &f->err), MODE_OK);
    assert_int_equal(c->n_outputs, 2); /* sorted by name, the unwritten one absent */
    assert_string_equal(c->outputs[0]->name, "a.txt");
    assert_string_equal(c->outputs[1]->name, "z.txt");
    assert_int_equal(mode_store_blob_path(f->store, &path, c->outputs[1]->digest, c->outputs[1]->size, &f->err),
                     MODE_OK);
    assert_int_equal(mode_file_read(path, 0, &text, NULL, &f->err), MODE_OK);
    assert_string_equal(text, "captions/0007=captions count 1");
    assert_int_equal(c->rows_in, 10);
    assert_int_equal(c->n_rejects, 2);
    assert_int_equal(c->fence, f->fence);
    assert_true(c->peak_rss_bytes > 100000);
    assert_true(c->seconds > 0 && c->seconds < 10);
    assert_string_equal(c->note, "{\"figure\":1}");
    assert_string_equal(c->service, "test");
    mode__commit__free_unpacked(c, NULL);
    free(path);
    free(text);
    wait_credit(f, 1);
}

static void test_a_task_is_done(void **state)
{
    struct fixture *f = *state;
    a_task_is_done(f);
    /* nothing is left behind */
    uint64_t removed;
    assert_int_equal(mode_store_sweep_tmp(f->store, 0, &removed, &f->err), MODE_OK);
    assert_int_equal(removed, 0);
    /* the same task once more: reported, not computed again */
    char key[MODE_DIGEST_HEX];
    start_task(f, key, "count 1", 10000);
    const Mode__Envelope *e = wait_for(f, MODE__ENVELOPE__BODY_RESULT, 10000);
    assert_non_null(e);
    assert_true(e->result->already);
    assert_int_equal(e->result->rows_out, 7);
}

static void test_results_and_failures_are_said_until_acknowledged(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    start_task(f, key, "count 2", 10000);
    for (int i = 0; i < 2; i++)
        assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_RESULT, 5000)); /* the first is "lost" */
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_COMMITTED);
    wait_credit(f, 1);
    double until = mode_clock_s() + 3;
    while (mode_clock_s() < until) assert_int_not_equal(step(f, 50), MODE__ENVELOPE__BODY_RESULT);
    /* the second task runs while the failure of the first is still owed */
    start_task(f, key, "bad", 10000);
    uint64_t fence = f->fence;
    expect_fail(f, key, MODE__FAIL_CLASS__FAIL_INPUT);
    char key2[MODE_DIGEST_HEX];
    start_task(f, key2, "slow", 10000);
    const Mode__Envelope *e = wait_for(f, MODE__ENVELOPE__BODY_FAIL, 5000);
    assert_non_null(e);
    assert_int_equal(e->fail->fence, fence);
}

static void test_a_crash_is_reported_with_the_last_words(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    start_task(f, key, "crash", 10000);
    const Mode__Fail *fail = expect_fail(f, key, MODE__FAIL_CLASS__FAIL_CRASH);
    assert_int_equal(fail->signal, SIGABRT);
    assert_non_null(memmem(fail->log_tail.data, fail->log_tail.len, "last words", 10));
    assert_int_equal(fail->done, 1);
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_NOTED);
    start_task(f, key, "exit", 10000); /* a new compute process is there */
    fail = expect_fail(f, key, MODE__FAIL_CLASS__FAIL_CRASH);
    assert_int_equal(fail->exit_code, 5);
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_NOTED);
    a_task_is_done(f);
}

static void test_failures_have_their_class(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    start_task(f, key, "bad", 10000);
    const Mode__Fail *fail = expect_fail(f, key, MODE__FAIL_CLASS__FAIL_INPUT);
    assert_int_equal(fail->status, MODE_E_FORMAT);
    assert_non_null(strstr(fail->text, "not a tar header ??"));
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_NOTED);
    start_task(f, key, "full", 10000);
    expect_fail(f, key, MODE__FAIL_CLASS__FAIL_STORE);
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_NOTED);
    make_task(f, key, "count", "embed", CODE);
    wait_credit(f, 1);
    assign(f, key, 1, 0);
    expect_fail(f, key, MODE__FAIL_CLASS__FAIL_CODE);
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_NOTED);
    make_task(f, key, "count", "test", MODE_VERSION "/test-2");
    wait_credit(f, 1);
    assign(f, key, 1, 0);
    expect_fail(f, key, MODE__FAIL_CLASS__FAIL_CODE);
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_NOTED);
    /* an input whose bytes are not what its digest says */
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
}

static void test_standing_still_is_noticed(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    start_task(f, key, "stall", 600);
    double t = mode_clock_s();
    expect_fail(f, key, MODE__FAIL_CLASS__FAIL_STALL);
    assert_true(mode_clock_s() - t > 0.4 && mode_clock_s() - t < 5);
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_NOTED);
    start_task(f, key, "brief", 600); /* longer than that, but it moves */
    assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_RESULT, 10000));
}

static void test_heartbeats_carry_progress(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    uint64_t last = 0;
    bool rate = false;
    start_task(f, key, "slow", 10000);
    for (int i = 0; i < 6; i++) {
        const Mode__Envelope *e = wait_for(f, MODE__ENVELOPE__BODY_PROGRESS, 5000);
        assert_non_null(e);
        if (e->progress->n_tasks == 0) continue;
        const Mode__TaskProgress *t = e->progress->tasks[0];
        assert_string_equal(t->key, key);
        assert_true(t->done >= last);
        last = t->done;
        rate |= t->rate > 1;
        if (t->done > 1) assert_string_equal(t->unit, "rounds");
    }
    assert_true(last > 5);
    assert_true(rate);
}

static void test_cancel_stops_a_task_within_its_grace(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    const char *kinds[] = {"slow", "stubborn"}; /* one listens, one must be killed */
    for (int i = 0; i < 2; i++) {
        start_task(f, key, kinds[i], 10000);
        cancel(f, key, 300);
        double t = mode_clock_s();
        const Mode__Envelope *e = wait_for(f, MODE__ENVELOPE__BODY_RELEASE, 5000);
        assert_non_null(e);
        assert_int_equal(e->release->reason, MODE__RELEASE_REASON__RELEASE_CANCELLED);
        assert_true(mode_clock_s() - t < 2);
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
        start_task(f, key, kinds[i], 10000);
        kill(f->worker, SIGTERM);
        double t = mode_clock_s();
        const Mode__Envelope *e = wait_for(f, MODE__ENVELOPE__BODY_RELEASE, 5000);
        assert_non_null(e);
        assert_int_equal(e->release->reason, MODE__RELEASE_REASON__RELEASE_STOPPING);
        acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_NOTED);
        assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_BYE, 5000));
        assert_int_equal(worker_exit(f), 128 + SIGTERM);
        assert_true(mode_clock_s() - t < 4);
    }
    start_task(f, key, "stubborn", 10000);
    kill(f->worker, SIGINT);
    usleep(100000);
    kill(f->worker, SIGINT); /* the second one: at once */
    assert_int_equal(worker_exit(f), 128 + SIGINT);
}

static void test_drain_lets_the_task_finish(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    Mode__Envelope e;
    Mode__Drain d = MODE__DRAIN__INIT;
    start_task(f, key, "brief", 10000);
    mode_envelope_init(&e, &f->counter, MODE__ENVELOPE__BODY_DRAIN);
    e.drain = &d;
    send_to_worker(f, &e);
    wait_credit(f, 0);
    assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_RESULT, 5000));
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_COMMITTED);
    assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_BYE, 5000));
    assert_int_equal(worker_exit(f), 0);
}

static void test_a_new_attempt_goes_on_from_the_checkpoint(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX], *path, *text;
    Mode__Commit *c;
    start_task(f, key, "checkpoint", 10000);
    expect_fail(f, key, MODE__FAIL_CLASS__FAIL_CRASH);
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_NOTED);
    start_task(f, key, "checkpoint", 10000);
    assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_RESULT, 10000));
    assert_int_equal(mode_store_commit_get(f->store, &c, key, &f->err), MODE_OK);
    assert_int_equal(mode_store_blob_path(f->store, &path, c->outputs[0]->digest, c->outputs[0]->size, &f->err),
                     MODE_OK);
    assert_int_equal(mode_file_read(path, 0, &text, NULL, &f->err), MODE_OK);
    assert_string_equal(text, "resumed");
    free(text);
    free(path);
    mode__commit__free_unpacked(c, NULL);
    assert_int_equal(mode_store_checkpoint_latest(f->store, &path, key, NULL, &f->err), MODE_OK);
    assert_null(path); /* gone with the commit */
}

static void test_a_restarted_coordinator_finds_the_task_held(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    struct mode_endpoint e = {.endpoint = f->endpoint, .wire = MODE_WIRE_WORKER};
    start_task(f, key, "brief", 10000);
    mode_socket_close(&f->server);
    usleep(300000);
    f->hellos = 0;
    f->epoch++;
    assert_int_equal(mode_socket_bind(&f->server, f->net, &e, &f->err), MODE_OK);
    assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_HELLO, 10000));
    assert_int_equal(f->held, 1);
    const Mode__Envelope *r = wait_for(f, MODE__ENVELOPE__BODY_RESULT, 10000);
    assert_non_null(r);
    assert_int_equal(r->result->fence, f->fence); /* the old fence: it was kept */
    /* the old coordinator, waking up late, is not listened to */
    acknowledge(f, key, f->fence, MODE__VERDICT__VERDICT_COMMITTED);
    wait_credit(f, 1);
    f->epoch--;
    make_task(f, key, "count 9", "test", CODE);
    assign(f, key, 1, 0);
    f->epoch++;
    assert_null(wait_for(f, MODE__ENVELOPE__BODY_ASSIGN_ACK, 700));
}

static void test_without_an_answer_nothing_is_published(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    f->lease_ms = 1000;
    start_task(f, key, "brief", 3000); /* 1.5 s; heartbeats unanswered from now on: the lease may be lost after 0.8 s */
    f->mute = true;
    double until = mode_clock_s() + 2.5;
    while (mode_clock_s() < until) {
        assert_int_not_equal(step(f, 50), MODE__ENVELOPE__BODY_RESULT);
        assert_false(mode_store_commit_exists(f->store, key));
    }
    f->mute = false; /* heard again: the result was kept */
    assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_RESULT, 5000));
    assert_true(mode_store_commit_exists(f->store, key));
}

static void test_a_dropped_lease_ends_the_work(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    Mode__Envelope e;
    Mode__Reject r = MODE__REJECT__INIT;
    start_task(f, key, "slow", 10000);
    f->dropped = true;
    usleep(200000);
    mode_envelope_init(&e, &f->counter, MODE__ENVELOPE__BODY_REJECT);
    r.code = MODE__REJECT_CODE__REJECT_UNKNOWN_SESSION;
    r.text = "who are you?";
    e.reject = &r;
    send_to_worker(f, &e);
    assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_HELLO, 5000));
    assert_int_equal(f->held, 1);
    wait_credit(f, 1);
    f->dropped = false;
    a_task_is_done(f);
}

/* Agent and compute process are killed again and again, after a few results or after a while, whichever comes first:
 * so on a fast machine too. In the end every task is committed once, and whole. */
static void test_killed_workers_lose_nothing(void **state)
{
    struct fixture *f = *state;
    enum { TASKS = 24 };
    char keys[TASKS][MODE_DIGEST_HEX];
    bool done[TASKS] = {0};
    int left = TASKS, kills = 0, running = -1;
    uint64_t quota = 0; /* results until this worker is killed */
    double kill_at = 0, soon = 0, until = mode_clock_s() + 60;
    for (int i = 0; i < TASKS; i++) {
        char request[32];
        snprintf(request, sizeof request, "count %d", 100 + i);
        make_task(f, keys[i], request, "test", CODE);
    }
    while (left > 0 && mode_clock_s() < until) {
        if (f->worker <= 0) {
            start_worker(f, NULL, NULL);
            f->credit = 0;
            running = -1;
            struct mode_rng r = mode_rng_for(17, MODE_RNG_TEST, 0, (uint64_t)kills);
            kill_at = kills < 12 ? mode_clock_s() + 0.05 + 0.25 * mode_rng_uniform(&r) : until;
            quota = kills < 12 ? 1 + mode_rng_below(&r, 3) : TASKS + 1;
            soon = 0.02 * mode_rng_uniform(&r);
        }
        if (mode_clock_s() >= kill_at) {
            kill(f->worker, SIGKILL);
            waitpid(f->worker, NULL, 0);
            f->worker = 0;
            kills++;
            continue;
        }
        int got = step(f, 5);
        if (got == MODE__ENVELOPE__BODY_RESULT) {
            for (int i = 0; i < TASKS; i++)
                if (strcmp(keys[i], f->last->msg->result->key) == 0) {
                    assert_true(mode_store_commit_exists(f->store, keys[i]));
                    left -= !done[i];
                    done[i] = true;
                    acknowledge(f, keys[i], f->last->msg->result->fence, MODE__VERDICT__VERDICT_COMMITTED);
                    running = -1;
                    if (--quota == 0) kill_at = mode_clock_s() + soon;
                }
        }
        if (got == MODE__ENVELOPE__BODY_CREDIT && f->credit > 0 && running < 0) {
            for (int i = 0; i < TASKS && running < 0; i++)
                if (!done[i]) running = i;
            if (running >= 0) assign(f, keys[running], 1, 5000);
        }
    }
    assert_int_equal(left, 0);
    assert_true(kills >= 3);
    for (int i = 0; i < TASKS; i++) {
        Mode__Commit *c;
        char *path;
        assert_int_equal(mode_store_commit_get(f->store, &c, keys[i], &f->err), MODE_OK);
        for (size_t k = 0; k < c->n_outputs; k++) {
            assert_int_equal(mode_store_blob_path(f->store, &path, c->outputs[k]->digest, c->outputs[k]->size, &f->err),
                             MODE_OK);
            free(path);
        }
        mode__commit__free_unpacked(c, NULL);
    }
}

static pid_t child_of(pid_t parent)
{
    char path[64];
    long pid = 0;
    snprintf(path, sizeof path, "/proc/%ld/task/%ld/children", (long)parent, (long)parent);
    FILE *f = fopen(path, "r");
    if (f && fscanf(f, "%ld", &pid) != 1) pid = 0;
    if (f) fclose(f);
    return (pid_t)pid;
}

static void test_the_folder_of_a_long_task_is_not_swept(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    uint64_t removed;
    struct stat sb;
    struct timespec old[2] = {{1000000000, 0}, {1000000000, 0}};
    start_task(f, key, "slow", 10000);
    assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_PROGRESS, 5000));
    char *dir = mode_xasprintf("%s/tmp/job-%016llx-%ld", f->space, (unsigned long long)f->fence,
                               (long)child_of(f->worker));
    const char *inside[] = {"/out", "/in", "/in/captions", ""};
    for (int i = 0; i < 4; i++) {
        char *p = mode_xasprintf("%s%s", dir, inside[i]);
        assert_int_equal(utimensat(AT_FDCWD, p, old, 0), 0);
        free(p);
    }
    for (int i = 0; i < 3; i++) assert_non_null(wait_for(f, MODE__ENVELOPE__BODY_PROGRESS, 5000));
    assert_int_equal(stat(dir, &sb), 0);
    assert_true(sb.st_mtim.tv_sec > 1000000000); /* touched by the heartbeat */
    assert_int_equal(mode_store_sweep_tmp(f->store, 3600, &removed, &f->err), MODE_OK);
    assert_int_equal(removed, 0);
    free(dir);
}

static void test_the_compute_process_dies_with_its_agent(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    start_task(f, key, "stubborn", 10000);
    pid_t compute = child_of(f->worker);
    assert_true(compute > 0);
    kill(f->worker, SIGKILL);
    waitpid(f->worker, NULL, 0);
    f->worker = 0;
    for (int i = 0; i < 200 && kill(compute, 0) == 0; i++) {
        char path[64], line[256] = "";
        snprintf(path, sizeof path, "/proc/%ld/stat", (long)compute);
        FILE *p = fopen(path, "r");
        if (p && !fgets(line, sizeof line, p)) line[0] = '\0';
        if (p) fclose(p);
        const char *after = strrchr(line, ')');
        if (!after || after[2] == 'Z') return; /* dead; somebody else has to collect it */
        usleep(20000);
    }
    assert_int_equal(kill(compute, 0), -1);
}

static void test_a_killed_compute_process_is_a_crash(void **state)
{
    struct fixture *f = *state;
    char key[MODE_DIGEST_HEX];
    start_task(f, key, "slow", 10000);
    usleep(100000);
    kill(child_of(f->worker), SIGKILL);
    const Mode__Fail *fail = expect_fail(f, key, MODE__FAIL_CLASS__FAIL_CRASH);
    assert_int_equal(fail->signal, SIGKILL);
}

static void test_healthcheck_tells_alive_from_dead(void **state)
{
    struct fixture *f = *state;
    char *alive = mode_xasprintf("/proc/%ld/exe worker healthcheck --health-file %s >/dev/null 2>&1", (long)getpid(),
                                 f->health);
    assert_int_not_equal(system(alive), 0);
    start_worker(f, NULL, NULL);
    wait_credit(f, 1);
    assert_int_equal(system(alive), 0);
    kill(f->worker, SIGKILL);
    waitpid(f->worker, NULL, 0);
    f->worker = 0;
    assert_int_not_equal(system(alive), 0);
    free(alive);
}

static void test_the_coordinator_can_refuse_a_worker(void **state)
{
    struct fixture *f = *state;
    Mode__Envelope e;
    Mode__Reject r = MODE__REJECT__INIT;
    start_worker(f, NULL, NULL);
    wait_credit(f, 1);
    mode_envelope_init(&e, &f->counter, MODE__ENVELOPE__BODY_REJECT);
    r.code = MODE__REJECT_CODE__REJECT_STORE;
    r.text = "another store";
    e.reject = &r;
    send_to_worker(f, &e);
    assert_int_equal(worker_exit(f), 78);
}

static void test_slots_work_side_by_side(void **state)
{
    struct fixture *f = *state;
    char keys[3][MODE_DIGEST_HEX];
    uint64_t fences[3];
    const char *requests[] = {"slow", "crash", "brief"};
    start_worker(f, "--slots", "3");
    wait_credit(f, 3);
    for (int i = 0; i < 3; i++) {
        make_task(f, keys[i], requests[i], "test", CODE);
        assign(f, keys[i], 1, 10000);
        fences[i] = f->fence;
    }
    const Mode__Envelope *e = wait_for(f, MODE__ENVELOPE__BODY_FAIL, 10000); /* one crashes, the others do not notice */
    assert_non_null(e);
    assert_int_equal(e->fail->fence, fences[1]);
    acknowledge(f, keys[1], fences[1], MODE__VERDICT__VERDICT_NOTED);
    e = wait_for(f, MODE__ENVELOPE__BODY_RESULT, 10000);
    assert_non_null(e);
    assert_int_equal(e->result->fence, fences[2]);
    acknowledge(f, keys[2], fences[2], MODE__VERDICT__VERDICT_COMMITTED);
    wait_credit(f, 2);
    do e = wait_for(f, MODE__ENVELOPE__BODY_PROGRESS, 5000);
    while (e && e->progress->n_tasks != 1);
    assert_non_null(e);
    assert_int_equal(e->progress->tasks[0]->fence, fences[0]);
    make_task(f, keys[1], "stubborn", "test", CODE);
    for (int i = 0; i < 3; i++) assign(f, keys[1], 1, 10000); /* more than there is credit for: the rest is refused */
    int accepted = 0, refused = 0;
    while (accepted + refused < 3) {
        e = wait_for(f, MODE__ENVELOPE__BODY_ASSIGN_ACK, 5000);
        assert_non_null(e);
        accepted += e->assign_ack->accepted;
        refused += !e->assign_ack->accepted;
    }
    assert_int_equal(accepted, 2);
}

static void test_over_tcp_with_keys(void **state)
{
    a_task_is_done(*state);
}

static void test_over_tcp_an_unknown_key_ends_with_77(void **state)
{
    struct fixture *f = *state;
    char *other = mode_path_join(f->dir, "other"), *server = mode_path_join(f->keys, "server.pub"), *mine = f->keys;
    assert_int_equal(mode_keys_add(other, "w1", MODE_ROLE_WORKER, &f->err), MODE_OK);
    f->keys = other;
    start_worker(f, "--server-key", server);
    assert_int_equal(worker_exit(f), 77);
    start_worker(f, NULL, NULL); /* and with the other coordinator's public key */
    assert_int_equal(worker_exit(f), 77);
    f->keys = mine;
    free(server);
    free(other);
}

static void test_wrong_command_lines_end_with_2(void **state)
{
    (void)state;
    const char *lines[] = {"", "--coordinator ipc:///x", "--coordinator ipc:///x --workspace /tmp/x --slots 0",
                           "--coordinator ipc:///x --workspace /tmp/x --nonsense 1", "dance"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        char *line = mode_xasprintf("/proc/%ld/exe worker %s >/dev/null 2>&1", (long)getpid(), lines[i]);
        int rc = system(line);
        assert_int_equal(WEXITSTATUS(rc), 2);
        free(line);
    }
    char *line = mode_xasprintf("/proc/%ld/exe worker --help | grep -q MODE_COORDINATOR", (long)getpid());
    assert_int_equal(system(line), 0);
    free(line);
}

static void test_a_job_runs_without_any_service(void **state)
{
    struct fixture *f = *state;
    char *out = mode_path_join(f->dir, "local"), *in = mode_path_join(f->dir, "in.txt"), *text;
    struct mode_local_input inputs[] = {{"captions/0001", in}};
    struct mode_local_report report;
    assert_int_equal(mode_file_write_atomic(in, "hello", 5, &f->err), MODE_OK);
    assert_int_equal(mode_job_run_local(&report, test_work, "count L", 7, inputs, 1, out, &f->err), MODE_OK);
    assert_int_equal(report.rows_in, 10);
    assert_int_equal(report.rows_out, 7);
    assert_int_equal(report.rejected, 3);
    assert_string_equal(report.note, "{\"figure\":1}");
    free(report.note);
    char *z = mode_path_join(out, "z.txt");
    assert_int_equal(mode_file_read(z, 0, &text, NULL, &f->err), MODE_OK);
    assert_string_equal(text, "captions/0001=hello count L");
    free(text);
    unlink(z);
    assert_int_equal(mode_job_run_local(NULL, test_work, "bad", 3, NULL, 0, out, &f->err), MODE_E_FORMAT);
    assert_false(mode_file_exists(z));
    inputs[0].path = "/nowhere/at/all";
    assert_int_equal(mode_job_run_local(NULL, test_work, "count", 5, inputs, 1, out, &f->err), MODE_E_NOINPUT);
    inputs[0] = (struct mode_local_input){"../escape", in};
    assert_int_equal(mode_job_run_local(NULL, test_work, "count", 5, inputs, 1, out, &f->err), MODE_E_VALUE);
    free(z);
    free(in);
    free(out);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "worker") == 0) return mode_worker_main("test", test_work, argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "--compute") == 0) return mode_worker_main("test", test_work, argc, argv);
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        T(test_a_task_is_done),
        T(test_results_and_failures_are_said_until_acknowledged),
        T(test_a_crash_is_reported_with_the_last_words),
        T(test_failures_have_their_class),
        T(test_standing_still_is_noticed),
        T(test_heartbeats_carry_progress),
        T(test_cancel_stops_a_task_within_its_grace),
        T(test_sigterm_gives_the_task_back),
        T(test_drain_lets_the_task_finish),
        T(test_a_new_attempt_goes_on_from_the_checkpoint),
        T(test_a_restarted_coordinator_finds_the_task_held),
        T(test_without_an_answer_nothing_is_published),
        T(test_a_dropped_lease_ends_the_work),
        T(test_killed_workers_lose_nothing),
        T(test_the_folder_of_a_long_task_is_not_swept),
        T(test_the_compute_process_dies_with_its_agent),
        T(test_a_killed_compute_process_is_a_crash),
        T(test_healthcheck_tells_alive_from_dead),
        T(test_the_coordinator_can_refuse_a_worker),
        T(test_slots_work_side_by_side),
        cmocka_unit_test_setup_teardown(test_over_tcp_with_keys, set_up_tcp, tear_down),
        cmocka_unit_test_setup_teardown(test_over_tcp_an_unknown_key_ends_with_77, set_up_tcp, tear_down),
        T(test_wrong_command_lines_end_with_2),
        T(test_a_job_runs_without_any_service),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
