/* traps.h - rows whose nearest centre another one beats as far as rounding can carry it: whoever finds candidates by
 * products in few digits must look at all that could be nearest.
 *
 * Three ways, with eps = 2^-11, half of what fp16 leaves between its numbers above 1: a centre whose numbers all round
 * away from the row and one whose numbers round towards it; a row that rounds towards one of two opposite centres; a
 * large product beside which a sum loses many small ones (of 1 - x.c alone). */
#ifndef MODE_TESTS_OPS_TRAPS_H
#define MODE_TESTS_OPS_TRAPS_H

#include "base/rng.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

enum { TRAP_CENTRES, TRAP_ROW, TRAP_SUM, N_TRAPS };

/* The largest number of 11 binary digits up to x > 0. */
static inline double of_11_digits(double x)
{
    int e;
    double f = frexp(x, &e);
    return ldexp(floor(ldexp(f, 11)), e - 11);
}

/* x [d] and c [k, d], k > 1, d > 2. Where the two near centres lie, signs and order of the columns and a power of two
 * are drawn; all other centres are far. */
static inline void trap(float *x, float *c, int64_t k, int64_t d, int kind, bool cosine, struct mode_rng *rng)
{
    const double eps = 0x1p-11, bit = 0x1p-20;
    const double small = 1448 * (mode_rng_below(rng, 2) ? 0x1p-22 : 0x1p-23); /* squared: just below 2^-23, 2^-25 */
    double sum = 0;
    float *row = calloc((size_t)(3 * d), sizeof *row), *near = row + d, *far = near + d;
    for (int64_t j = 0; j < d; j++) {
        double sign = j % 2 ? -1 : 1;
        switch (kind) {
        case TRAP_CENTRES:
            row[j] = 1;
            near[j] = (float)(1 + eps - bit); /* becomes 1 */
            far[j] = (float)(1 + eps + bit);  /* becomes 1 + 2 eps */
            break;
        case TRAP_ROW: /* each becomes eps more than it is */
            row[j] = j ? (float)(sign * (1 + eps) + bit) : 1;
            near[j] = -1;
            far[j] = 1;
            sum += j ? row[j] : 0;
            break;
        default:
            row[j] = j ? (float)small : 1;
            near[j] = row[j];
            far[j] = j ? 0 : 1;
        }
    }
    /* now what is nearer in truth, by little */
    if (kind == TRAP_CENTRES && cosine) far[0] = (float)(1 - 4 * eps - (double)d * 4 * bit);
    if (kind == TRAP_ROW) far[0] = (float)(-sum - (double)d * bit);
    if (kind == TRAP_ROW) near[0] = -far[0];
    if (kind == TRAP_SUM) far[1] = (float)of_11_digits(0.9 * (double)(d - 1) * small);
    const int scale = (int)mode_rng_below(rng, 41) - 20;
    const int64_t first = (int64_t)mode_rng_below(rng, (uint64_t)k);
    const int64_t second = (first + 1 + (int64_t)mode_rng_below(rng, (uint64_t)k - 1)) % k;
    const int64_t shift = (int64_t)mode_rng_below(rng, (uint64_t)d);
    for (int64_t j = 0; j < d; j++) {
        const int64_t at = (j + shift) % d;
        const float times = (float)ldexp(mode_rng_below(rng, 2) ? 1 : -1, scale);
        const float away = fabsf(row[j]) < 1 ? -row[j] : row[j] > 0 ? -1 : 1;
        x[at] = times * row[j];
        for (int64_t i = 0; i < k; i++) c[i * d + at] = times * (i == first ? near[j] : i == second ? far[j] : away);
    }
    free(row);
}

#endif
