/* hopper.cuh - replaces common/nn/cuda/hopper.cuh: the PTX instructions in C++ (../../../hopper.cpp). Asynchronous
 * operations complete as late as they may, and their destinations are NaN until then. */
#ifndef MODE_NN_CUDA_HOPPER_CUH
#define MODE_NN_CUDA_HOPPER_CUH

#include <cuda_runtime.h>

namespace mode_emu
{

void barrier_made(void *b, uint32_t arrivals);
void barriers_fenced();
void barrier_expects(void *b, uint32_t bytes);
void barrier_arrived(void *b, uint32_t block);
void barrier_wait(const place &at, void *b, uint32_t parity);
void copy_in_bulk(void *to, const void *from, uint32_t bytes, void *b, uint16_t blocks);

enum { ACCUMULATORS = 128 }; /* elements of c per lane */
void wgmma_begun(const place &at, float *c, uint64_t a, uint64_t b, bool add);
void wgmma_fenced(const place &at);
void wgmma_committed(const place &at);
void wgmma_awaited(const place &at, int but);

} // namespace mode_emu

static inline uint32_t shared_address(const void *p)
{
    return mode_emu::shared_offset(p);
}

static inline void barrier_init(uint64_t *b, uint32_t arrivals)
{
    mode_emu::barrier_made(b, arrivals);
}

static inline void fence_barrier_init(void)
{
    mode_emu::barriers_fenced();
}

static inline void barrier_expect(uint64_t *b, uint32_t bytes)
{
    mode_emu::barrier_expects(b, bytes);
}

static inline void barrier_arrive(uint64_t *b, uint32_t block)
{
    mode_emu::barrier_arrived(b, block);
}

static inline bool barrier_try_wait(uint64_t *b, uint32_t parity)
{
    mode_emu::barrier_wait({"barrier_try_wait", "hopper.cuh", 0}, b, parity);
    return true;
}

static inline uint32_t cluster_rank(void)
{
    return (uint32_t)mode_emu::self->rank;
}

static inline void cluster_sync(void)
{
    mode_emu::meet_cluster({"cluster_sync", "hopper.cuh", 0});
}

static inline void bulk_copy(void *to, const void *from, uint32_t bytes, uint64_t *b)
{
    mode_emu::copy_in_bulk(to, from, bytes, b, (uint16_t)(1 << mode_emu::self->rank));
}

static inline void bulk_copy_multicast(void *to, const void *from, uint32_t bytes, uint64_t *b, uint16_t blocks)
{
    mode_emu::copy_in_bulk(to, from, bytes, b, blocks);
}

template <int N> static inline void registers_dealloc(void)
{
    static_assert(N >= 24 && N <= 256 && N % 8 == 0);
}

template <int N> static inline void registers_alloc(void)
{
    static_assert(N >= 24 && N <= 256 && N % 8 == 0);
}

static inline uint64_t tile_descriptor(const void *tile)
{
    return (uint64_t)1 << 62 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 16 | (shared_address(tile) & 0x3ffff) >> 4;
}

static inline uint64_t descriptor_advance(uint64_t operand, int sixteens)
{
    return operand + (uint64_t)(sixteens * 32 >> 4);
}

static inline void wgmma_fence(void)
{
    mode_emu::wgmma_fenced({"wgmma_fence", "hopper.cuh", 0});
}

static inline void wgmma_m64n256k16(float (&c)[mode_emu::ACCUMULATORS], uint64_t a, uint64_t b, bool add)
{
    mode_emu::wgmma_begun({"wgmma_m64n256k16", "hopper.cuh", 0}, c, a, b, add);
}

static inline void wgmma_commit_group(void)
{
    mode_emu::wgmma_committed({"wgmma_commit_group", "hopper.cuh", 0});
}

static inline void wgmma_wait_all_but_one(void)
{
    mode_emu::wgmma_awaited({"wgmma_wait_all_but_one", "hopper.cuh", 0}, 1);
}

static inline void wgmma_wait_all(float (&)[mode_emu::ACCUMULATORS])
{
    mode_emu::wgmma_awaited({"wgmma_wait_all", "hopper.cuh", 0}, 0);
}

#endif
