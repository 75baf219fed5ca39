/* Two processes with an emulated GPU each, when the link between them fails, one exits, or a call never returns: both
 * end soon, one reports the cause and the other the peer, no result of an aborted call is accepted, and the
 * communicator is not freed during a call (the emulated NCCL aborts then). */
#include "socket_ranks.h"

#include "base/clock.h"
#include "base/file.h"
#include "nn/backend.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

enum { RANKS = 2, SOON_S = 60 };

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        if ((call) == MODE_OK) break;                                                                                  \
        fprintf(stderr, "process %d: %s\n", rank, err.text);                                                           \
        exit(1);                                                                                                       \
    } while (0)

struct group {
    struct mode_backend *be;
    struct mode_ranks *ranks;
    double *sum;
};

static struct group join(int rank, const char *place)
{
    const struct mode_meeting_options o = {.rank = rank, .size = RANKS, .place = place, .timeout_s = 20};
    struct mode_meeting *m;
    struct mode_error err;
    struct group g;
    void *memory;
    alarm(SOON_S); /* a hang ends the test */
    OK(mode_backend_open(&g.be, "cuda", &err));
    OK(mode_backend_alloc(g.be, &memory, sizeof *g.sum, &err));
    OK(mode_meeting_open(&m, &o, &err));
    OK(mode_backend_ranks(&g.ranks, g.be, &m, &err));
    g.sum = memory;
    return g;
}

/* For tests in which process 1 exits: if 0 were still in its join, it would get the error there. */
static struct group join_both(int rank, const char *place)
{
    struct group g = join(rank, place);
    char *joined = mode_xasprintf("%s.joined", place);
    if (rank == 0) MODE_ASSERT(mode_file_write_atomic(joined, "", 0, NULL) == MODE_OK);
    while (rank == 1 && unlink(joined)) usleep(1000);
    free(joined);
    return g;
}

static void leave(struct group *g)
{
    mode_ranks_close(&g->ranks, false);
    mode_backend_free(g->be, g->sum);
    mode_backend_close(&g->be);
}

/* All-reduces 1 from each process, and checks the result. */
static enum mode_status add_up(struct group *g, struct mode_error *err)
{
    double sum = 1;
    mode_backend_copy(g->be, g->sum, &sum, sizeof sum);
    enum mode_status st = mode_ranks_all_reduce(g->ranks, g->sum, 1, MODE_DTYPE_F64, err);
    mode_backend_copy(g->be, &sum, g->sum, sizeof sum);
    if (!st) st = mode_ranks_check(g->ranks, err);
    return st ? st : sum == RANKS ? MODE_OK : MODE_E_VALUE;
}

static void fail_link(const char *place, const char *text)
{
    char *path = mode_xasprintf("%s.link", place);
    setenv("MODE_EMULATOR_LINK", path, 1);
    MODE_ASSERT(mode_file_write_atomic(path, text, strlen(text), NULL) == MODE_OK);
    free(path);
}

static int says(const struct mode_error *err, enum mode_status st, enum mode_status want, const char *words)
{
    if (st == want && strstr(err->text, words)) return 0;
    fprintf(stderr, "status %d, not %d, or it does not say \"%s\": %s\n", (int)st, (int)want, words, err->text);
    return 1;
}

static void run(int *ended, rank_fn *fn, void *ctx)
{
    const double began = mode_clock_s();
    run_ranks(ended, RANKS, fn, ctx);
    assert_true(mode_clock_s() - began < SOON_S);
}

static void run_both(rank_fn *fn, void *ctx)
{
    int ended[RANKS];
    run(ended, fn, ctx);
    for (int r = 0; r < RANKS; r++) assert_int_equal(ended[r], 0);
}

struct failure {
    const char *text; /* MODE_EMULATOR_LINK */
    int rank;
    const char *words;
};

static int link_fails(int rank, int size, const char *place, void *ctx)
{
    const struct failure *f = ctx;
    struct mode_error err = {0};
    struct group g = join(rank, place);
    char words[100];
    int wrong = add_up(&g, &err) != MODE_OK;
    (void)size;
    if (rank == f->rank) fail_link(place, f->text);
    const enum mode_status st = add_up(&g, &err);
    if (rank == f->rank)
        snprintf(words, sizeof words,
                 "failed in process %d of 2; NCCL says: %s; its last warning: an emulated link has", rank, f->words);
    else
        snprintf(words, sizeof words, "process %d of 2 has broken off, so process %d cannot", f->rank, rank);
    wrong += says(&err, st, rank == f->rank ? MODE_E_DEVICE : MODE_E_PEER, words);
    wrong += mode_ranks_all_reduce(g.ranks, g.sum, 1, MODE_DTYPE_F64, &err) != st; /* the error is sticky */
    leave(&g);
    return wrong;
}

static void test_a_link_that_fails_ends_both(void **state)
{
    static const struct failure failures[] = {{"2 1", 1, "unhandled system error"},
                                              {"1 0", 0, "unhandled cuda error"},
                                              {"6 1", 1, "remote process exited or there was a network error"},
                                              {"3 0 call", 0, "internal error"}};
    (void)state;
    for (size_t i = 0; i < sizeof failures / sizeof *failures; i++)
        run_both(link_fails, (void *)(uintptr_t)&failures[i]);
}

/* Both ends of a link fail: each may report its own error, or that the other has quit; neither hangs. */
static int both_fail(int rank, int size, const char *place, void *ctx)
{
    struct mode_error err = {0};
    struct group g = join(rank, place);
    char *own = mode_xasprintf("%s%d", place, rank);
    (void)size;
    (void)ctx;
    fail_link(own, rank ? "2 1" : "2 0");
    const enum mode_status st = add_up(&g, &err);
    leave(&g);
    free(own);
    return st != MODE_E_DEVICE && st != MODE_E_PEER;
}

static void test_both_ends_of_a_link(void **state)
{
    (void)state;
    run_both(both_fail, NULL);
}

/* NCCL's error arrives before the exit of the process that caused it is known. */
static int caused_by_an_end(int rank, int size, const char *place, void *ctx)
{
    struct mode_error err = {0};
    struct group g = join_both(rank, place);
    (void)size;
    (void)ctx;
    if (rank == 1) {
        usleep(2500000);
        _exit(0);
    }
    fail_link(place, "6 0");
    const int wrong = says(&err, add_up(&g, &err), MODE_E_PEER, "process 1 of 2 has ended");
    leave(&g);
    return wrong;
}

static void test_an_error_that_the_end_of_a_process_caused_is_that_end(void **state)
{
    (void)state;
    run_both(caused_by_an_end, NULL);
}

/* Process 1 exits while process 0 makes calls one after another, or has just stopped and closes. */
static int ends_during_calls(int rank, int size, const char *place, void *ctx)
{
    const int round = *(const int *)ctx;
    struct mode_error err = {0};
    enum mode_status st = MODE_OK;
    setenv("MODE_EMULATOR_NCCL", "slow", 1);
    struct group g = join_both(rank, place);
    (void)size;
    if (rank == 1) {
        usleep((useconds_t)(70000 + 7000 * round));
        _exit(0);
    }
    for (int n = 0; !st && (round % 2 || n < 4 + round / 2); n++)
        st = mode_ranks_all_reduce(g.ranks, g.sum, 1, MODE_DTYPE_F64, &err);
    const int wrong = st && says(&err, st, MODE_E_PEER, "process 1 of 2 has ended");
    leave(&g);
    return wrong;
}

static void test_no_call_is_under_way_when_the_communicator_is_freed(void **state)
{
    (void)state;
    for (int round = 0; round < 12; round++) run_both(ends_during_calls, &round);
}

/* Redirects stderr to a file; the test checks the exit status. */
static void say_to(const char *path)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    MODE_ASSERT(fd >= 0 && dup2(fd, 2) == 2);
    close(fd);
}

static int never_returns(int rank, int size, const char *place, void *ctx)
{
    const char *const *how = ctx; /* MODE_EMULATOR_NCCL, and the file for stderr */
    struct mode_error err = {0};
    (void)size;
    setenv("MODE_EMULATOR_NCCL", how[0], 1);
    if (rank == 0) say_to(how[1]);
    struct group g = join(rank, place);
    (void)add_up(&g, &err); /* process 1 exits in it */
    return 0;               /* did not hang */
}

static void test_a_call_that_never_returns_ends_the_process(void **state)
{
    static const char *const hows[] = {"waits", "dies"}; /* in the first collective, while connecting */
    (void)state;
    for (size_t i = 0; i < sizeof hows / sizeof *hows; i++) {
        char path[] = "/tmp/mode-link-XXXXXX", *text = NULL;
        const int fd = mkstemp(path);
        const char *how[] = {hows[i], path};
        int ended[RANKS];
        size_t n;
        close(fd);
        run(ended, never_returns, how);
        assert_int_equal(mode_file_read(path, 0, &text, &n, NULL), MODE_OK);
        unlink(path);
        assert_int_equal(ended[0], 69);
        assert_int_equal(ended[1], 3);
        assert_non_null(text);
        assert_int_equal(strncmp(text, "process 1 of 2 has ended, so process 0 cannot go on.", 52), 0);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_link_that_fails_ends_both),
        cmocka_unit_test(test_both_ends_of_a_link),
        cmocka_unit_test(test_an_error_that_the_end_of_a_process_caused_is_that_end),
        cmocka_unit_test(test_no_call_is_under_way_when_the_communicator_is_freed),
        cmocka_unit_test(test_a_call_that_never_returns_ends_the_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
