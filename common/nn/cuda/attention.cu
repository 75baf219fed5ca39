/* attention.cu - softmax attention over packed sequences, forward and back, scores never stored.
 *
 * DESIGN: a block takes 16 neighbouring rows of the packed batch (4 warps with 4 rows each), whichever sequences they
 * belong to, and walks over tiles of 32 rows of the other side that any of them can see. A tile lies in shared memory
 * (rows one float longer than the head, so that the lanes of a warp, one per tile row, hit different banks); lanes
 * are tile rows while scores are made and channels while they are summed. The way back runs once over queries (dq)
 * and once over keys (dk, dv): twice the arithmetic of scores, no atomics.
 * Source: Dao et al., "FlashAttention" (online softmax). */
#include "nn/cuda/block.cuh"

#include <math_constants.h>

enum { WARPS = 4, MINE = 4, TILE = WARP, BLOCK_ROWS = WARPS * MINE };

/* What row r of one side sees of the other: rows from .. end - 1. */
struct span {
    int64_t from, end;
};

static __device__ inline struct span keys_of(const struct mode__cuda_attention &a, int64_t i)
{
    int b = sequence_of(a.q_offsets, a.n_seq, i);
    struct span s = {a.kv_offsets[b], a.causal ? i + 1 : a.kv_offsets[b + 1]};
    return s;
}

static __device__ inline struct span queries_of(const struct mode__cuda_attention &a, int64_t j)
{
    int b = sequence_of(a.kv_offsets, a.n_seq, j);
    struct span s = {a.causal ? j : a.q_offsets[b], a.q_offsets[b + 1]};
    return s;
}

/* The spans of this block's rows, and what they cover together. Spans grow with the row, so first and last suffice. */
template <typename F>
static __device__ inline void spans_of_block(struct span mine[MINE], int64_t *from, int64_t *end, int64_t rows, F of)
{
    int64_t first = (int64_t)blockIdx.x * BLOCK_ROWS, last = first + BLOCK_ROWS < rows ? first + BLOCK_ROWS : rows;
    *from = of(first).from;
    *end = of(last - 1).end;
    for (int k = 0; k < MINE; k++) {
        int64_t r = first + threadIdx.y * MINE + k;
        mine[k] = r < rows ? of(r) : (struct span){0, 0};
    }
}

static __device__ inline bool touches(struct span s, int64_t tile)
{
    return s.from < tile + TILE && s.end > tile;
}

/* TILE rows of one head of x (row stride ld) into shared memory [TILE][dh + 1]; zeros beyond end. */
static __device__ inline void load_tile(float *to, const float *x, int64_t ld, int64_t tile, int64_t end, int dh)
{
    for (int k = threadIdx.y; k < TILE; k += WARPS)
        for (int c = threadIdx.x; c < dh; c += WARP) to[k * (dh + 1) + c] = tile + k < end ? x[(tile + k) * ld + c] : 0;
}

/* This block's own rows [BLOCK_ROWS][dh + 1] */
static __device__ inline void load_own(float *to, const float *x, int64_t ld, int64_t rows, int dh)
{
    int64_t first = (int64_t)blockIdx.x * BLOCK_ROWS;
    for (int k = threadIdx.y; k < BLOCK_ROWS; k += WARPS)
        for (int c = threadIdx.x; c < dh; c += WARP)
            to[k * (dh + 1) + c] = first + k < rows ? x[(first + k) * ld + c] : 0;
}

static __device__ inline float dot(const float *a, const float *b, int dh)
{
    float s = 0;
    for (int c = 0; c < dh; c++) s += a[c] * b[c];
    return s;
}

/* C: channels a lane holds, dh <= 32 C */
template <int C>
static __global__ void forward(float *out, float *lse, struct mode__cuda_attention a)
{
    extern __shared__ float shared[];
    const int dh = (int)a.dh, h = blockIdx.y, lane = threadIdx.x;
    const float scale = 1 / sqrtf((float)dh);
    float *own = shared, *k_tile = own + BLOCK_ROWS * (dh + 1), *v_tile = k_tile + TILE * (dh + 1);
    struct span mine[MINE];
    int64_t from, end, row = (int64_t)blockIdx.x * BLOCK_ROWS + threadIdx.y * MINE;
    float top[MINE], sum[MINE], o[MINE][C];
    for (int m = 0; m < MINE; m++) {
        top[m] = -CUDART_INF_F;
        sum[m] = 0;
        for (int c = 0; c < C; c++) o[m][c] = 0;
    }
    spans_of_block(mine, &from, &end, a.rows_q, [&](int64_t i) { return keys_of(a, i); });
    load_own(own, a.q + a.q_at + h * dh, a.lq, a.rows_q, dh);
    for (int64_t tile = from; tile < end; tile += TILE) {
        __syncthreads();
        load_tile(k_tile, a.kv + a.k_at + h * dh, a.lk, tile, end, dh);
        load_tile(v_tile, a.kv + a.v_at + h * dh, a.lk, tile, end, dh);
        __syncthreads();
        for (int m = 0; m < MINE; m++) {
            if (!touches(mine[m], tile)) continue;
            int64_t j = tile + lane;
            bool seen = j >= mine[m].from && j < mine[m].end;
            float s = scale * dot(own + (threadIdx.y * MINE + m) * (dh + 1), k_tile + lane * (dh + 1), dh);
            float high = fmaxf(top[m], warp_max(seen ? s : -CUDART_INF_F)), p = seen ? expf(s - high) : 0;
            float fade = expf(top[m] - high); /* 0 at first: high is finite, a tile that is touched has a key */
            top[m] = high;
            sum[m] = sum[m] * fade + warp_sum(p);
            for (int c = 0; c < C; c++) o[m][c] *= fade;
            for (int k = 0; k < TILE; k++) {
                float pk = __shfl_sync(ALL_LANES, p, k);
                for (int c = 0; c < C; c++)
                    if (lane + c * WARP < dh) o[m][c] += pk * v_tile[k * (dh + 1) + lane + c * WARP];
            }
        }
    }
    for (int m = 0; m < MINE && row + m < a.rows_q; m++) {
        for (int c = 0; c < C; c++)
            if (lane + c * WARP < dh) out[(row + m) * a.heads * dh + h * dh + lane + c * WARP] = o[m][c] / sum[m];
        if (lse && lane == 0) lse[(row + m) * a.heads + h] = top[m] + logf(sum[m]);
    }
}

/* delta [rows_q, heads] = sum of dout * out over a head's channels: a warp each */
static __global__ void deltas(float *delta, const float *dout, const float *out, int64_t n, int dh)
{
    int64_t i = (int64_t)blockIdx.x * WARPS + threadIdx.y;
    if (i >= n) return;
    float s = 0;
    for (int c = threadIdx.x; c < dh; c += WARP) s += dout[i * dh + c] * out[i * dh + c];
    s = warp_sum(s);
    if (threadIdx.x == 0) delta[i] = s;
}

template <int C>
static __global__ void back_queries(float *dq, const float *dout, const float *lse, const float *delta,
                                    struct mode__cuda_attention a)
{
    extern __shared__ float shared[];
    const int dh = (int)a.dh, h = blockIdx.y, lane = threadIdx.x;
    const float scale = 1 / sqrtf((float)dh);
    float *q = shared, *go = q + BLOCK_ROWS * (dh + 1), *k_tile = go + BLOCK_ROWS * (dh + 1);
    float *v_tile = k_tile + TILE * (dh + 1);
    struct span mine[MINE];
    int64_t from, end, row = (int64_t)blockIdx.x * BLOCK_ROWS + threadIdx.y * MINE;
    float g[MINE][C], l[MINE], d[MINE];
    for (int m = 0; m < MINE; m++) {
        l[m] = row + m < a.rows_q ? lse[(row + m) * a.heads + h] : 0;
        d[m] = row + m < a.rows_q ? delta[(row + m) * a.heads + h] : 0;
        for (int c = 0; c < C; c++) g[m][c] = 0;
    }
    spans_of_block(mine, &from, &end, a.rows_q, [&](int64_t i) { return keys_of(a, i); });
    load_own(q, a.q + a.q_at + h * dh, a.lq, a.rows_q, dh);
    load_own(go, dout + h * dh, a.heads * dh, a.rows_q, dh);
    for (int64_t tile = from; tile < end; tile += TILE) {
        __syncthreads();
        load_tile(k_tile, a.kv + a.k_at + h * dh, a.lk, tile, end, dh);
        load_tile(v_tile, a.kv + a.v_at + h * dh, a.lk, tile, end, dh);
        __syncthreads();
        for (int m = 0; m < MINE; m++) {
            if (!touches(mine[m], tile)) continue;
            int64_t j = tile + lane;
            int at = (threadIdx.y * MINE + m) * (dh + 1);
            float s = scale * dot(q + at, k_tile + lane * (dh + 1), dh);
            float dp = dot(go + at, v_tile + lane * (dh + 1), dh);
            float ds = j >= mine[m].from && j < mine[m].end ? scale * expf(s - l[m]) * (dp - d[m]) : 0;
            for (int k = 0; k < TILE; k++) {
                float x = __shfl_sync(ALL_LANES, ds, k);
                for (int c = 0; c < C; c++)
                    if (lane + c * WARP < dh) g[m][c] += x * k_tile[k * (dh + 1) + lane + c * WARP];
            }
        }
    }
    for (int m = 0; m < MINE && row + m < a.rows_q; m++)
        for (int c = 0; c < C; c++)
            if (lane + c * WARP < dh) dq[(row + m) * a.lq + a.q_at + h * dh + lane + c * WARP] = g[m][c];
}

template <int C>
static __global__ void back_keys(float *dkv, const float *dout, const float *lse, const float *delta,
                                 struct mode__cuda_attention a)
{
    extern __shared__ float shared[];
    const int dh = (int)a.dh, h = blockIdx.y, lane = threadIdx.x;
    const float scale = 1 / sqrtf((float)dh);
    float *key = shared, *value = key + BLOCK_ROWS * (dh + 1), *q_tile = value + BLOCK_ROWS * (dh + 1);
    float *go_tile = q_tile + TILE * (dh + 1);
    struct span mine[MINE];
    int64_t from, end, row = (int64_t)blockIdx.x * BLOCK_ROWS + threadIdx.y * MINE;
    float dk[MINE][C], dv[MINE][C];
    for (int m = 0; m < MINE; m++)
        for (int c = 0; c < C; c++) dk[m][c] = dv[m][c] = 0;
    spans_of_block(mine, &from, &end, a.rows_k, [&](int64_t j) { return queries_of(a, j); });
    load_own(key, a.kv + a.k_at + h * dh, a.lk, a.rows_k, dh);
    load_own(value, a.kv + a.v_at + h * dh, a.lk, a.rows_k, dh);
    for (int64_t tile = from; tile < end; tile += TILE) {
        __syncthreads();
        load_tile(q_tile, a.q + a.q_at + h * dh, a.lq, tile, end, dh);
        load_tile(go_tile, dout + h * dh, a.heads * dh, tile, end, dh);
        __syncthreads();
        int64_t i = tile + lane;
        float l = i < end ? lse[i * a.heads + h] : 0, d = i < end ? delta[i * a.heads + h] : 0;
        for (int m = 0; m < MINE; m++) {
            if (!touches(mine[m], tile)) continue;
            int at = (threadIdx.y * MINE + m) * (dh + 1);
            float s = scale * dot(key + at, q_tile + lane * (dh + 1), dh);
            float dp = dot(value + at, go_tile + lane * (dh + 1), dh);
            float p = i >= mine[m].from && i < mine[m].end ? expf(s - l) : 0, ds = scale * p * (dp - d);
            for (int k = 0; k < TILE; k++) {
                float pk = __shfl_sync(ALL_LANES, p, k), dsk = __shfl_sync(ALL_LANES, ds, k);
                for (int c = 0; c < C; c++)
                    if (lane + c * WARP < dh) {
                        dv[m][c] += pk * go_tile[k * (dh + 1) + lane + c * WARP];
                        dk[m][c] += dsk * q_tile[k * (dh + 1) + lane + c * WARP];
                    }
            }
        }
    }
    for (int m = 0; m < MINE && row + m < a.rows_k; m++)
        for (int c = 0; c < C; c++)
            if (lane + c * WARP < dh) {
                float *to = dkv + (row + m) * a.lk + h * dh + lane + c * WARP;
                to[a.k_at] = dk[m][c];
                to[a.v_at] = dv[m][c];
            }
}

/* Launch KERNEL<channels a lane> with so many rows of dh + 1 floats in shared memory. */
#define LAUNCH_AS(c, kernel, rows, own, ...)                                                                           \
    do {                                                                                                               \
        size_t bytes = (size_t)(own) * (size_t)(a->dh + 1) * sizeof(float);                                            \
        if (bytes > 48 * 1024)                                                                                         \
            cudaFuncSetAttribute(kernel<c>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);                  \
        kernel<c><<<dim3(blocks_of(rows, BLOCK_ROWS), (unsigned)a->heads), dim3(WARP, WARPS), bytes, stream>>>(        \
            __VA_ARGS__);                                                                                              \
    } while (0)
#define LAUNCH(kernel, rows, own, ...)                                                                                 \
    do {                                                                                                               \
        if (a->dh <= 32)                                                                                               \
            LAUNCH_AS(1, kernel, rows, own, __VA_ARGS__);                                                              \
        else if (a->dh <= 64)                                                                                          \
            LAUNCH_AS(2, kernel, rows, own, __VA_ARGS__);                                                              \
        else if (a->dh <= 128)                                                                                         \
            LAUNCH_AS(4, kernel, rows, own, __VA_ARGS__);                                                              \
        else                                                                                                           \
            LAUNCH_AS(8, kernel, rows, own, __VA_ARGS__);                                                              \
    } while (0)

void mode__cuda_attention(cudaStream_t stream, float *out, float *lse, const struct mode__cuda_attention *a)
{
    LAUNCH(forward, a->rows_q, BLOCK_ROWS + 2 * TILE, out, lse, *a);
}

void mode__cuda_attention_back(cudaStream_t stream, float *dq, float *dkv, float *delta, const float *dout,
                               const float *out, const float *lse, const struct mode__cuda_attention *a)
{
    int64_t n = a->rows_q * a->heads;
    deltas<<<blocks_of(n, WARPS), dim3(WARP, WARPS), 0, stream>>>(delta, dout, out, n, (int)a->dh);
    LAUNCH(back_queries, a->rows_q, 2 * BLOCK_ROWS + 2 * TILE, dq, dout, lse, delta, *a);
    LAUNCH(back_keys, a->rows_k, 2 * BLOCK_ROWS + 2 * TILE, dkv, dout, lse, delta, *a);
}
