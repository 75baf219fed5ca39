/* cuda_fp16.h - IEEE half precision: storage and conversion. */
#ifndef MODE_EMULATOR_CUDA_FP16_H
#define MODE_EMULATOR_CUDA_FP16_H

#include <cuda_runtime.h>

struct __half {
    unsigned short __x;

    __half() = default;
    __half(float f) : __x(rounded(f)) {}
    operator float() const
    {
        unsigned sign = (unsigned)(__x & 0x8000) << 16, exponent = __x >> 10 & 31, fraction = __x & 0x3ff;
        float f = exponent == 31  ? mode_emu_bits<float>(0x7f800000u | fraction << 13)
                  : exponent == 0 ? (float)fraction * 0x1p-24f
                                  : mode_emu_bits<float>((exponent + 112) << 23 | fraction << 13);
        return mode_emu_bits<float>(mode_emu_bits<unsigned>(f) | sign);
    }
    static unsigned short rounded(float f)
    {
        unsigned bits = mode_emu_bits<unsigned>(f), sign = bits >> 16 & 0x8000;
        bits &= 0x7fffffffu;
        if (bits > 0x7f800000u) return 0x7fff;
        if (bits >= 0x477ff000u) return (unsigned short)(sign | 0x7c00); /* rounds to infinity */
        if (bits < 0x38800000u) /* subnormal: multiples of 2^-24; nearbyint rounds to even */
            return (unsigned short)(sign | (unsigned)nearbyintf(mode_emu_bits<float>(bits) * 0x1p24f));
        return (unsigned short)(sign | (((bits + 0xfff + (bits >> 13 & 1)) >> 13) - (112u << 10)));
    }
};
struct alignas(4) __half2 {
    __half x, y;
    __half2() = default;
    __half2(__half a, __half b) : x(a), y(b) {}
};
typedef __half half;
typedef __half2 half2;

static inline __half __float2half(float f)
{
    return __half(f);
}
static inline __half __float2half_rn(float f)
{
    return __half(f);
}
static inline float __half2float(__half h)
{
    return (float)h;
}
static inline __half2 __floats2half2_rn(float a, float b)
{
    return {__half(a), __half(b)};
}
static inline float2 __half22float2(__half2 h)
{
    return {(float)h.x, (float)h.y};
}
#endif
