/* attention_bf16.cu - softmax attention over packed sequences on tensor cores: bf16 numbers, f32 scores and sums.
 *
 * DESIGN: a block takes 64 neighbouring rows of the packed batch, 16 to each of 4 warps, whichever sequences they belong to,
 * and walks over tiles of 64 rows of the other side that any of them can see; a warp leaves out the quarters of a tile
 * that none of its rows sees. Products are those of nvcuda::wmma, 16 x 16 x 16: what a lane holds of a product is
 * not known, so scores pass through shared memory, where two lanes share a row. The output stays in fragments; it
 * takes the way through shared memory only when a row's maximum has grown. The way back forms scores one quarter of a
 * tile at a time, once with queries and once with keys as a block's own rows (attention.cuh).
 * A head is filled up with zeros to a multiple of 16 channels, D of them.
 * Source: Dao et al., "FlashAttention" and "FlashAttention-2". */
#include "nn/cuda/attention.cuh"

#include <math_constants.h>
#include <mma.h>

using namespace nvcuda;
using bf16 = __nv_bfloat16;

static constexpr int WARPS = 4, UNIT = 16, BLOCK_ROWS = WARPS * UNIT, TILE = 64, THREADS = WARPS * WARP;
static constexpr int PACK = 8; /* numbers of 16 bytes */

/* Row lengths in shared memory: longer than what they hold, to spread rows over banks, and of whole 16 bytes. */
template <int D> struct lengths {
    static constexpr int WIDE = UNIT * D;
    static constexpr int ROW = WIDE + 8;                           /* of a head's numbers */
    static constexpr int SCORES = (WIDE > TILE ? WIDE : TILE) + 4; /* f32: scores against a tile, or a head */
    static constexpr int SHARES = TILE + 8;                        /* bf16: what becomes of the scores */
    static constexpr int QUARTER = UNIT + 4;                       /* f32: scores against a quarter of a tile */
    static constexpr int QUARTER_SHARES = UNIT + 8;                /* bf16 */
    static constexpr int GRADIENT = WIDE + 4;                      /* f32 */
};

using accumulator = wmma::fragment<wmma::accumulator, UNIT, UNIT, UNIT, float>;
using left = wmma::fragment<wmma::matrix_a, UNIT, UNIT, UNIT, bf16, wmma::row_major>;
using right = wmma::fragment<wmma::matrix_b, UNIT, UNIT, UNIT, bf16, wmma::row_major>;
using right_turned = wmma::fragment<wmma::matrix_b, UNIT, UNIT, UNIT, bf16, wmma::col_major>;

/* 64 rows of one head of x from row `from` on into shared memory; zeros beyond end and beyond dh. */
template <int D, int V>
static __device__ inline void load_rows(bf16 *to, const bf16 *x, int64_t ld, int64_t from, int64_t end, int dh)
{
    const int chunks = lengths<D>::WIDE / V;
    for (int i = threadIdx.y * WARP + threadIdx.x; i < TILE * chunks; i += THREADS) {
        int k = i / chunks, c = i % chunks * V;
        pack<bf16, V> p;
#pragma unroll
        for (int v = 0; v < V; v++) p.x[v] = __float2bfloat16_rn(0);
        if (from + k < end && c < dh) p = *(const pack<bf16, V> *)(x + (from + k) * ld + c);
        *(pack<bf16, V> *)(to + k * lengths<D>::ROW + c) = p;
    }
}

template <int D>
static __device__ inline void load_rows(bf16 *to, const bf16 *x, int64_t ld, int64_t from, int64_t end, int dh,
                                        bool wide)
{
    if (wide)
        load_rows<D, PACK>(to, x, ld, from, end, dh);
    else
        load_rows<D, 1>(to, x, ld, from, end, dh);
}

/* The product of 16 rows with 16 rows: to [16, 16] = a b^T over a head */
template <int D> static __device__ inline void score(float *to, int ld, const bf16 *a, const bf16 *b)
{
    accumulator s;
    wmma::fill_fragment(s, 0.0f);
#pragma unroll
    for (int d = 0; d < D; d++) {
        left l;
        right_turned r;
        wmma::load_matrix_sync(l, a + d * UNIT, lengths<D>::ROW);
        wmma::load_matrix_sync(r, b + d * UNIT, lengths<D>::ROW);
        wmma::mma_sync(s, l, r, s);
    }
    wmma::store_matrix_sync(to, s, ld, wmma::mem_row_major);
}

/* o [16, head] += shares [16, 16] x [16, head] */
template <int D>
static __device__ inline void add_up(accumulator (&o)[D], const bf16 *shares, int ld, const bf16 *x)
{
    left l;
    wmma::load_matrix_sync(l, shares, ld);
#pragma unroll
    for (int d = 0; d < D; d++) {
        right r;
        wmma::load_matrix_sync(r, x + d * UNIT, lengths<D>::ROW);
        wmma::mma_sync(o[d], l, r, o[d]);
    }
}

template <int D> static __device__ inline void put(float *to, int ld, const accumulator (&o)[D])
{
#pragma unroll
    for (int d = 0; d < D; d++) wmma::store_matrix_sync(to + d * UNIT, o[d], ld, wmma::mem_row_major);
    __syncwarp();
}

/* A warp's 16 rows of a head, f32 in shared memory, to rows from .. end - 1 of x. */
template <int V>
static __device__ inline void write_rows(bf16 *x, int64_t ld, int64_t from, int64_t end, int dh, const float *rows,
                                         int row)
{
    int chunks = dh / V;
    for (int i = threadIdx.x; i < UNIT * chunks; i += WARP) {
        int k = i / chunks, c = i % chunks * V;
        float v[V];
        if (from + k >= end) break;
#pragma unroll
        for (int j = 0; j < V; j++) v[j] = rows[k * row + c + j];
        store(x + (from + k) * ld + c, v);
    }
}

static __device__ inline void write_rows(bf16 *x, int64_t ld, int64_t from, int64_t end, int dh, const float *rows,
                                         int row, bool wide)
{
    if (wide)
        write_rows<PACK>(x, ld, from, end, dh, rows, row);
    else
        write_rows<1>(x, ld, from, end, dh, rows, row);
}

/* What 16 (or 64) rows from `first` on see together; nothing when there are none. */
template <bool KEYS>
static __device__ inline struct span seen_by_rows(const struct mode__cuda_attention &a, int64_t first, int n, int64_t rows)
{
    if (first >= rows) return {0, 0};
    int64_t last = first + n < rows ? first + n - 1 : rows - 1;
    return {seen_by<KEYS>(a, first).from, seen_by<KEYS>(a, last).end};
}

template <int D> static size_t forward_bytes()
{
    using L = lengths<D>;
    return 3 * TILE * L::ROW * sizeof(bf16) + WARPS * UNIT * (L::SHARES * sizeof(bf16) + L::SCORES * sizeof(float));
}

template <int D>
static __global__ void __launch_bounds__(THREADS)
    forward(bf16 *out, float *lse, struct mode__cuda_attention a, bool wide, bool wide_out)
{
    extern __shared__ __align__(32) unsigned char shared[];
    using L = lengths<D>;
    const int dh = (int)a.dh, h = blockIdx.y, warp = threadIdx.y, mine = threadIdx.x / 2, half = threadIdx.x % 2;
    const float scale = 1 / sqrtf((float)dh);
    const struct side<bf16> q = queries<bf16>(a, nullptr, h), kv = keys<bf16>(a, h);
    bf16 *own = (bf16 *)shared, *k_tile = own + BLOCK_ROWS * L::ROW, *v_tile = k_tile + TILE * L::ROW;
    bf16 *shares = v_tile + TILE * L::ROW + warp * UNIT * L::SHARES;
    float *scores = (float *)(v_tile + TILE * L::ROW + WARPS * UNIT * L::SHARES) + warp * UNIT * L::SCORES;
    const int64_t first = (int64_t)blockIdx.x * BLOCK_ROWS, row = first + warp * UNIT;
    const struct span all = seen_by_rows<false>(a, first, BLOCK_ROWS, a.rows_q);
    const struct span ours = seen_by_rows<false>(a, row, UNIT, a.rows_q);
    struct span sees = {0, 0};
    if (row + mine < a.rows_q) sees = seen_by<false>(a, row + mine);
    float top = -CUDART_INF_F, sum = 0;
    bool begun = false;
    accumulator o[D];
#pragma unroll
    for (int d = 0; d < D; d++) wmma::fill_fragment(o[d], 0.0f);
    load_rows<D>(own, q.first, q.ld_first, first, a.rows_q, dh, wide);
    for (int64_t tile = all.from; tile < all.end; tile += TILE) {
        __syncthreads();
        load_rows<D>(k_tile, kv.first, kv.ld_first, tile, all.end, dh, wide);
        load_rows<D>(v_tile, kv.second, kv.ld_second, tile, all.end, dh, wide);
        __syncthreads();
        if (!touches(ours, tile, TILE)) continue;
        for (int n = 0; n < TILE; n += UNIT)
            if (touches(ours, tile + n, UNIT))
                score<D>(scores + n, L::SCORES, own + warp * UNIT * L::ROW, k_tile + n * L::ROW);
        __syncwarp();
        /* two lanes to a row, every other column each */
        float high = top, part = 0;
        for (int c = half; c < TILE; c += 2)
            if (tile + c >= sees.from && tile + c < sees.end) high = fmaxf(high, scale * scores[mine * L::SCORES + c]);
        high = fmaxf(high, __shfl_xor_sync(ALL_LANES, high, 1));
        for (int c = half; c < TILE; c += 2) {
            float p = 0;
            if (tile + c >= sees.from && tile + c < sees.end) p = expf(scale * scores[mine * L::SCORES + c] - high);
            shares[mine * L::SHARES + c] = __float2bfloat16_rn(p);
            part += p;
        }
        float fade = top == high ? 1 : expf(top - high); /* equal: also while a row has seen nothing */
        top = high;
        sum = sum * fade + part + __shfl_xor_sync(ALL_LANES, part, 1);
        __syncwarp();
        if (begun && __any_sync(ALL_LANES, fade != 1)) {
            put(scores, L::SCORES, o);
            for (int c = half; c < L::WIDE; c += 2) scores[mine * L::SCORES + c] *= fade;
            __syncwarp();
#pragma unroll
            for (int d = 0; d < D; d++)
                wmma::load_matrix_sync(o[d], scores + d * UNIT, L::SCORES, wmma::mem_row_major);
        }
        begun = true;
        for (int n = 0; n < TILE; n += UNIT)
            if (touches(ours, tile + n, UNIT)) add_up(o, shares + n, L::SHARES, v_tile + n * L::ROW);
    }
    __syncwarp();
    put(scores, L::SCORES, o);
    if (row + mine < a.rows_q) {
        for (int c = half; c < dh; c += 2) scores[mine * L::SCORES + c] /= sum;
        if (lse && half == 0) lse[(row + mine) * a.heads + h] = top + logf(sum);
    }
    __syncwarp();
    write_rows(out + h * dh, a.heads * dh, row, a.rows_q, dh, scores, L::SCORES, wide_out);
}

template <int D> static size_t back_bytes()
{
    using L = lengths<D>;
    return 4 * TILE * L::ROW * sizeof(bf16) + 2 * TILE * sizeof(float) +
           2 * WARPS * UNIT * (L::QUARTER * sizeof(float) + L::QUARTER_SHARES * sizeof(bf16));
}

/* KEYS: dk and dv go to `to`, which lies as kv does; else dq, which lies as q does. */
template <int D, bool KEYS>
static __global__ void __launch_bounds__(THREADS)
    back(bf16 *to, const bf16 *dout, const float *lse, const float *delta, struct mode__cuda_attention a, bool wide,
         bool wide_out)
{
    extern __shared__ __align__(32) unsigned char shared[];
    using L = lengths<D>;
    const int dh = (int)a.dh, h = blockIdx.y, warp = threadIdx.y, mine = threadIdx.x / 2, half = threadIdx.x % 2;
    const float scale = 1 / sqrtf((float)dh);
    const struct side<bf16> q = queries(a, dout, h), kv = keys<bf16>(a, h), own = KEYS ? kv : q, other = KEYS ? q : kv;
    bf16 *own1 = (bf16 *)shared, *own2 = own1 + BLOCK_ROWS * L::ROW;
    bf16 *tile1 = own2 + BLOCK_ROWS * L::ROW, *tile2 = tile1 + TILE * L::ROW;
    float *lse_tile = (float *)(tile2 + TILE * L::ROW), *delta_tile = lse_tile + TILE;
    float *s = delta_tile + TILE + 2 * warp * UNIT * L::QUARTER, *dp = s + UNIT * L::QUARTER;
    bf16 *p = (bf16 *)(delta_tile + TILE + 2 * WARPS * UNIT * L::QUARTER) + 2 * warp * UNIT * L::QUARTER_SHARES;
    bf16 *ds = p + UNIT * L::QUARTER_SHARES;
    const int64_t first = (int64_t)blockIdx.x * BLOCK_ROWS, row = first + warp * UNIT;
    const struct span all = seen_by_rows<KEYS>(a, first, BLOCK_ROWS, own.rows);
    const struct span ours = seen_by_rows<KEYS>(a, row, UNIT, own.rows);
    struct span sees = {0, 0};
    float l_mine = 0, d_mine = 0;
    if (row + mine < own.rows) {
        sees = seen_by<KEYS>(a, row + mine);
        if (!KEYS) l_mine = lse[(row + mine) * a.heads + h];
        if (!KEYS) d_mine = delta[(row + mine) * a.heads + h];
    }
    accumulator g1[D], g2[KEYS ? D : 1];
#pragma unroll
    for (int d = 0; d < D; d++) {
        wmma::fill_fragment(g1[d], 0.0f);
        if (KEYS) wmma::fill_fragment(g2[KEYS ? d : 0], 0.0f);
    }
    load_rows<D>(own1, own.first, own.ld_first, first, own.rows, dh, wide);
    load_rows<D>(own2, own.second, own.ld_second, first, own.rows, dh, wide);
    for (int64_t tile = all.from; tile < all.end; tile += TILE) {
        __syncthreads();
        load_rows<D>(tile1, other.first, other.ld_first, tile, all.end, dh, wide);
        load_rows<D>(tile2, other.second, other.ld_second, tile, all.end, dh, wide);
        for (int k = threadIdx.y * WARP + threadIdx.x; KEYS && k < TILE; k += THREADS) {
            bool real = tile + k < all.end;
            lse_tile[k] = real ? lse[(tile + k) * a.heads + h] : 0;
            delta_tile[k] = real ? delta[(tile + k) * a.heads + h] : 0;
        }
        __syncthreads();
        for (int n = 0; n < TILE; n += UNIT) {
            if (!touches(ours, tile + n, UNIT)) continue;
            score<D>(s, L::QUARTER, own1 + warp * UNIT * L::ROW, tile1 + n * L::ROW);
            score<D>(dp, L::QUARTER, own2 + warp * UNIT * L::ROW, tile2 + n * L::ROW);
            __syncwarp();
            for (int c = half; c < UNIT; c += 2) {
                bool seen = tile + n + c >= sees.from && tile + n + c < sees.end;
                float l = KEYS ? lse_tile[n + c] : l_mine, d = KEYS ? delta_tile[n + c] : d_mine;
                float share = seen ? expf(scale * s[mine * L::QUARTER + c] - l) : 0;
                float slope = seen ? scale * share * (dp[mine * L::QUARTER + c] - d) : 0;
                if (KEYS) p[mine * L::QUARTER_SHARES + c] = __float2bfloat16_rn(share);
                ds[mine * L::QUARTER_SHARES + c] = __float2bfloat16_rn(slope);
            }
            __syncwarp();
            add_up(g1, ds, L::QUARTER_SHARES, tile1 + n * L::ROW);
            if constexpr (KEYS) add_up(g2, p, L::QUARTER_SHARES, tile2 + n * L::ROW);
        }
    }
    /* the block's own rows are no longer needed: their place takes the gradient on its way out */
    float *rows = (float *)shared + warp * UNIT * L::GRADIENT;
    bf16 *at = to + (KEYS ? a.k_at : a.q_at) + h * dh;
    int64_t ld = KEYS ? a.lk : a.lq;
    __syncthreads();
    put(rows, L::GRADIENT, g1);
    write_rows(at, ld, row, own.rows, dh, rows, L::GRADIENT, wide_out);
    if constexpr (KEYS) {
        __syncwarp();
        put(rows, L::GRADIENT, g2);
        write_rows(to + a.v_at + h * dh, ld, row, own.rows, dh, rows, L::GRADIENT, wide_out);
    }
}

template <typename... A>
static void launch(cudaStream_t stream, void (*kernel)(A...), int64_t rows, size_t bytes, int64_t heads, A... args)
{
    if (bytes > 48 * 1024) cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    kernel<<<dim3(blocks_of(rows, BLOCK_ROWS), (unsigned)heads), dim3(WARP, WARPS), bytes, stream>>>(args...);
}

/* The statement with D set: a head in units of 16 channels, for the widths of our models and one for all others */
#define BY_UNITS(dh, ...)                                                                                              \
    do {                                                                                                               \
        if ((dh) <= 64) {                                                                                              \
            constexpr int D = 4;                                                                                       \
            __VA_ARGS__;                                                                                               \
        } else if ((dh) <= 80) {                                                                                       \
            constexpr int D = 5;                                                                                       \
            __VA_ARGS__;                                                                                               \
        } else if ((dh) <= 96) {                                                                                       \
            constexpr int D = 6;                                                                                       \
            __VA_ARGS__;                                                                                               \
        } else if ((dh) <= 128) {                                                                                      \
            constexpr int D = 8;                                                                                       \
            __VA_ARGS__;                                                                                               \
        } else {                                                                                                       \
            constexpr int D = 16;                                                                                      \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
    } while (0)

void mode__cuda_attention_bf16(cudaStream_t stream, void *out, float *lse, const struct mode__cuda_attention *a)
{
    bool wide = wide_heads<bf16>(a), wide_out = wide_rows(a->dh, sizeof(bf16), (const bf16 *)out);
    BY_UNITS(a->dh,
             launch(stream, forward<D>, a->rows_q, forward_bytes<D>(), a->heads, (bf16 *)out, lse, *a, wide, wide_out));
}

void mode__cuda_attention_back_bf16(cudaStream_t stream, void *dq, void *dkv, const float *delta, const void *dout,
                                    const float *lse, const struct mode__cuda_attention *a)
{
    const bf16 *go = (const bf16 *)dout;
    bool wide = wide_heads<bf16>(a, dout), wide_q = wide && wide_rows(0, 1, (bf16 *)dq);
    bool wide_kv = wide && wide_rows(0, 1, (bf16 *)dkv);
    BY_UNITS(a->dh, launch(stream, back<D, false>, a->rows_q, back_bytes<D>(), a->heads, (bf16 *)dq, go, lse, delta, *a,
                           wide, wide_q));
    BY_UNITS(a->dh, launch(stream, back<D, true>, a->rows_k, back_bytes<D>(), a->heads, (bf16 *)dkv, go, lse, delta, *a,
                           wide, wide_kv));
}
