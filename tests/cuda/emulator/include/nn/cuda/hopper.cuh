/* hopper.cuh - in the place of common/nn/cuda/hopper.cuh: what PTX says of its instructions, in C++
 * (../../../hopper.cpp). What goes on beside the threads happens as late as can be, and what it will overwrite is NaN
 * at once. */
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

enum { PRODUCT_NUMBERS = 128 }; /* of c, that a lane holds */
void product_begun(const place &at, float *c, uint64_t a, uint64_t b, bool add);
void products_fenced(const place &at);
void products_committed(const place &at);
void products_done(const place &at, int but);

} // namespace mode_emu

static inline uint32_t shared_address(const void *p)
{
    return mode_emu::shared_offset(p);
}

static inline void barrier_init(uint64_t *b, uint32_t arrivals)
{
    mode_emu::barrier_made(b, arrivals);
}

static inline void barriers_are_made(void)
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

static inline bool barrier_passed(uint64_t *b, uint32_t parity)
{
    mode_emu::barrier_wait({"barrier_passed", "hopper.cuh", 0}, b, parity);
    return true;
}

static inline uint32_t cluster_rank(void)
{
    return (uint32_t)mode_emu::self->rank;
}

static inline void cluster_meet(void)
{
    mode_emu::meet_cluster({"cluster_meet", "hopper.cuh", 0});
}

static inline void bulk_copy(void *to, const void *from, uint32_t bytes, uint64_t *b)
{
    mode_emu::copy_in_bulk(to, from, bytes, b, (uint16_t)(1 << mode_emu::self->rank));
}

static inline void bulk_copy_to(void *to, const void *from, uint32_t bytes, uint64_t *b, uint16_t blocks)
{
    mode_emu::copy_in_bulk(to, from, bytes, b, blocks);
}

template <int N> static inline void fewer_registers(void)
{
    static_assert(N >= 24 && N <= 256 && N % 8 == 0);
}

template <int N> static inline void more_registers(void)
{
    static_assert(N >= 24 && N <= 256 && N % 8 == 0);
}

static inline uint64_t tile_operand(const void *tile)
{
    return (uint64_t)1 << 62 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 16 | (shared_address(tile) & 0x3ffff) >> 4;
}

static inline uint64_t tile_columns(uint64_t operand, int sixteens)
{
    return operand + (uint64_t)(sixteens * 32 >> 4);
}

static inline void products_begin(void)
{
    mode_emu::products_fenced({"products_begin", "hopper.cuh", 0});
}

static inline void product_64_256(float (&c)[mode_emu::PRODUCT_NUMBERS], uint64_t a, uint64_t b, bool add)
{
    mode_emu::product_begun({"product_64_256", "hopper.cuh", 0}, c, a, b, add);
}

static inline void products_commit(void)
{
    mode_emu::products_committed({"products_commit", "hopper.cuh", 0});
}

static inline void products_wait_but_one(void)
{
    mode_emu::products_done({"products_wait_but_one", "hopper.cuh", 0}, 1);
}

static inline void products_wait(float (&)[mode_emu::PRODUCT_NUMBERS])
{
    mode_emu::products_done({"products_wait", "hopper.cuh", 0}, 0);
}

#endif
