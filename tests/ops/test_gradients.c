/* The reference's way back against the slopes of its way forward, op by op: out -> sum(out * r) is a number, and
 * its slope along every input is measured by central differences in double. The fast backends are held to the
 * reference by test_backends.c, so this covers them too. */
#include "op_cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

enum { MAX_IN = 4, PROBES = 40 };

struct op {
    const char *name;
    /* Compute c->out from c->in, or c->loss where the op makes a number. */
    void (*setup)(struct op_run *r, struct op *c);
    void (*forward)(struct op_run *r, struct op *c);
    void (*back)(struct op_run *r, struct op *c);
    int option;
    int n_in;
    struct mode_tensor in[MAX_IN], grad[MAX_IN];
    bool adds[MAX_IN]; /* parameter: its gradient is added to what is there */
    struct mode_tensor out, dout, extra[6];
    struct mode_attention attention;
    double loss; /* used where out has no data */
};

static void input(struct op *c, struct mode_tensor t, bool adds)
{
    c->in[c->n_in] = t;
    c->adds[c->n_in++] = adds;
}

static void linear_setup(struct op_run *r, struct op *c)
{
    input(c, mat(r, 5, 4), false);
    input(c, mat(r, 3, 4), true);
    input(c, vec(r, 3), true);
    c->out = mat(r, 5, 3);
    c->extra[0] = mat(r, 5, 4); /* act(in[0]), made by a linear map with the identity */
    c->extra[1] = mat(r, 4, 4);
    c->extra[2] = mat(r, 5, 4); /* in[0] again */
    for (int i = 0; i < 16; i++) mode_f32(&c->extra[1])[i] = i % 5 == 0;
}

static void linear_forward(struct op_run *r, struct op *c)
{
    mode_linear_act(r->be, &c->extra[0], &c->extra[2], &c->in[0], &c->extra[1], NULL, (enum mode_act)c->option);
    mode_linear(r->be, &c->out, &c->extra[0], &c->in[1], &c->in[2]);
}

static void linear_back(struct op_run *r, struct op *c)
{
    mode_linear_back_act(r->be, &c->grad[0], &c->grad[1], &c->grad[2], &c->dout, &c->extra[0], &c->in[1],
                         c->option ? &c->extra[2] : NULL, (enum mode_act)c->option);
}

static void project_setup(struct op_run *r, struct op *c)
{
    input(c, mat(r, 5, 4), false);
    input(c, mat(r, 4, 3), true);
    c->out = mat(r, 5, 3);
}

static void project_forward(struct op_run *r, struct op *c)
{
    mode_project(r->be, &c->out, &c->in[0], &c->in[1]);
}

static void project_back(struct op_run *r, struct op *c)
{
    mode_project_back(r->be, &c->grad[0], &c->grad[1], &c->dout, &c->in[0], &c->in[1]);
}

static void layernorm_setup(struct op_run *r, struct op *c)
{
    input(c, mat(r, 4, 7), false);
    input(c, vec(r, 7), true);
    input(c, vec(r, 7), true);
    c->out = mat(r, 4, 7);
    c->extra[0] = mat(r, 4, 2);
}

/* option 1: the input also goes on beside the norm, as in a residual block */
static void layernorm_forward(struct op_run *r, struct op *c)
{
    mode_layernorm(r->be, &c->out, &c->extra[0], &c->in[0], &c->in[1], &c->in[2], 1e-5f);
    for (int i = 0; c->option && i < 28; i++) mode_f32(&c->out)[i] += mode_f32(&c->in[0])[i];
}

static void layernorm_back(struct op_run *r, struct op *c)
{
    mode_layernorm_back(r->be, &c->grad[0], &c->grad[1], &c->grad[2], &c->dout, &c->in[0], &c->extra[0], &c->in[1],
                        c->option ? &c->dout : NULL);
}

/* option 0: all see all, 1: causal, 2: one query per sequence */
static void attention_setup(struct op_run *r, struct op *c)
{
    struct mode_tensor *ko = &c->extra[0], *qo = &c->extra[1];
    *ko = offsets_of(r, 3, 4);
    *qo = c->option == 2 ? index_of(r, 4, 2) : *ko;
    for (int i = 0; c->option == 2 && i < 4; i++) ((int32_t *)qo->data)[i] = i;
    int64_t rows = last_of(ko), queries = last_of(qo);
    if (c->option == 2) {
        input(c, mat(r, queries, 6), false);
        input(c, mat(r, rows, 12), false);
        c->attention = (struct mode_attention){6, 2, 0, 0, 6, false, qo, ko, 4};
    } else {
        input(c, mat(r, rows, 18), false);
        c->attention = (struct mode_attention){6, 2, 0, 6, 12, c->option == 1, qo, ko, 4};
    }
    c->out = mat(r, queries, 6);
    c->extra[2] = mat(r, queries, 2);
}

static void attention_forward(struct op_run *r, struct op *c)
{
    mode_attention(r->be, &c->out, &c->extra[2], &c->in[0], &c->in[c->n_in - 1], &c->attention);
}

static void attention_back(struct op_run *r, struct op *c)
{
    mode_attention_back(r->be, &c->grad[0], &c->grad[c->n_in - 1], &c->dout, &c->out, &c->extra[2], &c->in[0],
                        &c->in[c->n_in - 1], &c->attention);
}

static void embed_setup(struct op_run *r, struct op *c)
{
    c->extra[0] = offsets_of(r, 4, 5);
    c->extra[1] = index_of(r, last_of(&c->extra[0]), 3);
    input(c, mat(r, 3, 4), true);
    input(c, mat(r, 6, 4), true);
    c->out = mat(r, last_of(&c->extra[0]), 4);
}

static void embed_forward(struct op_run *r, struct op *c)
{
    mode_embed(r->be, &c->out, &c->in[0], &c->in[1], &c->extra[1], &c->extra[0]);
}

static void embed_back(struct op_run *r, struct op *c)
{
    mode_embed_back(r->be, &c->grad[0], &c->grad[1], &c->dout, &c->extra[1], &c->extra[0]);
}

static void image_tokens_setup(struct op_run *r, struct op *c)
{
    static const int32_t kept[] = {0, 3, 5, 6, 9, 10}; /* two of each image's four patches; the second position never */
    const bool drops = c->option;
    if (drops) {
        c->extra[0] = index_of(r, 6, 12);
        memcpy(c->extra[0].data, kept, sizeof kept);
    }
    input(c, mat(r, 3 * (drops ? 2 : 4), 5), false);
    input(c, vec(r, 5), true);
    input(c, mat(r, 5, 5), true);
    c->out = mat(r, 3 * (drops ? 3 : 5), 5);
}

static void image_tokens_forward(struct op_run *r, struct op *c)
{
    mode_image_tokens(r->be, &c->out, &c->in[0], &c->in[1], &c->in[2], c->option ? &c->extra[0] : NULL);
}

static void image_tokens_back(struct op_run *r, struct op *c)
{
    mode_image_tokens_back(r->be, &c->grad[0], &c->grad[1], &c->grad[2], &c->dout, c->option ? &c->extra[0] : NULL);
}

static void gather_setup(struct op_run *r, struct op *c)
{
    input(c, mat(r, 7, 3), true);
    c->extra[0] = index_of(r, 3, 7);
    memcpy(c->extra[0].data, (int32_t[]){5, 0, 2}, 3 * sizeof(int32_t));
    c->out = mat(r, 3, 3);
}

static void gather_forward(struct op_run *r, struct op *c)
{
    mode_gather(r->be, &c->out, &c->in[0], &c->extra[0]);
}

static void gather_back(struct op_run *r, struct op *c)
{
    mode_scatter_add(r->be, &c->grad[0], &c->dout, &c->extra[0]);
}

static void scale_setup(struct op_run *r, struct op *c)
{
    input(c, mat(r, 5, 4), false);
    input(c, vec(r, 4), true);
    c->out = mat(r, 5, 4);
    c->extra[0] = mat(r, 5, 4);
}

static void scale_forward(struct op_run *r, struct op *c)
{
    mode_scale(r->be, &c->out, &c->in[0], &c->in[1], &c->extra[0]);
}

static void scale_back(struct op_run *r, struct op *c)
{
    mode_scale_back(r->be, &c->grad[0], &c->grad[1], &c->dout, &c->in[0], &c->in[1]);
}

/* option: rows left out */
static void mean_rows_setup(struct op_run *r, struct op *c)
{
    c->extra[0] = offsets_of(r, 3, 4);
    for (int i = 0; i < 4; i++) ((int32_t *)c->extra[0].data)[i] += i * c->option;
    input(c, mat(r, last_of(&c->extra[0]), 5), false);
    c->out = mat(r, 3, 5);
}

static void mean_rows_forward(struct op_run *r, struct op *c)
{
    mode_mean_rows(r->be, &c->out, &c->in[0], &c->extra[0], c->option);
}

static void mean_rows_back(struct op_run *r, struct op *c)
{
    mode_mean_rows_back(r->be, &c->grad[0], &c->dout, &c->extra[0], c->option);
}

static void l2norm_setup(struct op_run *r, struct op *c)
{
    input(c, mat(r, 4, 5), false);
    c->out = mat(r, 4, 5);
    c->extra[0] = vec(r, 4);
}

static void l2norm_forward(struct op_run *r, struct op *c)
{
    mode_l2norm(r->be, &c->out, &c->extra[0], &c->in[0]);
}

static void l2norm_back(struct op_run *r, struct op *c)
{
    mode_l2norm_back(r->be, &c->grad[0], &c->dout, &c->out, &c->extra[0]);
}

/* option: rows of logits at a time */
static void contrastive_setup(struct op_run *r, struct op *c)
{
    input(c, mat(r, 5, 4), false);
    input(c, mat(r, 5, 4), false);
    input(c, noise(r, 0, NULL, 0.3), true);
    c->extra[0] = mat(r, c->option, 5);
    for (int i = 0; i < 2; i++) c->extra[1 + i] = mat(r, 5, 4);
    c->extra[3] = noise(r, 0, NULL, 1);
    for (int i = 0; i < 2; i++) c->extra[4 + i] = vec_f64(r, 5);
}

static void contrastive_both(struct op_run *r, struct op *c, struct mode_tensor *da, struct mode_tensor *db,
                             struct mode_tensor *dscale)
{
    mode_contrastive(r->be, &c->extra[4], &c->extra[5], &c->extra[0], &c->in[0], &c->in[1], &c->in[2]);
    mode_contrastive_back(r->be, &c->loss, da, db, dscale, &c->extra[0], &c->in[0], &c->in[1], &c->in[2], &c->extra[4],
                          &c->extra[5], 0);
}

static void contrastive_forward(struct op_run *r, struct op *c)
{
    contrastive_both(r, c, &c->extra[1], &c->extra[2], &c->extra[3]);
}

static void contrastive_back(struct op_run *r, struct op *c)
{
    contrastive_both(r, c, &c->grad[0], &c->grad[1], &c->grad[2]);
}

#define OP(op_name, op_option)                                                                                         \
    .name = #op_name, .setup = op_name##_setup, .forward = op_name##_forward, .back = op_name##_back,                  \
    .option = op_option
static const struct op ops[] = {
    {OP(linear, MODE_ACT_NONE)},
    {OP(linear, MODE_ACT_GELU)},
    {OP(linear, MODE_ACT_GELU_TANH)},
    {OP(linear, MODE_ACT_QUICK_GELU)},
    {OP(linear, MODE_ACT_TANH)},
    {OP(project, 0)},
    {OP(layernorm, 0)},
    {OP(layernorm, 1)},
    {OP(attention, 0)},
    {OP(attention, 1)},
    {OP(attention, 2)},
    {OP(embed, 0)},
    {OP(image_tokens, 0)},
    {OP(image_tokens, 1)},
    {OP(gather, 0)},
    {OP(scale, 0)},
    {OP(mean_rows, 0)},
    {OP(mean_rows, 1)},
    {OP(l2norm, 0)},
    {OP(contrastive, 5)},
    {OP(contrastive, 2)},
};

static double value(struct op_run *r, struct op *c)
{
    double s = 0;
    c->forward(r, c);
    if (!c->out.data) return c->loss;
    for (int64_t i = 0; i < mode_tensor_count(&c->out); i++) s += (double)mode_f32(&c->out)[i] * mode_f32(&c->dout)[i];
    return s;
}

static void test_every_op_on_the_way_back_is_the_slope_of_the_way_forward(void **state)
{
    struct mode_backend *be;
    struct mode_error err;
    (void)state;
    assert_int_equal(mode_backend_open(&be, "ref", &err), MODE_OK);
    for (size_t k = 0; k < sizeof ops / sizeof *ops; k++) {
        struct op c = ops[k];
        struct op_run r = {.be = be, .rng = mode_rng_for(21, MODE_RNG_TEST, 3, k)};
        struct mode_tensor before[MAX_IN];
        c.setup(&r, &c);
        if (c.out.data) c.dout = noise(&r, c.out.n_dims, c.out.dim, 1);
        for (int i = 0; i < c.n_in; i++) {
            c.grad[i] = noise(&r, c.in[i].n_dims, c.in[i].dim, 1);
            before[i] = noise(&r, c.in[i].n_dims, c.in[i].dim, 0);
            memcpy(before[i].data, c.grad[i].data, mode_tensor_bytes(&c.grad[i]));
        }
        (void)value(&r, &c);
        c.back(&r, &c);
        for (int i = 0; i < c.n_in; i++)
            for (int probe = 0; probe < PROBES; probe++) {
                int64_t j = (int64_t)mode_rng_below(&r.rng, (uint64_t)mode_tensor_count(&c.in[i]));
                float *x = mode_f32(&c.in[i]) + j, old = *x;
                double slope[3], g = mode_f32(&c.grad[i])[j];
                if (c.adds[i]) g -= mode_f32(&before[i])[j];
                for (int step = 1; step <= 2; step++) {
                    float up = old + 0.01f * (float)step, down = old - 0.01f * (float)step;
                    *x = up;
                    double a = value(&r, &c);
                    *x = down;
                    slope[step] = (a - value(&r, &c)) / ((double)up - down);
                    *x = old;
                }
                double want = (4 * slope[1] - slope[2]) / 3;
                if (!(fabs(g - want) <= 1e-4 + 1e-3 * fabs(want)))
                    fail_msg("%s, option %d: input %d [%lld]: slope %.7g, gradient %.7g", c.name, c.option, i,
                             (long long)j, want, g);
            }
        op_run_clear(&r);
    }
    mode_backend_close(&be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_op_on_the_way_back_is_the_slope_of_the_way_forward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
