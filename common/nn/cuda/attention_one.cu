/* attention_one.cu - attention with one query per sequence: the last block of a tower, of which one row is used.
 *
 * DESIGN: memory-bound, as keys are not shared between queries. A block takes one head of one sequence; its 4 warps
 * stride over the keys, lanes are channels. Each warp has its own running maximum, sum and output, which are combined
 * in shared memory at the end, in warp order. In the backward pass a key's gradients need no reduction, and the query's
 * is reduced like the output. f32 and bf16, arithmetic in f32. */
#include "nn/cuda/attention.cuh"

#include <math_constants.h>

static constexpr int WARPS = 4;

/* C: channels per lane, dh <= 32 C */
template <int C, typename T> static __device__ inline void head(float (&to)[C], const T *x, int dh)
{
#pragma unroll
    for (int c = 0; c < C; c++) to[c] = (int)threadIdx.x + c * WARP < dh ? widen(x[threadIdx.x + c * WARP]) : 0;
}

template <int C> static __device__ inline float dot(const float (&a)[C], const float (&b)[C])
{
    float s = 0;
#pragma unroll
    for (int c = 0; c < C; c++) s += a[c] * b[c];
    return warp_sum(s);
}

template <int C, typename T> static __global__ void forward(T *out, float *lse, struct mode__cuda_attention a)
{
    __shared__ float maxima[WARPS];
    __shared__ float sums[WARPS];
    __shared__ float parts[WARPS][C * WARP];
    const int dh = (int)a.dh, h = blockIdx.y, lane = threadIdx.x, warp = threadIdx.y;
    const int64_t i = blockIdx.x;
    const float scale = 1 / sqrtf((float)dh);
    const struct span sees = seen_by<false>(a, i);
    const struct side<T> q = queries<T>(a, nullptr, h), kv = keys<T>(a, h);
    float x[C], k[C], v[C], o[C] = {0}, row_max = -CUDART_INF_F, sum = 0;
    head(x, q.first + i * q.ld_first, dh);
    for (int64_t j = sees.from + warp; j < sees.end; j += WARPS) {
        head(k, kv.first + j * kv.ld_first, dh);
        head(v, kv.second + j * kv.ld_second, dh);
        float s = scale * dot(x, k), new_max = fmaxf(row_max, s), rescale = expf(row_max - new_max),
              p = expf(s - new_max);
        row_max = new_max;
        sum = sum * rescale + p;
#pragma unroll
        for (int c = 0; c < C; c++) o[c] = o[c] * rescale + p * v[c];
    }
    if (lane == 0) maxima[warp] = row_max;
    if (lane == 0) sums[warp] = sum;
#pragma unroll
    for (int c = 0; c < C; c++) parts[warp][lane + c * WARP] = o[c];
    __syncthreads();
    float new_max = maxima[0], all = 0; /* warp 0 has a key: no sequence is empty */
    for (int w = 1; w < WARPS; w++) new_max = fmaxf(new_max, maxima[w]);
    for (int w = 0; w < WARPS; w++) all += sums[w] * expf(maxima[w] - new_max);
    for (int c = warp * WARP + lane; c < dh; c += WARPS * WARP) {
        float y = 0;
        for (int w = 0; w < WARPS; w++) y += parts[w][c] * expf(maxima[w] - new_max);
        narrow(out + i * a.heads * dh + h * dh + c, y / all);
    }
    if (lse && warp == 0 && lane == 0) lse[i * a.heads + h] = new_max + logf(all);
}

template <int C, typename T>
static __global__ void back(T *dq, T *dkv, const T *dout, const T *out, const float *lse, struct mode__cuda_attention a)
{
    __shared__ float parts[WARPS][C * WARP];
    const int dh = (int)a.dh, h = blockIdx.y, lane = threadIdx.x, warp = threadIdx.y;
    const int64_t i = blockIdx.x;
    const float scale = 1 / sqrtf((float)dh), l = lse[i * a.heads + h];
    const struct span sees = seen_by<false>(a, i);
    const struct side<T> q = queries(a, dout, h), kv = keys<T>(a, h);
    float x[C], go[C], o[C], k[C], v[C], g[C] = {0};
    head(x, q.first + i * q.ld_first, dh);
    head(go, q.second + i * q.ld_second, dh);
    head(o, out + i * a.heads * dh + h * dh, dh);
    const float delta = dot(go, o);
    for (int64_t j = sees.from + warp; j < sees.end; j += WARPS) {
        T *to = dkv + j * a.lk + h * dh;
        head(k, kv.first + j * kv.ld_first, dh);
        head(v, kv.second + j * kv.ld_second, dh);
        float p = expf(scale * dot(x, k) - l), ds = scale * p * (dot(go, v) - delta);
#pragma unroll
        for (int c = 0; c < C; c++) {
            if (lane + c * WARP >= dh) break;
            narrow(to + a.k_at + lane + c * WARP, ds * x[c]);
            narrow(to + a.v_at + lane + c * WARP, p * go[c]);
            g[c] += ds * k[c];
        }
    }
#pragma unroll
    for (int c = 0; c < C; c++) parts[warp][lane + c * WARP] = g[c];
    __syncthreads();
    for (int c = warp * WARP + lane; c < dh; c += WARPS * WARP) {
        float y = 0;
        for (int w = 0; w < WARPS; w++) y += parts[w][c];
        narrow(dq + i * a.lq + a.q_at + h * dh + c, y);
    }
}

/* The statement with C, the channels per lane, set */
#define BY_CHANNELS(dh, ...)                                                                                           \
    do {                                                                                                               \
        if ((dh) <= 64) {                                                                                              \
            constexpr int C = 2;                                                                                       \
            __VA_ARGS__;                                                                                               \
        } else if ((dh) <= 128) {                                                                                      \
            constexpr int C = 4;                                                                                       \
            __VA_ARGS__;                                                                                               \
        } else {                                                                                                       \
            constexpr int C = 8;                                                                                       \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
    } while (0)

static dim3 grid_of(const struct mode__cuda_attention *a)
{
    return dim3((unsigned)a->rows_q, (unsigned)a->heads);
}

void mode__cuda_attention_one(cudaStream_t stream, void *out, float *lse, const struct mode__cuda_attention *a)
{
    BY_TYPE(a->bf16,
            BY_CHANNELS(a->dh, forward<C, T><<<grid_of(a), dim3(WARP, WARPS), 0, stream>>>((T *)out, lse, *a)));
}

void mode__cuda_attention_back_one(cudaStream_t stream, void *dq, void *dkv, const void *dout, const void *out,
                                   const float *lse, const struct mode__cuda_attention *a)
{
    BY_TYPE(a->bf16, BY_CHANNELS(a->dh, back<C, T><<<grid_of(a), dim3(WARP, WARPS), 0, stream>>>(
                                            (T *)dq, (T *)dkv, (const T *)dout, (const T *)out, lse, *a)));
}
