/* nearest.cuh - how far the ranks of centres can be off, for both ways of finding the smallest one.
 *
 * How far products of fp16 can be from those of the rows. A row x is h + e, where h is the row in fp16 times a power of
 * two and e what is left, whose length is measured when the row is rounded; c likewise is g + f, and C, F are the
 * largest |c| and |f|.
 *
 *     |x.c - h.g| = |e.c + h.f| <= |e| |c| + (|x| + |e|) |f| <= |e| (C + F) + |x| F        (Cauchy and Schwarz)
 *
 * Products of fp16 are exact in f32. A tensor core adds m of them to a sum at a time (m is 4 to 16), cuts each addend
 * to the 2^-23rd part of the largest one and the result to f32, towards zero: m + 2 errors of 2^-23 times at most |h|
 * |g| for m products, so 1.5 d 2^-23 |h| |g| or less for d; in any other order of f32 it is less. SUMS(d) allows 2 (d +
 * 16) 2^-23. A rank |c|^2 - 2 x.c is off by twice both; |c|^2 and the difference are rounded to f32 once each, and so
 * is the limit that is made from the smallest rank. Were the nearest centre's rank further above the smallest than two
 * ranks can be off together, then it would not be the nearest. What is measured is rounded, too: two sums of d squares
 * in double by (d + 16) 2^-52 (|x| + C)^2 together, two of 1 - x.c by (d + 16) 2^-52 |x| C + 2^-52. That is a millionth
 * of the rest unless rows are very much longer than centres: then they are as far from one centre as from the other,
 * and the first one wins. */
#ifndef MODE_NN_CUDA_NEAREST_CUH
#define MODE_NN_CUDA_NEAREST_CUH

#include "nn/cuda/kernels.h"

#include <cuda_fp16.h>

/* Two ranks of row x can be off by less than this together. */
static __device__ inline float margin_of(const struct mode__cuda_centres &c, const struct mode__cuda_halved &x,
                                         int64_t d, bool cosine)
{
    const float most = c.most[0], off = c.most[1], sums = (float)(d + 16) * 0x1p-22f, u = 0x1p-24f;
    const float size = x.size + x.off, dot = x.off * (most + off) + x.size * off + size * (most + off) * sums;
    const float ranks = cosine ? dot + 4 * u * size * most : 2 * dot + 4 * u * (2 * size * most + most * most);
    const float exact = (float)(d + 16) * 0x1p-52f * (cosine ? size * most + 1 : (size + most) * (size + most));
    return 2.01f * ranks + 1.01f * exact + 1e-36f;
}

/* What may be nearest: the smallest rank is given. Sums that overflow say nothing, and any centre may. */
static __device__ inline float limit_of(float rank, float margin)
{
    const float limit = rank + margin;
    return fabsf(limit) < INFINITY ? limit : INFINITY;
}

#endif
