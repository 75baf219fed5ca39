/* hopper.cuh - what compute capability 9.0 alone has (sm_90a): barriers that count bytes, bulk copies into the shared
 * memory of a cluster's blocks, and products by four warps whose operands lie in shared memory.
 *
 * An operand of a product is a tile of rows of 64 numbers of fp16: row r is the 128 bytes at r * 128, and its 16 bytes
 * number c (columns 8 c .. 8 c + 7) lie at place c ^ r % 8 of them ("128-byte swizzle", K-major); tiles begin at
 * multiples of 1024 bytes. Whoever stores tiles so in global memory gets one into shared memory by a plain copy.
 * Source: PTX ISA, "mbarrier", "cp.async.bulk", "Asynchronous Warpgroup Level Matrix Instructions". On the host
 * tests/cuda/emulator/include/nn/cuda/hopper.cuh stands in for this file. */
#ifndef MODE_NN_CUDA_HOPPER_CUH
#define MODE_NN_CUDA_HOPPER_CUH

#include <stdint.h>

static __device__ inline uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* ---- barriers: a phase ends when all arrivals that were expected have come, and all bytes ---- */

static __device__ inline void barrier_init(uint64_t *b, uint32_t arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(arrivals) : "memory");
}

/* After the last barrier_init and before the cluster meets: barriers are what copies and other blocks will see. */
static __device__ inline void barriers_are_made(void)
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

/* One arrival; the phase waits for that many bytes besides. */
static __device__ inline void barrier_expect(uint64_t *b, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)), "r"(bytes)
                 : "memory");
}

/* One arrival at this barrier's like in a block of the cluster. It orders what this block has done with copies and
 * products, not what it wrote to memory for others: that, ".release.cluster", waits for all writes of the thread to
 * reach the second cache, for as long as a stage takes to multiply. */
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

/* Has the phase of that parity ended? Waits a while before it says no. Phases count from 0; "1" is true at first. What
 * copies brought is seen then; what other blocks wrote need not be (".acquire.cluster" empties the first cache). */
static __device__ inline bool barrier_passed(uint64_t *b, uint32_t parity)
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

/* All threads of all blocks of the cluster meet. */
static __device__ inline void cluster_meet(void)
{
    asm volatile("barrier.cluster.arrive.release;\n"
                 "barrier.cluster.wait.acquire;" ::
                     : "memory");
}

/* `bytes` from global memory to shared memory, both at multiples of 16; they count at the barrier when they are there.
 */
static __device__ inline void bulk_copy(void *to, const void *from, uint32_t bytes, uint64_t *b)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(to)),
                 "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(shared_address(b))
                 : "memory");
}

/* The same to the same place in each block of the cluster that `blocks` names, and at each one's barrier. */
static __device__ inline void bulk_copy_to(void *to, const void *from, uint32_t bytes, uint64_t *b, uint16_t blocks)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, "
                 "[%3], %4;" ::"r"(shared_address(to)),
                 "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(shared_address(b)), "h"(blocks)
                 : "memory");
}

/* ---- products ---- */

/* Registers of each thread from now on; by whole warpgroups, a multiple of 8. */
template <int N> static __device__ inline void fewer_registers(void)
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

template <int N> static __device__ inline void more_registers(void)
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

/* A tile as an operand: 8 rows of 128 bytes lie 1024 bytes apart. 16 columns further: tile_columns. */
static __device__ inline uint64_t tile_operand(const void *tile)
{
    return (uint64_t)1 << 62 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 16 | (shared_address(tile) & 0x3ffff) >> 4;
}

static __device__ inline uint64_t tile_columns(uint64_t operand, int sixteens)
{
    return operand + (uint64_t)(sixteens * 32 >> 4);
}

#define FOUR(i)    "+f"(c[i]), "+f"(c[(i) + 1]), "+f"(c[(i) + 2]), "+f"(c[(i) + 3])
#define SIXTEEN(i) FOUR(i), FOUR((i) + 4), FOUR((i) + 8), FOUR((i) + 12)
#define ALL_OF_C   SIXTEEN(0), SIXTEEN(16), SIXTEEN(32), SIXTEEN(48), SIXTEEN(64), SIXTEEN(80), SIXTEEN(96), SIXTEEN(112)

/* Before the first product, and after registers of c have been touched. */
static __device__ inline void products_begin(void)
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

/* c [64, 256] = a [64, 16] b [256, 16]^T, plus c where `add`, by four warps; done when it has been waited for. Thread t
 * of the 128 holds of c rows t / 32 * 16 + t % 32 / 4 (c[4 j], c[4 j + 1]) and 8 further down (c[4 j + 2], c[4 j + 3]),
 * columns 8 j + 2 (t % 4) and the next one. */
static __device__ inline void product_64_256(float (&c)[128], uint64_t a, uint64_t b, bool add)
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

/* Products since the last one of these are a group. */
static __device__ inline void products_commit(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Wait for all groups but the last: what they read may be overwritten. */
static __device__ inline void products_wait_but_one(void)
{
    asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
}

/* Wait for all: c may be read. */
static __device__ inline void products_wait(float (&c)[128])
{
    asm volatile("wgmma.wait_group.sync.aligned 0;" : ALL_OF_C : : "memory");
}

#undef ALL_OF_C
#undef SIXTEEN
#undef FOUR

#endif
