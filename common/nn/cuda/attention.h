/* attention.h - launchers of our own attention kernels, f32 and bf16. Inside nn/cuda only.
 *
 * They support every case of nn/ops.h: packed sequences, causal or not, cross-attention, heads of up to 256 channels.
 * attention.cu has the f32 kernels, attention_bf16.cu and attention_bf16_back.cu those for tensor cores,
 * attention_one.cu the case of one query per sequence. The backward pass uses no atomics and is deterministic. bf16: q,
 * kv, out, dout, dq and dkv are bf16, lse and delta f32. **The bf16 kernels have run in the emulator of
 * tests/cuda/emulator only, on no GPU.** */
#ifndef MODE_NN_CUDA_ATTENTION_H
#define MODE_NN_CUDA_ATTENTION_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mode__cuda_attention {
    const void *q, *kv; /* row strides lq, lk; a row's query, key and value of head h are at q_at + h * dh, ... */
    int64_t lq, lk, q_at, k_at, v_at, heads, dh, rows_q, rows_k, n_seq; /* dh <= 256 */
    const int32_t *q_offsets, *kv_offsets;
    int64_t longest;              /* upper bound of rows on either side */
    bool causal, bf16, one_query; /* one_query: one query per sequence */
};

enum { MODE__ATTENTION_SHORT = 96 }; /* most rows of a sequence that one block handles in the backward pass */
bool mode__cuda_attention_is_short(const struct mode__cuda_attention *a); /* bf16, one block per sequence? */

/* out [rows_q, heads * dh], lse [rows_q, heads] or NULL */
void mode__cuda_attention(cudaStream_t stream, void *out, float *lse, const struct mode__cuda_attention *a);
/* delta [rows_q, heads]: scratch */
void mode__cuda_attention_back(cudaStream_t stream, void *dq, void *dkv, float *delta, const void *dout,
                               const void *out, const float *lse, const struct mode__cuda_attention *a);

/* cuDNN's description of packed sequences: lengths [n_seq], and ragged offsets [n_seq + 1] for rows of lq, of heads *
 * dh and of heads elements. */
void mode__cuda_attention_lists(cudaStream_t stream, int32_t *lengths, int32_t *first_in, int32_t *first_out,
                                int32_t *first_stat, const struct mode__cuda_attention *a);

/* The kernels that the two above choose from. */
void mode__cuda_attention_f32(cudaStream_t stream, float *out, float *lse, const struct mode__cuda_attention *a);
void mode__cuda_attention_back_f32(cudaStream_t stream, float *dq, float *dkv, const float *delta, const float *dout,
                                   const float *lse, const struct mode__cuda_attention *a);
void mode__cuda_attention_bf16(cudaStream_t stream, void *out, float *lse, const struct mode__cuda_attention *a);
/* delta: unused where sequences are short */
void mode__cuda_attention_back_bf16(cudaStream_t stream, void *dq, void *dkv, const float *delta, const void *dout,
                                    const void *out, const float *lse, const struct mode__cuda_attention *a);
/* one_query */
void mode__cuda_attention_one(cudaStream_t stream, void *out, float *lse, const struct mode__cuda_attention *a);
void mode__cuda_attention_back_one(cudaStream_t stream, void *dq, void *dkv, const void *dout, const void *out,
                                   const float *lse, const struct mode__cuda_attention *a);

#ifdef __cplusplus
}
#endif
#endif
