/* fp8.cu - quantising bf16 to fp8: the amax of a tensor, then its elements scaled and rounded, optionally transposed. A
 * maximum does not depend on the order of reduction, so results are deterministic. */
#include "nn/cuda/store.cuh"

#include <cuda_fp8.h>

enum { THREADS = 256, EACH = 16, MOST_PARTS = 1024, TILE = 32, TILE_ROWS = THREADS / TILE };

struct alignas(16) bytes16 {
    unsigned char x[EACH];
};

int64_t mode__cuda_fp8_parts(int64_t n)
{
    int64_t blocks = ceil_div(n, THREADS * EACH);
    const int64_t most = MOST_PARTS;
    return blocks < most ? blocks : most;
}

static __global__ void partial_amax(float *parts, const __nv_bfloat16 *x, int64_t n)
{
    float amax = 0;
    for (int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * EACH; i < n;
         i += (int64_t)gridDim.x * THREADS * EACH)
        for (int half = 0; half < EACH; half += 8) {
            float v[8];
            load(v, x + i + half);
#pragma unroll
            for (int j = 0; j < 8; j++) amax = fmaxf(amax, fabsf(v[j]));
        }
    amax = block_max(amax);
    if (threadIdx.x == 0) parts[blockIdx.x] = amax;
}

void mode__cuda_fp8_largest(cudaStream_t stream, float *parts, const void *x, int64_t n)
{
    partial_amax<<<(unsigned)mode__cuda_fp8_parts(n), THREADS, 0, stream>>>(parts, (const __nv_bfloat16 *)x, n);
}

/* mode__fp8_exponent of nn/backend_impl.h, from the parts; the same in every thread of a block. */
static __device__ inline int exponent_of(const float *parts, int n_parts, float upper)
{
    float amax = 0;
    for (int i = (int)threadIdx.x; i < n_parts; i += THREADS) amax = fmaxf(amax, parts[i]);
    amax = block_max(amax);
    if (!(amax > 0) || isinf(amax)) return 0;
    int e, top;
    float f = frexpf(amax, &e), upper_f = frexpf(upper, &top);
    int s = top - e - (f > upper_f);
    return s > 100 ? 100 : s < -100 ? -100 : s;
}

static __device__ inline unsigned char quantise(float x, float scale, __nv_fp8_interpretation_t format)
{
    return __nv_cvt_float_to_fp8(isfinite(x) ? x * scale : NAN, __NV_SATFINITE, format);
}

static __global__ void round8(unsigned char *to, float *back, const float *parts, int n_parts, const __nv_bfloat16 *x,
                              int64_t n, bool wide)
{
    const __nv_fp8_interpretation_t format = wide ? __NV_E5M2 : __NV_E4M3;
    const int s = exponent_of(parts, n_parts, wide ? 57344.0f : 448.0f);
    const float scale = ldexpf(1, s);
    if (blockIdx.x == 0 && threadIdx.x == 0) *back = ldexpf(1, -s);
    for (int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * EACH; i < n;
         i += (int64_t)gridDim.x * THREADS * EACH) {
        bytes16 out;
        for (int half = 0; half < EACH; half += 8) {
            float v[8];
            load(v, x + i + half);
#pragma unroll
            for (int j = 0; j < 8; j++) out.x[half + j] = quantise(v[j], scale, format);
        }
        *(bytes16 *)(to + i) = out;
    }
}

void mode__cuda_fp8_round(cudaStream_t stream, uint8_t *to, float *back, const float *parts, const void *x, int64_t n,
                          bool wide)
{
    const int64_t most = 132 * 16, blocks = ceil_div(n, THREADS * EACH);
    round8<<<(unsigned)(blocks < most ? blocks : most), THREADS, 0, stream>>>(
        to, back, parts, (int)mode__cuda_fp8_parts(n), (const __nv_bfloat16 *)x, n, wide);
}

/* A 32 x 32 tile per block of 32 x 8 threads (launched as 256 x 1). */
static __global__ void transpose8(unsigned char *to, float *back, const float *parts, int n_parts,
                                  const __nv_bfloat16 *x, int64_t rows, int64_t cols)
{
    __shared__ unsigned char tile[TILE][TILE + 4];
    const int s = exponent_of(parts, n_parts, 448.0f), lane = (int)threadIdx.x % TILE, warp = (int)threadIdx.x / TILE;
    const float scale = ldexpf(1, s);
    const int64_t row = (int64_t)blockIdx.y * TILE, col = (int64_t)blockIdx.x * TILE;
    if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0) *back = ldexpf(1, -s);
    for (int r = warp; r < TILE; r += TILE_ROWS)
        if (row + r < rows && col + lane < cols)
            tile[r][lane] = quantise(widen(x[(row + r) * cols + col + lane]), scale, __NV_E4M3);
    __syncthreads();
    for (int c = warp; c < TILE; c += TILE_ROWS)
        if (col + c < cols && row + lane < rows) to[(col + c) * rows + row + lane] = tile[lane][c];
}

void mode__cuda_fp8_transpose(cudaStream_t stream, uint8_t *to, float *back, const float *parts, const void *x,
                              int64_t rows, int64_t cols)
{
    transpose8<<<dim3(blocks_of(cols, TILE), blocks_of(rows, TILE)), THREADS, 0, stream>>>(
        to, back, parts, (int)mode__cuda_fp8_parts(rows * cols), (const __nv_bfloat16 *)x, rows, cols);
}
