/* attention_bf16.cu - softmax attention over packed sequences on tensor cores, forward: bf16 operands, f32 scores and
 * accumulators.
 *
 * DESIGN: a block takes up to 128 queries of one sequence and head, 16 per warp, and iterates over tiles of as many
 * keys; a sequence of up to 128 rows is one block and one tile, and is read once. Scores of 64 keys at a time stay in
 * registers, where they become probabilities and operand A of the mma with the values. Keys that no query of a warp
 * attends to are skipped in units of 16. Source: Dao et al., "FlashAttention" and "FlashAttention-2". */
#include "nn/cuda/attention_tiles.cuh"

static constexpr int MOST_WARPS = 8, SCORE_UNITS = 4; /* units of scores in registers at a time */

/* A warp's state for its 16 queries: each lane's two rows. */
template <int D> struct accumulator {
    float o[2 * D][4], row_max[2], sum[2]; /* sum: over the lane's own columns */
};

/* One step of online softmax: up to 64 keys from row `from` of the tile on, none from `end` on. FIRST: nothing is
 * accumulated yet. first: of the warp's queries; tile: of the tile's keys. */
template <int D, bool FIRST>
static __device__ inline void attend(accumulator<D> &y, const own_rows<D> &q, const bf16 *k, const bf16 *v, int tile,
                                     int from, int end, int first, bool causal, float scale)
{
    float s[SCORE_UNITS][2][4], new_max[2] = {-CUDART_INF_F, -CUDART_INF_F};
#pragma unroll
    for (int u = 0; u < SCORE_UNITS; u++) {
        const int at = from + u * UNIT, key = tile + at;
        if (key >= end) break;
        score<D>(s[u], q, k + at * ROW<D>);
        if (key + UNIT > end || (causal && key + UNIT - 1 > first))
#pragma unroll
            for (int e = 0; e < 4; e++) { /* columns relative to the lane's first one */
                const int last = (causal ? min(end - 1, first + row_of(e)) : end - 1) - key - column_of(0, 0);
#pragma unroll
                for (int i = 0; i < 2; i++) s[u][i][e] = i * 8 + e % 2 <= last ? s[u][i][e] : -CUDART_INF_F;
            }
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) new_max[e / 2] = fmaxf(new_max[e / 2], s[u][i][e]);
    }
#pragma unroll
    for (int r = 0; r < 2; r++) { /* four lanes share a row; each row attends to a key of the first tile */
        new_max[r] = fmaxf(new_max[r], __shfl_xor_sync(ALL_LANES, new_max[r], 1));
        new_max[r] = scale * fmaxf(new_max[r], __shfl_xor_sync(ALL_LANES, new_max[r], 2));
        if (!FIRST) {
            new_max[r] = fmaxf(new_max[r], y.row_max[r]);
            const float rescale = exp2_approx(y.row_max[r] - new_max[r]);
            y.sum[r] *= rescale;
#pragma unroll
            for (int j = 0; j < 2 * D; j++) {
                y.o[j][2 * r] *= rescale;
                y.o[j][2 * r + 1] *= rescale;
            }
        }
        y.row_max[r] = new_max[r];
    }
#pragma unroll
    for (int u = 0; u < SCORE_UNITS; u++) {
        const int at = from + u * UNIT;
        if (tile + at >= end) break;
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                s[u][i][e] = exp2_approx(fmaf(s[u][i][e], scale, -new_max[e / 2]));
                y.sum[e / 2] += s[u][i][e];
            }
        accumulate<D>(y.o, s[u], v + at * ROW<D>);
    }
}

template <int D>
static __global__ void __launch_bounds__(MOST_WARPS *WARP, D <= 5 ? 2 : 1)
    forward(bf16 *out, float *lse, struct mode__cuda_attention a, int parts, float scale, bool wide, bool wide_out)
{
    extern __shared__ __align__(16) unsigned char shared[];
    const int dh = (int)a.dh, rows = rows_of_block();
    const struct work_item p = work_of_block(parts);
    if (p.b >= a.n_seq) return;
    const int64_t q_from = a.q_offsets[p.b], k_from = a.kv_offsets[p.b];
    const int q_n = (int)(a.q_offsets[p.b + 1] - q_from), k_n = (int)(a.kv_offsets[p.b + 1] - k_from);
    const int first = p.part * rows, mine = first + (int)threadIdx.y * UNIT;
    if (first >= q_n) return;
    const int n = min(rows, q_n - first), all = a.causal ? min(k_n, first + n) : k_n;
    const int end = a.causal ? min(all, mine + UNIT) : all; /* of the keys that this warp attends to */
    const struct side<bf16> q = queries<bf16>(a, nullptr, p.h), kv = keys<bf16>(a, p.h);
    bf16 *own = (bf16 *)shared, *k = own + rows * ROW<D>, *v = k + rows * ROW<D>;
    load_async<D>(own, q.first + (q_from + first) * q.ld_first, (int)q.ld_first, n, dh, wide);
    load_async<D>(k, kv.first + k_from * kv.ld_first, (int)kv.ld_first, min(all, rows), dh, wide);
    load_async<D>(v, kv.second + k_from * kv.ld_second, (int)kv.ld_second, min(all, rows), dh, wide);
    wait_loads();
    const own_rows<D> query(own + (int)threadIdx.y * UNIT * ROW<D>);
    accumulator<D> y;
    clear<D>(y.o);
    y.row_max[0] = y.row_max[1] = -CUDART_INF_F;
    y.sum[0] = y.sum[1] = 0;
    for (int tile = 0; tile < all; tile += rows) {
        if (tile > 0) {
            const int more = min(all - tile, rows);
            __syncthreads();
            load_async<D>(k, kv.first + (k_from + tile) * kv.ld_first, (int)kv.ld_first, more, dh, wide);
            load_async<D>(v, kv.second + (k_from + tile) * kv.ld_second, (int)kv.ld_second, more, dh, wide);
            wait_loads();
        }
        const int stop = min(tile + rows, end);
        if (mine >= q_n) continue;
        if (tile == 0) attend<D, true>(y, query, k, v, 0, 0, stop, mine, a.causal, scale);
        for (int at = tile == 0 ? SCORE_UNITS * UNIT : 0; tile + at < stop; at += SCORE_UNITS * UNIT)
            attend<D, false>(y, query, k, v, tile, at, stop, mine, a.causal, scale);
    }
    if (mine >= q_n) return;
    float factor[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        y.sum[r] += __shfl_xor_sync(ALL_LANES, y.sum[r], 1);
        y.sum[r] += __shfl_xor_sync(ALL_LANES, y.sum[r], 2);
        factor[r] = __fdividef(1, y.sum[r]);
    }
    const int r = (int)threadIdx.x % 4, row = mine + row_of(2 * r);
    if (lse && r < 2 && row < q_n) /* of the four lanes of two rows, one for each */
        lse[(q_from + row) * a.heads + p.h] = ((r ? y.row_max[1] : y.row_max[0]) + __log2f(r ? y.sum[1] : y.sum[0])) *
                                              LN_2;
    const int ld = (int)a.heads * dh;
    store_rows<D>(out + (q_from + mine) * ld + p.h * dh, ld, q_n - mine, y.o, factor, dh, wide_out,
                  own + (int)threadIdx.y * UNIT * ROW<D>);
}

static size_t shared_bytes(int warps, int row)
{
    return (size_t)warps * UNIT * 3 * (size_t)row * sizeof(bf16);
}

void mode__cuda_attention_bf16(cudaStream_t stream, void *out, float *lse, const struct mode__cuda_attention *a)
{
    bool wide = wide_heads<bf16>(a), wide_out = wide_rows(a->dh, sizeof(bf16), (const bf16 *)out);
    struct partition partition = partition_of(a->longest,
                                              warps_that_fit(shared_bytes(1, row_of_head(a->dh)), MOST_WARPS));
    BY_UNITS(a->dh, launch_units(stream, forward<D>, a, partition, shared_bytes(partition.warps, ROW<D>), (bf16 *)out,
                                 lse, *a, partition.parts, scale_of(a->dh) * LOG2_E, wide, wide_out));
}
