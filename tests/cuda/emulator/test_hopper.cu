/* test_hopper.cu - the features of compute capability 9.0 (nn/cuda/hopper.cuh): a GEMM by two blocks of a cluster that
 * share an operand, against plain loops, and the same with one mistake at a time. */
#include "emulator.h"
#include "mistakes.h"

#include <cuda_fp16.h>
#include <nn/cuda/hopper.cuh>

#include <vector>

enum {
    STAGES = 2,
    STEPS = 5,
    WIDTH = 64 * STEPS,
    M = 64,
    N = 256,
    BLOCKS = 2,
    WARPGROUP = 128,
    A_BYTES = M * 128,
    B_BYTES = N * 128,
    HALF_B = B_BYTES / BLOCKS
};

enum error {
    NONE,
    NO_SWIZZLE,         /* tiles are not swizzled */
    OTHER_SWIZZLE,      /* by other bits of the row */
    NO_WAIT_FOR_COPY,   /* wgmma before its operands have arrived */
    WRONG_PHASE,        /* waits for the previous phase */
    WRONG_BARRIER,      /* full instead of empty: overwrites operands still in use */
    EARLY_ARRIVAL,      /* releases a stage before its wgmma is waited for */
    ONE_WARP_ARRIVES,   /* for all four: the others may still read */
    NO_WAIT_FOR_RESULT, /* reads accumulators in flight */
    TOUCHED,            /* writes accumulators in flight */
    NO_FENCE,
    THREE_WARPS,
    OTHER_ROWS_BY_A_WARP,
    TOO_MANY_BYTES,
    TOO_FEW_BYTES,
    TOO_MANY_ARRIVALS,
    NO_BARRIER,
    OFF_16_BYTES,
    UNWAITED_COPY,
    UNKNOWN_BARRIER, /* no fence after its initialisation */
    LEAVES_EARLY,    /* a block ends before another one arrives at its barrier */
    NO_COMMIT
};

struct shared_storage {
    char a[STAGES][A_BYTES], b[STAGES][B_BYTES];
    uint64_t full[STAGES], empty[STAGES], spare;
};

static __device__ void produce(shared_storage *r, const char *a, const char *b, error e)
{
    const uint32_t rank = cluster_rank(),
                   bytes = A_BYTES + B_BYTES + (e == TOO_MANY_BYTES ? 16 : 0) - (e == TOO_FEW_BYTES ? 16 : 0);
    for (int s = 0; s < STEPS; s++) {
        const int stage = s % STAGES;
        barrier_try_wait(e == WRONG_BARRIER && s == 4 ? &r->full[stage] : &r->empty[stage],
                         (uint32_t)(s / STAGES % 2 ^ 1));
        barrier_expect(&r->full[stage], bytes);
        if (e == TOO_MANY_ARRIVALS) barrier_arrive(&r->full[stage], rank);
        bulk_copy(r->a[stage], a + ((int)rank * STEPS + s) * A_BYTES, A_BYTES, &r->full[stage]);
        bulk_copy_multicast(r->b[stage] + rank * HALF_B, b + s * B_BYTES + (int)rank * HALF_B, HALF_B, &r->full[stage],
                            3);
    }
    if (e == OFF_16_BYTES) bulk_copy(r->a[0] + 8, a, 16, &r->full[0]);
    if (e == UNWAITED_COPY) bulk_copy(r->a[0], a, 16, &r->spare);
    if (e == NO_BARRIER) barrier_expect((uint64_t *)r->a[0], 0);
}

static __device__ void release_stage(shared_storage *r, int stage, error e)
{
    const int lane = (int)threadIdx.x % 32;
    if (e == ONE_WARP_ARRIVES && threadIdx.x / 32 % 4 != 3) return;
    for (int i = 0; i < (e == ONE_WARP_ARRIVES ? 4 : 1); i++)
        if (lane < BLOCKS) barrier_arrive(&r->empty[stage], (uint32_t)lane);
    __syncwarp();
}

static __device__ void consume(float *to, shared_storage *r, error e)
{
    float c[128];
    const int t = (int)threadIdx.x % WARPGROUP, row = t / 32 * 16 + t % 32 / 4;
    if (e == THREE_WARPS && t >= 96) return;
    for (int i = 0; i < 128; i++) c[i] = 0;
    for (int s = 0; s < STEPS; s++) {
        const int stage = s % STAGES;
        const bool late = e == NO_WAIT_FOR_COPY && s == 1;
        const uint32_t parity = (uint32_t)(s / STAGES % 2 ^ (e == WRONG_PHASE && s == 4));
        if (!late) barrier_try_wait(&r->full[stage], parity);
        const uint64_t a = tile_descriptor(r->a[stage]), b = tile_descriptor(r->b[stage]);
        if (e != NO_FENCE) wgmma_fence();
        for (int k = 0; k < 4; k++)
            wgmma_m64n256k16(c, descriptor_advance(a, e == OTHER_ROWS_BY_A_WARP && t >= 96 ? k ^ 1 : k),
                             descriptor_advance(b, k), s > 0 || k > 0);
        if (e == TOUCHED && s == 2) c[5] = 1;
        if (e != NO_COMMIT || s < STEPS - 1) wgmma_commit_group();
        wgmma_wait_all_but_one();
        if (late) wgmma_wait_all(c);
        if (late) barrier_try_wait(&r->full[stage], parity);
        if (e == EARLY_ARRIVAL)
            release_stage(r, stage, e);
        else if (s > 0)
            release_stage(r, (s - 1) % STAGES, e);
    }
    if (e == NO_WAIT_FOR_RESULT) to[0] = c[0] + c[64];
    wgmma_wait_all(c);
    for (int i = 0; i < 128 && e != NO_WAIT_FOR_RESULT; i++)
        to[(row + i % 4 / 2 * 8) * N + i / 4 * 8 + t % 4 * 2 + i % 2] = c[i];
    for (int i = 0; i < 300 && e == LEAVES_EARLY && cluster_rank() == 0; i++) __syncwarp();
    if (e != EARLY_ARRIVAL) release_stage(r, (STEPS - 1) % STAGES, e);
}

static __global__ void gemm(float *c, const char *a, const char *b, error e)
{
    extern __shared__ char memory[];
    shared_storage *r = (shared_storage *)(memory + (1024 - shared_address(memory) % 1024) % 1024);
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(&r->full[i], 1);
            barrier_init(&r->empty[i], 4 * BLOCKS);
        }
        barrier_init(&r->spare, 1);
        if (e != UNKNOWN_BARRIER) fence_barrier_init();
    }
    cluster_sync();
    if (threadIdx.x == 0) produce(r, a, b, e);
    __syncwarp();
    if (threadIdx.x >= WARPGROUP) consume(c + cluster_rank() * M * N, r, e);
    if (e != LEAVES_EARLY) cluster_sync();
}

/* Element j of row r of a or of b. */
static int number(int r, int j, int which)
{
    return (r * (7 + which) + j * (3 + 2 * which) + r * j % 5) % 17 - 8;
}

/* Tiles of `rows` rows by 64 columns, one after another. */
static char *tiles(int rows, int first, int which, error e)
{
    __half *to;
    CHECK(cudaMallocManaged((void **)&to, (size_t)rows * WIDTH * sizeof *to, cudaMemAttachGlobal) == cudaSuccess);
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < WIDTH; j++) {
            const int by = e == NO_SWIZZLE ? 0 : e == OTHER_SWIZZLE ? r / 2 % 8 : r % 8;
            const int at = ((j / 64 * rows + r) * 8 + (j % 64 / 8 ^ by)) * 8 + j % 8;
            to[at] = __float2half((float)number(first + r, j, which));
        }
    return (char *)to;
}

/* How many elements of c are wrong; those never written are NaN. */
static int wrong(error e)
{
    float *c;
    char *a;
    int bad = 0;
    CHECK(cudaMallocManaged((void **)&c, BLOCKS * M * N * sizeof *c, cudaMemAttachGlobal) == cudaSuccess);
    CHECK(cudaMallocManaged((void **)&a, BLOCKS * STEPS * A_BYTES, cudaMemAttachGlobal) == cudaSuccess);
    for (int i = 0; i < BLOCKS; i++) {
        char *own = tiles(M, i * M, 0, e);
        memcpy(a + i * STEPS * A_BYTES, own, STEPS * A_BYTES);
        cudaFree(own);
    }
    char *b = tiles(N, 0, 1, e);
    cudaLaunchAttribute cluster[1] = {};
    cudaLaunchConfig_t config = {};
    cluster[0].id = cudaLaunchAttributeClusterDimension;
    cluster[0].val.clusterDim = {BLOCKS, 1, 1};
    config.gridDim = dim3(BLOCKS);
    config.blockDim = dim3(2 * WARPGROUP);
    config.dynamicSmemBytes = sizeof(shared_storage) + 1024;
    config.attrs = cluster;
    config.numAttrs = 1;
    CHECK(cudaFuncSetAttribute(gemm, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)config.dynamicSmemBytes) ==
          cudaSuccess);
    CHECK(cudaLaunchKernelEx(&config, gemm, c, (const char *)a, (const char *)b, e) == cudaSuccess);
    cudaDeviceSynchronize();
    for (int i = 0; i < BLOCKS * M; i++)
        for (int j = 0; j < N; j++) {
            int s = 0;
            for (int k = 0; k < WIDTH; k++) s += number(i, k, 0) * number(j, k, 1);
            bad += !(c[i * N + j] == (float)s);
        }
    for (void *p : {(void *)a, (void *)b, (void *)c}) cudaFree(p);
    return bad;
}

/* Repeated: what a race does depends on the order of threads. */
template <error E> static void make()
{
    for (int i = 0; i < 30; i++)
        if (wrong(E)) mode_emu::fault("wrong numbers");
}

static const mistake mistakes[] = {
    {"an operand's rows as they are", make<NO_SWIZZLE>, "wrong numbers"},
    {"an operand's rows in another order", make<OTHER_SWIZZLE>, "wrong numbers"},
    {"products of what has not come", make<NO_WAIT_FOR_COPY>, "wrong numbers"},
    {"a barrier asked for the phase before", make<WRONG_PHASE>, "bulk copies are under way"},
    {"copies into what is still read", make<WRONG_BARRIER>, "wrong numbers"},
    {"a stage given back too early", make<EARLY_ARRIVAL>, "wrong numbers"},
    {"a stage given back by one warp for all", make<ONE_WARP_ARRIVES>, "wrong numbers"},
    {"a product read under way", make<NO_WAIT_FOR_RESULT>, "wrong numbers"},
    {"a product's registers written under way", make<TOUCHED>, "registers of products under way were written"},
    {"a product without wgmma_fence", make<NO_FENCE>, "without wgmma_fence"},
    {"a product by three warps", make<THREE_WARPS>, "deadlock"},
    {"a product of other operands by one warp", make<OTHER_ROWS_BY_A_WARP>, "warps of one group bring different"},
    {"a barrier that expects too many bytes", make<TOO_MANY_BYTES>, "deadlock"},
    {"a barrier that expects too few bytes", make<TOO_FEW_BYTES>, "deadlock"},
    {"an arrival too many", make<TOO_MANY_ARRIVALS>, "gets one more"},
    {"a barrier that was not made", make<NO_BARRIER>, "there is no barrier"},
    {"a barrier that copies do not know of", make<UNKNOWN_BARRIER>, "before fence_barrier_init"},
    {"a bulk copy off 16 bytes", make<OFF_16_BYTES>, "is not of whole 16 aligned bytes"},
    {"a bulk copy that nobody waits for", make<UNWAITED_COPY>, "bulk copies are under way"},
    {"a block that leaves its cluster early", make<LEAVES_EARLY>, "of the cluster has ended"},
    {"a product that was not committed", make<NO_COMMIT>, "of its copies and products are under way"},
};

int main()
{
    const int bad = missed(mistakes, sizeof mistakes / sizeof *mistakes);
    for (int i = 0; i < 4; i++) CHECK(wrong(NONE) == 0); /* each time in another order of threads */
    return bad > 0;
}
