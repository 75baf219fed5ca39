/* The leader's side of a team of machines: which companions are admitted, what each is sent, what happens if one
 * leaves. */
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "base/version.h"
#include "msg/code_version.h"
#include "msg/keys.h"
#include "msg/machines.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include <cmocka.h>

#define STORE "0123456789abcdef0123456789abcdef"
#define KEY   "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

/* Turns of 10 ms, enough for an immediate event on a slow, loaded machine; on the team's clock only the first seconds
 * of them pass, or it would detect silence. */
enum { TURNS = 6000, TURNS_OF_TIME = 500 };

struct far { /* a companion, as far as the leader can tell */
    struct mode_socket *socket;
    uint64_t counter;
    Mode__Join join;
    struct mode_envelope *got; /* the last message but pings */
};

struct fixture {
    char dir[64], code[128];
    char *keys;
    struct mode_net *net;
    struct mode_machines_config config;
    struct mode_machines *m;
    struct far far[3]; /* here, so that tear_down closes them after a failed assertion too: closing net waits for it */
    int n_far;
    double now;
    struct mode_error err;
};

static void open_team(struct fixture *f, int n)
{
    f->config = (struct mode_machines_config){.endpoint = "tcp://127.0.0.1:*",
                                              .key_dir = f->keys,
                                              .word = "train",
                                              .store_id = STORE,
                                              .workspace = "/w",
                                              .n = n,
                                              .gpus = 2};
    assert_int_equal(mode_machines_open(&f->m, f->net, &f->config, &f->err), MODE_OK);
}

static int set_up(void **state)
{
    struct fixture *f = mode_xcalloc(1, sizeof *f);
    strcpy(f->dir, "/tmp/mode-machines-XXXXXX");
    if (!mkdtemp(f->dir)) return -1;
    f->keys = mode_path_join(f->dir, "keys");
    if (mode_keys_generate(f->keys, &f->err) || mode_keys_add(f->keys, "worker", MODE_ROLE_WORKER, &f->err) ||
        mode_net_open(&f->net, &f->err))
        return -1;
    mode_code_version(f->code, sizeof f->code, "train");
    f->now = 1000;
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < f->n_far; i++) {
        mode_envelope_free(&f->far[i].got);
        mode_socket_close(&f->far[i].socket);
    }
    mode_machines_close(&f->m);
    mode_net_close(&f->net);
    mode_dir_remove(f->dir, NULL);
    free(f->keys);
    free(f);
    return 0;
}

static struct far *far_new(struct fixture *f, const char *name, const char *session)
{
    assert_true((size_t)f->n_far < sizeof f->far / sizeof *f->far);
    struct far *x = &f->far[f->n_far++];
    const struct mode_endpoint e = {
        .endpoint = mode_machines_endpoint(f->m), .wire = MODE_WIRE_WORKER, .key_dir = f->keys, .key_name = "worker"};
    assert_int_equal(mode_socket_connect(&x->socket, f->net, &e, &f->err), MODE_OK);
    mode__join__init(&x->join);
    x->join.session = (char *)(uintptr_t)session;
    x->join.service = "train";
    x->join.code_version = f->code;
    x->join.build = (char *)(uintptr_t)mode_version;
    x->join.name = (char *)(uintptr_t)name;
    x->join.store_id = STORE;
    x->join.workspace = "/w";
    x->join.gpus = 3;
    return x;
}

static void say(struct far *x, Mode__Envelope *e)
{
    struct mode_error err;
    enum mode_status st = MODE_E_TEMP;
    for (int i = 0; i < TURNS && st == MODE_E_TEMP; i++) { /* until it is connected */
        st = mode_socket_send(x->socket, NULL, 0, e, &err);
        if (st) usleep(10000);
    }
    assert_int_equal(st, MODE_OK);
}

static void say_join(struct far *x)
{
    Mode__Envelope e;
    mode_envelope_init(&e, &x->counter, MODE__ENVELOPE__BODY_JOIN);
    e.join = &x->join;
    say(x, &e);
}

static void say_ended(struct far *x, uint64_t fence, uint32_t rank, uint32_t signal)
{
    Mode__Envelope e;
    Mode__RankEnded r = MODE__RANK_ENDED__INIT;
    mode_envelope_init(&e, &x->counter, MODE__ENVELOPE__BODY_RANK_ENDED);
    r.fence = fence;
    r.rank = rank;
    r.has_signal = signal != 0;
    r.signal = signal;
    r.has_exit_code = !signal;
    e.rank_ended = &r;
    say(x, &e);
}

static void turn(struct fixture *f, int i)
{
    mode_machines_turn(f->m, f->now += i < TURNS_OF_TIME ? 0.01 : 0);
}

/* The next message of that kind. */
static void expect(struct fixture *f, struct far *x, Mode__Envelope__BodyCase body)
{
    for (int i = 0; i < TURNS; i++) {
        struct mode_packet p;
        turn(f, i);
        assert_int_equal(mode_socket_recv(x->socket, &p, &f->err), MODE_OK);
        if (!p.data) {
            usleep(10000);
            continue;
        }
        mode_envelope_free(&x->got);
        assert_int_equal(mode_envelope_unpack(&x->got, p.data, p.size, MODE_WIRE_WORKER, &f->err), MODE_OK);
        mode_packet_clear(&p);
        if (x->got->msg->body_case == body) return;
        assert_int_equal(x->got->msg->body_case, MODE__ENVELOPE__BODY_PING);
    }
    fail_msg("message %d does not come", (int)body);
}

static void until(struct fixture *f, bool (*is_so)(const struct mode_machines *m))
{
    for (int i = 0; i < TURNS && !is_so(f->m); i++) {
        turn(f, i);
        usleep(10000);
    }
    assert_true(is_so(f->m));
}

static bool has_news(const struct mode_machines *m)
{
    return mode_machines_news(m) != NULL;
}

static struct mode_compute_news next_news(struct fixture *f)
{
    until(f, has_news);
    const struct mode_compute_news news = *mode_machines_news(f->m);
    assert_ptr_equal(mode_machines_news(f->m), mode_machines_news(f->m)); /* it stays until it was handled */
    mode_machines_told(f->m);
    return news;
}

static void expect_text(struct fixture *f, const char *want)
{
    char text[64];
    mode_machines_text(f->m, text, sizeof text);
    assert_string_equal(text, want);
}

static void join(struct fixture *f, struct far *x)
{
    say_join(x);
    expect(f, x, MODE__ENVELOPE__BODY_PING);
}

/* A team of two machines, with the other one connected. */
static struct far *join_first(struct fixture *f)
{
    open_team(f, 2);
    struct far *x = far_new(f, "node-b", "11111111111111111111111111111111");
    join(f, x);
    return x;
}

/* A task of `size` processes begins on machines `far`, the first of which gets n. */
static void begin(struct fixture *f, struct far *x, struct mode_compute_others *others, int size, int n)
{
    struct mode_compute_call call = {.fence = 7, .size = size, .first = {2}, .n = {n}, .backend = "cuda"};
    memset(call.secret, 5, sizeof call.secret);
    strcpy(call.inputs, "/w/tmp/job/in");
    mode_machines_lend(f->m, others, KEY, 7);
    assert_false(mode_machines_ready(f->m));
    mode_machines_begin(f->m, &call);
    expect(f, x, MODE__ENVELOPE__BODY_BEGIN_RANKS);
}

static void test_all_have_to_be_there(void **state)
{
    struct fixture *f = *state;
    struct mode_compute_others others;
    open_team(f, 3);
    struct far *b = far_new(f, "node-b", "11111111111111111111111111111111"),
               *a = far_new(f, "node-a", "22222222222222222222222222222222"),
               *c = far_new(f, "node-c", "33333333333333333333333333333333");
    expect_text(f, "3 machines, 2 missing");
    join(f, b);
    expect_text(f, "3 machines, 1 missing");
    assert_false(mode_machines_ready(f->m));
    a->join.gpus = 1;
    join(f, a);
    say_join(a); /* repeated: no effect */
    until(f, mode_machines_ready);
    expect_text(f, "3 machines, 6 GPUs");
    say_join(c);
    expect(f, c, MODE__ENVELOPE__BODY_REJECT);
    assert_int_equal(c->got->msg->reject->code, MODE__REJECT_CODE__REJECT_LIMIT);
    mode_machines_lend(f->m, &others, KEY, 7); /* in the order of names, not of arrival */
    assert_int_equal(others.n, 2);
    assert_string_equal(others.name[0], "node-a");
    assert_int_equal(others.gpus[0], 1);
    assert_int_equal(others.gpus[1], 3);
    const char *port = strrchr(mode_machines_endpoint(f->m), ':') + 1;
    char want[64];
    snprintf(want, sizeof want, "127.0.0.1:%d", atoi(port) + 1);
    assert_string_equal(others.place, want);
    mode_machines_end(f->m);
    assert_true(mode_machines_ready(f->m));
}

static void test_who_does_not_fit_is_told_why(void **state)
{
    struct fixture *f = *state;
    open_team(f, 2);
    struct far *x = far_new(f, "node-b", "11111111111111111111111111111111");
    const Mode__Join good = x->join;
    struct {
        size_t field;
        const char *value;
        Mode__RejectCode code;
        const char *says;
    } cases[] = {
        {offsetof(Mode__Join, code_version), "train-77", MODE__REJECT_CODE__REJECT_CODE, "whose outputs are train-77"},
        {offsetof(Mode__Join, build), "0.0.9", MODE__REJECT_CODE__REJECT_CODE, "of version 0.0.9"},
        {offsetof(Mode__Join, service), "embed", MODE__REJECT_CODE__REJECT_CODE, "this is embed"},
        {offsetof(Mode__Join, store_id), "f", MODE__REJECT_CODE__REJECT_STORE, "another store"},
        {offsetof(Mode__Join, workspace), "/v", MODE__REJECT_CODE__REJECT_STORE, "the workspace is /v there and /w"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        x->join = good;
        memcpy((char *)&x->join + cases[i].field, &cases[i].value, sizeof cases[i].value);
        say_join(x);
        expect(f, x, MODE__ENVELOPE__BODY_REJECT);
        assert_int_equal(x->got->msg->reject->code, cases[i].code);
        assert_non_null(strstr(x->got->msg->reject->text, cases[i].says));
        expect_text(f, "2 machines, 1 missing");
    }
    x->join = good;
    join(f, x);
    expect_text(f, "2 machines, 5 GPUs");
}

/* The allow list is reloaded: a removed companion is dropped, with its work, and may connect again once it is back. */
static void test_a_key_that_is_taken_away_takes_its_machine_along(void **state)
{
    struct fixture *f = *state;
    struct mode_compute_others others;
    struct far *x = join_first(f);
    char *allow = mode_path_join(f->keys, "allow"), *kept;
    begin(f, x, &others, 4, 2);
    mode_machines_read_keys(f->m); /* nothing changed */
    assert_int_equal(mode_file_read(allow, 4096, &kept, NULL, &f->err), MODE_OK);
    assert_int_equal(mode_file_write_atomic(allow, "no list\n", 8, &f->err), MODE_OK);
    mode_machines_read_keys(f->m); /* unreadable: the old one is kept */
    say_ended(x, 7, 3, 9);
    assert_int_equal(next_news(f).rank, 3);
    assert_int_equal(mode_file_write_atomic(allow, "# nobody\n", 9, &f->err), MODE_OK);
    mode_machines_read_keys(f->m);
    say_ended(x, 7, 2, 9); /* as good as any message */
    struct mode_compute_news news = next_news(f);
    assert_true(news.gone);
    expect(f, x, MODE__ENVELOPE__BODY_REJECT);
    assert_int_equal(x->got->msg->reject->code, MODE__REJECT_CODE__REJECT_PERMISSION);
    expect_text(f, "2 machines, 1 missing");
    mode_machines_end(f->m);
    assert_int_equal(mode_file_write_atomic(allow, kept, strlen(kept), &f->err), MODE_OK);
    mode_machines_read_keys(f->m);
    join(f, x);
    expect_text(f, "2 machines, 5 GPUs");
    free(kept);
    free(allow);
}

static void test_a_task_from_its_beginning_to_its_end(void **state)
{
    struct fixture *f = *state;
    struct mode_compute_others others;
    struct far *x = join_first(f);
    begin(f, x, &others, 4, 2);
    const Mode__BeginRanks *b = x->got->msg->begin_ranks;
    assert_string_equal(b->key, KEY);
    assert_int_equal(b->fence, 7);
    assert_int_equal(b->first, 2);
    assert_int_equal(b->n, 2);
    assert_int_equal(b->size, 4);
    assert_int_equal(b->secret.len, MODE_TEAM_SECRET);
    assert_int_equal(b->secret.data[31], 5);
    assert_string_equal(b->inputs, "/w/tmp/job/in");
    assert_null(b->checkpoint);
    assert_int_equal(b->port, atoi(strrchr(others.place, ':') + 1));
    say_ended(x, 7, 3, 9);
    struct mode_compute_news news = next_news(f);
    assert_int_equal(news.fence, 7);
    assert_int_equal(news.rank, 3);
    assert_false(news.gone);
    assert_true(WIFSIGNALED(news.how) && WTERMSIG(news.how) == 9);
    mode_machines_end(f->m);
    expect(f, x, MODE__ENVELOPE__BODY_END_RANKS);
    assert_false(mode_machines_ready(f->m));      /* process 2 still has its GPU */
    expect(f, x, MODE__ENVELOPE__BODY_END_RANKS); /* repeated, in case it was lost */
    say_ended(x, 7, 2, 9);
    until(f, mode_machines_ready);
    assert_null(mode_machines_news(f->m)); /* no longer of interest */
}

static void test_a_connection_that_goes_takes_its_processes_along(void **state)
{
    struct fixture *f = *state;
    struct mode_compute_others others;
    struct far *x = join_first(f);
    begin(f, x, &others, 4, 2);
    say_join(x); /* as after a lost connection */
    struct mode_compute_news news = next_news(f);
    assert_true(news.gone);
    assert_int_equal(news.rank, 2);
    mode_machines_end(f->m);
    until(f, mode_machines_ready); /* it is back */
    begin(f, x, &others, 4, 2);
    mode_socket_close(&x->socket);
    news = next_news(f);
    assert_true(news.gone);
    expect_text(f, "2 machines, 1 missing");
    mode_machines_end(f->m);
    assert_false(mode_machines_ready(f->m));
}

static void test_silence_is_an_end_too(void **state)
{
    struct fixture *f = *state;
    join_first(f);
    mode_machines_turn(f->m, f->now += 29);
    assert_true(mode_machines_ready(f->m));
    mode_machines_turn(f->m, f->now += 2);
    expect_text(f, "2 machines, 1 missing");
}

static void test_goodbyes(void **state)
{
    struct fixture *f = *state;
    struct mode_compute_others others;
    struct far *x = join_first(f);
    Mode__Envelope e;
    Mode__Bye bye = MODE__BYE__INIT;
    begin(f, x, &others, 3, 1);
    assert_false(mode_machines_leaving(f->m));
    mode_envelope_init(&e, &x->counter, MODE__ENVELOPE__BODY_BYE);
    e.bye = &bye;
    say(x, &e);
    until(f, mode_machines_leaving); /* the task may still reach a checkpoint */
    say_ended(x, 7, 2, 0);
    assert_int_equal(next_news(f).how, 0);
    mode_machines_end(f->m);
    assert_false(mode_machines_leaving(f->m));
    assert_false(mode_machines_ready(f->m)); /* it does not take another one */
}

static void test_places(void **state)
{
    struct fixture *f = *state;
    char place[MODE_MEETING_PLACE];
    assert_true(mode_team_place(place, "tcp://node0:5610", 0));
    assert_string_equal(place, "node0:5611");
    assert_true(mode_team_place(place, "tcp://node0:5610", 7));
    assert_string_equal(place, "node0:7");
    assert_true(mode_team_place(place, "tcp://*:5610", 0));
    assert_string_equal(place, "0.0.0.0:5611");
    assert_true(mode_team_place(place, "tcp://[::1]:5610", 0));
    assert_string_equal(place, "::1:5611");
    assert_int_equal(mode_team_check("tcp://127.0.0.1:5610", true, &f->err), MODE_OK);
    assert_int_equal(mode_team_check("tcp://not.yet.known:5610", false, &f->err), MODE_OK);
    static const char *const bad[] = {"ipc:///tmp/x", "tcp://127.0.0.1:*", "tcp://127.0.0.1:65535", "127.0.0.1:5610",
                                      "tcp://127.0.0.999:5610"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(mode_team_check(bad[i], true, &f->err), MODE_E_CONFIG);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(test_all_have_to_be_there),
        T(test_who_does_not_fit_is_told_why),
        T(test_a_key_that_is_taken_away_takes_its_machine_along),
        T(test_a_task_from_its_beginning_to_its_end),
        T(test_a_connection_that_goes_takes_its_processes_along),
        T(test_silence_is_an_end_too),
        T(test_goodbyes),
        T(test_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
