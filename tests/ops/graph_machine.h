/* graph_machine.h - executes the operations of nn/cuda/graph.h one by one, in double: what a plan means. */
#ifndef MODE_TESTS_OPS_GRAPH_MACHINE_H
#define MODE_TESTS_OPS_GRAPH_MACHINE_H

#include "nn/cuda/graph.h"

#include "base/str.h"
#include "tensor/half.h"

#include <math.h>
#include <stdlib.h>

/* Where the tensors in memory lie: f32, or i32 from LENGTHS on; those of type bf16 as they are, when `half`. */
struct machine {
    const struct mode__graph *g;
    void *memory[MODE__N_PLACES];
    double *value[MODE__GRAPH_TENSORS]; /* dense [dim] */
    bool round, half;                   /* numbers of type bf16 are rounded to it; and stored as such */
    double quick, off;                  /* of QuickGELU, 0: ours; products are larger by this share */
};

static inline float to_bf16(double x)
{
    return mode_bf16_to_f32(mode_f32_to_bf16((float)x));
}

static inline int64_t count(const struct mode__graph_tensor *t)
{
    return t->dim[0] * t->dim[1] * t->dim[2] * t->dim[3];
}

/* The number at [b, h, i, j]; a dimension of one stands for all. */
static inline const double *from(const struct machine *m, int tensor, const int64_t place[4])
{
    const struct mode__graph_tensor *t = &m->g->tensor[tensor];
    int64_t k = 0;
    for (int d = 0; d < 4; d++) k = k * t->dim[d] + (t->dim[d] == 1 ? 0 : place[d]);
    return &m->value[tensor][k];
}

static inline double at(const struct machine *m, int tensor, const int64_t place[4])
{
    return *from(m, tensor, place);
}

static inline void place_of(const struct mode__graph_tensor *t, int64_t k, int64_t place[4])
{
    for (int d = 3; d >= 0; d--) {
        place[d] = k % t->dim[d];
        k /= t->dim[d];
    }
}

/* Where element k lies in memory; -1 when it is a row from the length of its sequence on. */
static inline int64_t address(const struct machine *m, const struct mode__graph_tensor *t, int64_t k)
{
    int64_t p[4], token;
    place_of(t, k, p);
    token = t->stride[3] == 1 ? p[2] : p[3];
    int64_t in = p[1] * t->stride[1] + p[2] * t->stride[2] + p[3] * t->stride[3];
    if (t->first < 0) return in + p[0] * t->stride[0];
    const int32_t *lengths = m->memory[MODE__LENGTHS], *first = m->memory[m->g->tensor[t->first].place];
    return token < lengths[p[0]] ? in + first[p[0]] : -1;
}

static inline void load(struct machine *m, int tensor)
{
    const struct mode__graph_tensor *t = &m->g->tensor[tensor];
    m->value[tensor] = mode_xcalloc((size_t)count(t), sizeof(double));
    if (t->place == MODE__SCALAR) m->value[tensor][0] = t->value;
    if (t->place >= MODE__N_PLACES) return;
    for (int64_t k = 0; k < count(t); k++) {
        int64_t a = address(m, t, k);
        if (a < 0) continue;
        double x;
        if (t->type == MODE__TYPE_I32)
            x = ((int32_t *)m->memory[t->place])[a];
        else if (m->half && t->type == MODE__TYPE_BF16)
            x = mode_bf16_to_f32(((uint16_t *)m->memory[t->place])[a]);
        else
            x = ((float *)m->memory[t->place])[a];
        m->value[tensor][k] = m->round && t->type == MODE__TYPE_BF16 ? to_bf16(x) : x;
    }
}

static inline void store(struct machine *m, int tensor)
{
    const struct mode__graph_tensor *t = &m->g->tensor[tensor];
    for (int64_t k = 0; k < count(t); k++) {
        double *x = &m->value[tensor][k];
        if (m->round && t->type == MODE__TYPE_BF16) *x = to_bf16(*x);
        if (t->place >= MODE__N_PLACES) continue;
        int64_t a = address(m, t, k);
        if (a < 0) continue;
        if (m->half && t->type == MODE__TYPE_BF16)
            ((uint16_t *)m->memory[t->place])[a] = mode_f32_to_bf16((float)*x);
        else
            ((float *)m->memory[t->place])[a] = (float)*x;
    }
}

static inline double product(const struct machine *m, const struct mode__graph_node *n, const int64_t p[4])
{
    int64_t k = m->g->tensor[n->in[0]].dim[3];
    double s = 0;
    if ((n->m >= 0 && p[2] >= at(m, n->m, p)) || (n->n >= 0 && p[3] >= at(m, n->n, p))) return 0;
    if (n->k >= 0) k = (int64_t)at(m, n->k, p);
    const double *a = from(m, n->in[0], (int64_t[]){p[0], p[1], p[2], 0}),
                 *b = from(m, n->in[1], (int64_t[]){p[0], p[1], 0, p[3]});
    const int64_t down = m->g->tensor[n->in[1]].dim[3];
    for (int64_t i = 0; i < k; i++) s += a[i] * b[i * down];
    return s * (1 + m->off);
}

static inline double over_row(const struct machine *m, const struct mode__graph_node *n, const int64_t p[4])
{
    double s = n->op == MODE__ROW_MAX ? -INFINITY : 0;
    for (int64_t j = 0; j < m->g->tensor[n->in[0]].dim[3]; j++) {
        double x = at(m, n->in[0], (int64_t[]){p[0], p[1], p[2], j});
        s = n->op == MODE__ROW_MAX ? fmax(s, x) : s + x;
    }
    return s;
}

/* of the normal distribution below x */
static inline double share(double x)
{
    return 0.5 * erfc(-x * M_SQRT1_2);
}

static inline double logistic(const struct machine *m, double x)
{
    return 1 / (1 + exp(-(m->quick != 0 ? m->quick : MODE__QUICK) * x));
}

static inline double quick_slope(const struct machine *m, double x)
{
    const double s = logistic(m, x);
    return s + x * (m->quick != 0 ? m->quick : MODE__QUICK) * s * (1 - s);
}

static inline double element(const struct machine *m, const struct mode__graph_node *n, const int64_t p[4])
{
    double a = n->op == MODE__TRANSPOSE || n->op == MODE__MATMUL ? 0 : at(m, n->in[0], p);
    double b = n->op != MODE__MATMUL && n->in[1] >= 0 ? at(m, n->in[1], p) : 0;
    switch (n->op) {
    case MODE__MATMUL: return product(m, n, p);
    case MODE__MUL: return a * b;
    case MODE__ADD: return a + b;
    case MODE__SUB: return a - b;
    case MODE__DIV: return a / b;
    case MODE__EXP: return exp(a);
    case MODE__LOG: return log(a);
    case MODE__ROW_INDEX: return (double)p[2];
    case MODE__COLUMN_INDEX: return (double)p[3];
    case MODE__LESS: return a < b;
    case MODE__NOT_LESS: return a >= b;
    case MODE__AND: return a != 0 && b != 0;
    case MODE__SELECT: return at(m, n->in[2], p) != 0 ? a : b;
    case MODE__ROW_MAX:
    case MODE__ROW_SUM: return over_row(m, n, p);
    case MODE__TRANSPOSE: return at(m, n->in[0], (int64_t[]){p[0], p[1], p[3], p[2]});
    case MODE__COPY: return a;
    case MODE__GELU: return a * share(a);
    case MODE__QUICK_GELU: return a * logistic(m, a);
    case MODE__GELU_BACK: return b * (share(a) + a * exp(-0.5 * a * a) / sqrt(2 * M_PI));
    case MODE__QUICK_GELU_BACK: return b * quick_slope(m, a);
    }
    return NAN;
}

static inline void execute(struct machine *m)
{
    for (int i = 0; i < m->g->n_tensors; i++) load(m, i);
    for (int i = 0; i < m->g->n_nodes; i++) {
        const struct mode__graph_node *n = &m->g->node[i];
        const struct mode__graph_tensor *t = &m->g->tensor[n->out];
        for (int64_t k = 0; k < count(t); k++) {
            int64_t p[4];
            place_of(t, k, p);
            m->value[n->out][k] = element(m, n, p);
        }
        store(m, n->out);
    }
    for (int i = 0; i < m->g->n_tensors; i++) free(m->value[i]);
}

#endif
