/* attention.cu - softmax attention over packed sequences in f32, forward and backward, without storing scores; and the
 * dispatch to our kernels.
 *
 * DESIGN: a block takes 16 consecutive rows of the packed batch (4 warps with 4 rows each), whichever sequences they
 * belong to, and iterates over tiles of 32 rows of the other side that any of them attends to. A tile is in shared
 * memory (rows padded by one float, so that the lanes of a warp, one per tile row, hit different banks); lanes are tile
 * rows while scores are computed and channels while they are accumulated. The backward pass runs once over queries (dq)
 * and once over keys (dk, dv): scores are computed twice, no atomics.
 * Source: Dao et al., "FlashAttention" (online softmax). */
#include "nn/cuda/attention.cuh"

#include <math_constants.h>

static constexpr int WARPS = 4, WARP_ROWS = 4, TILE = WARP, BLOCK_ROWS = WARPS * WARP_ROWS;

/* The spans of this warp's rows, and their union over the block. Spans are monotonic in the row, so first and last
 * suffice. */
template <bool KEYS>
static __device__ inline struct span spans_of_block(struct span mine[WARP_ROWS], const struct mode__cuda_attention &a,
                                                    int64_t rows)
{
    int64_t first = (int64_t)blockIdx.x * BLOCK_ROWS, last = first + BLOCK_ROWS < rows ? first + BLOCK_ROWS : rows;
    for (int k = 0; k < WARP_ROWS; k++) {
        int64_t r = first + threadIdx.y * WARP_ROWS + k;
        mine[k] = r < rows ? seen_by<KEYS>(a, r) : (struct span){0, 0};
    }
    return {seen_by<KEYS>(a, first).from, seen_by<KEYS>(a, last - 1).end};
}

/* Loads n rows of one head of x (row stride ld) from `from` on into shared memory [n][dh + 1], zeros beyond end; V
 * elements at a time. */
template <int V>
static __device__ inline void load_rows(float *to, int n, const float *x, int64_t ld, int64_t from, int64_t end, int dh)
{
    int chunks = dh / V;
    for (int i = threadIdx.y * WARP + threadIdx.x; i < n * chunks; i += WARPS * WARP) {
        int k = i / chunks, c = i % chunks * V;
        float v[V] = {0};
        if (from + k < end) load(v, x + (from + k) * ld + c);
#pragma unroll
        for (int j = 0; j < V; j++) to[k * (dh + 1) + c + j] = v[j];
    }
}

static __device__ inline void load_rows(float *to, int n, const float *x, int64_t ld, int64_t from, int64_t end, int dh,
                                        bool wide)
{
    if (wide)
        load_rows<4>(to, n, x, ld, from, end, dh);
    else
        load_rows<1>(to, n, x, ld, from, end, dh);
}

static __device__ inline float dot(const float *a, const float *b, int dh)
{
    float s = 0;
    for (int c = 0; c < dh; c++) s += a[c] * b[c];
    return s;
}

/* C: channels per lane, dh <= 32 C */
template <int C> static __global__ void forward(float *out, float *lse, struct mode__cuda_attention a, bool wide)
{
    extern __shared__ float shared[];
    const int dh = (int)a.dh, h = blockIdx.y, lane = threadIdx.x;
    const float scale = 1 / sqrtf((float)dh);
    const struct side<float> q = queries<float>(a, nullptr, h), kv = keys<float>(a, h);
    float *own = shared, *k_tile = own + BLOCK_ROWS * (dh + 1), *v_tile = k_tile + TILE * (dh + 1);
    struct span mine[WARP_ROWS], all = spans_of_block<false>(mine, a, a.rows_q);
    int64_t first = (int64_t)blockIdx.x * BLOCK_ROWS, row = first + threadIdx.y * WARP_ROWS;
    float row_max[WARP_ROWS], sum[WARP_ROWS], o[WARP_ROWS][C];
    for (int m = 0; m < WARP_ROWS; m++) {
        row_max[m] = -CUDART_INF_F;
        sum[m] = 0;
        for (int c = 0; c < C; c++) o[m][c] = 0;
    }
    load_rows(own, BLOCK_ROWS, q.first, q.ld_first, first, a.rows_q, dh, wide);
    for (int64_t tile = all.from; tile < all.end; tile += TILE) {
        __syncthreads();
        load_rows(k_tile, TILE, kv.first, kv.ld_first, tile, all.end, dh, wide);
        load_rows(v_tile, TILE, kv.second, kv.ld_second, tile, all.end, dh, wide);
        __syncthreads();
        for (int m = 0; m < WARP_ROWS; m++) {
            if (!overlaps(mine[m], tile, TILE)) continue;
            int64_t j = tile + lane;
            bool seen = j >= mine[m].from && j < mine[m].end;
            float s = scale * dot(own + (threadIdx.y * WARP_ROWS + m) * (dh + 1), k_tile + lane * (dh + 1), dh);
            float new_max = fmaxf(row_max[m], warp_max(seen ? s : -CUDART_INF_F)), p = seen ? expf(s - new_max) : 0;
            float rescale = expf(row_max[m] - new_max); /* 0 at first; new_max is finite, as the tile has a key */
            row_max[m] = new_max;
            sum[m] = sum[m] * rescale + warp_sum(p);
            for (int c = 0; c < C; c++) o[m][c] *= rescale;
            for (int k = 0; k < TILE; k++) {
                float pk = __shfl_sync(ALL_LANES, p, k);
                for (int c = 0; c < C; c++)
                    if (lane + c * WARP < dh) o[m][c] += pk * v_tile[k * (dh + 1) + lane + c * WARP];
            }
        }
    }
    for (int m = 0; m < WARP_ROWS && row + m < a.rows_q; m++) {
        for (int c = 0; c < C; c++)
            if (lane + c * WARP < dh) out[(row + m) * a.heads * dh + h * dh + lane + c * WARP] = o[m][c] / sum[m];
        if (lse && lane == 0) lse[(row + m) * a.heads + h] = row_max[m] + logf(sum[m]);
    }
}

/* KEYS: dk and dv to `to`, laid out as kv; else dq, laid out as q. */
template <int C, bool KEYS>
static __global__ void back(float *to, const float *dout, const float *lse, const float *delta,
                            struct mode__cuda_attention a, bool wide)
{
    extern __shared__ float shared[];
    const int dh = (int)a.dh, h = blockIdx.y, lane = threadIdx.x;
    const float scale = 1 / sqrtf((float)dh);
    const struct side<float> q = queries(a, dout, h), kv = keys<float>(a, h), own = KEYS ? kv : q,
                             other = KEYS ? q : kv;
    float *own1 = shared, *own2 = own1 + BLOCK_ROWS * (dh + 1), *tile1 = own2 + BLOCK_ROWS * (dh + 1);
    float *tile2 = tile1 + TILE * (dh + 1);
    struct span mine[WARP_ROWS], all = spans_of_block<KEYS>(mine, a, own.rows);
    int64_t first = (int64_t)blockIdx.x * BLOCK_ROWS, row = first + threadIdx.y * WARP_ROWS;
    float g1[WARP_ROWS][C], g2[KEYS ? WARP_ROWS : 1][C], l[WARP_ROWS], d[WARP_ROWS];
    for (int m = 0; m < WARP_ROWS; m++) {
        bool query = !KEYS && row + m < a.rows_q;
        l[m] = query ? lse[(row + m) * a.heads + h] : 0;
        d[m] = query ? delta[(row + m) * a.heads + h] : 0;
        for (int c = 0; c < C; c++) g1[m][c] = g2[KEYS ? m : 0][c] = 0;
    }
    load_rows(own1, BLOCK_ROWS, own.first, own.ld_first, first, own.rows, dh, wide);
    load_rows(own2, BLOCK_ROWS, own.second, own.ld_second, first, own.rows, dh, wide);
    for (int64_t tile = all.from; tile < all.end; tile += TILE) {
        __syncthreads();
        load_rows(tile1, TILE, other.first, other.ld_first, tile, all.end, dh, wide);
        load_rows(tile2, TILE, other.second, other.ld_second, tile, all.end, dh, wide);
        __syncthreads();
        int64_t i = tile + lane;
        float l_lane = KEYS && i < all.end ? lse[i * a.heads + h] : 0;
        float d_lane = KEYS && i < all.end ? delta[i * a.heads + h] : 0;
        for (int m = 0; m < WARP_ROWS; m++) {
            if (!overlaps(mine[m], tile, TILE)) continue;
            int at = (threadIdx.y * WARP_ROWS + m) * (dh + 1);
            float s = scale * dot(own1 + at, tile1 + lane * (dh + 1), dh),
                  dp = dot(own2 + at, tile2 + lane * (dh + 1), dh);
            float p = i >= mine[m].from && i < mine[m].end ? expf(s - (KEYS ? l_lane : l[m])) : 0;
            float ds = scale * p * (dp - (KEYS ? d_lane : d[m]));
            for (int k = 0; k < TILE; k++) {
                float dsk = __shfl_sync(ALL_LANES, ds, k), pk = KEYS ? __shfl_sync(ALL_LANES, p, k) : 0;
                for (int c = 0; c < C; c++)
                    if (lane + c * WARP < dh) {
                        g1[m][c] += dsk * tile1[k * (dh + 1) + lane + c * WARP];
                        if (KEYS) g2[m][c] += pk * tile2[k * (dh + 1) + lane + c * WARP];
                    }
            }
        }
    }
    for (int m = 0; m < WARP_ROWS && row + m < own.rows; m++)
        for (int c = 0; c < C; c++)
            if (lane + c * WARP < dh) {
                float *at = to + (row + m) * (KEYS ? a.lk : a.lq) + h * dh + lane + c * WARP;
                at[KEYS ? a.k_at : a.q_at] = g1[m][c];
                if (KEYS) at[a.v_at] = g2[m][c];
            }
}

/* Launches with `own` rows of dh + 1 floats of shared memory. */
template <typename... A>
static void launch(cudaStream_t stream, void (*kernel)(A...), int64_t rows, int own,
                   const struct mode__cuda_attention *a, A... args)
{
    size_t bytes = (size_t)own * (size_t)(a->dh + 1) * sizeof(float);
    opt_in_shared(kernel, bytes);
    kernel<<<dim3(blocks_of(rows, BLOCK_ROWS), (unsigned)a->heads), dim3(WARP, WARPS), bytes, stream>>>(args...);
}

/* The statement with C, the channels per lane, set */
#define BY_CHANNELS(dh, ...)                                                                                           \
    do {                                                                                                               \
        if ((dh) <= 32) {                                                                                              \
            constexpr int C = 1;                                                                                       \
            __VA_ARGS__;                                                                                               \
        } else if ((dh) <= 64) {                                                                                       \
            constexpr int C = 2;                                                                                       \
            __VA_ARGS__;                                                                                               \
        } else if ((dh) <= 128) {                                                                                      \
            constexpr int C = 4;                                                                                       \
            __VA_ARGS__;                                                                                               \
        } else {                                                                                                       \
            constexpr int C = 8;                                                                                       \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
    } while (0)

void mode__cuda_attention_f32(cudaStream_t stream, float *out, float *lse, const struct mode__cuda_attention *a)
{
    bool wide = wide_heads<float>(a);
    BY_CHANNELS(a->dh, launch(stream, forward<C>, a->rows_q, BLOCK_ROWS + 2 * TILE, a, out, lse, *a, wide));
}

void mode__cuda_attention_back_f32(cudaStream_t stream, float *dq, float *dkv, const float *delta, const float *dout,
                                   const float *lse, const struct mode__cuda_attention *a)
{
    bool wide = wide_heads<float>(a, dout);
    const int rows = 2 * BLOCK_ROWS + 2 * TILE;
    BY_CHANNELS(a->dh, launch(stream, back<C, false>, a->rows_q, rows, a, dq, dout, lse, delta, *a, wide));
    BY_CHANNELS(a->dh, launch(stream, back<C, true>, a->rows_k, rows, a, dkv, dout, lse, delta, *a, wide));
}

/* delta [n] = sum of dout * out over a head's channels; a warp per element */
template <typename T> static __global__ void deltas(float *delta, const T *dout, const T *out, int64_t n, int dh)
{
    int64_t i = (int64_t)blockIdx.x * WARPS + threadIdx.y;
    if (i >= n) return;
    float s = 0;
    for (int c = threadIdx.x; c < dh; c += WARP) s += widen(dout[i * dh + c]) * widen(out[i * dh + c]);
    s = warp_sum(s);
    if (threadIdx.x == 0) delta[i] = s;
}

void mode__cuda_attention(cudaStream_t stream, void *out, float *lse, const struct mode__cuda_attention *a)
{
    if (a->one_query)
        mode__cuda_attention_one(stream, out, lse, a);
    else if (a->bf16)
        mode__cuda_attention_bf16(stream, out, lse, a);
    else
        mode__cuda_attention_f32(stream, (float *)out, lse, a);
}

void mode__cuda_attention_back(cudaStream_t stream, void *dq, void *dkv, float *delta, const void *dout,
                               const void *out, const float *lse, const struct mode__cuda_attention *a)
{
    int64_t n = a->rows_q * a->heads;
    if (a->one_query) {
        mode__cuda_attention_back_one(stream, dq, dkv, dout, out, lse, a);
        return;
    }
    if (!mode__cuda_attention_is_short(a))
        BY_TYPE(a->bf16, deltas<T><<<blocks_of(n, WARPS), dim3(WARP, WARPS), 0, stream>>>(
                             delta, (const T *)dout, (const T *)out, n, (int)a->dh));
    if (a->bf16)
        mode__cuda_attention_back_bf16(stream, dq, dkv, delta, dout, out, lse, a);
    else
        mode__cuda_attention_back_f32(stream, (float *)dq, (float *)dkv, delta, (const float *)dout, lse, a);
}

static __global__ void lists(int32_t *lengths, int32_t *first_in, int32_t *first_out, int32_t *first_stat,
                             struct mode__cuda_attention a)
{
    int64_t b = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (b > a.n_seq) return;
    int32_t at = a.q_offsets[b];
    if (b < a.n_seq) lengths[b] = a.q_offsets[b + 1] - at;
    first_in[b] = at * (int32_t)a.lq;
    first_out[b] = at * (int32_t)(a.heads * a.dh);
    first_stat[b] = at * (int32_t)a.heads;
}

void mode__cuda_attention_lists(cudaStream_t stream, int32_t *lengths, int32_t *first_in, int32_t *first_out,
                                int32_t *first_stat, const struct mode__cuda_attention *a)
{
    const int threads = 128;
    lists<<<blocks_of(a->n_seq + 1, threads), threads, 0, stream>>>(lengths, first_in, first_out, first_stat, *a);
}
