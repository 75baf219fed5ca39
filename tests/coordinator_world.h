/* coordinator_world.h - for test_coordinator.c: the coordinator as a process, a real Redis, and fake workers, over real
 * sockets and a real store. */
#ifndef MODE_TESTS_COORDINATOR_WORLD_H
#define MODE_TESTS_COORDINATOR_WORLD_H

#include "plan_world.h"
#include "server.h"
#include "service_outputs.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/str.h"
#include "base/version.h"
#include "msg/code_version.h"
#include "msg/place.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { SHARDS = 3, TASKS = 2, EXPERTS = 2 };
/* captions, embed, words, cluster, assign, seed, dense, experts, evaluations, ensemble */
enum { ALL = SHARDS + SHARDS + TASKS + 1 + SHARDS + 1 + 1 + EXPERTS + (EXPERTS + 2) * TASKS + 1 };

enum { LEASE_MS = 2000 };
enum { LONG_S = 180 }; /* enough for all tasks of a run on a slow, loaded machine */

enum { SERVICES = 7, BLIND = SERVICES, WORKERS };
static const char *const services[WORKERS] = {"captions", "embed",    "cluster",  "assign",
                                              "train",    "evaluate", "ensemble", /* and one more: */ "captions"};

struct fake {
    char *root, *inputs;
    pid_t redis, coordinator;
    struct mode_net *net;
    struct mode_store *store;
    struct mode_socket *socket[WORKERS];
    char session[WORKERS][33];
    bool welcomed[WORKERS];
    uint64_t id;
    unsigned executed, n_sessions;
    const char *claims; /* the output versions that workers report; NULL: this build's */
    const char *word;   /* the service that the first worker reports; NULL: its own */
    const char *of;     /* the store id that workers report; NULL: ours */
    uint32_t protocol;  /* the workers' major protocol version; 0: this build's */
    const char *poison; /* label that always fails with INPUT */
    const char *absent; /* service without a worker */
    const char *no_gpu; /* service whose worker fails every task with DEVICE */
    const char *flip;   /* label: its next output is corrupted after the commit */
    const char *lose;   /* label: likewise, it is removed */
    const char *hang;   /* label: likewise, reading it blocks until hung is written to */
    char *hung;
    unsigned n_bad;        /* number of tasks with a damaged input */
    const char *maxmemory; /* of Redis; NULL = no limit */
    bool blind;            /* with a second captions worker, on a machine that does not see the data */
    unsigned n_blind;      /* number of tasks that failed there */
    bool busy;             /* the first one runs a long task: */
    Mode__Assign busy_with;
    char busy_key[CORE_KEY], busy_label[64];
    int http_port; /* of the coordinator; 0 = none */
    double beat_s;
    bool slept;        /* our workers were silent for nearly a lease: their tasks may have been handed to others */
    char reading[200]; /* the last message about inputs that are being read */
    rlim_t most_files; /* RLIMIT_NOFILE of the coordinator; 0 = ours */
};

/* ---------------------------------------------------------------------------------------------- processes */

static void start_redis(struct fake *f)
{
    char *sock, *dir = mode_path_join(f->root, "redis");
    struct mode_error err = {0};
    assert_int_equal(mode_place_make(f->root, &err), MODE_OK);
    assert_int_equal(mode_place_path(&sock, f->root, "redis.sock", &err), MODE_OK);
    assert_int_equal(mode_dir_make(dir, &err), MODE_OK);
    if ((f->redis = fork()) == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (!freopen("/dev/null", "w", stdout)) _exit(1);
        execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", sock, "--dir", dir, "--appendonly", "yes",
               "--save", "", "--maxmemory", f->maxmemory ? f->maxmemory : "0", (char *)NULL);
        _exit(127);
    }
    free(sock);
    free(dir);
}

/* The same executable again: a bare fork would inherit locks held by the workers' socket threads. */
static void start_coordinator(struct fake *f)
{
    if ((f->coordinator = fork()) == 0) {
        struct rlimit files = {f->most_files, f->most_files};
        if (f->most_files && setrlimit(RLIMIT_NOFILE, &files) != 0) _exit(126);
        char http[32] = "";
        if (f->http_port) snprintf(http, sizeof http, "127.0.0.1:%d", f->http_port);
        execl("/proc/self/exe", "service-coordinator", "--coordinator", f->root, http, (char *)NULL);
        _exit(127);
    }
}

/* <root>/disk has the number of free bytes; without it there is enough space. */
static uint64_t fake_disk(const struct mode_store *store, uint64_t *size)
{
    char *path = mode_path_join(mode_store_root(store), "disk"), *text = NULL;
    uint64_t n = (uint64_t)1 << 39;
    if (mode_file_read(path, 64, &text, NULL, NULL) == MODE_OK) n = strtoull(text, NULL, 10);
    free(text);
    free(path);
    *size = (uint64_t)1 << 40;
    return n;
}

/* A task with pictures is digested for real; if it is not cached, not while <inputs>/unread exists. */
static enum mode_status task_digest(char hex[DIGESTS_VALUE], struct digests *d, const char *dir, struct mode_error *err)
{
    struct digests_look look;
    enum mode_status st = MODE_OK;
    char *tar = mode_path_join(dir, "test/0.tar"), *small = mode_path_join(dir, "test/nshards.txt"),
         *unread = mode_path_join(dir, "../../unread"), any[MODE_DIGEST_HEX];
    if (!mode_file_exists(tar)) {
        st = fake_digest(hex, d, dir, err);
    } else if (!digests_find(hex, &look, d, PLAN_DIGEST_TASK, dir)) {
        while (!st && mode_file_exists(unread)) {
            nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
            st = mode_digest_file(small, any, NULL, err); /* it is interrupted when the coordinator stops */
        }
        if (!st) st = server_world.task_digest(hex, d, dir, err);
    }
    free(tar);
    free(small);
    free(unread);
    return st;
}

static int be_coordinator(const char *root, const char *http)
{
    struct mode_error err = {0};
    struct server *s = calloc(1, sizeof *s);
    struct plan_world world = fake_world;
    world.task_digest = task_digest;
    struct server_options o = {.workspace = root,
                               .http = http,
                               .heartbeat_ms = 100,
                               .lease_ms = LEASE_MS,
                               .keep_checkpoints_s = 0,
                               .min_free_mib = 100,
                               .look_at_disk = fake_disk,
                               .world = &world};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    mode_log_open("coordinator");
    mode_log_set_level(getenv("MODE_TEST_LOG") ? MODE_LOG_INFO : MODE_LOG_ERROR);
    enum mode_status st = server_open(s, &o, &err);
    if (!st) st = server_run(s, &err);
    if (st) fprintf(stderr, "coordinator: %s\n", err.text);
    server_close(s);
    free(s);
    return (int)st;
}

static void stop(pid_t *pid, int sig, int *status)
{
    if (*pid <= 0) return;
    kill(*pid, sig);
    waitpid(*pid, status, 0);
    *pid = 0;
}

/* ---------------------------------------------------------------------------------------------- workers */

static void connect_workers(struct fake *f)
{
    struct mode_error err = {0};
    char *endpoint;
    assert_int_equal(mode_place_endpoint(&endpoint, f->root, "worker.sock", &err), MODE_OK);
    for (int i = 0; i < WORKERS; i++) {
        struct mode_endpoint e = {.endpoint = endpoint, .wire = MODE_WIRE_WORKER};
        assert_int_equal(mode_socket_connect(&f->socket[i], f->net, &e, &err), MODE_OK);
        snprintf(f->session[i], sizeof f->session[i], "%032x", ++f->n_sessions);
        f->welcomed[i] = false;
    }
    free(endpoint);
}

static void send_to(struct fake *f, int i, Mode__Envelope *e)
{
    struct mode_error err = {0};
    e->session = f->session[i];
    mode_socket_send(f->socket[i], NULL, 0, e, &err); /* not connected: the next heartbeat repeats it */
}

static void say_hello(struct fake *f, int i)
{
    const char *word = i == 0 && f->word ? f->word : services[i];
    Mode__Envelope e;
    Mode__Hello h = MODE__HELLO__INIT;
    char code[64];
    mode_envelope_init(&e, &f->id, MODE__ENVELOPE__BODY_HELLO);
    if (f->protocol) e.major = f->protocol;
    h.session = f->session[i];
    h.service = (char *)word;
    mode_code_version(code, sizeof code, word);
    h.code_version = f->claims ? (char *)f->claims : code;
    h.build = "9.9.9"; /* has no effect */
    h.name = f->session[i];
    h.node = i == BLIND ? "there" : "here";
    h.slots = 1;
    h.store_id = f->of ? (char *)f->of : (char *)mode_store_id(f->store);
    e.hello = &h;
    send_to(f, i, &e);
}

static void say_progress(struct fake *f, int i)
{
    Mode__Envelope e;
    Mode__Progress p = MODE__PROGRESS__INIT;
    mode_envelope_init(&e, &f->id, MODE__ENVELOPE__BODY_PROGRESS);
    p.has_agent_peak_rss_bytes = 1;
    p.agent_peak_rss_bytes = (uint64_t)(i + 1) << 20;
    e.progress = &p;
    send_to(f, i, &e);
}

static void say_credit(struct fake *f, int i)
{
    Mode__Envelope e;
    Mode__Credit c = MODE__CREDIT__INIT;
    mode_envelope_init(&e, &f->id, MODE__ENVELOPE__BODY_CREDIT);
    c.n = 1;
    e.credit = &c;
    send_to(f, i, &e);
}

/* False: the task fails because one of its inputs is damaged. */
static bool inputs_are_good(struct fake *f, int i, const Mode__Assign *a, const Mode__TaskSpec *spec)
{
    struct mode_error err = {0};
    Mode__Envelope e;
    Mode__Fail m = MODE__FAIL__INIT;
    bool bad = false;
    for (size_t k = 0; k < spec->n_inputs && !bad; k++) {
        struct stat is;
        const char *digest = spec->inputs[k]->digest;
        bad = f->hung && strstr(f->hung, digest) && stat(f->hung, &is) == 0 && S_ISFIFO(is.st_mode);
        if (!bad) assert_int_equal(mode_store_blob_check(f->store, &bad, digest, spec->inputs[k]->size, &err), MODE_OK);
        if (bad) m.digest = (char *)digest;
    }
    if (!bad) return true;
    f->n_bad++;
    mode_envelope_init(&e, &f->id, MODE__ENVELOPE__BODY_FAIL);
    m.key = a->key;
    m.fence = a->fence;
    m.class_ = MODE__FAIL_CLASS__FAIL_INTEGRITY;
    m.text = "damaged";
    e.fail = &m;
    send_to(f, i, &e);
    return false;
}

/* Damage that a disk may do to a file. */
static void harm(struct fake *f, const Mode__Blob *b, bool whole)
{
    char *path = mode_xasprintf("%s/blobs/%.2s/%s", f->root, b->digest, b->digest);
    if (whole) {
        assert_int_equal(unlink(path), 0);
    } else {
        assert_int_equal(chmod(path, 0644), 0);
        FILE *file = fopen(path, "r+b");
        assert_non_null(file);
        int c = fgetc(file);
        rewind(file);
        fputc(c ^ 1, file);
        fclose(file);
    }
    free(path);
}

/* Outputs are a function of the task alone, like real ones. */
static void do_task(struct fake *f, int i, const Mode__Assign *a)
{
    struct mode_error err = {0};
    Mode__Envelope e;
    bool no_gpu = f->no_gpu && strcmp(services[i], f->no_gpu) == 0, blind = i == BLIND;
    static const char log[] = "opening shard 1\nlast words \xff\n";
    /* notes keep 320 bytes of it, which end in the middle of a UTF-8 character */
    static char torn[400] = "shard 1.tar is torn at byte 512: /d";
    for (size_t n = strlen(torn); n + 2 < sizeof torn; n += 2) memcpy(torn + n, "\xc3\xa4", 2);
    if (f->busy && i == 0) {
        f->busy_with = *a;
        snprintf(f->busy_key, sizeof f->busy_key, "%s", a->key);
        snprintf(f->busy_label, sizeof f->busy_label, "%s", a->label);
        return;
    }
    f->n_blind += blind;
    if (blind || no_gpu || (f->poison && a->label && strcmp(a->label, f->poison) == 0)) {
        Mode__Fail m = MODE__FAIL__INIT;
        mode_envelope_init(&e, &f->id, MODE__ENVELOPE__BODY_FAIL);
        m.key = a->key;
        m.fence = a->fence;
        m.class_ = no_gpu  ? MODE__FAIL_CLASS__FAIL_DEVICE
                   : blind ? MODE__FAIL_CLASS__FAIL_ABSENT
                           : MODE__FAIL_CLASS__FAIL_INPUT;
        m.text = no_gpu ? "there is no GPU here" : blind ? "/data: no such folder" : torn;
        m.has_log_tail = 1;
        m.log_tail.data = (uint8_t *)(uintptr_t)log;
        m.log_tail.len = sizeof log - 1;
        e.fail = &m;
        send_to(f, i, &e);
        return;
    }
    Mode__TaskSpec *spec;
    assert_int_equal(mode_store_task_get(f->store, &spec, a->key, &err), MODE_OK);
    if (!inputs_are_good(f, i, a, spec)) {
        mode__task_spec__free_unpacked(spec, NULL);
        return;
    }
    Mode__Commit c = MODE__COMMIT__INIT;
    Mode__Blob blob[8], *blobs[8];
    char digest[8][MODE_DIGEST_HEX], text[200];
    for (const char *const *name = outputs_of(spec->service); *name; name++) {
        size_t n = c.n_outputs++;
        mode__blob__init(&blob[n]);
        if (strcmp(*name, "summary.json") == 0)
            snprintf(text, sizeof text, "{\"of\": \"%s\"}", a->key);
        else
            snprintf(text, sizeof text, "%s of %s\n%s", *name, a->key, MODE_REPORT_COST_MARK);
        assert_int_equal(mode_store_put_bytes(f->store, digest[n], text, strlen(text), &err), MODE_OK);
        blob[n].name = (char *)*name;
        blob[n].digest = digest[n];
        blob[n].size = strlen(text);
        blobs[n] = &blob[n];
    }
    c.key = a->key;
    c.service = spec->service;
    c.outputs = blobs;
    c.rows_in = c.rows_out = 1000;
    c.fence = a->fence;
    c.attempt = a->attempt;
    c.worker = f->session[i];
    c.seconds = 0.25 * (double)a->attempt;
    c.peak_rss_bytes = 5 << 20;
    bool created;
    assert_int_equal(mode_store_commit_create(f->store, &created, NULL, &c, &err), MODE_OK);
    f->executed++;
    if (f->flip && a->label && strcmp(a->label, f->flip) == 0) {
        harm(f, c.outputs[1 % c.n_outputs], false);
        f->flip = NULL;
    }
    if (f->lose && a->label && strcmp(a->label, f->lose) == 0) {
        harm(f, c.outputs[0], true);
        f->lose = NULL;
    }
    if (f->hang && a->label && strcmp(a->label, f->hang) == 0) {
        f->hung = mode_xasprintf("%s/blobs/%.2s/%s", f->root, c.outputs[0]->digest, c.outputs[0]->digest);
        assert_int_equal(unlink(f->hung), 0);
        assert_int_equal(mkfifo(f->hung, 0600), 0);
        f->hang = NULL;
    }
    Mode__Result m = MODE__RESULT__INIT;
    mode_envelope_init(&e, &f->id, MODE__ENVELOPE__BODY_RESULT);
    m.key = a->key;
    m.fence = a->fence;
    m.already = !created;
    m.rows_in = m.rows_out = 1000;
    e.result = &m;
    send_to(f, i, &e);
    mode__task_spec__free_unpacked(spec, NULL);
}

static void workers_turn(struct fake *f)
{
    struct mode_error err = {0};
    const double now = mode_clock_s();
    const bool beat = now - f->beat_s > 0.1;
    if (f->beat_s > 0 && now - f->beat_s > 0.75e-3 * LEASE_MS) f->slept = true;
    if (beat) f->beat_s = now;
    for (int i = 0; i < WORKERS; i++) {
        struct mode_packet p = {0};
        if (i == BLIND && !f->blind) continue;
        if (f->absent && strcmp(services[i], f->absent) == 0) continue;
        while (mode_socket_recv(f->socket[i], &p, &err) == MODE_OK && p.data) {
            struct mode_envelope *in;
            assert_int_equal(mode_envelope_unpack(&in, p.data, p.size, MODE_WIRE_WORKER, &err), MODE_OK);
            switch (in->msg->body_case) {
            case MODE__ENVELOPE__BODY_WELCOME:
                f->welcomed[i] = true;
                say_progress(f, i);
                say_credit(f, i);
                break;
            case MODE__ENVELOPE__BODY_REJECT:
                assert_int_equal(in->msg->reject->code, MODE__REJECT_CODE__REJECT_UNKNOWN_SESSION);
                f->welcomed[i] = false;
                break;
            case MODE__ENVELOPE__BODY_ASSIGN:
                do_task(f, i, in->msg->assign);
                say_credit(f, i);
                break;
            default: break;
            }
            mode_envelope_free(&in);
            mode_packet_clear(&p);
        }
        if (i == 0 && !f->busy && f->busy_key[0]) {
            f->busy_with.key = f->busy_key;
            f->busy_with.label = f->busy_label;
            do_task(f, i, &f->busy_with);
            f->busy_key[0] = '\0';
        }
        if (!beat) continue;
        if (f->welcomed[i]) {
            say_credit(f, i);
            say_progress(f, i);
        } else
            say_hello(f, i);
    }
}

/* ---------------------------------------------------------------------------------------------- asking */

static struct mode_envelope *ask(struct fake *f, Mode__Envelope *e)
{
    struct mode_error err = {0};
    struct mode_envelope *answer = NULL;
    char *endpoint;
    assert_int_equal(mode_place_endpoint(&endpoint, f->root, "admin.sock", &err), MODE_OK);
    struct mode_endpoint at = {.endpoint = endpoint, .wire = MODE_WIRE_ADMIN};
    const double until = mode_clock_s() + LONG_S;
    enum mode_status st;
    do st = mode_ask(&answer, f->net, &at, e, 30000, &err);
    while (st == MODE_E_PEER && mode_clock_s() < until); /* it may just be starting */
    if (st) fail_msg("%s", err.text);
    free(endpoint);
    return answer;
}

static char *spec_text(const char *name, const char *router, const char *lr)
{
    return mode_xasprintf("name: %s\nseed: 3\ndata: {train: shards}\nencoder: {dir: encoder}\n"
                          "cluster: {fine: 4, coarse: %d}\nmodel: ViT-B-32\ntokenizer: {merges: merges.gz}\n"
                          "train: {batch: 100, lr: %s, seed_steps: 5, total_steps: 9}\n"
                          "evaluate: {tasks: tasks}\nensemble: {router: %s}\n",
                          name, EXPERTS, lr, router);
}

static struct mode_envelope *ask_submit(struct fake *f, const char *text, char *key)
{
    Mode__Envelope e;
    Mode__Submit m = MODE__SUBMIT__INIT;
    mode_envelope_init(&e, &f->id, MODE__ENVELOPE__BODY_SUBMIT);
    if (!*key) snprintf(key, 33, "%032llx", (unsigned long long)f->id);
    m.spec.data = (uint8_t *)(uintptr_t)text;
    m.spec.len = strlen(text);
    m.base_dir = f->inputs;
    m.idempotency = key;
    e.submit = &m;
    return ask(f, &e);
}

static bool is_reading(struct fake *f, const struct mode_envelope *answer)
{
    if (answer->msg->body_case != MODE__ENVELOPE__BODY_REJECT ||
        answer->msg->reject->code != MODE__REJECT_CODE__REJECT_STARTING)
        return false;
    snprintf(f->reading, sizeof f->reading, "%s", answer->msg->reject->text);
    return true;
}

static bool submit(struct fake *f, const char *text)
{
    char key[33] = "";
    const double until = mode_clock_s() + LONG_S;
    struct mode_envelope *answer = ask_submit(f, text, key);
    while (is_reading(f, answer) && mode_clock_s() < until) {
        mode_envelope_free(&answer);
        answer = ask_submit(f, text, key);
    }
    bool good = answer->msg->body_case == MODE__ENVELOPE__BODY_SUBMIT_REPLY;
    if (!good && answer->msg->body_case == MODE__ENVELOPE__BODY_REJECT)
        print_message("%s\n", answer->msg->reject->text);
    mode_envelope_free(&answer);
    return good;
}

struct summary {
    Mode__RunState state;
    uint64_t done, cached, total, quarantined;
    char message[1000];
};

static void look(struct fake *f, struct summary *s, const char *run)
{
    Mode__Envelope e;
    Mode__Status q = MODE__STATUS__INIT;
    mode_envelope_init(&e, &f->id, MODE__ENVELOPE__BODY_STATUS);
    q.run = (char *)run;
    e.status = &q;
    struct mode_envelope *answer = ask(f, &e);
    assert_int_equal(answer->msg->body_case, MODE__ENVELOPE__BODY_STATUS_REPLY);
    assert_int_equal(answer->msg->status_reply->n_runs, 1);
    const Mode__Run *r = answer->msg->status_reply->runs[0];
    *s = (struct summary){.state = r->state};
    snprintf(s->message, sizeof s->message, "%s", r->message);
    for (size_t i = 0; i < r->n_stages; i++) {
        s->done += r->stages[i]->done;
        s->cached += r->stages[i]->cached;
        s->total += r->stages[i]->total;
        s->quarantined += r->stages[i]->quarantined;
    }
    mode_envelope_free(&answer);
}

/* Works until the run has ended, or at least `executed` tasks were executed. */
static void work(struct fake *f, struct summary *s, const char *run, unsigned executed)
{
    double until = mode_clock_s() + LONG_S, asked = 0;
    *s = (struct summary){0};
    while (f->executed < executed) {
        workers_turn(f);
        if (mode_clock_s() - asked > 0.1) {
            asked = mode_clock_s();
            look(f, s, run);
            if (s->state != MODE__RUN_STATE__RUN_RUNNING) return;
        }
        if (mode_clock_s() > until)
            fail_msg("%s is not done in time: %llu of %llu", run, (unsigned long long)s->done,
                     (unsigned long long)s->total);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

/* ---------------------------------------------------------------------------------------------- set-up */

static void write_file(const char *root, const char *name, const char *text)
{
    assert_int_equal(put_file_in(root, name, text), MODE_OK);
}

static bool have_redis(void)
{
    return system("redis-server --version >/dev/null 2>&1") == 0;
}

static struct fake *set_up(void)
{
    if (!have_redis()) {
        print_message("SKIPPED: redis-server is not installed; the coordinator was NOT tested\n");
        exit(77);
    }
    struct fake *f = calloc(1, sizeof *f);
    struct mode_error err = {0};
    char name[64], folder[] = "/tmp/mode-test-XXXXXX";
    assert_non_null(mkdtemp(folder));
    f->inputs = mode_path_join(folder, "in");
    f->root = mode_path_join(folder, "ws");
    for (int i = 0; i < SHARDS; i++) {
        snprintf(name, sizeof name, "shards/%d.tar", i);
        write_file(f->inputs, name, name);
    }
    for (int t = 0; t < TASKS; t++) {
        snprintf(name, sizeof name, "tasks/t%d/test/nshards.txt", t);
        write_file(f->inputs, name, "1\n");
    }
    write_file(f->inputs, "encoder/config.json", "{}");
    write_file(f->inputs, "merges.gz", "merges");
    assert_int_equal(mode_dir_make(f->root, &err), MODE_OK);
    assert_int_equal(mode_store_open(&f->store, f->root, &err), MODE_OK);
    start_redis(f);
    start_coordinator(f);
    if (mode_net_open(&f->net, &err)) fail_msg("%s", err.text);
    connect_workers(f);
    return f;
}

static void tear_down(struct fake *f)
{
    struct mode_error err = {0};
    int status = 0;
    for (int i = 0; i < WORKERS; i++) mode_socket_close(&f->socket[i]);
    mode_net_close(&f->net);
    stop(&f->coordinator, SIGTERM, &status);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("SIGTERM ended the coordinator with status %x", (unsigned)status);
    stop(&f->redis, SIGKILL, &status);
    mode_store_close(&f->store);
    *strrchr(f->root, '/') = 0;
    mode_dir_remove(f->root, &err);
    free(f->root);
    free(f->inputs);
    free(f->hung);
    free(f);
}

/* Exactly n tasks were executed, none twice, unless the machine was so slow that leases expired. */
static void expect_executed(const struct fake *f, unsigned n)
{
    if (f->slept)
        assert_true(f->executed >= n);
    else
        assert_int_equal(f->executed, n);
}

static inline void expect_file(const struct fake *f, const char *name)
{
    char *path = mode_path_join(f->root, name);
    if (!mode_file_exists(path)) fail_msg("%s is missing", name);
    free(path);
}

static inline bool has_note(struct fake *f, const char *words)
{
    Mode__Envelope e;
    Mode__Status q = MODE__STATUS__INIT;
    bool found = false;
    mode_envelope_init(&e, &f->id, MODE__ENVELOPE__BODY_STATUS);
    q.run = "";
    q.has_notes = 1;
    q.notes = 64;
    e.status = &q;
    struct mode_envelope *answer = ask(f, &e);
    const Mode__StatusReply *r = answer->msg->status_reply;
    for (size_t i = 0; i < r->n_notes; i++) found |= strstr(r->notes[i]->text, words) != NULL;
    mode_envelope_free(&answer);
    return found;
}

static inline void work_a_while(struct fake *f, int ms)
{
    for (int i = 0; i < ms; i++) {
        workers_turn(f);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

/* Works until that many of our workers are connected. */
static inline void work_until_in(struct fake *f, int n)
{
    const double until = mode_clock_s() + LONG_S;
    for (int i = 0; i < n; i++)
        while (!f->welcomed[i]) {
            assert_true(mode_clock_s() < until);
            work_a_while(f, 1);
        }
}

/* Within some thirty seconds, however slow the machine is. */
static inline bool soon_noted(struct fake *f, const char *words)
{
    for (int i = 0; i < 300; i++) {
        if (has_note(f, words)) return true;
        work_a_while(f, 100);
    }
    return false;
}

#endif
