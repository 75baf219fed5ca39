/* Balanced assignment against the exact optimum of small cases, and its sizes for awkward n and k. */
#include "base/file.h"
#include "base/rng.h"
#include "cluster/balanced.h"
#include "cluster/cheapest.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct mode_backend *be;

static int set_up(void **state)
{
    (void)state;
    return mode_backend_open(&be, "cpu", NULL) != MODE_OK;
}

static int tear_down(void **state)
{
    (void)state;
    mode_backend_close(&be);
    return 0;
}

static void fill(float *x, int64_t n, uint64_t stream)
{
    struct mode_rng r = mode_rng_for(5, MODE_RNG_TEST, stream, 0);
    for (int64_t i = 0; i < n; i++) x[i] = (float)mode_rng_normal(&r);
}

static void assign_with(int32_t *id, double *price, struct mode_balanced_stats *s, const struct mode_cost *cost,
                        const struct mode_balanced_params *p)
{
    struct mode_balanced *b;
    assert_int_equal(mode_balanced_open(&b, cost->n, cost->k, cost->d, p, NULL), MODE_OK);
    mode_balanced_assign(b, id, price, s, cost);
    mode_balanced_close(&b);
}

static struct mode_balanced_stats assign(int32_t *id, const float *x, int n, const float *c, int k, int d, double tol)
{
    const struct mode_cost cost = {be, MODE_METRIC_EUCLIDEAN, x, c, n, k, d, NULL};
    struct mode_balanced_stats s;
    struct mode_balanced_params p = MODE_BALANCED_PARAMS_DEFAULT;
    p.tolerance = tol;
    assign_with(id, NULL, &s, &cost, &p);
    return s;
}

static void check_sizes(const int32_t *id, int n, int k)
{
    int *size = calloc((size_t)k, sizeof *size), larger = 0;
    for (int i = 0; i < n; i++) {
        assert_in_range(id[i], 0, k - 1);
        size[id[i]]++;
    }
    for (int j = 0; j < k; j++) {
        assert_in_range(size[j], n / k, n / k + (n % k != 0));
        larger += size[j] > n / k;
    }
    assert_int_equal(larger, n % k);
    free(size);
}

/* The optimum by brute force: row by row, with the capacity left per centre and the number of larger sizes left. */
struct search {
    int n, k, size[8], larger_left;
    double cost[12][8], best;
};

static void search(struct search *s, int row, double sum)
{
    if (sum >= s->best) return;
    if (row == s->n) {
        for (int j = 0; j < s->k; j++)
            if (s->size[j] < s->n / s->k) return;
        s->best = sum;
        return;
    }
    for (int j = 0; j < s->k; j++) {
        int extra = s->size[j] == s->n / s->k;
        if (s->size[j] > s->n / s->k || (extra && s->larger_left == 0)) continue;
        s->size[j]++;
        s->larger_left -= extra;
        search(s, row + 1, sum + s->cost[row][j]);
        s->larger_left += extra;
        s->size[j]--;
    }
}

static void test_objective_is_the_optimum_on_small_cases(void **state)
{
    (void)state;
    static const int shapes[][2] = {{8, 4}, {9, 4}, {10, 3}, {11, 4}, {7, 2}, {3, 5},
                                    {1, 4}, {6, 6}, {12, 3}, {5, 1},  {10, 7}};
    for (size_t t = 0; t < sizeof shapes / sizeof *shapes; t++) {
        for (uint64_t round = 0; round < 6; round++) {
            enum { D = 3 };
            int n = shapes[t][0], k = shapes[t][1];
            float x[12 * D], c[8 * D];
            int32_t id[12];
            fill(x, n * D, 100 * t + round);
            fill(c, k * D, 5000 + 100 * t + round);
            struct search s = {.n = n, .k = k, .larger_left = n % k, .best = INFINITY};
            for (int i = 0; i < n; i++)
                for (int j = 0; j < k; j++)
                    for (int e = 0; e < D; e++) s.cost[i][j] += pow((double)x[i * D + e] - c[j * D + e], 2);
            search(&s, 0, 0);
            struct mode_balanced_stats got = assign(id, x, n, c, k, D, 1e-6);
            check_sizes(id, n, k);
            double sum = 0;
            for (int i = 0; i < n; i++) sum += s.cost[i][id[i]];
            if (fabs(sum - s.best) > 1e-4 * (1 + s.best))
                fail_msg("n=%d k=%d round %d: %.6f, optimum %.6f", n, k, (int)round, sum, s.best);
            assert_true(fabs(got.objective - sum) < 1e-4 * (1 + sum));
            if (fabs(got.bound - s.best) > 1e-4 * (1 + sum))
                fail_msg("n=%d k=%d: bound %.6f, optimum %.6f", n, k, got.bound, s.best);
        }
    }
}

static void test_sizes_differ_by_at_most_one(void **state)
{
    (void)state;
    static const int shapes[][2] = {{47, 8},    {103, 8}, {40, 4},  {1000, 64}, {1000, 333},
                                    {100, 101}, {2, 50},  {257, 1}, {1, 1},     {2049, 64}};
    for (size_t t = 0; t < sizeof shapes / sizeof *shapes; t++) {
        enum { D = 8 };
        int n = shapes[t][0], k = shapes[t][1];
        float *x = malloc(sizeof *x * (size_t)n * D), *c = malloc(sizeof *c * (size_t)k * D);
        int32_t *id = malloc(sizeof *id * (size_t)n);
        fill(x, (int64_t)n * D, t);
        fill(c, (int64_t)k * D, 1000 + t);
        struct mode_balanced_stats s = assign(id, x, n, c, k, D, 1e-4);
        check_sizes(id, n, k);
        assert_int_equal(s.smallest, n / k);
        assert_int_equal(s.largest, (n + k - 1) / k);
        free(x);
        free(c);
        free(id);
    }
}

static void test_equal_rows_and_equal_centres_end(void **state)
{
    (void)state;
    enum { N = 3000, K = 40, D = 4 };
    float *x = calloc(N * D, sizeof *x), *c = calloc(K * D, sizeof *c);
    int32_t *id = malloc(N * sizeof *id);
    assign(id, x, N, c, K, D, 1e-4); /* all rows and centres equal */
    check_sizes(id, N, K);
    fill(c, K * D, 3);
    assign(id, x, N, c, K, D, 1e-4); /* equal rows, different centres */
    check_sizes(id, N, K);
    for (int i = 0; i < N; i++) x[i * D] = (float)(i % 3);
    assign(id, x, N, c, K, D, 1e-4);
    check_sizes(id, N, K);
    free(x);
    free(c);
    free(id);
}

/* Tie-breaking is part of the result. Integers, so that costs and bids tie often and are exact on every machine. A
 * change here requires a new version of the cluster step (msg/code_version.c), as its outputs differ from earlier
 * ones. */
static void test_ties_go_as_they_went(void **state)
{
    (void)state;
    enum { N = 301, K = 7, D = 4 };
    float x[N * D], c[K * D];
    int32_t id[N];
    char hex[MODE_DIGEST_HEX];
    struct mode_rng r = mode_rng_for(5, MODE_RNG_TEST, 40, 0);
    for (int i = 0; i < N * D; i++) x[i] = (float)mode_rng_below(&r, 3);
    for (int i = 0; i < K * D; i++) c[i] = (float)mode_rng_below(&r, 5);
    assign(id, x, N, c, K, D, 1e-4);
    mode_digest_bytes(id, sizeof id, hex);
    assert_string_equal(hex, "d3df7d8dc48d06345e2b149dafc839542b9c6a8083686da2455942fd8fa8531d");
}

/* k above the length of candidate lists: rows priced out of their list must rebuild it. */
static void test_candidate_lists_do_not_change_the_bound(void **state)
{
    (void)state;
    enum { N = 600, K = 100, D = 4 };
    float *x = malloc(N * D * sizeof *x), *c = malloc(K * D * sizeof *c);
    int32_t id[N];
    fill(x, N * D, 1);
    fill(c, K * D, 2);
    for (int i = 0; i < N * D; i++) x[i] *= 0.2f; /* crowded rows: most are priced out of their first list */
    struct mode_balanced_params p = {.tolerance = 1e-5, .candidates = 64, .keep_bytes = 1 << 30};
    struct mode_balanced_stats s64, s2;
    const struct mode_cost cost = {be, MODE_METRIC_EUCLIDEAN, x, c, N, K, D, NULL};
    assign_with(id, NULL, &s64, &cost, &p);
    check_sizes(id, N, K);
    p.candidates = 4;
    p.keep_bytes = 0; /* and recompute their costs */
    assign_with(id, NULL, &s2, &cost, &p);
    check_sizes(id, N, K);
    assert_true(s2.refreshed > 0);
    assert_true(fabs(s2.objective - s64.objective) <= N * (s2.epsilon > s64.epsilon ? s2.epsilon : s64.epsilon) + 1e-3);
    free(x);
    free(c);
}

/* Costs that are not kept are recomputed for some rows at a time: the assignment is bit-identical. */
static void test_keeping_costs_does_not_show(void **state)
{
    (void)state;
    enum { N = 30011, K = 70, D = 5 };
    float *x = malloc(N * D * sizeof *x), *c = malloc(K * D * sizeof *c);
    int32_t *id[2] = {malloc(N * sizeof **id), malloc(N * sizeof **id)};
    double price[2][K] = {{0}};
    struct mode_balanced_stats s[2];
    fill(x, N * D, 11);
    fill(c, K * D, 12);
    for (int i = 0; i < N * D; i++) x[i] *= 0.3f;
    for (int i = 0; i < 2; i++) { /* the second time with a copy of the rows in host memory, as with a GPU */
        struct mode_balanced_params p = {.tolerance = 1e-3, .candidates = 4, .keep_bytes = i ? 0 : 1 << 30};
        const struct mode_cost cost = {be, MODE_METRIC_EUCLIDEAN, x, c, N, K, D, i ? x : NULL};
        assign_with(id[i], price[i], &s[i], &cost, &p);
        check_sizes(id[i], N, K);
    }
    assert_true(s[0].refreshed > N); /* more than are kept at a time */
    assert_memory_equal(id[0], id[1], N * sizeof **id);
    assert_memory_equal(price[0], price[1], sizeof price[0]);
    assert_memory_equal(&s[0], &s[1], sizeof s[0]);
    free(x);
    free(c);
    free(id[0]);
    free(id[1]);
}

/* Against a sort: the same set, with its first and last element in place. */
static void test_the_cheapest_are_those_of_a_sort(void **state)
{
    (void)state;
    static const int shapes[][2] = {{1, 1},   {2, 2},    {70, 2},    {63, 32}, {64, 64},
                                    {65, 64}, {300, 32}, {1024, 32}, {1025, 7}};
    for (size_t t = 0; t < sizeof shapes / sizeof *shapes; t++)
        for (uint64_t round = 0; round < 40; round++) {
            const int k = shapes[t][0], want = shapes[t][1];
            float *cost = malloc((size_t)k * sizeof *cost);
            float *price = malloc((size_t)k * sizeof *price);
            int *order = malloc((size_t)k * sizeof *order), found = 0;
            void *room = malloc(mode__cheapest_room(k));
            struct mode__candidate list[MODE__CHEAPEST_MOST], plain[MODE__CHEAPEST_MOST];
            struct mode_rng r = mode_rng_for(5, MODE_RNG_TEST, 900 + t, round);
            for (int i = 0; i < k; i++) { /* every other round with few different sums */
                cost[i] = round % 2 ? (float)mode_rng_below(&r, 5) : (float)fabs(mode_rng_normal(&r));
                price[i] = round % 2 ? (float)mode_rng_below(&r, 3) : (float)fabs(mode_rng_normal(&r));
                int at = i;
                for (; at > 0 && cost[order[at - 1]] + price[order[at - 1]] > cost[i] + price[i]; at--)
                    order[at] = order[at - 1];
                order[at] = i;
            }
            const float dearest = mode__cheapest(list, want, cost, price, k, room);
            assert_true(mode__cheapest_plain(plain, want, cost, price, k, room) == dearest);
            assert_memory_equal(plain, list, (size_t)want * sizeof *list);
            assert_int_equal(list[0].id, order[0]);
            assert_int_equal(list[want - 1].id, order[want - 1]);
            assert_true(dearest == cost[order[want - 1]] + price[order[want - 1]]);
            for (int i = 0; i < want; i++)
                for (int j = 0; j < want; j++) found += list[j].id == order[i] && list[j].cost == cost[order[i]];
            assert_int_equal(found, want);
            free(cost);
            free(price);
            free(order);
            free(room);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_objective_is_the_optimum_on_small_cases),
        cmocka_unit_test(test_sizes_differ_by_at_most_one),
        cmocka_unit_test(test_equal_rows_and_equal_centres_end),
        cmocka_unit_test(test_ties_go_as_they_went),
        cmocka_unit_test(test_candidate_lists_do_not_change_the_bound),
        cmocka_unit_test(test_keeping_costs_does_not_show),
        cmocka_unit_test(test_the_cheapest_are_those_of_a_sort),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
