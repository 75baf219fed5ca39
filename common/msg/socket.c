#include "msg/socket.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "msg/address.h"
#include "msg/net.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

enum {
    RECONNECT_IPC_MS = 2000,
    RECONNECT_TCP_MS = 30000, /* reconnecting workers cost the server a third of a second per hundred */
    HEARTBEAT_MS = 5000,
    HEARTBEAT_TIMEOUT_MS = 15000,
    HEARTBEAT_TTL_MS = 20000,
    HANDSHAKE_MS = 5000,
    BACKLOG = 4096,
    HWM_SERVER = 256,
    HWM_CLIENT = 64,
    FAILED_HANDSHAKES = 3, /* on first contact, without a stated reason: then it is not a coincidence */
    SELF_TEST_MS = 5000,
    CONNECT_MS = 10000, /* by default the kernel continues one attempt for two minutes, with growing pauses */
    NOBODY_MS = 5000    /* a request waits at most this long for a listener, and for the answer up to its own timeout */
};

struct mode_socket {
    void *zmq, *monitor;
    struct mode_net *net;
    enum mode_wire wire;
    bool server, curve;
    char *endpoint, *peer; /* peer: of a client: the other end, for people */
    char server_public[MODE_KEY_Z85];
    int lock; /* lock of an ipc path, -1 = none */
    uint64_t dropped;
    int failed_handshakes;
    bool met; /* a handshake succeeded on this endpoint: keys and kind of server are right */
};

/* ---- context ---- */

enum mode_status mode_net_open(struct mode_net **out, struct mode_error *err)
{
    struct mode_net *net = mode_xcalloc(1, sizeof *net);
    *out = NULL;
    net->zmq = zmq_ctx_new();
    if (!net->zmq) {
        free(net);
        return MODE_FAIL(err, MODE_E_GENERIC, "ZeroMQ cannot be started: %s", zmq_strerror(zmq_errno()));
    }
    MODE_ASSERT(pthread_mutex_init(&net->lock, NULL) == 0);
    *out = net;
    return MODE_OK;
}

void mode_net_close(struct mode_net **pnet)
{
    struct mode_net *net = *pnet;
    *pnet = NULL;
    if (!net) return;
    mode_zap_stop(net);
    while (zmq_ctx_term(net->zmq) != 0 && zmq_errno() == EINTR) continue;
    pthread_mutex_destroy(&net->lock);
    mode_allow_clear(&net->allow);
    free(net);
}

enum mode_status mode_net_allow(struct mode_net *net, const char *allow_path, struct mode_error *err)
{
    struct mode_allow_list list;
    enum mode_status st = mode_allow_read(&list, allow_path, err);
    if (st) return st;
    pthread_mutex_lock(&net->lock);
    struct mode_allow_list old = net->allow;
    net->allow = list;
    net->has_allow = true;
    pthread_mutex_unlock(&net->lock);
    mode_allow_clear(&old);
    return mode_zap_start(net, err);
}

uint64_t mode_net_refused(struct mode_net *net, enum mode_role role, char address[64])
{
    pthread_mutex_lock(&net->lock);
    uint64_t n = net->refused[role].n;
    memcpy(address, net->refused[role].address, 64);
    pthread_mutex_unlock(&net->lock);
    return n;
}

/* ---- options ---- */

static void set_int(void *s, int option, int value)
{
    MODE_ASSERT(zmq_setsockopt(s, option, &value, sizeof value) == 0);
}

static void set_common(void *s, enum mode_wire wire, int hwm)
{
    int64_t max = (int64_t)(wire == MODE_WIRE_ADMIN ? MODE_WIRE_ADMIN_MAX : MODE_WIRE_WORKER_MAX);
    MODE_ASSERT(zmq_setsockopt(s, ZMQ_MAXMSGSIZE, &max, sizeof max) == 0);
    set_int(s, ZMQ_SNDHWM, hwm);
    set_int(s, ZMQ_RCVHWM, hwm);
    set_int(s, ZMQ_HEARTBEAT_IVL, HEARTBEAT_MS);
    set_int(s, ZMQ_HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS);
    set_int(s, ZMQ_HEARTBEAT_TTL, HEARTBEAT_TTL_MS);
    set_int(s, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS);
    set_int(s, ZMQ_TCP_KEEPALIVE, 1);
    set_int(s, ZMQ_TCP_KEEPALIVE_IDLE, 30);
    set_int(s, ZMQ_TCP_KEEPALIVE_INTVL, 10);
    set_int(s, ZMQ_TCP_KEEPALIVE_CNT, 3);
    set_int(s, ZMQ_TCP_MAXRT, 30000);
}

static enum mode_status check_endpoint(const struct mode_endpoint *e, bool listens, struct mode_error *err)
{
    const char *at = e->endpoint;
    enum mode_status st = mode_endpoint_check(at, listens, err);
    if (st || strncmp(at, "ipc:", 4) == 0) return st;
    if (!e->key_dir)
        return MODE_FAIL(
            err, MODE_E_CONFIG,
            "%s: TCP is used with keys only. HINT: name the key folder with --key-dir (MODE_KEY_DIR), or use "
            "ipc:///path on one machine",
            at);
    return MODE_OK;
}

static struct mode_socket *socket_new(struct mode_net *net, const struct mode_endpoint *e, bool server)
{
    struct mode_socket *s = mode_xcalloc(1, sizeof *s);
    s->net = net;
    s->wire = e->wire;
    s->server = server;
    s->curve = e->key_dir != NULL;
    s->endpoint = mode_xstrdup(e->endpoint);
    s->peer = mode_xstrdup(e->server ? e->server : "the coordinator");
    s->lock = -1;
    return s;
}

void mode_socket_close(struct mode_socket **ps)
{
    struct mode_socket *s = *ps;
    *ps = NULL;
    if (!s) return;
    if (s->monitor) {
        zmq_socket_monitor(s->zmq, NULL, 0);
        zmq_close(s->monitor);
    }
    if (s->zmq) zmq_close(s->zmq);
    if (s->lock >= 0) close(s->lock);
    free(s->endpoint);
    free(s->peer);
    free(s);
}

/* ---- server ---- */

/* ZeroMQ silently unlinks an existing ipc path: a lock beside it keeps a second server from taking over the path. */
static enum mode_status claim_ipc(struct mode_socket *s, const char *path, struct mode_error *err)
{
    char *dir = mode_xstrdup(path), *lock = mode_xasprintf("%s.lock", path);
    struct stat sb;
    enum mode_status st = MODE_OK;
    *(char *)(uintptr_t)mode_path_base(dir) = '\0';
    if (stat(dir, &sb) != 0 && (st = mode_dir_make(dir, err)) == MODE_OK && chmod(dir, 0700) != 0)
        st = MODE_FAIL(err, MODE_E_PERM, "%s: cannot be made private: %s", dir, strerror(errno));
    if (!st) {
        s->lock = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (s->lock < 0)
            st = MODE_FAIL(err, MODE_E_CREATE, "%s: cannot be created: %s", lock, strerror(errno));
        else if ((st = mode_file_lock(s->lock, LOCK_EX, lock, err)) == MODE_E_TEMP)
            st = MODE_FAIL(err, MODE_E_CONFIG,
                           "%s: in use: another process listens there. HINT: stop it, or choose another path",
                           s->endpoint);
    }
    free(lock);
    free(dir);
    return st;
}

enum mode_status mode_socket_bind(struct mode_socket **out, struct mode_net *net, const struct mode_endpoint *e,
                                  struct mode_error *err)
{
    struct mode_keypair pair;
    char actual[512];
    size_t n = sizeof actual;
    *out = NULL;
    enum mode_status st = check_endpoint(e, true, err);
    if (st) return st;
    struct mode_socket *s = socket_new(net, e, true);
    bool ipc = strncmp(e->endpoint, "ipc://", 6) == 0;
    s->zmq = zmq_socket(net->zmq, ZMQ_ROUTER);
    if (!s->zmq) {
        st = MODE_FAIL(err, MODE_E_GENERIC, "%s: a socket cannot be made: %s", e->endpoint, zmq_strerror(zmq_errno()));
        goto out;
    }
    set_common(s->zmq, e->wire, HWM_SERVER);
    set_int(s->zmq, ZMQ_ROUTER_MANDATORY, 1);
    set_int(s->zmq, ZMQ_LINGER, 0);
    set_int(s->zmq, ZMQ_BACKLOG, BACKLOG);
    set_int(s->zmq, ZMQ_IPV6, strchr(e->endpoint, '[') != NULL);
    if (s->curve) {
        const char *domain = e->wire == MODE_WIRE_ADMIN ? MODE_ZAP_ADMIN : MODE_ZAP_WORKER;
        MODE_ASSERT(net->has_allow); /* without the list every client that knows the server's key would be accepted */
        if ((st = mode_keys_read(&pair, e->key_dir, e->key_name ? e->key_name : "server", err))) goto out;
        memcpy(s->server_public, pair.public_key, MODE_KEY_Z85);
        set_int(s->zmq, ZMQ_CURVE_SERVER, 1);
        MODE_ASSERT(zmq_setsockopt(s->zmq, ZMQ_CURVE_SECRETKEY, pair.secret_key, MODE_KEY_Z85) == 0);
        MODE_ASSERT(zmq_setsockopt(s->zmq, ZMQ_ZAP_DOMAIN, domain, strlen(domain)) == 0);
    }
    if (ipc && (st = claim_ipc(s, e->endpoint + 6, err))) goto out;
    if (zmq_bind(s->zmq, e->endpoint) != 0) {
        int code = zmq_errno();
        st = code == EADDRINUSE ? MODE_FAIL(err, MODE_E_CONFIG,
                                            "%s: the port is taken by another process. HINT: stop it (ss "
                                            "-ltnp shows which), or choose another port",
                                            e->endpoint)
                                : MODE_FAIL(err, code == EACCES ? MODE_E_PERM : MODE_E_CONFIG,
                                            "%s: cannot listen there: %s", e->endpoint, zmq_strerror(code));
        goto out;
    }
    if (ipc && chmod(e->endpoint + 6, 0600) != 0) {
        st = MODE_FAIL(err, MODE_E_PERM, "%s: cannot be made private: %s", e->endpoint, strerror(errno));
        goto out;
    }
    if (zmq_getsockopt(s->zmq, ZMQ_LAST_ENDPOINT, actual, &n) == 0) {
        free(s->endpoint);
        s->endpoint = mode_xstrdup(actual);
    }
out:
    if (st) mode_socket_close(&s);
    *out = s;
    return st;
}

/* ---- client ---- */

static int random_below(int n)
{
    uint32_t r = 0;
    if (getrandom(&r, sizeof r, GRND_NONBLOCK) != (ssize_t)sizeof r) r = (uint32_t)getpid();
    return (int)(r % (uint32_t)n);
}

static enum mode_status client_open(struct mode_socket *s, const char *endpoint, const struct mode_keypair *pair,
                                    const char *name, struct mode_error *err)
{
    char monitor[64];
    bool ipc = strncmp(endpoint, "ipc://", 6) == 0;
    s->zmq = zmq_socket(s->net->zmq, ZMQ_DEALER);
    if (!s->zmq)
        return MODE_FAIL(err, MODE_E_GENERIC, "%s: a socket cannot be made: %s", endpoint, zmq_strerror(zmq_errno()));
    set_common(s->zmq, s->wire, HWM_CLIENT);
    set_int(s->zmq, ZMQ_IPV6, 1);
    set_int(s->zmq, ZMQ_IMMEDIATE, 1);
    set_int(s->zmq, ZMQ_LINGER, 1000);
    set_int(s->zmq, ZMQ_RECONNECT_IVL, 100 + random_below(200)); /* jitter, so that many workers do not reconnect in
                                                                    lockstep */
    set_int(s->zmq, ZMQ_RECONNECT_IVL_MAX, ipc ? RECONNECT_IPC_MS : RECONNECT_TCP_MS);
    set_int(s->zmq, ZMQ_CONNECT_TIMEOUT, CONNECT_MS);
    if (pair) {
        MODE_ASSERT(zmq_setsockopt(s->zmq, ZMQ_CURVE_SERVERKEY, s->server_public, MODE_KEY_Z85) == 0);
        MODE_ASSERT(zmq_setsockopt(s->zmq, ZMQ_CURVE_PUBLICKEY, pair->public_key, MODE_KEY_Z85) == 0);
        if (zmq_setsockopt(s->zmq, ZMQ_CURVE_SECRETKEY, pair->secret_key, MODE_KEY_Z85) != 0)
            return MODE_FAIL(err, MODE_E_FORMAT, "the two keys of %s are not a pair", name);
    }
    /* unique names: ZeroMQ releases a name only some time after its socket was closed */
    snprintf(monitor, sizeof monitor, "inproc://mode-monitor-%u", atomic_fetch_add(&s->net->n_clients, 1));
    s->monitor = zmq_socket(s->net->zmq, ZMQ_PAIR);
    if (!s->monitor ||
        zmq_socket_monitor(s->zmq, monitor,
                           ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED |
                               ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                               ZMQ_EVENT_HANDSHAKE_FAILED_AUTH) != 0)
        return MODE_FAIL(err, MODE_E_GENERIC, "%s: its connection cannot be monitored: %s", endpoint,
                         zmq_strerror(zmq_errno()));
    set_int(s->monitor, ZMQ_LINGER, 0);
    if (zmq_connect(s->monitor, monitor) != 0 || zmq_connect(s->zmq, endpoint) != 0)
        return MODE_FAIL(err, MODE_E_CONFIG, "%s: cannot be connected to: %s", endpoint, zmq_strerror(zmq_errno()));
    return MODE_OK;
}

enum mode_status mode_socket_connect(struct mode_socket **out, struct mode_net *net, const struct mode_endpoint *e,
                                     struct mode_error *err)
{
    struct mode_keypair pair;
    *out = NULL;
    enum mode_status st = check_endpoint(e, false, err);
    if (st) return st;
    struct mode_socket *s = socket_new(net, e, false);
    if (s->curve) {
        char *server = e->server_pub ? mode_xstrdup(e->server_pub) : mode_path_join(e->key_dir, "server.pub");
        if (!e->key_name)
            st = MODE_FAIL(err, MODE_E_CONFIG, "%s: the name of the key in %s is not given (--key-name, MODE_KEY_NAME)",
                           e->endpoint, e->key_dir);
        if (!st) st = mode_keys_read_public(s->server_public, server, err);
        if (!st) st = mode_keys_read(&pair, e->key_dir, e->key_name, err);
        free(server);
    }
    if (!st) st = client_open(s, e->endpoint, s->curve ? &pair : NULL, e->key_name, err);
    if (st) mode_socket_close(&s);
    *out = s;
    return st;
}

/* One monitor event; false when there is none. */
static bool next_event(struct mode_socket *s, unsigned *event, unsigned *value)
{
    zmq_msg_t msg;
    uint8_t raw[6];
    zmq_msg_init(&msg);
    if (zmq_msg_recv(&msg, s->monitor, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&msg);
        return false;
    }
    bool ok = zmq_msg_size(&msg) == sizeof raw;
    if (ok) memcpy(raw, zmq_msg_data(&msg), sizeof raw);
    zmq_msg_close(&msg);
    zmq_msg_init(&msg);
    zmq_msg_recv(&msg, s->monitor, 0); /* the address frame of the event */
    zmq_msg_close(&msg);
    if (!ok) return false;
    uint16_t e;
    uint32_t v;
    memcpy(&e, raw, 2);
    memcpy(&v, raw + 2, 4);
    *event = e;
    *value = v;
    return true;
}

enum mode_link mode_socket_link(struct mode_socket *s, struct mode_error *err)
{
    unsigned event, value;
    while (next_event(s, &event, &value)) switch (event) {
        case ZMQ_EVENT_HANDSHAKE_SUCCEEDED: s->met = true; return MODE_LINK_UP;
        case ZMQ_EVENT_DISCONNECTED: return MODE_LINK_DOWN;
        case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
            MODE_FAIL(err, MODE_E_PERM,
                      "%s: %s refused this key. HINT: `mode keys DIR --worker NAME` puts a key into its "
                      "allow list; "
                      "SIGHUP makes it read the list again",
                      s->endpoint, s->peer);
            return MODE_LINK_REFUSED;
        case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
            if (value == ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH)
                MODE_FAIL(err, MODE_E_PERM, "%s: %s", s->endpoint,
                          s->curve
                              ? "this side uses keys and the other does not. HINT: start the coordinator with "
                                "--key-dir"
                              : "the coordinator requires a key and none is given. HINT: --key-dir (MODE_KEY_DIR)");
            else
                MODE_FAIL(err, MODE_E_PERM, "%s: the handshake failed (ZeroMQ protocol error 0x%x). HINT: %s",
                          s->endpoint, value,
                          s->curve ? "the server key may be another coordinator's: compare server.pub on both sides"
                                   : "is a MoDE coordinator listening there?");
            return MODE_LINK_REFUSED;
        case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            /* A server that accepted us before and now does not answer is stalled or starting: its kernel accepts the
             * connection, but there is no handshake. Such a link counts as down, for as long as it takes. */
            if (s->met || ++s->failed_handshakes < FAILED_HANDSHAKES) break;
            MODE_FAIL(err, MODE_E_PERM,
                      "%s: the other side closed the connection during %d handshakes in a row. HINT: %s", s->endpoint,
                      s->failed_handshakes,
                      s->curve ? "the server key may be another coordinator's (compare server.pub on both sides), or "
                                 "it is not a MoDE coordinator"
                               : "it requires a key (--key-dir), or it is not a MoDE coordinator");
            return MODE_LINK_REFUSED;
        default: break;
        }
    return MODE_LINK_SAME;
}

enum mode_status mode_socket_self_test(struct mode_socket *s, struct mode_error *err)
{
    if (!s->curve || !s->server) return MODE_OK;
    struct mode_keypair stranger;
    struct mode_endpoint e = {.wire = s->wire};
    enum mode_status st = MODE_OK;
    char *at = mode_xstrdup(s->endpoint), *any;
    if ((any = strstr(at, "://0.0.0.0:")) != NULL) {
        char *loop = mode_xasprintf("tcp://127.0.0.1:%s", any + 11);
        free(at);
        at = loop;
    } else if ((any = strstr(at, "://[::]:")) != NULL) {
        char *loop = mode_xasprintf("tcp://[::1]:%s", any + 8);
        free(at);
        at = loop;
    }
    e.endpoint = at;
    struct mode_socket *probe = socket_new(s->net, &e, false);
    probe->curve = true;
    memcpy(probe->server_public, s->server_public, MODE_KEY_Z85);
    MODE_ASSERT(zmq_curve_keypair(stranger.public_key, stranger.secret_key) == 0);
    if ((st = client_open(probe, at, &stranger, "a stranger", err))) goto out;
    double until = mode_clock_s() + SELF_TEST_MS * 1e-3;
    for (;;) {
        zmq_pollitem_t item = {probe->monitor, 0, ZMQ_POLLIN, 0};
        unsigned event, value;
        int left = (int)((until - mode_clock_s()) * 1e3);
        if (left <= 0) {
            st = MODE_FAIL(err, MODE_E_PERM, "%s: self-test of the allow list: no answer within %d ms", at,
                           SELF_TEST_MS);
            break;
        }
        if (zmq_poll(&item, 1, left) <= 0 || !next_event(probe, &event, &value)) continue;
        if (event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH) break;
        if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
            st = MODE_FAIL(err, MODE_E_PERM, "%s: self-test of the allow list: a key that is not in it was accepted",
                           at);
            break;
        }
    }
out:
    mode_socket_close(&probe);
    free(at);
    return st;
}

int mode_socket_return_ms(const struct mode_socket *s)
{
    /* the pause before the attempt, and the attempt */
    return strncmp(s->endpoint, "ipc:", 4) == 0 ? RECONNECT_IPC_MS + 1000 : RECONNECT_TCP_MS + CONNECT_MS;
}

/* ---- messages ---- */

const char *mode_socket_endpoint(const struct mode_socket *s)
{
    return s->endpoint;
}

void *mode_socket_handle(struct mode_socket *s)
{
    return s->zmq;
}

void *mode_socket_monitor(struct mode_socket *s)
{
    return s->monitor;
}

uint64_t mode_socket_dropped(const struct mode_socket *s)
{
    return s->dropped;
}

static enum mode_role role_of(enum mode_wire wire)
{
    return wire == MODE_WIRE_ADMIN ? MODE_ROLE_ADMIN : MODE_ROLE_WORKER;
}

static bool has_more(zmq_msg_t *msg)
{
    return zmq_msg_more(msg) != 0;
}

static void drain(void *zmq)
{
    for (bool more = true; more;) {
        zmq_msg_t msg;
        zmq_msg_init(&msg);
        more = zmq_msg_recv(&msg, zmq, 0) >= 0 && has_more(&msg);
        zmq_msg_close(&msg);
    }
}

bool mode_packet_allowed(struct mode_socket *s, const struct mode_packet *p)
{
    if (!s->server || !s->curve) return true;
    pthread_mutex_lock(&s->net->lock);
    const struct mode_allow_entry *e = mode_allow_find(&s->net->allow, p->key);
    bool yes = e && e->role == role_of(s->wire) && strcmp(e->name, p->user) == 0;
    pthread_mutex_unlock(&s->net->lock);
    return yes;
}

void mode_packet_clear(struct mode_packet *p)
{
    if (p->msg) {
        zmq_msg_close(p->msg);
        free(p->msg);
    }
    *p = (struct mode_packet){0};
}

enum mode_status mode_socket_recv(struct mode_socket *s, struct mode_packet *p, struct mode_error *err)
{
    for (;;) {
        *p = (struct mode_packet){0};
        zmq_msg_t *msg = mode_xmalloc(sizeof *msg);
        zmq_msg_init(msg);
        p->msg = msg;
        int rc = zmq_msg_recv(msg, s->zmq, ZMQ_DONTWAIT);
        if (rc < 0) {
            int e = zmq_errno();
            mode_packet_clear(p);
            if (e == EAGAIN || e == EINTR) return MODE_OK;
            return MODE_FAIL(err, MODE_E_IO, "%s: receiving failed: %s", s->endpoint, zmq_strerror(e));
        }
        bool good = true;
        if (s->server) {
            p->n_route = zmq_msg_size(msg);
            good = p->n_route <= sizeof p->route && has_more(msg);
            if (good) {
                memcpy(p->route, zmq_msg_data(msg), p->n_route);
                good = zmq_msg_recv(msg, s->zmq, 0) >= 0;
            }
        }
        if (has_more(msg)) {
            drain(s->zmq);
            good = false;
        }
        if (!good || zmq_msg_size(msg) == 0) { /* malformed: the sender gets no answer */
            s->dropped++;
            mode_packet_clear(p);
            continue;
        }
        const char *user = s->server && s->curve ? zmq_msg_gets(msg, "User-Id") : NULL,
                   *key = user ? zmq_msg_gets(msg, MODE_ZAP_KEY) : NULL;
        if (user) snprintf(p->user, sizeof p->user, "%s", user);
        if (key) snprintf(p->key, sizeof p->key, "%s", key);
        p->data = zmq_msg_data(msg);
        p->size = zmq_msg_size(msg);
        return MODE_OK;
    }
}

enum mode_status mode_socket_send(struct mode_socket *s, const uint8_t *route, size_t n_route, const Mode__Envelope *e,
                                  struct mode_error *err)
{
    uint8_t *data;
    size_t size;
    enum mode_status st = mode_envelope_pack(&data, &size, e, s->wire, err);
    if (st) return st;
    int rc = 0;
    if (s->server) rc = zmq_send(s->zmq, route, n_route, ZMQ_SNDMORE | ZMQ_DONTWAIT);
    if (rc >= 0) rc = zmq_send(s->zmq, data, size, ZMQ_DONTWAIT);
    if (rc < 0) {
        int code = zmq_errno();
        st = MODE_FAIL(err, code == EAGAIN || code == EHOSTUNREACH || code == EINTR ? MODE_E_TEMP : MODE_E_IO,
                       "%s: %s cannot be sent: %s", s->endpoint, mode_envelope_name(e),
                       code == EAGAIN ? "not connected, or the other side does not keep up" : zmq_strerror(code));
    }
    free(data);
    return st;
}

enum mode_status mode_ask(struct mode_envelope **answer, struct mode_net *net, const struct mode_endpoint *at,
                          const Mode__Envelope *e, int timeout_ms, struct mode_error *err)
{
    struct mode_socket *s;
    struct mode_error ignored;
    bool sent = false, up = false, met = false;
    *answer = NULL;
    enum mode_status st = mode_socket_connect(&s, net, at, err);
    if (st) return st;
    double until = mode_clock_s() + timeout_ms * 1e-3;
    double give_up = timeout_ms > NOBODY_MS ? mode_clock_s() + NOBODY_MS * 1e-3 : until;
    while (!st && !*answer) {
        double last = met ? until : give_up;
        int left = (int)((last - mode_clock_s()) * 1e3);
        if (left <= 0) {
            st = MODE_FAIL(err, MODE_E_PEER, "%s: no answer within %d ms%s", at->endpoint,
                           met || timeout_ms < NOBODY_MS ? timeout_ms : NOBODY_MS,
                           up ? "" : "; nothing is listening there. HINT: is the coordinator running (`mode up`)?");
            break;
        }
        zmq_pollitem_t items[] = {{s->zmq, 0, ZMQ_POLLIN, 0}, {s->monitor, 0, ZMQ_POLLIN, 0}};
        if (zmq_poll(items, 2, sent || !up ? left : 20) < 0 && zmq_errno() != EINTR) {
            st = MODE_FAIL(err, MODE_E_IO, "%s: waiting failed: %s", at->endpoint, zmq_strerror(zmq_errno()));
            break;
        }
        switch (mode_socket_link(s, err)) {
        case MODE_LINK_UP: up = met = true; break;
        case MODE_LINK_DOWN: up = sent = false; break;
        case MODE_LINK_REFUSED: st = MODE_E_PERM; continue;
        case MODE_LINK_SAME: break;
        }
        if (up && !sent) {
            st = mode_socket_send(s, NULL, 0, e, err);
            sent = st == MODE_OK;
            if (st == MODE_E_TEMP) st = MODE_OK;
        }
        struct mode_packet p = {0};
        while (!st && !*answer && !(st = mode_socket_recv(s, &p, err)) && p.data) {
            struct mode_envelope *in;
            enum mode_status got = mode_envelope_unpack(&in, p.data, p.size, at->wire, &ignored);
            if (got == MODE_OK && in->msg->reply_to == e->id)
                *answer = in;
            else if (got == MODE_OK)
                mode_envelope_free(&in);
            else if (got == MODE_E_CONFIG) /* another protocol, as all further answers will be */
                st = MODE_FAIL(err, got, "%s", ignored.text);
            mode_packet_clear(&p);
        }
    }
    mode_socket_close(&s);
    return st;
}
