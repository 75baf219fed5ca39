/* nearest.cuh - the error bound of ranks (scores of centres), for both searches of the smallest one.
 *
 * Error of fp16 dot products. A row x is h + e, where h is the row in fp16 times a power of two and e the rounding
 * error, whose norm is computed when the row is rounded; c likewise is g + f, and C, F are the largest |c| and |f|.
 *
 *     |x.c - h.g| = |e.c + h.f| <= |e| |c| + (|x| + |e|) |f| <= |e| (C + F) + |x| F        (Cauchy and Schwarz)
 *
 * Products of fp16 are exact in f32. A tensor core adds m of them to an accumulator at a time (m is 4 to 16), truncates
 * each addend to 2^-23 of the largest one and the result to f32: m + 2 errors of 2^-23 times at most |h| |g| per m
 * products, so at most 1.5 d 2^-23 |h| |g| for d; any other summation in f32 has less. `sums` allows 2 (d + 16) 2^-23.
 * The error of a rank |c|^2 - 2 x.c is twice both; |c|^2, the difference, and the limit computed from the smallest rank
 * are rounded to f32 once each. A centre whose rank exceeds the smallest by more than the errors of two ranks cannot be
 * the nearest. The exact comparison rounds too: two sums of d squares in double by (d + 16) 2^-52 (|x| + C)^2 together,
 * two of 1 - x.c by (d + 16) 2^-52 |x| C + 2^-52. That is a millionth of the rest unless rows are very much longer than
 * centres: then all centres are equally far, and the first one wins. */
#ifndef MODE_NN_CUDA_NEAREST_CUH
#define MODE_NN_CUDA_NEAREST_CUH

#include "nn/cuda/kernels.h"

#include <cuda_fp16.h>

/* The margin: a bound on the sum of the errors of two ranks of row x. */
static __device__ inline float margin_of(const struct mode__cuda_centres &c, const struct mode__cuda_halved &x,
                                         int64_t d, bool cosine)
{
    const float most = c.most[0], off = c.most[1], sums = (float)(d + 16) * 0x1p-22f, u = 0x1p-24f;
    const float size = x.size + x.off, dot = x.off * (most + off) + x.size * off + size * (most + off) * sums;
    const float ranks = cosine ? dot + 4 * u * size * most : 2 * dot + 4 * u * (2 * size * most + most * most);
    const float exact = (float)(d + 16) * 0x1p-52f * (cosine ? size * most + 1 : (size + most) * (size + most));
    return 2.01f * ranks + 1.01f * exact + 1e-36f;
}

/* Centres with ranks up to this limit may be nearest, given the smallest rank. After overflow, any centre may be. */
static __device__ inline float limit_of(float rank, float margin)
{
    const float limit = rank + margin;
    return fabsf(limit) < INFINITY ? limit : INFINITY;
}

#endif
