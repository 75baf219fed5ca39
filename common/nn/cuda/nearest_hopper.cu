/* nearest_hopper.cu - products of rows and centres whose ranks never leave registers (compute capability 9.0).
 *
 * DESIGN: a cluster of two blocks walks over pairs of row tiles (128 rows each) and, for each pair, over all centres,
 * 256 at a time. In a block one thread fetches and 8 warps, two groups of four, multiply: a stage is 64 columns of the
 * block's rows (16 KB) and of the centres (32 KB, of which either block fetches half and sends it to both: a centre
 * comes from the second cache once for 256 rows). A group has 64 rows and all 256 centres of them in 128 registers a
 * thread; four lanes share a row. When the columns are through, these become ranks; the smallest of a row's 256 is
 * compared with the row's smallest so far, and whatever lies within its margin goes to the row's list in shared memory,
 * with the smallest of its 256 for its rank, which it is or lies above. In the end those remain whose rank lies within
 * the margin of the smallest of all: whoever may be nearest is among them, because a limit only falls. */
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
    PART_BYTES = CENTRES * 128 / CLUSTER, /* of the centres' stage, that a block fetches */
    STAGES = 4,
    GROUP = 4 * WARP, /* threads: warps 0-3 fetch, 4-7 and 8-11 multiply */
    THREADS = 3 * GROUP,
    LIST = MODE__CUDA_CANDIDATES,
    ALL = LIST + 1, /* more than the list takes */
    /* registers of a thread: at the start, and then of the group that fetches and of those that multiply */
    AT_FIRST = 65536 / THREADS / 8 * 8,
    FETCHING = 40,
    MULTIPLYING = 232
};
static_assert(FETCHING + 2 * MULTIPLYING <= 3 * AT_FIRST, "groups that want more registers would wait for ever");

struct found {
    float rank;
    int32_t centre;
};

struct room {
    char rows[STAGES][TILE_BYTES], centres[STAGES][CENTRES * 128];
    struct found list[TILE][LIST];
    uint64_t full[STAGES], empty[STAGES];
};

/* Where a thread is in the ring; all that use it go the same way. */
struct place {
    int stage;
    uint32_t parity; /* of the stage's phase */
    int patience;    /* how often to ask again; below 0: for ever */
};

static __device__ inline void advance(struct place *p)
{
    if (++p->stage < STAGES) return;
    p->stage = 0;
    p->parity ^= 1;
}

static __device__ inline void wait_for(struct place *p, uint64_t *b, uint32_t parity)
{
    while (!barrier_passed(b, parity)) {
        if (p->patience == 0) return;
        if (p->patience > 0) p->patience--;
    }
}

static __device__ inline void fetch(const struct mode__cuda_tiles &a, struct room *r, int64_t pairs, int64_t steps)
{
    const char *x = (const char *)a.x, *c = (const char *)a.c;
    const uint32_t rank = cluster_rank(), first = rank * PART_BYTES;
    struct place p = {0, 0, a.patience};
    for (int64_t pair = blockIdx.x / CLUSTER; pair < pairs; pair += gridDim.x / CLUSTER)
        for (int64_t at = 0; at < a.k; at += CENTRES)
            for (int64_t s = 0; s < steps; s++, advance(&p)) {
                const int64_t row_tile = pair * CLUSTER + rank, centre_tile = (at * 128 + first) / TILE_BYTES;
                uint64_t *full = &r->full[p.stage];
                wait_for(&p, &r->empty[p.stage], p.parity ^ 1);
                barrier_expect(full, TILE_BYTES + CENTRES * 128);
                bulk_copy(r->rows[p.stage], x + (row_tile * steps + s) * TILE_BYTES, TILE_BYTES, full);
                bulk_copy_to(r->centres[p.stage] + first,
                             c + (centre_tile * steps + s) * TILE_BYTES + first % TILE_BYTES, PART_BYTES, full,
                             (uint16_t)((1 << CLUSTER) - 1));
            }
}

/* A row as four lanes see it. */
struct row {
    float scale, margin, least; /* ranks are plus - scale * product */
    int found;
};

static __device__ inline struct row row_of(const struct mode__cuda_tiles &a, int64_t i)
{
    const struct mode__cuda_halved x = a.x_of[i < a.n ? i : a.n - 1];
    return {x.back * a.centres.most[2], margin_of(a.centres, x, a.d, a.cosine), INFINITY, 0};
}

/* Of 256 centres from `first` on. hit: bit 2 j + e is column 8 j + e of this lane's, of the lower and upper half. */
static __device__ inline void note(struct found *list, struct row *x, float least, const uint32_t (&hit)[2],
                                   int64_t first)
{
    const int mine = __popc(hit[0]) + __popc(hit[1]), lane = (int)threadIdx.x % 4;
    int end = mine;
    for (int i = 1; i < 4; i *= 2) {
        const int below = __shfl_up_sync(ALL_LANES, end, i, 4);
        if (lane >= i) end += below;
    }
    const int total = __shfl_sync(ALL_LANES, end, 3, 4);
    int at = x->found + end - mine;
    for (int half = 0; half < 2; half++)
        for (uint32_t left = hit[half]; left && at < LIST; left &= left - 1, at++) {
            const int bit = __ffs((int)left) - 1;
            list[at] = {least, (int32_t)(first + 128 * half + bit / 2 * 8 + 2 * lane + bit % 2)};
        }
    x->found = x->found + total < ALL ? x->found + total : (int)ALL;
}

/* Products with the centres from `first` on become ranks, and what may be nearest is noted. */
static __device__ inline void look(struct found (*list)[LIST], float (&c)[128], struct row (&x)[2], const float *plus,
                                   int64_t first)
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
        if (limit[h] == INFINITY) x[h].found = ALL;
        any |= least[h] <= limit[h];
    }
    if (!__any_sync(ALL_LANES, any)) return;
    uint32_t hit[2][2] = {{0, 0}, {0, 0}};
#pragma unroll
    for (int i = 0; i < 128; i++)
        if (c[i] <= limit[i % 4 / 2]) hit[i % 4 / 2][i / 64] |= 1u << (i % 64 / 4 * 2 + i % 2);
    for (int h = 0; h < 2; h++) note(list[8 * h], &x[h], least[h], hit[h], first);
}

/* Row i's list is complete: what is left of it. */
static __device__ inline void settle(int32_t *state, int32_t *candidates, const struct found *list, const struct row &x,
                                     int64_t i)
{
    const float limit = limit_of(x.least, x.margin);
    int32_t left = 0, last = 0;
    for (int j = 0; j < x.found && x.found <= LIST; j++) {
        if (!(list[j].rank <= limit)) continue;
        last = list[j].centre;
        candidates[i * LIST + left++] = last;
    }
    state[i] = left == 1 ? last : left == 0 ? (int32_t)MODE__CUDA_ANY_CENTRE : -left;
}

static __device__ inline void multiply_and_look(int32_t *state, int32_t *candidates, const struct mode__cuda_tiles &a,
                                                struct room *r, int64_t pairs, int64_t steps)
{
    const int group = (int)threadIdx.x / GROUP - 1, lane = (int)threadIdx.x % WARP;
    const int mine = 64 * group + (int)threadIdx.x % GROUP / WARP * 16 + lane / 4; /* and 8 further down */
    struct place p = {0, 0, a.patience};
    float c[128];
#pragma unroll
    for (int i = 0; i < 128; i++) c[i] = 0;
    for (int64_t pair = blockIdx.x / CLUSTER; pair < pairs; pair += gridDim.x / CLUSTER) {
        const int64_t i = (pair * CLUSTER + cluster_rank()) * TILE + mine;
        struct row x[2] = {row_of(a, i), row_of(a, i + 8)};
        for (int64_t at = 0; at < a.k; at += CENTRES) {
            int before = -1; /* the stage that products under way still read */
            for (int64_t s = 0; s < steps; s++, advance(&p)) {
                wait_for(&p, &r->full[p.stage], p.parity);
                const uint64_t rows = tile_operand(r->rows[p.stage] + group * 64 * 128),
                               centres = tile_operand(r->centres[p.stage]);
                products_begin();
#pragma unroll
                for (int t = 0; t < 4; t++)
                    product_64_256(c, tile_columns(rows, t), tile_columns(centres, t), s > 0 || t > 0);
                products_commit();
                products_wait_but_one();
                if (before >= 0 && lane < CLUSTER) barrier_arrive(&r->empty[before], (uint32_t)lane);
                before = p.stage;
            }
            products_wait(c);
            if (lane < CLUSTER) barrier_arrive(&r->empty[before], (uint32_t)lane);
            __syncwarp();
            look(r->list + mine, c, x, a.centres.plus, at);
        }
        __syncwarp();
        if (lane % 4 == 0 && i < a.n) settle(state, candidates, r->list[mine], x[0], i);
        if (lane % 4 == 1 && i + 8 < a.n) settle(state, candidates, r->list[mine + 8], x[1], i + 8);
        __syncwarp();
    }
}

static __global__ void __launch_bounds__(THREADS, 1)
    nearest_tiles(int32_t *state, int32_t *candidates, struct mode__cuda_tiles a)
{
    extern __shared__ char memory[];
    struct room *r = (struct room *)(memory + (1024 - shared_address(memory) % 1024) % 1024);
    const int64_t pairs = (a.n + MODE__CUDA_ROW_PADDING - 1) / MODE__CUDA_ROW_PADDING, steps = (a.d + 63) / 64;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(&r->full[i], 1);
            barrier_init(&r->empty[i], (THREADS - GROUP) / WARP * CLUSTER);
        }
        barriers_are_made();
    }
    cluster_meet();
    if (threadIdx.x < GROUP) {
        fewer_registers<FETCHING>();
        if (threadIdx.x == 0) fetch(a, r, pairs, steps);
        __syncwarp();
    } else {
        more_registers<MULTIPLYING>();
        multiply_and_look(state, candidates, a, r, pairs, steps);
    }
    cluster_meet(); /* no block goes while another may still write or arrive here */
}

cudaError_t mode__cuda_nearest_tiles(cudaStream_t stream, int32_t *state, int32_t *candidates,
                                     const struct mode__cuda_tiles *a, int most)
{
    const int64_t pairs = ceil_div(a->n, MODE__CUDA_ROW_PADDING);
    const size_t bytes = sizeof(struct room) + 1024;
    cudaLaunchAttribute cluster[1] = {};
    cudaLaunchConfig_t how = {};
    cluster[0].id = cudaLaunchAttributeClusterDimension;
    cluster[0].val.clusterDim.x = CLUSTER;
    cluster[0].val.clusterDim.y = cluster[0].val.clusterDim.z = 1;
    how.gridDim = dim3(CLUSTER);
    how.blockDim = dim3(THREADS);
    how.dynamicSmemBytes = bytes;
    how.stream = stream;
    how.attrs = cluster;
    how.numAttrs = 1;
    cudaError_t e = cudaFuncSetAttribute(nearest_tiles, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    int at_once = 0; /* a cluster that has to wait for others to end would double the time */
    if (e == cudaSuccess) e = cudaOccupancyMaxActiveClusters(&at_once, nearest_tiles, &how);
    if (e != cudaSuccess) return e;
    if (at_once < 1) return cudaErrorInvalidConfiguration;
    if (most > 0 && most < at_once) at_once = most;
    how.gridDim.x *= (unsigned)(pairs < at_once ? pairs : at_once);
    return cudaLaunchKernelEx(&how, nearest_tiles, state, candidates, *a);
}
