/* oracle.h - the reference for models of full size: "ref" and "ref-bf16" by all threads.
 *
 *     struct mode_backend *be = oracle_open("ref");      // any other use as a backend; mode_backend_close
 *
 * Products, attention and AdamW are cut into pieces that know nothing of each other, and of a product 32 sums are made
 * side by side; every sum is the one that common/nn/ref makes, in the same order, so all results are the same bytes
 * (tests/ops/test_backends.c). Some ten times as fast on one core and more. All other ops are ref's own. */
#ifndef MODE_TESTS_OPS_ORACLE_H
#define MODE_TESTS_OPS_ORACLE_H

#include "nn/ref/ref.h"

#include "base/parallel.h"
#include "base/str.h"
#include "nn/backend.h"

#include <string.h>

#if defined(__x86_64__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define ORACLE_CLONES __attribute__((target_clones("avx2", "default"))) /* without fma: two roundings, as ref has */
#else
#define ORACLE_CLONES
#endif

enum { ORACLE_ROWS = 4, ORACLE_COLUMNS = 8, ORACLE_PIECE = 1 << 16 };

/* ---- sums over l of a(i, l) * b(l, j), l from 0 on ---- */

/* a [m, k]; b by panels of 8 columns, each [k, 8]; sums [m, n], which hold what a sum begins with. */
struct oracle_sums {
    int64_t m, n, k;
    double *a, *b, *sums;
    const struct mode_tensor *from_a, *from_b;
    bool a_across, b_across; /* a(i, l) is from_a[l, i]; b(l, j) is from_b[j, l] */
};

static inline void oracle_row_of_a(void *ctx, int64_t i, int thread)
{
    const struct oracle_sums *s = ctx;
    (void)thread;
    for (int64_t l = 0; l < s->k; l++)
        s->a[i * s->k + l] = mode__ref_get(s->from_a, s->a_across ? l * s->m + i : i * s->k + l);
}

typedef double oracle_four __attribute__((vector_size(32), aligned(8)));

ORACLE_CLONES static void oracle_block(double *sums, int64_t n, const double *a, const double *b, int64_t k)
{
    oracle_four c[ORACLE_ROWS][2];
#pragma GCC unroll 4
    for (int i = 0; i < ORACLE_ROWS; i++)
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) memcpy(&c[i][h], sums + i * n + 4 * h, sizeof c[i][h]);
    for (int64_t l = 0; l < k; l++) {
        oracle_four x, y;
        memcpy(&x, b + ORACLE_COLUMNS * l, sizeof x);
        memcpy(&y, b + ORACLE_COLUMNS * l + 4, sizeof y);
#pragma GCC unroll 4 /* so that the sums stay in registers */
        for (int i = 0; i < ORACLE_ROWS; i++) {
            c[i][0] += a[i * k + l] * x;
            c[i][1] += a[i * k + l] * y;
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < ORACLE_ROWS; i++)
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) memcpy(sums + i * n + 4 * h, &c[i][h], sizeof c[i][h]);
}

static inline void oracle_panel(void *ctx, int64_t panel, int thread)
{
    const struct oracle_sums *s = ctx;
    const int64_t j0 = panel * ORACLE_COLUMNS, left = s->n - j0, wide = left < ORACLE_COLUMNS ? left : ORACLE_COLUMNS;
    double *b = s->b + j0 * s->k;
    (void)thread;
    for (int64_t l = 0; l < s->k; l++)
        for (int64_t j = 0; j < ORACLE_COLUMNS; j++)
            b[ORACLE_COLUMNS * l + j] = j >= wide ? 0
                                                  : mode__ref_get(s->from_b, s->b_across ? (j0 + j) * s->k + l
                                                                                         : l * s->n + j0 + j);
    int64_t i = 0;
    for (; wide == ORACLE_COLUMNS && i + ORACLE_ROWS <= s->m; i += ORACLE_ROWS)
        oracle_block(s->sums + i * s->n + j0, s->n, s->a + i * s->k, b, s->k);
    for (; i < s->m; i++)
        for (int64_t j = 0; j < wide; j++) {
            double sum = s->sums[i * s->n + j0 + j];
            for (int64_t l = 0; l < s->k; l++) sum += s->a[i * s->k + l] * b[ORACLE_COLUMNS * l + j];
            s->sums[i * s->n + j0 + j] = sum;
        }
}

/* Begins with `first` of each column where it is not NULL. The caller frees a and sums. */
static inline void oracle_sums_make(struct oracle_sums *s, const struct mode_tensor *first)
{
    const int64_t panels = (s->n + ORACLE_COLUMNS - 1) / ORACLE_COLUMNS;
    s->a = mode_xmalloc((size_t)(s->m * s->k + 1) * sizeof *s->a);
    s->b = mode_xmalloc((size_t)(panels * ORACLE_COLUMNS * s->k + 1) * sizeof *s->b);
    s->sums = mode_xcalloc((size_t)(s->m * s->n + 1), sizeof *s->sums);
    for (int64_t i = 0; first && i < s->m * s->n; i++) s->sums[i] = mode__ref_get(first, i % s->n);
    mode_parallel_for(s->m, oracle_row_of_a, s);
    mode_parallel_for(panels, oracle_panel, s);
    free(s->b);
}

static inline void oracle_sums_clear(struct oracle_sums *s)
{
    free(s->a);
    free(s->sums);
}

static inline void oracle_add(struct mode_tensor *t, const struct oracle_sums *s)
{
    for (int64_t i = 0; i < s->m * s->n; i++) mode__ref_add(t, i, s->sums[i]);
}

static inline void oracle_put(struct mode_tensor *t, const struct oracle_sums *s)
{
    for (int64_t i = 0; i < s->m * s->n; i++) mode__ref_put(t, i, s->sums[i]);
}

/* ---- activations, by rows ---- */

struct oracle_act {
    struct mode_tensor *y;
    const struct mode_tensor *z;
    const double *dy; /* NULL: values; else slopes, times these */
    enum mode_act act;
};

static inline void oracle_act_row(void *ctx, int64_t row, int thread)
{
    const struct oracle_act *a = ctx;
    const int64_t n = a->y->dim[1];
    (void)thread;
    for (int64_t i = row * n; i < (row + 1) * n; i++) {
        const double z = mode__ref_get(a->z, i);
        mode__ref_put(a->y, i,
                      a->dy ? mode__ref_stored(a->dy[i], a->y) * mode__ref_act_slope(z, a->act)
                            : mode__ref_act_value(z, a->act));
    }
}

static inline void oracle_activate(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *z,
                                   enum mode_act act)
{
    (void)be;
    mode_parallel_for(y->dim[0], oracle_act_row, &(struct oracle_act){y, z, NULL, act});
}

/* ---- products ---- */

static inline void oracle_linear(struct mode_backend *be, struct mode_tensor *y, struct mode_tensor *z,
                                 const struct mode_tensor *x, const struct mode_tensor *w, const struct mode_tensor *b,
                                 const struct mode_tensor *add, enum mode_act act)
{
    struct oracle_sums s = {.m = x->dim[0], .k = x->dim[1], .n = w->dim[0], .from_a = x, .from_b = w, .b_across = true};
    struct mode_tensor before = *y;
    oracle_sums_make(&s, b);
    if (act == MODE_ACT_NONE) {
        if (z) oracle_put(z, &s);
        for (int64_t i = 0; add && i < s.m * s.n; i++) s.sums[i] += mode__ref_get(add, i);
        oracle_put(y, &s);
    } else {
        MODE_ASSERT(!add);
        if (!z) before.data = mode_xmalloc(mode_tensor_bytes(y) + 1);
        oracle_put(z ? z : &before, &s);
        oracle_activate(be, y, z ? z : &before, act);
        if (!z) free(before.data);
    }
    oracle_sums_clear(&s);
}

static inline void oracle_linear_back(struct mode_backend *be, struct mode_tensor *dx, struct mode_tensor *dw,
                                      struct mode_tensor *db, const struct mode_tensor *dy, const struct mode_tensor *x,
                                      const struct mode_tensor *w, const struct mode_tensor *z, enum mode_act act)
{
    const int64_t m = x->dim[0], k = x->dim[1], n = w->dim[0];
    struct oracle_sums s = {.m = n, .k = m, .n = k, .from_a = dy, .from_b = x, .a_across = true};
    (void)be;
    oracle_sums_make(&s, NULL);
    oracle_add(dw, &s);
    for (int64_t j = 0; db && j < n; j++) {
        double bias = 0;
        for (int64_t i = 0; i < m; i++) bias += s.a[j * m + i];
        mode__ref_add(db, j, bias);
    }
    oracle_sums_clear(&s);
    if (!dx) return;
    s = (struct oracle_sums){.m = m, .k = n, .n = k, .from_a = dy, .from_b = w};
    oracle_sums_make(&s, NULL);
    if (z)
        mode_parallel_for(m, oracle_act_row, &(struct oracle_act){dx, z, s.sums, act});
    else
        oracle_put(dx, &s);
    oracle_sums_clear(&s);
}

static inline void oracle_project(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *x,
                                  const struct mode_tensor *w)
{
    struct oracle_sums s = {.m = x->dim[0], .k = x->dim[1], .n = w->dim[1], .from_a = x, .from_b = w};
    (void)be;
    oracle_sums_make(&s, NULL);
    oracle_put(y, &s);
    oracle_sums_clear(&s);
}

static inline void oracle_project_back(struct mode_backend *be, struct mode_tensor *dx, struct mode_tensor *dw,
                                       const struct mode_tensor *dy, const struct mode_tensor *x,
                                       const struct mode_tensor *w)
{
    const int64_t m = x->dim[0], k = x->dim[1], n = w->dim[1];
    struct oracle_sums s = {.m = k, .k = m, .n = n, .from_a = x, .from_b = dy, .a_across = true};
    (void)be;
    oracle_sums_make(&s, NULL);
    oracle_add(dw, &s);
    oracle_sums_clear(&s);
    s = (struct oracle_sums){.m = m, .k = n, .n = k, .from_a = dy, .from_b = w, .b_across = true};
    oracle_sums_make(&s, NULL);
    oracle_put(dx, &s);
    oracle_sums_clear(&s);
}

/* ---- attention, each sequence and head for itself ---- */

struct oracle_attention {
    struct mode_tensor *out, *lse, *dq, *dkv;
    const struct mode_tensor *q, *kv, *dout;
    const struct mode_attention *s;
};

/* Columns [column, column + n) of `rows` rows from `row` on, from there or back there. */
static inline void oracle_part(struct mode_tensor *part, int64_t part_column, const struct mode_tensor *t, int64_t row,
                               int64_t column, int64_t n, bool back)
{
    const size_t size = mode_dtype_size(t->dtype);
    for (int64_t i = 0; i < part->dim[0]; i++) {
        char *in = (char *)part->data + (size_t)(i * part->dim[1] + part_column) * size,
             *there = (char *)t->data + (size_t)((row + i) * t->dim[1] + column) * size;
        memcpy(back ? there : in, back ? in : there, (size_t)n * size);
    }
}

static inline struct mode_tensor oracle_empty(enum mode_dtype dtype, int64_t rows, int64_t columns)
{
    struct mode_tensor t = mode_tensor_2d(NULL, dtype, rows, columns);
    t.data = mode_xcalloc(1, mode_tensor_bytes(&t) + 1);
    return t;
}

static inline void oracle_head(void *ctx, int64_t item, int thread)
{
    const struct oracle_attention *a = ctx;
    const struct mode_attention *s = a->s;
    const int64_t b = item / s->heads, h = item % s->heads, dh = s->width / s->heads;
    const int32_t *qo = s->q_offsets->data, *ko = s->kv_offsets->data;
    int32_t q_ends[] = {0, qo[b + 1] - qo[b]}, k_ends[] = {0, ko[b + 1] - ko[b]};
    const struct mode_tensor q_offsets = mode_tensor_1d(q_ends, MODE_DTYPE_I32, 2),
                             k_offsets = mode_tensor_1d(k_ends, MODE_DTYPE_I32, 2);
    const struct mode_attention one = {dh, 1, 0, 0, dh, s->causal, &q_offsets, &k_offsets, 0};
    const enum mode_dtype dtype = a->q->dtype;
    struct mode_tensor q = oracle_empty(dtype, q_ends[1], dh), kv = oracle_empty(dtype, k_ends[1], 2 * dh),
                       out = oracle_empty(dtype, q_ends[1], dh), lse = oracle_empty(MODE_DTYPE_F32, q_ends[1], 1);
    struct mode_backend *be;
    struct mode_error err;
    (void)thread;
    MODE_ASSERT(mode_backend_open(&be, "ref", &err) == MODE_OK); /* for scratch of its own */
    oracle_part(&q, 0, a->q, qo[b], s->q_at + h * dh, dh, false);
    oracle_part(&kv, 0, a->kv, ko[b], s->k_at + h * dh, dh, false);
    oracle_part(&kv, dh, a->kv, ko[b], s->v_at + h * dh, dh, false);
    if (!a->dout) {
        mode__ref_attention(be, &out, &lse, &q, &kv, &one);
        oracle_part(&out, 0, a->out, qo[b], h * dh, dh, true);
        if (a->lse) oracle_part(&lse, 0, a->lse, qo[b], h, 1, true);
    } else {
        struct mode_tensor dout = oracle_empty(dtype, q_ends[1], dh), dq = oracle_empty(dtype, q_ends[1], dh),
                           dkv = oracle_empty(dtype, k_ends[1], 2 * dh);
        oracle_part(&dout, 0, a->dout, qo[b], h * dh, dh, false);
        oracle_part(&out, 0, a->out, qo[b], h * dh, dh, false);
        oracle_part(&lse, 0, a->lse, qo[b], h, 1, false);
        mode__ref_attention_back(be, &dq, &dkv, &dout, &out, &lse, &q, &kv, &one);
        oracle_part(&dq, 0, a->dq, qo[b], s->q_at + h * dh, dh, true);
        oracle_part(&dkv, 0, a->dkv, ko[b], s->k_at + h * dh, dh, true);
        oracle_part(&dkv, dh, a->dkv, ko[b], s->v_at + h * dh, dh, true);
        free(dout.data);
        free(dq.data);
        free(dkv.data);
    }
    free(q.data);
    free(kv.data);
    free(out.data);
    free(lse.data);
    mode_backend_close(&be);
}

static inline void oracle_attention(struct mode_backend *be, struct mode_tensor *out, struct mode_tensor *lse,
                                    const struct mode_tensor *q, const struct mode_tensor *kv,
                                    const struct mode_attention *s)
{
    struct oracle_attention a = {.out = out, .lse = lse, .q = q, .kv = kv, .s = s};
    (void)be;
    mode_parallel_for((s->q_offsets->dim[0] - 1) * s->heads, oracle_head, &a);
}

static inline void oracle_attention_back(struct mode_backend *be, struct mode_tensor *dq, struct mode_tensor *dkv,
                                         const struct mode_tensor *dout, const struct mode_tensor *out,
                                         const struct mode_tensor *lse, const struct mode_tensor *q,
                                         const struct mode_tensor *kv, const struct mode_attention *s)
{
    struct mode_tensor done = *out, sums = *lse; /* read alone */
    struct oracle_attention a = {&done, &sums, dq, dkv, q, kv, dout, s};
    (void)be;
    mode_parallel_for((s->q_offsets->dim[0] - 1) * s->heads, oracle_head, &a);
}

/* ---- AdamW, piece by piece ---- */

struct oracle_update {
    struct mode_backend *be;
    struct mode_param *p;
    const struct mode_adamw_step *s;
};

static inline struct mode_tensor oracle_slice(const struct mode_tensor *t, int64_t at, int64_t n)
{
    return mode_tensor_1d(t->data ? (char *)t->data + (size_t)at * mode_dtype_size(t->dtype) : NULL, t->dtype, n);
}

static inline void oracle_update_piece(void *ctx, int64_t piece, int thread)
{
    const struct oracle_update *u = ctx;
    const int64_t at = piece * ORACLE_PIECE, left = mode_tensor_count(&u->p->value) - at,
                  n = left < ORACLE_PIECE ? left : ORACLE_PIECE;
    struct mode_param p = *u->p;
    (void)thread;
    p.value = oracle_slice(&u->p->value, at, n);
    p.operand = oracle_slice(&u->p->operand, at, n);
    p.grad = oracle_slice(&u->p->grad, at, n);
    p.m = oracle_slice(&u->p->m, at, n);
    p.v = oracle_slice(&u->p->v, at, n);
    mode__ref_adamw(u->be, &p, 1, u->s);
}

static inline void oracle_adamw(struct mode_backend *be, struct mode_param *p, size_t n,
                                const struct mode_adamw_step *s)
{
    for (size_t i = 0; i < n; i++)
        mode_parallel_for((mode_tensor_count(&p[i].value) + ORACLE_PIECE - 1) / ORACLE_PIECE, oracle_update_piece,
                          &(struct oracle_update){be, &p[i], s});
}

/* name: "ref" or "ref-bf16" */
static inline struct mode_backend *oracle_open(const char *name)
{
    static struct mode_ops all[2];
    struct mode_backend *be;
    struct mode_error err;
    MODE_ASSERT(mode_backend_open(&be, name, &err) == MODE_OK);
    struct mode_ops *ops = &all[be->ops->activations == MODE_DTYPE_BF16];
    *ops = *be->ops;
    ops->linear = oracle_linear;
    ops->linear_back = oracle_linear_back;
    ops->activate = oracle_activate;
    ops->project = oracle_project;
    ops->project_back = oracle_project_back;
    ops->attention = oracle_attention;
    ops->attention_back = oracle_attention_back;
    ops->adamw = oracle_adamw;
    be->ops = ops;
    return be;
}

#endif
