/* attention.h - one work item is one head of one sequence: its scores, a few KB, stay in the core's cache. The backward
 * pass recomputes the probabilities from the scores and the saved log-sum-exp. */
#ifndef MODE_NN_CPU_ATTENTION_H
#define MODE_NN_CPU_ATTENTION_H

#include "nn/cpu/gemm.h"

#include <math.h>

struct attention {
    const struct mode_attention *s;
    const float *q, *kv, *dout, *out, *saved;
    float *o, *lse, *dq, *dkv, *scratch;
    int64_t lq, lkv, dh, score_floats, pack_floats, scratch_floats;
    float scale;
};

struct head { /* one item: first rows and row counts */
    int64_t h, q0, tq, k0, tk, ld;
    struct view q, k, v;
};

static struct head head_of(const struct attention *a, int64_t item)
{
    const int32_t *qo = a->s->q_offsets->data, *ko = a->s->kv_offsets->data;
    int64_t b = item / a->s->heads;
    struct head h = {.h = item % a->s->heads, .q0 = qo[b], .k0 = ko[b]};
    h.tq = qo[b + 1] - h.q0;
    h.tk = ko[b + 1] - h.k0;
    h.ld = round_up(h.tk, TILE_N);
    h.q = (struct view){a->q + h.q0 * a->lq + a->s->q_at + h.h * a->dh, a->lq, 1};
    h.k = (struct view){a->kv + h.k0 * a->lkv + a->s->k_at + h.h * a->dh, a->lkv, 1};
    h.v = (struct view){a->kv + h.k0 * a->lkv + a->s->v_at + h.h * a->dh, a->lkv, 1};
    return h;
}

static struct view transposed(struct view v)
{
    return (struct view){v.p, v.cs, v.rs};
}

/* score [tq, ld] = x [tq, dh] y [tk, dh]^T; columns past tk become 0 */
static void scores(float *score, float *packed, const struct attention *a, const struct head *h, struct view x,
                   struct view y)
{
    tile_pack_right(packed, transposed(y), a->dh, h->tk);
    tile_block(h->tq, h->ld, a->dh, x, packed, score, h->ld, false);
}

static void attention_item(void *ctx, int64_t item, int thread)
{
    const struct attention *a = ctx;
    struct head h = head_of(a, item);
    float *score = a->scratch + thread * a->scratch_floats, *packed = score + a->score_floats;
    scores(score, packed, a, &h, h.q, h.k);
    for (int64_t i = 0; i < h.tq; i++) {
        float *row = score + i * h.ld;
        int64_t end = a->s->causal ? i + 1 : h.tk;
        for (int64_t j = end; j < h.ld; j++) row[j] = -INFINITY;
        v8 m = load8(row);
        for (int64_t j = 8; j < h.ld; j += 8) m = max8(m, load8(row + j));
        float max = m[0];
        for (int j = 1; j < 8; j++) max = m[j] > max ? m[j] : max;
        v8 sum = splat8(0);
        for (int64_t j = 0; j < h.ld; j += 8) {
            v8 e = exp8((load8(row + j) - max) * a->scale);
            sum += e;
            store8(row + j, e);
        }
        float total = sum8(sum);
        if (a->lse) a->lse[(h.q0 + i) * a->s->heads + h.h] = max * a->scale + logf(total);
        for (int64_t j = 0; j < h.ld; j += 8) store8(row + j, load8(row + j) * (1.0f / total));
    }
    tile_pack_right(packed, h.v, h.tk, a->dh);
    tile_block(h.tq, a->dh, h.tk, (struct view){score, h.ld, 1}, packed, a->o + h.q0 * a->s->width + h.h * a->dh,
               a->s->width, false);
}

static void attention_back_item(void *ctx, int64_t item, int thread)
{
    const struct attention *a = ctx;
    struct head h = head_of(a, item);
    int64_t at = h.q0 * a->s->width + h.h * a->dh;
    float *p = a->scratch + thread * a->scratch_floats, *ds = p + a->score_floats, *packed = ds + a->score_floats;
    struct view dout = {a->dout + at, a->s->width, 1};
    scores(p, packed, a, &h, h.q, h.k);
    scores(ds, packed, a, &h, dout, h.v);
    for (int64_t i = 0; i < h.tq; i++) {
        const float *o = a->out + at + i * a->s->width, *g = dout.p + i * dout.rs;
        float *pi = p + i * h.ld, *di = ds + i * h.ld, delta = 0;
        float lse = a->saved[(h.q0 + i) * a->s->heads + h.h];
        for (int64_t c = 0; c < a->dh; c++) delta += o[c] * g[c];
        for (int64_t j = a->s->causal ? i + 1 : h.tk; j < h.ld; j++) pi[j] = -INFINITY;
        for (int64_t j = 0; j < h.ld; j += 8) {
            v8 e = exp8(load8(pi + j) * a->scale - lse);
            store8(pi + j, e);
            store8(di + j, e * (load8(di + j) - delta) * a->scale);
        }
    }
    struct view pv = {p, h.ld, 1}, dsv = {ds, h.ld, 1};
    float *dq = a->dq + h.q0 * a->lq + a->s->q_at + h.h * a->dh;
    float *dk = a->dkv + h.k0 * a->lkv + a->s->k_at + h.h * a->dh;
    float *dv = a->dkv + h.k0 * a->lkv + a->s->v_at + h.h * a->dh;
    tile_pack_right(packed, dout, h.tq, a->dh);
    tile_block(h.tk, a->dh, h.tq, transposed(pv), packed, dv, a->lkv, false);
    tile_pack_right(packed, h.q, h.tq, a->dh);
    tile_block(h.tk, a->dh, h.tq, transposed(dsv), packed, dk, a->lkv, false);
    tile_pack_right(packed, h.k, h.tk, a->dh);
    tile_block(h.tq, a->dh, h.tk, dsv, packed, dq, a->lq, false);
}

static void attention_run(struct mode_backend *be, struct attention *a, const struct mode_tensor *q,
                          const struct mode_tensor *kv, int score_mats, mode_item_fn *fn)
{
    const struct mode_attention *s = a->s;
    const int32_t *qo = s->q_offsets->data, *ko = s->kv_offsets->data;
    int64_t n = s->q_offsets->dim[0] - 1, tq = 0, tk = 0;
    for (int64_t b = 0; b < n; b++) {
        tq = max64(tq, qo[b + 1] - qo[b]);
        tk = max64(tk, ko[b + 1] - ko[b]);
    }
    a->q = mode_f32(q);
    a->kv = mode_f32(kv);
    a->lq = q->dim[1];
    a->lkv = kv->dim[1];
    a->dh = s->width / s->heads;
    a->scale = 1.0f / sqrtf((float)a->dh);
    a->score_floats = round_up(tq * round_up(tk, TILE_N), TILE_N);
    a->pack_floats = round_up(a->dh, TILE_N) * round_up(max64(tq, tk), TILE_N);
    a->scratch_floats = score_mats * a->score_floats + a->pack_floats;
    a->scratch = mode__backend_work(be, (size_t)(a->scratch_floats * mode_parallel_threads()) * sizeof(float));
    mode_parallel_for(n * s->heads, fn, a);
}

static void cpu_attention(struct mode_backend *be, struct mode_tensor *out, struct mode_tensor *lse,
                          const struct mode_tensor *q, const struct mode_tensor *kv, const struct mode_attention *s)
{
    struct attention a = {.s = s, .o = mode_f32(out), .lse = lse ? mode_f32(lse) : NULL};
    attention_run(be, &a, q, kv, 1, attention_item);
}

static void cpu_attention_back(struct mode_backend *be, struct mode_tensor *dq, struct mode_tensor *dkv,
                               const struct mode_tensor *dout, const struct mode_tensor *out,
                               const struct mode_tensor *lse, const struct mode_tensor *q, const struct mode_tensor *kv,
                               const struct mode_attention *s)
{
    struct attention a = {.s = s,
                          .dout = mode_f32(dout),
                          .out = mode_f32(out),
                          .saved = mode_f32(lse),
                          .dq = mode_f32(dq),
                          .dkv = mode_f32(dkv)};
    attention_run(be, &a, q, kv, 2, attention_back_item);
}

#endif
