/* Rendezvous of ranks at a socket path or a port: ranks that do not match, do not arrive, or are gone. */
#include "free_port.h"
#include "socket_ranks.h"

#include "base/clock.h"
#include "base/file.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>

#include <cmocka.h>

struct claim {      /* what one process claims to be, and its result */
    int rank, size; /* -1: as it is */
    double timeout_s;
    bool second; /* it arrives, or checks, after the one that is first */
};

static enum mode_status come(struct mode_meeting **m, int rank, int size, const char *place, double timeout_s,
                             struct mode_error *err)
{
    const struct mode_meeting_options o = {.rank = rank, .size = size, .place = place, .timeout_s = timeout_s};
    return mode_meeting_open(m, &o, err);
}

/* TCP keepalive is on, Nagle's algorithm off. */
static bool asks(int fd)
{
    int alive = 0, idle = 0, at_once = 0;
    socklen_t len = sizeof alive;
    return getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &alive, &len) == 0 && alive &&
           getsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, &len) == 0 && idle <= 60 &&
           getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &at_once, &len) == 0 && at_once;
}

/* State that the processes of a claim share. */
static struct scene {
    atomic_bool there; /* process 1 has connected and sent its hello */
    atomic_bool left;  /* process 0 timed out before it polled */
} * scene;

/* The `stopping` hook of process 1, called while it waits. */
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
    const int fds = open_fds();
    if (rank != 0) usleep((useconds_t)(size - rank) * 20000); /* arrival order; rank 0 usually last */
    if (come(&m, rank, size, ctx ? ctx : place, MEET_S, &err)) return fprintf(stderr, "%s\n", err.text), 1;
    for (int r = 0; r < size; r++)
        if (ctx && m->fd[rank ? 0 : r] >= 0 && !asks(m->fd[rank ? 0 : r])) return 6;
    for (uint32_t round = 0; round < 50; round++) {
        for (uint32_t k = 0; k < 3; k++) rows[rank][k] = round * 100 + (uint32_t)rank * 10 + k;
        if (mode_meeting_all_gather(m, rows, sizeof rows[0], &err)) return 2;
        for (uint32_t r = 0; r < (uint32_t)size; r++)
            for (uint32_t k = 0; k < 3; k++)
                if (rows[r][k] != round * 100 + r * 10 + k) return 3;
    }
    if (mode_meeting_barrier(m, &err)) return 4;
    struct stat st;
    if (!ctx && stat(place, &st) == 0) return 5; /* the socket file is removed */
    mode_meeting_close(&m);
    return open_fds() == fds ? 0 : 7;
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

static void on_signal(int number)
{
    (void)number;
}

/* More than a socket's buffer holds, with signals that interrupt every call (EINTR, short counts). */
static int exchange_in_rain(int rank, int size, const char *place, void *ctx)
{
    enum { BYTES = 1 << 20 };
    const struct sigaction act = {.sa_handler = on_signal};
    const struct itimerval often = {{0, 300}, {0, 300}}, never = {{0, 0}, {0, 0}};
    struct mode_meeting *m;
    struct mode_error err;
    uint8_t *rows = mode_xcalloc((size_t)size, BYTES);
    int wrong = 0;
    (void)ctx;
    if (come(&m, rank, size, place, MEET_S, &err)) return fprintf(stderr, "%s\n", err.text), 1;
    if (sigaction(SIGALRM, &act, NULL) || setitimer(ITIMER_REAL, &often, NULL)) return 2;
    for (int round = 1; round < 20 && !wrong; round++) {
        memset(rows + (size_t)rank * BYTES, round + rank, BYTES);
        if (mode_meeting_all_gather(m, rows, BYTES, &err)) wrong = 3;
        for (int r = 0; r < size && !wrong; r++)
            if (rows[(size_t)r * BYTES] != round + r || rows[(size_t)(r + 1) * BYTES - 1] != round + r) wrong = 4;
    }
    (void)setitimer(ITIMER_REAL, &never, NULL);
    mode_meeting_close(&m);
    free(rows);
    return wrong;
}

static void test_signals_break_nothing_off(void **state)
{
    int ended[2];
    (void)state;
    run_ranks(ended, 2, exchange_in_rain, NULL);
    for (int r = 0; r < 2; r++) assert_int_equal(ended[r], 0);
}

/* The socket file is accessible to this user alone, and the umask is restored afterwards. */
static int look_at_the_file(int rank, int size, const char *place, void *ctx)
{
    const mode_t mask = umask(022);
    struct mode_meeting *m;
    struct mode_error err;
    struct stat st;
    (void)ctx;
    for (int n = 0; rank > 0 && stat(place, &st); n++, usleep(1000))
        if (n > 20000) return 1;
    if (rank > 0 && (st.st_mode & 0777) != 0600) return 2;
    if (come(&m, rank, size, place, MEET_S, &err)) return 3;
    if (umask(mask) != 022) return 4;
    mode_meeting_close(&m);
    return 0;
}

static void test_the_socket_file_is_nobody_elses(void **state)
{
    int ended[2];
    (void)state;
    run_ranks(ended, 2, look_at_the_file, NULL);
    for (int r = 0; r < 2; r++) assert_int_equal(ended[r], 0);
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
    const int fds = open_fds();
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
    return open_fds() == fds ? mode_status_exit_code(st) : 2;
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
        alone[0].timeout_s *= 3; /* it was not scheduled within its timeout */
    assert_int_equal(ended[0], 69);
    assert_int_equal(ended[1], 69);
    assert_true(mode_clock_s() - began < MEET_S); /* process 0 sent the failure to process 1 */
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

static bool soon(void *ctx)
{
    return ++*(int *)ctx > 2;
}

/* A process that is asked to stop does not wait for the rest. */
static int stops(int rank, int size, const char *place, void *ctx)
{
    int asked = 0;
    struct mode_meeting *m;
    struct mode_error err;
    const struct mode_meeting_options o = {
        .rank = rank, .size = size + 1, .place = place, .timeout_s = MEET_S, .stopping = soon, .ctx = &asked};
    const enum mode_status st = mode_meeting_open(&m, &o, &err);
    (void)ctx;
    return st == MODE_E_STOPPED && !m ? 0 : 1;
}

static int stops_alone(int rank, int size, const char *place, void *ctx)
{
    return stops(rank + 1, size, place, ctx);
}

static void test_who_is_to_stop_does_not_wait(void **state)
{
    int ended[1];
    const double began = mode_clock_s();
    (void)state;
    run_ranks(ended, 1, stops, NULL);
    assert_int_equal(ended[0], 0);
    run_ranks(ended, 1, stops_alone, NULL); /* process 0 has not started yet */
    assert_int_equal(ended[0], 0);
    assert_true(mode_clock_s() - began < MEET_S);
}

/* Connects as soon as somebody listens. */
static int connect_to(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    strcpy(a.sun_path, path);
    for (int n = 0; connect(fd, (const struct sockaddr *)&a, sizeof a); n++, usleep(1000))
        if (n > 20000) return -1;
    return fd;
}

/* The first bytes of a connection, as in dist/meeting.c. */
struct hello {
    char magic[8];
    uint8_t secret[MODE_MEETING_SECRET];
    int32_t rank, size;
};

static const struct hello dripping = {.magic = "MODEmeet"}; /* four bytes per second */

/* Process 2 is a stranger that sends `ctx`, or nothing; the other two are a group. */
static int beside_a_stranger(int rank, int size, const char *place, void *ctx)
{
    struct mode_meeting *m;
    struct mode_error err;
    char answer[256], here[128];
    snprintf(here, sizeof here, "%s.here", place);
    if (rank == 2) {
        const int fd = connect_to(place);
        if (fd < 0) return 1;
        if (ctx && ctx != &dripping && send(fd, ctx, sizeof dripping, MSG_NOSIGNAL) != sizeof dripping) return 1;
        if (mkdir(here, 0700)) return 8;
        for (size_t i = 0; ctx == &dripping && i < sizeof dripping; i++, usleep(250000))
            if (send(fd, (const char *)ctx + i, 1, MSG_NOSIGNAL) != 1) return 0; /* disconnected midway */
        return recv(fd, answer, sizeof answer, 0) > 0 ? 2 : 0;                   /* no answer: closed */
    }
    const int fds = open_fds();
    while (rank == 1 && rmdir(here)) usleep(1000); /* or the rendezvous may be over before it connects */
    if (come(&m, rank, size - 1, place, MEET_S, &err)) return fprintf(stderr, "%s\n", err.text), 3;
    if (mode_meeting_barrier(m, &err)) return 4;
    mode_meeting_close(&m);
    return open_fds() != fds ? 6 : 0;
}

static void test_strangers_are_sent_away(void **state)
{
    static const struct hello other = {.magic = "MODEmeat", .rank = 1, .size = 2};
    int ended[3];
    (void)state;
    run_ranks(ended, 3, beside_a_stranger, (void *)(uintptr_t)&other);
    for (int r = 0; r < 3; r++) assert_int_equal(ended[r], 0);
    run_ranks(ended, 3, beside_a_stranger, NULL);
    for (int r = 0; r < 3; r++) assert_int_equal(ended[r], 0);
    const double start = mode_clock_s();
    run_ranks(ended, 3, beside_a_stranger, (void *)(uintptr_t)&dripping);
    for (int r = 0; r < 3; r++) assert_int_equal(ended[r], 0);
    assert_true(mode_clock_s() - start < 0.25 * sizeof dripping - 1); /* or all its bytes were waited for */
}

/* A valid hello with a rank out of range. */
static int odd_rank(int rank, int size, const char *place, void *ctx)
{
    struct hello h = {.magic = "MODEmeet", .size = size};
    struct mode_meeting *m;
    struct mode_error err;
    if (rank == 0) return (int)come(&m, 0, size, place, MEET_S, &err);
    const int fd = connect_to(place);
    h.rank = *(const int *)ctx;
    if (fd < 0 || send(fd, &h, sizeof h, MSG_NOSIGNAL) != sizeof h) return 1;
    int32_t answer = 0;
    return recv(fd, &answer, sizeof answer, 0) == sizeof answer ? (int)answer : 2;
}

static void test_a_rank_that_nobody_has(void **state)
{
    static const int odd[] = {0, -1, 2};
    (void)state;
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        int ended[2];
        run_ranks(ended, 2, odd_rank, (void *)(uintptr_t)&odd[i]);
        for (int r = 0; r < 2; r++) assert_int_equal(ended[r], MODE_E_VALUE);
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
    char too_long[sizeof((struct sockaddr_un){0}).sun_path + 1]; /* by one */
    memset(too_long, '/', sizeof too_long);
    too_long[sizeof too_long - 1] = '\0';
    const char *const places[] = {"nowhere", ":80", "host:", longest, too_long};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        assert_int_equal(come(&m, 0, 2, places[i], 1, &err), MODE_E_VALUE);
        assert_null(m);
    }
    assert_int_equal(come(&m, 2, 2, "/tmp/x", 1, &err), MODE_E_VALUE);
    assert_int_equal(come(&m, 0, MODE_RANKS_MAX + 1, "/tmp/x", 1, &err), MODE_E_VALUE);
    assert_int_equal(come(&m, 0, 2, "/nonexistent/folder/x", 1, &err), MODE_E_CREATE);
}

/* A stale socket of a killed process is replaced; one that somebody listens on is not, nor is a file of another
 * kind. */
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
    assert_null(m);
    assert_int_equal(access(path, F_OK), -1);
}

struct beginner {
    int folder, fd;
};

static void *listens_at_last(void *ctx)
{
    const struct beginner *b = ctx;
    usleep(300000);
    return listen(b->fd, 1) == 0 && flock(b->folder, LOCK_UN) == 0 ? ctx : NULL;
}

/* Another rank 0 has bound the socket and does not listen yet: that is not stale. */
static void test_a_place_that_is_just_taken(void **state)
{
    char folder[] = "/tmp/mode-meeting-XXXXXX";
    assert_non_null(mkdtemp(folder));
    char *path = mode_path_join(folder, "place");
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct beginner b = {open(folder, O_RDONLY | O_DIRECTORY), socket(AF_UNIX, SOCK_STREAM, 0)};
    struct mode_meeting *m;
    struct mode_error err;
    struct stat before, after;
    pthread_t thread;
    void *ended;
    (void)state;
    strcpy(a.sun_path, path);
    assert_int_equal(flock(b.folder, LOCK_EX), 0);
    assert_int_equal(bind(b.fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(stat(path, &before), 0);
    assert_int_equal(pthread_create(&thread, NULL, listens_at_last, &b), 0);
    assert_int_equal(come(&m, 0, 2, path, 0.2, &err), MODE_E_CREATE);
    assert_non_null(strstr(err.text, "another training may be using it"));
    pthread_join(thread, &ended);
    assert_non_null(ended);
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    int waiting[8], n = 0; /* and with a full backlog */
    do {
        waiting[n] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        assert_true(n < 7);
    } while (connect(waiting[n++], (struct sockaddr *)&a, sizeof a) == 0);
    const int fds = open_fds();
    assert_int_equal(come(&m, 0, 2, path, 0.2, &err), MODE_E_CREATE);
    assert_non_null(strstr(err.text, "another training may be using it"));
    assert_int_equal(open_fds(), fds);
    while (n) close(waiting[--n]);
    close(b.fd);
    close(b.folder);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(folder), 0);
    free(path);
}

enum { PATIENCE_S = 60 }; /* far above the timeouts below, and below what blocking calls would take */

static struct sockaddr_in listen_on_port(int *fd, char place[32])
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)free_port()), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    snprintf(place, 32, "127.0.0.1:%d", ntohs(a.sin_port));
    *fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(*fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(*fd, 0), 0);
    return a;
}

/* A full backlog drops packets, as a firewall or a machine that is off does: connecting takes minutes to fail. */
static void test_a_place_that_does_not_answer(void **state)
{
    char place[32];
    int listener, asked = 0, waiting[4];
    struct sockaddr_in a = listen_on_port(&listener, place);
    struct mode_meeting *m;
    struct mode_error err;
    (void)state;
    for (int i = 0; i < 4; i++) {
        waiting[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)connect(waiting[i], (struct sockaddr *)&a, sizeof a);
    }
    const int fds = open_fds();
    const double began = mode_clock_s();
    assert_int_equal(come(&m, 1, 2, place, 0.3, &err), MODE_E_PEER);
    assert_non_null(strstr(err.text, "did not answer"));
    const struct mode_meeting_options o = {
        .rank = 1, .size = 2, .place = place, .timeout_s = MEET_S, .stopping = soon, .ctx = &asked};
    assert_int_equal(mode_meeting_open(&m, &o, &err), MODE_E_STOPPED);
    assert_true(mode_clock_s() - began < PATIENCE_S);
    assert_int_equal(open_fds(), fds);
    for (int i = 0; i < 4; i++) close(waiting[i]);
    close(listener);
}

static void *greets(void *listener)
{
    static const char banner[] = "SSH-2.0-OpenSSH_9.6\r\n";
    const int fd = accept(*(int *)listener, NULL, NULL);
    char answer[256];
    const struct timeval give_up = {.tv_sec = PATIENCE_S + 10};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &give_up, sizeof give_up);
    (void)!write(fd, banner, sizeof banner - 1);
    while (recv(fd, answer, sizeof answer, 0) > 0) continue;
    close(fd);
    return NULL;
}

/* Another program's port, which greets and then waits: what it sent is shorter than the answer of a rank 0. */
static void test_a_place_of_another_program(void **state)
{
    char place[32];
    int listener;
    struct mode_meeting *m;
    struct mode_error err;
    pthread_t thread;
    (void)state;
    (void)listen_on_port(&listener, place);
    assert_int_equal(pthread_create(&thread, NULL, greets, &listener), 0);
    const double began = mode_clock_s();
    assert_int_equal(come(&m, 1, 2, place, 0.5, &err), MODE_E_PEER);
    assert_true(mode_clock_s() - began < PATIENCE_S);
    pthread_join(thread, NULL);
    close(listener);
}

enum trouble { DESCRIPTORS_FOR_A_WHILE, DESCRIPTORS, LISTENER };

struct accepting {
    enum trouble trouble;
    int asked; /* calls of the hook */
    struct rlimit limit;
};

/* The `stopping` hook of process 0: its first call waits for a connection, and makes accepting it impossible. */
static bool makes_trouble(void *ctx)
{
    struct accepting *a = ctx;
    if (++a->asked == 5 && a->trouble == DESCRIPTORS_FOR_A_WHILE) (void)setrlimit(RLIMIT_NOFILE, &a->limit);
    if (a->asked > 1) return false;
    int fd = -1, on = 0;
    for (socklen_t len = sizeof on; !on && fd < 256; len = sizeof on)
        if (getsockopt(++fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &len)) on = 0;
    (void)poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, MEET_S * 1000);
    if (a->trouble == LISTENER) return close(fd) != 0;
    const int next = dup(0);
    const struct rlimit none = {(rlim_t)next, a->limit.rlim_max};
    close(next);
    return setrlimit(RLIMIT_NOFILE, &none) != 0;
}

static int cannot_accept(int rank, int size, const char *place, void *ctx)
{
    static const char *const says[] = {"", "1 of 2 processes connected at", "process 0 cannot accept connections at"},
                             *const why[] = {"", "failed: Too many open files", ": Bad file descriptor"};
    struct accepting a = {.trouble = *(const enum trouble *)ctx};
    struct mode_meeting *m;
    struct mode_error err = {0};
    char answer[256];
    if (rank > 0 && a.trouble == DESCRIPTORS_FOR_A_WHILE) return (int)come(&m, rank, size, place, MEET_S, &err);
    if (rank > 0) return recv(connect_to(place), answer, sizeof answer, 0) > 0;
    const struct mode_meeting_options o = {.rank = 0,
                                           .size = size,
                                           .place = place,
                                           .timeout_s = a.trouble == DESCRIPTORS ? 1 : MEET_S,
                                           .stopping = makes_trouble,
                                           .ctx = &a};
    if (getrlimit(RLIMIT_NOFILE, &a.limit)) return 1;
    const enum mode_status st = mode_meeting_open(&m, &o, &err);
    if (!strstr(err.text, says[a.trouble]) || !strstr(err.text, why[a.trouble]))
        return fprintf(stderr, "%s\n", err.text), 1;
    return a.asked > 100 ? 1 : (int)st; /* it does not spin */
}

static void test_who_cannot_accept_says_why(void **state)
{
    static const enum trouble troubles[] = {DESCRIPTORS_FOR_A_WHILE, DESCRIPTORS, LISTENER};
    static const int ends[] = {MODE_OK, MODE_E_PEER, MODE_E_IO};
    const double began = mode_clock_s();
    (void)state;
    for (int i = 0; i < 3; i++) {
        int ended[2];
        run_ranks(ended, 2, cannot_accept, (void *)(uintptr_t)&troubles[i]);
        assert_int_equal(ended[0], ends[i]);
        assert_int_equal(ended[1], 0);
    }
    assert_true(mode_clock_s() - began < MEET_S);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everyone_hears_everyone),
        cmocka_unit_test(test_signals_break_nothing_off),
        cmocka_unit_test(test_the_socket_file_is_nobody_elses),
        cmocka_unit_test(test_a_port_will_do),
        cmocka_unit_test(test_who_does_not_fit_ends_it_for_all),
        cmocka_unit_test(test_who_does_not_come_is_not_waited_for),
        cmocka_unit_test(test_who_does_not_know_the_secret_is_a_stranger),
        cmocka_unit_test(test_who_is_to_stop_does_not_wait),
        cmocka_unit_test(test_strangers_are_sent_away),
        cmocka_unit_test(test_a_rank_that_nobody_has),
        cmocka_unit_test(test_places_that_make_no_sense),
        cmocka_unit_test(test_a_place_that_is_taken),
        cmocka_unit_test(test_a_place_that_is_just_taken),
        cmocka_unit_test(test_a_place_that_does_not_answer),
        cmocka_unit_test(test_a_place_of_another_program),
        cmocka_unit_test(test_who_cannot_accept_says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
