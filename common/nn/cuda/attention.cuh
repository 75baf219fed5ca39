/* attention.cuh - which rows see which, and where a head's numbers lie; shared by the attention kernels.
 *
 * The way back runs twice over the scores, once with a block's own rows being queries (dq) and once keys (dk, dv): one
 * kernel, KEYS says which. The rows of the other side come in tiles. */
#ifndef MODE_NN_CUDA_ATTENTION_CUH
#define MODE_NN_CUDA_ATTENTION_CUH

#include "nn/cuda/attention.h"
#include "nn/cuda/store.cuh"

/* What row r of one side sees of the other: rows from .. end - 1. */
struct span {
    int64_t from, end;
};

/* KEYS: r is a key, and the span is of queries; else the other way round. */
template <bool KEYS> static __device__ inline struct span seen_by(const struct mode__cuda_attention &a, int64_t r)
{
    const int32_t *own = KEYS ? a.kv_offsets : a.q_offsets, *other = KEYS ? a.q_offsets : a.kv_offsets;
    int b = sequence_of(own, a.n_seq, r);
    struct span s = {other[b], other[b + 1]};
    if (a.causal && KEYS) s.from = r;
    if (a.causal && !KEYS) s.end = r + 1;
    return s;
}

static __device__ inline bool touches(struct span s, int64_t from, int64_t n)
{
    return s.from < from + n && s.end > from;
}

/* Two tensors of one side for one head: of the forward pass (query, or key) and of what meets dout or is it (dout, or
 * value). */
template <typename T> struct side {
    const T *first, *second;
    int64_t ld_first, ld_second, rows;
};

template <typename T>
static __device__ inline struct side<T> queries(const struct mode__cuda_attention &a, const T *dout, int h)
{
    return {(const T *)a.q + a.q_at + h * a.dh, dout ? dout + h * a.dh : nullptr, a.lq, a.heads * a.dh, a.rows_q};
}

template <typename T> static __device__ inline struct side<T> keys(const struct mode__cuda_attention &a, int h)
{
    return {(const T *)a.kv + a.k_at + h * a.dh, (const T *)a.kv + a.v_at + h * a.dh, a.lk, a.lk, a.rows_k};
}

/* More shared memory than every GPU has needs leave. All that this GPU has is asked for: less, for a smaller shape,
 * would take back what a larger one was recorded with. */
template <typename... A>
static void allow_shared(void (*kernel)(A...), size_t bytes)
{
    int most = 0;
    if (bytes <= 48 * 1024) return;
    if (cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0) == cudaSuccess)
        (void)cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
}

/* Do rows of a head begin at multiples of 16 bytes on both sides? */
template <typename T> static inline bool wide_heads(const struct mode__cuda_attention *a, const void *also = nullptr)
{
    int64_t all = a->q_at | a->k_at | a->v_at | a->lq | a->lk | a->dh;
    return wide_rows(all, sizeof(T), (const T *)a->q, (const T *)a->kv, (const T *)also);
}

#endif
