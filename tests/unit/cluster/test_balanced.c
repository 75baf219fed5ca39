/* Balanced assignment against the exact optimum of small cases, and its sizes for awkward n and k. */
#include "base/rng.h"
#include "cluster/balanced.h"

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

static struct mode_balanced_stats assign(int32_t *id, const float *x, int n, const float *c, int k, int d, double tol)
{
    const struct mode_cost cost = {be, MODE_METRIC_EUCLIDEAN, x, c, n, k, d};
    struct mode_balanced_stats s;
    struct mode_balanced_params p = MODE_BALANCED_PARAMS_DEFAULT;
    p.tolerance = tol;
    assert_int_equal(mode_balanced_assign(id, NULL, &s, &cost, &p, NULL), MODE_OK);
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

/* The true optimum by trying everything: row by row, with places left per centre and larger sizes left. */
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
    assign(id, x, N, c, K, D, 1e-4); /* everything equal */
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

/* k above the candidate list's length: rows priced out of their list must look further. */
static void test_candidate_lists_do_not_change_the_bound(void **state)
{
    (void)state;
    enum { N = 600, K = 100, D = 4 };
    float *x = malloc(N * D * sizeof *x), *c = malloc(K * D * sizeof *c);
    int32_t id[N];
    fill(x, N * D, 1);
    fill(c, K * D, 2);
    for (int i = 0; i < N * D; i++) x[i] *= 0.2f; /* crowded in the middle: most are priced out of their first list */
    struct mode_balanced_params p = {.tolerance = 1e-5, .candidates = 64, .keep_bytes = 1 << 30};
    struct mode_balanced_stats s64, s2;
    const struct mode_cost cost = {be, MODE_METRIC_EUCLIDEAN, x, c, N, K, D};
    assert_int_equal(mode_balanced_assign(id, NULL, &s64, &cost, &p, NULL), MODE_OK);
    check_sizes(id, N, K);
    p.candidates = 4;
    p.keep_bytes = 0; /* and measure rows again */
    assert_int_equal(mode_balanced_assign(id, NULL, &s2, &cost, &p, NULL), MODE_OK);
    check_sizes(id, N, K);
    assert_true(s2.refreshed > 0);
    assert_true(fabs(s2.objective - s64.objective) <= N * (s2.epsilon > s64.epsilon ? s2.epsilon : s64.epsilon) + 1e-3);
    free(x);
    free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_objective_is_the_optimum_on_small_cases),
        cmocka_unit_test(test_sizes_differ_by_at_most_one),
        cmocka_unit_test(test_equal_rows_and_equal_centres_end),
        cmocka_unit_test(test_candidate_lists_do_not_change_the_bound),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
