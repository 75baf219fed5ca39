/* linear.h - linear layers, with bias, activation and residual fused into the GEMM's epilogue. */
#ifndef MODE_NN_CPU_LINEAR_H
#define MODE_NN_CPU_LINEAR_H

#include "nn/cpu/gemm.h"

/* act(x); *slope becomes act'(x), which shares its exponential and so costs little. */
INLINE v8 act8(v8 x, enum mode_act act, v8 *slope)
{
    switch (act) {
    case MODE_ACT_NONE: break;
    case MODE_ACT_GELU: {
        v8 e = exp8(x * x * -0.5f), phi = phi8(x, e);
        *slope = phi + x * e * 0.39894228040143268f;
        return x * phi;
    }
    case MODE_ACT_GELU_TANH: {
        v8 t = tanh8(0.79788456080286536f * (x + 0.044715f * x * x * x));
        v8 inner = 0.79788456080286536f * (1.0f + 0.134145f * x * x); /* derivative of tanh's argument */
        *slope = 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * inner;
        return 0.5f * x * (1.0f + t);
    }
    case MODE_ACT_QUICK_GELU: {
        v8 s = 1.0f / (1.0f + exp8(x * -1.702f)), y = x * s;
        *slope = s + y * 1.702f * (1.0f - s);
        return y;
    }
    case MODE_ACT_TANH: {
        v8 t = tanh8(x);
        *slope = 1.0f - t * t;
        return t;
    }
    }
    *slope = splat8(1);
    return x;
}

INLINE v8 load_some(const float *p, int64_t n)
{
    return n == 8 ? load8(p) : load_part(p, n);
}

INLINE void store_some(float *p, v8 x, int64_t n)
{
    if (n == 8)
        store8(p, x);
    else
        store_part(p, x, n);
}

INLINE void finish8(const struct epilogue *e, float *c, int64_t at, int64_t j, int64_t n, enum mode_act act)
{
    v8 slope, x = load_some(c + at + j, n);
    if (e->bias) x += load_some(e->bias + j, n);
    if (e->z) store_some(e->z + at + j, x, n);
    if (e->back) {
        (void)act8(load_some(e->back + at + j, n), act, &slope);
        x *= slope;
    } else {
        x = act8(x, act, &slope);
    }
    if (e->add) x += load_some(e->add + at + j, n);
    store_some(c + at + j, x, n);
}

/* One row with a compile-time activation. */
INLINE void finish_row_as(const struct epilogue *e, float *c, int64_t at, int64_t j0, int64_t j1, enum mode_act act)
{
    int64_t j = j0;
    for (; j + 8 <= j1; j += 8) finish8(e, c, at, j, 8, act);
    if (j < j1) finish8(e, c, at, j, j1 - j, act);
}

static void finish_row(const struct epilogue *e, float *c, int64_t at, int64_t j0, int64_t j1)
{
    switch (e->act) {
    case MODE_ACT_NONE: finish_row_as(e, c, at, j0, j1, MODE_ACT_NONE); return;
    case MODE_ACT_GELU: finish_row_as(e, c, at, j0, j1, MODE_ACT_GELU); return;
    case MODE_ACT_GELU_TANH: finish_row_as(e, c, at, j0, j1, MODE_ACT_GELU_TANH); return;
    case MODE_ACT_QUICK_GELU: finish_row_as(e, c, at, j0, j1, MODE_ACT_QUICK_GELU); return;
    case MODE_ACT_TANH: finish_row_as(e, c, at, j0, j1, MODE_ACT_TANH); return;
    }
}

static void cpu_linear(struct mode_backend *be, struct mode_tensor *y, struct mode_tensor *z,
                       const struct mode_tensor *x, const struct mode_tensor *w, const struct mode_tensor *b,
                       const struct mode_tensor *add, enum mode_act act)
{
    int64_t m = x->dim[0], k = x->dim[1], n = w->dim[0];
    struct epilogue e = {.bias = b ? mode_f32(b) : NULL,
                         .act = act,
                         .z = z ? mode_f32(z) : NULL,
                         .add = add && add->data != y->data ? mode_f32(add) : NULL};
    bool any = b || z || e.add || act != MODE_ACT_NONE;
    gemm(be, mode_f32(y), NULL, m, n, k, (struct view){mode_f32(x), k, 1}, (struct view){mode_f32(w), 1, k},
         any ? &e : NULL, add && !e.add);
}

struct activation {
    struct epilogue e;
    float *y;
    const float *z;
    int64_t m, n;
};

enum { ACTIVATE_ROWS = 16 };

/* Uses the GEMM's epilogue, so that results are bit-identical to it. */
static void activate_rows(void *ctx, int64_t item, int thread)
{
    const struct activation *a = ctx;
    (void)thread;
    for (int64_t i = item * ACTIVATE_ROWS; i < min64(a->m, (item + 1) * ACTIVATE_ROWS); i++) {
        memcpy(a->y + i * a->n, a->z + i * a->n, (size_t)a->n * sizeof *a->y);
        finish_row(&a->e, a->y, i * a->n, 0, a->n);
    }
}

static void cpu_activate(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *z, enum mode_act act)
{
    struct activation a = {.e = {.act = act}, .y = mode_f32(y), .z = mode_f32(z), .m = z->dim[0], .n = z->dim[1]};
    (void)be;
    mode_parallel_for(ceil_div(a.m, ACTIVATE_ROWS), activate_rows, &a);
}

static void cpu_linear_back(struct mode_backend *be, struct mode_tensor *dx, struct mode_tensor *dw,
                            struct mode_tensor *db, const struct mode_tensor *dy, const struct mode_tensor *x,
                            const struct mode_tensor *w, const struct mode_tensor *z, enum mode_act act)
{
    int64_t m = x->dim[0], k = x->dim[1], n = w->dim[0];
    struct epilogue e = {.act = act, .back = z ? mode_f32(z) : NULL};
    gemm_sum(be, mode_f32(dw), db ? mode_f32(db) : NULL, m, n, k, mode_f32(dy), mode_f32(x));
    if (dx)
        gemm(be, mode_f32(dx), NULL, m, k, n, (struct view){mode_f32(dy), n, 1}, (struct view){mode_f32(w), k, 1},
             z ? &e : NULL, false);
}

static void cpu_project(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *x,
                        const struct mode_tensor *w)
{
    int64_t m = x->dim[0], k = x->dim[1], n = w->dim[1];
    gemm(be, mode_f32(y), NULL, m, n, k, (struct view){mode_f32(x), k, 1}, (struct view){mode_f32(w), n, 1}, NULL,
         false);
}

static void cpu_project_back(struct mode_backend *be, struct mode_tensor *dx, struct mode_tensor *dw,
                             const struct mode_tensor *dy, const struct mode_tensor *x, const struct mode_tensor *w)
{
    int64_t m = x->dim[0], k = x->dim[1], n = w->dim[1];
    gemm_sum(be, mode_f32(dw), NULL, m, k, n, mode_f32(x), mode_f32(dy));
    gemm(be, mode_f32(dx), NULL, m, k, n, (struct view){mode_f32(dy), n, 1}, (struct view){mode_f32(w), 1, n}, NULL,
         false);
}

#endif
