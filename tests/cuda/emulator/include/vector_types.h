/* vector_types.h - dim3, float4 and their like; sizes and alignments are CUDA's, so that a sanitizer reports misaligned
 * vector loads. */
#ifndef MODE_EMULATOR_VECTOR_TYPES_H
#define MODE_EMULATOR_VECTOR_TYPES_H

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

#define MODE_EMU_VECTORS(T, name)                                                                                      \
    struct name##1 {                                                                                                   \
        T x;                                                                                                           \
    };                                                                                                                 \
    struct alignas(2 * sizeof(T)) name##2 {                                                                            \
        T x, y;                                                                                                        \
    };                                                                                                                 \
    struct alignas(4 * sizeof(T) > 16 ? 16 : 4 * sizeof(T)) name##4 {                                                  \
        T x, y, z, w;                                                                                                  \
    };                                                                                                                 \
    static inline name##2 make_##name##2(T x, T y)                                                                     \
    {                                                                                                                  \
        return {x, y};                                                                                                 \
    }                                                                                                                  \
    static inline name##4 make_##name##4(T x, T y, T z, T w)                                                           \
    {                                                                                                                  \
        return {x, y, z, w};                                                                                           \
    }
MODE_EMU_VECTORS(float, float)
MODE_EMU_VECTORS(double, double)
MODE_EMU_VECTORS(int, int)
MODE_EMU_VECTORS(unsigned, uint)
MODE_EMU_VECTORS(short, short)
MODE_EMU_VECTORS(unsigned short, ushort)
MODE_EMU_VECTORS(signed char, char)
MODE_EMU_VECTORS(unsigned char, uchar)
MODE_EMU_VECTORS(long long, longlong)
#undef MODE_EMU_VECTORS

struct float3 {
    float x, y, z;
};
#endif
