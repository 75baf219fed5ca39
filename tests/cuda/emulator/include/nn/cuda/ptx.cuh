/* ptx.cuh - replaces common/nn/cuda/ptx.cuh: the PTX instructions in C++. Fragments are gathered to whole matrices and
 * multiplied; sums are f32. */
#ifndef MODE_NN_CUDA_PTX_CUH
#define MODE_NN_CUDA_PTX_CUH

#include <cuda_bf16.h>

namespace mode_emu
{

static inline float half_of(uint32_t two, int which)
{
    return mode_emu_bits<float>(which ? two & 0xffff0000u : two << 16);
}

static inline void need_all(const char *what, unsigned present)
{
    if (present != 0xffffffffu) fault("%s needs all 32 lanes; present: %08x", what, present);
}

template <bool TRANSPOSED> struct ldmatrix_rows {
    const __nv_bfloat16 *row;
    uint32_t to[4];
    static void work(void *const payload[32], unsigned present)
    {
        need_all("ldmatrix", present);
        for (int lane = 0; lane < 32; lane++) {
            const void *row = ((const ldmatrix_rows *)payload[lane])->row;
            if ((uintptr_t)row % 16) fault("ldmatrix of a row at %p, which is not aligned to 16 bytes", row);
        }
        for (int lane = 0; lane < 32; lane++)
            for (int m = 0; m < 4; m++) {
                uint32_t two[2];
                for (int i = 0; i < 2; i++) {
                    int along = lane % 4 * 2 + i, r = TRANSPOSED ? along : lane / 4, c = TRANSPOSED ? lane / 4 : along;
                    two[i] = ((const ldmatrix_rows *)payload[8 * m + r])->row[c].__x;
                }
                ((ldmatrix_rows *)payload[lane])->to[m] = two[0] | two[1] << 16;
            }
    }
};

struct mma_16_8 {
    float *c;
    const uint32_t *a;
    uint32_t b[2];
    static void work(void *const payload[32], unsigned present)
    {
        float a[16][16], b[16][8];
        need_all("mma", present);
        for (int lane = 0; lane < 32; lane++) {
            const mma_16_8 &p = *(const mma_16_8 *)payload[lane];
            int g = lane / 4, t = lane % 4;
            for (int q = 0; q < 4; q++)
                for (int i = 0; i < 2; i++) a[g + q % 2 * 8][2 * t + i + q / 2 * 8] = half_of(p.a[q], i);
            for (int q = 0; q < 2; q++)
                for (int i = 0; i < 2; i++) b[2 * t + i + 8 * q][g] = half_of(p.b[q], i);
        }
        for (int lane = 0; lane < 32; lane++)
            for (int e = 0; e < 4; e++) {
                int i = lane / 4 + e / 2 * 8, j = lane % 4 * 2 + e % 2;
                float s = 0;
                for (int k = 0; k < 16; k++) s += a[i][k] * b[k][j];
                ((mma_16_8 *)payload[lane])->c[e] += s;
            }
    }
};

} // namespace mode_emu

static inline void ldmatrix(uint32_t (&to)[4], const __nv_bfloat16 *row)
{
    mode_emu::ldmatrix_rows<false> m = {row, {}};
    mode_emu::meet_warp({"ldmatrix", "ptx.cuh", 0}, 0xffffffffu, &m, m.work);
    for (int i = 0; i < 4; i++) to[i] = m.to[i];
}

static inline void ldmatrix_transposed(uint32_t (&to)[4], const __nv_bfloat16 *row)
{
    mode_emu::ldmatrix_rows<true> m = {row, {}};
    mode_emu::meet_warp({"ldmatrix.trans", "ptx.cuh", 0}, 0xffffffffu, &m, m.work);
    for (int i = 0; i < 4; i++) to[i] = m.to[i];
}

static inline void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    mode_emu::mma_16_8 p = {c, a, {b0, b1}};
    mode_emu::meet_warp({"mma", "ptx.cuh", 0}, 0xffffffffu, &p, p.work);
}

static inline float exp2_approx(float x)
{
    const float y = exp2f(x);
    return y < 0x1p-126f ? 0 : y; /* flushes subnormals, keeps NaN */
}

#endif
