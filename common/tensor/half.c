#include "tensor/half.h"

#include <string.h>

static float bits_to_f32(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

float mode_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    if (exponent == 0) { /* zero or subnormal: fraction * 2^-24 */
        float f = (float)fraction * 0x1p-24f;
        return sign ? -f : f;
    }
    if (exponent == 31) return bits_to_f32(sign | 0x7f800000u | fraction << 13);
    return bits_to_f32(sign | (exponent + 112) << 23 | fraction << 13);
}

uint16_t mode_f32_to_f16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    uint32_t sign = bits >> 16 & 0x8000, a = bits & 0x7fffffff;
    if (a > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x1ff));
    if (a >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* 65520 and above round to infinity */
    if (a < 0x38800000) { /* below 2^-14, subnormal in f16: adding 0.5 rounds to units of 2^-24, in the low bits */
        float x = bits_to_f32(a) + 0.5f;
        memcpy(&bits, &x, sizeof bits);
        return (uint16_t)(sign | (bits - 0x3f000000u));
    }
    a += 0xfff + (a >> 13 & 1);
    return (uint16_t)(sign | ((a >> 13) - (112u << 10)));
}

bool mode_half_to_f32(float *dst, const void *src, enum mode_dtype dtype, size_t n)
{
    const unsigned char *p = src;
    if (dtype == MODE_DTYPE_F32) {
        memcpy(dst, src, n * sizeof *dst);
        return true;
    }
    if (dtype == MODE_DTYPE_F64) {
        for (size_t i = 0; i < n; i++) {
            double x;
            memcpy(&x, p + i * sizeof x, sizeof x);
            dst[i] = (float)x;
        }
        return true;
    }
    if (dtype != MODE_DTYPE_F16 && dtype != MODE_DTYPE_BF16) return false;
    for (size_t i = 0; i < n; i++) {
        uint16_t h = (uint16_t)(p[2 * i] | p[2 * i + 1] << 8);
        dst[i] = dtype == MODE_DTYPE_F16 ? mode_f16_to_f32(h) : mode_bf16_to_f32(h);
    }
    return true;
}
