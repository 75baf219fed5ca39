/* The order by windows of shards: every row once per epoch, few shards at a time, a function of seed and epoch alone.
 * */
#include "base/file.h"
#include "base/rng.h"
#include "pipeline/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SHARDS = 23, MOST_ROWS = 90, ROWS_MOST = SHARDS * MOST_ROWS, SEED = 5 };
enum { EMPTY = 6, OTHERS = 9 }; /* an empty shard; one whose rows are all another expert's */

struct rows {
    uint32_t end[SHARDS], n;
    int32_t coarse[ROWS_MOST];
};

static void make_rows(struct rows *r)
{
    struct mode_rng rng = mode_rng_for(11, MODE_RNG_TEST, 1, 0);
    r->n = 0;
    for (int s = 0; s < SHARDS; s++) {
        const uint32_t n = s == EMPTY ? 0 : 40 + (uint32_t)mode_rng_below(&rng, MOST_ROWS - 40);
        for (uint32_t i = 0; i < n; i++)
            r->coarse[r->n++] = s == OTHERS                    ? 1
                                : mode_rng_below(&rng, 10) < 4 ? 0
                                                               : 1 + (int32_t)mode_rng_below(&rng, 2);
        r->end[s] = r->n;
    }
}

static uint32_t shard_of(const struct rows *r, uint32_t row)
{
    uint32_t s = 0;
    while (r->end[s] <= row) s++;
    return s;
}

static void open_pool(struct mode_pool *p, const struct rows *r, int32_t expert, double ratio, uint32_t window)
{
    assert_int_equal(mode_pool_init(p, r->n, r->coarse, expert, ratio, SEED, NULL), MODE_OK);
    if (window) assert_int_equal(mode_pool_by_windows(p, SHARDS, r->end, window, NULL), MODE_OK);
}

static const int32_t experts[] = {MODE_POOL_ALL, 0, 1};
static const uint32_t windows[] = {1, 2, 5, 12, 22, 23, 400};
enum { N_EXPERTS = sizeof experts / sizeof *experts, N_WINDOWS = sizeof windows / sizeof *windows };

/* An epoch has the same rows as without windows, each once, with the same random draw of outside rows. */
static void test_an_epoch_holds_the_rows_of_the_other_order(void **state)
{
    (void)state;
    struct rows r;
    make_rows(&r);
    for (int e = 0; e < N_EXPERTS; e++)
        for (int w = 0; w < N_WINDOWS; w++)
            for (uint64_t epoch = 0; epoch < 3; epoch++) {
                struct mode_pool p, whole;
                uint32_t a[ROWS_MOST], b[ROWS_MOST], epochs[ROWS_MOST], seen[ROWS_MOST] = {0};
                open_pool(&p, &r, experts[e], 0.1, windows[w]);
                open_pool(&whole, &r, experts[e], 0.1, 0);
                const uint32_t n = mode_pool_size(&p);
                assert_int_equal(n, mode_pool_size(&whole));
                mode_pool_draw(&p, epoch * n, n, a, epochs);
                for (uint32_t i = 0; i < n; i++) assert_int_equal(epochs[i], epoch);
                mode_pool_draw(&whole, epoch * n, n, b, epochs);
                for (uint32_t i = 0; i < n; i++) seen[a[i]]++;
                for (uint32_t i = 0; i < n; i++) assert_int_equal(seen[b[i]], 1);
                mode_pool_clear(&p);
                mode_pool_clear(&whole);
            }
}

/* A sample's shard has a turn in its window; every shard has one turn per epoch; windows of consecutive samples never
 * go back, and all of them occur. */
static void test_a_sample_is_of_its_window_s_shards(void **state)
{
    (void)state;
    struct rows r;
    make_rows(&r);
    for (int e = 0; e < N_EXPERTS; e++)
        for (int w = 0; w < N_WINDOWS; w++) {
            struct mode_pool p;
            uint32_t rows[ROWS_MOST], epochs[ROWS_MOST], turn[SHARDS];
            open_pool(&p, &r, experts[e], 0.1, windows[w]);
            const struct mode_shard_order *o = p.windows;
            const uint32_t n = mode_pool_size(&p);
            assert_int_equal(o->n, SHARDS - 1); /* all but the empty one */
            assert_int_equal(o->window, windows[w] < o->n ? windows[w] : o->n);
            for (uint64_t epoch = 1; epoch < 3; epoch++) {
                uint64_t before = epoch * o->n;
                mode_pool_draw(&p, epoch * n, n, rows, epochs);
                mode_shard_order_turns(o, epoch, turn);
                for (uint32_t i = 0; i < n; i++) {
                    uint64_t from, to;
                    bool found = false;
                    mode_pool_turns(&p, epoch * n + i, &from, &to);
                    assert_true(from >= before && to == from + o->window && to <= (epoch + 1) * o->n);
                    before = from;
                    for (uint64_t t = from; t < to; t++)
                        found = found || o->shard[turn[t % o->n]] == shard_of(&r, rows[i]);
                    assert_true(found);
                }
                assert_int_equal(before, epoch * o->n + o->n_windows - 1);
            }
            mode_pool_clear(&p);
        }
}

/* Without outside rows an expert does not need shards that have none of its rows. */
static void test_a_shard_without_a_row_has_no_turn(void **state)
{
    (void)state;
    struct rows r;
    struct mode_pool p;
    uint32_t rows[ROWS_MOST], epochs[ROWS_MOST];
    make_rows(&r);
    open_pool(&p, &r, 0, 0, 3);
    assert_int_equal(p.windows->n, SHARDS - 2);
    for (uint32_t i = 0; i < p.windows->n; i++)
        assert_true(p.windows->shard[i] != EMPTY && p.windows->shard[i] != OTHERS);
    mode_pool_draw(&p, 0, mode_pool_size(&p), rows, epochs);
    mode_pool_clear(&p);
}

/* Batches can be drawn in any order and in parts, as by a resumed training or several ranks. */
static void test_a_step_does_not_depend_on_what_was_drawn(void **state)
{
    (void)state;
    enum { BATCH = 51, STEPS = 75, PARTS = 3 };
    struct rows r;
    struct mode_pool p, one;
    static uint32_t all[STEPS * BATCH], epochs[STEPS * BATCH];
    uint32_t rows[BATCH], es[BATCH];
    make_rows(&r);
    for (int e = 0; e < N_EXPERTS; e++) {
        open_pool(&p, &r, experts[e], 0.1, 5);
        assert_true(mode_pool_size(&p) % BATCH != 0 && mode_pool_size(&p) * 2 < STEPS * BATCH);
        mode_pool_draw(&p, 0, STEPS * BATCH, all, epochs);
        for (int s = STEPS - 1; s >= 0; s -= 7) {
            const uint64_t first = (uint64_t)s * BATCH;
            mode_pool_draw(&p, first, BATCH, rows, es);
            assert_memory_equal(rows, all + first, sizeof rows);
            assert_memory_equal(es, epochs + first, sizeof es);
            open_pool(&one, &r, experts[e], 0.1, 5); /* a fresh sampler */
            for (int part = PARTS - 1; part >= 0; part--) {
                const uint64_t at = (uint64_t)part * BATCH / PARTS;
                mode_pool_draw(&one, first + at, BATCH / PARTS, rows + at, es + at);
            }
            assert_memory_equal(rows, all + first, sizeof rows);
            assert_memory_equal(es, epochs + first, sizeof es);
            mode_pool_clear(&one);
        }
        mode_pool_clear(&p);
    }
}

static void test_epochs_differ(void **state)
{
    (void)state;
    struct rows r;
    struct mode_pool p;
    uint32_t a[ROWS_MOST], b[ROWS_MOST], epochs[ROWS_MOST], turn[2][SHARDS], moved = 0, turns = 0;
    make_rows(&r);
    open_pool(&p, &r, MODE_POOL_ALL, 0, 5);
    mode_pool_draw(&p, 0, r.n, a, epochs);
    mode_pool_draw(&p, r.n, r.n, b, epochs);
    for (uint32_t i = 0; i < r.n; i++) moved += a[i] != b[i];
    for (uint64_t epoch = 0; epoch < 2; epoch++) mode_shard_order_turns(p.windows, epoch, turn[epoch]);
    for (uint32_t i = 0; i < p.windows->n; i++) turns += turn[0][i] != turn[1][i];
    assert_true(moved > r.n * 9 / 10 && turns > SHARDS / 2);
    mode_pool_clear(&p);
}

/* A window of 8 of 64 shards mixes 8 shards in equal parts; fewer at the ends of an epoch. */
static void test_a_batch_is_of_as_many_shards_as_a_window_has(void **state)
{
    (void)state;
    enum { MANY = 64, EACH = 250, WINDOW = 8, BATCH = 64, N = MANY * EACH };
    struct mode_pool p;
    uint32_t end[MANY], rows[BATCH], epochs[BATCH];
    double alike = 0, least = MANY;
    int inner = 0;
    for (uint32_t i = 0; i < MANY; i++) end[i] = (i + 1) * EACH;
    assert_int_equal(mode_pool_init(&p, N, NULL, MODE_POOL_ALL, 0, SEED, NULL), MODE_OK);
    assert_int_equal(mode_pool_by_windows(&p, MANY, end, WINDOW, NULL), MODE_OK);
    for (uint64_t step = 0; step < N / BATCH; step++) {
        uint64_t from, to, of[MANY] = {0}, pairs = 0;
        mode_pool_draw(&p, step * BATCH, BATCH, rows, epochs);
        for (int i = 0; i < BATCH; i++) of[rows[i] / EACH]++;
        for (int s = 0; s < MANY; s++) pairs += of[s] * (of[s] - (of[s] > 0));
        /* effective number of shards: 1 / P(two pairs are of one shard) */
        const double effective = (double)BATCH * (BATCH - 1) / (double)pairs;
        if (effective < least) least = effective;
        mode_pool_turns(&p, step * BATCH, &from, &to);
        if (from < WINDOW || to > MANY - WINDOW) continue;
        alike += 1 / effective;
        inner++;
    }
    assert_true(inner > N / BATCH / 2);
    assert_true(inner / alike > WINDOW * 0.97 && inner / alike < WINDOW * 1.1); /* 8 for equal parts of 8 shards */
    assert_true(least > WINDOW / 3.0);
    mode_pool_clear(&p);
}

/* Existing checkpoints depend on the order, so it must not change. */
static void test_the_order_stays_what_it_was(void **state)
{
    (void)state;
    struct rows r;
    struct mode_pool p;
    uint32_t rows[3 * 200], epochs[3 * 200];
    char hex[MODE_DIGEST_HEX];
    make_rows(&r);
    open_pool(&p, &r, 0, 0.1, 5);
    for (int i = 0; i < 3; i++) mode_pool_draw(&p, (uint64_t)i * 150 + 500, 200, rows + i * 200, epochs + i * 200);
    mode_digest_bytes(rows, sizeof rows, hex);
    assert_string_equal(hex, "a9dce4bf3c025bdb6721efd89a1fbbccb1a557432a68deb71bf4ac1f507c473e");
    mode_pool_clear(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_epoch_holds_the_rows_of_the_other_order),
        cmocka_unit_test(test_a_sample_is_of_its_window_s_shards),
        cmocka_unit_test(test_a_shard_without_a_row_has_no_turn),
        cmocka_unit_test(test_a_step_does_not_depend_on_what_was_drawn),
        cmocka_unit_test(test_epochs_differ),
        cmocka_unit_test(test_a_batch_is_of_as_many_shards_as_a_window_has),
        cmocka_unit_test(test_the_order_stays_what_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
