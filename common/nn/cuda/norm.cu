/* norm.cu - layer norm, forward and backward: a row is read once, kept in registers, and written once.
 *
 * DESIGN: W warps share a row, as few as can hold it: a lane keeps up to HELD elements, so one, two or sixteen warps
 * cover every model width. Accesses are 16 bytes where alignment allows it. All loads of a row, including the
 * residual's gradient, are issued before anything is computed. In the backward pass a block iterates over many rows and
 * accumulates its partial dw and db in registers; the blocks' partial sums are added in order (rows.cu). */
#include "nn/cuda/store.cuh"

/* ROWS: warps per block, unless one row needs more. NORM_BLOCKS: of the backward pass, two per SM of an H100. HELD_ROW:
 * elements that a warp holds. */
enum { ROWS = 8, NORM_BLOCKS = 264, HELD = 32, HELD_ROW = 32 * HELD, MOST_WARPS = 16 };
static_assert(MOST_WARPS * HELD_ROW == (int)MODE__CUDA_NORM_MOST, "every row has its registers");

static __host__ __device__ constexpr int warps_of(int w)
{
    return w > ROWS ? w : ROWS;
}

static dim3 block_of(int w)
{
    return dim3(WARP, warps_of(w));
}

/* The statement with W, the warps per row of d elements, set. */
#define BY_ROW(d, ...)                                                                                                 \
    do {                                                                                                               \
        if ((d) <= HELD_ROW) {                                                                                         \
            constexpr int W = 1;                                                                                       \
            __VA_ARGS__;                                                                                               \
        } else if ((d) <= 2 * HELD_ROW) {                                                                              \
            constexpr int W = 2;                                                                                       \
            __VA_ARGS__;                                                                                               \
        } else {                                                                                                       \
            constexpr int W = MOST_WARPS;                                                                              \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
    } while (0)

/* Sums each of x over the threads of a row, its warps in order. All threads of the block call it. */
template <int W, int N> static __device__ inline void row_sums(float (&x)[N])
{
    for (int n = 0; n < N; n++) x[n] = warp_sum(x[n]);
    if (W == 1) return;
    __shared__ float part[warps_of(W)][N];
    __syncthreads(); /* part may still be read by the previous call */
    for (int n = 0; n < N; n++)
        if (threadIdx.x == 0) part[threadIdx.y][n] = x[n];
    __syncthreads();
    for (int n = 0; n < N; n++) {
        x[n] = 0;
        for (int i = 0; i < W; i++) x[n] += part[threadIdx.y / W * W + i][n];
    }
}

/* A thread's elements of a row are at first + k STEP, k = 0 .. KEPT - 1; a warp without a row has none (end 0). */
template <typename T, int V, int W>
static __global__ void __launch_bounds__(WARP *warps_of(W))
    layernorm(T *y, float *stats, const T *x, const float *w, const float *b, int64_t m, int64_t d, float eps)
{
    constexpr int KEPT = HELD / V, STEP = WARP * W * V;
    const int64_t i = (int64_t)blockIdx.x * (warps_of(W) / W) + threadIdx.y / W, end = i < m ? d : 0;
    const int64_t first = (threadIdx.y % W * WARP + threadIdx.x) * V;
    float held[KEPT][V], mean[1] = {0}, var[1] = {0};
#pragma unroll
    for (int k = 0; k < KEPT; k++)
        if (first + k * STEP < end) {
            load<V>(held[k], x + i * d + first + k * STEP);
            for (int v = 0; v < V; v++) mean[0] += held[k][v];
        }
    row_sums<W>(mean);
    mean[0] /= (float)d;
#pragma unroll
    for (int k = 0; k < KEPT; k++)
        if (first + k * STEP < end)
            for (int v = 0; v < V; v++) var[0] += (held[k][v] - mean[0]) * (held[k][v] - mean[0]);
    row_sums<W>(var);
    const float rstd = 1 / sqrtf(var[0] / (float)d + eps);
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        const int64_t j = first + k * STEP;
        float wj[V], bj[V];
        if (j >= end) continue;
        load<V>(wj, w + j);
        load<V>(bj, b + j);
        for (int v = 0; v < V; v++) held[k][v] = (held[k][v] - mean[0]) * rstd * wj[v] + bj[v];
        store<V>(y + i * d + j, held[k]); /* y may be x */
    }
    if (stats && first == 0 && end > 0) {
        stats[2 * i] = mean[0];
        stats[2 * i + 1] = rstd;
    }
}

void mode__cuda_layernorm(cudaStream_t stream, bool bf16, void *y, float *stats, const void *x, const float *w,
                          const float *b, int64_t m, int64_t d, float eps)
{
    BY_TYPE(bf16, BY_WIDTH(wide_rows(d, sizeof(T), (T *)y, (const T *)x, w, b),
                           BY_ROW(d, layernorm<T, V, W><<<blocks_of(m, warps_of(W) / W), block_of(W), 0, stream>>>(
                                         (T *)y, stats, (const T *)x, w, b, m, d, eps))));
}

/* Rows per block of the backward pass, by shape alone. */
static __host__ __device__ inline int64_t norm_rows(int64_t m)
{
    int64_t rows = (m + NORM_BLOCKS - 1) / NORM_BLOCKS;
    return (rows + ROWS - 1) / ROWS * ROWS;
}

int64_t mode__cuda_norm_work(int64_t m, int64_t d)
{
    return 2 * ceil_div(m, norm_rows(m)) * d;
}

/* dx, and to part [blocks, 2, d] this block's partial dw and db. dx may be dy or add: a thread has loaded its elements
 * of both before it writes. */
template <typename T, int V, int W>
static __global__ void __launch_bounds__(WARP *warps_of(W), 1)
    layernorm_back(T *dx, float *part, const T *dy, const T *x, const float *stats, const float *w, const T *add,
                   int64_t m, int64_t d)
{
    constexpr int KEPT = HELD / V, STEP = WARP * W * V;
    __shared__ float sums[warps_of(W)][V * WARP]; /* [V, lanes]: lanes are in different banks */
    const int64_t rows = norm_rows(m), from = (int64_t)blockIdx.x * rows, to = from + rows < m ? from + rows : m;
    const int64_t first = (threadIdx.y % W * WARP + threadIdx.x) * V;
    float dw[KEPT][V], db[KEPT][V];
#pragma unroll
    for (int k = 0; k < KEPT; k++)
        for (int v = 0; v < V; v++) dw[k][v] = db[k][v] = 0;
    for (int64_t at = from; at < to; at += warps_of(W) / W) {
        const int64_t i = at + threadIdx.y / W, end = i < to ? d : 0;
        const float mean = end ? stats[2 * i] : 0, rstd = end ? stats[2 * i + 1] : 0;
        pack<T, V> xs[KEPT], dys[KEPT], adds[KEPT];
        float wj[V], means[2] = {0, 0}; /* over the row, of w dy and of w dy x^ */
#pragma unroll
        for (int k = 0; k < KEPT; k++)
            if (first + k * STEP < end) {
                xs[k] = *(const pack<T, V> *)(x + i * d + first + k * STEP);
                dys[k] = *(const pack<T, V> *)(dy + i * d + first + k * STEP);
                if (add) adds[k] = *(const pack<T, V> *)(add + i * d + first + k * STEP);
            }
#pragma unroll
        for (int k = 0; k < KEPT; k++) {
            if (first + k * STEP >= end) continue;
            load<V>(wj, w + first + k * STEP);
            for (int v = 0; v < V; v++) {
                const float g = widen(dys[k].x[v]), normed = (widen(xs[k].x[v]) - mean) * rstd;
                dw[k][v] += g * normed;
                db[k][v] += g;
                means[0] += g * wj[v];
                means[1] += g * wj[v] * normed;
            }
        }
        row_sums<W>(means);
        means[0] /= (float)d;
        means[1] /= (float)d;
#pragma unroll
        for (int k = 0; k < KEPT; k++) {
            float out[V];
            if (first + k * STEP >= end) continue;
            load<V>(wj, w + first + k * STEP);
            for (int v = 0; v < V; v++) {
                const float normed = (widen(xs[k].x[v]) - mean) * rstd;
                out[v] = (widen(dys[k].x[v]) * wj[v] - means[0] - normed * means[1]) * rstd;
                if (add) out[v] += widen(adds[k].x[v]);
            }
            store<V>(dx + i * d + first + k * STEP, out);
        }
    }
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int k = 0; k < KEPT; k++) {
            const int64_t j = first + k * STEP;
            float s[V];
            for (int v = 0; v < V; v++) sums[threadIdx.y][v * WARP + threadIdx.x] = s[v] = half ? db[k][v] : dw[k][v];
            __syncthreads();
            if (threadIdx.y < W && j < d) {
                for (int r = (int)threadIdx.y + W; r < warps_of(W); r += W)
                    for (int v = 0; v < V; v++) s[v] += sums[r][v * WARP + threadIdx.x];
                store<V>(part + ((int64_t)blockIdx.x * 2 + half) * d + j, s);
            }
            __syncthreads();
        }
}

void mode__cuda_layernorm_back(cudaStream_t stream, bool bf16, void *dx, float *dw, float *db, float *work,
                               const void *dy, const void *x, const float *stats, const float *w, const void *add,
                               int64_t m, int64_t d)
{
    const int64_t blocks = ceil_div(m, norm_rows(m));
    BY_TYPE(bf16, BY_WIDTH(wide_rows(d, sizeof(T), (T *)dx, (const T *)dy, (const T *)x, w, (const T *)add, work),
                           BY_ROW(d, layernorm_back<T, V, W><<<(unsigned)blocks, block_of(W), 0, stream>>>(
                                         (T *)dx, work, (const T *)dy, (const T *)x, stats, w, (const T *)add, m, d))));
    mode__cuda_add_chunks(stream, dw, db, work, blocks, d);
}
