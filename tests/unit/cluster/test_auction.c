/* The guarantees of the balanced assignment, checked independently: the certificate against the dual bound from its
 * prices, the cost against a serial auction, bit-identical results for any number of threads. */
#include "base/parallel.h"
#include "base/rng.h"
#include "cluster/balanced.h"
#include "cluster/places.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum kind { SPREAD, CROWDED, DUPLICATES, SORTED_DUPLICATES, ALIKE, KINDS };

/* x [n, d], c [k, d] */
static void make(float *x, float *c, int64_t n, int k, int d, enum kind kind)
{
    struct mode_rng r = mode_rng_for(5, MODE_RNG_TEST, 70 + kind, (uint64_t)n);
    for (int64_t i = 0; i < k * d; i++) c[i] = (float)mode_rng_normal(&r);
    for (int64_t i = 0; i < n; i++)
        for (int j = 0; j < d; j++) {
            float v = (float)mode_rng_normal(&r);
            if (kind == CROWDED) v *= 0.2f;
            if (kind == DUPLICATES && i >= 7) v = i % 2 ? x[(i % 7) * d + j] : v;
            if (kind == SORTED_DUPLICATES) v = i % 1000 ? x[(i - i % 1000) * d + j] : v;
            if (kind == ALIKE) v = (float)(1e-6 * v); /* costs differ by less than epsilon */
            x[i * d + j] = v;
        }
}

static struct mode_balanced_stats assign(struct mode_backend *be, int32_t *id, double *price, const float *x,
                                         const float *c, int64_t n, int k, int d, double tolerance, int candidates,
                                         bool keep)
{
    const struct mode_cost cost = {be, MODE_METRIC_EUCLIDEAN, x, c, n, k, d, NULL};
    const struct mode_balanced_params p = {tolerance, candidates, keep ? (size_t)1 << 30 : 0};
    struct mode_balanced_stats s;
    struct mode_balanced *b;
    assert_int_equal(mode_balanced_open(&b, n, k, d, &p, NULL), MODE_OK);
    mode_balanced_assign(b, id, price, &s, &cost);
    mode_balanced_close(&b);
    return s;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double cost_of(const float *x, const float *c, int d)
{
    double s = 0;
    for (int j = 0; j < d; j++) s += ((double)x[j] - c[j]) * ((double)x[j] - c[j]);
    return s;
}

/* The dual bound: the sum over rows of the least cost + price, with dummy rows on the cheapest places, minus the prices
 * of all places. By weak duality no balanced assignment costs less, whatever the prices. */
static double bound_at(const double *price, const float *x, const float *c, int64_t n, int k, int d)
{
    double bound = 0, *sorted = malloc((size_t)k * sizeof *sorted);
    const int64_t dummies = n % k ? k - n % k : 0;
    memcpy(sorted, price, (size_t)k * sizeof *sorted);
    qsort(sorted, (size_t)k, sizeof *sorted, by_value);
    for (int j = 0; j < k; j++) bound -= (double)((n + k - 1) / k) * price[j];
    for (int64_t j = 0; j < dummies; j++) bound += sorted[j];
    for (int64_t i = 0; i < n; i++) {
        double least = INFINITY;
        for (int j = 0; j < k; j++) least = fmin(least, cost_of(x + i * d, c + j * d, d) + price[j]);
        bound += least;
    }
    free(sorted);
    return bound;
}

static struct mode_backend *be;

static void test_certificates_hold(void **state)
{
    (void)state;
    enum { D = 6 };
    static const int shapes[][2] = {{5000, 50}, {4999, 50}, {3001, 200}, {900, 1000}, {6003, 7}};
    for (size_t t = 0; t < sizeof shapes / sizeof *shapes; t++)
        for (int kind = 0; kind < KINDS; kind++)
            for (int way = 0; way < 4; way++) {
                const int n = shapes[t][0], k = shapes[t][1], dummies = n % k ? k - n % k : 0;
                float *x = malloc((size_t)n * D * sizeof *x), *c = malloc((size_t)k * D * sizeof *c);
                double *price = calloc((size_t)k, sizeof *price), sum = 0;
                int32_t *id = malloc((size_t)n * sizeof *id);
                int *size = calloc((size_t)k, sizeof *size), larger = 0;
                make(x, c, n, k, D, (enum kind)kind);
                if (way == 3) /* warm start from bad prices */
                    for (int j = 0; j < k; j++) price[j] = j % 3;
                struct mode_balanced_stats s = assign(be, id, price, x, c, n, k, D, way == 1 ? 1e-2 : 1e-3,
                                                      way == 2 ? 4 : 32, way != 2);
                for (int i = 0; i < n; i++) {
                    assert_in_range(id[i], 0, k - 1);
                    size[id[i]]++;
                    sum += cost_of(x + (int64_t)i * D, c + (int64_t)id[i] * D, D);
                }
                for (int j = 0; j < k; j++) {
                    assert_in_range(size[j], n / k, n / k + (n % k != 0));
                    larger += size[j] > n / k;
                }
                assert_int_equal(larger, n % k);
                const double bound = bound_at(price, x, c, n, k, D), rounding = 3e-6 * (sum + n);
                const double allowed = (n + dummies) * s.epsilon + rounding;
                if (!(fabs(s.objective - sum) <= rounding)) fail_msg("objective %.9g, is %.9g", s.objective, sum);
                if (!(s.bound <= bound + rounding)) fail_msg("bound %.9g, prices say %.9g", s.bound, bound);
                if (!(sum <= s.bound + allowed) || !(sum >= s.bound - rounding))
                    fail_msg("n %d, k %d, kind %d, way %d: %.9g, at least %.9g, epsilon %.3g", n, k, kind, way, sum,
                             s.bound, s.epsilon);
                if (s.epsilon > 1e-2 * sum / n) /* no case here is a price war */
                    fail_msg("n %d, k %d, kind %d, way %d: epsilon %.3g, mean cost %.3g", n, k, kind, way, s.epsilon,
                             sum / n);
                free(x);
                free(c);
                free(price);
                free(id);
                free(size);
            }
}

/* A slow Gauss-Seidel auction without candidate lists: rows bid one at a time, each at the current prices. Returns the
 * sum of costs. */
static double one_after_another(const float *x, const float *c, int64_t n, int k, int d, double eps)
{
    struct mode__places p;
    int32_t *queue = malloc((size_t)(n + k) * sizeof *queue);
    double sum = 0;
    int64_t head = 0, left = 0;
    assert_true(mode__places_open(&p, n, k));
    mode__places_empty(&p);
    const int64_t all = n + p.dummies;
    for (; left < all; left++) queue[left] = left < n ? (int32_t)left : (int32_t)n;
    while (left > 0) {
        const int32_t who = queue[head];
        double best = INFINITY, next = INFINITY;
        int at = -1;
        for (int j = 0; j < k; j++) {
            double v = who < n ? cost_of(x + (int64_t)who * d, c + (int64_t)j * d, d) + p.price[j] : p.seat[j];
            if (v < best) {
                next = best;
                best = v;
                at = j;
            } else if (v < next) {
                next = v;
            }
        }
        const double now = who < n ? p.price[at] : p.seat[at];
        head = (head + 1) % all;
        left--;
        int32_t loser = mode__places_put(&p, at, (struct mode__bid){now + next - best + eps, who});
        if (loser >= 0) queue[(head + left++) % all] = loser;
    }
    for (int j = 0; j < k; j++)
        for (int64_t i = 0; i < p.size[j]; i++) {
            int32_t who = p.bid[j * p.cap + i].who;
            if (who < n) sum += cost_of(x + (int64_t)who * d, c + (int64_t)j * d, d);
        }
    mode__places_clear(&p);
    free(queue);
    return sum;
}

static void test_as_good_as_one_bid_after_another(void **state)
{
    (void)state;
    enum { N = 2011, K = 40, D = 4, ALL = N + K - N % K };
    float *x = malloc(N * D * sizeof *x), *c = malloc(K * D * sizeof *c);
    int32_t *id = malloc(N * sizeof *id);
    for (int kind = 0; kind < KINDS; kind++) {
        make(x, c, N, K, D, (enum kind)kind);
        struct mode_balanced_stats s = assign(be, id, NULL, x, c, N, K, D, 1e-2, 8, true);
        const double sum = one_after_another(x, c, N, K, D, s.epsilon), rounding = 3e-6 * (sum + N);
        assert_true(s.objective <= sum + ALL * s.epsilon + rounding);
        assert_true(sum <= s.objective + ALL * s.epsilon + rounding);
        assert_true(s.bound <= sum + rounding);
    }
    free(x);
    free(c);
    free(id);
}

/* Writes ids, prices and statistics of some cases as bytes. */
static void write_results(int fd)
{
    enum { N = 20011, K = 70, D = 5 };
    struct mode_backend *own;
    float *x = malloc(N * D * sizeof *x), *c = malloc(K * D * sizeof *c);
    int32_t *id = malloc(N * sizeof *id);
    if (mode_backend_open(&own, "cpu", NULL)) exit(1);
    for (int kind = 0; kind < KINDS; kind++) {
        double price[K] = {0};
        make(x, c, N, K, D, (enum kind)kind);
        struct mode_balanced_stats s = assign(own, id, price, x, c, N, K, D, 1e-2, 8, kind % 2);
        if (write(fd, id, N * sizeof *id) != N * sizeof *id || write(fd, price, sizeof price) != sizeof price ||
            write(fd, &s, sizeof s) != sizeof s)
            exit(1);
    }
    free(x);
    free(c);
    free(id);
    mode_backend_close(&own);
    exit(0);
}

/* In a process of its own, as the size of the thread pool is fixed. */
static FILE *results_with(int threads)
{
    FILE *f = tmpfile();
    int status = -1;
    assert_non_null(f);
    pid_t pid = fork();
    if (pid == 0) {
        mode_parallel_set_threads(threads);
        write_results(fileno(f));
    }
    assert_true(pid > 0 && waitpid(pid, &status, 0) == pid);
    assert_int_equal(status, 0);
    rewind(f);
    return f;
}

static void test_threads_do_not_show(void **state)
{
    (void)state;
    FILE *one = results_with(1);
    for (int threads = 2; threads <= 7; threads += 5) {
        FILE *more = results_with(threads);
        int64_t bytes = 0;
        for (int a = 0; a != EOF; bytes++) {
            a = getc(one);
            assert_int_equal(a, getc(more));
        }
        assert_true(bytes > 100000);
        rewind(one);
        fclose(more);
    }
    fclose(one);
}

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

int main(void)
{
    const struct CMUnitTest first[] = {cmocka_unit_test(test_threads_do_not_show)}; /* forks before the pool starts */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_certificates_hold),
        cmocka_unit_test(test_as_good_as_one_bid_after_another),
    };
    int failed = cmocka_run_group_tests(first, NULL, NULL);
    return failed + cmocka_run_group_tests(tests, set_up, tear_down);
}
