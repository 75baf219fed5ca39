/* sums.h - sums of products with the errors that the libraries' kernels make: in f32 each product is rounded, and the
 * sum after it; a tensor core adds some products at once and cuts what comes out to f32, towards zero, so that long
 * sums come out small. Some columns are made at a time, each by itself, so that the host need not wait for one addition
 * before it begins the next. */
#ifndef MODE_EMULATOR_SUMS_H
#define MODE_EMULATOR_SUMS_H

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace mode_emu
{

enum { COLUMNS = 8 };

/* n rows of y, at most COLUMNS, as columns: number p of each, then p + 1. Those behind the n are 0. */
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
    bits -= std::fabs((double)f) > std::fabs(x); /* the next one towards zero */
    float cut;
    memcpy(&cut, &bits, sizeof cut);
    return cut;
}

#if defined(__x86_64__)
__attribute__((target_clones("avx2", "default"))) /* twice as fast, and the same numbers: nothing is fused */
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
