/* worker_world.h - for tests of the worker runtime: a minimal coordinator, and a worker that follows its requests. Real
 * processes, real sockets. The test's executable is also the worker: `<test> worker --coordinator ...` runs the agent,
 * and the agent runs it again as the compute process (worker_main). */
#ifndef MODE_TESTS_WORKER_WORLD_H
#define MODE_TESTS_WORKER_WORLD_H

#include "base/clock.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "base/str.h"
#include "msg/runtime.h"
#include "msg/socket.h"
#include "msg/worker.h"
#include "store/artifacts.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
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

#define CODE     "test-0"   /* mode_code_version of an unknown service */
#define FIELD_15 "\x78\x01" /* a newer coordinator's request: an unknown field */
enum { SOON_MS = 30000 };   /* for immediate events on a slow, loaded machine */

/* ------------------------------------------------------------------------------------------------ the work
 */

static inline enum mode_status put(struct mode_job *job, const char *name, const char *text, struct mode_error *err)
{
    return mode_file_write_atomic(mode_job_output(job, name), text, strlen(text), err);
}

/* The test keeps a file there until it has seen enough of a task. */
static inline char *hold_path(const struct mode_store *store)
{
    return mode_path_join(mode_store_root(store), "hold");
}

static inline bool is_held(const struct mode_job *job)
{
    char *path = hold_path(job->store);
    bool yes = mode_file_exists(path);
    free(path);
    return yes;
}

static inline void one_item(void *ctx, int64_t item, int thread)
{
    (void)ctx, (void)item, (void)thread;
    usleep(10000);
}

static inline enum mode_status test_work(struct mode_job *job, struct mode_error *err)
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
        mode_job_count_reject(job, "bad_image", 3);
        mode_job_note(job, "{\"figure\":1}");
        return st;
    }
    if (strcmp(what, "crash") == 0) {
        fprintf(stderr, "last words \xff of the crash\n");
        abort();
    }
    if (strcmp(what, "family") == 0) { /* its child processes outlive it */
        const pid_t child = fork();
        if (child == 0) execlp("sleep", "sleep", "1000", (char *)NULL);
        if (child == 0) _exit(127);
        fprintf(stderr, "child %ld\n", (long)child);
        abort();
    }
    if (strcmp(what, "exit") == 0) exit(5);
    if (strcmp(what, "exit 70") == 0) exit(70);
    if (strcmp(what, "gpu") == 0 || strcmp(what, "peer") == 0) { /* as nn/cuda ends a process */
        fprintf(stderr, "the %s failed\n", what);
        _exit(mode_status_exit_code(what[0] == 'g' ? MODE_E_DEVICE : MODE_E_PEER));
    }
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
    if (strncmp(what, "long", 4) == 0) { /* or "longer": one batch, without a progress report until it is done */
        for (int i = 0; i < (what[4] ? 3000 : 150); i++) mode_parallel_for(1, one_item, NULL);
        return put(job, "out", what, err);
    }
    if (strcmp(what, "train") == 0 || strcmp(what, "diverge") == 0) {
        for (uint64_t i = 1; (i < 150 || is_held(job)) && !mode_job_stopping(job); i++) {
            const struct mode_job_train_step s = {what[0] == 't' ? 5.0 / (double)i : NAN, 1e-3, 14.5, 800};
            mode_job_train_step(job, &s);
            for (int k = 0; k < 2 && i % 10 == 0; k++)
                mode_job_score(job,
                               &(struct mode_job_score){k ? "cats & \xff" : "colour", "acc1", k ? s.loss : 0.5, i});
            mode_job_progress(job, i, 150, "steps");
            usleep(10000);
        }
        return put(job, "out", mode_job_run_dir(job), err);
    }
    if (strcmp(what, "brief") == 0) {
        for (uint64_t i = 0; i < 150 || is_held(job); i++) {
            mode_job_progress(job, i, 150, "rounds");
            usleep(10000);
        }
        return put(job, "out", "brief", err);
    }
    if (strcmp(what, "overtaken") == 0) { /* by another attempt, which commits in this time */
        while (!mode_store_commit_exists(job->store, job->key)) usleep(10000);
        return MODE_FAIL(err, MODE_E_NOINPUT, "ckpt/from/state: no such file");
    }
    if (strcmp(what, "bad") == 0) return MODE_FAIL(err, MODE_E_FORMAT, "3.tar: byte 512: not a tar header \xff\xfe");
    if (strcmp(what, "gone") == 0) return MODE_FAIL(err, MODE_E_NOINPUT, "/data/3.tar: no such file");
    if (strcmp(what, "hidden") == 0) return MODE_FAIL(err, MODE_E_PERM, "/data/3.tar: may not be read");
    if (strcmp(what, "cut") == 0) { /* by another process, while it is read */
        const char *path = mode_job_output(job, "mapped");
        struct mode_mapping map;
        enum mode_status st = mode_file_write_atomic(path, "bytes", 5, err);
        if (!st) st = mode_file_map(path, &map, err);
        if (!st && truncate(path, 0) != 0) st = MODE_FAIL(err, MODE_E_IO, "%s cannot be cut", path);
        signal(SIGBUS, SIG_DFL);                      /* a sanitizer has a handler */
        volatile uint8_t byte = st ? 0 : map.data[0]; /* does not return */
        return st ? st : MODE_FAIL(err, MODE_E_GENERIC, "byte %d", byte);
    }
    if (strcmp(what, "full") == 0) return MODE_FAIL(err, MODE_E_IO, "out/x: writing failed: %s", strerror(ENOSPC));
    if (strcmp(what, "broken") == 0) return MODE_FAIL(err, MODE_E_IO, "out/x: writing failed: %s", strerror(EIO));
    if (strcmp(what, FIELD_15) == 0) {
        void *message = mode_job_unpack(job, &mode__ping__descriptor, err);
        return message ? MODE_OK : err->status;
    }
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

static inline int open_fixture(void **state, bool tcp)
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

static inline int set_up(void **state)
{
    return open_fixture(state, false);
}

static inline int set_up_tcp(void **state)
{
    return open_fixture(state, true);
}

static inline int tear_down(void **state)
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
    usleep(50000); /* until the kernel has killed the killed agent's compute process */
    mode_dir_remove(f->dir, NULL);
    free(f->space);
    free(f->endpoint);
    free(f->keys);
    free(f->health);
    free(f);
    return 0;
}

static inline void start_worker(struct fixture *f, const char *more, const char *more_value)
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

static inline void send_to_worker(struct fixture *f, Mode__Envelope *e)
{
    e->has_epoch = 1;
    e->epoch = f->epoch;
    e->session = f->session;
    enum mode_status st = mode_socket_send(f->server, f->route, f->n_route, e, &f->err);
    assert_true(st == MODE_OK || st == MODE_E_TEMP); /* it may have been killed meanwhile */
}

static inline void answer_hello(struct fixture *f, const Mode__Hello *h)
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

/* Receives one message, answering routine ones. Returns its body case, 0 after timeout_ms without any. */
static inline int step(struct fixture *f, int timeout_ms)
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

static inline const Mode__Envelope *wait_for(struct fixture *f, Mode__Envelope__BodyCase body, int timeout_ms)
{
    double until = mode_clock_s() + timeout_ms * 1e-3;
    while (mode_clock_s() < until)
        if (step(f, 50) == (int)body) return f->last->msg;
    return NULL;
}

static inline void wait_credit(struct fixture *f, int n)
{
    double until = mode_clock_s() + SOON_MS * 1e-3;
    f->credit = -1;
    while (f->credit != n && mode_clock_s() < until) step(f, 50);
    assert_int_equal(f->credit, n);
}

static inline void make_task(struct fixture *f, char key[MODE_DIGEST_HEX], const char *request, const char *service,
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

/* Assigns the task, perhaps again, with its current fence. */
static inline void assign_again(struct fixture *f, char *key, uint32_t attempt, uint64_t stall_ms)
{
    Mode__Envelope e;
    Mode__Assign a = MODE__ASSIGN__INIT;
    mode_envelope_init(&e, &f->counter, MODE__ENVELOPE__BODY_ASSIGN);
    a.key = key;
    a.fence = f->fence;
    a.attempt = attempt;
    a.stall_ms = stall_ms;
    a.label = "test/0007";
    a.run = "r1";
    e.assign = &a;
    send_to_worker(f, &e);
}

static inline void assign(struct fixture *f, char *key, uint32_t attempt, uint64_t stall_ms)
{
    f->fence = f->epoch << 32 | ++f->counter;
    assign_again(f, key, attempt, stall_ms);
}

static inline void reject(struct fixture *f, Mode__RejectCode code)
{
    Mode__Envelope e;
    Mode__Reject r = MODE__REJECT__INIT;
    mode_envelope_init(&e, &f->counter, MODE__ENVELOPE__BODY_REJECT);
    r.code = code;
    r.text = (char *)"no";
    e.reject = &r;
    send_to_worker(f, &e);
}

static inline void acknowledge(struct fixture *f, char *key, uint64_t fence, Mode__Verdict verdict)
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

static inline void cancel(struct fixture *f, char *key, uint32_t grace_ms)
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

static inline int worker_exit(struct fixture *f)
{
    int status = -1;
    for (int i = 0; i < SOON_MS / 10; i++) {
        pid_t got = waitpid(f->worker, &status, WNOHANG);
        if (got == f->worker) {
            f->worker = 0;
            return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
        }
        if (f->server) step(f, 10);
    }
    return -1000;
}

static inline void start_task(struct fixture *f, char key[MODE_DIGEST_HEX], const char *request, uint64_t stall_ms)
{
    make_task(f, key, request, "test", CODE);
    if (f->worker <= 0) start_worker(f, NULL, NULL);
    wait_credit(f, 1);
    assign(f, key, 1, stall_ms);
    const Mode__Envelope *e = wait_for(f, MODE__ENVELOPE__BODY_ASSIGN_ACK, SOON_MS);
    assert_non_null(e);
    assert_true(e->assign_ack->accepted);
}

/* An earlier task's message may arrive in between: it was sent before its acknowledgement arrived. */
static inline const Mode__Fail *expect_fail(struct fixture *f, const char *key, Mode__FailClass fail_class)
{
    const Mode__Envelope *e;
    do e = wait_for(f, MODE__ENVELOPE__BODY_FAIL, SOON_MS);
    while (e && e->fail->fence != f->fence);
    assert_non_null(e);
    assert_string_equal(e->fail->key, key);
    assert_int_equal(e->fail->class_, fail_class);
    assert_false(mode_store_commit_exists(f->store, key));
    return e->fail;
}

static inline void a_task_is_done(struct fixture *f)
{
    char key[MODE_DIGEST_HEX], *path, *text;
    Mode__Commit *c;
    const Mode__Envelope *e;
    start_task(f, key, "count 1", SOON_MS);
    do e = wait_for(f, MODE__ENVELOPE__BODY_RESULT, SOON_MS);
    while (e && e->result->fence != f->fence);
    assert_non_null(e);
    assert_string_equal(e->result->key, key);
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
    assert_string_equal(c->rejects[0]->reason, "bad_image");
    assert_int_equal(c->rejects[0]->n, 5); /* two and three */
    assert_int_equal(c->rejects[1]->n, 1);
    assert_int_equal(c->fence, f->fence);
    assert_true(c->peak_rss_bytes > 100000);
    assert_true(c->seconds > 0 && c->seconds < SOON_MS * 1e-3);
    assert_string_equal(c->note, "{\"figure\":1}");
    assert_string_equal(c->service, "test");
    mode__commit__free_unpacked(c, NULL);
    free(path);
    free(text);
    wait_credit(f, 1);
}

static inline pid_t child_of(pid_t parent)
{
    char path[64];
    long pid = 0;
    snprintf(path, sizeof path, "/proc/%ld/task/%ld/children", (long)parent, (long)parent);
    FILE *f = fopen(path, "r");
    if (f && fscanf(f, "%ld", &pid) != 1) pid = 0;
    if (f) fclose(f);
    return (pid_t)pid;
}

/* It has exited, or is a zombie that another process has to reap. */
static inline bool is_dead(pid_t pid)
{
    char path[64], line[256] = "";
    if (kill(pid, 0) != 0) return true;
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    FILE *p = fopen(path, "r");
    if (p && !fgets(line, sizeof line, p)) line[0] = '\0';
    if (p) fclose(p);
    const char *after = strrchr(line, ')');
    return !after || after[2] == 'Z';
}

static inline bool soon_dead(pid_t pid)
{
    for (int i = 0; i < SOON_MS / 20 && !is_dead(pid); i++) usleep(20000);
    return is_dead(pid);
}

/* The executable in its other roles: true, and *code is its exit code. */
static inline bool worker_main(int *code, int argc, char **argv)
{
    bool worker = argc > 1 && strcmp(argv[1], "worker") == 0, compute = argc > 1 && strcmp(argv[1], "--compute") == 0;
    if (worker) *code = mode_worker_main("test", test_work, NULL, argc - 1, argv + 1);
    if (compute) *code = mode_worker_main("test", test_work, NULL, argc, argv);
    return worker || compute;
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif
