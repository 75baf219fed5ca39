/* cuda_fp8.h - FP8: E4M3 has no infinities and one NaN per sign, E5M2 is the upper half of an fp16. Conversion rounds
 * to nearest even and saturates. */
#ifndef MODE_EMULATOR_CUDA_FP8_H
#define MODE_EMULATOR_CUDA_FP8_H

#include <cuda_runtime.h>
#include <math.h>

typedef unsigned char __nv_fp8_storage_t;
typedef enum { __NV_NOSAT, __NV_SATFINITE } __nv_saturation_t;
typedef enum { __NV_E4M3, __NV_E5M2 } __nv_fp8_interpretation_t;

/* Codes of both formats are ordered by magnitude: 0, the subnormals, then 2^bits codes per octave. */
static inline __nv_fp8_storage_t __nv_cvt_float_to_fp8(float x, __nv_saturation_t, __nv_fp8_interpretation_t format)
{
    const int bits = format == __NV_E4M3 ? 3 : 2, least = format == __NV_E4M3 ? -6 : -14,
              most = format == __NV_E4M3 ? 0x7e : 0x7b;
    const unsigned raw = mode_emu_bits<unsigned>(x), magnitude = raw & 0x7fffffffu;
    const __nv_fp8_storage_t sign = (__nv_fp8_storage_t)(raw >> 24 & 0x80u);
    if (magnitude > 0x7f800000u) return 0x7f;
    if (magnitude == 0x7f800000u) return (__nv_fp8_storage_t)(sign | most);
    int octave = magnitude < 0x00800000u ? -127 : (int)(magnitude >> 23) - 127;
    if (octave < least) octave = least;
    const double steps = nearbyint(ldexp((double)fabsf(x), bits - octave));
    const double code = (double)((octave - least) << bits) + steps;
    return (__nv_fp8_storage_t)(sign | (code > most ? most : (int)code));
}

static inline float mode_emu_fp8(__nv_fp8_storage_t code, __nv_fp8_interpretation_t format)
{
    const int bits = format == __NV_E4M3 ? 3 : 2, least = format == __NV_E4M3 ? -6 : -14, magnitude = code & 0x7f,
              octave = magnitude >> bits, rest = magnitude & ((1 << bits) - 1);
    if (format == __NV_E4M3 ? magnitude == 0x7f : magnitude > 0x7c) return NAN;
    const double x = format == __NV_E5M2 && magnitude == 0x7c ? (double)INFINITY
                     : octave                                 ? ldexp((1 << bits) + rest, octave - 1 + least - bits)
                                                              : ldexp(rest, least - bits);
    return (float)(code & 0x80 ? -x : x);
}
#endif
