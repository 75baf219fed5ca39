/* How processes meet: on a path and on a port, who does not fit, who does not come, who has gone. */
#include "free_port.h"
#include "socket_ranks.h"

#include "base/clock.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cmocka.h>

struct claim {      /* what one process says, and what comes of it */
    int rank, size; /* -1: as it is */
    double timeout_s;
    bool second; /* it comes, or looks around, when the one that is first is there */
};

static enum mode_status come(struct mode_meeting **m, int rank, int size, const char *place, double timeout_s,
                             struct mode_error *err)
{
    const struct mode_meeting_options o = {.rank = rank, .size = size, .place = place, .timeout_s = timeout_s};
    return mode_meeting_open(m, &o, err);
}

/* What the processes of a claim know of each other; memory that all of them have. */
static struct scene {
    atomic_bool there; /* process 1 has been to the place, and said who it is */
    atomic_bool left;  /* process 0 gave up before it looked whether somebody is there */
} * scene;

/* Asked while process 1 waits. */
static bool tells_when_there(void *place)
{
    struct sockaddr_un a = {0};
    for (int fd = 0; fd < 100; fd++) {
        socklen_t len = sizeof a;
        if (getpeername(fd, (struct sockaddr *)&a, &len) == 0 && a.sun_family == AF_UNIX && !strcmp(a.sun_path, place))
            scene->there = true;
    }
    return scene->left;
}

static bool waits_for_the_first(void *waits)
{
    while (*(bool *)waits && !scene->there) usleep(1000);
    *(bool *)waits = false;
    return false;
}

static int exchange(int rank, int size, const char *place, void *ctx)
{
    struct mode_meeting *m;
    struct mode_error err;
    uint32_t rows[8][3] = {{0}};
    if (rank != 0) usleep((useconds_t)(size - rank) * 20000); /* in any order; 0 last as a rule */
    if (come(&m, rank, size, ctx ? ctx : place, MEET_S, &err)) return fprintf(stderr, "%s\n", err.text), 1;
    for (uint32_t round = 0; round < 50; round++) {
        for (uint32_t k = 0; k < 3; k++) rows[rank][k] = round * 100 + (uint32_t)rank * 10 + k;
        if (mode_meeting_all_gather(m, rows, sizeof rows[0], &err)) return 2;
        for (uint32_t r = 0; r < (uint32_t)size; r++)
            for (uint32_t k = 0; k < 3; k++)
                if (rows[r][k] != round * 100 + r * 10 + k) return 3;
    }
    if (mode_meeting_barrier(m, &err)) return 4;
    struct stat st;
    if (!ctx && stat(place, &st) == 0) return 5; /* nothing is left lying about */
    mode_meeting_close(&m);
    return 0;
}

static void test_everyone_hears_everyone(void **state)
{
    int ended[8];
    (void)state;
    for (int size = 1; size <= 5; size += 2) {
        run_ranks(ended, size, exchange, NULL);
        for (int r = 0; r < size; r++) assert_int_equal(ended[r], 0);
    }
}

static void test_a_port_will_do(void **state)
{
    int ended[3];
    char place[64];
    (void)state;
    snprintf(place, sizeof place, "127.0.0.1:%d", free_port());
    run_ranks(ended, 3, exchange, place);
    for (int r = 0; r < 3; r++) assert_int_equal(ended[r], 0);
}

static int claim(int rank, int size, const char *place, void *ctx)
{
    const struct claim *c = (const struct claim *)ctx + rank;
    struct mode_meeting *m;
    struct mode_error err = {0};
    char own[108];
    bool waits = c->second;
    struct mode_meeting_options o = {.rank = c->rank < 0 ? rank : c->rank,
                                     .size = c->size < 0 ? size : c->size,
                                     .place = place,
                                     .timeout_s = c->timeout_s};
    snprintf(own, sizeof own, "%s", place);
    o.stopping = rank == 1 ? tells_when_there : waits_for_the_first;
    o.ctx = rank == 1 ? (void *)own : &waits;
    enum mode_status st = mode_meeting_open(&m, &o, &err);
    if (rank == 0 && waits) scene->left = true;
    if (st == MODE_E_VALUE && !strstr(err.text, "process")) return 1;
    if (!st && mode_meeting_barrier(m, &err)) st = err.status;
    mode_meeting_close(&m);
    return mode_status_exit_code(st);
}

static void run_claims(int *ended, int size, struct claim *c)
{
    scene = mmap(NULL, sizeof *scene, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(scene != MAP_FAILED);
    run_ranks(ended, size, claim, c);
}

static void test_who_does_not_fit_ends_it_for_all(void **state)
{
    int ended[3];
    (void)state;
    struct claim twice[] = {{-1, -1, MEET_S, false}, {1, -1, MEET_S, false}, {1, -1, MEET_S, true}};
    run_claims(ended, 3, twice);
    for (int r = 0; r < 3; r++) assert_int_equal(ended[r], 65);
    struct claim other_size[] = {{-1, -1, MEET_S, false}, {-1, -1, MEET_S, false}, {2, 4, MEET_S, true}};
    run_claims(ended, 3, other_size);
    for (int r = 0; r < 3; r++) assert_int_equal(ended[r], 65);
}

static void test_who_does_not_come_is_not_waited_for(void **state)
{
    int ended[2];
    struct claim alone[] = {{0, 3, 0.3, true}, {1, 3, 2 * MEET_S, false}};
    (void)state;
    double began = mode_clock_s();
    for (run_claims(ended, 2, alone); scene->left && alone[0].timeout_s < 60; run_claims(ended, 2, alone))
        alone[0].timeout_s *= 3; /* it got no processor while it was to wait */
    assert_int_equal(ended[0], 69);
    assert_int_equal(ended[1], 69);
    assert_true(mode_clock_s() - began < MEET_S); /* process 1 was told by process 0 */
    struct claim nobody[] = {{1, 2, 0.3, false}};
    run_claims(ended, 1, nobody);
    assert_int_equal(ended[0], 69);
}

static int with_secret(int rank, int size, const char *place, void *ctx)
{
    const uint8_t *const *secrets = ctx;
    struct mode_meeting *m;
    struct mode_error err;
    const struct mode_meeting_options o = {.rank = rank,
                                           .size = size,
                                           .place = place,
                                           .timeout_s = secrets[0] == secrets[1] ? MEET_S : 1,
                                           .secret = secrets[rank]};
    enum mode_status st = mode_meeting_open(&m, &o, &err);
    mode_meeting_close(&m);
    return (int)st;
}

static void test_who_does_not_know_the_secret_is_a_stranger(void **state)
{
    static const uint8_t one[MODE_MEETING_SECRET] = {1}, other[MODE_MEETING_SECRET] = {[31] = 1};
    const uint8_t *same[] = {one, one}, *differ[] = {one, other}, *none[] = {one, NULL}, *given[] = {NULL, one};
    int ended[2];
    (void)state;
    run_ranks(ended, 2, with_secret, same);
    for (int r = 0; r < 2; r++) assert_int_equal(ended[r], MODE_OK);
    const uint8_t **wrong[] = {differ, none, given};
    for (int i = 0; i < 3; i++) {
        run_ranks(ended, 2, with_secret, wrong[i]);
        for (int r = 0; r < 2; r++) assert_int_equal(ended[r], MODE_E_PEER);
    }
}

static void test_places_that_make_no_sense(void **state)
{
    struct mode_meeting *m;
    struct mode_error err;
    char longest[300];
    (void)state;
    memset(longest, '/', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    const char *const places[] = {"nowhere", ":80", "host:", longest};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        assert_int_equal(come(&m, 0, 2, places[i], 1, &err), MODE_E_VALUE);
        assert_null(m);
    }
    assert_int_equal(come(&m, 2, 2, "/tmp/x", 1, &err), MODE_E_VALUE);
    assert_int_equal(come(&m, 0, MODE_RANKS_MAX + 1, "/tmp/x", 1, &err), MODE_E_VALUE);
    assert_int_equal(come(&m, 0, 2, "/nonexistent/folder/x", 1, &err), MODE_E_CREATE);
}

/* A file that a killed process left is taken over; one where somebody listens is not, nor is a file of another kind. */
static void test_a_place_that_is_taken(void **state)
{
    char path[] = "/tmp/mode-meeting-XXXXXX";
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct mode_meeting *m;
    struct mode_error err;
    (void)state;
    int file = mkstemp(path);
    assert_true(file >= 0);
    close(file);
    assert_int_equal(come(&m, 0, 2, path, 0.2, &err), MODE_E_CREATE);
    assert_int_equal(unlink(path), 0);
    strcpy(a.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(come(&m, 0, 2, path, 0.2, &err), MODE_E_CREATE);
    close(fd);
    assert_int_equal(come(&m, 0, 2, path, 0.2, &err), MODE_E_PEER);
    assert_int_equal(access(path, F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everyone_hears_everyone),
        cmocka_unit_test(test_a_port_will_do),
        cmocka_unit_test(test_who_does_not_fit_ends_it_for_all),
        cmocka_unit_test(test_who_does_not_come_is_not_waited_for),
        cmocka_unit_test(test_who_does_not_know_the_secret_is_a_stranger),
        cmocka_unit_test(test_places_that_make_no_sense),
        cmocka_unit_test(test_a_place_that_is_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
