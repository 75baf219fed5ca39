/* block.h - a block of threads on the host: indices, barriers, warp operations, shared memory, launches.
 *
 * The threads of a block are fibers of one host thread. A fiber runs until it reaches a barrier or a warp operation,
 * then the next one runs; what is undefined on a GPU (a barrier that some threads never reach, a shuffle from an
 * inactive lane) ends the program with a report. Blocks run one after another. */
#ifndef MODE_EMULATOR_BLOCK_H
#define MODE_EMULATOR_BLOCK_H

#include <cuda_runtime_api.h>
#include <vector_types.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __managed__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__

enum cudaLaunchAttributeID { cudaLaunchAttributeClusterDimension = 4 };
struct cudaLaunchAttribute {
    cudaLaunchAttributeID id;
    struct {
        struct {
            unsigned x, y, z;
        } clusterDim;
    } val;
};
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
    cudaLaunchAttribute *attrs;
    unsigned numAttrs;
};

namespace mode_emu {

struct place {
    const char *what, *file;
    int line;
};

/* A device thread's view of itself. */
struct thread_view {
    uint3 thread, block;
    int lane;   /* in its warp */
    int rank;   /* of its block in the cluster */
    int copies; /* asynchronous copies (cuda_pipeline.h) and wgmmas (hopper.cpp) in flight */
};
extern thread_view *self;
extern dim3 block_size, grid_size;

/* Report a fault of the running kernel and end the program. */
[[noreturn]] void fault(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Barrier of all threads of the block that have not ended. Returns how many passed a value other than 0; *all: whether
 * each did. */
int meet_block(const place &at, int value, bool *all);

/* All lanes of mask that have not ended meet; the last to arrive runs work(payloads of all lanes, mask of those
 * present). */
void meet_warp(const place &at, unsigned mask, void *payload, void (*work)(void *const payload[32], unsigned present));
unsigned active_lanes();
/* Barrier of all threads of the cluster that have not ended. */
void meet_cluster(const place &at);
/* Blocks until `wake` is called for the same bed. */
void sleep_for(const place &at, const void *bed);
void wake(const void *bed);
bool is_slept_for(const void *bed);
void let_others_go_on();

/* The block's storage for one declaration of a shared variable, the same for all its threads. */
void *shared_memory(const void *declaration, size_t bytes);
void *dynamic_shared_memory();
/* Offset of p in the block's shared memory; address of an offset in a block of the cluster. */
uint32_t shared_offset(const void *p);
void *shared_at(uint32_t offset, int block);

/* __launch_bounds__: checks the threads per block; the minimum of blocks per multiprocessor is ignored. */
void check_bounds(int threads, int blocks = 0);

/* Enqueues a kernel. function: whose attributes apply; cluster: blocks per cluster; arguments: the bytes of each, for a
 * kernel that is executed as PTX */
void launch(const char *name, const void *function, dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
            unsigned cluster, std::function<void()> body, std::function<void()> recheck,
            std::vector<std::string> arguments);
/* Kernel arguments must be device or managed memory, or NULL. */
void check_argument(const char *kernel, int number, const void *p);
cudaError_t set_attribute(const void *function, cudaFuncAttribute attribute, int value);

template <typename T> void check(const char *, int, const T &) {}
template <typename T> void check(const char *kernel, int number, T *p)
{
    check_argument(kernel, number, (const void *)p);
}

template <typename... P> struct kernel {
    const char *name;
    void (*function)(P...);
    struct call {
        const kernel k;
        dim3 grid, block;
        size_t shared;
        cudaStream_t stream;
        unsigned cluster;
        void operator()(P... p) const
        {
            static_assert((sizeof(P) + ... + 0) <= 4096, "a kernel takes 4 KiB of arguments");
            int number = 0;
            (check(k.name, ++number, p), ...);
            launch(
                k.name, (const void *)k.function, grid, block, shared, stream, cluster,
                [f = k.function, args = std::tuple<std::remove_const_t<P>...>(p...)] { std::apply(f, args); },
                [name = k.name, args = std::tuple<std::remove_const_t<P>...>(p...)] {
                    std::apply([name](const auto &...a) { int i = 0; (check(name, ++i, a), ...); }, args);
                },
                {std::string((const char *)&p, sizeof p)...});
        }
    };
    call operator()(dim3 grid, dim3 block, size_t shared = 0, cudaStream_t stream = nullptr, unsigned cluster = 1) const
    {
        return {*this, grid, block, shared, stream, cluster};
    }
};
template <typename... P> kernel<P...> kernel_of(const char *name, void (*f)(P...))
{
    return {name, f};
}

template <typename T> struct shuffle {
    T value;
    int from;
    T result;
    static void work(void *const payload[32], unsigned present)
    {
        for (int i = 0; i < 32; i++) {
            if (!(present >> i & 1)) continue;
            auto *s = (shuffle *)payload[i];
            if (!(present >> s->from & 1))
                fault("lane %d reads the value of lane %d, which has ended or is not in the mask", i, s->from);
            s->result = ((const shuffle *)payload[s->from])->value;
        }
    }
};
template <typename T> T shuffle_from(const place &at, unsigned mask, T x, int from)
{
    shuffle<T> s = {x, from, x};
    meet_warp(at, mask, &s, shuffle<T>::work);
    return s.result;
}
/* CUDA's rules for segments of `width` lanes; a source outside the segment gives the lane's own value. */
template <typename T> T shuffle_index(const place &at, unsigned mask, T x, int lane, int width = 32)
{
    return shuffle_from(at, mask, x, (self->lane & ~(width - 1)) | (lane & (width - 1)));
}
template <typename T> T shuffle_xor(const place &at, unsigned mask, T x, int bits, int width = 32)
{
    int to = self->lane ^ bits;
    return shuffle_from(at, mask, x, to <= (self->lane | (width - 1)) ? to : self->lane);
}
template <typename T> T shuffle_down(const place &at, unsigned mask, T x, unsigned by, int width = 32)
{
    int to = self->lane + (int)by;
    return shuffle_from(at, mask, x, to <= (self->lane | (width - 1)) ? to : self->lane);
}
template <typename T> T shuffle_up(const place &at, unsigned mask, T x, unsigned by, int width = 32)
{
    int to = self->lane - (int)by;
    return shuffle_from(at, mask, x, to >= (self->lane & ~(width - 1)) ? to : self->lane);
}

struct vote {
    int value;
    unsigned ballot, present;
    static void work(void *const payload[32], unsigned present)
    {
        unsigned ballot = 0;
        for (int i = 0; i < 32; i++)
            if (present >> i & 1) ballot |= (unsigned)(((vote *)payload[i])->value != 0) << i;
        for (int i = 0; i < 32; i++)
            if (present >> i & 1) {
                ((vote *)payload[i])->ballot = ballot;
                ((vote *)payload[i])->present = present;
            }
    }
};
static inline vote votes(const place &at, unsigned mask, int value)
{
    vote v = {value, 0, 0};
    meet_warp(at, mask, &v, vote::work);
    return v;
}

struct match {
    int64_t value;
    unsigned same;
    static void work(void *const payload[32], unsigned present)
    {
        for (int i = 0; i < 32; i++) {
            if (!(present >> i & 1)) continue;
            match *m = (match *)payload[i];
            for (int j = 0; j < 32; j++)
                if (present >> j & 1 && ((const match *)payload[j])->value == m->value) m->same |= 1u << j;
        }
    }
};
static inline unsigned matches(const place &at, unsigned mask, int64_t value)
{
    match m = {value, 0};
    meet_warp(at, mask, &m, match::work);
    return m.same;
}

template <typename T> struct reduction {
    T value;
    T (*combine)(T, T);
    static void work(void *const payload[32], unsigned present)
    {
        bool first = true;
        T all{};
        for (int i = 0; i < 32; i++)
            if (present >> i & 1) {
                auto *r = (reduction *)payload[i];
                all = first ? r->value : r->combine(all, r->value);
                first = false;
            }
        for (int i = 0; i < 32; i++)
            if (present >> i & 1) ((reduction *)payload[i])->value = all;
    }
};
template <typename T> T reduce(const place &at, unsigned mask, T x, T (*combine)(T, T))
{
    reduction<T> r = {x, combine};
    meet_warp(at, mask, &r, reduction<T>::work);
    return r.value;
}

} // namespace mode_emu

#define threadIdx (mode_emu::self->thread)
#define blockIdx (mode_emu::self->block)
static const dim3 &blockDim [[maybe_unused]] = mode_emu::block_size, &gridDim [[maybe_unused]] = mode_emu::grid_size;
static const int warpSize = 32;

/* What rewrite.sh writes in place of kernel<<<...>>>, __shared__ and extern __shared__ */
#define MODE_EMU_KERNEL(...) mode_emu::kernel_of(#__VA_ARGS__, __VA_ARGS__)
#define MODE_EMU_SHARED(name, ...)                                                                                     \
    using name##_shared = __VA_ARGS__;                                                                                 \
    static char name##_declared;                                                                                       \
    auto &name = *(name##_shared *)mode_emu::shared_memory(&name##_declared, sizeof(name##_shared))

#define MODE_EMU_AT(what)                                                                                              \
    ([]() -> const mode_emu::place & {                                                                                 \
        static const mode_emu::place at = {what, __FILE__, __LINE__};                                                  \
        return at;                                                                                                     \
    }())
#define __syncthreads() ((void)mode_emu::meet_block(MODE_EMU_AT("__syncthreads"), 0, nullptr))
#define __syncthreads_count(x) mode_emu::meet_block(MODE_EMU_AT("__syncthreads_count"), (x) != 0, nullptr)
#define __syncthreads_or(x) (mode_emu::meet_block(MODE_EMU_AT("__syncthreads_or"), (x) != 0, nullptr) > 0)
#define __syncthreads_and(x)                                                                                           \
    ([&] {                                                                                                             \
        bool every;                                                                                                    \
        (void)mode_emu::meet_block(MODE_EMU_AT("__syncthreads_and"), (x) != 0, &every);                                \
        return (int)every;                                                                                             \
    }())
#define MODE_EMU_WARP_SYNC(mask, ...) ((void)mode_emu::votes(MODE_EMU_AT("__syncwarp"), mask, 0))
#define __syncwarp(...) MODE_EMU_WARP_SYNC(__VA_ARGS__ __VA_OPT__(, ) 0xffffffffu)
#define __shfl_sync(...) mode_emu::shuffle_index(MODE_EMU_AT("__shfl_sync"), __VA_ARGS__)
#define __shfl_xor_sync(...) mode_emu::shuffle_xor(MODE_EMU_AT("__shfl_xor_sync"), __VA_ARGS__)
#define __shfl_down_sync(...) mode_emu::shuffle_down(MODE_EMU_AT("__shfl_down_sync"), __VA_ARGS__)
#define __shfl_up_sync(...) mode_emu::shuffle_up(MODE_EMU_AT("__shfl_up_sync"), __VA_ARGS__)
#define __ballot_sync(mask, x) (mode_emu::votes(MODE_EMU_AT("__ballot_sync"), mask, (x) != 0).ballot)
#define __any_sync(mask, x) (mode_emu::votes(MODE_EMU_AT("__any_sync"), mask, (x) != 0).ballot != 0)
#define __all_sync(mask, x)                                                                                            \
    ([&] {                                                                                                             \
        mode_emu::vote v = mode_emu::votes(MODE_EMU_AT("__all_sync"), mask, (x) != 0);                                 \
        return (int)(v.ballot == v.present);                                                                           \
    }())
#define __match_any_sync(mask, x) mode_emu::matches(MODE_EMU_AT("__match_any_sync"), mask, (int64_t)(x))
#define __activemask() mode_emu::active_lanes()
#define MODE_EMU_REDUCE(name, T, mask, x, expression)                                                                  \
    mode_emu::reduce<T>(MODE_EMU_AT(name), mask, x, [](T a, T b) -> T { return expression; })
#define __reduce_add_sync(mask, x) MODE_EMU_REDUCE("__reduce_add_sync", std::decay_t<decltype(x)>, mask, x, a + b)
#define __reduce_min_sync(mask, x)                                                                                     \
    MODE_EMU_REDUCE("__reduce_min_sync", std::decay_t<decltype(x)>, mask, x, a < b ? a : b)
#define __reduce_max_sync(mask, x)                                                                                     \
    MODE_EMU_REDUCE("__reduce_max_sync", std::decay_t<decltype(x)>, mask, x, a > b ? a : b)
#define __reduce_or_sync(mask, x) MODE_EMU_REDUCE("__reduce_or_sync", unsigned, mask, x, a | b)

static inline void __threadfence() {}
static inline void __threadfence_block() {}
static inline void __nanosleep(unsigned) {}

/* Loads and stores with cache hints. */
template <typename T> static inline T __ldg(const T *p)
{
    return *p;
}
template <typename T> static inline T __ldcs(const T *p)
{
    return *p;
}
template <typename T> static inline T __ldcg(const T *p)
{
    return *p;
}
template <typename T> static inline void __stcs(T *p, T x)
{
    *p = x;
}
template <typename T> static inline void __stcg(T *p, T x)
{
    *p = x;
}

/* Atomics are plain: only one host thread runs. */
template <typename T, typename F> static inline T mode_emu_exchange(T *p, F f)
{
    T old = *p;
    *p = f(old);
    return old;
}
template <typename T> static inline T atomicAdd(T *p, std::common_type_t<T> x)
{
    return mode_emu_exchange(p, [=](T o) { return (T)(o + x); });
}
template <typename T> static inline T atomicMax(T *p, std::common_type_t<T> x)
{
    return mode_emu_exchange(p, [=](T o) { return o > x ? o : x; });
}
template <typename T> static inline T atomicMin(T *p, std::common_type_t<T> x)
{
    return mode_emu_exchange(p, [=](T o) { return o < x ? o : x; });
}
template <typename T> static inline T atomicOr(T *p, std::common_type_t<T> x)
{
    return mode_emu_exchange(p, [=](T o) { return (T)(o | x); });
}
template <typename T> static inline T atomicExch(T *p, std::common_type_t<T> x)
{
    return mode_emu_exchange(p, [=](T) { return x; });
}
template <typename T> static inline T atomicCAS(T *p, std::common_type_t<T> expected, std::common_type_t<T> x)
{
    return mode_emu_exchange(p, [=](T o) { return o == expected ? x : o; });
}

/* Arithmetic. Fast intrinsics are exact except where the CUDA C++ guide gives their form: exponentials are powers of
 * two of a rounded product, and the reciprocal of a large divisor is 0. Their other errors show on a GPU only. */
using std::max;
using std::min;
static inline float mode_emu_fast_exp(float x)
{
    return exp2f(x * 1.44269504f);
}
#define __expf mode_emu_fast_exp /* the C library declares these names too */
#define __exp2f exp2f
#define __logf logf
#define __log2f log2f
static inline float __fdividef(float a, float b)
{
    return a / (fabsf(b) > 0x1p126f && !std::isinf(b) ? copysignf(INFINITY, b) : b);
}
static inline float __frcp_rn(float x)
{
    return 1 / x;
}
static inline float __fsqrt_rn(float x)
{
    return sqrtf(x);
}
static inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}
static inline float __fmul_rn(float a, float b)
{
    return a * b;
}
static inline float __fadd_rn(float a, float b)
{
    return a + b;
}
static inline float rsqrtf(float x)
{
    return 1 / sqrtf(x);
}
static inline double rsqrt(double x)
{
    return 1 / sqrt(x);
}
static inline float __saturatef(float x)
{
    return x > 0 ? x < 1 ? x : 1 : 0;
}
template <typename To, typename From> static inline To mode_emu_bits(From x)
{
    static_assert(sizeof(To) == sizeof(From));
    To y;
    memcpy(&y, &x, sizeof y);
    return y;
}
static inline int __float_as_int(float x)
{
    return mode_emu_bits<int>(x);
}
static inline unsigned __float_as_uint(float x)
{
    return mode_emu_bits<unsigned>(x);
}
static inline float __int_as_float(int x)
{
    return mode_emu_bits<float>(x);
}
static inline float __uint_as_float(unsigned x)
{
    return mode_emu_bits<float>(x);
}
static inline long long __double_as_longlong(double x)
{
    return mode_emu_bits<long long>(x);
}
static inline double __longlong_as_double(long long x)
{
    return mode_emu_bits<double>(x);
}
static inline double __hiloint2double(int high, int low)
{
    return mode_emu_bits<double>((uint64_t)(uint32_t)high << 32 | (uint32_t)low);
}
static inline int __float2int_rn(float x)
{
    return (int)nearbyintf(x);
}
static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
static inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
static inline int __clz(int x)
{
    return x ? __builtin_clz((unsigned)x) : 32;
}
static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)((uint64_t)a * b >> 32);
}

static inline size_t __cvta_generic_to_shared(const void *p)
{
    return (size_t)p;
}

template <typename R, typename... P>
static inline cudaError_t cudaFuncSetAttribute(R (*f)(P...), cudaFuncAttribute attribute, int value)
{
    return mode_emu::set_attribute((const void *)f, attribute, value);
}
struct cudaFuncAttributes {
    int numRegs;
};
template <typename R, typename... P>
static inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *a, R (*)(P...))
{
    *a = {};
    int major = 0;
    cudaError_t e = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
    return e ? e : major < 8 ? cudaErrorNoKernelImageForDevice : cudaSuccess; /* as cuda.cmake builds for */
}
template <typename... P>
static inline cudaError_t cudaOccupancyMaxActiveClusters(int *n, void (*)(P...), const cudaLaunchConfig_t *config)
{
    int multiprocessors;
    cudaError_t e = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0);
    *n = multiprocessors;
    for (unsigned i = 0; i < config->numAttrs; i++) *n /= (int)config->attrs[i].val.clusterDim.x;
    return e;
}
template <typename... P, typename... A>
static inline cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config, void (*f)(P...), A &&...a)
{
    unsigned cluster = 1;
    for (unsigned i = 0; i < config->numAttrs; i++) {
        if (config->attrs[i].id != cudaLaunchAttributeClusterDimension) return cudaErrorInvalidValue;
        cluster = config->attrs[i].val.clusterDim.x;
    }
    cudaError_t before = cudaPeekAtLastError();
    mode_emu::kernel_of("by cudaLaunchKernelEx", f)(config->gridDim, config->blockDim, config->dynamicSmemBytes,
                                                    config->stream, cluster)(std::forward<A>(a)...);
    return before == cudaSuccess ? cudaPeekAtLastError() : cudaSuccess;
}
template <typename T> static inline cudaError_t cudaMalloc(T **p, size_t bytes)
{
    return cudaMalloc((void **)p, bytes);
}

#endif
