/* rows.cu - elementwise and row-wise kernels.
 *
 * DESIGN: a thread takes 16 bytes of a row at a time where rows are aligned to that, a warp per row, 8 rows per block.
 * Column sums are computed in chunks of rows, whose partial sums are then added in order; the chunk size depends on the
 * shape alone. The residual needs no kernel: GEMMs add it (beta = 1). */
#include "nn/cuda/ptx.cuh"
#include "nn/cuda/store.cuh"
#include "nn/ops.h"

enum {
    THREADS = 256,
    ROWS = THREADS / WARP,
    SUM_CHUNKS = 256, /* for long columns: with 3 blocks per chunk (768 columns of bf16), six blocks per SM */
    PARTS = 32        /* partial sums added at a time */
};

/* 2^(c[0] + c[1] a + .. + c[9] a^9) */
static __device__ inline float exp2_of(const float (&c)[10], float a)
{
    float p = c[9];
#pragma unroll
    for (int k = 8; k >= 0; k--) p = p * a + c[k];
    return exp2_approx(p);
}

/* GELU for bf16. With a = |x|, Phi the normal distribution, phi its density, and ROOT where Phi(-a) = a phi(a):
 *     Phi(-a) = 2^P(a),    Phi(-a) - a phi(a) = (ROOT - a) 2^Q(a)
 * Both exponents are smooth, so each side is one polynomial and one exponential, without a quotient and without
 * cancellation. P and Q by Remez's algorithm for 0 <= a <= 12.75, where x Phi(x) is 1e-36. Relative errors of the
 * results: P 1.5e-5; Q 1.1e-4, and 1.1e-5 at 0 (its weight is 1 + 9 e^(-20 a)). Beyond, both fall to minus infinity. */
static __device__ inline float gelu_fast(float x, float *slope)
{
    constexpr float ROOT = 0.751791537f;
    constexpr float P[10] = {-1.00002134f,    -1.15111864f,   -0.458488405f,   -0.0542137139f, 0.00877630152f,
                             -0.00104704639f, 8.73025128e-5f, -4.76184914e-6f, 1.51629777e-7f, -2.12810414e-9f};
    constexpr float Q[10] = {-0.588420749f,   -0.381916583f,  -0.565816522f,   -0.0481532849f, 0.0107505862f,
                             -0.00165478641f, 0.00016871767f, -1.07945616e-5f, 3.90653156e-7f, -6.08402306e-9f};
    const float a = fabsf(x), tail = exp2_of(P, a), tail_slope = (ROOT - a) * exp2_of(Q, a);
    *slope = x < 0 ? tail_slope : 1 - tail_slope;
    return x * (x < 0 ? tail : 1 - tail);
}

/* act(x); *slope = act'(x). For bf16, GELU's exponentials and quotients are the fast instructions. */
template <typename T, int ACT> static __device__ inline float activate(float x, float *slope)
{
    constexpr bool BF16 = sizeof(T) == 2;
    switch (ACT) {
    case MODE_ACT_GELU: {
        if (BF16) return gelu_fast(x, slope);
        const float phi = 0.5f * erfcf(-x * 0.70710678118654752f);
        *slope = phi + x * 0.39894228040143268f * expf(-0.5f * x * x);
        return x * phi;
    }
    case MODE_ACT_GELU_TANH: {
        float t = tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x));
        *slope = 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * 0.79788456080286536f * (1 + 0.134145f * x * x);
        return 0.5f * x * (1 + t);
    }
    case MODE_ACT_QUICK_GELU: {
        constexpr float BETA = 1.702f, LOG2_E = 1.4426950408889634f;
        const float s = BF16 ? __fdividef(1, 1 + exp2_approx(-BETA * LOG2_E * x)) : 1 / (1 + expf(-BETA * x));
        const float y = x * s;
        *slope = s + y * BETA * (1 - s);
        return y;
    }
    case MODE_ACT_TANH: {
        float t = tanhf(x);
        *slope = 1 - t * t;
        return t;
    }
    default: *slope = 1; return x;
    }
}

/* The statement with ACT set. */
#define BY_ACT(act, ...)                                                                                               \
    do {                                                                                                               \
        switch (act) {                                                                                                 \
            ONE_ACT(MODE_ACT_GELU, __VA_ARGS__);                                                                       \
            ONE_ACT(MODE_ACT_GELU_TANH, __VA_ARGS__);                                                                  \
            ONE_ACT(MODE_ACT_QUICK_GELU, __VA_ARGS__);                                                                 \
            ONE_ACT(MODE_ACT_TANH, __VA_ARGS__);                                                                       \
            ONE_ACT(MODE_ACT_NONE, __VA_ARGS__);                                                                       \
        }                                                                                                              \
    } while (0)
#define ONE_ACT(act, ...)                                                                                              \
    case act: {                                                                                                        \
        constexpr int ACT = act;                                                                                       \
        __VA_ARGS__;                                                                                                   \
    } break

template <typename T, int V, int ACT> static __global__ void activation(T *y, const T *z, int64_t count)
{
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * V;
    if (i >= count) return;
    float x[V], slope;
    load<V>(x, z + i);
    for (int v = 0; v < V; v++) x[v] = activate<T, ACT>(x[v], &slope);
    store<V>(y + i, x);
}

template <typename T, int V>
static __global__ void add_bias(T *c, const T *from, int64_t count, int64_t n, const T *bias)
{
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * V;
    if (i >= count) return;
    float x[V], b[V];
    load<V>(x, from + i);
    load<V>(b, bias + i % n);
    for (int v = 0; v < V; v++) x[v] += b[v];
    store<V>(c + i, x);
}

void mode__cuda_epilogue(cudaStream_t stream, bool bf16, void *c, const void *from, int64_t m, int64_t n,
                         const void *bias, int act)
{
    if (bias)
        BY_TYPE(bf16, BY_WIDTH(wide_rows(n, sizeof(T), (T *)c, (const T *)from, (const T *)bias),
                               add_bias<T, V><<<blocks_of(m * n, THREADS * V), THREADS, 0, stream>>>(
                                   (T *)c, (const T *)from, m * n, n, (const T *)bias)));
    else
        BY_TYPE(bf16, BY_WIDTH(wide_rows(n, sizeof(T), (T *)c, (const T *)from),
                               BY_ACT(act, activation<T, V, ACT><<<blocks_of(m * n, THREADS * V), THREADS, 0, stream>>>(
                                               (T *)c, (const T *)from, m * n))));
}

template <typename T, int V, int ACT> static __global__ void activate_back(T *dz, const T *z, int64_t count)
{
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * V;
    if (i >= count) return;
    float x[V], d[V], slope;
    load<V>(x, z + i);
    load<V>(d, dz + i);
    for (int v = 0; v < V; v++) {
        activate<T, ACT>(x[v], &slope);
        d[v] *= slope;
    }
    store<V>(dz + i, d);
}

void mode__cuda_activate_back(cudaStream_t stream, bool bf16, void *dz, const void *z, int64_t m, int64_t n, int act)
{
    BY_TYPE(bf16, BY_WIDTH(wide_rows(n, sizeof(T), (T *)dz, (const T *)z),
                           BY_ACT(act, activate_back<T, V, ACT><<<blocks_of(m * n, THREADS * V), THREADS, 0, stream>>>(
                                           (T *)dz, (const T *)z, m * n))));
}

/* Rows per partial sum, by shape alone. Wide rows have enough blocks with fewer chunks, and large partial sums. */
static __host__ __device__ inline int64_t chunk_of(int64_t m, int64_t n)
{
    const int64_t chunks = n > 64 * SUM_CHUNKS ? SUM_CHUNKS / 4 : SUM_CHUNKS, chunk = (m + chunks - 1) / chunks;
    return chunk < 64 ? 64 : chunk;
}

int64_t mode__cuda_sum_work(int64_t m, int64_t n)
{
    return ceil_div(m, chunk_of(m, n)) * n;
}

/* part [chunks, n]: column sums over a chunk of what value(x, row, column) stores to x; a block takes 32 V columns, 8
 * rows at a time */
template <int V, typename F> static __device__ inline void chunk_sums(float *part, int64_t m, int64_t n, F value)
{
    __shared__ float sums[ROWS][V * WARP]; /* [V, lanes]: lanes are in different banks */
    int64_t j = ((int64_t)blockIdx.x * WARP + threadIdx.x) * V, chunk = chunk_of(m, n), first = blockIdx.y * chunk;
    int64_t end = first + chunk < m ? first + chunk : m;
    float s[V], x[V];
    for (int v = 0; v < V; v++) s[v] = 0;
    if (j < n)
        for (int64_t i = first + threadIdx.y; i < end; i += ROWS) {
            value(x, i, j);
            for (int v = 0; v < V; v++) s[v] += x[v];
        }
    for (int v = 0; v < V; v++) sums[threadIdx.y][v * WARP + threadIdx.x] = s[v];
    __syncthreads();
    if (threadIdx.y > 0 || j >= n) return;
    for (int i = 1; i < ROWS; i++)
        for (int v = 0; v < V; v++) s[v] += sums[i][v * WARP + threadIdx.x];
    store<V>(part + blockIdx.y * n + j, s);
}

template <typename T, int V> static __global__ void column_chunks(float *part, const T *x, int64_t m, int64_t n)
{
    chunk_sums<V>(part, m, n, [=](float(&to)[V], int64_t i, int64_t j) { load<V>(to, x + i * n + j); });
}

template <typename T, int V>
static __global__ void product_chunks(float *part, const T *x, const T *y, int64_t m, int64_t n)
{
    chunk_sums<V>(part, m, n, [=](float(&to)[V], int64_t i, int64_t j) {
        float b[V];
        load<V>(to, x + i * n + j);
        load<V>(b, y + i * n + j);
        for (int v = 0; v < V; v++) to[v] *= b[v];
    });
}

/* out [n] += sum of its parts. Block: 32 columns, PARTS parts at a time; blockIdx.y selects the second output, whose
 * parts are interleaved with the first's. */
static __global__ void __launch_bounds__(WARP *PARTS)
    add_chunks(float *out, float *also, const float *part, int64_t chunks, int64_t n)
{
    __shared__ float sums[PARTS][WARP];
    const int64_t j = (int64_t)blockIdx.x * WARP + threadIdx.x;
    float s = 0;
    if (j < n)
        for (int64_t i = threadIdx.y; i < chunks; i += PARTS) s += part[(i * gridDim.y + blockIdx.y) * n + j];
    sums[threadIdx.y][threadIdx.x] = s;
    __syncthreads();
    if (threadIdx.y > 0 || j >= n) return;
    for (int i = 1; i < PARTS; i++) s += sums[i][threadIdx.x];
    (blockIdx.y ? also : out)[j] += s;
}

void mode__cuda_add_chunks(cudaStream_t stream, float *out, float *also, const float *part, int64_t chunks, int64_t n)
{
    add_chunks<<<dim3(blocks_of(n, WARP), also ? 2 : 1), dim3(WARP, PARTS), 0, stream>>>(out, also, part, chunks, n);
}

static dim3 chunk_grid(int64_t m, int64_t n, int v)
{
    return dim3(blocks_of(n, WARP * v), blocks_of(m, chunk_of(m, n)));
}

void mode__cuda_column_sums(cudaStream_t stream, bool bf16, float *out, float *work, const void *x, int64_t m,
                            int64_t n)
{
    BY_TYPE(bf16, BY_WIDTH(wide_rows(n, sizeof(T), (const T *)x),
                           column_chunks<T, V><<<chunk_grid(m, n, V), dim3(WARP, ROWS), 0, stream>>>(
                               work, (const T *)x, m, n)));
    mode__cuda_add_chunks(stream, out, NULL, work, ceil_div(m, chunk_of(m, n)), n);
}

template <typename T, int V> static __global__ void l2norm(float *y, float *norm, const T *x, int64_t m, int64_t d)
{
    int64_t i = (int64_t)blockIdx.x * ROWS + threadIdx.y;
    if (i >= m) return;
    float s = 0, a[V];
    for (int64_t j = threadIdx.x * V; j < d; j += WARP * V) {
        load<V>(a, x + i * d + j);
        for (int v = 0; v < V; v++) s += a[v] * a[v];
    }
    s = sqrtf(warp_sum(s));
    s = s > 1e-12f ? s : 1e-12f;
    if (threadIdx.x == 0) norm[i] = s;
    for (int64_t j = threadIdx.x * V; j < d; j += WARP * V) {
        load<V>(a, x + i * d + j);
        for (int v = 0; v < V; v++) a[v] /= s;
        store<V>(y + i * d + j, a);
    }
}

void mode__cuda_l2norm(cudaStream_t stream, bool bf16, float *y, float *norm, const void *x, int64_t m, int64_t d)
{
    BY_TYPE(bf16, BY_WIDTH(wide_rows(d, sizeof(T), y, (const T *)x),
                           l2norm<T, V><<<blocks_of(m, ROWS), dim3(WARP, ROWS), 0, stream>>>(y, norm, (const T *)x, m,
                                                                                             d)));
}

template <typename T, int V>
static __global__ void l2norm_back(T *dx, const float *dy, const float *y, const float *norm, int64_t m, int64_t d)
{
    int64_t i = (int64_t)blockIdx.x * ROWS + threadIdx.y;
    if (i >= m) return;
    float dot = 0, g[V], u[V];
    for (int64_t j = threadIdx.x * V; j < d; j += WARP * V) {
        load<V>(g, dy + i * d + j);
        load<V>(u, y + i * d + j);
        for (int v = 0; v < V; v++) dot += g[v] * u[v];
    }
    dot = warp_sum(dot);
    for (int64_t j = threadIdx.x * V; j < d; j += WARP * V) {
        load<V>(g, dy + i * d + j);
        load<V>(u, y + i * d + j);
        for (int v = 0; v < V; v++) g[v] = (g[v] - dot * u[v]) / norm[i];
        store<V>(dx + i * d + j, g);
    }
}

void mode__cuda_l2norm_back(cudaStream_t stream, bool bf16, void *dx, const float *dy, const float *y,
                            const float *norm, int64_t m, int64_t d)
{
    BY_TYPE(bf16, BY_WIDTH(wide_rows(d, sizeof(T), (T *)dx, dy, y),
                           l2norm_back<T, V><<<blocks_of(m, ROWS), dim3(WARP, ROWS), 0, stream>>>((T *)dx, dy, y, norm,
                                                                                                  m, d)));
}

template <typename T, int V>
static __global__ void scale(T *y, const T *x, const float *g, const T *add, int64_t count, int64_t d)
{
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * V;
    if (i >= count) return;
    float a[V], b[V];
    load<V>(a, x + i);
    load<V>(b, g + i % d);
    for (int v = 0; v < V; v++) a[v] *= b[v];
    if (add) {
        load<V>(b, add + i);
        for (int v = 0; v < V; v++) a[v] += b[v];
    }
    store<V>(y + i, a);
}

void mode__cuda_scale(cudaStream_t stream, bool bf16, void *y, const void *x, const float *g, const void *add,
                      int64_t m, int64_t d)
{
    BY_TYPE(bf16, BY_WIDTH(wide_rows(d, sizeof(T), (T *)y, (const T *)x, g, (const T *)add),
                           scale<T, V><<<blocks_of(m * d, THREADS * V), THREADS, 0, stream>>>(
                               (T *)y, (const T *)x, g, (const T *)add, m * d, d)));
}

void mode__cuda_scale_back(cudaStream_t stream, bool bf16, void *dx, float *dg, float *work, const void *dy,
                           const void *x, const float *g, int64_t m, int64_t d)
{
    BY_TYPE(bf16, BY_WIDTH(wide_rows(d, sizeof(T), (const T *)dy, (const T *)x),
                           product_chunks<T, V><<<chunk_grid(m, d, V), dim3(WARP, ROWS), 0, stream>>>(
                               work, (const T *)dy, (const T *)x, m, d)));
    mode__cuda_add_chunks(stream, dg, NULL, work, ceil_div(m, chunk_of(m, d)), d);
    mode__cuda_scale(stream, bf16, dx, dy, g, NULL, m, d);
}

/* A block per sequence, or per row; V columns per thread. */
template <typename T, int V>
static __global__ void mean_rows(T *y, const T *x, const int32_t *offsets, int64_t d, int64_t skip)
{
    int64_t first = offsets[blockIdx.x] + skip, end = offsets[blockIdx.x + 1];
    for (int64_t j = threadIdx.x * V; j < d; j += blockDim.x * V) {
        float s[V], a[V];
        for (int v = 0; v < V; v++) s[v] = 0;
        for (int64_t i = first; i < end; i++) {
            load<V>(a, x + i * d + j);
            for (int v = 0; v < V; v++) s[v] += a[v];
        }
        for (int v = 0; v < V; v++) s[v] /= (float)(end - first);
        store<V>(y + blockIdx.x * d + j, s);
    }
}

/* Threads to cover a row of d elements, V at a time. */
static unsigned row_threads(int64_t d, int v)
{
    int64_t n = ceil_div(ceil_div(d, v), WARP) * WARP;
    return (unsigned)(n < THREADS ? n : (int64_t)THREADS);
}

void mode__cuda_mean_rows(cudaStream_t stream, bool bf16, void *y, const void *x, const int32_t *offsets,
                          int64_t n_seq, int64_t d, int64_t skip)
{
    BY_TYPE(bf16, BY_WIDTH(wide_rows(d, sizeof(T), (T *)y, (const T *)x),
                           mean_rows<T, V><<<(unsigned)n_seq, row_threads(d, V), 0, stream>>>((T *)y, (const T *)x,
                                                                                              offsets, d, skip)));
}

template <typename T, int V>
static __global__ void mean_rows_back(T *dx, const T *dy, const int32_t *offsets, int64_t d, int64_t skip)
{
    int64_t first = offsets[blockIdx.x], end = offsets[blockIdx.x + 1];
    float share = 1 / (float)(end - first - skip);
    for (int64_t j = threadIdx.x * V; j < d; j += blockDim.x * V) {
        float g[V], none[V];
        load<V>(g, dy + blockIdx.x * d + j);
        for (int v = 0; v < V; v++) {
            g[v] *= share;
            none[v] = 0;
        }
        for (int64_t i = first; i < end; i++) {
            if (i < first + skip)
                store<V>(dx + i * d + j, none);
            else
                store<V>(dx + i * d + j, g);
        }
    }
}

void mode__cuda_mean_rows_back(cudaStream_t stream, bool bf16, void *dx, const void *dy, const int32_t *offsets,
                               int64_t n_seq, int64_t d, int64_t skip)
{
    BY_TYPE(bf16, BY_WIDTH(wide_rows(d, sizeof(T), (T *)dx, (const T *)dy),
                           mean_rows_back<T, V><<<(unsigned)n_seq, row_threads(d, V), 0, stream>>>(
                               (T *)dx, (const T *)dy, offsets, d, skip)));
}

template <typename T, int V> static __global__ void gather(T *y, const T *x, const int32_t *rows, int64_t d)
{
    for (int64_t j = threadIdx.x * V; j < d; j += blockDim.x * V) {
        float a[V];
        load<V>(a, x + rows[blockIdx.x] * d + j);
        store<V>(y + blockIdx.x * d + j, a);
    }
}

void mode__cuda_gather(cudaStream_t stream, bool bf16, void *y, const void *x, const int32_t *rows, int64_t n,
                       int64_t d)
{
    BY_TYPE(bf16, BY_WIDTH(wide_rows(d, sizeof(T), (T *)y, (const T *)x),
                           gather<T, V><<<(unsigned)n, row_threads(d, V), 0, stream>>>((T *)y, (const T *)x, rows,
                                                                                       d)));
}

template <typename T, int V> static __global__ void scatter_add(T *x, const T *y, const int32_t *rows, int64_t d)
{
    for (int64_t j = threadIdx.x * V; j < d; j += blockDim.x * V) {
        float a[V], b[V];
        T *to = x + rows[blockIdx.x] * d + j;
        load<V>(a, to);
        load<V>(b, y + blockIdx.x * d + j);
        for (int v = 0; v < V; v++) a[v] += b[v];
        store<V>(to, a);
    }
}

void mode__cuda_scatter_add(cudaStream_t stream, bool bf16, void *x, const void *y, const int32_t *rows, int64_t n,
                            int64_t d)
{
    BY_TYPE(bf16, BY_WIDTH(wide_rows(d, sizeof(T), (T *)x, (const T *)y),
                           scatter_add<T, V><<<(unsigned)n, row_threads(d, V), 0, stream>>>((T *)x, (const T *)y, rows,
                                                                                            d)));
}
