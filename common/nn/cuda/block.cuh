/* block.cuh - warp and block reductions (sum, max), in a fixed order. */
#ifndef MODE_NN_CUDA_BLOCK_CUH
#define MODE_NN_CUDA_BLOCK_CUH

#include "nn/cuda/kernels.h"

enum { WARP = 32 };
#define ALL_LANES 0xffffffffu

template <typename T> static __device__ inline T warp_sum(T x)
{
    for (int i = WARP / 2; i; i /= 2) x += __shfl_xor_sync(ALL_LANES, x, i);
    return x;
}

template <typename T> static __device__ inline T warp_max(T x)
{
    for (int i = WARP / 2; i; i /= 2) {
        T y = __shfl_xor_sync(ALL_LANES, x, i);
        x = y > x ? y : x;
    }
    return x;
}

/* All threads get the result; blockDim.x is a multiple of 32, at most 1024. */
template <typename T> static __device__ inline T block_sum(T x)
{
    __shared__ T part[WARP];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    x = warp_sum(x);
    __syncthreads(); /* part may still be read by the previous call */
    if (lane == 0) part[warp] = x;
    __syncthreads();
    return warp_sum(lane < warps ? part[lane] : (T)0);
}

template <typename T> static __device__ inline T block_max(T x)
{
    __shared__ T part[WARP];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    x = warp_max(x);
    __syncthreads();
    if (lane == 0) part[warp] = x;
    __syncthreads();
    return warp_max(lane < warps ? part[lane] : part[0]);
}

static inline int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static inline unsigned blocks_of(int64_t n, int64_t per_block)
{
    return (unsigned)ceil_div(n, per_block);
}

/* The sequence that row r belongs to: the last b with offsets[b] <= r. Sequences are not empty. */
static __device__ inline int sequence_of(const int32_t *offsets, int64_t n_seq, int64_t r)
{
    int lo = 0, hi = (int)n_seq - 1;
    while (lo < hi) {
        int mid = (lo + hi + 1) / 2;
        if (offsets[mid] <= r)
            lo = mid;
        else
            hi = mid - 1;
    }
    return lo;
}

#endif
