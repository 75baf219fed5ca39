/* store.cuh - loads and stores of activations, f32 or bf16; arithmetic is f32. Kernels are templates of the type T and
 * the vector width V of a thread's accesses: 16 bytes where alignment allows it, else 1 element. */
#ifndef MODE_NN_CUDA_STORE_CUH
#define MODE_NN_CUDA_STORE_CUH

#include "nn/cuda/block.cuh"

#include <cuda_bf16.h>

static __device__ inline float widen(float x)
{
    return x;
}

static __device__ inline float widen(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}

static __device__ inline void narrow(float *to, float x)
{
    *to = x;
}

static __device__ inline void narrow(__nv_bfloat16 *to, float x)
{
    *to = __float2bfloat16_rn(x);
}

/* The reverse of narrow_pair */
static __device__ inline void widen_pair(const __nv_bfloat16 *, uint32_t pair, float &x, float &y)
{
    x = __uint_as_float(pair << 16);
    y = __uint_as_float(pair & 0xffff0000);
}

/* Two elements as they are stored; `to` selects the type. */
static __device__ inline uint32_t narrow_pair(const __nv_bfloat16 *, float x, float y)
{
    const __nv_bfloat162 pair = __floats2bfloat162_rn(x, y);
    return *(const uint32_t *)&pair;
}

/* x rounded to T. */
template <typename T> static __device__ inline float stored(float x)
{
    T t;
    narrow(&t, x);
    return widen(t);
}

template <typename T, int V> struct alignas(sizeof(T) * V < 16 ? sizeof(T) * V : 16) pack {
    T x[V];
};

/* Elements of 16 bits are widened in pairs: an upper half needs a mask alone. */
template <int V, typename T> static __device__ inline void load(float (&to)[V], const T *from)
{
    if constexpr (sizeof(T) == 2 && V % 2 == 0) {
        const pack<uint32_t, V / 2> p = *(const pack<uint32_t, V / 2> *)from;
#pragma unroll
        for (int v = 0; v < V; v += 2) widen_pair(from, p.x[v / 2], to[v], to[v + 1]);
    } else {
        const pack<T, V> p = *(const pack<T, V> *)from;
#pragma unroll
        for (int v = 0; v < V; v++) to[v] = widen(p.x[v]);
    }
}

/* As one access: of arrays nvcc makes several. */
static __device__ inline void store_words(void *to, const uint32_t (&w)[1])
{
    *(uint32_t *)to = w[0];
}

static __device__ inline void store_words(void *to, const uint32_t (&w)[2])
{
    *(double *)to = __hiloint2double((int)w[1], (int)w[0]);
}

static __device__ inline void store_words(void *to, const uint32_t (&w)[4])
{
    pack<uint32_t, 4> p = {{w[0], w[1], w[2], w[3]}};
    *(pack<uint32_t, 4> *)to = p;
}

/* Elements of 16 bits are rounded in pairs, by one instruction each. */
template <int V, typename T> static __device__ inline void store(T *to, const float (&from)[V])
{
    if constexpr (sizeof(T) == 2 && V % 2 == 0) {
        uint32_t w[V / 2];
#pragma unroll
        for (int v = 0; v < V; v += 2) w[v / 2] = narrow_pair(to, from[v], from[v + 1]);
        store_words(to, w);
    } else {
        pack<T, V> p;
#pragma unroll
        for (int v = 0; v < V; v++) narrow(&p.x[v], from[v]);
        *(pack<T, V> *)to = p;
    }
}

/* Are all rows of n elements aligned to 16 bytes? bytes: the size of the smallest element type in use. */
template <typename... P> static inline bool wide_rows(int64_t n, int64_t bytes, const P *...p)
{
    uintptr_t all = 0;
    int unpack[] = {0, (all |= (uintptr_t)p, 0)...};
    (void)unpack;
    return all % 16 == 0 && n * bytes % 16 == 0;
}

/* The statement with T and V set: bf16 or f32, 16 bytes or one element at a time. */
#define BY_TYPE(bf16, ...)                                                                                             \
    do {                                                                                                               \
        if (bf16) {                                                                                                    \
            using T = __nv_bfloat16;                                                                                   \
            __VA_ARGS__;                                                                                               \
        } else {                                                                                                       \
            using T = float;                                                                                           \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
    } while (0)
#define BY_WIDTH(wide, ...)                                                                                            \
    do {                                                                                                               \
        if (wide) {                                                                                                    \
            constexpr int V = 16 / sizeof(T);                                                                          \
            __VA_ARGS__;                                                                                               \
        } else {                                                                                                       \
            constexpr int V = 1;                                                                                       \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
    } while (0)

#endif
