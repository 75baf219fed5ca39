/* The coordinator as a process, a real Redis, and workers that only pretend: the whole graph of a run over real sockets
 * and a real store, with processes killed on the way. Skipped, loudly, where redis-server is not installed. */
#include "plan_world.h"
#include "server.h"
#include "service_outputs.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/str.h"
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
    const char *poison;    /* label that always fails with INPUT */
    const char *absent;    /* service whose worker does not come */
    const char *no_gpu;    /* service whose worker fails every task with DEVICE */
    const char *flip;      /* label: the next of its outputs has a wrong byte once it is committed */
    const char *lose;      /* label: likewise, it is gone */
    unsigned n_bad;        /* so many tasks had an input that was damaged */
    const char *maxmemory; /* of Redis; NULL = as much as it wants */
    bool blind;            /* a second captions worker is there, on a machine that does not see the data */
    unsigned n_blind;      /* so many tasks failed there */
    bool busy;             /* the first one has something in hand for long: */
    Mode__Assign busy_with;
    char busy_key[CORE_KEY], busy_label[64];
    int http_port; /* of the coordinator; 0 = none */
    double beat_s;
    unsigned n_asked_again; /* of the last submission: so often was the answer that its inputs are being read */
    char reading[200];      /* what was said of it last */
    rlim_t most_files;      /* of the coordinator; 0 = as many as we may have */
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

/* The same executable again: a fork alone would inherit locks that the threads of the workers' sockets hold. */
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

/* <root>/disk says how many bytes are free; without it there is room. */
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

/* A task that has pictures is digested as it would be in earnest. */
static enum mode_status task_digest(char hex[DIGESTS_VALUE], struct digests *d, const char *dir, struct mode_error *err)
{
    char *tar = mode_path_join(dir, "test/0.tar");
    bool there = mode_file_exists(tar);
    free(tar);
    return there ? server_world.task_digest(hex, d, dir, err) : fake_digest(hex, d, dir, err);
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
                               .lease_ms = 2000,
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
    mode_socket_send(f->socket[i], NULL, 0, e, &err); /* not connected: the next beat says it again */
}

static void say_hello(struct fake *f, int i)
{
    Mode__Envelope e;
    Mode__Hello h = MODE__HELLO__INIT;
    mode_envelope_init(&e, &f->id, MODE__ENVELOPE__BODY_HELLO);
    h.session = f->session[i];
    h.service = (char *)services[i];
    h.code_version = h.build = "0.1.0";
    h.name = f->session[i];
    h.node = i == BLIND ? "there" : "here";
    h.slots = 1;
    h.store_id = (char *)mode_store_id(f->store);
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

/* False: it says that one of its inputs is damaged. */
static bool inputs_are_good(struct fake *f, int i, const Mode__Assign *a, const Mode__TaskSpec *spec)
{
    struct mode_error err = {0};
    Mode__Envelope e;
    Mode__Fail m = MODE__FAIL__INIT;
    bool bad = false;
    for (size_t k = 0; k < spec->n_inputs && !bad; k++) {
        assert_int_equal(mode_store_blob_check(f->store, &bad, spec->inputs[k]->digest, spec->inputs[k]->size, &err),
                         MODE_OK);
        if (bad) m.digest = spec->inputs[k]->digest;
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

/* What a disk may do to a file. */
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

/* Outputs are a function of the task alone, as real ones are. */
static void do_task(struct fake *f, int i, const Mode__Assign *a)
{
    struct mode_error err = {0};
    Mode__Envelope e;
    bool no_gpu = f->no_gpu && strcmp(services[i], f->no_gpu) == 0, blind = i == BLIND;
    static const char log[] = "opening shard 1\nlast words \xff\n";
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
        m.text = no_gpu ? "there is no GPU here" : blind ? "/data: no such folder" : "shard 1.tar is torn at byte 512";
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
    bool beat = mode_clock_s() - f->beat_s > 0.1;
    if (beat) f->beat_s = mode_clock_s();
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
    enum mode_status st = mode_ask(&answer, f->net, &at, e, 5000, &err);
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
    f->n_asked_again++;
    return true;
}

static bool submit(struct fake *f, const char *text)
{
    char key[33] = "";
    f->n_asked_again = 0;
    struct mode_envelope *answer = ask_submit(f, text, key);
    while (is_reading(f, answer)) {
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
    char message[300];
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

/* Work until the run has ended, or at least `executed` tasks were. */
static void work(struct fake *f, struct summary *s, const char *run, unsigned executed)
{
    double until = mode_clock_s() + 30, asked = 0;
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
    free(f);
}

static void expect_file(const struct fake *f, const char *name)
{
    char *path = mode_path_join(f->root, name);
    if (!mode_file_exists(path)) fail_msg("%s is missing", name);
    free(path);
}

/* ---------------------------------------------------------------------------------------------- tests */

static bool has_note(struct fake *f, const char *words)
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

static void work_a_while(struct fake *f, int ms)
{
    for (int i = 0; i < ms; i++) {
        workers_turn(f);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

static void test_run_is_done_once_and_found_again(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    char *text = spec_text("one", "paper", "1e-3"), *other = spec_text("one", "uniform", "1e-3");
    assert_true(submit(f, text));
    work(f, &s, "one", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    assert_int_equal(s.total, ALL);
    assert_int_equal(s.done, ALL);
    assert_int_equal(f->executed, ALL);
    expect_file(f, "report/result.csv");
    expect_file(f, "report/report.html");
    expect_file(f, "experts/dense/open_clip_model.safetensors");
    expect_file(f, "experts/expert-1/open_clip_config.json");
    expect_file(f, "experts/index.json");

    assert_true(submit(f, text)); /* again: nothing is done again */
    work(f, &s, "one", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    assert_int_equal(s.cached, ALL);
    assert_int_equal(f->executed, ALL);

    assert_true(submit(f, other)); /* another router: only the ensemble depends on it */
    work(f, &s, "one", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    assert_int_equal(s.cached, ALL - 1);
    assert_int_equal(f->executed, ALL + 1);
    free(text);
    free(other);
    tear_down(f);
}

static uint64_t peak_of(const struct fake *f, const char *name)
{
    char *path = mode_path_join(f->root, "report/summary.json");
    json_t *o = json_load_file(path, 0, NULL), *x;
    uint64_t bytes = 0;
    size_t i;
    json_array_foreach(json_object_get(o, "processes"), i,
                       x) if (strcmp(json_string_value(json_object_get(x, "name")), name) == 0)
        bytes = (uint64_t)json_integer_value(json_object_get(x, "peak_rss_bytes"));
    json_decref(o);
    free(path);
    return bytes;
}

/* Every stage's time and every process's memory is in the report, and stays there when the run is submitted again. */
static void test_report_says_what_the_run_took(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    int status;
    char *text = spec_text("cost", "paper", "1e-3"), *path = mode_path_join(f->root, "report/summary.json");
    assert_true(submit(f, text));
    work(f, &s, "cost", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    json_t *o = json_load_file(path, 0, NULL), *stages = json_object_get(o, "stages"), *x;
    uint64_t tasks = 0;
    size_t i;
    json_array_foreach(stages, i, x)
    {
        tasks += (uint64_t)json_integer_value(json_object_get(x, "tasks"));
        assert_true(json_real_value(json_object_get(x, "seconds")) > 0);
        assert_int_equal(json_integer_value(json_object_get(x, "peak_rss_bytes")), 5 << 20);
    }
    assert_int_equal(tasks, ALL); /* the ensemble's own among them */
    json_decref(o);
    uint64_t redis = peak_of(f, "redis");
    assert_true(peak_of(f, "coordinator") > 1 << 20);
    assert_true(redis > 1 << 20);
    for (int k = 0; k < SERVICES; k++) {
        char *name = mode_xasprintf("agent of %s", services[k]);
        assert_int_equal(peak_of(f, name), (uint64_t)(k + 1) << 20);
        free(name);
    }
    stop(&f->coordinator, SIGKILL, &status);
    start_coordinator(f);
    assert_true(submit(f, text));
    work(f, &s, "cost", UINT32_MAX);
    assert_int_equal(s.cached, ALL);
    assert_int_equal(peak_of(f, "agent of train"), 5 << 20);
    assert_true(peak_of(f, "redis") >= redis);
    free(path);
    free(text);
    tear_down(f);
}

static void test_killed_coordinator_goes_on(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    int status;
    char *text = spec_text("two", "paper", "1e-3");
    assert_true(submit(f, text));
    for (unsigned k = 4; k < ALL; k += 7) {
        work(f, &s, "two", k);
        stop(&f->coordinator, SIGKILL, &status);
        start_coordinator(f);
    }
    work(f, &s, "two", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    assert_int_equal(s.done, ALL);
    assert_int_equal(f->executed, ALL); /* a finished task is not done again */
    free(text);
    tear_down(f);
}

static void test_redis_killed_and_wiped_costs_nothing(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    struct mode_error err = {0};
    int status;
    char *text = spec_text("three", "paper", "1e-3"), *data = mode_path_join(f->root, "redis");
    assert_true(submit(f, text));
    work(f, &s, "three", 5);
    stop(&f->redis, SIGKILL, &status);
    assert_int_equal(mode_dir_remove(data, &err), MODE_OK);
    for (int i = 0; i < 300; i++) { /* nothing is handed out meanwhile, everybody lives */
        workers_turn(f);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    start_redis(f);
    work(f, &s, "three", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    assert_int_equal(f->executed, ALL);
    uint64_t epoch;
    assert_int_equal(mode_store_epoch_last(f->store, &epoch, &err), MODE_OK);
    assert_true(epoch >= 2); /* it might have forgotten fences: they must not repeat */
    free(text);
    free(data);
    tear_down(f);
}

static void test_bad_input_ends_the_run_with_its_reason(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    char *text = spec_text("four", "paper", "1e-3");
    f->poison = "captions/0001";
    assert_true(submit(f, text));
    work(f, &s, "four", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_FAILED);
    assert_int_equal(s.quarantined, 1);
    assert_non_null(strstr(s.message, "captions/0001"));
    assert_non_null(strstr(s.message, "torn at byte 512"));
    assert_true(has_note(f, "captions/0001: the worker's last lines are in "));
    assert_true(has_note(f, "the last one: last words ?"));
    char *failed = mode_path_join(f->root, "runs/four/failed");
    DIR *d = opendir(failed);
    assert_non_null(d);
    unsigned n_logs = 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;) n_logs += strstr(e->d_name, ".log") != NULL;
    assert_int_equal(n_logs, 1);
    closedir(d);
    free(failed);
    f->poison = NULL; /* repaired: the same run goes on from there */
    unsigned before = f->executed;
    assert_true(submit(f, text));
    work(f, &s, "four", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    assert_int_equal(f->executed, ALL);
    assert_true(before > 0);
    free(text);
    tear_down(f);
}

/* One worker does not see the data, is always free and fails everything it gets; the other has a long task in hand. No
 * task is given up for that. */
static void test_a_blind_machine_condemns_nothing(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    char *text = spec_text("blind", "paper", "1e-3");
    f->blind = f->busy = true;
    for (int i = 0; i < 5000 && !(f->welcomed[0] && f->welcomed[BLIND]); i++) work_a_while(f, 1);
    assert_true(submit(f, text));
    work_a_while(f, 1500);
    assert_int_equal(f->n_blind, SHARDS - 1);
    look(f, &s, "blind");
    assert_int_equal(s.quarantined, 0);
    assert_true(has_note(f, "failed (absent, attempt 1 on there), next try in 1 s on another machine: /data"));
    f->busy = false;
    work(f, &s, "blind", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    assert_int_equal(f->executed, ALL);
    assert_int_equal(f->n_blind, SHARDS - 1);
    free(text);
    tear_down(f);
}

/* Redis is full before the first task and stays so: it takes no functions at first, then whatever is needed. */
static void test_a_full_redis_stops_nothing(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    struct mode_error err = {0};
    int status;
    char *text = spec_text("full", "paper", "1e-3"), *data = mode_path_join(f->root, "redis");
    stop(&f->coordinator, SIGKILL, &status);
    stop(&f->redis, SIGKILL, &status);
    assert_int_equal(mode_dir_remove(data, &err), MODE_OK);
    f->maxmemory = "1";
    start_redis(f);
    start_coordinator(f);
    assert_true(submit(f, text));
    work_a_while(f, 1000); /* it lives and says what is missing */
    assert_int_equal(f->executed, 0);
    assert_true(has_note(f, "HINT: give it more memory"));
    stop(&f->redis, SIGTERM, &status);
    f->maxmemory = NULL;
    start_redis(f); /* has room, and gets the functions */
    work(f, &s, "full", 2);
    stop(&f->redis, SIGTERM, &status);
    f->maxmemory = "1";
    start_redis(f);
    work(f, &s, "full", 5);
    stop(&f->coordinator, SIGKILL, &status);
    start_coordinator(f);
    work(f, &s, "full", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    work_a_while(f, 2500); /* it looks every two seconds */
    assert_true(has_note(f, "Redis is full: new tasks are not written to it"));
    free(data);
    free(text);
    tear_down(f);
}

/* A checkpoint of a task that is done, or that no run wants, is gone after a start; that of a task of an unfinished run
 * stays. */
static void test_checkpoints_are_swept_at_the_start(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    struct mode_error err = {0};
    int status;
    char *text = spec_text("six", "paper", "1e-3"), *tasks = mode_path_join(f->root, "tasks"), *dir,
         stray[MODE_DIGEST_HEX], done[MODE_DIGEST_HEX] = "", wanted[MODE_DIGEST_HEX] = "";
    assert_true(submit(f, text));
    work(f, &s, "six", 1);
    stop(&f->coordinator, SIGKILL, &status);
    DIR *d = opendir(tasks); /* what was planned so far */
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (mode_key_valid(e->d_name))
            snprintf(mode_store_commit_exists(f->store, e->d_name) ? done : wanted, MODE_DIGEST_HEX, "%.64s",
                     e->d_name);
    closedir(d);
    assert_true(done[0] && wanted[0]);
    mode_digest_bytes("stray", 5, stray);
    const char *const keys[] = {done, wanted, stray};
    for (int k = 0; k < 3; k++) {
        assert_int_equal(mode_store_checkpoint_dir(f->store, &dir, keys[k], 1, &err), MODE_OK);
        free(dir);
    }
    start_coordinator(f);
    work(f, &s, "six", f->executed + 1);
    for (int k = 0; k < 3; k++) {
        dir = mode_xasprintf("%s/ckpt/%s", f->root, keys[k]);
        assert_int_equal(mode_file_exists(dir), k == 1);
        free(dir);
    }
    free(tasks);
    free(text);
    tear_down(f);
}

/* What was given up before a restart is still given up after it: the run ends, and nobody waits for that task. */
static void test_given_up_is_remembered_over_a_restart(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s = {0};
    int status;
    char *text = spec_text("five", "paper", "1e-3");
    f->poison = "words/t0";
    assert_true(submit(f, text));
    for (unsigned k = 1; !s.quarantined; k++) {
        work(f, &s, "five", k);
        look(f, &s, "five");
    }
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_RUNNING);
    stop(&f->coordinator, SIGKILL, &status);
    start_coordinator(f);
    work(f, &s, "five", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_FAILED);
    assert_int_equal(s.quarantined, 1);
    assert_non_null(strstr(s.message, "words/t0"));
    free(text);
    tear_down(f);
}

/* Another worker of captions says HELLO; returns the case of the answer. */
static int knock(struct fake *f, struct mode_socket **out, const char *endpoint)
{
    struct mode_error err = {0};
    struct mode_endpoint at = {.endpoint = endpoint, .wire = MODE_WIRE_WORKER};
    struct mode_socket *ours = f->socket[0];
    char session[33];
    int answer = 0;
    assert_int_equal(mode_socket_connect(out, f->net, &at, &err), MODE_OK);
    memcpy(session, f->session[0], sizeof session);
    f->socket[0] = *out;
    snprintf(f->session[0], sizeof f->session[0], "%032x", ++f->n_sessions);
    for (int ms = 0; ms < 5000 && !answer; ms++) {
        struct mode_packet p = {0};
        struct mode_envelope *in;
        if (ms % 100 == 0) say_hello(f, 0);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        if (mode_socket_recv(*out, &p, &err) || !p.data) continue;
        assert_int_equal(mode_envelope_unpack(&in, p.data, p.size, MODE_WIRE_WORKER, &err), MODE_OK);
        answer = (int)in->msg->body_case;
        mode_envelope_free(&in);
        mode_packet_clear(&p);
    }
    f->socket[0] = ours;
    memcpy(f->session[0], session, sizeof session);
    return answer;
}

/* Before its files run out the coordinator turns workers away and says why. Those that are in do their work, people are
 * answered, and when some have gone others may come. */
static void test_workers_are_turned_away_before_the_files_run_out(void **state)
{
    (void)state;
    enum { CROWD = 90 };
    struct fake *f = set_up();
    struct summary s;
    struct mode_error err = {0};
    struct mode_socket *crowd[CROWD];
    char *text = spec_text("eight", "paper", "1e-3"), *endpoint;
    int status, n = 0;
    stop(&f->coordinator, SIGTERM, &status);
    f->most_files = 128;
    start_coordinator(f);
    work_a_while(f, 500); /* our own workers come in first */
    assert_int_equal(mode_place_endpoint(&endpoint, f->root, "worker.sock", &err), MODE_OK);
    int answer = MODE__ENVELOPE__BODY_WELCOME;
    for (; n < CROWD && answer == MODE__ENVELOPE__BODY_WELCOME; n++) {
        answer = knock(f, &crowd[n], endpoint);
        work_a_while(f, 20);
    }
    assert_int_equal(answer, MODE__ENVELOPE__BODY_REJECT);
    assert_in_range(n, 20, CROWD - 1);
    assert_true(has_note(f, "of the 128 files that the coordinator may have open"));
    assert_true(submit(f, text));
    work(f, &s, "eight", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    assert_int_equal(f->executed, ALL);
    while (n > 0) mode_socket_close(&crowd[--n]);
    work_a_while(f, 500);
    assert_int_equal(knock(f, &crowd[0], endpoint), MODE__ENVELOPE__BODY_WELCOME);
    mode_socket_close(&crowd[0]);
    free(text);
    free(endpoint);
    tear_down(f);
}

/* What STATUS says of that stage's wait; text "" = it waits for nobody. */
static void wait_of(struct fake *f, const char *run, const char *stage, char cause[32], uint64_t *tasks, char *needs,
                    char text[1000])
{
    Mode__Envelope e;
    Mode__Status q = MODE__STATUS__INIT;
    mode_envelope_init(&e, &f->id, MODE__ENVELOPE__BODY_STATUS);
    q.run = (char *)run;
    e.status = &q;
    struct mode_envelope *answer = ask(f, &e);
    const Mode__Run *r = answer->msg->status_reply->runs[0];
    cause[0] = text[0] = needs[0] = 0;
    for (size_t i = 0; i < r->n_stages; i++) {
        const Mode__Wait *w = r->stages[i]->wait;
        if (!w || strcmp(r->stages[i]->name, stage) != 0) continue;
        snprintf(cause, 32, "%s", w->cause);
        snprintf(text, 1000, "%s", w->text);
        snprintf(needs, 64, "%s", w->needs ? w->needs : "");
        *tasks = w->tasks;
    }
    mode_envelope_free(&answer);
}

/* Work until the stage waits (or, cause "", does not). */
static void work_until(struct fake *f, const char *run, const char *stage, const char *want, uint64_t *tasks,
                       char *needs, char text[1000])
{
    double until = mode_clock_s() + 30;
    char cause[32];
    do {
        if (mode_clock_s() > until) fail_msg("%s: the cause of its wait is \"%s\", not \"%s\"", stage, cause, want);
        work_a_while(f, 50);
        wait_of(f, run, stage, cause, tasks, needs, text);
    } while (strcmp(cause, want) != 0);
}

/* Nothing waits silently: STATUS says for whom, why and what helps, and no more once it goes on. */
static void test_says_for_whom_tasks_wait(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    char *text = spec_text("seven", "paper", "1e-3"), *gpu = mode_xasprintf("%sprecision: bf16\n", text);
    char said[1000], needs[64];
    uint64_t tasks;
    f->absent = "train";
    assert_true(submit(f, gpu));
    work_until(f, "seven", "train-seed", "no_worker", &tasks, needs, said);
    assert_int_equal(tasks, 1);
    assert_string_equal(needs, "a GPU (precision bf16)");
    assert_non_null(strstr(said, "train-seed: 1 task waits for a train worker with a GPU (precision bf16), and none is "
                                 "connected"));
    assert_non_null(strstr(said, "precision: f32"));
    f->absent = NULL;
    f->no_gpu = "train";
    work_until(f, "seven", "train-seed", "held_back", &tasks, needs, said);
    assert_non_null(strstr(said, "cordoned"));
    assert_non_null(strstr(said, "there is no GPU here"));
    for (int i = 0; i < SERVICES; i++) /* a worker that can: it comes from elsewhere */
        if (strcmp(services[i], "train") == 0) {
            snprintf(f->session[i], sizeof f->session[i], "%032x", ++f->n_sessions);
            f->welcomed[i] = false;
        }
    f->no_gpu = NULL;
    work_until(f, "seven", "train-seed", "", &tasks, needs, said);
    work(f, &s, "seven", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);

    f->absent = "ensemble"; /* nothing is special about it: how to start one is said */
    char *other = spec_text("seven", "uniform", "1e-3"), *other_gpu = mode_xasprintf("%sprecision: bf16\n", other);
    int status;
    stop(&f->coordinator, SIGKILL, &status); /* which forgets the ensemble worker that was here */
    start_coordinator(f);
    assert_true(submit(f, other_gpu));
    work_until(f, "seven", "ensemble", "no_worker", &tasks, needs, said);
    assert_string_equal(needs, "");
    assert_non_null(strstr(said, "ensemble: 1 task waits for an ensemble worker, and none is connected. HINT: "
                                 "`mode-ensemble --workspace"));
    free(text);
    free(gpu);
    free(other);
    free(other_gpu);
    tear_down(f);
}

/* A port that was free a moment ago, and what the page there says; the caller frees. */
static int free_port(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, n), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &n), 0);
    close(fd);
    return ntohs(at.sin_port);
}

static char *http_get(int port, const char *page)
{
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct mode_str text = {0};
    char *ask = mode_xasprintf("GET %s HTTP/1.0\r\n\r\n", page), part[4096];
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(write(fd, ask, strlen(ask)), (ssize_t)strlen(ask));
    for (ssize_t n; (n = read(fd, part, sizeof part)) > 0;) mode_str_add(&text, part, (size_t)n);
    close(fd);
    free(ask);
    return text.data;
}

/* Workers that never had a task are counted, too: somebody watches whether they are there. */
static void test_metrics_show_every_kind_of_worker(void **state)
{
    (void)state;
    struct fake *f = set_up();
    int status;
    f->http_port = free_port();
    f->blind = true;
    stop(&f->coordinator, SIGKILL, &status);
    start_coordinator(f);
    for (int i = 0, n = 0; i < 5000 && n < WORKERS; i++) {
        work_a_while(f, 1);
        for (n = 0; n < WORKERS && f->welcomed[n]; n++) continue;
    }
    char *page = http_get(f->http_port, "/metrics");
    for (int i = 0; i < SERVICES; i++) {
        char *line = mode_xasprintf("\nmode_workers{role=\"%s\",state=\"idle\"} %d\n", services[i], i ? 1 : 2);
        const char *at = strstr(page, line);
        if (!at) fail_msg("no %s in %s", line, page);
        assert_null(strstr(at + 1, line)); /* once */
        free(line);
    }
    assert_non_null(strstr(page, "\nprocess_resident_memory_bytes "));
    free(page);
    tear_down(f);
}

static unsigned count_aside(const struct fake *f)
{
    char *dir = mode_path_join(f->root, "commits");
    DIR *d = opendir(dir);
    unsigned n = 0;
    for (struct dirent *e; (e = readdir(d));) n += strstr(e->d_name, ".damaged-") != NULL;
    closedir(d);
    free(dir);
    return n;
}

/* A byte of a blob turns in mid-run: whoever made it makes it again, what needs it waits, and nothing else is redone. */
static void test_a_damaged_blob_is_made_again(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    char *text = spec_text("flip", "paper", "1e-3"), *other = spec_text("flip", "uniform", "1e-3");
    f->flip = "captions/0001";
    f->lose = "assign/0002"; /* which the experts and the ensemble read */
    assert_true(submit(f, text));
    work(f, &s, "flip", SHARDS + 1);
    f->flip = "train/seed"; /* read by dense, experts and evaluations */
    work(f, &s, "flip", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    assert_int_equal(s.done, ALL);
    assert_true(f->n_bad >= 3);
    assert_int_equal(f->executed, ALL + 3);
    assert_int_equal(count_aside(f), 3);
    assert_true(has_note(f, "captions/0001 is damaged or gone: it is made again; its commit record was put aside as "));

    f->flip = "ensemble"; /* nobody but the end of the run looks at this one */
    assert_true(submit(f, other));
    work(f, &s, "flip", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    assert_int_equal(f->executed, ALL + 5);

    assert_true(submit(f, text)); /* what was made again is found again */
    work(f, &s, "flip", UINT32_MAX);
    assert_int_equal(s.cached, ALL);
    assert_int_equal(f->executed, ALL + 5);
    free(text);
    free(other);
    tear_down(f);
}

static void test_a_nearly_full_disk_pauses(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    int status;
    char *text = spec_text("full", "paper", "1e-3"), *disk = mode_path_join(f->root, "disk");
    write_file(f->root, "disk", "1000");
    f->http_port = free_port();
    stop(&f->coordinator, SIGKILL, &status);
    start_coordinator(f);
    assert_true(submit(f, text));
    work_a_while(f, 1500);
    assert_int_equal(f->executed, 0);
    assert_true(has_note(f, "the workspace's disk has 1000 bytes free, at least 104857600 are wanted"));
    char *page = http_get(f->http_port, "/readyz");
    assert_non_null(strstr(page, "503"));
    assert_non_null(strstr(page, "not ready: the workspace's disk has 1000 bytes free"));
    free(page);
    page = http_get(f->http_port, "/metrics");
    assert_non_null(strstr(page, "\nmode_disk_free_bytes "));
    assert_non_null(strstr(page, "\nmode_disk_floor_bytes 104857600\n"));
    free(page);
    page = http_get(f->http_port, "/status");
    assert_non_null(strstr(page, "\"paused\": \"the workspace's disk has 1000 bytes free"));
    free(page);
    write_file(f->root, "disk", "110000000"); /* over the floor, but not by enough to begin again */
    work_a_while(f, 1500);
    assert_int_equal(f->executed, 0);
    assert_int_equal(unlink(disk), 0);
    work(f, &s, "full", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    assert_true(has_note(f, "the workspace has room again"));
    page = http_get(f->http_port, "/readyz");
    assert_non_null(strstr(page, "200"));
    free(page);
    free(text);
    free(disk);
    tear_down(f);
}

static void age(const struct fake *f, const char *name, time_t when)
{
    char *path = mode_path_join(f->inputs, name);
    const struct timespec t[] = {{.tv_sec = when}, {.tv_sec = when}};
    assert_int_equal(utimensat(AT_FDCWD, path, t, 0), 0);
    free(path);
}

/* Evaluations are given up when all models are trained: the experts are handed over, and the reason is said. */
static void test_trained_models_are_handed_over_all_the_same(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    char *text = spec_text("nine", "paper", "1e-3");
    f->poison = "evaluate/dense/t0";
    assert_true(submit(f, text));
    work(f, &s, "nine", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_FAILED);
    assert_non_null(strstr(s.message, "evaluate/dense/t0"));
    assert_non_null(strstr(s.message, "All models are trained; they are in experts/"));
    expect_file(f, "experts/expert-1/open_clip_model.safetensors");
    free(text);
    tear_down(f);
}

/* What Redis remembers of a run whose folder was removed meanwhile is no one's. */
static void test_a_run_that_was_removed_leaves_nothing_in_redis(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    struct mode_error err = {0};
    int status;
    char *text = spec_text("ten", "paper", "1e-3"), *dir = mode_path_join(f->root, "runs/ten"), *sock, *any;
    assert_int_equal(mode_place_path(&sock, f->root, "redis.sock", &err), MODE_OK);
    any = mode_xasprintf("redis-cli -s %s KEYS 'mode:*:task:*' | grep -q task", sock);
    assert_true(submit(f, text));
    work(f, &s, "ten", 4);
    stop(&f->coordinator, SIGKILL, &status);
    assert_int_equal(system(any), 0);
    assert_int_equal(mode_dir_remove(dir, &err), MODE_OK);
    start_coordinator(f);
    assert_false(has_note(f, "ten"));
    work_a_while(f, 500);
    assert_int_not_equal(system(any), 0);
    free(text);
    free(dir);
    free(sock);
    free(any);
    tear_down(f);
}

/* A task of many GB is submitted: the coordinator says how far it is, answers everybody meanwhile, does its work, and
 * can be stopped. What it has read it knows, in the next spec and after a restart. */
static void test_large_tasks_are_read_beside_all_else(void **state)
{
    (void)state;
    enum { GB = 4, LONG_AGO = 1000000000 };
    struct fake *f = set_up();
    struct summary s;
    int status;
    char *text = spec_text("first", "paper", "1e-3"), *big = spec_text("big", "paper", "1e-3"),
         *other = spec_text("big", "uniform", "1e-3"), *tar = mode_path_join(f->inputs, "tasks/t1/test/0.tar"), key[33];
    assert_true(submit(f, text)); /* is at work */
    assert_int_equal(f->n_asked_again, 0);
    work(f, &s, "first", 2);
    write_file(f->inputs, "tasks/t1/test/0.tar", "");
    assert_int_equal(truncate(tar, (off_t)GB << 30), 0);
    age(f, "tasks/t1/test/0.tar", LONG_AGO);
    age(f, "tasks/t1/test/nshards.txt", LONG_AGO);

    key[0] = '\0';
    struct mode_envelope *answer = ask_submit(f, big, key);
    assert_true(is_reading(f, answer));
    mode_envelope_free(&answer);
    assert_non_null(strstr(f->reading, "the coordinator reads the evaluation tasks: "));
    assert_non_null(strstr(f->reading, " of 4.3 GB"));
    double asked = mode_clock_s();
    look(f, &s, "first");
    if (mode_clock_s() - asked > 1) fail_msg("STATUS was answered after %.1f s", mode_clock_s() - asked);
    unsigned before = f->executed;
    work(f, &s, "first", before + 3); /* what was submitted before goes on */
    stop(&f->coordinator, SIGTERM, &status);
    asked = mode_clock_s() - asked;
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    if (asked > 4) fail_msg("it stopped after %.1f s", asked);

    start_coordinator(f);
    assert_true(submit(f, big)); /* from the beginning */
    assert_true(f->n_asked_again > 0);
    work(f, &s, "big", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    assert_true(submit(f, other));
    assert_int_equal(f->n_asked_again, 0);
    work(f, &s, "big", f->executed);
    stop(&f->coordinator, SIGKILL, &status);
    start_coordinator(f);
    work(f, &s, "big", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    free(text);
    free(big);
    free(other);
    free(tar);
    tear_down(f);
}

/* The machine was started again and its data are not mounted yet: the run waits, says so, and goes on. */
static void test_a_run_waits_for_its_data_after_a_restart(void **state)
{
    (void)state;
    struct fake *f = set_up();
    struct summary s;
    int status;
    char *text = spec_text("away", "paper", "1e-3"), *shards = mode_path_join(f->inputs, "shards"),
         *away = mode_path_join(f->inputs, "elsewhere");
    assert_true(submit(f, text));
    work(f, &s, "away", 4);
    stop(&f->coordinator, SIGKILL, &status);
    assert_int_equal(rename(shards, away), 0);
    start_coordinator(f);
    work_a_while(f, 1500);
    look(f, &s, "away");
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_RUNNING);
    assert_non_null(strstr(s.message, "shards/0.tar"));
    assert_true(has_note(f, "run away waits and looks again every 10 s: "));
    assert_int_equal(rename(away, shards), 0);
    work(f, &s, "away", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    assert_int_equal(s.done, ALL);
    assert_int_equal(f->executed, ALL);
    free(text);
    free(shards);
    free(away);
    tear_down(f);
}

/* A shard that came to a folder in the middle of a run is none of it, restart or not; a new submission has it. */
static void test_shards_that_come_later_are_no_part_of_a_run(void **state)
{
    (void)state;
    enum { MORE = 3 }; /* tasks of a shard: captions, embed, assign */
    struct fake *f = set_up();
    struct summary s;
    int status;
    char *text = spec_text("later", "paper", "1e-3");
    assert_true(submit(f, text));
    work(f, &s, "later", 4);
    stop(&f->coordinator, SIGKILL, &status);
    write_file(f->inputs, "shards/7.tar", "7");
    start_coordinator(f);
    work(f, &s, "later", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    assert_int_equal(s.total, ALL);
    assert_int_equal(f->executed, ALL);
    assert_true(submit(f, text));
    work(f, &s, "later", UINT32_MAX);
    assert_int_equal(s.state, MODE__RUN_STATE__RUN_DONE);
    assert_int_equal(s.total, ALL + MORE);
    assert_int_equal(s.cached, 2 * SHARDS + TASKS); /* captions, embed, words of what was there */
    free(text);
    tear_down(f);
}

static void test_wrong_spec_is_refused_in_a_sentence(void **state)
{
    (void)state;
    struct fake *f = set_up();
    assert_false(submit(f, "name: x\ntrian: {lr: 3}\n"));
    tear_down(f);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--coordinator") == 0) return be_coordinator(argv[2], argv[3]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_run_is_done_once_and_found_again),
        cmocka_unit_test(test_report_says_what_the_run_took),
        cmocka_unit_test(test_killed_coordinator_goes_on),
        cmocka_unit_test(test_redis_killed_and_wiped_costs_nothing),
        cmocka_unit_test(test_bad_input_ends_the_run_with_its_reason),
        cmocka_unit_test(test_a_blind_machine_condemns_nothing),
        cmocka_unit_test(test_a_full_redis_stops_nothing),
        cmocka_unit_test(test_checkpoints_are_swept_at_the_start),
        cmocka_unit_test(test_given_up_is_remembered_over_a_restart),
        cmocka_unit_test(test_workers_are_turned_away_before_the_files_run_out),
        cmocka_unit_test(test_says_for_whom_tasks_wait),
        cmocka_unit_test(test_metrics_show_every_kind_of_worker),
        cmocka_unit_test(test_a_damaged_blob_is_made_again),
        cmocka_unit_test(test_a_nearly_full_disk_pauses),
        cmocka_unit_test(test_trained_models_are_handed_over_all_the_same),
        cmocka_unit_test(test_a_run_that_was_removed_leaves_nothing_in_redis),
        cmocka_unit_test(test_large_tasks_are_read_beside_all_else),
        cmocka_unit_test(test_a_run_waits_for_its_data_after_a_restart),
        cmocka_unit_test(test_shards_that_come_later_are_no_part_of_a_run),
        cmocka_unit_test(test_wrong_spec_is_refused_in_a_sentence),
    };
    cmocka_set_test_filter(argc == 2 ? argv[1] : NULL); /* "*large*": those alone */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
