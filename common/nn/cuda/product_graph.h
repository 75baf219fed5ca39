/* product_graph.h - GEMMs fused with an activation (forward) or its derivative (backward), as operation graphs
 * (graph.h), without an intermediate tensor in memory.
 *
 * Threads: plain data. No CUDA type is used here. */
#ifndef MODE_NN_CUDA_PRODUCT_GRAPH_H
#define MODE_NN_CUDA_PRODUCT_GRAPH_H

#include "nn/cuda/graph.h"
#include "nn/ops.h"

struct mode__product_shape {
    int64_t m, n, k;   /* rows and columns of the result; the reduced dimension */
    enum mode_act act; /* MODE_ACT_GELU or MODE_ACT_QUICK_GELU */
    bool back;
    bool keeps; /* forward: z is stored too */
};

/* Forward: y [m, n] = act(z), z = x [m, k] w [n, k]^T + b [n]; z is rounded to bf16 before the activation, stored or
 * not. Backward: the gradient of z [m, n] = (dy [m, k] w [k, n]) act'(z); the GEMM's result is f32. */
void mode__product_graph(struct mode__graph *g, const struct mode__product_shape *s);

#endif
