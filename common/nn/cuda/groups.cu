/* groups.cu - sorting rows by group, and group means. Compiled without FMA contraction, like nearest.cu.
 *
 * DESIGN: a stable counting sort. A warp builds a histogram of a chunk of rows in shared memory, 32 rows at a time:
 * lanes whose rows have the same group (match_any) do one addition, by the first of them. A prefix sum over the chunks'
 * histograms gives each chunk's offset in each group, and in a second pass over their rows the warps scatter them
 * there. More groups than fit in shared memory are sorted by comparison (embed.cu). */
#include "nn/cuda/store.cuh"

enum { THREADS = 256, MOST_GROUPS = 8192, CHUNK = 1024, CHUNKS = 1024, SLICES = 8, AHEAD = 8, STRIDE = 32 * AHEAD };

/* Rows per chunk, a multiple of what a warp loads at a time; more than CHUNK if there would be more than CHUNKS of
 * them. */
static int64_t chunk_of(int64_t n)
{
    const int64_t least = ceil_div(ceil_div(n, CHUNKS), STRIDE) * STRIDE;
    return least > CHUNK ? least : (int64_t)CHUNK;
}

static int64_t chunks_of(int64_t n)
{
    return n > 0 ? ceil_div(n, chunk_of(n)) : 1;
}

size_t mode__cuda_group_bytes(int64_t n, int64_t k)
{
    return k > MOST_GROUPS ? mode__cuda_sorted_bytes(n) : (size_t)((chunks_of(n) + 1) * k) * sizeof(int32_t);
}

/* By one warp, over rows first .. end - 1: counters [groups], in shared memory, grow by each group's rows. With
 * members, row i is stored at its group's counter before the increment. */
static __device__ inline void scan_chunk(int32_t *counters, int32_t *members, const int32_t *id, int64_t first,
                                         int64_t end)
{
    const int lane = threadIdx.x;
    for (int64_t i = first + lane; i - lane < end; i += STRIDE) {
        int32_t group[AHEAD];
#pragma unroll
        for (int j = 0; j < AHEAD; j++) group[j] = i + j * WARP < end ? id[i + j * WARP] : -1;
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            const unsigned same = __match_any_sync(ALL_LANES, group[j]), before = same & ((1u << lane) - 1);
            const bool here = group[j] >= 0;
            if (here && members) members[counters[group[j]] + __popc(before)] = (int32_t)(i + j * WARP);
            __syncwarp();
            if (here && before == 0) counters[group[j]] += __popc(same);
            __syncwarp();
        }
    }
}

/* Block: one warp per chunk. counts [chunks, k] */
static __global__ void count_chunks(int32_t *counts, const int32_t *id, int64_t n, int64_t k, int64_t chunk)
{
    extern __shared__ int32_t counters[];
    const int64_t first = blockIdx.x * chunk, end = first + chunk < n ? first + chunk : n;
    for (int64_t j = threadIdx.x; j < k; j += WARP) counters[j] = 0;
    __syncwarp();
    scan_chunk(counters, nullptr, id, first, end);
    for (int64_t j = threadIdx.x; j < k; j += WARP) counts[blockIdx.x * k + j] = counters[j];
}

/* Exclusive prefix sum of counts over chunks, per group; row `chunks` of counts gets the total. Block: 32 groups,
 * SLICES threads each. */
static __global__ void scan_counts(int32_t *counts, int64_t chunks, int64_t k)
{
    __shared__ int32_t part[SLICES][WARP];
    const int64_t group = (int64_t)blockIdx.x * WARP + threadIdx.x, slice = (chunks + SLICES - 1) / SLICES;
    const int64_t first = threadIdx.y * slice, end = first + slice < chunks ? first + slice : chunks;
    int32_t sum = 0;
    if (group < k)
#pragma unroll 8
        for (int64_t c = first; c < end; c++) sum += counts[c * k + group];
    part[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (group >= k) return;
    sum = 0;
    for (int s = 0; s < (int)threadIdx.y; s++) sum += part[s][threadIdx.x];
#pragma unroll 8
    for (int64_t c = first; c < end; c++) {
        const int32_t here = counts[c * k + group];
        counts[c * k + group] = sum;
        sum += here;
    }
    if (threadIdx.y == SLICES - 1) counts[chunks * k + group] = sum;
}

/* One block. first [k + 1]: exclusive prefix sum of the group sizes */
static __global__ void group_starts(int32_t *first, const int32_t *sizes, int64_t k)
{
    __shared__ int32_t part[THREADS];
    const int64_t own = (k + THREADS - 1) / THREADS, from = threadIdx.x * own, end = from + own < k ? from + own : k;
    int32_t sum = 0;
    for (int64_t j = from; j < end; j++) sum += sizes[j];
    part[threadIdx.x] = sum;
    __syncthreads();
    for (int step = 1; step < THREADS; step *= 2) {
        const int32_t below = (int)threadIdx.x >= step ? part[threadIdx.x - step] : 0;
        __syncthreads();
        part[threadIdx.x] += below;
        __syncthreads();
    }
    sum = part[threadIdx.x] - sum;
    for (int64_t j = from; j < end; j++) {
        first[j] = sum;
        sum += sizes[j];
    }
    if (threadIdx.x == THREADS - 1) first[k] = part[threadIdx.x];
}

/* Block: one warp per chunk. */
static __global__ void place_rows(int32_t *members, const int32_t *first, const int32_t *before, const int32_t *id,
                                  int64_t n, int64_t k, int64_t chunk)
{
    extern __shared__ int32_t counters[];
    const int64_t from = blockIdx.x * chunk, end = from + chunk < n ? from + chunk : n;
    for (int64_t j = threadIdx.x; j < k; j += WARP) counters[j] = first[j] + before[blockIdx.x * k + j];
    __syncwarp();
    scan_chunk(counters, members, id, from, end);
}

/* Thread: a position in the sorted rows, or past the end; groups that begin there begin where the previous one ends. */
static __global__ void group_edges(int32_t *first, int32_t *members, const unsigned long long *keys, int64_t n,
                                   int64_t k)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i > n) return;
    int64_t before = i > 0 ? (int64_t)(keys[i - 1] >> 32) : -1, here = i < n ? (int64_t)(keys[i] >> 32) : k;
    for (int64_t group = before + 1; group <= here; group++) first[group] = (int32_t)i;
    if (i < n) members[i] = (int32_t)keys[i];
}

void mode__cuda_group_rows(cudaStream_t stream, int32_t *first, int32_t *members, void *work, const int32_t *id,
                           int64_t n, int64_t k)
{
    const unsigned long long *sorted = (const unsigned long long *)work;
    const int64_t chunk = chunk_of(n), chunks = chunks_of(n);
    const size_t bytes = (size_t)k * sizeof(int32_t);
    int32_t *counts = (int32_t *)work;
    if (k > MOST_GROUPS) {
        mode__cuda_sorted(stream, work, id, n);
        group_edges<<<blocks_of(n + 1, THREADS), THREADS, 0, stream>>>(first, members, sorted, n, k);
        return;
    }
    count_chunks<<<(unsigned)chunks, WARP, bytes, stream>>>(counts, id, n, k, chunk);
    scan_counts<<<blocks_of(k, WARP), dim3(WARP, SLICES), 0, stream>>>(counts, chunks, k);
    group_starts<<<1, THREADS, 0, stream>>>(first, counts + chunks * k, k);
    place_rows<<<(unsigned)chunks, WARP, bytes, stream>>>(members, first, counts, id, n, k, chunk);
}

enum { PIECE = MODE__CUDA_PIECE_ROWS };

/* Every piece of a group has its own slot, the groups' slots consecutive: a group of s rows has s / PIECE + 1 slots, of
 * which the last may stay empty. */
static __device__ inline int64_t place_of(const int32_t *first, int64_t group)
{
    return first[group] / PIECE + group;
}

/* Block: the sum of a piece, in the order of its rows; V columns per thread at a time. */
template <int V>
static __global__ void piece_sums(double *sum, const float *x, const int32_t *first, const int32_t *members,
                                  int64_t groups, int64_t d)
{
    __shared__ int32_t row[PIECE];
    int64_t low = 0, high = groups - 1; /* the last group whose slots begin here or before */
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

/* Block: a group. Sums its pieces in order into the first one's slot. */
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
    if (scale == 0) return; /* the sum vanishes: keep the old mean */
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
