/* attention_bf16.cu - softmax attention over packed sequences on tensor cores, the way in: bf16 numbers, f32 scores and
 * sums.
 *
 * DESIGN: a block takes up to 128 queries of one sequence and head, 16 to each warp, and walks over tiles of as many
 * keys; a sequence of up to 128 rows is one block and one tile, and everything of it is read once. Scores of 64 keys at
 * a time stay in registers: they become shares there, and the left side of the product with the values. What no query
 * of a warp sees is left out by 16 keys. Source: Dao et al., "FlashAttention" and "FlashAttention-2". */
#include "nn/cuda/attention_tiles.cuh"

static constexpr int MOST_WARPS = 8, AT_A_TIME = 4; /* units of scores in registers */

/* What a warp has of its 16 queries: the lane's two rows. */
template <int D> struct answer {
    float o[2 * D][4], top[2], sum[2]; /* sum: of the lane's own columns */
};

/* Up to 64 keys, from row `from` of the tile on, none from `end` on. first: of the warp's queries; tile: of the tile's
 * keys. */
template <int D>
static __device__ inline void look(answer<D> &y, const own_rows<D> &q, const bf16 *k, const bf16 *v, int tile, int from,
                                   int end, int first, bool causal, float scale)
{
    float s[AT_A_TIME][2][4], high[2] = {y.top[0], y.top[1]};
#pragma unroll
    for (int u = 0; u < AT_A_TIME; u++) {
        const int at = from + u * UNIT, key = tile + at;
        if (key >= end) break;
        score<D>(s[u], q, k + at * ROW<D>);
        if (key + UNIT > end || (causal && key + UNIT - 1 > first))
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    int j = key + column_of(i, e), last = causal ? min(end - 1, first + row_of(e)) : end - 1;
                    s[u][i][e] = j <= last ? s[u][i][e] : -CUDART_INF_F;
                }
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) high[e / 2] = fmaxf(high[e / 2], s[u][i][e] * scale);
    }
#pragma unroll
    for (int r = 0; r < 2; r++) { /* four lanes share a row, and each row sees a key of the first tile */
        high[r] = fmaxf(high[r], __shfl_xor_sync(ALL_LANES, high[r], 1));
        high[r] = fmaxf(high[r], __shfl_xor_sync(ALL_LANES, high[r], 2));
        float fade = power_of_2(y.top[r] - high[r]);
        y.top[r] = high[r];
        y.sum[r] *= fade;
#pragma unroll
        for (int j = 0; j < 2 * D; j++) {
            y.o[j][2 * r] *= fade;
            y.o[j][2 * r + 1] *= fade;
        }
    }
#pragma unroll
    for (int u = 0; u < AT_A_TIME; u++) {
        const int at = from + u * UNIT;
        if (tile + at >= end) break;
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                s[u][i][e] = power_of_2(fmaf(s[u][i][e], scale, -high[e / 2]));
                y.sum[e / 2] += s[u][i][e];
            }
        add_up<D>(y.o, s[u], v + at * ROW<D>);
    }
}

template <int D>
static __global__ void __launch_bounds__(MOST_WARPS *WARP, D <= 5 ? 2 : 1)
    forward(bf16 *out, float *lse, struct mode__cuda_attention a, int parts, bool wide, bool wide_out)
{
    extern __shared__ __align__(16) unsigned char shared[];
    const int dh = (int)a.dh, rows = rows_of_block();
    const struct portion p = portion_of_block((int)a.heads, parts);
    const int64_t q_from = a.q_offsets[p.b], k_from = a.kv_offsets[p.b];
    const int q_n = (int)(a.q_offsets[p.b + 1] - q_from), k_n = (int)(a.kv_offsets[p.b + 1] - k_from);
    const int first = p.part * rows, mine = first + (int)threadIdx.y * UNIT;
    if (first >= q_n) return;
    const int n = min(rows, q_n - first), all = a.causal ? min(k_n, first + n) : k_n;
    const int end = a.causal ? min(all, mine + UNIT) : all; /* of what this warp sees */
    const float scale = scale_of(dh);
    const struct side<bf16> q = queries<bf16>(a, nullptr, p.h), kv = keys<bf16>(a, p.h);
    bf16 *own = (bf16 *)shared, *k = own + rows * ROW<D>, *v = k + rows * ROW<D>;
    fetch<D>(own, q.first + (q_from + first) * q.ld_first, q.ld_first, n, dh, wide);
    fetch<D>(k, kv.first + k_from * kv.ld_first, kv.ld_first, min(all, rows), dh, wide);
    fetch<D>(v, kv.second + k_from * kv.ld_second, kv.ld_second, min(all, rows), dh, wide);
    arrive();
    const own_rows<D> query(own + (int)threadIdx.y * UNIT * ROW<D>);
    answer<D> y;
    clear<D>(y.o);
    y.top[0] = y.top[1] = -CUDART_INF_F;
    y.sum[0] = y.sum[1] = 0;
    for (int tile = 0; tile < all; tile += rows) {
        if (tile > 0) {
            const int more = min(all - tile, rows);
            __syncthreads();
            fetch<D>(k, kv.first + (k_from + tile) * kv.ld_first, kv.ld_first, more, dh, wide);
            fetch<D>(v, kv.second + (k_from + tile) * kv.ld_second, kv.ld_second, more, dh, wide);
            arrive();
        }
        const int stop = min(tile + rows, end);
        for (int at = 0; mine < q_n && tile + at < stop; at += AT_A_TIME * UNIT)
            look<D>(y, query, k, v, tile, at, stop, mine, a.causal, scale * LOG2_E);
    }
    if (mine >= q_n) return;
    float times[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float sum = y.sum[r] + __shfl_xor_sync(ALL_LANES, y.sum[r], 1);
        sum += __shfl_xor_sync(ALL_LANES, sum, 2);
        times[r] = 1 / sum;
        const int row = mine + row_of(2 * r);
        if (lse && threadIdx.x % 4 == 0 && row < q_n)
            lse[(q_from + row) * a.heads + p.h] = (y.top[r] + log2f(sum)) * LN_2;
    }
    const int64_t ld = a.heads * dh;
    write<D>(out + (q_from + mine) * ld + p.h * dh, ld, q_n - mine, y.o, times, dh, wide_out);
}

static size_t bytes_of(int warps, int row)
{
    return (size_t)warps * UNIT * 3 * (size_t)row * sizeof(bf16);
}

void mode__cuda_attention_bf16(cudaStream_t stream, void *out, float *lse, const struct mode__cuda_attention *a)
{
    bool wide = wide_heads<bf16>(a), wide_out = wide_rows(a->dh, sizeof(bf16), (const bf16 *)out);
    struct cut cut = cut_of(a->longest, warps_that_fit(bytes_of(1, row_of_head(a->dh)), MOST_WARPS));
    BY_UNITS(a->dh, launch_units(stream, forward<D>, a, cut, bytes_of(cut.warps, ROW<D>), (bf16 *)out, lse, *a,
                                 cut.parts, wide, wide_out));
}
