#include "nn/cuda/product_graph.h"

#include "base/error.h"

#include <string.h>

/* [1, 1, rows, columns], row-major, or column-major if transposed */
static int matrix(struct mode__graph *g, int place, enum mode__graph_type type, int64_t rows, int64_t columns,
                  bool transposed)
{
    struct mode__graph_tensor *t = &g->tensor[g->n_tensors];
    *t = (struct mode__graph_tensor){
        .place = place,
        .type = type,
        .dim = {1, 1, rows, columns},
        .stride = {rows * columns, rows * columns, transposed ? 1 : columns, transposed ? rows : 1},
        .first = MODE__NONE};
    return g->n_tensors++;
}

static int node(struct mode__graph *g, enum mode__graph_op op, int a, int b, int out)
{
    g->node[g->n_nodes++] = (struct mode__graph_node){op, {a, b, MODE__NONE}, out, MODE__NONE, MODE__NONE, MODE__NONE};
    return out;
}

void mode__product_graph(struct mode__graph *g, const struct mode__product_shape *s)
{
    const bool quick = s->act == MODE_ACT_QUICK_GELU;
    memset(g, 0, sizeof *g);
    g->rank = 3; /* with four dimensions no engine of cuDNN supports these GEMMs */
    MODE_ASSERT(quick || s->act == MODE_ACT_GELU);
    int factor = matrix(g, MODE__FACTOR, MODE__TYPE_BF16, s->m, s->k, false);
    int weight = matrix(g, MODE__WEIGHT, MODE__TYPE_BF16, s->k, s->n, !s->back); /* forward, w is stored as [n, k] */
    int product = node(g, MODE__MATMUL, factor, weight, matrix(g, MODE__INSIDE, MODE__TYPE_F32, s->m, s->n, false));
    int z = matrix(g, s->back || s->keeps ? MODE__ARGUMENT : MODE__INSIDE, MODE__TYPE_BF16, s->m, s->n, false);
    if (s->back) {
        node(g, quick ? MODE__QUICK_GELU_BACK : MODE__GELU_BACK, z, product,
             matrix(g, MODE__RESULT, MODE__TYPE_BF16, s->m, s->n, false));
        return;
    }
    node(g, MODE__ADD, product, matrix(g, MODE__BIAS, MODE__TYPE_BF16, 1, s->n, false), z);
    node(g, quick ? MODE__QUICK_GELU : MODE__GELU, z, MODE__NONE,
         matrix(g, MODE__RESULT, MODE__TYPE_BF16, s->m, s->n, false));
}
