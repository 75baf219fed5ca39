/* ptx.cuh - mma.m16n8k16, ldmatrix for its operands, and ex2.
 *
 * PTX instead of nvcuda::wmma, because PTX specifies the fragment layout: lane l, with g = l / 4 and t = l % 4, holds
 * of the accumulator c [16, 8] rows g (c[0], c[1]) and g + 8 (c[2], c[3]), columns 2 t and 2 t + 1. Two neighbouring
 * accumulators, rounded, are therefore operand A of the next mma, without going through memory. All 32 lanes take part.
 * Source: PTX ISA, "Matrix fragments for mma.m16n8k16", "ldmatrix". On the host
 * tests/cuda/emulator/include/nn/cuda/ptx.cuh stands in for this file. */
#ifndef MODE_NN_CUDA_PTX_CUH
#define MODE_NN_CUDA_PTX_CUH

#include <cuda_bf16.h>
#include <stdint.h>

/* Four 8 x 8 matrices, each row 16 bytes of shared memory aligned to 16: lanes 8 i .. 8 i + 7 pass the row addresses of
 * matrix i. Lane l gets elements 2 t and 2 t + 1 of row g of matrix i in to[i]. */
static __device__ inline void ldmatrix(uint32_t (&to)[4], const __nv_bfloat16 *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row)));
}

/* The same, each matrix transposed: element g of rows 2 t and 2 t + 1. */
static __device__ inline void ldmatrix_transposed(uint32_t (&to)[4], const __nv_bfloat16 *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row)));
}

/* c [16, 8] += a [16, 16] b [16, 8]. a: its quarters in the order upper left, lower left, upper right, lower right; b:
 * of column g, rows 2 t and 2 t + 1 in b0, rows 2 t + 8 and 2 t + 9 in b1. */
static __device__ inline void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* 2^x with a relative error of 2^-22; subnormal results are flushed to 0. */
static __device__ inline float exp2_approx(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#endif
