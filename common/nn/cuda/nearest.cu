/* nearest.cu - nearest centres, costs and means of groups. Compiled without contraction to fused multiply-adds: what is
 * decided in double here takes the steps of nn/exact.c and comes to the same bits.
 *
 * How far products of fp16 can be from those of the rows. A row x is h + e, where h is the row in fp16 times a power of
 * two and e what is left, of which halves measures the length; c likewise is g + f, and C, F are the largest |c| and
 * |f|.
 *
 *     |x.c - h.g| = |e.c + h.f| <= |e| |c| + (|x| + |e|) |f| <= |e| (C + F) + |x| F        (Cauchy and Schwarz)
 *
 * Products of fp16 are exact in f32. A tensor core adds m of them to a sum at a time (m is 4 to 16), cuts each addend
 * to the 2^-23rd part of the largest one and the result to f32, towards zero: m + 2 errors of 2^-23 times at most |h|
 * |g| for m products, so 1.5 d 2^-23 |h| |g| or less for d; in any other order of f32 it is less. SUMS(d) allows 2 (d +
 * 16) 2^-23. A rank |c|^2 - 2 x.c is off by twice both; |c|^2 and the difference are rounded to f32 once each, and so
 * is the limit that is made from the smallest rank. Were the nearest centre's rank further above the smallest than two
 * ranks can be off together, then it would not be the nearest. Double's own rounding is a millionth of this. */
#include "nn/cuda/store.cuh"

#include <cuda_fp16.h>

enum { THREADS = 256, ROWS = THREADS / WARP };

static __device__ inline float widen(__half x)
{
    return __half2float(x);
}

static __device__ inline void narrow(__half *to, float x)
{
    *to = __float2half_rn(x);
}

static __global__ void row_squares(float *squares, const float *x, int64_t m, int64_t d)
{
    int64_t i = (int64_t)blockIdx.x * ROWS + threadIdx.y;
    if (i >= m) return;
    double s = 0;
    for (int64_t j = threadIdx.x; j < d; j += WARP) s += (double)x[i * d + j] * x[i * d + j];
    s = warp_sum(s);
    if (threadIdx.x == 0) squares[i] = (float)s;
}

void mode__cuda_row_squares(cudaStream_t stream, float *squares, const float *x, int64_t m, int64_t d)
{
    row_squares<<<blocks_of(m, ROWS), dim3(WARP, ROWS), 0, stream>>>(squares, x, m, d);
}

static __global__ void costs(float *dot, const float *x_sq, const float *c_sq, int64_t count, int64_t k)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    float v = x_sq ? x_sq[i / k] + c_sq[i % k] - 2 * dot[i] : 1 - dot[i];
    dot[i] = v > 0 ? v : 0; /* rounding can take an exact hit below zero */
}

void mode__cuda_costs(cudaStream_t stream, float *dot, const float *x_sq, const float *c_sq, int64_t n, int64_t k)
{
    costs<<<blocks_of(n * k, THREADS), THREADS, 0, stream>>>(dot, x_sq, c_sq, n * k, k);
}

static __device__ inline float power_of_two(int exponent)
{
    return __uint_as_float((unsigned)(exponent + 127) << 23);
}

/* One warp a row. Its largest number comes to lie between 2^14 and 2^15; lengths are rounded up. */
template <int V>
static __global__ void halves(__half *h, struct mode__cuda_halved *of, const float *x, int64_t m, int64_t d,
                              int64_t wide)
{
    int64_t i = (int64_t)blockIdx.x * ROWS + threadIdx.y;
    if (i >= m) return;
    const float *row = x + i * d;
    float most = 0, size = 0, off = 0, v[V];
    for (int64_t j = threadIdx.x * V; j < d; j += WARP * V) {
        load<V>(v, row + j);
        for (int t = 0; t < V; t++) most = fmaxf(most, fabsf(v[t]));
    }
    most = warp_max(most);
    int up = 141 - (int)(__float_as_uint(most) >> 23);
    up = most == 0 ? 0 : up > 126 ? 126 : up;
    const float scale = power_of_two(up), back = power_of_two(-up);
    for (int64_t j = threadIdx.x * V; j < wide; j += WARP * V) {
        for (int t = 0; t < V; t++) v[t] = 0;
        if (j < d) load<V>(v, row + j);
        for (int t = 0; t < V; t++) {
            v[t] *= scale;
            float left = v[t] - stored<__half>(v[t]);
            size += v[t] * v[t];
            off += left * left;
        }
        store<V>(h + i * wide + j, v);
    }
    size = warp_sum(size);
    off = warp_sum(off);
    if (threadIdx.x == 0) of[i] = {back, 1.01f * sqrtf(size) * back, 1.01f * sqrtf(off) * back};
}

void mode__cuda_halves(cudaStream_t stream, void *h, struct mode__cuda_halved *of, const float *x, int64_t m, int64_t d)
{
    using T = float;
    const int64_t wide = mode__cuda_halves_width(d);
    __half *to = (__half *)h;
    BY_WIDTH(wide_rows(d, sizeof(T), x),
             halves<V><<<blocks_of(m, ROWS), dim3(WARP, ROWS), 0, stream>>>(to, of, x, m, d, wide));
}

/* One block. */
static __global__ void halved_centres(struct mode__cuda_centres c, const struct mode__cuda_halved *of, int64_t k,
                                      bool cosine)
{
    float size = 0, off = 0;
    for (int64_t i = threadIdx.x; i < k; i += THREADS) {
        c.times[i] = cosine ? of[i].back : 2 * of[i].back;
        if (cosine) c.plus[i] = 0;
        size = fmaxf(size, of[i].size);
        off = fmaxf(off, of[i].off);
    }
    size = block_max(size);
    off = block_max(off);
    if (threadIdx.x > 0) return;
    c.most[0] = size;
    c.most[1] = off;
}

void mode__cuda_halved_centres(cudaStream_t stream, const struct mode__cuda_centres *c,
                               const struct mode__cuda_halved *of, const float *centres, int64_t k, int64_t d,
                               bool cosine)
{
    if (!cosine) mode__cuda_row_squares(stream, c->plus, centres, k, d);
    halved_centres<<<1, THREADS, 0, stream>>>(*c, of, k, cosine);
}

/* Two ranks of row x can be off by less than this together; derived above. */
static __device__ inline float margin_of(const struct mode__cuda_nearest &a, const struct mode__cuda_halved &x)
{
    const float most = a.centres.most[0], off = a.centres.most[1], sums = (float)(a.d + 16) * 0x1p-22f, u = 0x1p-24f;
    const float size = x.size + x.off, dot = x.off * (most + off) + x.size * off + size * (most + off) * sums;
    return 2.01f * (a.cosine ? dot + 4 * u * size * most : 2 * dot + 4 * u * (2 * size * most + most * most)) + 1e-36f;
}

/* A row's smallest rank, whose it is, and the next one. */
struct least {
    float rank, next;
    int32_t at;
};

static __device__ inline void take(struct least *l, float rank, int64_t k)
{
    if (rank < l->rank || l->at < 0) {
        l->next = l->rank;
        l->rank = rank;
        l->at = (int32_t)k;
    } else if (rank < l->next) {
        l->next = rank;
    }
}

/* The warp's of each lane's. */
static __device__ inline struct least joined(struct least l)
{
    for (int m = WARP / 2; m; m /= 2) {
        float other = __shfl_xor_sync(ALL_LANES, l.rank, m), other_next = __shfl_xor_sync(ALL_LANES, l.next, m);
        int32_t other_at = __shfl_xor_sync(ALL_LANES, l.at, m);
        bool take = other_at >= 0 && (l.at < 0 || other < l.rank || (other == l.rank && other_at < l.at));
        float loser = take ? l.rank : other;
        l.next = l.next < other_next ? l.next : other_next;
        l.next = loser < l.next ? loser : l.next;
        if (take) {
            l.rank = other;
            l.at = other_at;
        }
    }
    return l;
}

/* By the whole warp, in the order of nn/exact.c. */
static __device__ inline double exact_cost(const struct mode__cuda_nearest &a, const float *x, int64_t k)
{
    const float *c = a.c + k * a.d;
    double s = 0;
    if (a.cosine) {
#pragma unroll 4
        for (int64_t j = threadIdx.x; j < a.d; j += WARP) s += (double)x[j] * c[j];
        return 1 - warp_sum(s);
    }
#pragma unroll 4
    for (int64_t j = threadIdx.x; j < a.d; j += WARP) {
        double t = (double)x[j] - c[j];
        s += t * t;
    }
    return warp_sum(s);
}

/* One warp a row. The smallest rank and the next one stay in registers; where these two are further apart than two
 * ranks can be off, the first has won, else every centre within that distance is measured in double, one after another.
 */
template <int V> static __global__ void nearest(int32_t *id, float *distance, struct mode__cuda_nearest a)
{
    int64_t i = (int64_t)blockIdx.x * ROWS + threadIdx.y;
    const int lane = threadIdx.x;
    if (i >= a.n) return;
    const float *dot = a.dot + i * a.k, *x = a.x + i * a.d, *plus = a.centres.plus, *times = a.centres.times;
    const float back = a.x_of[i].back;
    struct least l = {INFINITY, INFINITY, -1};
    for (int64_t k = lane * V; k < a.k; k += WARP * V) {
        float p[V], t[V], v[V];
        load<V>(v, dot + k);
        load<V>(p, plus + k);
        load<V>(t, times + k);
        for (int j = 0; j < V; j++) take(&l, p[j] - back * t[j] * v[j], k + j);
    }
    l = joined(l);
    float limit = l.rank + margin_of(a, a.x_of[i]);
    if (!(fabsf(limit) < INFINITY)) limit = INFINITY; /* sums that overflow say nothing */
    double best = INFINITY;
    int32_t at = -1;
    if (l.next > limit) {
        at = l.at;
        if (distance) best = exact_cost(a, x, at);
    } else {
        for (int64_t first = 0; first < a.k; first += WARP) {
            int64_t k = first + lane;
            unsigned near = __ballot_sync(ALL_LANES, k < a.k && !(plus[k] - back * times[k] * dot[k] > limit));
            for (; near; near &= near - 1) {
                int64_t who = first + __ffs((int)near) - 1;
                double cost = exact_cost(a, x, who);
                if (at >= 0 && !(cost < best)) continue;
                best = cost;
                at = (int32_t)who;
            }
        }
    }
    if (lane) return;
    id[i] = at;
    if (distance) distance[i] = best > 0 ? (float)(a.cosine ? best : sqrt(best)) : 0;
}

void mode__cuda_nearest(cudaStream_t stream, int32_t *id, float *distance, const struct mode__cuda_nearest *a)
{
    using T = float;
    BY_WIDTH(wide_rows(a->k, sizeof(T), a->dot, a->centres.plus, a->centres.times),
             nearest<V><<<blocks_of(a->n, ROWS), dim3(WARP, ROWS), 0, stream>>>(id, distance, *a));
}

/* Thread: a place among the sorted rows, or behind them; groups that begin there begin where the one before has ended.
 */
static __global__ void group_edges(int32_t *first, int32_t *members, const unsigned long long *keys, int64_t n,
                                   int64_t k)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i > n) return;
    int64_t before = i > 0 ? (int64_t)(keys[i - 1] >> 32) : -1, here = i < n ? (int64_t)(keys[i] >> 32) : k;
    for (int64_t group = before + 1; group <= here; group++) first[group] = (int32_t)i;
    if (i < n) members[i] = (int32_t)keys[i];
}

void mode__cuda_group_rows(cudaStream_t stream, int32_t *first, int32_t *members, void *keys, const int32_t *id,
                           int64_t n, int64_t k)
{
    const unsigned long long *sorted = (const unsigned long long *)keys;
    mode__cuda_sorted(stream, keys, id, n);
    group_edges<<<blocks_of(n + 1, THREADS), THREADS, 0, stream>>>(first, members, sorted, n, k);
}

enum { PIECE = MODE__CUDA_PIECE_ROWS };

/* Pieces of a group's rows have places of their own, the groups' one behind another: a group of s rows has s / PIECE +
 * 1 places, of which it may leave the last one empty. */
static __device__ inline int64_t place_of(const int32_t *first, int64_t group)
{
    return first[group] / PIECE + group;
}

/* Block: a piece, added up from 0 on in the order of its rows; a thread takes V columns at a time. */
template <int V>
static __global__ void piece_sums(double *sum, const float *x, const int32_t *first, const int32_t *members,
                                  int64_t groups, int64_t d)
{
    __shared__ int32_t row[PIECE];
    int64_t low = 0, high = groups - 1; /* the last group whose places begin here or before */
    while (low < high) {
        int64_t mid = (low + high + 1) / 2;
        if (place_of(first, mid) <= blockIdx.x)
            low = mid;
        else
            high = mid - 1;
    }
    int64_t begin = first[low] + (blockIdx.x - place_of(first, low)) * PIECE, left = first[low + 1] - begin;
    int rows = left < PIECE ? (int)left : (int)PIECE;
    if (rows <= 0) return;
    if ((int)threadIdx.x < rows) row[threadIdx.x] = members[begin + threadIdx.x];
    __syncthreads();
    for (int64_t j = threadIdx.x * V; j < d; j += THREADS * V) {
        double s[V];
        for (int v = 0; v < V; v++) s[v] = 0;
#pragma unroll 8
        for (int i = 0; i < rows; i++) {
            float a[V];
            load<V>(a, x + row[i] * d + j);
            for (int v = 0; v < V; v++) s[v] += a[v];
        }
        for (int v = 0; v < V; v++) sum[blockIdx.x * d + j + v] = s[v];
    }
}

/* Block: a group. Its pieces in their order, at the place of the first one. */
static __global__ void finish_means(float *means, double *sum, const int32_t *first, int64_t d, bool unit)
{
    __shared__ double scale;
    const int64_t group = blockIdx.x, rows = first[group + 1] - first[group], pieces = (rows + PIECE - 1) / PIECE;
    double *total = sum + place_of(first, group) * d;
    if (rows == 0) return;
    for (int64_t j = threadIdx.x; j < d; j += THREADS) {
        double s = 0;
#pragma unroll 8
        for (int64_t p = 0; p < pieces; p++) s += total[p * d + j];
        total[j] = s;
    }
    __syncthreads();
    if (threadIdx.x < WARP) {
        double s = 0;
        for (int64_t j = threadIdx.x; unit && j < d; j += WARP) s += total[j] * total[j];
        s = warp_sum(s);
        if (threadIdx.x == 0) scale = !unit ? 1.0 / (double)rows : s > 1e-24 ? 1 / sqrt(s) : 0;
    }
    __syncthreads();
    if (scale == 0) return; /* rows that cancel have no direction */
    for (int64_t j = threadIdx.x; j < d; j += THREADS) means[group * d + j] = (float)(total[j] * scale);
}

void mode__cuda_group_means(cudaStream_t stream, float *means, double *sum, const float *x, const int32_t *first,
                            const int32_t *members, int64_t groups, int64_t n, int64_t d, bool unit)
{
    using T = float;
    const unsigned places = (unsigned)mode__cuda_mean_places(groups, n);
    BY_WIDTH(wide_rows(d, sizeof(T), x),
             piece_sums<V><<<places, THREADS, 0, stream>>>(sum, x, first, members, groups, d));
    finish_means<<<(unsigned)groups, THREADS, 0, stream>>>(means, sum, first, d, unit);
}
