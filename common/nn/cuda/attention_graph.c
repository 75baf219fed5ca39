#include "nn/cuda/attention_graph.h"

#include "base/error.h"

#include <math.h>
#include <string.h>

/* A graph under construction, with the index of each tensor in memory, so that each is created once. */
struct maker {
    struct mode__graph *g;
    const struct mode__attention_shape *s;
    int at[MODE__N_PLACES];
};

static struct maker start(struct mode__graph *g, const struct mode__attention_shape *s)
{
    struct maker m = {.g = g, .s = s};
    memset(g, 0, sizeof *g);
    g->rank = 4;
    for (int i = 0; i < MODE__N_PLACES; i++) m.at[i] = MODE__NONE;
    return m;
}

static int tensor(struct maker *m, int place, enum mode__graph_type type, const int64_t dim[4], const int64_t stride[4])
{
    struct mode__graph_tensor *t = &m->g->tensor[m->g->n_tensors];
    MODE_ASSERT(m->g->n_tensors < MODE__GRAPH_TENSORS);
    *t = (struct mode__graph_tensor){.place = place, .type = type, .first = MODE__NONE};
    memcpy(t->dim, dim, sizeof t->dim);
    memcpy(t->stride, stride, sizeof t->stride);
    if (place < MODE__N_PLACES) m->at[place] = m->g->n_tensors;
    return m->g->n_tensors++;
}

/* [B or B + 1, 1, 1, 1] lengths or ragged offsets, if packed */
static int integers(struct maker *m, int place)
{
    int64_t n = m->s->batch + (place != MODE__LENGTHS), one[4] = {1, 1, 1, 1};
    if (!m->s->packed) return MODE__NONE;
    return m->at[place] != MODE__NONE ? m->at[place] : tensor(m, place, MODE__TYPE_I32, (int64_t[]){n, 1, 1, 1}, one);
}

/* [B, H, T, width] in rows of `row` elements, the heads of a row contiguous */
static int rows(struct maker *m, int place, enum mode__graph_type type, int64_t width, int64_t row, int first)
{
    const struct mode__attention_shape *s = m->s;
    int from = integers(m, first);
    int t = tensor(m, place, type, (int64_t[]){s->batch, s->heads, s->tokens, width},
                   (int64_t[]){s->tokens * row, width, row, 1});
    m->g->tensor[t].first = from;
    return t;
}

static int projected(struct maker *m, int place)
{
    return rows(m, place, MODE__TYPE_BF16, m->s->head_width, m->s->row, MODE__FIRST_IN);
}

static int result(struct maker *m, int place)
{
    return rows(m, place, MODE__TYPE_BF16, m->s->head_width, m->s->heads * m->s->head_width, MODE__FIRST_OUT);
}

static int statistic(struct maker *m, int place)
{
    return rows(m, place, MODE__TYPE_F32, 1, m->s->heads, MODE__FIRST_STAT);
}

/* Scratch of cuDNN's: contiguous per head, or laid out as the result if packed, as NVIDIA's frontend does. */
static int intermediate(struct maker *m, int place, int64_t width, int first)
{
    const struct mode__attention_shape *s = m->s;
    int64_t head = s->tokens * width;
    if (s->packed) return rows(m, place, MODE__TYPE_F32, width, s->heads * width, first);
    return tensor(m, place, MODE__TYPE_F32, (int64_t[]){s->batch, s->heads, s->tokens, width},
                  (int64_t[]){s->heads * head, head, width, 1});
}

/* Swaps the last two dimensions of a tensor: [B, H, width, T] */
static int transposed(struct maker *m, int t)
{
    struct mode__graph_tensor *x = &m->g->tensor[t];
    int64_t dim = x->dim[2], stride = x->stride[2];
    x->dim[2] = x->dim[3];
    x->dim[3] = dim;
    x->stride[2] = x->stride[3];
    x->stride[3] = stride;
    return t;
}

static int scalar(struct maker *m, float value)
{
    static const int64_t one[4] = {1, 1, 1, 1};
    int t = tensor(m, MODE__SCALAR, MODE__TYPE_F32, one, one);
    m->g->tensor[t].value = value;
    return t;
}

static int inside(struct maker *m, enum mode__graph_type type, int64_t a, int64_t b)
{
    int64_t h = m->s->heads;
    return tensor(m, MODE__INSIDE, type, (int64_t[]){m->s->batch, h, a, b}, (int64_t[]){h * a * b, a * b, b, 1});
}

static int scores(struct maker *m, enum mode__graph_type type)
{
    return inside(m, type, m->s->tokens, m->s->tokens);
}

static int per_row(struct maker *m)
{
    return inside(m, MODE__TYPE_F32, m->s->tokens, 1);
}

static struct mode__graph_node *node(struct maker *m, enum mode__graph_op op, int a, int b, int c, int out)
{
    struct mode__graph_node *n = &m->g->node[m->g->n_nodes++];
    MODE_ASSERT(m->g->n_nodes <= MODE__GRAPH_NODES);
    *n = (struct mode__graph_node){op, {a, b, c}, out, MODE__NONE, MODE__NONE, MODE__NONE};
    return n;
}

static int two(struct maker *m, enum mode__graph_op op, int a, int b, int out)
{
    node(m, op, a, b, MODE__NONE, out);
    return out;
}

static int one(struct maker *m, enum mode__graph_op op, int a, int out)
{
    return two(m, op, a, MODE__NONE, out);
}

/* Dimensions of a GEMM that are the sequence length */
enum { SIDE_M = 1, SIDE_N = 2, SIDE_K = 4 };

static int matmul(struct maker *m, int a, int b, int sides, int out)
{
    struct mode__graph_node *n = node(m, MODE__MATMUL, a, b, MODE__NONE, out);
    int lengths = integers(m, MODE__LENGTHS);
    if (sides & SIDE_M) n->m = lengths;
    if (sides & SIDE_N) n->n = lengths;
    if (sides & SIDE_K) n->k = lengths;
    return out;
}

/* x where `keep`, else minus infinity */
static int masked(struct maker *m, int x, int keep)
{
    int out = scores(m, MODE__TYPE_F32);
    node(m, MODE__SELECT, x, scalar(m, -INFINITY), keep, out);
    return out;
}

static int within_lengths(struct maker *m, int x)
{
    int lengths = integers(m, MODE__LENGTHS);
    int row = one(m, MODE__ROW_INDEX, x, scores(m, MODE__TYPE_I32));
    int column = one(m, MODE__COLUMN_INDEX, x, scores(m, MODE__TYPE_I32));
    int row_real = two(m, MODE__LESS, row, lengths, scores(m, MODE__TYPE_BOOL));
    int column_real = two(m, MODE__LESS, column, lengths, scores(m, MODE__TYPE_BOOL));
    return masked(m, x, two(m, MODE__AND, row_real, column_real, scores(m, MODE__TYPE_BOOL)));
}

static int up_to_itself(struct maker *m, int x)
{
    int row = one(m, MODE__ROW_INDEX, x, scores(m, MODE__TYPE_I32));
    int column = one(m, MODE__COLUMN_INDEX, x, scores(m, MODE__TYPE_I32));
    return masked(m, x, two(m, MODE__NOT_LESS, row, column, scores(m, MODE__TYPE_BOOL)));
}

static float scale_of(const struct mode__attention_shape *s)
{
    return (float)(1 / sqrt((double)s->head_width));
}

void mode__attention_graph(struct mode__graph *g, const struct mode__attention_shape *s)
{
    struct maker m = start(g, s);
    int q = projected(&m, MODE__Q), k = transposed(&m, projected(&m, MODE__K)), v = projected(&m, MODE__V);
    int x = matmul(&m, q, k, SIDE_M | SIDE_N, scores(&m, MODE__TYPE_F32));
    x = two(&m, MODE__MUL, x, scalar(&m, scale_of(s)), scores(&m, MODE__TYPE_F32));
    if (s->packed) x = within_lengths(&m, x);
    if (s->causal) x = up_to_itself(&m, x);
    int max = one(&m, MODE__ROW_MAX, x, per_row(&m));
    int e = one(&m, MODE__EXP, two(&m, MODE__SUB, x, max, scores(&m, MODE__TYPE_F32)), scores(&m, MODE__TYPE_F32));
    int sum = one(&m, MODE__ROW_SUM, e, per_row(&m));
    two(&m, MODE__ADD, max, one(&m, MODE__LOG, sum, per_row(&m)), statistic(&m, MODE__LSE));
    int p = two(&m, MODE__DIV, e, sum, scores(&m, MODE__TYPE_BF16));
    matmul(&m, p, v, SIDE_M | SIDE_K, result(&m, MODE__OUT));
}

void mode__attention_back_graph(struct mode__graph *g, const struct mode__attention_shape *s)
{
    struct maker m = start(g, s);
    int q = projected(&m, MODE__Q), k = transposed(&m, projected(&m, MODE__K)),
        v = transposed(&m, projected(&m, MODE__V));
    int out = result(&m, MODE__OUT), dout = result(&m, MODE__DOUT);
    int lse = statistic(&m, MODE__LSE), scale = scalar(&m, scale_of(s));
    int64_t t = s->tokens, d = s->head_width;

    /* delta = sum of dout * out; multiplying by one gives it a tensor in memory, which cuDNN's pattern expects */
    int delta = one(&m, MODE__ROW_SUM, two(&m, MODE__MUL, dout, out, inside(&m, MODE__TYPE_F32, t, d)), per_row(&m));
    delta = two(&m, MODE__MUL, delta, scalar(&m, 1), intermediate(&m, MODE__DELTA, 1, MODE__FIRST_STAT));

    /* recompute p from the scores and the log-sum-exp */
    int x = matmul(&m, q, k, SIDE_M | SIDE_N, scores(&m, MODE__TYPE_F32));
    x = two(&m, MODE__MUL, x, scale, scores(&m, MODE__TYPE_F32));
    if (s->packed) x = within_lengths(&m, x);
    x = two(&m, MODE__SUB, x, lse, scores(&m, MODE__TYPE_F32));
    if (s->causal) x = up_to_itself(&m, x);
    int p = one(&m, MODE__EXP, x, scores(&m, MODE__TYPE_F32));

    /* dv = p^T dout */
    int p_transposed = scores(&m, MODE__TYPE_BF16);
    one(&m, MODE__TRANSPOSE, p, transposed(&m, p_transposed));
    matmul(&m, p_transposed, dout, SIDE_M | SIDE_K, projected(&m, MODE__DV));

    /* ds = scale * p * (dout v^T - delta) */
    int ds = matmul(&m, dout, v, SIDE_M | SIDE_N, scores(&m, MODE__TYPE_F32));
    ds = two(&m, MODE__SUB, ds, delta, scores(&m, MODE__TYPE_F32));
    ds = two(&m, MODE__MUL, ds, p, scores(&m, MODE__TYPE_F32));
    ds = two(&m, MODE__MUL, ds, scale, scores(&m, MODE__TYPE_F32));

    /* dk = ds^T q */
    int ds_transposed = scores(&m, MODE__TYPE_BF16);
    one(&m, MODE__TRANSPOSE, ds, transposed(&m, ds_transposed));
    matmul(&m, ds_transposed, q, SIDE_M | SIDE_K, projected(&m, MODE__DK));

    /* dq = ds k */
    int k_plain = rows(&m, MODE__INSIDE, MODE__TYPE_BF16, d, s->row, MODE__FIRST_IN);
    one(&m, MODE__TRANSPOSE, k, k_plain);
    if (s->deterministic) {
        matmul(&m, ds, k_plain, SIDE_M | SIDE_K, projected(&m, MODE__DQ));
    } else {
        int dq = matmul(&m, ds, k_plain, SIDE_M | SIDE_K, intermediate(&m, MODE__DQ_SUM, d, MODE__FIRST_OUT));
        one(&m, MODE__COPY, dq, projected(&m, MODE__DQ));
    }
}
