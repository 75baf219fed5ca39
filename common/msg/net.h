/* net.h - internal to socket.c and zap.c; included nowhere else. */
#ifndef MODE_MSG_NET_H
#define MODE_MSG_NET_H

#include "msg/socket.h"

#include <pthread.h>
#include <stdatomic.h>

struct mode_net {
    void *zmq;
    atomic_uint n_clients; /* clients opened so far: names their monitors */
    pthread_mutex_t lock;  /* guards allow */
    struct mode_allow_list allow;
    bool has_allow;
    pthread_t zap_thread;
    struct mode_refused { /* guarded by lock, too */
        uint64_t n;
        char address[64];
    } refused[3];      /* by enum mode_role */
    void *zap_control; /* PAIR to the thread; NULL = not started */
};

#define MODE_ZAP_WORKER "mode-worker" /* ZAP domains: the port, and thereby the role that it accepts */
#define MODE_ZAP_ADMIN  "mode-admin"
#define MODE_ZAP_KEY    "Mode-Key" /* ZAP metadata: the client's public key, then attached to each of its messages */

enum mode_status mode_zap_start(struct mode_net *net, struct mode_error *err);
void mode_zap_stop(struct mode_net *net);

#endif
