/* optim.cu - AdamW and the norm of a gradient. */
#include "nn/cuda/store.cuh"

enum { THREADS = 256, SQUARE_BLOCK = 1 << 16 };

/* Subnormal moments are flushed as in nn/cpu/optim.h, so that they do not stay for good. */
static __device__ inline float flushed(float x)
{
    return fabsf(x) < 1.17549435e-38f ? 0 : x;
}

/* V numbers from i on; the rounded copy for products, where there is one, in the same pass. */
template <int V>
static __device__ inline void update(float *w, __nv_bfloat16 *copy, float *m, float *v, const float *g, int64_t i,
                                     const struct mode__cuda_adamw &s)
{
    float wi[V], mi[V], vi[V], gi[V];
    load<V>(wi, w + i);
    load<V>(mi, m + i);
    load<V>(vi, v + i);
    load<V>(gi, g + i);
    for (int k = 0; k < V; k++) {
        gi[k] *= s.factor;
        mi[k] = flushed(s.beta1 * mi[k] + (1 - s.beta1) * gi[k]);
        vi[k] = flushed(s.beta2 * vi[k] + (1 - s.beta2) * gi[k] * gi[k]);
        wi[k] = wi[k] * s.keep - s.step * mi[k] / (sqrtf(vi[k]) * s.root + s.eps);
    }
    store<V>(m + i, mi);
    store<V>(v + i, vi);
    store<V>(w + i, wi);
    if (copy) store<V>(copy + i, wi);
}

template <int V>
static __global__ void adamw(float *w, __nv_bfloat16 *copy, float *m, float *v, const float *g, int64_t n,
                             struct mode__cuda_adamw s)
{
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * V;
    if (i + V <= n)
        update<V>(w, copy, m, v, g, i, s);
    else
        for (; i < n; i++) update<1>(w, copy, m, v, g, i, s);
}

void mode__cuda_adamw(cudaStream_t stream, float *w, void *copy, float *m, float *v, const float *g, int64_t n,
                      const struct mode__cuda_adamw *s)
{
    using T = float;
    BY_WIDTH(wide_rows(0, 1, w, (const float *)copy, m, v, g),
             adamw<V><<<blocks_of(n, THREADS * V), THREADS, 0, stream>>>(w, (__nv_bfloat16 *)copy, m, v, g, n, *s));
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
