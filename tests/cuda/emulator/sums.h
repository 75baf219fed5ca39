/* sums.h - dot products with the rounding errors of the libraries' kernels: in f32 each product and each sum is
 * rounded; a tensor core adds several products at once and truncates the result to f32, so that long sums come out
 * small. Several columns are computed at a time: their sums are independent, so the host's additions overlap. */
#ifndef MODE_EMULATOR_SUMS_H
#define MODE_EMULATOR_SUMS_H

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace mode_emu
{

enum { COLUMNS = 8 };

/* Interleaves n rows of y, at most COLUMNS: element p of each, then p + 1. Columns from n on are 0. */
static inline void side_by_side(float *to, const float *y, long long k, long long n)
{
    for (int c = 0; c < COLUMNS; c++)
        for (long long p = 0; p < k; p++) to[p * COLUMNS + c] = c < n ? y[c * k + p] : 0;
}

static inline void sums_in_f32(float s[COLUMNS], const float *x, const float *y, long long k)
{
    float sum[COLUMNS] = {};
    for (long long p = 0; p < k; p++)
        for (int c = 0; c < COLUMNS; c++) sum[c] += x[p] * y[p * COLUMNS + c];
    std::copy(sum, sum + COLUMNS, s);
}

static inline float cut_to_f32(double x)
{
    const float f = (float)x;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    bits -= std::fabs((double)f) > std::fabs(x); /* step towards zero */
    float cut;
    memcpy(&cut, &bits, sizeof cut);
    return cut;
}

#if defined(__x86_64__)
__attribute__((target_clones("avx2", "default"))) /* twice as fast, bit-identical: nothing is fused */
#endif
static void
sums_by_tensor_core(float s[COLUMNS], const float *x, const float *y, long long k, int at_a_time)
{
    float sum[COLUMNS] = {};
    for (long long p = 0; p < k; p += at_a_time) {
        double part[COLUMNS];
        std::copy(sum, sum + COLUMNS, part);
        for (long long q = p; q < std::min(k, p + at_a_time); q++)
            for (int c = 0; c < COLUMNS; c++) part[c] += (double)x[q] * y[q * COLUMNS + c];
        for (int c = 0; c < COLUMNS; c++) sum[c] = cut_to_f32(part[c]);
    }
    std::copy(sum, sum + COLUMNS, s);
}

} // namespace mode_emu

#endif
