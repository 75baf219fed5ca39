#include "server.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/process.h"
#include "base/str.h"
#include "msg/place.h"
#include "msg/runtime.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#define MESSAGES_A_TURN    256
#define FIRST_REDIS_WAIT_S 3.0
#define SWEEP_MS           3600000
#define BAD_TOLD_MS        10000
#define LEFTOVER_S         (24 * 3600)
#define START_WAIT_S       60 /* for plans of unfinished runs; then runs with a plan continue */
#define START_LOOK_MS      200
#define HANDOVER_S         0.05 /* at most per turn: a large run must not block everything else */

int64_t server_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void server_note(struct server *s, const char *level, const char *event, const char *fmt, ...)
{
    struct server_note *n = &s->note[s->n_notes++ % SERVER_NOTES];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(n->text, sizeof n->text, fmt, ap);
    va_end(ap);
    mode_wire_text(n->text);
    n->unix_ms = mode_clock_wall_ms();
    n->level = level;
    n->event = event;
    mode_log_write(strcmp(level, "warn") == 0 ? MODE_LOG_WARN : MODE_LOG_INFO, event, "%s", n->text);
}

/* ---------------------------------------------------------------------------------------------- actions */

static void queue_move(struct server *s, const struct core_action *a)
{
    const struct core_task *task = &s->core.task[a->task];
    int64_t wall = mode_clock_wall_ms();
    struct redis_move move = {.task = task, .state = a->state, .session = a->session};
    if (a->state == CORE_LEASED) move.until_unix_ms = wall + s->core.opt.lease_ms;
    if (a->state == CORE_RETRY_WAIT) move.until_unix_ms = wall + task->not_before_ms - server_now_ms();
    redis_move(s->redis, s->epoch, &move);
    s->n_recorded++;
}

/* One round over the pending actions. Checks are answered and transitions recorded before anything is sent: no task is
 * handed out unrecorded. */
static void settle_round(struct server *s)
{
    struct core *c = &s->core;
    for (size_t i = 0; i < c->n_actions; i++) {
        if (c->action[i].type != CORE_ACT_CHECK) continue;
        struct core_action a = c->action[i];
        core_handle(c,
                    &(struct core_event){.type = CORE_EV_CHECKED,
                                         .key = a.key,
                                         .fence = a.fence,
                                         .session = a.session,
                                         .ok = mode_store_commit_exists(s->store, a.key)},
                    server_now_ms());
    }
    size_t n = c->n_actions, n_moves = 0;
    struct core_action *action = c->action;
    c->action = NULL; /* executing them may add new ones, for the next round */
    c->n_actions = c->cap_actions = 0;
    bool *ok = mode_xcalloc(n + 1, sizeof *ok);
    size_t n_refused = 0;
    struct mode_error err = {0};
    bool up = redis_is_up(s->redis) && s->redis_seen;
    for (size_t i = 0; i < n && up; i++)
        if (action[i].type == CORE_ACT_CLAIM || action[i].type == CORE_ACT_RECORD) {
            queue_move(s, &action[i]);
            n_moves++;
        }
    if (n_moves && redis_flush(s->redis, ok, &n_refused, &s->stale, &err)) {
        server_redis_away(s, &err);
        up = false;
    }
    if (n_refused) {
        s->n_refused += n_refused;
        if (!s->stale) { /* Redis and the core disagree: rewrite everything at once */
            snprintf(err.text, sizeof err.text, "Redis refused %zu transitions", n_refused);
            server_redis_away(s, &err);
            s->redis_retry_ms = 0;
        }
    }
    for (size_t i = 0, move = 0; i < n; i++) {
        const struct core_action *a = &action[i];
        bool recorded = false;
        if (up && (a->type == CORE_ACT_CLAIM || a->type == CORE_ACT_RECORD)) recorded = ok[move++];
        switch (a->type) {
        case CORE_ACT_CLAIM:
            if (recorded && !s->stale && server_send_assign(s, a)) {
                s->n_handouts++;
            } else {
                core_handle(c, &(struct core_event){.type = CORE_EV_CLAIM_LOST, .key = a->key, .fence = a->fence},
                            server_now_ms());
            }
            break;
        case CORE_ACT_ENDED: runs_ended(&s->runs, a->task, server_now_ms()); break;
        case CORE_ACT_NOTE: server_note(s, "warn", "task", "%s", a->text); break;
        case CORE_ACT_RECORD:
        case CORE_ACT_CHECK: break;
        default: server_send_action(s, a); break;
        }
    }
    free(ok);
    free(action);
}

void server_settle(struct server *s)
{
    do {
        s->more = runs_advance(&s->runs, server_restore, s, server_now_ms(), s->turn_until_s);
        if (s->core.n_actions) settle_round(s);
    } while (s->core.n_actions && !s->stale);
}

void server_event(struct server *s, const struct core_event *e)
{
    core_handle(&s->core, e, server_now_ms());
    server_settle(s);
}

/* ---------------------------------------------------------------------------------------------- life */

static bool is_tcp(const char *endpoint)
{
    return endpoint && strncmp(endpoint, "tcp:", 4) == 0;
}

static enum mode_status bind_one(struct mode_socket **out, struct server *s, const struct server_options *o,
                                 const char *given, const char *name, enum mode_wire wire, struct mode_error *err)
{
    char *endpoint = NULL;
    enum mode_status st = MODE_OK;
    if (given && *given)
        endpoint = mode_xstrdup(given);
    else
        st = mode_place_endpoint(&endpoint, o->workspace, name, err);
    bool tcp = is_tcp(endpoint);
    struct mode_endpoint e = {
        .endpoint = endpoint, .wire = wire, .key_dir = tcp ? o->key_dir : NULL, .key_name = "server"};
    if (!st) st = mode_socket_bind(out, s->net, &e, err);
    if (!st && tcp) st = mode_socket_self_test(*out, err);
    free(endpoint);
    return st;
}

static enum mode_status first_redis(struct server *s, const struct server_options *o, struct mode_error *err)
{
    char *path = NULL, *url = NULL;
    enum mode_status st = MODE_OK;
    if (o->redis_url && *o->redis_url) {
        url = mode_xstrdup(o->redis_url);
    } else if (!(st = mode_place_path(&path, o->workspace, "redis.sock", err))) {
        url = mode_xasprintf("unix://%s", path);
    }
    if (!st) st = redis_open(&s->redis, url, mode_store_id(s->store), err);
    free(path);
    free(url);
    if (st) return st;
    struct mode_error problem = {0};
    bool fresh;
    double until = mode_clock_s() + FIRST_REDIS_WAIT_S;
    while ((st = redis_connect(s->redis, &fresh, &problem)) == MODE_E_PEER && mode_clock_s() < until)
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    if (st == MODE_E_CONFIG) { /* too old, wrong password: waiting does not help */
        *err = problem;
        return st;
    }
    if (st) server_redis_away(s, &problem);
    return MODE_OK;
}

/* A TCP port without a list would accept everyone who knows our public key. */
static enum mode_status first_allow_list(struct server *s, const struct server_options *o, struct mode_error *err)
{
    if (o->allow_list && *o->allow_list)
        s->allow_list = mode_xstrdup(o->allow_list);
    else if (o->key_dir && *o->key_dir && (is_tcp(o->worker_endpoint) || is_tcp(o->admin_endpoint)))
        s->allow_list = mode_path_join(o->key_dir, "allow");
    return s->allow_list ? mode_net_allow(s->net, s->allow_list, err) : MODE_OK;
}

static bool is_wanted(void *server, const char *key)
{
    const struct core *c = &((struct server *)server)->core;
    uint32_t t = core_find_task(c, key);
    return t != CORE_NONE && c->task[t].wanted > 0;
}

/* A training may run for days and write to its folder only at the end. */
static bool is_in_work(void *server, const char *name)
{
    const struct core *c = &((struct server *)server)->core;
    uint64_t fence = mode_job_folder_fence(name);
    for (uint32_t i = 0; fence && i < c->n_active; i++) {
        const struct core_task *t = &c->task[c->active[i]];
        if (t->state == CORE_LEASED && t->fence == fence) return true;
    }
    return false;
}

/* Removes only what is not in use: checkpoints of committed tasks are never read again, and for tasks that no run needs
 * no worker has a lease. What cannot be removed (another user's files, files kept by NFS) is logged and stays. */
static void sweep(struct server *s, int64_t now_ms)
{
    uint64_t n;
    struct mode_error err = {0};
    if (now_ms >= s->sweep_ms && !runs_unplanned(&s->runs)) { /* the needs of unplanned runs are not known yet */
        s->sweep_ms = now_ms + SWEEP_MS;
        if (mode_store_checkpoint_sweep(s->store, &n, is_wanted, s, (uint64_t)s->keep_checkpoints_s, &err))
            mode_log_failure("sweep", &err);
        if (n)
            mode_log_info("swept", "checkpoints of %llu task%s that no run needs any more", (unsigned long long)n,
                          MODE_PLURAL(n));
    }
    if (now_ms >= s->tmp_ms && now_ms >= s->core.returning_ms) { /* by then all workers have reported their leases */
        s->tmp_ms = now_ms + SWEEP_MS;
        if (mode_store_sweep_tmp(s->store, LEFTOVER_S, &n, is_in_work, s, &err)) mode_log_failure("sweep", &err);
        if (n) mode_log_info("swept", "%llu leftovers of processes that are gone", (unsigned long long)n);
    }
}

void server_bad_message(struct server *s, const char *port, const char *key, const char *why)
{
    s->n_bad_messages++;
    if (server_now_ms() < s->bad_told_ms) return; /* rate limit */
    s->bad_told_ms = server_now_ms() + BAD_TOLD_MS;
    mode_log_warn("bad_message", "port=%s key=%s all=%llu %s", port, key, (unsigned long long)s->n_bad_messages, why);
}

/* On SIGHUP. If the list cannot be read, the old one stays in force. */
static void read_allow_list_again(struct server *s)
{
    struct mode_error err = {0};
    if (!s->allow_list) return;
    if (mode_net_allow(s->net, s->allow_list, &err)) {
        mode_log_failure("allow_list", &err);
        return;
    }
    s->keys_changed = true;
    server_note(s, "info", "allow_list", "%s was read again", s->allow_list);
}

/* Workers of the previous coordinator may reconnect with their leases. */
static void let_workers_return(struct server *s)
{
    struct mode_error ignored = {0};
    bool remembered = false;
    if (redis_is_up(s->redis) && redis_remembers(s->redis, &remembered, &ignored)) remembered = false;
    core_returning(&s->core, remembered, server_now_ms());
    if (!remembered)
        server_note(s, "info", "returning",
                    "Redis does not know what workers hold: nothing is handed out for %u s, so that they can report it",
                    s->core.opt.return_ms / 1000);
}

static bool is_task(void *server, const char *key)
{
    return core_find_task(&((struct server *)server)->core, key) != CORE_NONE;
}

/* Removes tasks from Redis that no unfinished run has any more: another version plans other tasks, or a run's folder
 * was removed meanwhile. */
static void forget_others(struct server *s)
{
    struct mode_error err = {0};
    uint64_t n;
    bool all = redis_is_up(s->redis) && s->redis_seen;
    for (size_t i = 0; i < s->runs.n; i++)
        all &= s->runs.run[i]->state != MODE__RUN_STATE__RUN_RUNNING || !s->runs.run[i]->restore;
    if (!all) return; /* at the next start */
    if (redis_forget(s->redis, s->epoch, is_task, s, &n, &err)) server_redis_away(s, &err);
    if (n)
        mode_log_info("forgotten", "Redis remembered %llu task%s that no run has", (unsigned long long)n,
                      MODE_PLURAL(n));
}

/* The unfinished runs have plans: writes the whole state to Redis and begins to serve workers. Runs whose inputs take
 * longer continue later, but leases of their workers are lost then. */
static enum mode_status end_start(struct server *s, struct mode_error *err)
{
    const bool all = !runs_planning(&s->runs) && !s->more;
    if (!all && mode_clock_s() < s->start_until_s) return MODE_OK;
    s->starting = false;
    runs_save_plans(&s->runs, false);
    if (s->core.n_tasks || runs_unplanned(&s->runs)) let_workers_return(s);
    enum mode_status st = server_redis_tick(s, server_now_ms(), err);
    if (!st) forget_others(s);
    if (!st)
        mode_log_info("ready", "epoch=%llu workers=%s admin=%s runs=%zu tasks=%u", (unsigned long long)s->epoch,
                      mode_socket_endpoint(s->workers), mode_socket_endpoint(s->admins), s->runs.n, s->core.n_tasks);
    return st;
}

enum mode_status server_open(struct server *s, const struct server_options *o, struct mode_error *err)
{
    enum mode_status st;
    struct core_options options = CORE_OPTIONS_DEFAULT;
    *s = (struct server){.http_fd = -1, .started_s = mode_clock_s(), .keep_checkpoints_s = o->keep_checkpoints_s};
    s->min_free_mib = o->min_free_mib;
    s->look_at_disk = o->look_at_disk;
    signal(SIGPIPE, SIG_IGN); /* a lost peer is an error, not a reason to die */
    signal(SIGHUP, SIG_IGN);  /* until there is a list to reread */
    s->most_files = mode_process_raise_files();
    options.heartbeat_ms = (uint32_t)o->heartbeat_ms;
    options.lease_ms = (uint32_t)o->lease_ms;
    if ((st = mode_store_open(&s->store, o->workspace, err))) return st;
    if ((st = mode_place_make(o->workspace, err))) return st;
    if ((st = mode_net_open(&s->net, err))) return st;
    if ((st = first_allow_list(s, o, err))) return st;
    /* the worker port is also the lock: a second coordinator of this workspace fails here, before it takes an epoch */
    if ((st = bind_one(&s->workers, s, o, o->worker_endpoint, "worker.sock", MODE_WIRE_WORKER, err))) return st;
    if ((st = bind_one(&s->admins, s, o, o->admin_endpoint, "admin.sock", MODE_WIRE_ADMIN, err))) return st;
    char nobody[64]; /* discards the rejections caused by the sockets' self-tests */
    s->n_keys_refused = mode_net_refused(s->net, MODE_ROLE_WORKER, nobody);
    if ((st = mode_store_epoch_take(s->store, &s->epoch, err))) return st;
    options.return_ms = (uint32_t)mode_socket_return_ms(s->workers);
    core_init(&s->core, &options, (uint32_t)s->epoch, server_now_ms());
    s->core.dispatch = false;
    if ((st = first_redis(s, o, err))) return st;
    if ((st = runs_load(&s->runs, s->store, &s->core, o->world ? o->world : &server_world, err))) return st;
    s->runs.peaks = &s->peaks;
    if ((st = http_open(s, o->http, err))) return st;
    s->starting = true;
    s->start_until_s = mode_clock_s() + START_WAIT_S;
    return MODE_OK;
}

void server_close(struct server *s)
{
    http_close(s);
    mode_socket_close(&s->workers);
    mode_socket_close(&s->admins);
    mode_net_close(&s->net);
    redis_close(&s->redis);
    const bool all = runs_clear(&s->runs);
    while (s->n_askers) free(s->asker[--s->n_askers].idempotency);
    core_clear(&s->core);
    peaks_clear(&s->peaks);
    if (all) mode_store_close(&s->store);
    free(s->allow_list);
    s->allow_list = NULL;
    free(s->route);
    s->route = NULL;
    free(s->wait);
    s->wait = NULL;
}

bool server_lets_in(const struct server *s, struct mode_socket *port, const struct mode_packet *p)
{
    return !s->keys_changed || mode_packet_allowed(port, p);
}

static enum mode_status receive(struct server *s, struct mode_socket *socket,
                                void (*handle)(struct server *, const struct mode_packet *), uint64_t *count,
                                struct mode_error *err)
{
    for (int i = 0; i < MESSAGES_A_TURN && !s->stale; i++) {
        struct mode_packet p = {0};
        enum mode_status st = mode_socket_recv(socket, &p, err);
        if (st || !p.data) return st;
        ++*count;
        handle(s, &p);
        mode_packet_clear(&p);
    }
    return MODE_OK;
}

/* A handler, not a signal mask: threads made by libraries would not have the mask. */
static volatile sig_atomic_t signal_fd = -1, stop_asked, reload_asked;

static void on_signal(int sig)
{
    uint64_t one = 1;
    int saved = errno;
    if (sig == SIGHUP)
        reload_asked = 1;
    else
        stop_asked = 1;
    if (write(signal_fd, &one, sizeof one) < 0) errno = saved; /* full: already readable */
    errno = saved;
}

/* The next wake-up time of the loop without messages. */
static int64_t next_turn_ms(const struct server *s, int64_t now)
{
    int64_t next = s->starting ? now + START_LOOK_MS : core_next_tick_ms(&s->core, now);
    if (!s->starting && !s->core.dispatch && s->redis_retry_ms < next) next = s->redis_retry_ms;
    if (s->n_askers && next > now + SERVER_SAY_MS) next = now + SERVER_SAY_MS;
    return next;
}

enum mode_status server_run(struct server *s, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    int signals = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (signals < 0) return MODE_FAIL(err, MODE_E_IO, "eventfd: %s", strerror(errno));
    signal_fd = signals;
    stop_asked = reload_asked = 0;
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    while (!s->stop && !st) {
        zmq_pollitem_t item[] = {{.socket = mode_socket_handle(s->workers), .events = ZMQ_POLLIN},
                                 {.socket = mode_socket_handle(s->admins), .events = ZMQ_POLLIN},
                                 {.fd = signals, .events = ZMQ_POLLIN},
                                 {.fd = planner_fd(s->runs.planner), .events = ZMQ_POLLIN},
                                 {.fd = planner_fd(s->runs.writer), .events = ZMQ_POLLIN},
                                 {.fd = planner_fd(s->runs.checker), .events = ZMQ_POLLIN},
                                 {.fd = s->http_fd, .events = ZMQ_POLLIN}};
        int64_t now = server_now_ms(), next = s->more ? now : next_turn_ms(s, now);
        if (s->starting) item[0].events = 0;
        if (zmq_poll(item, s->http_fd >= 0 ? 7 : 6, next > now ? (long)(next - now) : 0) < 0 && errno != EINTR) {
            st = MODE_FAIL(err, MODE_E_IO, "zmq_poll: %s", zmq_strerror(errno));
            break;
        }
        s->turn_until_s = mode_clock_s() + HANDOVER_S;
        uint64_t asked;
        if (read(signals, &asked, sizeof asked) == (ssize_t)sizeof asked) {
            if (stop_asked) s->stop = true;
            if (reload_asked) {
                reload_asked = 0;
                read_allow_list_again(s);
            }
        }
        server_watch_disk(s, server_now_ms());
        server_planned(s);
        if (!s->starting) {
            server_event(s, &(struct core_event){.type = CORE_EV_TICK});
            st = receive(s, s->workers, server_worker_message, &s->n_messages[0], err);
        }
        if (!st) st = receive(s, s->admins, server_admin_message, &s->n_messages[1], err);
        if (!st && !s->starting) st = server_redis_tick(s, server_now_ms(), err);
        server_settle(s);
        http_run(s);
        if (!st && s->starting) st = end_start(s, err);
        if (s->starting) continue;
        sweep(s, server_now_ms());
        server_watch_waits(s, server_now_ms());
        if (!st && s->stale)
            st = MODE_FAIL(err, MODE_E_TEMP, "another coordinator has taken over this workspace (its epoch is higher)");
    }
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    signal(SIGHUP, SIG_IGN);
    signal_fd = -1;
    close(signals);
    if (!st) runs_save_plans(&s->runs, true);
    if (!st)
        mode_log_info("stopped", "epoch=%llu handouts=%llu", (unsigned long long)s->epoch,
                      (unsigned long long)s->n_handouts);
    return st;
}
