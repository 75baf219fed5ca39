/* simd.h - eight floats at a time, in GCC's and clang's vector extensions: they compile to AVX2 in cpu_avx2.c,
 * cpu_avx512.c and cpu_amx.c (whose GEMM tiles are wider: tile.h, amx.h), and to the baseline instruction set in
 * cpu_plain.c. Only for files included there. */
#ifndef MODE_NN_CPU_SIMD_H
#define MODE_NN_CPU_SIMD_H

#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

typedef float v8 __attribute__((vector_size(32)));
typedef int32_t v8i __attribute__((vector_size(32)));
typedef uint32_t v8u __attribute__((vector_size(32)));
typedef float v8_loose __attribute__((vector_size(32), aligned(4), may_alias));

/* Eight lanes selected from a (0..7) and b (8..15). */
#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (v8i){__VA_ARGS__})
#endif

INLINE v8 load8(const float *p)
{
    return *(const v8_loose *)p;
}

INLINE void store8(float *p, v8 x)
{
    *(v8_loose *)p = x;
}

INLINE v8 splat8(float x)
{
    return (v8){x, x, x, x, x, x, x, x};
}

/* The first n < 8 floats; the others load as 0 and are not stored. */
INLINE v8 load_part(const float *p, int64_t n)
{
    float t[8] = {0};
    memcpy(t, p, (size_t)n * sizeof *t);
    return load8(t);
}

INLINE void store_part(float *p, v8 x, int64_t n)
{
    float t[8];
    store8(t, x);
    memcpy(p, t, (size_t)n * sizeof *t);
}

INLINE float sum8(v8 x)
{
    return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
}

INLINE v8 max8(v8 a, v8 b)
{
    v8i m = a > b;
    return (v8)(((v8i)a & m) | ((v8i)b & ~m));
}

INLINE v8 select8(v8i mask, v8 yes, v8 no)
{
    return (v8)(((v8i)yes & mask) | ((v8i)no & ~mask));
}

INLINE v8 abs8(v8 x)
{
    return (v8)((v8i)x & 0x7fffffff);
}

/* e^x within 2 ulp; 0 below -87.3 (no subnormals), e^88 above 88; propagates NaN. */
INLINE v8 exp8(v8 x)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it leaves the nearest integer in the low bits */
    v8 c = select8(x > 88.0f, splat8(88.0f), x);
    v8 t = c * 1.44269504088896341f + magic;
    v8 n = t - magic;
    v8 r = c - n * 0.693359375f; /* ln 2 in two parts, the first exact in 10 bits */
    r = r + n * 2.12194440054690583e-4f;
    v8 p = r * 1.9899285075e-4f + 1.3933650354e-3f; /* polynomial fit of (e^r - 1 - r) / r^2 on |r| <= ln 2 / 2 */
    p = p * r + 8.3332984697e-3f;
    p = p * r + 4.1666464915e-2f;
    p = p * r + 1.6666666719e-1f;
    p = p * r + 5.0000000135e-1f;
    p = p * (r * r) + r + 1.0f;
    v8 y = p * (v8)(((v8u)t << 23) + 0x3f800000u); /* wraps for very negative x: cleared in the next line */
    return (v8)((v8i)y & ~(x < -87.3f));
}

/* Phi(x), the standard normal CDF, where e = exp(-x^2 / 2): half of erfc(z) = e^(-z^2) t P(t), t = 1 / (1 + z / 2), z =
 * |x| / sqrt 2; P is a fit with relative error 6e-8 on z in [0, 10], past which e is 0. */
INLINE v8 phi8(v8 x, v8 e)
{
    v8 t = 1.0f / (abs8(x) * 0.35355339059327376f + 1.0f);
    v8 p = t * -5.831824262e-02f + 2.811919282e-01f;
    p = p * t + -4.808026836e-01f;
    p = p * t + 2.714708578e-01f;
    p = p * t + -2.259142426e-02f;
    p = p * t + 2.011966628e-01f;
    p = p * t + 2.434268151e-01f;
    p = p * t + 2.823378583e-01f;
    p = p * t + 2.820881945e-01f;
    v8 tail = p * t * e * 0.5f;
    return select8(x > 0.0f, 1.0f - tail, tail);
}

/* Relative error below 2e-7 everywhere: a polynomial fit of (tanh x / x - 1) / x^2 below 0.7, where the exponential
 * form cancels. */
INLINE v8 tanh8(v8 x)
{
    v8 z = x * x, a = abs8(x);
    v8 p = z * 2.064871420e-03f + -8.118739278e-03f;
    p = p * z + 2.169166402e-02f;
    p = p * z + -5.394856914e-02f;
    p = p * z + 1.333325265e-01f;
    p = p * z + -3.333333279e-01f;
    v8 big = 1.0f - 2.0f / (exp8(a * 2.0f) + 1.0f);
    big = (v8)((v8i)big | ((v8i)x & (int32_t)0x80000000));
    return select8(a < 0.7f, x + x * (z * p), big);
}
#endif
