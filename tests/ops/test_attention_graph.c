/* The operations that cuDNN is asked for, executed one by one in plain C, against attention of the reference backend:
 * what the graph means is checked here, that cuDNN takes it by `make cudnn-plans`. */
#include "nn/cuda/attention_graph.c" /* it holds no CUDA type, but is built only with the cuda backend */

#include "graph_machine.h"

#include "base/rng.h"
#include "nn/ops.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { MARGIN = 8 }; /* columns of a projection's row that nobody names */

/* Two runs of the same inputs: tensors of the graph, and of the reference. */
struct case_data {
    struct mode__attention_shape s;
    int64_t rows;
    int32_t lengths[8], offsets[9], first[3][9];
    float *qkv, *dout, *out[2], *lse[2], *dqkv[2];
};

static float *numbers(struct mode_rng *rng, int64_t n, bool round)
{
    float *x = mode_xcalloc((size_t)n, sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = (float)mode_rng_normal(rng);
    for (int64_t i = 0; i < n && round; i++) x[i] = to_bf16(x[i]);
    return x;
}

static float *nothing(int64_t n) /* a value nobody computes */
{
    float *x = mode_xcalloc((size_t)n, sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = 12345;
    return x;
}

static struct case_data make_case(struct mode__attention_shape s, bool round)
{
    int64_t d = s.heads * s.head_width;
    struct case_data c = {.s = s};
    struct mode_rng rng = mode_rng_for(7, MODE_RNG_TEST, (uint64_t)s.batch, (uint64_t)s.tokens);
    c.s.row = 3 * d + MARGIN;
    for (int64_t b = 0; b < s.batch; b++) {
        int64_t below = s.packed && b != s.batch / 2 ? (int64_t)mode_rng_below(&rng, (uint64_t)s.tokens) : 0;
        c.lengths[b] = (int32_t)(s.tokens - below);
        c.offsets[b + 1] = c.offsets[b] + c.lengths[b];
    }
    c.rows = c.offsets[s.batch];
    for (int64_t b = 0; b <= s.batch; b++) {
        c.first[0][b] = (int32_t)(c.offsets[b] * c.s.row);
        c.first[1][b] = (int32_t)(c.offsets[b] * d);
        c.first[2][b] = (int32_t)(c.offsets[b] * s.heads);
    }
    c.qkv = numbers(&rng, c.rows * c.s.row, round);
    c.dout = numbers(&rng, c.rows * d, round);
    for (int i = 0; i < 2; i++) {
        c.out[i] = nothing(c.rows * d);
        c.lse[i] = nothing(c.rows * s.heads);
        c.dqkv[i] = nothing(c.rows * c.s.row);
    }
    return c;
}

static void clear_case(struct case_data *c)
{
    free(c->qkv);
    free(c->dout);
    for (int i = 0; i < 2; i++) {
        free(c->out[i]);
        free(c->lse[i]);
        free(c->dqkv[i]);
    }
}

static void run_graphs(struct case_data *c, bool round)
{
    int64_t d = c->s.heads * c->s.head_width;
    float *delta = nothing(c->rows * c->s.heads), *sum = nothing(c->rows * d);
    struct mode__graph g;
    struct machine m = {.g = &g,
                        .memory = {c->qkv, c->qkv + d, c->qkv + 2 * d, c->out[0], c->lse[0], c->dout, c->dqkv[0],
                                   c->dqkv[0] + d, c->dqkv[0] + 2 * d, delta, sum, c->lengths, c->first[0], c->first[1],
                                   c->first[2]},
                        .round = round};
    mode__attention_graph(&g, &c->s);
    execute(&m);
    mode__attention_back_graph(&g, &c->s);
    execute(&m);
    free(delta);
    free(sum);
}

static void run_reference(struct case_data *c)
{
    int64_t d = c->s.heads * c->s.head_width;
    struct mode_backend *be;
    struct mode_error err;
    assert_int_equal(mode_backend_open(&be, "ref", &err), MODE_OK);
    struct mode_tensor offsets = mode_tensor_1d(c->offsets, MODE_DTYPE_I32, c->s.batch + 1),
                       qkv = mode_tensor_2d(c->qkv, MODE_DTYPE_F32, c->rows, c->s.row),
                       dqkv = mode_tensor_2d(c->dqkv[1], MODE_DTYPE_F32, c->rows, c->s.row),
                       out = mode_tensor_2d(c->out[1], MODE_DTYPE_F32, c->rows, d),
                       dout = mode_tensor_2d(c->dout, MODE_DTYPE_F32, c->rows, d),
                       lse = mode_tensor_2d(c->lse[1], MODE_DTYPE_F32, c->rows, c->s.heads);
    struct mode_attention a = {.width = d,
                               .heads = c->s.heads,
                               .k_at = d,
                               .v_at = 2 * d,
                               .causal = c->s.causal,
                               .q_offsets = &offsets,
                               .kv_offsets = &offsets};
    mode_attention(be, &out, &lse, &qkv, &qkv, &a);
    mode_attention_back(be, &dqkv, &dqkv, &dout, &out, &lse, &qkv, &qkv, &a);
    mode_backend_close(&be);
}

static double distance(const float *a, const float *b, int64_t n)
{
    double off = 0, all = 0;
    for (int64_t i = 0; i < n; i++) {
        off += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        all += (double)b[i] * b[i];
    }
    return sqrt(off / all);
}

static const struct mode__attention_shape shapes[] = {
    {.batch = 2, .tokens = 5, .heads = 3, .head_width = 8},
    {.batch = 1, .tokens = 33, .heads = 1, .head_width = 16, .deterministic = true},
    {.batch = 3, .tokens = 7, .heads = 2, .head_width = 24, .causal = true},
    {.batch = 3, .tokens = 7, .heads = 2, .head_width = 16, .causal = true, .deterministic = true},
    {.batch = 5, .tokens = 9, .heads = 3, .head_width = 8, .packed = true},
    {.batch = 6, .tokens = 11, .heads = 2, .head_width = 16, .causal = true, .packed = true},
    {.batch = 8, .tokens = 6, .heads = 1, .head_width = 8, .causal = true, .packed = true, .deterministic = true},
    {.batch = 4, .tokens = 1, .heads = 2, .head_width = 8},
};

/* Everything is within `budget` of the reference, the whole rows of dqkv with their unnamed columns included. */
static void compare(bool round, double out_budget, double back_budget)
{
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct case_data c = make_case(shapes[i], round);
        run_graphs(&c, round);
        run_reference(&c);
        int64_t d = c.s.heads * c.s.head_width;
        double out = distance(c.out[0], c.out[1], c.rows * d), lse = distance(c.lse[0], c.lse[1], c.rows * c.s.heads);
        for (int64_t r = 0; r < c.rows; r++) /* nobody may touch the margin; it is left out of the distance */
            for (int64_t j = 3 * d; j < c.s.row; j++) {
                assert_true(c.dqkv[0][r * c.s.row + j] == 12345);
                c.dqkv[0][r * c.s.row + j] = c.dqkv[1][r * c.s.row + j] = 0;
            }
        double back = distance(c.dqkv[0], c.dqkv[1], c.rows * c.s.row);
        if (!(out <= out_budget && lse <= 1e-6 && back <= back_budget))
            fail_msg("shape %zu: out is off by %.2e, lse by %.2e, the gradients by %.2e", i, out, lse, back);
        clear_case(&c);
    }
}

static void test_the_graphs_are_attention_and_its_gradient(void **state)
{
    (void)state;
    compare(false, 1e-6, 1e-6);
}

/* What rounding at the places that the graph names costs: the budgets of docs and of tests on a GPU */
static void test_rounding_to_bf16_stays_within_the_budget(void **state)
{
    (void)state;
    compare(true, 4e-3, 8e-3);
}

static void test_the_table_is_well_formed(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int back = 0; back < 2; back++) {
            struct mode__graph g;
            bool made[MODE__GRAPH_TENSORS] = {false};
            back ? mode__attention_back_graph(&g, &shapes[i]) : mode__attention_graph(&g, &shapes[i]);
            for (int t = 0; t < g.n_tensors; t++) assert_true(g.tensor[t].first < t);
            for (int n = 0; n < g.n_nodes; n++) { /* what lies inside is made once, before it is used */
                for (int k = 0; k < 3; k++)
                    if (g.node[n].in[k] >= 0 && g.tensor[g.node[n].in[k]].place == MODE__INSIDE)
                        assert_true(made[g.node[n].in[k]]);
                assert_false(made[g.node[n].out]);
                made[g.node[n].out] = true;
            }
        }
}

/* cuDNN says of no engine that it adds in any order: only the graph without the sum in memory gives the same bytes. */
static void test_same_bytes_need_no_sum_in_memory(void **state)
{
    (void)state;
    for (int same = 0; same < 2; same++) {
        struct mode__attention_shape s = shapes[0];
        struct mode__graph g;
        int sums = 0;
        s.deterministic = same;
        mode__attention_back_graph(&g, &s);
        for (int t = 0; t < g.n_tensors; t++) sums += g.tensor[t].place == MODE__DQ_SUM;
        assert_int_equal(sums, !same);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_the_table_is_well_formed),
                                       cmocka_unit_test(test_same_bytes_need_no_sum_in_memory),
                                       cmocka_unit_test(test_the_graphs_are_attention_and_its_gradient),
                                       cmocka_unit_test(test_rounding_to_bf16_stays_within_the_budget)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
