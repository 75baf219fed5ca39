#include "msg/machines.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "base/version.h"
#include "msg/address.h"
#include "msg/code_version.h"

#include <inttypes.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

enum { MAX_PER_TURN = 256, MAX_NEWS = 512, SESSION = 33, DEVICE = 200 };
static const double ping_s = 1, silent_s = 30, complain_s = 30;

struct machine { /* another machine; here false: missing */
    bool here, leaving;
    char session[SESSION], name[MODE_MACHINE_NAME], device[DEVICE];
    uint8_t route[256];
    size_t n_route;
    int gpus;
    double heard, ping_at;
    int first, n_running; /* of the task: its first rank, and how many have not ended yet */
};

struct mode_machines {
    const struct mode_machines_config *config;
    struct mode_net *net;
    struct mode_socket *socket;
    bool keys_changed; /* since it listens */
    char place[MODE_MEETING_PLACE];
    struct machine *at; /* [n] */
    int n;              /* the others */
    uint64_t counter;   /* of messages */
    char key[MODE_DIGEST_HEX];
    uint64_t fence; /* of the task that they are lent to; 0: none */
    struct mode_compute_news news[MAX_NEWS];
    int n_news, n_told; /* of this task */
    double complain_at;
};

/* ---- places ---- */

static int port_of(const char *endpoint)
{
    return atoi(strrchr(endpoint, ':') + 1);
}

bool mode_team_place(char place[MODE_MEETING_PLACE], const char *endpoint, int port)
{
    const char *host = endpoint + strlen("tcp://"), *colon = strrchr(host, ':');
    int n = (int)(colon - host);
    if (n == 1 && *host == '*') {
        host = "0.0.0.0";
        n = (int)strlen(host);
    } else if (n > 2 && *host == '[') { /* of IPv6 */
        host++;
        n -= 2;
    }
    return snprintf(place, MODE_MEETING_PLACE, "%.*s:%d", n, host, port ? port : port_of(endpoint) + 1) <
           MODE_MEETING_PLACE;
}

enum mode_status mode_team_check(const char *endpoint, bool listens, struct mode_error *err)
{
    char place[MODE_MEETING_PLACE];
    enum mode_status st = mode_endpoint_check(endpoint, false, err); /* a fixed port */
    if (!st && strncmp(endpoint, "tcp:", 4) != 0)
        st = MODE_FAIL(err, MODE_E_CONFIG, "\"%s\": machines meet at tcp://host:port", endpoint);
    if (!st && (port_of(endpoint) > 65534 || !mode_team_place(place, endpoint, 0)))
        st = MODE_FAIL(err, MODE_E_CONFIG,
                       "\"%s\": expected a host and a port below 65535, because the next port is used too", endpoint);
    if (st || !listens) return st; /* on other machines the name may become resolvable later */
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = NULL;
    *strrchr(place, ':') = '\0';
    int rc = getaddrinfo(place, NULL, &hints, &found);
    if (rc) return MODE_FAIL(err, MODE_E_CONFIG, "\"%s\": its host cannot be found: %s", endpoint, gai_strerror(rc));
    freeaddrinfo(found);
    return MODE_OK;
}

/* ---- saying ---- */

static bool say(struct mode_machines *m, const uint8_t *route, size_t n_route, const Mode__Envelope *e)
{
    struct mode_error err;
    enum mode_status st = mode_socket_send(m->socket, route, n_route, e, &err);
    if (st && st != MODE_E_TEMP) mode_log_failure("send_failed", &err);
    return st == MODE_OK;
}

static bool ping(struct mode_machines *m, struct machine *x, double now)
{
    Mode__Envelope e;
    Mode__Ping p = MODE__PING__INIT;
    mode_envelope_init(&e, &m->counter, MODE__ENVELOPE__BODY_PING);
    e.ping = &p;
    x->ping_at = now + ping_s;
    return say(m, x->route, x->n_route, &e);
}

static void say_end(struct mode_machines *m, const struct machine *x)
{
    Mode__Envelope e;
    Mode__EndRanks end = MODE__END_RANKS__INIT;
    mode_envelope_init(&e, &m->counter, MODE__ENVELOPE__BODY_END_RANKS);
    e.end_ranks = &end;
    (void)say(m, x->route, x->n_route, &e);
}

static void reject(struct mode_machines *m, const struct mode_packet *p, Mode__RejectCode code, const char *text)
{
    Mode__Envelope e;
    Mode__Reject r = MODE__REJECT__INIT;
    mode_envelope_init(&e, &m->counter, MODE__ENVELOPE__BODY_REJECT);
    r.code = code;
    r.text = (char *)(uintptr_t)text;
    e.reject = &r;
    (void)say(m, p->route, p->n_route, &e);
}

/* ---- who is there ---- */

static void add_news(struct mode_machines *m, const struct mode_compute_news *news)
{
    if (!m->fence || m->n_news == MAX_NEWS) return; /* cannot happen: a team has fewer processes */
    m->news[m->n_news] = *news;
    m->news[m->n_news++].fence = m->fence;
}

static void let_go(struct mode_machines *m, struct machine *x, const char *why)
{
    mode_log_warn("machine_gone", "name=%s %s", x->name, why);
    if (x->n_running) add_news(m, &(struct mode_compute_news){.rank = x->first, .gone = true});
    *x = (struct machine){0};
    m->complain_at = mode_clock_s() + complain_s;
}

static int n_missing(const struct mode_machines *m)
{
    int n = 0;
    for (int i = 0; i < m->n; i++) n += !m->at[i].here;
    return n;
}

bool mode_machines_ready(const struct mode_machines *m)
{
    for (int i = 0; i < m->n; i++)
        if (!m->at[i].here || m->at[i].leaving || m->at[i].n_running) return false;
    return !m->fence;
}

void mode_machines_text(const struct mode_machines *m, char *text, size_t size)
{
    int gpus = m->config->gpus, missing = n_missing(m);
    for (int i = 0; i < m->n; i++) gpus += m->at[i].gpus;
    if (missing)
        snprintf(text, size, "%d machines, %d missing", m->n + 1, missing);
    else
        snprintf(text, size, "%d machines, %d GPUs", m->n + 1, gpus);
}

bool mode_machines_leaving(const struct mode_machines *m)
{
    for (int i = 0; i < m->n; i++)
        if (m->at[i].leaving && m->at[i].n_running) return true;
    return false;
}

/* ---- hearing ---- */

/* Checks that its processes and ours can train one model. */
static Mode__RejectCode is_unfit(const struct mode_machines *m, const Mode__Join *j, char *why, size_t size)
{
    const struct mode_machines_config *c = m->config;
    char code[128];
    mode_code_version(code, sizeof code, c->word);
    if (strcmp(j->service, c->word) != 0 || strcmp(j->code_version, code) != 0 || strcmp(j->build, mode_version) != 0) {
        snprintf(why, size,
                 "this is %.32s of version %.32s, whose outputs are %.64s; the leader is %s of version %s, whose "
                 "outputs are %.64s. HINT: machines of one team run the same program; update the older one",
                 j->service, j->build, j->code_version, c->word, mode_version, code);
        return MODE__REJECT_CODE__REJECT_CODE;
    }
    if (strcmp(j->store_id, c->store_id) != 0) {
        snprintf(why, size, "your workspace is another store (%.12s...) than the leader's (%.12s...)", j->store_id,
                 c->store_id);
        return MODE__REJECT_CODE__REJECT_STORE;
    }
    if (strcmp(j->workspace, c->workspace) != 0) {
        snprintf(
            why, size,
            "the workspace is %.200s there and %.200s at the leader. HINT: machines of one team see it at the same "
            "path",
            j->workspace, c->workspace);
        return MODE__REJECT_CODE__REJECT_STORE;
    }
    return MODE__REJECT_CODE__REJECT_UNSPECIFIED;
}

static struct machine *of_route(const struct mode_machines *m, const struct mode_packet *p)
{
    for (int i = 0; i < m->n; i++)
        if (m->at[i].here && m->at[i].n_route == p->n_route && memcmp(m->at[i].route, p->route, p->n_route) == 0)
            return &m->at[i];
    return NULL;
}

static struct machine *of_session(const struct mode_machines *m, const char *session)
{
    for (int i = 0; i < m->n; i++)
        if (m->at[i].here && strcmp(m->at[i].session, session) == 0) return &m->at[i];
    return NULL;
}

static void on_join(struct mode_machines *m, const struct mode_packet *p, const Mode__Join *j, double now)
{
    char why[500];
    Mode__RejectCode code = is_unfit(m, j, why, sizeof why);
    struct machine *x = of_session(m, j->session);
    if (code) {
        mode_log_warn("machine_refused", "name=%.64s %s", j->name, why);
        reject(m, p, code, why);
        return;
    }
    if (x && of_route(m, p) == x && !x->n_running) { /* said twice */
        (void)ping(m, x, now);
        return;
    }
    if (x) let_go(m, x, "its connection was lost, and it is back");
    for (int i = 0; i < m->n && !x; i++)
        if (!m->at[i].here) x = &m->at[i];
    if (!x) { /* perhaps one of those is dead but not timed out yet */
        snprintf(why, sizeof why, "the other machines of this team, %d, are all here", m->n);
        reject(m, p, MODE__REJECT_CODE__REJECT_LIMIT, why);
        return;
    }
    *x = (struct machine){.here = true, .gpus = (int)j->gpus, .heard = now};
    snprintf(x->session, sizeof x->session, "%s", j->session);
    snprintf(x->name, sizeof x->name, "%s", j->name);
    snprintf(x->device, sizeof x->device, "%s", j->device ? j->device : "");
    memcpy(x->route, p->route, p->n_route);
    x->n_route = p->n_route;
    mode_log_info("machine", "name=%s gpus=%d device=\"%s\" missing=%d", x->name, x->gpus, x->device, n_missing(m));
    (void)ping(m, x, now);
}

static void on_ended(struct mode_machines *m, struct machine *x, const Mode__RankEnded *r)
{
    if (x->n_running) x->n_running--; /* each is reported once */
    if (r->fence != m->fence) return;
    const int how = r->has_signal ? W_EXITCODE(0, (int)r->signal) : W_EXITCODE((int)r->exit_code, 0);
    add_news(m, &(struct mode_compute_news){.rank = (int)r->rank, .how = how});
}

static void on_message(struct mode_machines *m, const struct mode_packet *p, const Mode__Envelope *e, double now)
{
    struct machine *x = of_route(m, p);
    if (m->keys_changed && !mode_packet_allowed(m->socket, p)) {
        reject(m, p, MODE__REJECT_CODE__REJECT_PERMISSION, "its key was taken out of the allow list");
        if (x) let_go(m, x, "its key was taken out of the allow list");
        return;
    }
    if (e->body_case == MODE__ENVELOPE__BODY_JOIN) {
        on_join(m, p, e->join, now);
        return;
    }
    if (!x) return; /* a dropped one: it will notice that pings stop */
    x->heard = now;
    switch (e->body_case) {
    case MODE__ENVELOPE__BODY_RANK_ENDED: on_ended(m, x, e->rank_ended); break;
    case MODE__ENVELOPE__BODY_BYE:
        mode_log_info("machine_leaves", "name=%s", x->name);
        x->leaving = true;
        if (!x->n_running) let_go(m, x, "it was stopped");
        break;
    default: break;
    }
}

static void receive(struct mode_machines *m, double now)
{
    for (int i = 0; i < MAX_PER_TURN; i++) {
        struct mode_packet p;
        struct mode_envelope *in;
        struct mode_error err;
        if (mode_socket_recv(m->socket, &p, &err)) {
            mode_log_failure("receive_failed", &err);
            return;
        }
        if (!p.data) return;
        enum mode_status st = mode_envelope_unpack(&in, p.data, p.size, MODE_WIRE_WORKER, &err);
        if (st) {
            mode_log_failure("bad_message", &err);
            if (st == MODE_E_CONFIG) reject(m, &p, MODE__REJECT_CODE__REJECT_VERSION, err.text);
        } else {
            on_message(m, &p, in->msg, now);
            mode_envelope_free(&in);
        }
        mode_packet_clear(&p);
    }
}

void mode_machines_turn(struct mode_machines *m, double now)
{
    receive(m, now);
    for (int i = 0; i < m->n; i++) {
        struct machine *x = &m->at[i];
        if (!x->here) continue;
        if (now - x->heard > silent_s)
            let_go(m, x, "nothing was heard from it for 30 s");
        else if (now >= x->ping_at) {
            if (x->n_running && !m->fence) say_end(m, x); /* it may have been lost */
            if (!ping(m, x, now)) let_go(m, x, x->leaving ? "it was stopped" : "its connection was lost");
        }
    }
    if (now < m->complain_at || !n_missing(m)) return;
    mode_log_warn("machines_missing",
                  "%d of the %d machines of this team %s missing: no task is requested. HINT: "
                  "`mode-%s join` on each, with --team and --team-keys",
                  n_missing(m), m->n + 1, n_missing(m) == 1 ? "is" : "are", m->config->word);
    m->complain_at = now + complain_s;
}

/* ---- a task ---- */

static int by_name(const void *a, const void *b)
{
    const struct machine *x = a, *y = b;
    const int c = strcmp(x->name, y->name);
    return c ? c : strcmp(x->session, y->session);
}

void mode_machines_lend(struct mode_machines *m, struct mode_compute_others *others, const char *key, uint64_t fence)
{
    MODE_ASSERT(mode_machines_ready(m));
    qsort(m->at, (size_t)m->n, sizeof *m->at, by_name); /* by name, so that the order of ranks, and of reductions, is
                                                           always the same */
    snprintf(m->key, sizeof m->key, "%s", key);
    m->fence = fence;
    m->n_news = m->n_told = 0;
    *others = (struct mode_compute_others){.n = m->n};
    memcpy(others->place, m->place, sizeof others->place);
    for (int i = 0; i < m->n; i++) {
        others->gpus[i] = m->at[i].gpus;
        memcpy(others->name[i], m->at[i].name, sizeof others->name[i]);
    }
}

void mode_machines_begin(struct mode_machines *m, const struct mode_compute_call *call)
{
    if (call->fence != m->fence) return;
    for (int i = 0; i < m->n; i++) {
        struct machine *x = &m->at[i];
        if (call->n[i] <= 0) continue;
        if (!x->here) { /* lost since the task began */
            add_news(m, &(struct mode_compute_news){.rank = call->first[i], .gone = true});
            continue;
        }
        Mode__Envelope e;
        Mode__BeginRanks b = MODE__BEGIN_RANKS__INIT;
        mode_envelope_init(&e, &m->counter, MODE__ENVELOPE__BODY_BEGIN_RANKS);
        b.key = m->key;
        b.fence = call->fence;
        b.size = (uint32_t)call->size;
        b.first = (uint32_t)call->first[i];
        b.n = (uint32_t)call->n[i];
        b.port = (uint32_t)port_of(m->place);
        b.secret = (ProtobufCBinaryData){sizeof call->secret, (uint8_t *)(uintptr_t)call->secret};
        b.backend = (char *)(uintptr_t)call->backend;
        b.inputs = (char *)(uintptr_t)call->inputs;
        b.checkpoint = call->checkpoint[0] ? (char *)(uintptr_t)call->checkpoint : NULL;
        e.begin_ranks = &b;
        x->first = call->first[i];
        x->n_running = call->n[i];
        if (!say(m, x->route, x->n_route, &e)) let_go(m, x, "its connection was lost");
    }
}

const struct mode_compute_news *mode_machines_news(const struct mode_machines *m)
{
    return m->n_told < m->n_news ? &m->news[m->n_told] : NULL;
}

void mode_machines_told(struct mode_machines *m)
{
    MODE_ASSERT(m->n_told < m->n_news);
    m->n_told++;
}

void mode_machines_end(struct mode_machines *m)
{
    if (!m->fence) return;
    m->fence = 0;
    m->n_news = m->n_told = 0;
    for (int i = 0; i < m->n; i++)
        if (m->at[i].here && m->at[i].n_running) say_end(m, &m->at[i]);
}

/* ---- opening ---- */

static enum mode_status read_allow_list(struct mode_machines *m, struct mode_error *err)
{
    char *allow = mode_path_join(m->config->key_dir, "allow");
    enum mode_status st = mode_net_allow(m->net, allow, err);
    free(allow);
    return st;
}

void mode_machines_read_keys(struct mode_machines *m)
{
    struct mode_error err;
    if (read_allow_list(m, &err)) {
        mode_log_failure("allow_list", &err);
        return;
    }
    m->keys_changed = true;
    mode_log_info("allow_list", "%s/allow was read again", m->config->key_dir);
}

enum mode_status mode_machines_open(struct mode_machines **out, struct mode_net *net,
                                    const struct mode_machines_config *config, struct mode_error *err)
{
    struct mode_machines *m = *out = mode_xcalloc(1, sizeof *m);
    const struct mode_endpoint e = {
        .endpoint = config->endpoint, .wire = MODE_WIRE_WORKER, .key_dir = config->key_dir, .key_name = "server"};
    m->config = config;
    m->net = net;
    m->n = config->n - 1;
    m->at = mode_xcalloc((size_t)m->n, sizeof *m->at);
    m->complain_at = mode_clock_s() + complain_s;
    enum mode_status st = read_allow_list(m, err);
    if (!st) st = mode_socket_bind(&m->socket, net, &e, err);
    if (!st) st = mode_socket_self_test(m->socket, err);
    if (!st && !mode_team_place(m->place, mode_socket_endpoint(m->socket), 0))
        st = MODE_FAIL(err, MODE_E_CONFIG, "%s: the address is too long", config->endpoint);
    if (st) mode_machines_close(out);
    return st;
}

void mode_machines_close(struct mode_machines **pm)
{
    struct mode_machines *m = *pm;
    *pm = NULL;
    if (!m) return;
    mode_socket_close(&m->socket);
    free(m->at);
    free(m);
}

void *mode_machines_handle(struct mode_machines *m)
{
    return mode_socket_handle(m->socket);
}

const char *mode_machines_endpoint(const struct mode_machines *m)
{
    return mode_socket_endpoint(m->socket);
}
