/* The ZAP handler thread, which decides whether ZeroMQ accepts a CURVE client (RFC 27, ZAP 1.0). It answers 200 or 400,
 * never a temporary 300, which would leave clients hanging. The user id is the name in the allow list and the metadata
 * the key, because names stay when keys are replaced. */
#include "msg/net.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum { FRAMES = 7, FRAME_MAX = 256 };

struct request {
    char frame[FRAMES][FRAME_MAX]; /* version, id, domain, address, routing id, mechanism, client key */
    size_t size[FRAMES];
    int n; /* number of frames received, including surplus ones */
    bool whole;
};

static void request_read(struct request *r, void *socket)
{
    int more = 1;
    size_t more_size = sizeof more;
    *r = (struct request){.whole = true};
    while (more) {
        zmq_msg_t msg;
        zmq_msg_init(&msg);
        if (zmq_msg_recv(&msg, socket, 0) < 0) {
            zmq_msg_close(&msg);
            r->whole = false;
            return;
        }
        size_t n = zmq_msg_size(&msg);
        if (r->n < FRAMES && n < FRAME_MAX) {
            memcpy(r->frame[r->n], zmq_msg_data(&msg), n);
            r->size[r->n] = n;
        } else
            r->whole = false;
        r->n++;
        zmq_msg_close(&msg);
        zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &more_size);
    }
    if (r->n != FRAMES) r->whole = false;
}

static bool decide(struct mode_net *net, const struct request *r, char name[64], char key[MODE_KEY_Z85])
{
    enum mode_role role;
    name[0] = '\0';
    if (!r->whole || strcmp(r->frame[0], "1.0") != 0 || strcmp(r->frame[5], "CURVE") != 0 || r->size[6] != 32)
        return false;
    if (strcmp(r->frame[2], MODE_ZAP_WORKER) == 0)
        role = MODE_ROLE_WORKER;
    else if (strcmp(r->frame[2], MODE_ZAP_ADMIN) == 0)
        role = MODE_ROLE_ADMIN;
    else
        return false;
    if (!zmq_z85_encode(key, (const uint8_t *)r->frame[6], 32)) return false;
    pthread_mutex_lock(&net->lock);
    const struct mode_allow_entry *e = mode_allow_find(&net->allow, key);
    bool yes = e && e->role == role;
    if (yes) {
        memcpy(name, e->name, 64);
    } else {
        net->refused[role].n++;
        snprintf(net->refused[role].address, sizeof net->refused[role].address, "%.63s", r->frame[3]);
    }
    pthread_mutex_unlock(&net->lock);
    return yes;
}

/* One ZMTP metadata property: 1-byte length of the name, the name, 4-byte length of the value, the value. */
static size_t property(uint8_t *out, const char *name, const char *value)
{
    size_t n = strlen(name), v = strlen(value);
    out[0] = (uint8_t)n;
    memcpy(out + 1, name, n);
    memset(out + 1 + n, 0, 3);
    out[4 + n] = (uint8_t)v; /* ours are short */
    memcpy(out + 5 + n, value, v);
    return 5 + n + v;
}

static void answer(void *socket, const struct request *r, bool yes, const char *name, const char *key)
{
    uint8_t metadata[5 + sizeof MODE_ZAP_KEY + MODE_KEY_Z85];

    zmq_send(socket, "1.0", 3, ZMQ_SNDMORE);
    zmq_send(socket, r->frame[1], r->size[1], ZMQ_SNDMORE);
    zmq_send(socket, yes ? "200" : "400", 3, ZMQ_SNDMORE);
    const char *text = yes ? "OK" : "not allowed";
    zmq_send(socket, text, strlen(text), ZMQ_SNDMORE);
    zmq_send(socket, name, strlen(name), ZMQ_SNDMORE);
    zmq_send(socket, metadata, yes ? property(metadata, MODE_ZAP_KEY, key) : 0, 0);
}

struct thread_args {
    struct mode_net *net;
    void *rep, *control;
};

static void *zap_main(void *arg)
{
    struct thread_args a = *(struct thread_args *)arg;
    free(arg);
    zmq_pollitem_t items[] = {{a.rep, 0, ZMQ_POLLIN, 0}, {a.control, 0, ZMQ_POLLIN, 0}};
    for (;;) {
        if (zmq_poll(items, 2, -1) < 0) {
            if (zmq_errno() == EINTR) continue;
            break;
        }
        if (items[1].revents) break;
        if (!items[0].revents) continue;
        struct request r;
        char name[64], key[MODE_KEY_Z85] = "";
        request_read(&r, a.rep);
        bool yes = decide(a.net, &r, name, key);
        answer(a.rep, &r, yes, name, key);
    }
    zmq_close(a.rep);
    zmq_close(a.control);
    return NULL;
}

enum mode_status mode_zap_start(struct mode_net *net, struct mode_error *err)
{
    if (net->zap_control) return MODE_OK;
    int zero = 0;
    struct thread_args *a = malloc(sizeof *a);
    MODE_ASSERT(a);
    *a = (struct thread_args){net, zmq_socket(net->zmq, ZMQ_REP), zmq_socket(net->zmq, ZMQ_PAIR)};
    void *control = zmq_socket(net->zmq, ZMQ_PAIR);
    bool ok = a->rep && a->control && control;
    if (ok) {
        zmq_setsockopt(a->rep, ZMQ_LINGER, &zero, sizeof zero);
        zmq_setsockopt(a->control, ZMQ_LINGER, &zero, sizeof zero);
        zmq_setsockopt(control, ZMQ_LINGER, &zero, sizeof zero);
        ok = zmq_bind(a->rep, "inproc://zeromq.zap.01") == 0 &&
             zmq_bind(a->control, "inproc://mode-zap-control") == 0 &&
             zmq_connect(control, "inproc://mode-zap-control") == 0;
    }
    if (ok) ok = pthread_create(&net->zap_thread, NULL, zap_main, a) == 0;
    if (ok) {
        net->zap_control = control;
        return MODE_OK;
    }
    enum mode_status st = MODE_FAIL(err, MODE_E_GENERIC, "the handler of the allow list cannot be started: %s",
                                    zmq_strerror(zmq_errno()));
    if (a->rep) zmq_close(a->rep);
    if (a->control) zmq_close(a->control);
    if (control) zmq_close(control);
    free(a);
    return st;
}

void mode_zap_stop(struct mode_net *net)
{
    if (!net->zap_control) return;
    zmq_send(net->zap_control, "", 0, 0);
    pthread_join(net->zap_thread, NULL);
    zmq_close(net->zap_control);
    net->zap_control = NULL;
}
