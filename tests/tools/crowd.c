/* mode-test-crowd - a simulated load of many tasks and workers: tens of thousands of tiny shards, and one process that
 * speaks the protocol of hundreds of workers and commits fake results.
 *
 *     mode-test-crowd shards FROM.tar DIR N      DIR/<i/1000>/<i>.tar: N hard links to one tar
 *     mode-test-crowd encoder DIR                a BERT of two tiny layers (tests/tiny_bert.h)
 *     mode-test-crowd work WORKSPACE KINDS WORKERS SLOTS TASK_MS SECONDS [ENDPOINT KEYS NAME]
 *                                                KINDS: "captions,embed" or "all"; worker i is of kind
 *                                                i modulo their number
 *
 * `work` ends after SECONDS or at SIGTERM, and prints: tasks done by each kind, the least and the most by one worker,
 * heartbeats without a reply within two seconds, and rejected workers. */
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/process.h"
#include "base/rng.h"
#include "base/str.h"
#include "base/version.h"
#include "msg/code_version.h"
#include "msg/place.h"
#include "msg/socket.h"
#include "pipeline/report.h"
#include "service_outputs.h"
#include "store/artifacts.h"
#include "tiny_bert.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include <zmq.h>

enum { MAX_SLOTS = 64, LATE_MS = 2000, WORKERS_A_NET = 256 /* a context of ZeroMQ has 1,023 sockets */ };

static struct mode_error err;

static void must(enum mode_status st)
{
    if (!st) return;
    fprintf(stderr, "mode-test-crowd: %s\n", err.text);
    exit(mode_status_exit_code(st));
}

/* ------------------------------------------------------------------------------------------------- inputs */

static int make_shards(const char *from, const char *dir, long n)
{
    for (long i = 0; i < n; i++) {
        char *folder = mode_xasprintf("%s/%05ld", dir, i / 1000), *path = mode_xasprintf("%s/%07ld.tar", folder, i);
        if (i % 1000 == 0) must(mode_dir_make(folder, &err));
        if (link(from, path) != 0 && errno != EEXIST) {
            fprintf(stderr, "mode-test-crowd: %s: %s\n", path, strerror(errno));
            return 1;
        }
        free(path);
        free(folder);
    }
    return 0;
}

/* ------------------------------------------------------------------------------------------------- workers */

struct held {
    char key[MODE_DIGEST_HEX];
    uint64_t fence;
    uint32_t attempt;
    double done_at;
    bool said; /* the result was sent, but not acknowledged yet */
};

struct member {
    struct mode_socket *socket;
    const char *kind;
    char session[33], name[64];
    struct held held[MAX_SLOTS];
    int n_held;
    bool welcome, refused;
    double beat_at, hello_at, asked_at; /* asked_at: of a heartbeat without a reply; 0 = none */
    uint64_t done;
};

struct crowd {
    struct mode_store *store;
    struct member *member;
    int n, slots;
    double task_s, heartbeat_s;
    uint64_t id, n_late, n_beats, n_lost, n_refused;
    double slowest_s; /* reply to a heartbeat */
    struct mode_rng rng;
};

static void send_to(struct crowd *c, struct member *w, Mode__Envelope *e)
{
    e->session = w->session;
    mode_socket_send(w->socket, NULL, 0, e, &err); /* not connected: the next heartbeat repeats it */
    (void)c;
}

static void say_hello(struct crowd *c, struct member *w, double now)
{
    Mode__Envelope e;
    Mode__Hello h = MODE__HELLO__INIT;
    char code[64];
    Mode__Lease lease[MAX_SLOTS], *held[MAX_SLOTS];
    mode_envelope_init(&e, &c->id, MODE__ENVELOPE__BODY_HELLO);
    for (int i = 0; i < w->n_held; i++) {
        mode__lease__init(&lease[i]);
        lease[i].key = w->held[i].key;
        lease[i].fence = w->held[i].fence;
        held[i] = &lease[i];
    }
    h.held = held;
    h.n_held = (size_t)w->n_held;
    h.session = w->session;
    h.service = (char *)(uintptr_t)w->kind;
    mode_code_version(code, sizeof code, w->kind);
    h.code_version = code;
    h.build = (char *)(uintptr_t)mode_version;
    h.name = w->name;
    h.node = "crowd";
    h.slots = (uint32_t)c->slots;
    h.store_id = (char *)(uintptr_t)mode_store_id(c->store);
    e.hello = &h;
    send_to(c, w, &e);
    w->hello_at = now + 2;
}

static void say_credit(struct crowd *c, struct member *w)
{
    Mode__Envelope e;
    Mode__Credit m = MODE__CREDIT__INIT;
    mode_envelope_init(&e, &c->id, MODE__ENVELOPE__BODY_CREDIT);
    m.n = (uint32_t)(c->slots - w->n_held);
    e.credit = &m;
    send_to(c, w, &e);
}

static void say_progress(struct crowd *c, struct member *w, double now)
{
    Mode__Envelope e;
    Mode__Progress p = MODE__PROGRESS__INIT;
    Mode__TaskProgress task[MAX_SLOTS], *tasks[MAX_SLOTS];
    mode_envelope_init(&e, &c->id, MODE__ENVELOPE__BODY_PROGRESS);
    for (int i = 0; i < w->n_held; i++) {
        mode__task_progress__init(&task[i]);
        task[i].key = w->held[i].key;
        task[i].fence = w->held[i].fence;
        task[i].done = (uint64_t)(1000 * now) & 0xffffff;
        task[i].total = 1 << 24;
        task[i].unit = "captions";
        tasks[i] = &task[i];
    }
    p.tasks = tasks;
    p.n_tasks = (size_t)w->n_held;
    e.progress = &p;
    send_to(c, w, &e);
    c->n_beats++;
    if (w->asked_at <= 0) w->asked_at = now;
}

static void say_result(struct crowd *c, struct member *w, struct held *h)
{
    Mode__Envelope e;
    Mode__Result m = MODE__RESULT__INIT;
    mode_envelope_init(&e, &c->id, MODE__ENVELOPE__BODY_RESULT);
    m.key = h->key;
    m.fence = h->fence;
    m.rows_in = m.rows_out = 10000;
    e.result = &m;
    send_to(c, w, &e);
}

/* A commit record, not synced and without a seal, as in old versions: this tool must be fast, not safe. Files that the
 * coordinator copies for users exist; of the many others only the digests do. */
static void commit(struct crowd *c, struct member *w, const struct held *h)
{
    Mode__Commit m = MODE__COMMIT__INIT;
    Mode__Blob blob[8], *blobs[8];
    Mode__Count reject = MODE__COUNT__INIT, *rejects[] = {&reject};
    char digest[8][MODE_DIGEST_HEX], text[200];
    bool real = strcmp(w->kind, "train") == 0 || strcmp(w->kind, "ensemble") == 0;
    for (const char *const *name = outputs_of(w->kind); *name; name++) {
        size_t n = m.n_outputs++, size;
        mode__blob__init(&blob[n]);
        snprintf(text, sizeof text, strcmp(*name, "summary.json") == 0 ? "{\"%s\": \"%s\"}" : "%s of %s\n%s", *name,
                 h->key, MODE_REPORT_COST_MARK);
        size = strlen(text);
        if (real)
            must(mode_store_put_bytes(c->store, digest[n], text, size, &err));
        else
            mode_digest_bytes(text, size, digest[n]);
        blob[n].name = (char *)(uintptr_t)*name;
        blob[n].digest = digest[n];
        blob[n].size = size;
        blobs[n] = &blob[n];
    }
    m.key = (char *)(uintptr_t)h->key;
    m.service = (char *)(uintptr_t)w->kind;
    m.outputs = blobs;
    m.rows_in = 10000;
    m.rows_out = 9990;
    reject.reason = "no_caption";
    reject.n = 10;
    m.rejects = rejects;
    m.n_rejects = 1;
    m.fence = h->fence;
    m.attempt = h->attempt;
    m.worker = w->name;
    m.seconds = c->task_s;
    m.peak_rss_bytes = 5 << 20;
    m.backend = "cpu-avx2";
    size_t size = mode__commit__get_packed_size(&m);
    uint8_t *data = mode_xmalloc(size);
    mode__commit__pack(&m, data);
    char *temp = mode_xasprintf("%s/tmp/crowd-%ld", mode_store_root(c->store), (long)getpid()),
         *path = mode_xasprintf("%s/commits/%s", mode_store_root(c->store), h->key);
    int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size || close(fd) != 0 || rename(temp, path) != 0) {
        fprintf(stderr, "mode-test-crowd: %s: %s\n", path, strerror(errno));
        exit(1);
    }
    free(path);
    free(temp);
    free(data);
}

static void forget(struct member *w, const char *key, uint64_t fence, struct crowd *c, bool done)
{
    for (int i = 0; i < w->n_held; i++) {
        if (w->held[i].fence != fence || strcmp(w->held[i].key, key) != 0) continue;
        w->held[i] = w->held[--w->n_held];
        if (done)
            w->done++;
        else
            c->n_lost++;
        return;
    }
}

static void on_assign(struct crowd *c, struct member *w, const Mode__Assign *a, double now)
{
    Mode__Envelope e;
    Mode__AssignAck ack = MODE__ASSIGN_ACK__INIT;
    mode_envelope_init(&e, &c->id, MODE__ENVELOPE__BODY_ASSIGN_ACK);
    ack.key = a->key;
    ack.fence = a->fence;
    ack.accepted = w->n_held < c->slots;
    e.assign_ack = &ack;
    send_to(c, w, &e);
    if (!ack.accepted) return;
    struct held *h = &w->held[w->n_held++];
    *h = (struct held){.fence = a->fence, .attempt = a->attempt};
    snprintf(h->key, sizeof h->key, "%s", a->key);
    h->done_at = now + c->task_s * (0.5 + mode_rng_uniform(&c->rng));
}

static void on_message(struct crowd *c, struct member *w, const Mode__Envelope *m, double now)
{
    switch (m->body_case) {
    case MODE__ENVELOPE__BODY_WELCOME:
        w->welcome = true;
        c->heartbeat_s = 1e-3 * m->welcome->heartbeat_ms;
        for (size_t i = 0; i < m->welcome->n_dropped; i++)
            forget(w, m->welcome->dropped[i]->key, m->welcome->dropped[i]->fence, c, false);
        for (int i = 0; i < w->n_held; i++) w->held[i].said = false;
        w->beat_at = now + c->heartbeat_s * mode_rng_uniform(&c->rng);
        w->asked_at = 0;
        say_credit(c, w);
        break;
    case MODE__ENVELOPE__BODY_REJECT:
        if (m->reject->code == MODE__REJECT_CODE__REJECT_UNKNOWN_SESSION) {
            if (w->welcome) w->hello_at = now;
            w->welcome = false;
        } else {
            if (!w->refused) fprintf(stderr, "mode-test-crowd: %s was refused: %s\n", w->name, m->reject->text);
            w->refused = true;
            w->hello_at = now + 1;
            c->n_refused++;
        }
        break;
    case MODE__ENVELOPE__BODY_ASSIGN: on_assign(c, w, m->assign, now); break;
    case MODE__ENVELOPE__BODY_RESULT_ACK:
        forget(w, m->result_ack->key, m->result_ack->fence, c,
               m->result_ack->verdict == MODE__VERDICT__VERDICT_COMMITTED ||
                   m->result_ack->verdict == MODE__VERDICT__VERDICT_ALREADY);
        say_credit(c, w);
        break;
    case MODE__ENVELOPE__BODY_CANCEL: forget(w, m->cancel->key, m->cancel->fence, c, false); break;
    case MODE__ENVELOPE__BODY_PING:
        if (w->asked_at > 0) {
            double took = now - w->asked_at;
            if (took > c->slowest_s) c->slowest_s = took;
            c->n_late += took > 1e-3 * LATE_MS;
        }
        w->asked_at = 0;
        break;
    default: break;
    }
}

static void receive(struct crowd *c, struct member *w, double now)
{
    struct mode_packet p = {0};
    struct mode_envelope *in;
    while (mode_socket_recv(w->socket, &p, &err) == MODE_OK && p.data) {
        must(mode_envelope_unpack(&in, p.data, p.size, MODE_WIRE_WORKER, &err));
        on_message(c, w, in->msg, now);
        mode_envelope_free(&in);
        mode_packet_clear(&p);
    }
}

static void timers(struct crowd *c, struct member *w, double now)
{
    struct mode_error why;
    for (enum mode_link l; (l = mode_socket_link(w->socket, &why)) != MODE_LINK_SAME;) {
        if (l == MODE_LINK_REFUSED && !w->refused) {
            fprintf(stderr, "mode-test-crowd: %s: %s\n", w->name, why.text);
            w->refused = true;
        }
        if (l == MODE_LINK_REFUSED) break;
        if (l == MODE_LINK_DOWN) w->welcome = false;
        if (l == MODE_LINK_UP) w->hello_at = now;
    }
    for (int i = 0; i < w->n_held && w->welcome; i++) {
        struct held *h = &w->held[i];
        if (h->said || now < h->done_at) continue;
        commit(c, w, h);
        say_result(c, w, h);
        h->said = true;
    }
    if (w->welcome && now >= w->beat_at) {
        say_progress(c, w, now);
        say_credit(c, w);
        w->beat_at = now + c->heartbeat_s;
    }
    if (!w->welcome && now >= w->hello_at) say_hello(c, w, now);
}

static volatile sig_atomic_t stop;
static void on_signal(int sig)
{
    (void)sig;
    stop = 1;
}

static void tell(const struct crowd *c, const char *const *kind, int n_kinds)
{
    printf(
        "{\"beats\": %llu, \"late_beats\": %llu, \"slowest_answer_s\": %.3f, \"tasks_lost\": %llu, \"refusals\": %llu",
        (unsigned long long)c->n_beats, (unsigned long long)c->n_late, c->slowest_s, (unsigned long long)c->n_lost,
        (unsigned long long)c->n_refused);
    for (int k = 0; k < n_kinds; k++) {
        uint64_t least = UINT64_MAX, most = 0, all = 0;
        int welcome = 0, of = 0;
        for (int i = k; i < c->n; i += n_kinds) {
            uint64_t d = c->member[i].done;
            least = d < least ? d : least;
            most = d > most ? d : most;
            all += d;
            welcome += c->member[i].welcome;
            of++;
        }
        if (of)
            printf(", \"%s\": {\"workers\": %d, \"welcome\": %d, \"done\": %llu, \"least\": %llu, \"most\": %llu}",
                   kind[k], of, welcome, (unsigned long long)all, (unsigned long long)least, (unsigned long long)most);
    }
    printf("}\n");
}

static int work(int argc, char **argv)
{
    static const char *const all[] = {"captions", "embed", "cluster", "assign", "train", "evaluate", "ensemble"};
    const char *kind[16];
    int n_kinds = 0;
    struct crowd c = {.heartbeat_s = 3, .rng = mode_rng_for(1, MODE_RNG_TEST, 0, 0)};
    struct mode_endpoint at = {.wire = MODE_WIRE_WORKER};
    struct mode_net *net = NULL;
    char *place = NULL, *kinds = mode_xstrdup(argv[3]), *save = NULL;
    if (strcmp(kinds, "all") == 0)
        for (; n_kinds < 7; n_kinds++) kind[n_kinds] = all[n_kinds];
    else
        for (char *k = strtok_r(kinds, ",", &save); k && n_kinds < 16; k = strtok_r(NULL, ",", &save))
            kind[n_kinds++] = k;
    c.n = atoi(argv[4]);
    c.slots = atoi(argv[5]);
    c.task_s = 1e-3 * atof(argv[6]);
    double until = mode_clock_s() + atof(argv[7]);
    MODE_ASSERT(c.slots >= 1 && c.slots <= MAX_SLOTS && n_kinds);
    mode_process_raise_files(); /* half a dozen file descriptors each */
    must(mode_store_open(&c.store, argv[2], &err));
    must(mode_place_endpoint(&place, argv[2], "worker.sock", &err));
    at.endpoint = argc > 8 ? argv[8] : place;
    at.key_dir = argc > 10 ? argv[9] : NULL;
    at.key_name = argc > 10 ? argv[10] : NULL;
    c.member = mode_xcalloc((size_t)c.n, sizeof *c.member);
    int poll = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < c.n; i++) {
        struct member *w = &c.member[i];
        int fd;
        size_t size = sizeof fd;
        w->kind = kind[i % n_kinds];
        snprintf(w->name, sizeof w->name, "%s@crowd/%d.%ld", w->kind, i, (long)getpid());
        snprintf(w->session, sizeof w->session, "%016lx%016x", (unsigned long)getpid(), i);
        if (i % WORKERS_A_NET == 0) must(mode_net_open(&net, &err));
        must(mode_socket_connect(&w->socket, net, &at, &err));
        MODE_ASSERT(zmq_getsockopt(mode_socket_handle(w->socket), ZMQ_FD, &fd, &size) == 0);
        struct epoll_event e = {.events = EPOLLIN | EPOLLET, .data.u32 = (uint32_t)i};
        MODE_ASSERT(epoll_ctl(poll, EPOLL_CTL_ADD, fd, &e) == 0);
    }
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    for (double looked = 0; !stop && mode_clock_s() < until;) {
        struct epoll_event event[256];
        int n = epoll_wait(poll, event, 256, 5);
        double now = mode_clock_s();
        for (int i = 0; i < n; i++) receive(&c, &c.member[event[i].data.u32], now);
        if (now - looked < 0.005) continue;
        looked = now;
        for (int i = 0; i < c.n; i++) {
            receive(&c, &c.member[i], now); /* ZeroMQ's edge-triggered event may have been consumed by a send */
            timers(&c, &c.member[i], now);
        }
    }
    tell(&c, kind, n_kinds);
    fflush(stdout);
    _exit(0); /* as if all were killed */
}

int main(int argc, char **argv)
{
    mode_log_open("crowd");
    mode_log_set_level(MODE_LOG_ERROR);
    if (argc == 5 && strcmp(argv[1], "shards") == 0) return make_shards(argv[2], argv[3], atol(argv[4]));
    if (argc == 3 && strcmp(argv[1], "encoder") == 0) {
        tiny_write(argv[2]);
        return 0;
    }
    if ((argc == 8 || argc == 9 || argc == 11) && strcmp(argv[1], "work") == 0) return work(argc, argv);
    fprintf(stderr, "usage: mode-test-crowd shards|encoder|work ...; see tests/tools/crowd.c\n");
    return 2;
}
