#include "msg/join.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/parallel.h"
#include "base/process.h"
#include "base/str.h"
#include "base/version.h"
#include "msg/beside.h"
#include "msg/code_version.h"
#include "msg/health.h"
#include "msg/machines.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

enum { TICK_MS = 100, MAX_PER_TURN = 256 };
static const double join_again_s = 2, silent_s = 30, complain_s = 30;

struct companion {
    const struct mode_join_config *config;
    struct mode_store *store;
    struct mode_socket *socket;
    char session[33];
    uint64_t counter;
    bool linked, joined;                /* joined: accepted, the leader pings us */
    double join_at, heard, complain_at; /* when next; when last; when next */

    uint64_t fence; /* of the latest task that processes were started for */
    int first;
    pid_t pid[MODE_MOST_GPUS]; /* process first + i; 0 = none */

    int stop_signal;
    double kill_at; /* after the signal */
    double health_at;
    bool done;
    int exit_code;
};

static void fatal(struct companion *c, const struct mode_error *err)
{
    mode_log_failure("fatal", err);
    c->exit_code = mode_status_exit_code(err->status);
    c->done = true;
}

/* ---- saying ---- */

static void say(struct companion *c, Mode__Envelope *e)
{
    struct mode_error err;
    e->session = c->session;
    enum mode_status st = mode_socket_send(c->socket, NULL, 0, e, &err);
    if (st && st != MODE_E_TEMP) mode_log_failure("send_failed", &err);
}

static void say_join(struct companion *c, double now)
{
    const struct mode_join_config *config = c->config;
    Mode__Envelope e;
    Mode__Join j = MODE__JOIN__INIT;
    char code[128];
    mode_envelope_init(&e, &c->counter, MODE__ENVELOPE__BODY_JOIN);
    mode_code_version(code, sizeof code, config->word);
    j.session = c->session;
    j.service = (char *)(uintptr_t)config->word;
    j.code_version = code;
    j.build = (char *)(uintptr_t)mode_version;
    j.name = (char *)(uintptr_t)config->name;
    j.store_id = (char *)(uintptr_t)mode_store_id(c->store);
    j.workspace = (char *)(uintptr_t)mode_store_root(c->store);
    j.gpus = (uint32_t)config->gpus;
    j.device = (char *)(uintptr_t)config->device;
    e.join = &j;
    say(c, &e);
    c->join_at = now + join_again_s;
}

static void say_ping(struct companion *c)
{
    Mode__Envelope e;
    Mode__Ping p = MODE__PING__INIT;
    mode_envelope_init(&e, &c->counter, MODE__ENVELOPE__BODY_PING);
    e.ping = &p;
    say(c, &e);
}

static void say_bye(struct companion *c)
{
    Mode__Envelope e;
    Mode__Bye b = MODE__BYE__INIT;
    mode_envelope_init(&e, &c->counter, MODE__ENVELOPE__BODY_BYE);
    e.bye = &b;
    say(c, &e);
}

/* how: a wait status */
static void say_ended(struct companion *c, uint64_t fence, int rank, int how)
{
    Mode__Envelope e;
    Mode__RankEnded r = MODE__RANK_ENDED__INIT;
    mode_envelope_init(&e, &c->counter, MODE__ENVELOPE__BODY_RANK_ENDED);
    r.fence = fence;
    r.rank = (uint32_t)rank;
    r.has_signal = WIFSIGNALED(how);
    r.signal = r.has_signal ? (uint32_t)WTERMSIG(how) : 0;
    r.has_exit_code = !r.has_signal;
    r.exit_code = r.has_exit_code ? (uint32_t)WEXITSTATUS(how) : 0;
    e.rank_ended = &r;
    say(c, &e);
}

/* ---- processes ---- */

static int n_running(const struct companion *c)
{
    int n = 0;
    for (int i = 0; i < MODE_MOST_GPUS; i++) n += c->pid[i] > 0;
    return n;
}

static void kill_all(struct companion *c)
{
    for (int i = 0; i < MODE_MOST_GPUS; i++)
        if (c->pid[i] > 0) {
            kill(-c->pid[i], SIGKILL);
            kill(c->pid[i], SIGKILL); /* its process group may not exist yet */
        }
}

static void reap(struct companion *c)
{
    for (int i = 0; i < MODE_MOST_GPUS; i++) {
        int how;
        if (c->pid[i] <= 0 || waitpid(c->pid[i], &how, WNOHANG) != c->pid[i]) continue;
        kill(-c->pid[i], SIGKILL); /* remaining processes of its group */
        c->pid[i] = 0;
        if (how)
            mode_log_warn("process_ended", "process=%d %s=%d", c->first + i, WIFSIGNALED(how) ? "signal" : "code",
                          WIFSIGNALED(how) ? WTERMSIG(how) : WEXITSTATUS(how));
        if (c->joined) say_ended(c, c->fence, c->first + i, how);
    }
    if (n_running(c) == 0) mode_parallel_share(1);
}

static void begin(struct companion *c, const Mode__BeginRanks *b)
{
    char place[MODE_MEETING_PLACE];
    const int n = (int)b->n, not_started = W_EXITCODE(mode_status_exit_code(MODE_E_TEMP), 0);
    if (n > c->config->gpus || n_running(c) > 0 || c->stop_signal ||
        !mode_team_place(place, c->config->leader.endpoint, (int)b->port)) {
        mode_log_warn("not_free", "key=%.12s processes=%d this machine cannot start them now", b->key, n);
        for (int i = 0; i < n; i++) say_ended(c, b->fence, (int)b->first + i, not_started);
        return;
    }
    c->fence = b->fence;
    c->first = (int)b->first;
    mode_parallel_share(n);
    const struct mode_beside beside = {.workspace = mode_store_root(c->store),
                                       .backend = b->backend,
                                       .key = b->key,
                                       .fence = b->fence,
                                       .inputs = b->inputs,
                                       .checkpoint = b->checkpoint,
                                       .size = (int)b->size,
                                       .place = place,
                                       .secret = b->secret.data,
                                       .threads = mode_parallel_threads(),
                                       .apart = true};
    mode_log_info("task_start", "key=%.12s processes=%d..%d of=%d checkpoint=%d", b->key, c->first, c->first + n - 1,
                  (int)b->size, b->checkpoint != NULL);
    for (int i = 0; i < n; i++) {
        if ((c->pid[i] = mode_beside_start(&beside, c->first + i, i)) > 0) continue;
        mode_log_error("process_not_started", "process=%d %s", c->first + i, strerror(errno));
        c->pid[i] = 0;
        say_ended(c, c->fence, c->first + i, not_started);
    }
}

/* ---- hearing ---- */

/* The leader is lost: running processes have lost their process 0. */
static void leader_gone(struct companion *c, double now)
{
    if (c->joined)
        mode_log_warn("leader_gone", "leader=%s processes_ended=%d", c->config->leader.endpoint, n_running(c));
    c->joined = false;
    c->join_at = now;
    c->complain_at = now + complain_s;
    kill_all(c);
}

static void on_reject(struct companion *c, const Mode__Reject *r, double now)
{
    struct mode_error err;
    switch (r->code) {
    case MODE__REJECT_CODE__REJECT_VERSION:
    case MODE__REJECT_CODE__REJECT_STORE:
    case MODE__REJECT_CODE__REJECT_CODE:
    case MODE__REJECT_CODE__REJECT_PERMISSION:
        MODE_FAIL(&err, r->code == MODE__REJECT_CODE__REJECT_PERMISSION ? MODE_E_PERM : MODE_E_CONFIG,
                  "the leader rejected this machine: %s", r->text);
        fatal(c, &err);
        return;
    default: /* a dead session may still hold our place */
        if (now < c->complain_at) return;
        mode_log_warn("rejected", "%s", r->text);
        c->complain_at = now + complain_s;
    }
}

static void on_message(struct companion *c, const Mode__Envelope *e, double now)
{
    if (e->body_case == MODE__ENVELOPE__BODY_REJECT) {
        on_reject(c, e->reject, now);
        return;
    }
    if (!c->joined) {
        mode_log_info("joined", "leader=%s", c->config->leader.endpoint);
        c->joined = true;
    }
    c->heard = now;
    switch (e->body_case) {
    case MODE__ENVELOPE__BODY_PING: say_ping(c); break;
    case MODE__ENVELOPE__BODY_BEGIN_RANKS: begin(c, e->begin_ranks); break;
    case MODE__ENVELOPE__BODY_END_RANKS: kill_all(c); break;
    default: break;
    }
}

static void receive(struct companion *c, double now)
{
    for (int i = 0; i < MAX_PER_TURN && !c->done; i++) {
        struct mode_packet p;
        struct mode_envelope *in;
        struct mode_error err;
        if (mode_socket_recv(c->socket, &p, &err)) {
            fatal(c, &err);
            return;
        }
        if (!p.data) return;
        enum mode_status st = mode_envelope_unpack(&in, p.data, p.size, MODE_WIRE_WORKER, &err);
        if (!st) {
            on_message(c, in->msg, now);
            mode_envelope_free(&in);
        } else if (st == MODE_E_CONFIG)
            fatal(c, &err);
        else
            mode_log_failure("bad_message", &err);
        mode_packet_clear(&p);
    }
}

static void watch_link(struct companion *c, double now)
{
    struct mode_error err;
    for (int i = 0; i < MAX_PER_TURN; i++) switch (mode_socket_link(c->socket, &err)) {
        case MODE_LINK_SAME: return;
        case MODE_LINK_UP:
            leader_gone(c, now); /* end the processes of an earlier leader */
            c->linked = true;
            break;
        case MODE_LINK_DOWN:
            leader_gone(c, now);
            c->linked = false;
            break;
        case MODE_LINK_REFUSED: fatal(c, &err); return;
        }
}

/* ---- time ---- */

static void on_signal(struct companion *c, double now)
{
    struct signalfd_siginfo info;
    while (read(c->config->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        c->done = c->stop_signal != 0; /* the second one */
        c->stop_signal = (int)info.ssi_signo;
        c->exit_code = 128 + c->stop_signal;
        c->kill_at = now + c->config->grace_s;
        if (c->joined) say_bye(c);
        mode_log_info("stopping", "signal=%d processes=%d grace_s=%.0f", c->stop_signal, n_running(c),
                      c->config->grace_s);
    }
}

static void on_timers(struct companion *c, double now)
{
    if (c->joined && now - c->heard > silent_s) leader_gone(c, now);
    /* processes of an earlier task must have ended before joining again */
    if (c->linked && !c->joined && !c->stop_signal && n_running(c) == 0 && now >= c->join_at) say_join(c, now);
    if (!c->joined && now >= c->complain_at) {
        mode_log_warn("waiting", "leader=%s %s", c->config->leader.endpoint,
                      c->linked ? "connected, it has not accepted this machine yet"
                                : "not reachable yet; trying again");
        c->complain_at = now + complain_s;
    }
    if (c->config->health_file && now >= c->health_at) {
        mode_health_write(c->config->health_file, c->joined, n_running(c) > 0);
        c->health_at = now + MODE_HEALTH_S;
    }
    if (!c->stop_signal) return;
    if (now >= c->kill_at) kill_all(c);
    c->done |= n_running(c) == 0;
}

static void turn(struct companion *c)
{
    zmq_pollitem_t items[] = {{mode_socket_handle(c->socket), 0, ZMQ_POLLIN, 0},
                              {mode_socket_monitor(c->socket), 0, ZMQ_POLLIN, 0},
                              {NULL, c->config->signal_fd, ZMQ_POLLIN, 0}};
    if (zmq_poll(items, 3, TICK_MS) < 0 && zmq_errno() != EINTR) {
        struct mode_error err;
        MODE_FAIL(&err, MODE_E_IO, "waiting for messages failed: %s", zmq_strerror(zmq_errno()));
        fatal(c, &err);
        return;
    }
    const double now = mode_clock_s();
    on_signal(c, now);
    watch_link(c, now);
    if (!c->done) receive(c, now);
    reap(c);
    if (!c->done) on_timers(c, now);
}

int mode_join_run(const struct mode_join_config *config, struct mode_store *store, struct mode_net *net)
{
    struct mode_error err = {0};
    uint8_t raw[16];
    struct companion *c = mode_xcalloc(1, sizeof *c);
    c->config = config;
    c->store = store;
    MODE_ASSERT(getrandom(raw, sizeof raw, 0) == (ssize_t)sizeof raw);
    for (int i = 0; i < 16; i++) snprintf(c->session + 2 * i, 3, "%02x", raw[i]);
    if (config->threads > 0) mode_parallel_set_threads(config->threads);
    c->complain_at = mode_clock_s() + 5;
    enum mode_status st = mode_socket_connect(&c->socket, net, &config->leader, &err);
    if (st)
        fatal(c, &err);
    else
        mode_log_info("ready", "name=%s leader=%s workspace=%s gpus=%d device=\"%s\" version=%s session=%.8s",
                      config->name, config->leader.endpoint, mode_store_root(store), config->gpus, config->device,
                      mode_version, c->session);
    while (!c->done) turn(c);
    kill_all(c); /* the kernel would, too */
    if (config->health_file) unlink(config->health_file);
    mode_socket_close(&c->socket);
    const int code = c->exit_code;
    mode_log_info("exit", "code=%d", code);
    free(c);
    return code;
}
