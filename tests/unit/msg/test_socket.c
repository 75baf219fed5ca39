/* Which peers may connect, over ipc and over TCP with keys; every refusal is an error sentence, none a hang. */
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "msg/keys.h"
#include "msg/socket.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

#include <cmocka.h>

struct fixture {
    char dir[64];
    char *keys, *other_keys, *allow, *ipc;
    struct mode_net *net;
    struct mode_socket *server, *client, *other; /* here, so that tear_down closes them after a failed assertion too */
    struct mode_error err;
};

static int set_up(void **state)
{
    struct fixture *f = mode_xcalloc(1, sizeof *f);
    strcpy(f->dir, "/tmp/mode-socket-XXXXXX");
    if (!mkdtemp(f->dir)) return -1;
    f->keys = mode_path_join(f->dir, "keys");
    f->other_keys = mode_path_join(f->dir, "other");
    f->allow = mode_path_join(f->keys, "allow");
    f->ipc = mode_xasprintf("ipc://%s/run/work", f->dir);
    if (mode_keys_generate(f->keys, &f->err) || mode_keys_add(f->keys, "w1", MODE_ROLE_WORKER, &f->err) ||
        mode_keys_add(f->keys, "ann", MODE_ROLE_ADMIN, &f->err) || mode_keys_generate(f->other_keys, &f->err) ||
        mode_keys_add(f->other_keys, "w1", MODE_ROLE_WORKER, &f->err) || mode_net_open(&f->net, &f->err))
        return -1;
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    mode_socket_close(&f->server);
    mode_socket_close(&f->client);
    mode_socket_close(&f->other);
    mode_net_close(&f->net);
    mode_dir_remove(f->dir, NULL);
    free(f->keys);
    free(f->other_keys);
    free(f->allow);
    free(f->ipc);
    free(f);
    return 0;
}

static void serve_tcp(struct fixture *f, enum mode_wire wire)
{
    struct mode_endpoint e = {.endpoint = "tcp://127.0.0.1:*", .wire = wire, .key_dir = f->keys, .key_name = "server"};
    assert_int_equal(mode_net_allow(f->net, f->allow, &f->err), MODE_OK);
    assert_int_equal(mode_socket_bind(&f->server, f->net, &e, &f->err), MODE_OK);
}

enum { SOON_MS = 60000 }; /* for immediate events on a slow, loaded machine */

/* The first event of a connection. */
static enum mode_link news(struct mode_socket *s, struct mode_error *err)
{
    for (int i = 0; i < SOON_MS / 10; i++) {
        enum mode_link l = mode_socket_link(s, err);
        if (l == MODE_LINK_UP || l == MODE_LINK_REFUSED) return l;
        usleep(10000);
    }
    return MODE_LINK_SAME;
}

static enum mode_link try_tcp(struct fixture *f, const char *key_dir, const char *name, const char *server_pub)
{
    struct mode_endpoint e = {.endpoint = mode_socket_endpoint(f->server),
                              .wire = MODE_WIRE_WORKER,
                              .key_dir = key_dir,
                              .key_name = name,
                              .server_pub = server_pub};
    assert_int_equal(mode_socket_connect(&f->client, f->net, &e, &f->err), MODE_OK);
    enum mode_link l = news(f->client, &f->err);
    mode_socket_close(&f->client);
    return l;
}

static void wait_readable(struct mode_socket *s)
{
    zmq_pollitem_t item = {mode_socket_handle(s), 0, ZMQ_POLLIN, 0};
    assert_int_equal(zmq_poll(&item, 1, SOON_MS), 1);
}

/* A PING there and back. */
static void ping_pong(struct fixture *f, struct mode_socket *c, const char *user)
{
    Mode__Ping ping = MODE__PING__INIT;
    Mode__Envelope e;
    struct mode_packet p;
    struct mode_envelope *in;
    uint64_t counter = 0;
    assert_int_equal(news(c, &f->err), MODE_LINK_UP);
    mode_envelope_init(&e, &counter, MODE__ENVELOPE__BODY_PING);
    e.ping = &ping;
    assert_int_equal(mode_socket_send(c, NULL, 0, &e, &f->err), MODE_OK);
    wait_readable(f->server);
    assert_int_equal(mode_socket_recv(f->server, &p, &f->err), MODE_OK);
    assert_non_null(p.data);
    assert_string_equal(p.user, user);
    assert_int_equal(mode_envelope_unpack(&in, p.data, p.size, MODE_WIRE_WORKER, &f->err), MODE_OK);
    assert_int_equal(in->msg->body_case, MODE__ENVELOPE__BODY_PING);
    assert_int_equal(mode_socket_send(f->server, p.route, p.n_route, in->msg, &f->err), MODE_OK);
    mode_packet_clear(&p);
    mode_envelope_free(&in);
    wait_readable(c);
    assert_int_equal(mode_socket_recv(c, &p, &f->err), MODE_OK);
    assert_non_null(p.data);
    mode_packet_clear(&p);
    assert_int_equal(mode_socket_recv(c, &p, &f->err), MODE_OK);
    assert_null(p.data);
}

static void test_ipc_both_ways_and_private(void **state)
{
    struct fixture *f = *state;
    struct stat sb;
    struct mode_endpoint e = {.endpoint = f->ipc, .wire = MODE_WIRE_WORKER};
    assert_int_equal(mode_socket_bind(&f->server, f->net, &e, &f->err), MODE_OK);
    char *run = mode_path_join(f->dir, "run");
    assert_int_equal(stat(run, &sb), 0);
    assert_int_equal(sb.st_mode & 0777, 0700);
    assert_int_equal(stat(f->ipc + 6, &sb), 0);
    assert_int_equal(sb.st_mode & 0777, 0600);
    free(run);
    assert_int_equal(mode_socket_connect(&f->client, f->net, &e, &f->err), MODE_OK);
    ping_pong(f, f->client, "");
    mode_socket_close(&f->client);
}

static void test_tcp_with_keys_both_ways(void **state)
{
    struct fixture *f = *state;
    serve_tcp(f, MODE_WIRE_WORKER);
    assert_int_equal(mode_socket_self_test(f->server, &f->err), MODE_OK);
    struct mode_endpoint e = {
        .endpoint = mode_socket_endpoint(f->server), .wire = MODE_WIRE_WORKER, .key_dir = f->keys, .key_name = "w1"};
    assert_int_equal(mode_socket_connect(&f->client, f->net, &e, &f->err), MODE_OK);
    ping_pong(f, f->client, "w1");
    mode_socket_close(&f->client);
}

static void test_strangers_are_refused_with_a_sentence(void **state)
{
    struct fixture *f = *state;
    char *server = mode_path_join(f->keys, "server.pub"), *wrong = mode_path_join(f->other_keys, "server.pub");
    serve_tcp(f, MODE_WIRE_WORKER);
    /* a key that is not in the list */
    assert_int_equal(try_tcp(f, f->other_keys, "w1", server), MODE_LINK_REFUSED);
    assert_int_equal(f->err.status, MODE_E_PERM);
    assert_non_null(strstr(f->err.text, "refused this key"));
    /* an admin's key on the workers' port */
    assert_int_equal(try_tcp(f, f->keys, "ann", server), MODE_LINK_REFUSED);
    assert_non_null(strstr(f->err.text, "refused this key"));
    /* the wrong server's key */
    assert_int_equal(try_tcp(f, f->keys, "w1", wrong), MODE_LINK_REFUSED);
    assert_non_null(strstr(f->err.text, "server.pub"));
    /* and the right one is still accepted */
    assert_int_equal(try_tcp(f, f->keys, "w1", server), MODE_LINK_UP);
    free(server);
    free(wrong);
}

/* A frozen coordinator: the kernel accepts connections, the handshake never completes, and the connection fails
 * repeatedly. Its clients recognise this and wait. */
static void test_a_server_that_hangs_up_later_is_not_a_refusal(void **state)
{
    struct fixture *f = *state;
    struct mode_endpoint e = {.endpoint = f->ipc, .wire = MODE_WIRE_WORKER};
    assert_int_equal(mode_socket_bind(&f->server, f->net, &e, &f->err), MODE_OK);
    assert_int_equal(mode_socket_connect(&f->client, f->net, &e, &f->err), MODE_OK);
    assert_int_equal(news(f->client, &f->err), MODE_LINK_UP);
    mode_socket_close(&f->server);
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    snprintf(at.sun_path, sizeof at.sun_path, "%s", f->ipc + 6);
    unlink(at.sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0), hung_up = 0;
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(fd, 8), 0);
    for (int i = 0; i < SOON_MS / 10 && hung_up < 6; i++) {
        int peer = accept(fd, NULL, NULL);
        if (peer >= 0) {
            close(peer);
            hung_up++;
        }
        enum mode_link l = mode_socket_link(f->client, &f->err);
        assert_true(l == MODE_LINK_SAME || l == MODE_LINK_DOWN);
        usleep(10000);
    }
    assert_int_equal(hung_up, 6);
    close(fd);
    unlink(at.sun_path);
    assert_int_equal(mode_socket_bind(&f->server, f->net, &e, &f->err), MODE_OK);
    assert_int_equal(news(f->client, &f->err), MODE_LINK_UP);
    mode_socket_close(&f->client);
}

static void test_a_client_without_keys_is_told_so(void **state)
{
    struct fixture *f = *state;
    struct mode_endpoint e = {.endpoint = f->ipc, .wire = MODE_WIRE_WORKER, .key_dir = f->keys, .key_name = "server"};
    assert_int_equal(mode_net_allow(f->net, f->allow, &f->err), MODE_OK);
    assert_int_equal(mode_socket_bind(&f->server, f->net, &e, &f->err), MODE_OK);
    e.key_dir = NULL;
    assert_int_equal(mode_socket_connect(&f->client, f->net, &e, &f->err), MODE_OK);
    assert_int_equal(news(f->client, &f->err), MODE_LINK_REFUSED);
    assert_non_null(strstr(f->err.text, "key"));
    mode_socket_close(&f->client);
    /* the other way round: keys here, none there */
    mode_socket_close(&f->server);
    assert_int_equal(mode_socket_bind(&f->server, f->net, &e, &f->err), MODE_OK);
    e.key_dir = f->keys;
    e.key_name = "w1";
    assert_int_equal(mode_socket_connect(&f->client, f->net, &e, &f->err), MODE_OK);
    assert_int_equal(news(f->client, &f->err), MODE_LINK_REFUSED);
    assert_non_null(strstr(f->err.text, "does not"));
    mode_socket_close(&f->client);
}

static void test_the_allow_list_is_reloaded(void **state)
{
    struct fixture *f = *state;
    char *text;
    serve_tcp(f, MODE_WIRE_WORKER);
    assert_int_equal(try_tcp(f, f->keys, "w1", NULL), MODE_LINK_UP);
    assert_int_equal(mode_file_read(f->allow, 0, &text, NULL, &f->err), MODE_OK);
    assert_int_equal(mode_file_write_atomic(f->allow, "# nobody\n", 9, &f->err), MODE_OK);
    assert_int_equal(mode_net_allow(f->net, f->allow, &f->err), MODE_OK);
    assert_int_equal(try_tcp(f, f->keys, "w1", NULL), MODE_LINK_REFUSED);
    assert_int_equal(mode_file_write_atomic(f->allow, "worker w1 tooshort\n", 19, &f->err), MODE_OK);
    assert_int_equal(mode_net_allow(f->net, f->allow, &f->err), MODE_E_CONFIG);
    assert_non_null(strstr(f->err.text, "allow:1:"));
    assert_int_equal(mode_file_write_atomic(f->allow, text, strlen(text), &f->err), MODE_OK);
    assert_int_equal(mode_net_allow(f->net, f->allow, &f->err), MODE_OK);
    assert_int_equal(try_tcp(f, f->keys, "w1", NULL), MODE_LINK_UP);
    free(text);
}

/* Whether the server accepts a message from c. */
static bool is_let_in(struct fixture *f, struct mode_socket *c)
{
    struct mode_packet p;
    assert_int_equal(zmq_send(mode_socket_handle(c), "x", 1, 0), 1);
    wait_readable(f->server);
    assert_int_equal(mode_socket_recv(f->server, &p, &f->err), MODE_OK);
    assert_non_null(p.data);
    assert_string_equal(p.user, "w1");
    bool yes = mode_packet_allowed(f->server, &p);
    mode_packet_clear(&p);
    return yes;
}

/* A session is bound to its key, not to its name, which may have another key now. */
static void test_a_replaced_key_ends_its_session(void **state)
{
    struct fixture *f = *state;
    struct mode_keypair pair;
    char *server = mode_path_join(f->keys, "server.pub");
    serve_tcp(f, MODE_WIRE_WORKER);
    struct mode_endpoint e = {.endpoint = mode_socket_endpoint(f->server),
                              .wire = MODE_WIRE_WORKER,
                              .key_dir = f->keys,
                              .key_name = "w1",
                              .server_pub = server};
    assert_int_equal(mode_socket_connect(&f->client, f->net, &e, &f->err), MODE_OK);
    assert_int_equal(news(f->client, &f->err), MODE_LINK_UP);
    assert_true(is_let_in(f, f->client));
    assert_int_equal(mode_keys_read(&pair, f->other_keys, "w1", &f->err), MODE_OK);
    char *line = mode_xasprintf("worker w1 %s\n", pair.public_key);
    assert_int_equal(mode_file_write_atomic(f->allow, line, strlen(line), &f->err), MODE_OK);
    assert_int_equal(mode_net_allow(f->net, f->allow, &f->err), MODE_OK);
    assert_false(is_let_in(f, f->client));
    e.key_dir = f->other_keys;
    assert_int_equal(mode_socket_connect(&f->other, f->net, &e, &f->err), MODE_OK);
    assert_int_equal(news(f->other, &f->err), MODE_LINK_UP);
    assert_true(is_let_in(f, f->other));
    free(line); /* nor is the same key accepted in another role */
    line = mode_xasprintf("admin w1 %s\n", pair.public_key);
    assert_int_equal(mode_file_write_atomic(f->allow, line, strlen(line), &f->err), MODE_OK);
    assert_int_equal(mode_net_allow(f->net, f->allow, &f->err), MODE_OK);
    assert_false(is_let_in(f, f->other));
    mode_socket_close(&f->client);
    mode_socket_close(&f->other);
    free(line);
    free(server);
}

static void test_endpoints_that_cannot_be(void **state)
{
    struct fixture *f = *state;
    struct mode_socket *s;
    struct mode_endpoint e = {.endpoint = "tcp://127.0.0.1:1234", .wire = MODE_WIRE_WORKER};
    assert_int_equal(mode_socket_bind(&s, f->net, &e, &f->err), MODE_E_CONFIG);
    assert_non_null(strstr(f->err.text, "keys only"));
    assert_int_equal(mode_socket_connect(&s, f->net, &e, &f->err), MODE_E_CONFIG);
    const char *bad[] = {
        "", "ipc://relative", "http://x:1", "tcp://noport",
        "ipc:///a/path/that/is/much/too/long/for/the/kernel/because/it/has/more/than/one/hundred/and/seven/"
        "bytes/in/it/xxxxxxxxxxxxxxxxxx"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        e.endpoint = bad[i];
        assert_int_equal(mode_socket_connect(&s, f->net, &e, &f->err), MODE_E_CONFIG);
        assert_null(s);
    }
    /* taken: a port, and an ipc path (which ZeroMQ itself would take over in silence) */
    serve_tcp(f, MODE_WIRE_WORKER);
    e = (struct mode_endpoint){.endpoint = mode_socket_endpoint(f->server), .key_dir = f->keys};
    assert_int_equal(mode_socket_bind(&s, f->net, &e, &f->err), MODE_E_CONFIG);
    assert_non_null(strstr(f->err.text, "taken"));
    mode_socket_close(&f->server);
    e = (struct mode_endpoint){.endpoint = f->ipc};
    assert_int_equal(mode_socket_bind(&f->server, f->net, &e, &f->err), MODE_OK);
    assert_int_equal(mode_socket_bind(&s, f->net, &e, &f->err), MODE_E_CONFIG);
    assert_non_null(strstr(f->err.text, "in use"));
}

static void test_garbage_and_oversize_do_not_get_through(void **state)
{
    struct fixture *f = *state;
    struct mode_packet p;
    struct mode_endpoint e = {.endpoint = f->ipc, .wire = MODE_WIRE_WORKER};
    assert_int_equal(mode_socket_bind(&f->server, f->net, &e, &f->err), MODE_OK);
    assert_int_equal(mode_socket_connect(&f->client, f->net, &e, &f->err), MODE_OK);
    assert_int_equal(news(f->client, &f->err), MODE_LINK_UP);
    void *z = mode_socket_handle(f->client);
    zmq_send(z, "a", 1, ZMQ_SNDMORE); /* two frames, then an empty one, then a good one */
    zmq_send(z, "b", 1, 0);
    zmq_send(z, "", 0, 0);
    zmq_send(z, "good", 4, 0);
    do { /* dropped messages made the socket readable, too */
        wait_readable(f->server);
        assert_int_equal(mode_socket_recv(f->server, &p, &f->err), MODE_OK);
    } while (!p.data);
    assert_int_equal(p.size, 4);
    assert_memory_equal(p.data, "good", 4);
    assert_int_equal(mode_socket_dropped(f->server), 2);
    /* to a peer that is gone */
    Mode__Ping ping = MODE__PING__INIT;
    Mode__Envelope env;
    uint64_t counter = 0;
    mode_envelope_init(&env, &counter, MODE__ENVELOPE__BODY_PING);
    env.ping = &ping;
    assert_int_equal(mode_socket_send(f->server, (const uint8_t *)"nobody", 6, &env, &f->err), MODE_E_TEMP);
    mode_packet_clear(&p);
    /* larger than the port allows: the connection is cut, the server lives */
    char *big = mode_xcalloc(1, MODE_WIRE_WORKER_MAX + 1);
    zmq_send(z, big, MODE_WIRE_WORKER_MAX + 1, 0);
    usleep(100000);
    assert_int_equal(mode_socket_recv(f->server, &p, &f->err), MODE_OK);
    assert_null(p.data);
    free(big);
    mode_socket_close(&f->client);
    assert_int_equal(mode_socket_connect(&f->client, f->net, &e, &f->err), MODE_OK);
    ping_pong(f, f->client, "");
    mode_socket_close(&f->client);
}

static void test_raw_connections_do_no_harm(void **state)
{
    struct fixture *f = *state;
    int fds[50], port;
    serve_tcp(f, MODE_WIRE_WORKER);
    assert_int_equal(sscanf(mode_socket_endpoint(f->server), "tcp://127.0.0.1:%d", &port), 1);
    for (int i = 0; i < 50; i++) {
        struct sockaddr_in a = {
            .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        fds[i] = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(connect(fds[i], (struct sockaddr *)&a, sizeof a), 0);
        if (i % 2) assert_int_equal(write(fds[i], "GET / HTTP/1.1\r\n\r\n", 18), 18);
    }
    assert_int_equal(try_tcp(f, f->keys, "w1", NULL), MODE_LINK_UP);
    for (int i = 0; i < 50; i++) close(fds[i]);
}

static void test_asking_nobody_ends_in_time(void **state)
{
    struct fixture *f = *state;
    struct mode_envelope *answer;
    struct mode_endpoint at = {.endpoint = f->ipc, .wire = MODE_WIRE_ADMIN};
    Mode__Status status = MODE__STATUS__INIT;
    Mode__Envelope e;
    uint64_t counter = 0;
    mode_envelope_init(&e, &counter, MODE__ENVELOPE__BODY_STATUS);
    e.status = &status;
    double t = mode_clock_s();
    assert_int_equal(mode_ask(&answer, f->net, &at, &e, 300, &f->err), MODE_E_PEER);
    assert_true(mode_clock_s() - t < 30);
    assert_non_null(strstr(f->err.text, "mode up"));
    assert_null(answer);
}

static void *answer_in_another_protocol(void *ctx)
{
    struct fixture *f = ctx;
    struct mode_error err;
    struct mode_packet p = {0};
    Mode__Ping ping = MODE__PING__INIT;
    Mode__Envelope e;
    uint64_t counter = 0;
    for (int i = 0; i < SOON_MS / 10 && !p.data; i++) {
        if (mode_socket_recv(f->server, &p, &err)) return NULL;
        usleep(10000);
    }
    mode_envelope_init(&e, &counter, MODE__ENVELOPE__BODY_PING);
    e.ping = &ping;
    e.major = MODE_WIRE_MAJOR + 1;
    mode_socket_send(f->server, p.route, p.n_route, &e, &err);
    mode_packet_clear(&p);
    return NULL;
}

static void test_an_answer_in_another_protocol_is_said(void **state)
{
    struct fixture *f = *state;
    struct mode_envelope *answer;
    struct mode_endpoint at = {.endpoint = f->ipc, .wire = MODE_WIRE_ADMIN};
    Mode__Status status = MODE__STATUS__INIT;
    Mode__Envelope e;
    pthread_t server;
    uint64_t counter = 0;
    mode_envelope_init(&e, &counter, MODE__ENVELOPE__BODY_STATUS);
    e.status = &status;
    assert_int_equal(mode_socket_bind(&f->server, f->net, &at, &f->err), MODE_OK);
    assert_int_equal(pthread_create(&server, NULL, answer_in_another_protocol, f), 0);
    assert_int_equal(mode_ask(&answer, f->net, &at, &e, SOON_MS, &f->err), MODE_E_CONFIG);
    assert_non_null(strstr(f->err.text, "protocol version 2.0, this build speaks 1.0"));
    assert_null(answer);
    pthread_join(server, NULL);
}

static void test_secret_keys_stay_secret(void **state)
{
    struct fixture *f = *state;
    struct mode_keypair a, b;
    struct stat sb;
    char *path = mode_path_join(f->keys, "w1.key");
    assert_int_equal(stat(path, &sb), 0);
    assert_int_equal(sb.st_mode & 0777, 0600);
    assert_int_equal(stat(f->keys, &sb), 0);
    assert_int_equal(sb.st_mode & 0777, 0700);
    assert_int_equal(mode_keys_read(&a, f->keys, "w1", &f->err), MODE_OK);
    assert_int_equal(mode_keys_add(f->keys, "w1", MODE_ROLE_WORKER, &f->err), MODE_OK); /* again: the same pair */
    assert_int_equal(mode_keys_read(&b, f->keys, "w1", &f->err), MODE_OK);
    assert_string_equal(a.secret_key, b.secret_key);
    assert_int_equal(mode_keys_add(f->keys, "w1", MODE_ROLE_ADMIN, &f->err), MODE_E_VALUE);
    assert_int_equal(mode_keys_add(f->keys, "../x", MODE_ROLE_WORKER, &f->err), MODE_E_VALUE);
    assert_int_equal(mode_keys_add(f->keys, "server", MODE_ROLE_WORKER, &f->err), MODE_E_VALUE);
    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(mode_keys_read(&b, f->keys, "w1", &f->err), MODE_E_PERM);
    assert_null(strstr(f->err.text, a.secret_key));
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        T(test_ipc_both_ways_and_private),
        T(test_tcp_with_keys_both_ways),
        T(test_strangers_are_refused_with_a_sentence),
        T(test_a_server_that_hangs_up_later_is_not_a_refusal),
        T(test_a_client_without_keys_is_told_so),
        T(test_the_allow_list_is_reloaded),
        T(test_a_replaced_key_ends_its_session),
        T(test_endpoints_that_cannot_be),
        T(test_garbage_and_oversize_do_not_get_through),
        T(test_raw_connections_do_no_harm),
        T(test_asking_nobody_ends_in_time),
        T(test_an_answer_in_another_protocol_is_said),
        T(test_secret_keys_stay_secret),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
