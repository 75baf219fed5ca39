/* nearest.cu - rows in fp16, nearest centres, costs. Compiled without FMA contraction: the arithmetic in double takes
 * the steps of nn/exact.c and is bit-identical to it. */
#include "nn/cuda/nearest.cuh"
#include "nn/cuda/store.cuh"

enum { THREADS = 256, ROWS = THREADS / WARP };

static __device__ inline float widen(__half x)
{
    return __half2float(x);
}

static __device__ inline void narrow(__half *to, float x)
{
    *to = __float2half_rn(x);
}

static __device__ inline uint32_t narrow_pair(const __half *, float x, float y)
{
    const __half2 pair = __floats2half2_rn(x, y);
    return *(const uint32_t *)&pair;
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
    dot[i] = v > 0 ? v : 0; /* rounding can make a zero distance negative */
}

void mode__cuda_costs(cudaStream_t stream, float *dot, const float *x_sq, const float *c_sq, int64_t n, int64_t k)
{
    costs<<<blocks_of(n * k, THREADS), THREADS, 0, stream>>>(dot, x_sq, c_sq, n * k, k);
}

static __device__ inline float power_of_two(int exponent)
{
    return __uint_as_float((unsigned)(exponent + 127) << 23);
}

static __global__ void largest_parts(float *largest, const float *x, int64_t n)
{
    float most = 0;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += (int64_t)MODE__CUDA_PARTS * THREADS)
        most = fmaxf(most, fabsf(x[i]));
    most = block_max(most);
    if (threadIdx.x == 0) largest[blockIdx.x] = most;
}

void mode__cuda_largest(cudaStream_t stream, float *largest, const float *x, int64_t n)
{
    largest_parts<<<MODE__CUDA_PARTS, THREADS, 0, stream>>>(largest, x, n);
}

/* Offset of column j of row i. */
template <bool TILES> static __device__ inline int64_t place_of(int64_t i, int64_t j, int64_t wide)
{
    if (!TILES) return i * wide + j;
    const int64_t tile = i / MODE__CUDA_TILE_ROWS * (wide / 64) + j / 64, row = i % MODE__CUDA_TILE_ROWS;
    return (tile * MODE__CUDA_TILE_ROWS + row) * 64 + ((j % 64 / 8) ^ (row % 8)) * 8 + j % 8;
}

/* A warp per row, scaled so that its amax, or that of all rows, is between 2^14 and 2^15; norms are rounded up. */
template <int V, bool TILES>
static __global__ void halves(__half *h, struct mode__cuda_halved *of, const float *x, int64_t m, int64_t rows,
                              int64_t d, int64_t wide, const float *largest)
{
    int64_t i = (int64_t)blockIdx.x * ROWS + threadIdx.y;
    if (i >= rows) return;
    const float *row = x + i * d;
    const int64_t end = i < m ? d : 0;
    float most = 0, size = 0, off = 0, v[V];
    for (int64_t j = threadIdx.x * V; j < end && !largest; j += WARP * V) {
        load<V>(v, row + j);
        for (int t = 0; t < V; t++) most = fmaxf(most, fabsf(v[t]));
    }
    for (int t = threadIdx.x; t < MODE__CUDA_PARTS && largest; t += WARP) most = fmaxf(most, largest[t]);
    most = warp_max(most);
    int up = 141 - (int)(__float_as_uint(most) >> 23);
    up = most == 0 ? 0 : up > 126 ? 126 : up;
    const float scale = power_of_two(up), back = power_of_two(-up);
    for (int64_t j = threadIdx.x * V; j < wide; j += WARP * V) {
        for (int t = 0; t < V; t++) v[t] = 0;
        if (j < end) load<V>(v, row + j);
        for (int t = 0; t < V; t++) {
            v[t] *= scale;
            float left = v[t] - stored<__half>(v[t]);
            size += v[t] * v[t];
            off += left * left;
        }
        store<V>(h + place_of<TILES>(i, j, wide), v);
    }
    size = warp_sum(size);
    off = warp_sum(off);
    if (threadIdx.x == 0 && i < m) of[i] = {back, 1.01f * sqrtf(size) * back, 1.01f * sqrtf(off) * back};
}

void mode__cuda_halves(cudaStream_t stream, void *h, struct mode__cuda_halved *of, const float *x, int64_t m, int64_t d,
                       const float *largest, bool tiles)
{
    using T = float;
    const int64_t wide = mode__cuda_halves_width(d, tiles), rows = mode__cuda_halves_rows(m, tiles);
    const unsigned blocks = blocks_of(rows, ROWS);
    __half *to = (__half *)h;
    if (tiles)
        BY_WIDTH(wide_rows(d, sizeof(T), x),
                 halves<V, true><<<blocks, dim3(WARP, ROWS), 0, stream>>>(to, of, x, m, rows, d, wide, largest));
    else
        BY_WIDTH(wide_rows(d, sizeof(T), x),
                 halves<V, false><<<blocks, dim3(WARP, ROWS), 0, stream>>>(to, of, x, m, rows, d, wide, largest));
}

/* One block. */
static __global__ void halved_centres(struct mode__cuda_centres c, const struct mode__cuda_halved *of, int64_t k,
                                      int64_t padded, bool cosine)
{
    float size = 0, off = 0;
    for (int64_t i = threadIdx.x; i < padded; i += THREADS) {
        if (cosine || i >= k) c.plus[i] = i < k ? 0 : INFINITY;
        if (i >= k) continue;
        size = fmaxf(size, of[i].size);
        off = fmaxf(off, of[i].off);
    }
    size = block_max(size);
    off = block_max(off);
    if (threadIdx.x > 0) return;
    c.most[0] = size;
    c.most[1] = off;
    c.most[2] = cosine ? of[0].back : 2 * of[0].back;
}

void mode__cuda_halved_centres(cudaStream_t stream, const struct mode__cuda_centres *c,
                               const struct mode__cuda_halved *of, const float *centres, int64_t k, int64_t d,
                               bool cosine)
{
    const int64_t padded = ceil_div(k, MODE__CUDA_CENTRE_PADDING) * MODE__CUDA_CENTRE_PADDING;
    if (!cosine) mode__cuda_row_squares(stream, c->plus, centres, k, d);
    halved_centres<<<1, THREADS, 0, stream>>>(*c, of, k, padded, cosine);
}

/* The smallest and the second smallest rank of a row, and the centre of the smallest. */
struct best_two {
    float rank, next;
    int32_t at;
};

static __device__ inline void insert(struct best_two *l, float rank, int64_t k)
{
    if (rank < l->rank || l->at < 0) {
        l->next = l->rank;
        l->rank = rank;
        l->at = (int32_t)k;
    } else if (rank < l->next) {
        l->next = rank;
    }
}

/* Reduces the lanes' to the warp's. */
static __device__ inline struct best_two warp_merge(struct best_two l)
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

/* By a whole warp, in the order of nn/exact.c. */
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

static __device__ inline float distance_of(double cost, bool cosine)
{
    return cost > 0 ? (float)(cosine ? cost : sqrt(cost)) : 0;
}

/* A warp per row. If the two smallest ranks are further apart than the margin, the first has won; else every centre
 * within the margin is compared exactly, in double, one after another. */
template <int V> static __global__ void nearest(int32_t *id, float *distance, struct mode__cuda_nearest a)
{
    int64_t i = (int64_t)blockIdx.x * ROWS + threadIdx.y;
    const int lane = threadIdx.x;
    if (i >= a.n) return;
    const float *dot = a.dot + i * a.k, *x = a.x + i * a.d, *plus = a.centres.plus;
    const float times = a.x_of[i].back * a.centres.most[2];
    struct best_two l = {INFINITY, INFINITY, -1};
    for (int64_t k = lane * V; k < a.k; k += WARP * V) {
        float p[V], v[V];
        load<V>(v, dot + k);
        load<V>(p, plus + k);
        for (int j = 0; j < V; j++) insert(&l, p[j] - times * v[j], k + j);
    }
    l = warp_merge(l);
    const float limit = limit_of(l.rank, margin_of(a.centres, a.x_of[i], a.d, a.cosine));
    double best = INFINITY;
    int32_t at = -1;
    if (l.next > limit) {
        at = l.at;
        if (distance) best = exact_cost(a, x, at);
    } else {
        for (int64_t first = 0; first < a.k; first += WARP) {
            int64_t k = first + lane;
            unsigned near = __ballot_sync(ALL_LANES, k < a.k && !(plus[k] - times * dot[k] > limit));
            for (; near; near &= near - 1) {
                int64_t centre = first + __ffs((int)near) - 1;
                double cost = exact_cost(a, x, centre);
                if (at >= 0 && !(cost < best)) continue;
                best = cost;
                at = (int32_t)centre;
            }
        }
    }
    if (lane) return;
    id[i] = at;
    if (distance) distance[i] = distance_of(best, a.cosine);
}

void mode__cuda_nearest(cudaStream_t stream, int32_t *id, float *distance, const struct mode__cuda_nearest *a)
{
    using T = float;
    BY_WIDTH(wide_rows(a->k, sizeof(T), a->dot, a->centres.plus),
             nearest<V><<<blocks_of(a->n, ROWS), dim3(WARP, ROWS), 0, stream>>>(id, distance, *a));
}

/* By a whole warp. state: as nearest_hopper.cu leaves it. */
static __device__ inline void measure_row(int32_t *id, float *distance, const int32_t *candidates, int32_t state,
                                          const struct mode__cuda_nearest &a, int64_t i)
{
    const bool any = state == MODE__CUDA_ANY_CENTRE;
    const int64_t n = any ? a.k : state < 0 ? -state : 1;
    double best = INFINITY;
    int32_t at = -1;
    for (int64_t j = 0; j < n; j++) {
        const int32_t centre = any ? (int32_t)j : state < 0 ? candidates[i * MODE__CUDA_CANDIDATES + j] : state;
        const double cost = exact_cost(a, a.x + i * a.d, centre);
        if (at >= 0 && !(cost < best || (cost == best && centre < at))) continue;
        best = cost;
        at = centre;
    }
    if (threadIdx.x > 0) return;
    id[i] = at;
    if (distance) distance[i] = distance_of(best, a.cosine);
}

/* Block: THREADS rows. Those that need an exact comparison are compacted, in order, and distributed over the warps. */
static __global__ void measured(int32_t *id, float *distance, const int32_t *candidates, struct mode__cuda_nearest a)
{
    __shared__ int32_t state[THREADS];
    __shared__ int32_t row[THREADS];
    __shared__ int32_t before[ROWS];
    const int lane = threadIdx.x, warp = threadIdx.y, t = warp * WARP + lane;
    const int64_t first = (int64_t)blockIdx.x * THREADS;
    const bool here = first + t < a.n;
    state[t] = here ? id[first + t] : 0;
    const bool open = here && (distance || state[t] < 0);
    const unsigned all = __ballot_sync(ALL_LANES, open);
    if (lane == 0) before[warp] = __popc(all);
    __syncthreads();
    int at = __popc(all & ((1u << lane) - 1)), n = 0;
    for (int w = 0; w < ROWS; w++) {
        if (w < warp) at += before[w];
        n += before[w];
    }
    if (open) row[at] = t;
    __syncthreads();
    for (int j = warp; j < n; j += ROWS) measure_row(id, distance, candidates, state[row[j]], a, first + row[j]);
}

void mode__cuda_measured(cudaStream_t stream, int32_t *id, float *distance, const int32_t *candidates,
                         const struct mode__cuda_nearest *a)
{
    measured<<<blocks_of(a->n, THREADS), dim3(WARP, ROWS), 0, stream>>>(id, distance, candidates, *a);
}
