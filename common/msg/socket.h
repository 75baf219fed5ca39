/* socket.h - ZeroMQ sockets with the options, limits and access control of this project.
 *
 * One machine: ipc:///path/to/socket; its folder's permissions (0700) are the protection. Between machines:
 * tcp://host:port, always with CURVE and an allow list. A TCP endpoint without keys is rejected.
 *
 *     struct mode_net *net;                       // ZeroMQ context + the thread that applies the allow list
 *     struct mode_socket *s;
 *     mode_net_open(&net, &err);
 *     mode_net_allow(net, "keys/allow", &err);    // servers with CURVE only
 *     struct mode_endpoint e = {.endpoint = "ipc:///run/mode/work", .wire = MODE_WIRE_WORKER};
 *     mode_socket_bind(&s, net, &e, &err);        // ROUTER;  mode_socket_connect: DEALER
 *     while (mode_socket_recv(s, &p, &err) == MODE_OK && p.data) { ...; mode_packet_clear(&p); }
 *
 * Threads: a socket belongs to one thread. The context may be shared. */
#ifndef MODE_MSG_SOCKET_H
#define MODE_MSG_SOCKET_H

#include "base/error.h"
#include "msg/envelope.h"
#include "msg/keys.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mode_net;
struct mode_socket;

enum mode_status mode_net_open(struct mode_net **out, struct mode_error *err);
/* Closes its thread; every socket must be closed before. */
void mode_net_close(struct mode_net **net);
/* (Re-)read the allow list and start the ZAP thread; call again to reload (SIGHUP). A list
 * that cannot be read leaves the old one in force. */
enum mode_status mode_net_allow(struct mode_net *net, const char *allow_path, struct mode_error *err);
/* Number of clients whose key is not in the list for this role, and the address of the last one ("" = none). */
uint64_t mode_net_refused(struct mode_net *net, enum mode_role role, char address[64]);

struct mode_endpoint {
    const char *endpoint;   /* ipc://path or tcp://host:port; bind: tcp://interface:port, port "*" = any free one */
    enum mode_wire wire;    /* limits; on a server with CURVE also the role that is accepted */
    const char *key_dir;    /* NULL = no CURVE (ipc only) */
    const char *key_name;   /* server: "server"; client: its own name in key_dir */
    const char *server_pub; /* client: path of the server's .pub file; NULL = <key_dir>/server.pub */
    const char *server;     /* client: the server's name, for people; NULL = "the coordinator" */
};

/* ROUTER. The folder of an ipc endpoint is made (0700). MODE_E_CONFIG: TCP without keys; port or path taken
 * by a live process. With CURVE: mode_net_allow must have been called. */
enum mode_status mode_socket_bind(struct mode_socket **out, struct mode_net *net, const struct mode_endpoint *e,
                                  struct mode_error *err);
/* DEALER. Returns at once; connecting continues in the background, see mode_socket_link. */
enum mode_status mode_socket_connect(struct mode_socket **out, struct mode_net *net, const struct mode_endpoint *e,
                                     struct mode_error *err);
void mode_socket_close(struct mode_socket **s);
/* With CURVE: prove that a key outside the allow list is refused by this server socket: a client with a fresh
 * key must fail. MODE_E_PERM if it got through. Takes well under a second. Nothing else may use the socket
 * meanwhile. */
enum mode_status mode_socket_self_test(struct mode_socket *s, struct mode_error *err);
/* The endpoint really bound ("tcp://0.0.0.0:41234"); borrowed. */
const char *mode_socket_endpoint(const struct mode_socket *s);
/* Longest time until a client that lost its connection is back after this server has returned. */
int mode_socket_return_ms(const struct mode_socket *s);
/* The zmq socket, for zmq_poll; and the monitor socket (PAIR) of a client. */
void *mode_socket_handle(struct mode_socket *s);
void *mode_socket_monitor(struct mode_socket *s);

/* One message received. data is NULL when there was none. */
struct mode_packet {
    uint8_t route[256]; /* server: routing id of the sender */
    size_t n_route;
    char user[64];          /* server with CURVE: the sender's name in the allow list on arrival; "" otherwise */
    char key[MODE_KEY_Z85]; /* likewise: its public key */
    const uint8_t *data;
    size_t size;
    void *msg; /* owns data */
};
/* Does not block: MODE_OK with p->data NULL when no message is waiting. Messages with wrong framing are dropped and
 * counted. */
enum mode_status mode_socket_recv(struct mode_socket *s, struct mode_packet *p, struct mode_error *err);
/* Whether the sender's key is now in the allow list, under the same name and with the role of this port: to end
 * sessions whose key was revoked or replaced under the same name. Always true without keys. */
bool mode_packet_allowed(struct mode_socket *s, const struct mode_packet *p);
void mode_packet_clear(struct mode_packet *p);
uint64_t mode_socket_dropped(const struct mode_socket *s);

/* Pack and send, never blocking. route NULL, 0 on a client. MODE_E_TEMP: peer gone, not connected or its
 * queue full; the message was not sent and may be sent again. */
enum mode_status mode_socket_send(struct mode_socket *s, const uint8_t *route, size_t n_route, const Mode__Envelope *e,
                                  struct mode_error *err);

/* What happened to a client's connection since the last call. Reads the monitor; does not block. */
enum mode_link {
    MODE_LINK_SAME, /* nothing new */
    MODE_LINK_UP,   /* a handshake succeeded: say HELLO */
    MODE_LINK_DOWN, /* lost; ZeroMQ reconnects by itself */
    /* err says why; waiting does not help: key not allowed, server requires keys, wrong server key. A server that
     * accepted us before and hangs up now is only down */
    MODE_LINK_REFUSED
};
enum mode_link mode_socket_link(struct mode_socket *s, struct mode_error *err);

/* One request and its reply, for the mode command and health checks: connects, sends e, waits up to timeout_ms for the
 * reply to it. MODE_E_PEER: nobody answered in time. A Reject is returned as an answer, not as an error. */
enum mode_status mode_ask(struct mode_envelope **answer, struct mode_net *net, const struct mode_endpoint *at,
                          const Mode__Envelope *e, int timeout_ms, struct mode_error *err);

#endif
