/* hopper.cuh - instructions of sm_90a: mbarrier with transaction counts, cp.async.bulk with multicast in a cluster, and
 * wgmma on operands in shared memory.
 *
 * A wgmma operand is a K-major tile of rows of 64 fp16 elements with the 128-byte swizzle: row r is the 128 bytes at
 * 128 r, and its 16-byte chunk c (columns 8 c .. 8 c + 7) is stored at chunk c ^ r % 8; tiles are aligned to 1024
 * bytes. Tiles stored like this in global memory need only a plain copy to shared memory.
 * Source: PTX ISA, "mbarrier", "cp.async.bulk", "Asynchronous Warpgroup Level Matrix Instructions". On the host
 * tests/cuda/emulator/include/nn/cuda/hopper.cuh stands in for this file. */
#ifndef MODE_NN_CUDA_HOPPER_CUH
#define MODE_NN_CUDA_HOPPER_CUH

#include <stdint.h>

static __device__ inline uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* ---- barriers: a phase completes when all expected arrivals and bytes have come ---- */

static __device__ inline void barrier_init(uint64_t *b, uint32_t arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(arrivals) : "memory");
}

/* After the last barrier_init and before cluster_sync: makes the barriers visible to copies and other blocks. */
static __device__ inline void fence_barrier_init(void)
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

/* One arrival, and the phase also expects that many bytes. */
static __device__ inline void barrier_expect(uint64_t *b, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)), "r"(bytes)
                 : "memory");
}

/* One arrival at the same barrier in another block of the cluster. It orders this block's copies and wgmmas, but not
 * its other writes for that block's readers: ".release.cluster" would, but waits until all of the thread's writes reach
 * L2, which takes as long as multiplying a stage. */
static __device__ inline void barrier_arrive(uint64_t *b, uint32_t block)
{
    asm volatile("{\n"
                 ".reg .b32 there;\n"
                 "mapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
                 "}" ::"r"(shared_address(b)),
                 "r"(block)
                 : "memory");
}

/* Has the phase of that parity completed? May block for a while before returning false. Phases count from 0; parity 1
 * is true at first. Data of bulk copies is visible then; other blocks' writes need not be (".acquire.cluster" would
 * invalidate L1). */
static __device__ inline bool barrier_try_wait(uint64_t *b, uint32_t parity)
{
    uint32_t passed;
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                 "selp.u32 %0, 1, 0, p;\n"
                 "}"
                 : "=r"(passed)
                 : "r"(shared_address(b)), "r"(parity)
                 : "memory");
    return passed != 0;
}

/* ---- clusters ---- */

static __device__ inline uint32_t cluster_rank(void)
{
    uint32_t r;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
    return r;
}

/* Barrier for all threads of the cluster. */
static __device__ inline void cluster_sync(void)
{
    asm volatile("barrier.cluster.arrive.release;\n"
                 "barrier.cluster.wait.acquire;" ::
                     : "memory");
}

/* Copies `bytes` from global to shared memory, all aligned to 16; completion is counted at the barrier. */
static __device__ inline void bulk_copy(void *to, const void *from, uint32_t bytes, uint64_t *b)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(to)),
                 "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(shared_address(b))
                 : "memory");
}

/* Multicast: the same to the same offset in each block of the cluster that the mask `blocks` names, counted at each
 * one's barrier. */
static __device__ inline void bulk_copy_multicast(void *to, const void *from, uint32_t bytes, uint64_t *b,
                                                  uint16_t blocks)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, "
                 "[%3], %4;" ::"r"(shared_address(to)),
                 "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(shared_address(b)), "h"(blocks)
                 : "memory");
}

/* ---- wgmma ---- */

/* Register reallocation (setmaxnreg): registers per thread from now on; by whole warpgroups, a multiple of 8. */
template <int N> static __device__ inline void registers_dealloc(void)
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

template <int N> static __device__ inline void registers_alloc(void)
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

/* The matrix descriptor of a tile: groups of 8 rows are 1024 bytes apart. descriptor_advance: 16 columns further each.
 */
static __device__ inline uint64_t tile_descriptor(const void *tile)
{
    return (uint64_t)1 << 62 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 16 | (shared_address(tile) & 0x3ffff) >> 4;
}

static __device__ inline uint64_t descriptor_advance(uint64_t operand, int sixteens)
{
    return operand + (uint64_t)(sixteens * 32 >> 4);
}

#define FOUR(i)    "+f"(c[i]), "+f"(c[(i) + 1]), "+f"(c[(i) + 2]), "+f"(c[(i) + 3])
#define SIXTEEN(i) FOUR(i), FOUR((i) + 4), FOUR((i) + 8), FOUR((i) + 12)
#define ALL_OF_C   SIXTEEN(0), SIXTEEN(16), SIXTEEN(32), SIXTEEN(48), SIXTEEN(64), SIXTEEN(80), SIXTEEN(96), SIXTEEN(112)

/* Before the first wgmma, and after registers of c were accessed. */
static __device__ inline void wgmma_fence(void)
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

/* c [64, 256] = a [64, 16] b [256, 16]^T, plus c if `add`, by a warpgroup; asynchronous. Thread t of the 128 holds of c
 * rows t / 32 * 16 + t % 32 / 4 (c[4 j], c[4 j + 1]) and 8 further down (c[4 j + 2], c[4 j + 3]), columns 8 j + 2 (t %
 * 4) and the next one. */
static __device__ inline void wgmma_m64n256k16(float (&c)[128], uint64_t a, uint64_t b, bool add)
{
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "setp.ne.b32 p, %130, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
                 "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
                 "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
                 "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
                 "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
                 "%128, %129, p, 1, 1, 0, 0;\n"
                 "}"
                 : ALL_OF_C
                 : "l"(a), "l"(b), "r"((int)add));
}

/* Closes a group: the wgmmas since the last one. */
static __device__ inline void wgmma_commit_group(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Waits for all groups but the last: their operands may be overwritten. */
static __device__ inline void wgmma_wait_all_but_one(void)
{
    asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
}

/* Waits for all groups: c may be read. */
static __device__ inline void wgmma_wait_all(float (&c)[128])
{
    asm volatile("wgmma.wait_group.sync.aligned 0;" : ALL_OF_C : : "memory");
}

#undef ALL_OF_C
#undef SIXTEEN
#undef FOUR

#endif
