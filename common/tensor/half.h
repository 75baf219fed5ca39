/* half.h - IEEE half precision (f16) and bfloat16, as their bits, to and from f32. */
#ifndef MODE_TENSOR_HALF_H
#define MODE_TENSOR_HALF_H

#include "tensor/tensor.h"

#include <string.h>

float mode_f16_to_f32(uint16_t h); /* exact */
uint16_t mode_f32_to_f16(float f); /* round to nearest even; overflow gives infinity, NaN stays NaN */
/* Exact. */
static inline float mode_bf16_to_f32(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Round to nearest even; overflow gives infinity, NaN stays NaN. */
static inline uint16_t mode_f32_to_bf16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* dst [n] f32 from n values of dtype F32, F16, BF16 (all exact) or F64 (round to nearest) at src, of any alignment;
 * both in host memory. False, and dst untouched, for another dtype. */
bool mode_half_to_f32(float *dst, const void *src, enum mode_dtype dtype, size_t n);

#endif
