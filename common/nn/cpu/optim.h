/* optim.h - the optimiser: everything is read and written once. */
#ifndef MODE_NN_CPU_OPTIM_H
#define MODE_NN_CPU_OPTIM_H

#include "nn/cpu/gemm.h"
#include "tensor/half.h"

#include <math.h>

enum { OPTIM_BLOCK = 1 << 16 };

struct optim {
    int64_t n;
    float *w, *m, *v;
    const float *g;
    double *partial;
    float beta1, beta2, keep, step, root, eps, factor;
};

/* Moments of a parameter without gradients decay into subnormals, where they would stay (0.9 times the smallest one
 * rounds to itself) and slow every later step: flush them to zero. */
static unsigned flush_subnormals(void)
{
#if defined(__SSE__)
    unsigned before = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(before | 0x8040); /* FTZ, DAZ */
    return before;
#else
    return 0;
#endif
}

static void restore_subnormals(unsigned before)
{
#if defined(__SSE__)
    __builtin_ia32_ldmxcsr(before);
#else
    (void)before;
#endif
}

static void adamw_block(void *ctx, int64_t item, int thread)
{
    const struct optim *o = ctx;
    float *restrict w = o->w, *restrict m = o->m, *restrict v = o->v;
    const float *restrict g = o->g;
    const float b1 = o->beta1, c1 = 1 - b1, b2 = o->beta2, c2 = 1 - b2, keep = o->keep, step = o->step, root = o->root,
                eps = o->eps, factor = o->factor;
    unsigned before = flush_subnormals();
    (void)thread;
    for (int64_t i = item * OPTIM_BLOCK; i < min64(o->n, (item + 1) * OPTIM_BLOCK); i++) {
        float gi = g[i] * factor, mi = b1 * m[i] + c1 * gi, vi = b2 * v[i] + c2 * gi * gi;
        m[i] = mi;
        v[i] = vi;
        w[i] = w[i] * keep - step * mi / (sqrtf(vi) * root + eps);
    }
    restore_subnormals(before);
}

static void cpu_adamw(struct mode_backend *be, struct mode_param *p, size_t n, const struct mode_adamw_step *s)
{
    struct optim o = {.beta1 = (float)s->beta1,
                      .beta2 = (float)s->beta2,
                      .step = (float)(s->lr / s->fix1),
                      .root = (float)(1 / sqrt(s->fix2)),
                      .eps = (float)s->eps};
    (void)be;
    if (!mode__adamw_factor(&o.factor, s)) return;
    for (size_t i = 0; i < n; i++) {
        if (p[i].frozen) continue;
        MODE_ASSERT(!mode_param_copy(&p[i])); /* activations are f32 here */
        o.n = mode_tensor_count(&p[i].value);
        o.w = mode_f32(&p[i].value);
        o.m = mode_f32(&p[i].m);
        o.v = mode_f32(&p[i].v);
        o.g = mode_f32(&p[i].grad);
        o.keep = (float)(1 - s->lr * (p[i].decay ? s->weight_decay : 0));
        mode_parallel_for(ceil_div(o.n, OPTIM_BLOCK), adamw_block, &o);
    }
}

static void sum_squares_block(void *ctx, int64_t item, int thread)
{
    const struct optim *o = ctx;
    int64_t i = item * OPTIM_BLOCK, end = min64(o->n, i + OPTIM_BLOCK);
    double sum = 0;
    (void)thread;
    while (i < end) { /* short f32 sums, accumulated in double */
        int64_t stop = min64(end, i + 256);
        v8 s = splat8(0);
        for (; i + 8 <= stop; i += 8) s += load8(o->g + i) * load8(o->g + i);
        sum += sum8(s);
        for (; i < stop; i++) sum += (double)o->g[i] * o->g[i];
    }
    o->partial[item] = sum;
}

static double squares_of(struct mode_backend *be, const struct mode_tensor *x)
{
    struct optim o = {.n = mode_tensor_count(x), .g = mode_f32(x)};
    int64_t blocks = ceil_div(o.n, OPTIM_BLOCK);
    double sum = 0;
    o.partial = mode__backend_work(be, (size_t)blocks * sizeof *o.partial);
    mode_parallel_for(blocks, sum_squares_block, &o);
    for (int64_t i = 0; i < blocks; i++) sum += o.partial[i];
    return sum;
}

static void cpu_grad_squares(struct mode_backend *be, double *sum, const struct mode_param *p, size_t n)
{
    double s = 0;
    for (size_t i = 0; i < n; i++)
        if (!p[i].frozen) s += squares_of(be, &p[i].grad);
    *sum = s;
}

struct rounding {
    uint16_t *to;
    const float *from;
    int64_t n;
};

static void round_block(void *ctx, int64_t item, int thread)
{
    const struct rounding *r = ctx;
    (void)thread;
    for (int64_t i = item * OPTIM_BLOCK; i < min64(r->n, (item + 1) * OPTIM_BLOCK); i++)
        r->to[i] = mode_f32_to_bf16(r->from[i]);
}

static void cpu_rounded(struct mode_backend *be, struct mode_tensor *copy, const struct mode_tensor *x)
{
    struct rounding r = {copy->data, mode_f32(x), mode_tensor_count(x)};
    (void)be;
    mode_parallel_for(ceil_div(r.n, OPTIM_BLOCK), round_block, &r);
}

static void cpu_clamp(struct mode_backend *be, struct mode_tensor *x, float low, float high)
{
    float *v = mode_f32(x);
    (void)be;
    for (int64_t i = 0; i < mode_tensor_count(x); i++) v[i] = v[i] < low ? low : v[i] > high ? high : v[i];
}

static void zero_block(void *ctx, int64_t item, int thread)
{
    const struct mode_tensor *x = ctx;
    size_t size = mode_tensor_bytes(x), at = (size_t)item << 20, n = size - at < (1u << 20) ? size - at : 1u << 20;
    (void)thread;
    memset((char *)x->data + at, 0, n);
}

static void cpu_zero(struct mode_backend *be, struct mode_tensor *x)
{
    (void)be;
    mode_parallel_for((int64_t)((mode_tensor_bytes(x) + (1u << 20) - 1) >> 20), zero_block, x);
}

#endif
