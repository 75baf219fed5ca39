/* attention_graph.h - softmax attention, forward and back, as a list of small operations on strided tensors.
 *
 * The list is the one text of the mathematics that cuDNN is asked for: cudnn.c turns each row into a descriptor, and
 * tests/ops/test_attention_graph.c executes the same rows in plain C against the reference backend. Masks, scale,
 * statistics, transposes and strides are thereby checked without a GPU.
 *
 *     struct mode__graph g;
 *     mode__attention_graph(&g, &shape);          // or mode__attention_back_graph
 *
 * A tensor is four numbers wide, [B, H, T, ..]; a transpose is a change of strides. Where sequences differ in length
 * (`packed`), T is the longest, `lengths` says how many rows of each are real, and the real tensors have a list of
 * first elements (`first`) in the place of a batch stride. Rows from the length on are neither read nor written.
 *
 * Source:  Dao et al., "FlashAttention" (what is kept for the way back); the order of the operations is the one that
 *          cuDNN 9 recognises as attention.
 * Threads: plain data. No CUDA type is used here. */
#ifndef MODE_NN_CUDA_ATTENTION_GRAPH_H
#define MODE_NN_CUDA_ATTENTION_GRAPH_H

#include "nn/cuda/graph.h"

/* What a plan depends on. Self attention: queries, keys and values are columns of rows of the same length. */
struct mode__attention_shape {
    int64_t batch, tokens;     /* sequences; rows of each, or of the longest (packed) */
    int64_t heads, head_width; /* head_width: a multiple of 8 */
    int64_t row;               /* elements from a row of the projection to the next */
    bool causal, packed;
    bool same_bytes; /* the way back without sums in an order left to chance */
};

/* out and lse from q, k, v. */
void mode__attention_graph(struct mode__graph *g, const struct mode__attention_shape *s);
/* dq, dk, dv from q, k, v, out, lse, dout. */
void mode__attention_back_graph(struct mode__graph *g, const struct mode__attention_shape *s);

#endif
