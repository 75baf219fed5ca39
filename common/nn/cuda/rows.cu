/* rows.cu - what is done element by element or row by row. */
#include "nn/cuda/block.cuh"
#include "nn/ops.h"

enum { THREADS = 256, ROWS = THREADS / WARP, SUM_CHUNKS = 64 };

static __device__ inline float activate(float x, int act, float *slope)
{
    switch (act) {
    case MODE_ACT_GELU: {
        float phi = 0.5f * erfcf(-x * 0.70710678118654752f);
        *slope = phi + x * 0.39894228040143268f * expf(-0.5f * x * x);
        return x * phi;
    }
    case MODE_ACT_GELU_TANH: {
        float t = tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x));
        *slope = 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * 0.79788456080286536f * (1 + 0.134145f * x * x);
        return 0.5f * x * (1 + t);
    }
    case MODE_ACT_QUICK_GELU: {
        float s = 1 / (1 + expf(-1.702f * x)), y = x * s;
        *slope = s + y * 1.702f * (1 - s);
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

static __global__ void epilogue(float *c, int64_t count, int64_t n, const float *bias, int act, float *slope,
                                const float *times, const float *add)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    float x = c[i], s;
    if (bias) x += bias[i % n];
    x = activate(x, act, &s);
    if (slope) slope[i] = s;
    if (times) x *= times[i];
    if (add) x += add[i];
    c[i] = x;
}

void mode__cuda_epilogue(cudaStream_t stream, float *c, int64_t m, int64_t n, const float *bias, int act, float *slope,
                         const float *times, const float *add)
{
    epilogue<<<blocks_of(m * n, THREADS), THREADS, 0, stream>>>(c, m * n, n, bias, act, slope, times, add);
}

/* How many rows one partial sum covers: by shape alone. */
static __host__ __device__ inline int64_t chunk_of(int64_t m)
{
    int64_t chunk = (m + SUM_CHUNKS - 1) / SUM_CHUNKS;
    return chunk < 64 ? 64 : chunk;
}

int64_t mode__cuda_sum_work(int64_t m, int64_t n)
{
    return ceil_div(m, chunk_of(m)) * n;
}

/* part [chunks, n]: blocks of 32 columns x 8 rows at a time over a chunk of value(row, column) */
template <typename F> static __device__ inline void chunk_sums(float *part, int64_t m, int64_t n, F value)
{
    __shared__ float sums[ROWS][WARP];
    int64_t j = (int64_t)blockIdx.x * WARP + threadIdx.x, chunk = chunk_of(m), first = blockIdx.y * chunk;
    int64_t end = first + chunk < m ? first + chunk : m;
    float s = 0;
    if (j < n)
        for (int64_t i = first + threadIdx.y; i < end; i += ROWS) s += value(i, j);
    __syncthreads();
    sums[threadIdx.y][threadIdx.x] = s;
    __syncthreads();
    if (threadIdx.y == 0 && j < n) {
        for (int i = 1; i < ROWS; i++) s += sums[i][threadIdx.x];
        part[blockIdx.y * n + j] = s;
    }
}

static __global__ void column_chunks(float *part, const float *x, int64_t m, int64_t n)
{
    chunk_sums(part, m, n, [=](int64_t i, int64_t j) { return x[i * n + j]; });
}

static __global__ void product_chunks(float *part, const float *x, const float *y, int64_t m, int64_t n)
{
    chunk_sums(part, m, n, [=](int64_t i, int64_t j) { return x[i * n + j] * y[i * n + j]; });
}

static __global__ void normed_chunks(float *part, const float *dy, const float *x, const float *stats, int64_t m,
                                     int64_t n)
{
    chunk_sums(part, m, n,
               [=](int64_t i, int64_t j) { return dy[i * n + j] * (x[i * n + j] - stats[2 * i]) * stats[2 * i + 1]; });
}

static __global__ void add_chunks(float *out, const float *part, int64_t chunks, int64_t n)
{
    int64_t j = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= n) return;
    float s = 0;
    for (int64_t i = 0; i < chunks; i++) s += part[i * n + j];
    out[j] += s;
}

static dim3 chunk_grid(int64_t m, int64_t n)
{
    return dim3(blocks_of(n, WARP), blocks_of(m, chunk_of(m)));
}

static void finish_chunks(cudaStream_t stream, float *out, const float *part, int64_t m, int64_t n)
{
    add_chunks<<<blocks_of(n, THREADS), THREADS, 0, stream>>>(out, part, ceil_div(m, chunk_of(m)), n);
}

void mode__cuda_column_sums(cudaStream_t stream, float *out, float *work, const float *x, int64_t m, int64_t n)
{
    column_chunks<<<chunk_grid(m, n), dim3(WARP, ROWS), 0, stream>>>(work, x, m, n);
    finish_chunks(stream, out, work, m, n);
}

/* One warp a row. */
static __global__ void layernorm(float *y, float *stats, const float *x, const float *w, const float *b, int64_t m,
                                 int64_t d, float eps)
{
    int64_t i = (int64_t)blockIdx.x * ROWS + threadIdx.y;
    int lane = threadIdx.x;
    if (i >= m) return;
    x += i * d;
    y += i * d;
    float sum = 0, var = 0;
    for (int64_t j = lane; j < d; j += WARP) sum += x[j];
    float mean = warp_sum(sum) / (float)d;
    for (int64_t j = lane; j < d; j += WARP) var += (x[j] - mean) * (x[j] - mean);
    float rstd = 1 / sqrtf(warp_sum(var) / (float)d + eps);
    if (stats && lane == 0) {
        stats[2 * i] = mean;
        stats[2 * i + 1] = rstd;
    }
    for (int64_t j = lane; j < d; j += WARP) y[j] = (x[j] - mean) * rstd * w[j] + b[j];
}

void mode__cuda_layernorm(cudaStream_t stream, float *y, float *stats, const float *x, const float *w, const float *b,
                          int64_t m, int64_t d, float eps)
{
    layernorm<<<blocks_of(m, ROWS), dim3(WARP, ROWS), 0, stream>>>(y, stats, x, w, b, m, d, eps);
}

static __global__ void layernorm_back(float *dx, const float *dy, const float *x, const float *stats, const float *w,
                                      const float *add, int64_t m, int64_t d)
{
    int64_t i = (int64_t)blockIdx.x * ROWS + threadIdx.y;
    int lane = threadIdx.x;
    if (i >= m) return;
    float mean = stats[2 * i], rstd = stats[2 * i + 1], g = 0, gx = 0;
    for (int64_t j = lane; j < d; j += WARP) {
        float gw = dy[i * d + j] * w[j];
        g += gw;
        gx += gw * (x[i * d + j] - mean) * rstd;
    }
    g = warp_sum(g) / (float)d;
    gx = warp_sum(gx) / (float)d;
    for (int64_t j = lane; j < d; j += WARP) {
        float s = (dy[i * d + j] * w[j] - g - (x[i * d + j] - mean) * rstd * gx) * rstd;
        dx[i * d + j] = add ? s + add[i * d + j] : s; /* dx may be dy or add: an element is read before it is written */
    }
}

void mode__cuda_layernorm_back(cudaStream_t stream, float *dx, float *dw, float *db, float *work, const float *dy,
                               const float *x, const float *stats, const float *w, const float *add, int64_t m,
                               int64_t d)
{
    float *part_b = work + mode__cuda_sum_work(m, d);
    normed_chunks<<<chunk_grid(m, d), dim3(WARP, ROWS), 0, stream>>>(work, dy, x, stats, m, d);
    column_chunks<<<chunk_grid(m, d), dim3(WARP, ROWS), 0, stream>>>(part_b, dy, m, d);
    finish_chunks(stream, dw, work, m, d);
    finish_chunks(stream, db, part_b, m, d);
    layernorm_back<<<blocks_of(m, ROWS), dim3(WARP, ROWS), 0, stream>>>(dx, dy, x, stats, w, add, m, d);
}

static __global__ void l2norm(float *y, float *norm, const float *x, int64_t m, int64_t d)
{
    int64_t i = (int64_t)blockIdx.x * ROWS + threadIdx.y;
    if (i >= m) return;
    float s = 0;
    for (int64_t j = threadIdx.x; j < d; j += WARP) s += x[i * d + j] * x[i * d + j];
    s = sqrtf(warp_sum(s));
    s = s > 1e-12f ? s : 1e-12f;
    if (threadIdx.x == 0) norm[i] = s;
    for (int64_t j = threadIdx.x; j < d; j += WARP) y[i * d + j] = x[i * d + j] / s;
}

void mode__cuda_l2norm(cudaStream_t stream, float *y, float *norm, const float *x, int64_t m, int64_t d)
{
    l2norm<<<blocks_of(m, ROWS), dim3(WARP, ROWS), 0, stream>>>(y, norm, x, m, d);
}

static __global__ void l2norm_back(float *dx, const float *dy, const float *y, const float *norm, int64_t m, int64_t d)
{
    int64_t i = (int64_t)blockIdx.x * ROWS + threadIdx.y;
    if (i >= m) return;
    float dot = 0;
    for (int64_t j = threadIdx.x; j < d; j += WARP) dot += dy[i * d + j] * y[i * d + j];
    dot = warp_sum(dot);
    for (int64_t j = threadIdx.x; j < d; j += WARP) dx[i * d + j] = (dy[i * d + j] - dot * y[i * d + j]) / norm[i];
}

void mode__cuda_l2norm_back(cudaStream_t stream, float *dx, const float *dy, const float *y, const float *norm,
                            int64_t m, int64_t d)
{
    l2norm_back<<<blocks_of(m, ROWS), dim3(WARP, ROWS), 0, stream>>>(dx, dy, y, norm, m, d);
}

static __global__ void scale(float *y, const float *x, const float *g, const float *add, int64_t count, int64_t d)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) y[i] = x[i] * g[i % d] + (add ? add[i] : 0);
}

void mode__cuda_scale(cudaStream_t stream, float *y, const float *x, const float *g, const float *add, int64_t m,
                      int64_t d)
{
    scale<<<blocks_of(m * d, THREADS), THREADS, 0, stream>>>(y, x, g, add, m * d, d);
}

void mode__cuda_scale_back(cudaStream_t stream, float *dx, float *dg, float *work, const float *dy, const float *x,
                           const float *g, int64_t m, int64_t d)
{
    product_chunks<<<chunk_grid(m, d), dim3(WARP, ROWS), 0, stream>>>(work, dy, x, m, d);
    finish_chunks(stream, dg, work, m, d);
    scale<<<blocks_of(m * d, THREADS), THREADS, 0, stream>>>(dx, dy, g, NULL, m * d, d);
}

static __global__ void mean_rows(float *y, const float *x, const int32_t *offsets, int64_t d, int64_t skip)
{
    int64_t first = offsets[blockIdx.x] + skip, end = offsets[blockIdx.x + 1];
    for (int64_t j = threadIdx.x; j < d; j += blockDim.x) {
        float s = 0;
        for (int64_t i = first; i < end; i++) s += x[i * d + j];
        y[blockIdx.x * d + j] = s / (float)(end - first);
    }
}

void mode__cuda_mean_rows(cudaStream_t stream, float *y, const float *x, const int32_t *offsets, int64_t n_seq,
                          int64_t d, int64_t skip)
{
    mean_rows<<<(unsigned)n_seq, THREADS, 0, stream>>>(y, x, offsets, d, skip);
}

static __global__ void mean_rows_back(float *dx, const float *dy, const int32_t *offsets, int64_t d, int64_t skip)
{
    int64_t first = offsets[blockIdx.x], end = offsets[blockIdx.x + 1];
    float share = 1 / (float)(end - first - skip);
    for (int64_t j = threadIdx.x; j < d; j += blockDim.x)
        for (int64_t i = first; i < end; i++) dx[i * d + j] = i < first + skip ? 0 : dy[blockIdx.x * d + j] * share;
}

void mode__cuda_mean_rows_back(cudaStream_t stream, float *dx, const float *dy, const int32_t *offsets, int64_t n_seq,
                               int64_t d, int64_t skip)
{
    mean_rows_back<<<(unsigned)n_seq, THREADS, 0, stream>>>(dx, dy, offsets, d, skip);
}

static __global__ void gather(float *y, const float *x, const int32_t *rows, int64_t d)
{
    for (int64_t j = threadIdx.x; j < d; j += blockDim.x) y[blockIdx.x * d + j] = x[rows[blockIdx.x] * d + j];
}

void mode__cuda_gather(cudaStream_t stream, float *y, const float *x, const int32_t *rows, int64_t n, int64_t d)
{
    gather<<<(unsigned)n, THREADS, 0, stream>>>(y, x, rows, d);
}

static __global__ void scatter_add(float *x, const float *y, const int32_t *rows, int64_t d)
{
    for (int64_t j = threadIdx.x; j < d; j += blockDim.x) x[rows[blockIdx.x] * d + j] += y[blockIdx.x * d + j];
}

void mode__cuda_scatter_add(cudaStream_t stream, float *x, const float *y, const int32_t *rows, int64_t n, int64_t d)
{
    scatter_add<<<(unsigned)n, THREADS, 0, stream>>>(x, y, rows, d);
}
