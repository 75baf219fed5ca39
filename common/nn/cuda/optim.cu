/* optim.cu - AdamW and the norm of a gradient. */
#include "nn/cuda/block.cuh"

#include <cuda_bf16.h>

enum { THREADS = 256, SQUARE_BLOCK = 1 << 16 };

/* Subnormal moments are flushed as in nn/cpu/optim.h, so that they do not stay for good. */
static __device__ inline float flushed(float x)
{
    return fabsf(x) < 1.17549435e-38f ? 0 : x;
}

static __global__ void adamw(float *w, __nv_bfloat16 *copy, float *m, float *v, const float *g, int64_t n,
                             struct mode__cuda_adamw s)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float gi = g[i] * s.factor;
    float mi = flushed(s.beta1 * m[i] + (1 - s.beta1) * gi), vi = flushed(s.beta2 * v[i] + (1 - s.beta2) * gi * gi);
    m[i] = mi;
    v[i] = vi;
    float wi = w[i] * s.keep - s.step * mi / (sqrtf(vi) * s.root + s.eps);
    w[i] = wi;
    if (copy) copy[i] = __float2bfloat16_rn(wi);
}

void mode__cuda_adamw(cudaStream_t stream, float *w, void *copy, float *m, float *v, const float *g, int64_t n,
                      const struct mode__cuda_adamw *s)
{
    adamw<<<blocks_of(n, THREADS), THREADS, 0, stream>>>(w, (__nv_bfloat16 *)copy, m, v, g, n, *s);
}

static __global__ void squares(double *part, const float *x, int64_t n)
{
    int64_t first = (int64_t)blockIdx.x * SQUARE_BLOCK, end = first + SQUARE_BLOCK < n ? first + SQUARE_BLOCK : n;
    double s = 0;
    for (int64_t i = first + threadIdx.x; i < end; i += THREADS) s += (double)x[i] * x[i];
    s = block_sum(s);
    if (threadIdx.x == 0) part[blockIdx.x] = s;
}

static __global__ void add_up(double *sum, const double *part, int64_t n, bool onto)
{
    double s = 0;
    for (int64_t i = threadIdx.x; i < n; i += THREADS) s += part[i];
    s = block_sum(s);
    if (threadIdx.x == 0) *sum = onto ? *sum + s : s;
}

int64_t mode__cuda_square_work(int64_t n)
{
    return ceil_div(n, SQUARE_BLOCK);
}

void mode__cuda_sum_squares(cudaStream_t stream, double *sum, double *work, const float *x, int64_t n, bool onto)
{
    squares<<<blocks_of(n, SQUARE_BLOCK), THREADS, 0, stream>>>(work, x, n);
    add_up<<<1, THREADS, 0, stream>>>(sum, work, ceil_div(n, SQUARE_BLOCK), onto);
}
