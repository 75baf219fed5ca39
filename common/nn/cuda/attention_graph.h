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

#include <stdbool.h>
#include <stdint.h>

/* What a plan depends on. Self attention: queries, keys and values are columns of rows of the same length. */
struct mode__attention_shape {
    int64_t batch, tokens;     /* sequences; rows of each, or of the longest (packed) */
    int64_t heads, head_width; /* head_width: a multiple of 8 */
    int64_t row;               /* elements from a row of the projection to the next */
    bool causal, packed;
    bool same_bytes; /* the way back without sums in an order left to chance */
};

enum mode__graph_op {
    MODE__MATMUL, /* out [.., m, n] = in0 [.., m, k] in1 [.., k, n]; elements outside `m, n, k` count as zero */
    MODE__MUL,
    MODE__ADD,
    MODE__SUB,
    MODE__DIV,
    MODE__EXP,
    MODE__LOG,
    MODE__ROW_INDEX,    /* the place along axis 2 */
    MODE__COLUMN_INDEX, /* the place along axis 3 */
    MODE__LESS,         /* in0 < in1 */
    MODE__NOT_LESS,     /* in0 >= in1 */
    MODE__AND,          /* in0 and in1 */
    MODE__SELECT,       /* in2 ? in0 : in1 */
    MODE__ROW_MAX,      /* over axis 3 */
    MODE__ROW_SUM,      /* over axis 3 */
    MODE__TURN,         /* out [.., j, i] = in0 [.., i, j] */
    MODE__COPY,         /* to another type */
};

/* The tensors which lie in memory; the others exist only inside of a plan. Names as in nn/ops.h. */
enum mode__graph_place {
    MODE__Q,
    MODE__K,
    MODE__V,
    MODE__OUT,
    MODE__LSE,
    MODE__DOUT,
    MODE__DQ,
    MODE__DK,
    MODE__DV,
    MODE__DELTA,      /* scratch of rows * H f32: dout times out, summed over a head */
    MODE__DQ_SUM,     /* scratch of rows * H * head_width f32, when not same_bytes */
    MODE__LENGTHS,    /* packed: [B] i32 */
    MODE__FIRST_IN,   /* packed: [B + 1] i32, first element of a sequence in the projection's rows */
    MODE__FIRST_OUT,  /* packed: [B + 1] i32, the same in rows of H * head_width */
    MODE__FIRST_STAT, /* packed: [B + 1] i32, the same in rows of H */
    MODE__N_PLACES,
    MODE__INSIDE = MODE__N_PLACES, /* only inside of the plan */
    MODE__SCALAR                   /* one f32 number */
};

enum mode__graph_type { MODE__TYPE_BF16, MODE__TYPE_F32, MODE__TYPE_I32, MODE__TYPE_BOOL };

enum { MODE__GRAPH_TENSORS = 64, MODE__GRAPH_NODES = 40, MODE__NONE = -1 };

struct mode__graph_tensor {
    int place; /* enum mode__graph_place */
    enum mode__graph_type type;
    int64_t dim[4], stride[4]; /* stride 0 of a packed tensor has no meaning */
    int first;                 /* packed: index of the tensor of first elements; else MODE__NONE */
    float value;               /* of a scalar */
};

struct mode__graph_node {
    enum mode__graph_op op;
    int in[3], out; /* indices of tensors; MODE__NONE: not used */
    int m, n, k;    /* matmul: tensor of lengths that bounds the side, or MODE__NONE */
};

struct mode__graph {
    struct mode__graph_tensor tensor[MODE__GRAPH_TENSORS];
    struct mode__graph_node node[MODE__GRAPH_NODES];
    int n_tensors, n_nodes;
};

/* out and lse from q, k, v. */
void mode__attention_graph(struct mode__graph *g, const struct mode__attention_shape *s);
/* dq, dk, dv from q, k, v, out, lse, dout. */
void mode__attention_back_graph(struct mode__graph *g, const struct mode__attention_shape *s);

#endif
