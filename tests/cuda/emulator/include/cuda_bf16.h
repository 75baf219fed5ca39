/* cuda_bf16.h - the upper half of an f32; rounds to nearest even, as the GPU does. */
#ifndef MODE_EMULATOR_CUDA_BF16_H
#define MODE_EMULATOR_CUDA_BF16_H

#include <cuda_runtime.h>

struct __nv_bfloat16_raw {
    unsigned short x;
};

struct __nv_bfloat16 {
    unsigned short __x;

    __nv_bfloat16() = default;
    __nv_bfloat16(__nv_bfloat16_raw r) : __x(r.x) {}
    __nv_bfloat16(float f) : __x(rounded(f)) {}
    __nv_bfloat16(double f) : __x(rounded((float)f)) {}
    __nv_bfloat16(int i) : __x(rounded((float)i)) {}
    operator float() const
    {
        return mode_emu_bits<float>((unsigned)__x << 16);
    }
    static unsigned short rounded(float f)
    {
        unsigned bits = mode_emu_bits<unsigned>(f);
        if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
        return (unsigned short)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
    }
    __nv_bfloat16 &operator+=(__nv_bfloat16 b)
    {
        return *this = __nv_bfloat16((float)*this + (float)b);
    }
    __nv_bfloat16 &operator*=(__nv_bfloat16 b)
    {
        return *this = __nv_bfloat16((float)*this * (float)b);
    }
};
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
    __nv_bfloat162() = default;
    __nv_bfloat162(__nv_bfloat16 a, __nv_bfloat16 b) : x(a), y(b) {}
};
typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162 nv_bfloat162;

static inline __nv_bfloat16 __float2bfloat16(float f)
{
    return __nv_bfloat16(f);
}
static inline __nv_bfloat16 __float2bfloat16_rn(float f)
{
    return __nv_bfloat16(f);
}
static inline __nv_bfloat16 __double2bfloat16(double f)
{
    return __nv_bfloat16(f);
}
static inline float __bfloat162float(__nv_bfloat16 b)
{
    return (float)b;
}
static inline __nv_bfloat162 __floats2bfloat162_rn(float a, float b)
{
    return {__nv_bfloat16(a), __nv_bfloat16(b)};
}
static inline __nv_bfloat162 __float22bfloat162_rn(float2 f)
{
    return __floats2bfloat162_rn(f.x, f.y);
}
static inline __nv_bfloat162 __float2bfloat162_rn(float f)
{
    return __floats2bfloat162_rn(f, f);
}
static inline float2 __bfloat1622float2(__nv_bfloat162 b)
{
    return {(float)b.x, (float)b.y};
}
static inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 a, __nv_bfloat16 b)
{
    return {a, b};
}
static inline __nv_bfloat162 __bfloat162bfloat162(__nv_bfloat16 a)
{
    return {a, a};
}
static inline float __low2float(__nv_bfloat162 b)
{
    return (float)b.x;
}
static inline float __high2float(__nv_bfloat162 b)
{
    return (float)b.y;
}
static inline __nv_bfloat16 __low2bfloat16(__nv_bfloat162 b)
{
    return b.x;
}
static inline __nv_bfloat16 __high2bfloat16(__nv_bfloat162 b)
{
    return b.y;
}
static inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 b)
{
    return b.__x;
}
static inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short x)
{
    return __nv_bfloat16(__nv_bfloat16_raw{x});
}
#endif
