/* sums.h - sums of products with the errors that the libraries' kernels make: in f32 each product is rounded, and the
 * sum after it; a tensor core adds some products at once and cuts what comes out to f32, towards zero, so that long
 * sums come out small. */
#ifndef MODE_EMULATOR_SUMS_H
#define MODE_EMULATOR_SUMS_H

#include <algorithm>
#include <cmath>

namespace mode_emu
{

static inline float sum_in_f32(const float *x, const float *y, long long k)
{
    float s = 0;
    for (long long p = 0; p < k; p++) s += x[p] * y[p];
    return s;
}

static inline float cut_to_f32(double x)
{
    float f = (float)x;
    return std::fabs((double)f) > std::fabs(x) ? std::nextafter(f, 0.0f) : f;
}

static inline float sum_by_tensor_core(const float *x, const float *y, long long k, int at_a_time)
{
    float s = 0;
    for (long long p = 0; p < k; p += at_a_time) {
        double part = s;
        for (long long q = p; q < std::min(k, p + at_a_time); q++) part += (double)x[q] * y[q];
        s = cut_to_f32(part);
    }
    return s;
}

} // namespace mode_emu

#endif
