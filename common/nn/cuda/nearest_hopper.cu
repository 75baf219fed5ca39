/* nearest_hopper.cu - a GEMM of rows and centres fused with the search: ranks never leave registers (sm_90a).
 *
 * DESIGN: a cluster of two blocks iterates over pairs of row tiles (128 rows each) and, for each pair, over all
 * centres, 256 at a time. A block has one producer thread and two consumer warpgroups. A pipeline stage is 64 columns
 * of the block's rows (16 KB) and of the centres (32 KB, of which each block loads half and multicasts it to both: a
 * centre is read from L2 once per 256 rows). A consumer warpgroup holds 64 rows x 256 centres in 128 accumulators per
 * thread; four lanes share a row. After the last column these become ranks; the smallest of a row's 256 updates the
 * row's minimum, and every centre within the margin of that is appended to the row's list in shared memory, with the
 * smallest of its 256 as a lower bound of its rank. At the end the list is filtered by the final minimum: it contains
 * every centre that may be nearest, because the limit only decreases. */
#include "nn/cuda/block.cuh"
#include "nn/cuda/hopper.cuh"
#include "nn/cuda/nearest.cuh"

#if defined(__CUDA_ARCH__) && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
#error "this file is for sm_90a alone"
#endif

enum {
    TILE = MODE__CUDA_TILE_ROWS,
    TILE_BYTES = TILE * 128,
    CLUSTER = MODE__CUDA_ROW_PADDING / TILE, /* blocks */
    CENTRES = MODE__CUDA_CENTRE_PADDING,
    PART_BYTES = CENTRES * 128 / CLUSTER, /* a block's half of the centres of a stage */
    STAGES = 4,
    WARPGROUP = 4 * WARP, /* threads: warpgroup 0 is the producer, 1 and 2 are consumers */
    THREADS = 3 * WARPGROUP,
    LIST = MODE__CUDA_CANDIDATES,
    LIST_FULL = LIST + 1, /* the list has overflowed */
    /* registers per thread: at launch, and after reallocation */
    INITIAL_REGISTERS = 65536 / THREADS / 8 * 8,
    PRODUCER_REGISTERS = 40,
    CONSUMER_REGISTERS = 232
};
static_assert(PRODUCER_REGISTERS + 2 * CONSUMER_REGISTERS <= 3 * INITIAL_REGISTERS,
              "setmaxnreg.inc would block forever");

struct candidate {
    float rank;
    int32_t centre;
};

struct shared_storage {
    char rows[STAGES][TILE_BYTES], centres[STAGES][CENTRES * 128];
    struct candidate list[TILE][LIST];
    uint64_t full[STAGES], empty[STAGES];
};

/* A thread's position in the pipeline's ring of stages. */
struct pipeline_state {
    int stage;
    uint32_t parity; /* of the stage's barrier phase */
    int spin_limit;  /* failed polls left; below 0: unlimited */
};

static __device__ inline void advance(struct pipeline_state *p)
{
    if (++p->stage < STAGES) return;
    p->stage = 0;
    p->parity ^= 1;
}

static __device__ inline void wait_for(struct pipeline_state *p, uint64_t *b, uint32_t parity)
{
    while (!barrier_try_wait(b, parity)) {
        if (p->spin_limit == 0) return;
        if (p->spin_limit > 0) p->spin_limit--;
    }
}

static __device__ inline void produce(const struct mode__cuda_tiles &a, struct shared_storage *r, int64_t pairs,
                                      int64_t steps)
{
    const char *x = (const char *)a.x, *c = (const char *)a.c;
    const uint32_t rank = cluster_rank(), first = rank * PART_BYTES;
    struct pipeline_state p = {0, 0, a.spin_limit};
    for (int64_t pair = blockIdx.x / CLUSTER; pair < pairs; pair += gridDim.x / CLUSTER)
        for (int64_t at = 0; at < a.k; at += CENTRES)
            for (int64_t s = 0; s < steps; s++, advance(&p)) {
                const int64_t row_tile = pair * CLUSTER + rank, centre_tile = (at * 128 + first) / TILE_BYTES;
                uint64_t *full = &r->full[p.stage];
                wait_for(&p, &r->empty[p.stage], p.parity ^ 1);
                barrier_expect(full, TILE_BYTES + CENTRES * 128);
                bulk_copy(r->rows[p.stage], x + (row_tile * steps + s) * TILE_BYTES, TILE_BYTES, full);
                bulk_copy_multicast(r->centres[p.stage] + first,
                                    c + (centre_tile * steps + s) * TILE_BYTES + first % TILE_BYTES, PART_BYTES, full,
                                    (uint16_t)((1 << CLUSTER) - 1));
            }
}

/* A row's state, the same in its four lanes. */
struct row {
    float scale, margin, least; /* ranks are plus - scale * dot */
    int n_candidates;
};

static __device__ inline struct row row_of(const struct mode__cuda_tiles &a, int64_t i)
{
    const struct mode__cuda_halved x = a.x_of[i < a.n ? i : a.n - 1];
    return {x.back * a.centres.most[2], margin_of(a.centres, x, a.d, a.cosine), INFINITY, 0};
}

/* Appends a row's hits among the 256 centres from `first` on. hit: bit 2 j + e is this lane's column 8 j + e, of the
 * lower and upper half. */
static __device__ inline void append(struct candidate *list, struct row *x, float least, const uint32_t (&hit)[2],
                                     int64_t first)
{
    const int mine = __popc(hit[0]) + __popc(hit[1]), lane = (int)threadIdx.x % 4;
    int end = mine;
    for (int i = 1; i < 4; i *= 2) {
        const int below = __shfl_up_sync(ALL_LANES, end, i, 4);
        if (lane >= i) end += below;
    }
    const int total = __shfl_sync(ALL_LANES, end, 3, 4);
    int at = x->n_candidates + end - mine;
    for (int half = 0; half < 2; half++)
        for (uint32_t left = hit[half]; left && at < LIST; left &= left - 1, at++) {
            const int bit = __ffs((int)left) - 1;
            list[at] = {least, (int32_t)(first + 128 * half + bit / 2 * 8 + 2 * lane + bit % 2)};
        }
    x->n_candidates = x->n_candidates + total < LIST_FULL ? x->n_candidates + total : (int)LIST_FULL;
}

/* Accumulators for the centres from `first` on become ranks, and candidates are appended. */
static __device__ inline void search(struct candidate (*list)[LIST], float (&c)[128], struct row (&x)[2],
                                     const float *plus, int64_t first)
{
    const int lane = (int)threadIdx.x % 4;
    float least[2] = {INFINITY, INFINITY}, limit[2];
#pragma unroll
    for (int j = 0; j < 32; j++) {
        const float2 p = *(const float2 *)(plus + first + 8 * j + 2 * lane);
#pragma unroll
        for (int e = 0; e < 4; e++) {
            c[4 * j + e] = __fmaf_rn(-x[e / 2].scale, c[4 * j + e], e % 2 ? p.y : p.x);
            least[e / 2] = fminf(least[e / 2], c[4 * j + e]);
        }
    }
    bool any = false;
    for (int h = 0; h < 2; h++) {
        for (int i = 1; i < 4; i *= 2) least[h] = fminf(least[h], __shfl_xor_sync(ALL_LANES, least[h], i));
        x[h].least = fminf(x[h].least, least[h]);
        limit[h] = limit_of(x[h].least, x[h].margin);
        if (limit[h] == INFINITY) x[h].n_candidates = LIST_FULL;
        any |= least[h] <= limit[h];
    }
    if (!__any_sync(ALL_LANES, any)) return;
    uint32_t hit[2][2] = {{0, 0}, {0, 0}};
#pragma unroll
    for (int i = 0; i < 128; i++)
        if (c[i] <= limit[i % 4 / 2]) hit[i % 4 / 2][i / 64] |= 1u << (i % 64 / 4 * 2 + i % 2);
    for (int h = 0; h < 2; h++) append(list[8 * h], &x[h], least[h], hit[h], first);
}

/* Filters row i's complete list by the final limit. */
static __device__ inline void filter(int32_t *state, int32_t *candidates, const struct candidate *list,
                                     const struct row &x, int64_t i)
{
    const float limit = limit_of(x.least, x.margin);
    int32_t left = 0, last = 0;
    for (int j = 0; j < x.n_candidates && x.n_candidates <= LIST; j++) {
        if (!(list[j].rank <= limit)) continue;
        last = list[j].centre;
        candidates[i * LIST + left++] = last;
    }
    state[i] = left == 1 ? last : left == 0 ? (int32_t)MODE__CUDA_ANY_CENTRE : -left;
}

static __device__ inline void consume(int32_t *state, int32_t *candidates, const struct mode__cuda_tiles &a,
                                      struct shared_storage *r, int64_t pairs, int64_t steps)
{
    const int group = (int)threadIdx.x / WARPGROUP - 1, lane = (int)threadIdx.x % WARP;
    const int mine = 64 * group + (int)threadIdx.x % WARPGROUP / WARP * 16 + lane / 4; /* and the row 8 further down */
    struct pipeline_state p = {0, 0, a.spin_limit};
    float c[128];
#pragma unroll
    for (int i = 0; i < 128; i++) c[i] = 0;
    for (int64_t pair = blockIdx.x / CLUSTER; pair < pairs; pair += gridDim.x / CLUSTER) {
        const int64_t i = (pair * CLUSTER + cluster_rank()) * TILE + mine;
        struct row x[2] = {row_of(a, i), row_of(a, i + 8)};
        for (int64_t at = 0; at < a.k; at += CENTRES) {
            int before = -1; /* the stage that pending wgmmas still read */
            for (int64_t s = 0; s < steps; s++, advance(&p)) {
                wait_for(&p, &r->full[p.stage], p.parity);
                const uint64_t rows = tile_descriptor(r->rows[p.stage] + group * 64 * 128),
                               centres = tile_descriptor(r->centres[p.stage]);
                wgmma_fence();
#pragma unroll
                for (int t = 0; t < 4; t++)
                    wgmma_m64n256k16(c, descriptor_advance(rows, t), descriptor_advance(centres, t), s > 0 || t > 0);
                wgmma_commit_group();
                wgmma_wait_all_but_one();
                if (before >= 0 && lane < CLUSTER) barrier_arrive(&r->empty[before], (uint32_t)lane);
                before = p.stage;
            }
            wgmma_wait_all(c);
            if (lane < CLUSTER) barrier_arrive(&r->empty[before], (uint32_t)lane);
            __syncwarp();
            search(r->list + mine, c, x, a.centres.plus, at);
        }
        __syncwarp();
        if (lane % 4 == 0 && i < a.n) filter(state, candidates, r->list[mine], x[0], i);
        if (lane % 4 == 1 && i + 8 < a.n) filter(state, candidates, r->list[mine + 8], x[1], i + 8);
        __syncwarp();
    }
}

static __global__ void __launch_bounds__(THREADS, 1)
    nearest_tiles(int32_t *state, int32_t *candidates, struct mode__cuda_tiles a)
{
    extern __shared__ char memory[];
    struct shared_storage *r = (struct shared_storage *)(memory + (1024 - shared_address(memory) % 1024) % 1024);
    const int64_t pairs = (a.n + MODE__CUDA_ROW_PADDING - 1) / MODE__CUDA_ROW_PADDING, steps = (a.d + 63) / 64;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(&r->full[i], 1);
            barrier_init(&r->empty[i], (THREADS - WARPGROUP) / WARP * CLUSTER);
        }
        fence_barrier_init();
    }
    cluster_sync();
    if (threadIdx.x < WARPGROUP) {
        registers_dealloc<PRODUCER_REGISTERS>();
        if (threadIdx.x == 0) produce(a, r, pairs, steps);
        __syncwarp();
    } else {
        registers_alloc<CONSUMER_REGISTERS>();
        consume(state, candidates, a, r, pairs, steps);
    }
    cluster_sync(); /* no block may exit while another can still write or arrive here */
}

cudaError_t mode__cuda_nearest_tiles(cudaStream_t stream, int32_t *state, int32_t *candidates,
                                     const struct mode__cuda_tiles *a, int most)
{
    const int64_t pairs = ceil_div(a->n, MODE__CUDA_ROW_PADDING);
    const size_t bytes = sizeof(struct shared_storage) + 1024;
    cudaLaunchAttribute cluster[1] = {};
    cudaLaunchConfig_t config = {};
    cluster[0].id = cudaLaunchAttributeClusterDimension;
    cluster[0].val.clusterDim.x = CLUSTER;
    cluster[0].val.clusterDim.y = cluster[0].val.clusterDim.z = 1;
    config.gridDim = dim3(CLUSTER);
    config.blockDim = dim3(THREADS);
    config.dynamicSmemBytes = bytes;
    config.stream = stream;
    config.attrs = cluster;
    config.numAttrs = 1;
    cudaError_t e = cudaFuncSetAttribute(nearest_tiles, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    int resident = 0; /* one wave: a cluster that waits for others to finish would double the time */
    if (e == cudaSuccess) e = cudaOccupancyMaxActiveClusters(&resident, nearest_tiles, &config);
    if (e != cudaSuccess) return e;
    if (resident < 1) return cudaErrorInvalidConfiguration;
    if (most > 0 && most < resident) resident = most;
    config.gridDim.x *= (unsigned)(pairs < resident ? pairs : resident);
    return cudaLaunchKernelEx(&config, nearest_tiles, state, candidates, *a);
}
