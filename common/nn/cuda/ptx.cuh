/* ptx.cuh - products of 16 x 16 by 16 x 8 on tensor cores, how shared memory becomes their operands, and powers of 2.
 *
 * Instructions of PTX, in the place of nvcuda::wmma because PTX says which lane holds what: lane l, with g = l / 4
 * and t = l % 4, holds of a product c [16, 8] rows g (c[0], c[1]) and g + 8 (c[2], c[3]), columns 2 t and 2 t + 1. Two
 * neighbouring products, rounded, are therefore the left operand of the next one, without a way through memory.
 * All 32 lanes take part. Source: PTX ISA, "Matrix fragments for mma.m16n8k16", "ldmatrix". On the host
 * tests/cuda/emulator/include/nn/cuda/ptx.cuh stands in for this file. */
#ifndef MODE_NN_CUDA_PTX_CUH
#define MODE_NN_CUDA_PTX_CUH

#include <cuda_bf16.h>
#include <stdint.h>

/* Four matrices of 8 x 8, each row 16 bytes of shared memory aligned to 16: lanes 8 i .. 8 i + 7 name the rows of
 * matrix i. Lane l gets of each, in to[i], the numbers 2 t and 2 t + 1 of row g. */
static __device__ inline void load_matrices(uint32_t (&to)[4], const __nv_bfloat16 *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row)));
}

/* The same, each matrix turned round: numbers g of rows 2 t and 2 t + 1. */
static __device__ inline void load_matrices_turned(uint32_t (&to)[4], const __nv_bfloat16 *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row)));
}

/* c [16, 8] += a [16, 16] b [16, 8]. a: its four quarters in the order upper left, lower left, upper right, lower
 * right; b: of column g, rows 2 t and 2 t + 1 in b0 and eight further down in b1. */
static __device__ inline void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* 2^x to 2^-22 of itself; what is below the normal numbers is 0. */
static __device__ inline float power_of_2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#endif
