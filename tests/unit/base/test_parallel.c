/* The thread pool: every item is processed once, by at most the requested number of threads. */
#include "base/clock.h"
#include "base/parallel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

enum { THREADS = 4, ITEMS = 200 };

struct seen {
    atomic_int done[ITEMS], by[THREADS + 1];
    int threads; /* that take part */
    double until;
};

static bool all_are_here(const struct seen *s)
{
    for (int t = 0; t < s->threads; t++)
        if (!atomic_load(&s->by[t])) return false;
    return true;
}

static void one_item(void *ctx, int64_t item, int thread)
{
    struct seen *s = ctx;
    atomic_fetch_add(&s->done[item], 1);
    atomic_fetch_add(&s->by[thread >= 0 && thread < THREADS ? thread : THREADS], 1);
    /* so that all threads that may take part do, however late they are scheduled */
    do usleep(100);
    while (!all_are_here(s) && mode_clock_s() < s->until);
}

static void test_a_share_of_the_threads_takes_part(void **state)
{
    (void)state;
    static const struct {
        int sharers, threads;
    } cases[] = {{0, 4}, {2, 2}, {1, 4}, {3, 1}, {9, 1}, {1, 4}, {2, 2}};
    mode_parallel_set_threads(THREADS);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct seen s = {.threads = cases[c].threads, .until = mode_clock_s() + 60};
        if (cases[c].sharers) mode_parallel_share(cases[c].sharers);
        assert_int_equal(mode_parallel_threads(), cases[c].threads);
        mode_parallel_for(ITEMS, one_item, &s);
        for (int i = 0; i < ITEMS; i++) assert_int_equal(s.done[i], 1);
        for (int t = 0; t <= THREADS; t++) assert_int_equal(s.by[t] > 0, t < cases[c].threads);
    }
}

static void nothing(void *ctx, int64_t item, int thread)
{
    (void)ctx, (void)item, (void)thread;
}

static void inside(void *ctx, int64_t item, int thread)
{
    (void)item, (void)thread;
    mode_parallel_for(3, nothing, ctx);
}

/* A progress callback sees every item, with one thread and with many, and nested ones. */
static void test_what_is_done_is_counted(void **state)
{
    (void)state;
    atomic_uint_fast64_t items = 0;
    mode_parallel_count_in(&items);
    mode_parallel_for(ITEMS, nothing, NULL);
    assert_int_equal(items, ITEMS);
    mode_parallel_for(1, nothing, NULL);
    assert_int_equal(items, ITEMS + 1);
    mode_parallel_for(ITEMS, inside, NULL);
    assert_int_equal(items, ITEMS + 1 + 4 * ITEMS);
    mode_parallel_count_in(NULL);
    mode_parallel_for(ITEMS, nothing, NULL);
    assert_int_equal(items, ITEMS + 1 + 4 * ITEMS);
}

static void test_variables_say_how_many(void **state)
{
    (void)state;
    static const struct {
        const char *own, *openmp;
        enum mode_status st;
    } cases[] = {{"", "", MODE_OK},        {"3", "", MODE_OK},          {"1025", "", MODE_E_VALUE},
                 {"-1", "", MODE_E_VALUE}, {"", "8,2", MODE_OK},        {"0", "8", MODE_OK},
                 {"", "0", MODE_E_VALUE},  {"", "eight", MODE_E_VALUE}, {"0", "2x", MODE_E_VALUE},
                 {"2", "eight", MODE_OK}}; /* not read then */
    struct mode_error err;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        setenv("MODE_THREADS", cases[c].own, 1);
        setenv("OMP_NUM_THREADS", cases[c].openmp, 1);
        assert_int_equal(mode_parallel_check(&err), cases[c].st);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_share_of_the_threads_takes_part),
                                       cmocka_unit_test(test_what_is_done_is_counted),
                                       cmocka_unit_test(test_variables_say_how_many)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
