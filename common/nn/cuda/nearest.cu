/* nearest.cu - nearest centres, costs and means of groups. Compiled without contraction to fused multiply-adds: what is
 * decided in double here takes the steps of nn/exact.c and comes to the same bits. */
#include "nn/cuda/block.cuh"

enum { THREADS = 256, ROWS = THREADS / WARP };

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

/* What differs between the centres of a row: |c|^2 - 2 x.c, or -x.c. */
static __device__ inline float rank_of(const struct mode__cuda_nearest &a, const float *dot, int64_t k)
{
    return a.cosine ? -dot[k] : a.c_sq[k] - 2 * dot[k];
}

static __device__ inline double exact_cost(const struct mode__cuda_nearest &a, const float *x, const float *c)
{
    double s = 0;
    if (a.cosine) {
        for (int64_t j = 0; j < a.d; j++) s += (double)x[j] * c[j];
        return 1 - s;
    }
    for (int64_t j = 0; j < a.d; j++) {
        double t = (double)x[j] - c[j];
        s += t * t;
    }
    return s;
}

struct choice {
    double cost;
    int32_t id; /* -1: none yet */
};

static __device__ inline bool better(struct choice a, struct choice b)
{
    return a.id >= 0 && (b.id < 0 || a.cost < b.cost || (a.cost == b.cost && a.id < b.id));
}

/* One warp a row. The smallest rank and the next one stay in registers; where these two are further apart than the
 * products can be off, the first has won, else every centre within that distance is measured in double, each by one lane
 * from the first column to the last. */
static __global__ void nearest(int32_t *id, float *distance, struct mode__cuda_nearest a)
{
    int64_t i = (int64_t)blockIdx.x * ROWS + threadIdx.y;
    int lane = threadIdx.x;
    if (i >= a.n) return;
    const float *dot = a.dot + i * a.k, *x = a.x + i * a.d;
    float least = INFINITY, next = INFINITY, c_max = 0;
    int32_t at = -1;
    for (int64_t k = lane; k < a.k; k += WARP) {
        float r = rank_of(a, dot, k);
        c_max = a.c_sq[k] > c_max ? a.c_sq[k] : c_max;
        if (r < least || at < 0) {
            next = least;
            least = r;
            at = (int32_t)k;
        } else if (r < next) {
            next = r;
        }
    }
    for (int m = WARP / 2; m; m /= 2) {
        float other = __shfl_xor_sync(ALL_LANES, least, m), other_next = __shfl_xor_sync(ALL_LANES, next, m);
        int32_t other_at = __shfl_xor_sync(ALL_LANES, at, m);
        bool take = other_at >= 0 && (at < 0 || other < least || (other == least && other_at < at));
        float loser = take ? least : other;
        next = next < other_next ? next : other_next;
        next = loser < next ? loser : next;
        if (take) {
            least = other;
            at = other_at;
        }
    }
    float size = sqrtf(a.x_sq[i]) + sqrtf(warp_max(c_max));
    float limit = least + size * size * a.margin;
    struct choice best = {INFINITY, -1};
    if (next > limit) {
        if (lane == 0) best = {distance ? exact_cost(a, x, a.c + (int64_t)at * a.d) : 0, at};
    } else {
        for (int64_t k = lane; k < a.k; k += WARP) {
            if (rank_of(a, dot, k) > limit) continue;
            struct choice c = {exact_cost(a, x, a.c + k * a.d), (int32_t)k};
            if (better(c, best)) best = c;
        }
        for (int m = WARP / 2; m; m /= 2) {
            struct choice c = {__shfl_xor_sync(ALL_LANES, best.cost, m), __shfl_xor_sync(ALL_LANES, best.id, m)};
            if (better(c, best)) best = c;
        }
    }
    if (lane) return;
    id[i] = best.id;
    if (distance) distance[i] = best.cost > 0 ? (float)(a.cosine ? best.cost : sqrt(best.cost)) : 0;
}

void mode__cuda_nearest(cudaStream_t stream, int32_t *id, float *distance, const struct mode__cuda_nearest *a)
{
    nearest<<<blocks_of(a->n, ROWS), dim3(WARP, ROWS), 0, stream>>>(id, distance, *a);
}

/* One thread a column of a group: its rows in their order. */
static __global__ void group_sums(double *sum, const float *x, const int32_t *first, const int32_t *members, int64_t d)
{
    int64_t group = blockIdx.y, j = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= d) return;
    double s = 0;
    for (int32_t i = first[group]; i < first[group + 1]; i++) s += x[members[i] * d + j];
    sum[group * d + j] = s;
}

static __global__ void finish_means(float *means, const double *sum, const int32_t *first, int64_t d, bool unit)
{
    __shared__ double scale;
    int64_t group = blockIdx.x;
    int32_t rows = first[group + 1] - first[group];
    if (rows == 0) return;
    if (threadIdx.x == 0) {
        double s = 0;
        for (int64_t j = 0; unit && j < d; j++) s += sum[group * d + j] * sum[group * d + j];
        scale = !unit ? 1.0 / (double)rows : s > 1e-24 ? 1 / sqrt(s) : 0;
    }
    __syncthreads();
    if (scale == 0) return; /* rows that cancel have no direction */
    for (int64_t j = threadIdx.x; j < d; j += blockDim.x) means[group * d + j] = (float)(sum[group * d + j] * scale);
}

void mode__cuda_group_means(cudaStream_t stream, float *means, double *sum, const float *x, const int32_t *first,
                            const int32_t *members, int64_t groups, int64_t d, bool unit)
{
    const int64_t most = 65535; /* blocks in y */
    for (int64_t g = 0; g < groups; g += most) {
        unsigned some = (unsigned)(groups - g < most ? groups - g : most);
        group_sums<<<dim3(blocks_of(d, THREADS), some), THREADS, 0, stream>>>(sum + g * d, x, first + g, members, d);
        finish_means<<<some, THREADS, 0, stream>>>(means + g * d, sum + g * d, first + g, d, unit);
    }
}
