/* attention_graph.h - softmax attention, forward and backward, as an operation graph (graph.h).
 *
 * The graph is the single definition of what cuDNN computes: cudnn.c turns each node into a descriptor, and
 * tests/ops/test_attention_graph.c executes the same nodes in plain C against the reference backend. So masks, scale,
 * log-sum-exp, transposes and strides are checked without a GPU.
 *
 *     struct mode__graph g;
 *     mode__attention_graph(&g, &shape);          // or mode__attention_back_graph
 *
 * Tensors are [B, H, T, ..]; a transpose is a change of strides. Where sequences differ in length (`packed`), T is the
 * longest, `lengths` has the actual lengths, and tensors in memory have ragged offsets (`first`) instead of a batch
 * stride. Rows past a sequence's length are neither read nor written.
 *
 * Source:  Dao et al., "FlashAttention" (what is saved for the backward pass); the order of the operations is the one
 *          that cuDNN 9 recognises as attention.
 * Threads: plain data. No CUDA type is used here. */
#ifndef MODE_NN_CUDA_ATTENTION_GRAPH_H
#define MODE_NN_CUDA_ATTENTION_GRAPH_H

#include "nn/cuda/graph.h"

/* What a plan depends on. Self-attention: queries, keys and values are columns of rows of the same stride. */
struct mode__attention_shape {
    int64_t batch, tokens;     /* sequences; rows of each, or of the longest (packed) */
    int64_t heads, head_width; /* head_width: a multiple of 8 */
    int64_t row;               /* elements from a row of the projection to the next */
    bool causal, packed;
    bool deterministic; /* backward: dq without accumulation in memory */
};

/* out and lse from q, k, v. */
void mode__attention_graph(struct mode__graph *g, const struct mode__attention_shape *s);
/* dq, dk, dv from q, k, v, out, lse, dout. */
void mode__attention_back_graph(struct mode__graph *g, const struct mode__attention_shape *s);

#endif
