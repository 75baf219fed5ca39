/* test_races.cpp - races.cpp: kernels of test_races.ptx that are right, and the same with one mistake each. The functions
 * here stand for these kernels; they never run. */
#include "../emulator/mistakes.h"
#include "ptx.h"

#include <cstdio>
#include <cstdlib>

#define KERNEL(name)                                                                                                   \
    static __global__ void name(float *, const float *, int)                                                           \
    {                                                                                                                  \
        abort();                                                                                                       \
    }
KERNEL(barriers)
KERNEL(lanes)
KERNEL(blocks)
KERNEL(ended)
KERNEL(copies)
KERNEL(bulk)
KERNEL(arrivals)
KERNEL(product)

using kernel = void (*)(float *, const float *, int);

enum { BYTES = 4096, SHARED = 48 * 1024 };

static void launch(kernel k, unsigned n_blocks, unsigned n_threads, unsigned in_cluster, int which)
{
    float *to, *from;
    cudaLaunchAttribute cluster[1] = {};
    cudaLaunchConfig_t config = {};
    mode_ptx::checking = true;
    CHECK(cudaMalloc((void **)&to, BYTES) == cudaSuccess && cudaMalloc((void **)&from, BYTES) == cudaSuccess);
    cluster[0].id = cudaLaunchAttributeClusterDimension;
    cluster[0].val.clusterDim.x = in_cluster;
    cluster[0].val.clusterDim.y = cluster[0].val.clusterDim.z = 1;
    config.gridDim = dim3(n_blocks);
    config.blockDim = dim3(n_threads);
    config.dynamicSmemBytes = SHARED;
    config.attrs = cluster;
    config.numAttrs = 1;
    CHECK(cudaLaunchKernelEx(&config, k, to, (const float *)from, which) == cudaSuccess);
    CHECK(cudaDeviceSynchronize() == cudaSuccess);
    CHECK(cudaFree(to) == cudaSuccess && cudaFree(from) == cudaSuccess);
    mode_ptx::checking = false;
}

template <int Which> static void of_barriers()
{
    launch(barriers, 1, 64, 1, Which);
}
template <int Which> static void of_lanes()
{
    launch(lanes, 1, 32, 1, Which);
}
template <int Which> static void of_blocks()
{
    launch(blocks, 2, 32, 1, Which);
}
template <int Which> static void of_ended()
{
    launch(ended, 1, 64, 1, Which);
}
template <int Which> static void of_copies()
{
    launch(copies, 1, 64, 1, Which);
}
template <int Which> static void of_bulk()
{
    launch(bulk, 1, 64, 1, Which);
}
template <int Which> static void of_arrivals()
{
    launch(arrivals, 2, 64, 2, Which);
}
template <int Which> static void of_product()
{
    launch(product, 1, 128, 1, Which);
}

static const struct mistake mistakes[] = {
    {"no barrier between a store and a load of another warp", of_barriers<1>, "What would order the two: bar.sync"},
    {"both places in the source", of_barriers<1>, "races.cu:20"},
    {"no barrier before the next store", of_barriers<2>, "What would order the two: bar.sync"},
    {"no barrier between lanes of a warp", of_lanes<1>, "What would order the two: bar.warp.sync or bar.sync"},
    {"none before the next store", of_lanes<2>, "of block (0, 0, 0) reads, in no order"},
    {"a shuffle between lanes of a warp", of_lanes<3>, "What would order the two: bar.warp.sync"},
    {"barriers of half warps", of_lanes<4>, "What would order the two: bar.warp.sync"},
    {"two blocks store to one place", of_blocks<1>, "blocks are not ordered within a launch"},
    {"one block stores, another one reads", of_blocks<2>, "blocks are not ordered within a launch"},
    {"global memory, one block, no barrier", of_blocks<3>, "4 bytes at 0x"},
    {"a byte of another lane's word", of_blocks<5>, "of global memory, some of which"},
    {"a barrier without the thread that stored and ended", of_ended<1>, "thread 32 of block (0, 0, 0) writes"},
    {"cp.async is waited for after the barrier", of_copies<1>, "by cp.async, in no order"},
    {"no barrier after cp.async", of_copies<2>, "in no order"},
    {"cp.async overwrites what others still read", of_copies<3>, "What would order the two: bar.sync"},
    {"a read before cp.async is waited for", of_copies<4>, "What would order the two: cp.async.wait_group"},
    {"a store to the source of a cp.async", of_copies<5>, "reads by cp.async, in no order"},
    {"the wrong group is waited for", of_copies<6>, "What would order the two: cp.async.wait_group"},
    {"mbarrier.init without a fence", of_bulk<1>, "without a fence.mbarrier_init"},
    {"a bulk copy over a store without a proxy fence", of_bulk<2>, "What would order the two: fence.proxy.async"},
    {"a bulk copy is not waited for", of_bulk<4>, "in no order"},
    {"a bulk copy overwrites what others still read", of_bulk<5>, "writes by a bulk copy 1024 bytes"},
    {"a store to the source of a bulk copy", of_bulk<7>, "What would order the two: waiting for the phase"},
    {"a phase that does not expect its bytes", of_bulk<8>, "completed before a bulk copy that was issued in it"},
    {"an mbarrier is not waited for", of_arrivals<1>, "bar.sync or an mbarrier"},
    {"a remote arrival with the scope of a block", of_arrivals<2>, "with .release.cluster and .acquire.cluster"},
    {"a block ends before another one arrives", of_arrivals<4>, "its block may have ended"},
    {"wgmma reads what was stored without a proxy fence", of_product<1>, "What would order the two: fence.proxy.async"},
    {"wgmma without wgmma.fence", of_product<2>, "without a wgmma.fence before it"},
    {"a store to an operand of wgmma under way", of_product<3>, "What would order the two: wgmma.wait_group"},
    {"an accumulator is accessed under way", of_product<4>, "accumulator of a wgmma that is under way"},
    {"no wgmma.fence after an accumulator was accessed", of_product<5>, "since the last wgmma.fence"},
    {"another warp's wgmma may still read", of_product<6>, "in no order"},
    {"a wgmma that is not committed", of_product<7>, "accumulator of a wgmma that is under way"},
};

/* How many mistakes went unreported; what is right must not be reported at all, that would end the program. */
int missed_races()
{
    of_barriers<0>();
    of_lanes<0>();
    of_lanes<5>();
    of_blocks<0>();
    of_blocks<4>();
    of_ended<0>();
    of_copies<0>();
    of_bulk<0>();
    of_bulk<3>();
    of_bulk<6>();
    of_arrivals<0>();
    of_arrivals<3>();
    of_product<0>();
    return missed(mistakes, sizeof mistakes / sizeof *mistakes);
}
