/* linear.h - linear maps with their bias, activation and residual done on each block while it is in cache. */
#ifndef MODE_NN_CPU_LINEAR_H
#define MODE_NN_CPU_LINEAR_H

#include "nn/cpu/gemm.h"

INLINE v8 act8(v8 x, enum mode_act act)
{
    switch (act) {
    case MODE_ACT_NONE: return x;
    case MODE_ACT_GELU: return x * phi8(x, exp8(x * x * -0.5f));
    case MODE_ACT_GELU_TANH: return 0.5f * x * (1.0f + tanh8(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case MODE_ACT_QUICK_GELU: return x / (1.0f + exp8(x * -1.702f));
    case MODE_ACT_TANH: return tanh8(x);
    }
    return x;
}

INLINE v8 slope8(v8 x, enum mode_act act)
{
    switch (act) {
    case MODE_ACT_NONE: return splat8(1);
    case MODE_ACT_GELU: {
        v8 e = exp8(x * x * -0.5f);
        return phi8(x, e) + x * e * 0.39894228040143268f;
    }
    case MODE_ACT_GELU_TANH: {
        v8 t = tanh8(0.79788456080286536f * (x + 0.044715f * x * x * x));
        return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * 0.79788456080286536f * (1.0f + 0.134145f * x * x);
    }
    case MODE_ACT_QUICK_GELU: {
        v8 s = 1.0f / (1.0f + exp8(x * -1.702f));
        return s + x * 1.702f * s * (1.0f - s);
    }
    case MODE_ACT_TANH: {
        v8 t = tanh8(x);
        return 1.0f - t * t;
    }
    }
    return x;
}

/* One row under one activation, known when compiled. */
INLINE void finish_row_as(const struct epilogue *e, float *c, int64_t at, int64_t j0, int64_t j1, enum mode_act act,
                          bool slope)
{
    for (int64_t j = j0; j < j1; j += 8) {
        int64_t n = min64(8, j1 - j);
        bool full = n == 8;
        v8 x = full ? load8(c + at + j) : load_part(c + at + j, n);
        if (e->bias) x += full ? load8(e->bias + j) : load_part(e->bias + j, n);
        if (e->pre) {
            if (full) store8(e->pre + at + j, x);
            else store_part(e->pre + at + j, x, n);
        }
        if (slope) x *= slope8(full ? load8(e->slope + at + j) : load_part(e->slope + at + j, n), act);
        else x = act8(x, act);
        if (e->add) x += full ? load8(e->add + at + j) : load_part(e->add + at + j, n);
        if (full) store8(c + at + j, x);
        else store_part(c + at + j, x, n);
    }
}

static void finish_row(const struct epilogue *e, float *c, int64_t at, int64_t j0, int64_t j1)
{
    bool slope = e->slope != NULL;
#define AS(name)                                                                                             \
    case MODE_ACT_##name:                                                                                    \
        if (slope) finish_row_as(e, c, at, j0, j1, MODE_ACT_##name, true);                                   \
        else finish_row_as(e, c, at, j0, j1, MODE_ACT_##name, false);                                        \
        return;
    switch (e->act) {
        AS(NONE)
        AS(GELU)
        AS(GELU_TANH)
        AS(QUICK_GELU)
        AS(TANH)
    }
#undef AS
}

static void cpu_linear(struct mode_backend *be, struct mode_tensor *y, struct mode_tensor *pre,
                       const struct mode_tensor *x, const struct mode_tensor *w, const struct mode_tensor *b,
                       const struct mode_tensor *add, enum mode_act act)
{
    int64_t m = x->dim[0], k = x->dim[1], n = w->dim[0];
    struct epilogue e = {.bias = b ? mode_f32(b) : NULL,
                         .pre = pre ? mode_f32(pre) : NULL,
                         .add = add && add->data != y->data ? mode_f32(add) : NULL,
                         .act = act};
    bool any = b || pre || e.add || act != MODE_ACT_NONE;
    gemm_rows(be, mode_f32(y), m, n, k, (struct view){mode_f32(x), k, 1}, (struct view){mode_f32(w), 1, k},
              any ? &e : NULL, add && !e.add);
}

static void cpu_linear_back(struct mode_backend *be, struct mode_tensor *dx, struct mode_tensor *dw,
                            struct mode_tensor *db, const struct mode_tensor *dy, const struct mode_tensor *x,
                            const struct mode_tensor *w, const struct mode_tensor *pre, enum mode_act act)
{
    int64_t m = x->dim[0], k = x->dim[1], n = w->dim[0];
    struct epilogue e = {.slope = pre ? mode_f32(pre) : NULL, .act = act};
    gemm_sum(be, mode_f32(dw), db ? mode_f32(db) : NULL, m, n, k, mode_f32(dy), mode_f32(x));
    if (dx)
        gemm_rows(be, mode_f32(dx), m, k, n, (struct view){mode_f32(dy), n, 1}, (struct view){mode_f32(w), k, 1},
                  act != MODE_ACT_NONE ? &e : NULL, false);
}

static void cpu_project(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *x,
                        const struct mode_tensor *w)
{
    int64_t m = x->dim[0], k = x->dim[1], n = w->dim[1];
    gemm_rows(be, mode_f32(y), m, n, k, (struct view){mode_f32(x), k, 1}, (struct view){mode_f32(w), n, 1}, NULL, false);
}

static void cpu_project_back(struct mode_backend *be, struct mode_tensor *dx, struct mode_tensor *dw,
                             const struct mode_tensor *dy, const struct mode_tensor *x, const struct mode_tensor *w)
{
    int64_t m = x->dim[0], k = x->dim[1], n = w->dim[1];
    gemm_sum(be, mode_f32(dw), NULL, m, k, n, mode_f32(x), mode_f32(dy));
    gemm_rows(be, mode_f32(dx), m, k, n, (struct view){mode_f32(dy), n, 1}, (struct view){mode_f32(w), 1, n}, NULL, false);
}

#endif
