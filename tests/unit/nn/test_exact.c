/* Sums in the summation order that nn/exact.c guarantees, against plain loops, bit-identical. */
#include "base/rng.h"
#include "nn/backend_impl.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { MOST = 1100, LANES = 32 };

static void fill(float *x, int64_t n, uint64_t stream)
{
    struct mode_rng r = mode_rng_for(3, MODE_RNG_TEST, stream, 0);
    for (int64_t i = 0; i < n; i++) x[i] = (float)(mode_rng_normal(&r) * exp(3 * mode_rng_normal(&r)));
}

static double folded(double *lane)
{
    for (int m = LANES / 2; m; m /= 2)
        for (int i = 0; i < m; i++) lane[i] = lane[i] + lane[i + m];
    return lane[0];
}

static void test_columns_are_added_up_in_lanes(void **state)
{
    static float x[MOST], y[MOST];
    (void)state;
    for (int d = 1; d <= MOST; d += d < 130 ? 1 : 97) {
        double squares[LANES] = {0}, products[LANES] = {0};
        fill(x, d, 2 * (uint64_t)d);
        fill(y, d, 2 * (uint64_t)d + 1);
        for (int j = 0; j < d; j++) {
            volatile double off = (double)x[j] - (double)y[j], square = off * off,
                            product = (double)x[j] * (double)y[j];
            squares[j % LANES] += square;
            products[j % LANES] += product;
        }
        const double cost = folded(squares), dot = folded(products);
        assert_true(mode__exact_cost(x, y, d, false) == cost);
        assert_true(mode__exact_dot(x, y, d) == dot);
        assert_true(mode__exact_cost(x, y, d, true) == 1 - dot);
    }
}

static void test_rows_are_added_up_in_pieces(void **state)
{
    enum { N = 3 * MODE__PIECE_ROWS + 17, D = 45 };
    static float x[N * D], mean[D];
    static int32_t members[N];
    static double sum[2 * D];
    static const int sizes[] = {1, 2, MODE__PIECE_ROWS, MODE__PIECE_ROWS + 1, N};
    (void)state;
    fill(x, N * D, 5000);
    for (int i = 0; i < N; i++) members[i] = (i * 7) % N; /* 785 and 7 have no common divisor */
    for (int t = 0; t < 5; t++)
        for (int unit = 0; unit < 2; unit++) {
            double want[D] = {0}, lane[LANES] = {0};
            for (int first = 0; first < sizes[t]; first += MODE__PIECE_ROWS) {
                double piece[D] = {0};
                for (int i = first; i < sizes[t] && i < first + MODE__PIECE_ROWS; i++)
                    for (int j = 0; j < D; j++) piece[j] += (double)x[members[i] * D + j];
                for (int j = 0; j < D; j++) want[j] += piece[j];
            }
            for (int j = 0; j < D; j++) {
                volatile double square = want[j] * want[j];
                lane[j % LANES] += square;
            }
            const double scale = unit ? 1 / sqrt(folded(lane)) : 1.0 / sizes[t];
            mode__exact_mean(mean, sum, x, members, sizes[t], D, unit);
            for (int j = 0; j < D; j++) assert_true(mean[j] == (float)(want[j] * scale));
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_columns_are_added_up_in_lanes),
        cmocka_unit_test(test_rows_are_added_up_in_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
