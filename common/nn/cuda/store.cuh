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

template <int V, typename T> static __device__ inline void load(float (&to)[V], const T *from)
{
    pack<T, V> p = *(const pack<T, V> *)from;
#pragma unroll
    for (int v = 0; v < V; v++) to[v] = widen(p.x[v]);
}

template <int V, typename T> static __device__ inline void store(T *to, const float (&from)[V])
{
    pack<T, V> p;
#pragma unroll
    for (int v = 0; v < V; v++) narrow(&p.x[v], from[v]);
    *(pack<T, V> *)to = p;
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
