/* graph.h - an operation graph for cuDNN: a list of operations on strided tensors. Inside nn/cuda only.
 *
 * A graph is the single definition of its mathematics: cudnn.c turns each node into a descriptor, and tests execute the
 * same nodes in plain C (tests/ops/graph_machine.h). Graphs: attention_graph.h, product_graph.h. A tensor has four
 * dimensions; a transpose is a change of strides.
 *
 * Threads: plain data. No CUDA type is used here. */
#ifndef MODE_NN_CUDA_GRAPH_H
#define MODE_NN_CUDA_GRAPH_H

#include <stdbool.h>
#include <stdint.h>

enum mode__graph_op {
    MODE__MATMUL, /* out [.., m, n] = in0 [.., m, k] in1 [.., k, n]; elements outside `m, n, k` count as zero */
    MODE__MUL,
    MODE__ADD,
    MODE__SUB,
    MODE__DIV,
    MODE__EXP,
    MODE__LOG,
    MODE__ROW_INDEX,    /* the index along axis 2 */
    MODE__COLUMN_INDEX, /* the index along axis 3 */
    MODE__LESS,         /* in0 < in1 */
    MODE__NOT_LESS,     /* in0 >= in1 */
    MODE__AND,          /* in0 and in1 */
    MODE__SELECT,       /* in2 ? in0 : in1 */
    MODE__ROW_MAX,      /* over axis 3 */
    MODE__ROW_SUM,      /* over axis 3 */
    MODE__TRANSPOSE,    /* out [.., j, i] = in0 [.., i, j] */
    MODE__COPY,         /* to another type */
    MODE__GELU,         /* in0 Phi(in0), exact */
    MODE__QUICK_GELU,   /* in0 sigmoid(MODE__QUICK in0) */
    MODE__GELU_BACK,    /* in1 times GELU'(in0) */
    MODE__QUICK_GELU_BACK,
};

#define MODE__QUICK 1.702

/* The tensors in memory; the others are virtual. Names as in nn/ops.h. */
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
    MODE__DELTA,      /* scratch of rows * H f32: dout . out of each head */
    MODE__DQ_SUM,     /* scratch of rows * H * head_width f32, unless deterministic */
    MODE__LENGTHS,    /* packed: [B] i32 */
    MODE__FIRST_IN,   /* packed: [B + 1] i32, ragged offsets of sequences in the projection's rows */
    MODE__FIRST_OUT,  /* packed: [B + 1] i32, the same in rows of H * head_width */
    MODE__FIRST_STAT, /* packed: [B + 1] i32, the same in rows of H */
    MODE__FACTOR,     /* of a GEMM: x or dy */
    MODE__WEIGHT,     /* w */
    MODE__BIAS,       /* b */
    MODE__ARGUMENT,   /* z */
    MODE__RESULT,     /* y or the gradient of z */
    MODE__N_PLACES,
    MODE__INSIDE = MODE__N_PLACES, /* virtual */
    MODE__SCALAR                   /* one f32 number */
};

enum mode__graph_type { MODE__TYPE_BF16, MODE__TYPE_F32, MODE__TYPE_I32, MODE__TYPE_BOOL };

enum { MODE__GRAPH_TENSORS = 64, MODE__GRAPH_NODES = 40, MODE__NONE = -1 };

struct mode__graph_tensor {
    int place; /* enum mode__graph_place */
    enum mode__graph_type type;
    int64_t dim[4], stride[4]; /* stride 0 is ignored if packed */
    int first;                 /* packed: index of its ragged-offset tensor; else MODE__NONE */
    float value;               /* of a scalar */
};

struct mode__graph_node {
    enum mode__graph_op op;
    int in[3], out; /* tensor indices; MODE__NONE: unused */
    int m, n, k;    /* matmul: tensor of lengths that overrides the dimension, or MODE__NONE */
};

struct mode__graph {
    struct mode__graph_tensor tensor[MODE__GRAPH_TENSORS];
    struct mode__graph_node node[MODE__GRAPH_NODES];
    int n_tensors, n_nodes;
    int rank; /* 4; 3: the first dimension is 1 and dropped for cuDNN */
};

#endif
