/* attention_bf16_back.cu - softmax attention on tensor cores, backward.
 *
 * DESIGN: probabilities are recomputed from the log-sum-exp, 16 x 16 at a time in registers, once with queries as a
 * warp's own rows (dq) and once with keys (dk, dv): scores are computed twice, but there is no reduction over warps and
 * no atomics. A sequence of up to MODE__ATTENTION_SHORT rows is one block, which reads everything once, including out
 * for delta, and does both. Longer ones are split into blocks of up to 64 own rows, the other side is loaded in tiles,
 * and there is a launch for each side.
 * Source: Dao et al., "FlashAttention-2". */
#include "nn/cuda/attention_tiles.cuh"

static constexpr int SHORT_WARPS = MODE__ATTENTION_SHORT / UNIT, LONG_WARPS = 4;
static constexpr int SHORT_OPERANDS = 5, LONG_OPERANDS = 4; /* rows of a head in shared memory, for each own row */
/* Launch bounds that allow 128 registers per thread: four resident blocks of four warps */
static constexpr int BOUND = 256;
static_assert(SHORT_WARPS * WARP <= BOUND, "a block of a short sequence");

/* The statistic for element e of half i: by column, two per half, or by row, the lane's two in x[0] */
template <bool KEYS> static __device__ inline float statistic_of(const float2 (&x)[2], int i, int e)
{
    return KEYS ? (e % 2 ? x[i].y : x[i].x) : e / 2 ? x[0].y : x[0].x;
}

/* Accumulates the gradient of 16 own rows (first: the first of them) over the other side's rows from .. end - 1, which
 * are in `with` and `against` from row `tile` on. KEYS: own rows are keys, and lse and delta belong to the tile; else
 * to the own rows. g [16, head] += ds with; KEYS: g2 += p against. */
template <int D, bool KEYS>
static __device__ inline void gradient(float (&g)[2 * D][4], float (&g2)[KEYS ? 2 * D : 1][4], const own_rows<D> &own,
                                       const own_rows<D> &own2, const bf16 *with, const bf16 *against, const float *lse,
                                       const float *delta, int tile, int from, int end, int first, bool causal,
                                       float scale)
{
    float2 l[2], d[2];
    if (!KEYS) { /* the lane's rows */
        l[0] = {lse[row_of(0)], lse[row_of(2)]};
        d[0] = {delta[row_of(0)], delta[row_of(2)]};
    }
#pragma unroll 1 /* registers limit the occupancy */
    for (int other = from; other < end; other += UNIT) {
        const int at = other - tile;
        float s[2][4], dp[2][4];
        score<D>(s, own, with + at * ROW<D>);
        score<D>(dp, own2, against + at * ROW<D>);
        if (KEYS) { /* the lane's columns */
#pragma unroll
            for (int i = 0; i < 2; i++) {
                l[i] = *(const float2 *)(lse + at + column_of(i, 0));
                d[i] = *(const float2 *)(delta + at + column_of(i, 0));
            }
        }
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) s[i][e] = fmaf(s[i][e], scale, -statistic_of<KEYS>(l, i, e));
        if (other + UNIT > end || (causal && (KEYS ? first + UNIT - 1 > other : other + UNIT - 1 > first)))
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const int own_row = first + row_of(e), j = other + column_of(i, e);
                    const bool seen = j < end && (!causal || (KEYS ? own_row <= j : j <= own_row));
                    s[i][e] = seen ? s[i][e] : -CUDART_INF_F;
                }
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                s[i][e] = exp2_approx(s[i][e]);
                dp[i][e] = s[i][e] * (dp[i][e] - statistic_of<KEYS>(d, i, e));
            }
        accumulate<D>(g, dp, with + at * ROW<D>);
        if constexpr (KEYS) accumulate<D>(g2, s, against + at * ROW<D>);
    }
}

/* Address of the gradient of row `from` */
static __device__ inline bf16 *place_of(bf16 *to, int64_t at, int64_t ld, int64_t from, int h, int dh)
{
    return to + from * ld + at + h * dh;
}

/* ---- sequences that fit one block ---- */

/* A lane's half of a row of out, every other 16 bytes, and the row's log-sum-exp: loaded before waiting for anything
 * else. Missing rows are the last one, as those of load_async. */
template <int D> struct prefetched {
    const bf16 *row;
    pack<uint32_t, PACK / 2> x[D];
    float lse;
};

static __device__ inline int half_at(int d)
{
    return (2 * d + (int)threadIdx.x % 2) * PACK;
}

template <int D>
static __device__ inline void prefetch(prefetched<D> &y, const bf16 *out, int64_t ld, const float *lse, int64_t ld_lse,
                                       int n, int dh, bool wide)
{
    const int row = min((int)threadIdx.x / 2, n - 1);
    y.row = out + row * ld;
    y.lse = lse[row * ld_lse] * LOG2_E;
#pragma unroll
    for (int d = 0; d < D; d++)
        if (wide && half_at(d) < dh) y.x[d] = *(const pack<uint32_t, PACK / 2> *)(y.row + half_at(d));
}

/* delta [16] and lse [16] of a warp's unit. dout: the unit in shared memory */
template <int D>
static __device__ inline void statistics(float *lse, float *delta, const bf16 *dout, const prefetched<D> &y, int dh,
                                         bool wide)
{
    const int row = (int)threadIdx.x / 2, half = (int)threadIdx.x % 2;
    const bf16 *go = dout + row * ROW<D>;
    float sum = 0;
#pragma unroll
    for (int d = 0; d < D; d++) {
        if (!wide || half_at(d) >= dh) continue;
        float g[PACK], o[2];
        load<PACK>(g, go + half_at(d));
#pragma unroll
        for (int i = 0; i < PACK; i += 2) {
            widen_pair(go, y.x[d].x[i / 2], o[0], o[1]);
            sum += o[0] * g[i];
            sum += o[1] * g[i + 1];
        }
    }
    for (int c = half; !wide && c < dh; c += 2) sum += widen(y.row[c]) * widen(go[c]);
    sum += __shfl_xor_sync(ALL_LANES, sum, 1);
    (half ? lse : delta)[row] = half ? y.lse : sum;
}

template <int D>
static __global__ void __launch_bounds__(BOUND, D <= 4 ? 2 : 1)
    back_short(bf16 *dq, bf16 *dkv, const bf16 *dout, const bf16 *out, const float *lse, struct mode__cuda_attention a,
               float scale, bool wide, bool wide_out)
{
    extern __shared__ __align__(16) unsigned char shared[];
    const int dh = (int)a.dh, rows = rows_of_block(), unit = (int)threadIdx.y * UNIT;
    const struct work_item p = work_of_block(1);
    if (p.b >= a.n_seq) return;
    const int64_t from = a.q_offsets[p.b], ld = a.heads * dh;
    const int n = (int)(a.q_offsets[p.b + 1] - from);
    const float factor[2] = {scale, scale}, one[2] = {1, 1};
    const struct side<bf16> q = queries(a, dout, p.h), kv = keys<bf16>(a, p.h);
    bf16 *query = (bf16 *)shared, *go = query + rows * ROW<D>, *key = go + rows * ROW<D>, *value = key + rows * ROW<D>;
    bf16 *results = value + rows * ROW<D>, *mine = results + unit * ROW<D>;
    float *lses = (float *)(results + rows * ROW<D>), *deltas = lses + rows;
    load_async<D>(go, q.second + from * q.ld_second, (int)q.ld_second, n, dh, wide);
    load_async<D>(query, q.first + from * q.ld_first, (int)q.ld_first, n, dh, wide);
    load_async<D>(key, kv.first + from * kv.ld_first, (int)kv.ld_first, n, dh, wide);
    load_async<D>(value, kv.second + from * kv.ld_second, (int)kv.ld_second, n, dh, wide);
    prefetched<D> y;
    if (unit < n)
        prefetch<D>(y, out + (from + unit) * ld + p.h * dh, ld, lse + (from + unit) * a.heads + p.h, a.heads, n - unit,
                    dh, wide);
    wait_loads();
    if (unit < n) statistics<D>(lses + unit, deltas + unit, go + unit * ROW<D>, y, dh, wide);
    __syncthreads();
    if (unit >= n) return;
    {
        float g[2 * D][4], none[1][4];
        const own_rows<D> own(query + unit * ROW<D>), own2(go + unit * ROW<D>);
        clear<D>(g);
        gradient<D, false>(g, none, own, own2, key, value, lses + unit, deltas + unit, 0, 0,
                           a.causal ? min(n, unit + UNIT) : n, unit, a.causal, scale * LOG2_E);
        store_rows<D>(place_of(dq, a.q_at, a.lq, from + unit, p.h, dh), (int)a.lq, n - unit, g, factor, dh, wide_out,
                      mine);
    }
    float g[2 * D][4], g2[2 * D][4];
    const own_rows<D> own(key + unit * ROW<D>), own2(value + unit * ROW<D>);
    clear<D>(g);
    clear<D>(g2);
    gradient<D, true>(g, g2, own, own2, query, go, lses, deltas, 0, a.causal ? unit : 0, n, unit, a.causal,
                      scale * LOG2_E);
    store_rows<D>(place_of(dkv, a.k_at, a.lk, from + unit, p.h, dh), (int)a.lk, n - unit, g, factor, dh, wide_out,
                  mine);
    store_rows<D>(place_of(dkv, a.v_at, a.lk, from + unit, p.h, dh), (int)a.lk, n - unit, g2, one, dh, wide_out, mine);
}

/* ---- longer ones ---- */

/* KEYS: dk and dv to `to`, laid out as kv; else dq, laid out as q. */
template <int D, bool KEYS>
static __global__ void __launch_bounds__(LONG_WARPS *WARP, D <= 5 ? 3 : 2)
    back(bf16 *to, const bf16 *dout, const float *lse, const float *delta, struct mode__cuda_attention a, int parts,
         float scale, bool wide, bool wide_out)
{
    extern __shared__ __align__(16) unsigned char shared[];
    const int dh = (int)a.dh, rows = rows_of_block(), unit = (int)threadIdx.y * UNIT;
    const struct work_item p = work_of_block(parts);
    if (p.b >= a.n_seq) return;
    const int32_t *offsets = KEYS ? a.kv_offsets : a.q_offsets, *others = KEYS ? a.q_offsets : a.kv_offsets;
    const int64_t from = offsets[p.b], other_from = others[p.b], q_from = KEYS ? other_from : from;
    const int own_n = (int)(offsets[p.b + 1] - from), other_n = (int)(others[p.b + 1] - other_from);
    const int first = p.part * rows, mine = first + unit;
    if (first >= own_n) return;
    const int n = min(rows, own_n - first);
    const int begin = a.causal && KEYS ? first : 0, end = a.causal && !KEYS ? min(other_n, first + n) : other_n;
    const int my_begin = a.causal && KEYS ? mine : 0, my_end = a.causal && !KEYS ? min(end, mine + UNIT) : end;
    const float factor[2] = {scale, scale};
    const struct side<bf16> q = queries(a, dout, p.h), kv = keys<bf16>(a, p.h), own = KEYS ? kv : q,
                            other = KEYS ? q : kv;
    bf16 *own1 = (bf16 *)shared, *own2 = own1 + rows * ROW<D>, *tile1 = own2 + rows * ROW<D>;
    bf16 *tile2 = tile1 + rows * ROW<D>;
    float *lses = (float *)(tile2 + rows * ROW<D>), *deltas = lses + rows;
    float g[2 * D][4], g2[KEYS ? 2 * D : 1][4];
    clear<D>(g);
    if constexpr (KEYS) clear<D>(g2);
    load_async<D>(own1, own.first + (from + first) * own.ld_first, (int)own.ld_first, n, dh, wide);
    load_async<D>(own2, own.second + (from + first) * own.ld_second, (int)own.ld_second, n, dh, wide);
    for (int tile = begin; tile < end; tile += rows) {
        const int more = min(end - tile, rows), query = KEYS ? tile : first, queries_here = KEYS ? more : n;
        if (tile > begin) __syncthreads();
        load_async<D>(tile1, other.first + (other_from + tile) * other.ld_first, (int)other.ld_first, more, dh, wide);
        load_async<D>(tile2, other.second + (other_from + tile) * other.ld_second, (int)other.ld_second, more, dh,
                      wide);
        for (int i = (int)(threadIdx.y * WARP + threadIdx.x); i < rows; i += rows * 2) {
            const int64_t at = (q_from + query + i) * a.heads + p.h;
            lses[i] = i < queries_here ? lse[at] * LOG2_E : 0;
            deltas[i] = i < queries_here ? delta[at] : 0;
        }
        wait_loads();
        if (mine >= own_n) continue;
        const own_rows<D> mine1(own1 + unit * ROW<D>), mine2(own2 + unit * ROW<D>);
        const int statistic = KEYS ? 0 : unit;
        gradient<D, KEYS>(g, g2, mine1, mine2, tile1, tile2, lses + statistic, deltas + statistic, tile,
                          max(tile, my_begin), min(tile + rows, my_end), mine, a.causal, scale * LOG2_E);
    }
    if (begin >= end) wait_loads(); /* no thread may exit with copies pending */
    if (mine >= own_n) return;
    store_rows<D>(place_of(to, KEYS ? a.k_at : a.q_at, KEYS ? a.lk : a.lq, from + mine, p.h, dh),
                  (int)(KEYS ? a.lk : a.lq), own_n - mine, g, factor, dh, wide_out, own1 + unit * ROW<D>);
    if constexpr (KEYS) {
        const float one[2] = {1, 1};
        store_rows<D>(place_of(to, a.v_at, a.lk, from + mine, p.h, dh), (int)a.lk, own_n - mine, g2, one, dh, wide_out,
                      own1 + unit * ROW<D>);
    }
}

static size_t shared_bytes(int warps, int row, int operands)
{
    return (size_t)warps * UNIT * ((size_t)operands * (size_t)row * sizeof(bf16) + 2 * sizeof(float));
}

static int warps_for(int64_t dh, int most, int operands)
{
    return warps_that_fit(shared_bytes(1, row_of_head(dh), operands), most);
}

bool mode__cuda_attention_is_short(const struct mode__cuda_attention *a)
{
    return a->bf16 && a->q_offsets == a->kv_offsets &&
           a->longest <= UNIT * warps_for(a->dh, SHORT_WARPS, SHORT_OPERANDS);
}

void mode__cuda_attention_back_bf16(cudaStream_t stream, void *dq, void *dkv, const float *delta, const void *dout,
                                    const void *out, const float *lse, const struct mode__cuda_attention *a)
{
    const bf16 *go = (const bf16 *)dout, *y = (const bf16 *)out;
    bool wide = wide_heads<bf16>(a, dout) && wide_rows(0, 1, y);
    bool wide_out = wide_rows(a->q_at | a->k_at | a->v_at | a->lq | a->lk | a->dh, sizeof(bf16), (bf16 *)dq,
                              (bf16 *)dkv);
    if (mode__cuda_attention_is_short(a)) {
        struct partition partition = partition_of(a->longest, SHORT_WARPS);
        BY_UNITS(a->dh, launch_units(stream, back_short<D>, a, partition,
                                     shared_bytes(partition.warps, ROW<D>, SHORT_OPERANDS), (bf16 *)dq, (bf16 *)dkv, go,
                                     y, lse, *a, scale_of(a->dh), wide, wide_out));
        return;
    }
    struct partition partition = partition_of(a->longest, warps_for(a->dh, LONG_WARPS, LONG_OPERANDS));
    BY_UNITS(a->dh,
             launch_units(stream, back<D, false>, a, partition, shared_bytes(partition.warps, ROW<D>, LONG_OPERANDS),
                          (bf16 *)dq, go, lse, delta, *a, partition.parts, scale_of(a->dh), wide, wide_out));
    BY_UNITS(a->dh,
             launch_units(stream, back<D, true>, a, partition, shared_bytes(partition.warps, ROW<D>, LONG_OPERANDS),
                          (bf16 *)dkv, go, lse, delta, *a, partition.parts, scale_of(a->dh), wide, wide_out));
}
