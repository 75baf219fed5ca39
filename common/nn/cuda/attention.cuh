/* attention.cuh - masking and addressing shared by the attention kernels.
 *
 * The backward pass computes the scores twice, once with a block's own rows as queries (dq) and once as keys (dk, dv):
 * one kernel, with KEYS selecting which. The rows of the other side are loaded in tiles. */
#ifndef MODE_NN_CUDA_ATTENTION_CUH
#define MODE_NN_CUDA_ATTENTION_CUH

#include "nn/cuda/attention.h"
#include "nn/cuda/store.cuh"

/* The rows of the other side that a row attends to: from .. end - 1. */
struct span {
    int64_t from, end;
};

/* KEYS: r is a key, and the span is of queries; else vice versa. */
template <bool KEYS> static __device__ inline struct span seen_by(const struct mode__cuda_attention &a, int64_t r)
{
    const int32_t *own = KEYS ? a.kv_offsets : a.q_offsets, *other = KEYS ? a.q_offsets : a.kv_offsets;
    int b = sequence_of(own, a.n_seq, r);
    struct span s = {other[b], other[b + 1]};
    if (a.causal && KEYS) s.from = r;
    if (a.causal && !KEYS) s.end = r + 1;
    return s;
}

static __device__ inline bool overlaps(struct span s, int64_t from, int64_t n)
{
    return s.from < from + n && s.end > from;
}

/* One side's two tensors for one head: q and dout, or k and v. */
template <typename T> struct side {
    const T *first, *second;
    int64_t ld_first, ld_second, rows;
};

template <typename T>
static __device__ inline struct side<T> queries(const struct mode__cuda_attention &a, const T *dout, int h) {
    return {(const T *)a.q + a.q_at + h * a.dh, dout ? dout + h *a.dh : nullptr, a.lq, a.heads *a.dh, a.rows_q};
}

template <typename T>
static __device__ inline struct side<T> keys(const struct mode__cuda_attention &a, int h) {
    return {(const T *)a.kv + a.k_at + h * a.dh, (const T *)a.kv + a.v_at + h *a.dh, a.lk, a.lk, a.rows_k};
}

/* Opt-in to dynamic shared memory above 48 KB. Always up to the GPU's maximum: a smaller limit for a smaller shape
 * would break captured launches of larger ones. */
template <typename... A>
static void opt_in_shared(void (*kernel)(A...), size_t bytes)
{
    int most = 0;
    if (bytes <= 48 * 1024) return;
    if (cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0) == cudaSuccess)
        (void)cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
}

/* Are a head's rows aligned to 16 bytes on both sides? */
template <typename T> static inline bool wide_heads(const struct mode__cuda_attention *a, const void *also = nullptr)
{
    int64_t all = a->q_at | a->k_at | a->v_at | a->lq | a->lk | a->dh;
    return wide_rows(all, sizeof(T), (const T *)a->q, (const T *)a->kv, (const T *)also);
}

#endif
