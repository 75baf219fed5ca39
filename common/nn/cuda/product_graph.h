/* product_graph.h - matrix products that end with an activation or with its slope, as lists of small operations
 * (graph.h): what the map before an activation makes, and what the gradient behind it becomes, without a tensor between.
 *
 * Threads: plain data. No CUDA type is used here. */
#ifndef MODE_NN_CUDA_PRODUCT_GRAPH_H
#define MODE_NN_CUDA_PRODUCT_GRAPH_H

#include "nn/cuda/graph.h"
#include "nn/ops.h"

struct mode__product_shape {
    int64_t m, n, k;   /* rows and columns of the result; numbers in a sum */
    enum mode_act act; /* MODE_ACT_GELU or MODE_ACT_QUICK_GELU */
    bool back;
    bool keeps; /* forward: z is stored, too */
};

/* Forward: y [m, n] = act(z), z = x [m, k] w [n, k]^T + b [n]; z is what an activation is stored as, bf16, stored or not.
 * Back: the gradient of z [m, n] = (dy [m, k] w [k, n]) act'(z); the product is f32. */
void mode__product_graph(struct mode__graph *g, const struct mode__product_shape *s);

#endif
