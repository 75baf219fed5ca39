#include "models/clip_exact.h"

#include "base/parallel.h"
#include "base/str.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_ROWS = 64 };

static double *doubles(int64_t n)
{
    return mode_xcalloc((size_t)(n > 0 ? n : 1), sizeof(double));
}

static double *widen(const float *v, int64_t n)
{
    double *d = doubles(n);
    for (int64_t i = 0; i < n; i++) d[i] = v[i];
    return d;
}

static double *value_of(const struct mode_param *p)
{
    return widen(mode_f32(&p->value), mode_tensor_count(&p->value));
}

/* ---- GEMM: c [m, n] = a b, a [m, k] or stored transposed (ta), b [k, n] or stored transposed (tb) -------------- */

struct gemm {
    double *c;
    const double *a, *b;
    int64_t m, n, k;
    bool ta, tb;
};

static void gemm_rows(void *ctx, int64_t item, int thread)
{
    const struct gemm *p = ctx;
    int64_t i0 = item * BLOCK_ROWS, m = p->m - i0 < BLOCK_ROWS ? p->m - i0 : BLOCK_ROWS;
    (void)thread;
    cblas_dgemm(CblasRowMajor, p->ta ? CblasTrans : CblasNoTrans, p->tb ? CblasTrans : CblasNoTrans, (int)m, (int)p->n,
                (int)p->k, 1.0, p->a + (p->ta ? i0 : i0 * p->k), (int)(p->ta ? p->m : p->k), p->b,
                (int)(p->tb ? p->k : p->n), 0.0, p->c + i0 * p->n, (int)p->n);
}

static void gemm(double *c, const double *a, bool ta, const double *b, bool tb, int64_t m, int64_t n, int64_t k)
{
    struct gemm p = {c, a, b, m, n, k, ta, tb};
    mode_parallel_for((m + BLOCK_ROWS - 1) / BLOCK_ROWS, gemm_rows, &p);
}

/* y [m, n] = x [m, k] w [n, k]^T + b */
static void linear(double *y, const double *x, const struct mode_param *w, const struct mode_param *b, int64_t m,
                   int64_t n, int64_t k)
{
    double *wide = value_of(w);
    gemm(y, x, false, wide, true, m, n, k);
    for (int64_t i = 0; b && i < m * n; i++) y[i] += mode_f32(&b->value)[i % n];
    free(wide);
}

/* dx [m, k] (may be NULL) from dy [m, n]; gradients of w and b go to `each`. */
static void linear_back(double *dx, const double *dy, const double *x, const struct mode_param *w,
                        const struct mode_param *b, int64_t m, int64_t n, int64_t k, clip_exact_grad_fn *each,
                        void *ctx)
{
    double *wide = value_of(w);
    if (dx) gemm(dx, dy, false, wide, false, m, k, n);
    gemm(wide, dy, true, x, false, n, k, m);
    each(ctx, w, wide);
    free(wide);
    if (!b) return;
    double *db = doubles(n);
    for (int64_t i = 0; i < m * n; i++) db[i % n] += dy[i];
    each(ctx, b, db);
    free(db);
}

static void layernorm(double *y, const double *x, const struct mode_param *w, const struct mode_param *b, int64_t m,
                      int64_t d, double eps)
{
    for (int64_t i = 0; i < m; i++) {
        const double *r = x + i * d;
        double mean = 0, var = 0;
        for (int64_t j = 0; j < d; j++) mean += r[j] / (double)d;
        for (int64_t j = 0; j < d; j++) var += (r[j] - mean) * (r[j] - mean) / (double)d;
        for (int64_t j = 0; j < d; j++)
            y[i * d + j] = (r[j] - mean) / sqrt(var + eps) * mode_f32(&w->value)[j] + mode_f32(&b->value)[j];
    }
}

/* dx += the gradient of x */
static void layernorm_back(double *dx, const double *dy, const double *x, const struct mode_param *w,
                           const struct mode_param *b, int64_t m, int64_t d, double eps, clip_exact_grad_fn *each,
                           void *ctx)
{
    double *dw = doubles(d), *db = doubles(d), n = (double)d;
    for (int64_t i = 0; i < m; i++) {
        const double *r = x + i * d, *g = dy + i * d;
        double mean = 0, var = 0, s = 0, sh = 0;
        for (int64_t j = 0; j < d; j++) mean += r[j] / n;
        for (int64_t j = 0; j < d; j++) var += (r[j] - mean) * (r[j] - mean) / n;
        double inv = 1 / sqrt(var + eps);
        for (int64_t j = 0; j < d; j++) {
            double h = (r[j] - mean) * inv, gw = g[j] * mode_f32(&w->value)[j];
            s += gw / n;
            sh += gw * h / n;
            dw[j] += g[j] * h;
            db[j] += g[j];
        }
        for (int64_t j = 0; j < d; j++)
            dx[i * d + j] += (g[j] * mode_f32(&w->value)[j] - s - (r[j] - mean) * inv * sh) * inv;
    }
    each(ctx, w, dw);
    each(ctx, b, db);
    free(dw);
    free(db);
}

/* ---- attention, one head of one sequence at a time ------------------------------------------------------------ */

struct heads {
    const struct clip_exact *x;
    const double *qkv, *d_out;
    double *out, *d_qkv;
};

static double *scores_of(const struct heads *h, const double *q, const double *k)
{
    const struct clip_exact *x = h->x;
    int64_t t = x->rows, dh = x->d / x->t->cfg.heads, ld = 3 * x->d;
    double *s = doubles(t * t);
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)t, (int)t, (int)dh, 1 / sqrt((double)dh), q, (int)ld, k,
                (int)ld, 0, s, (int)t);
    for (int64_t i = 0; i < t; i++) {
        int64_t n = x->t->causal ? i + 1 : t;
        double max = -INFINITY, sum = 0;
        for (int64_t j = 0; j < n; j++) max = fmax(max, s[i * t + j]);
        for (int64_t j = 0; j < n; j++) sum += s[i * t + j] = exp(s[i * t + j] - max);
        for (int64_t j = 0; j < t; j++) s[i * t + j] = j < n ? s[i * t + j] / sum : 0;
    }
    return s;
}

static void head_forward(void *ctx, int64_t item, int thread)
{
    const struct heads *h = ctx;
    const struct clip_exact *x = h->x;
    int64_t t = x->rows, d = x->d, dh = d / x->t->cfg.heads, b = item / x->t->cfg.heads,
            at = item % x->t->cfg.heads * dh;
    const double *q = h->qkv + b * t * 3 * d + at;
    double *s = scores_of(h, q, q + d);
    (void)thread;
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)t, (int)dh, (int)t, 1, s, (int)t, q + 2 * d,
                (int)(3 * d), 0, h->out + b * t * d + at, (int)d);
    free(s);
}

static void head_back(void *ctx, int64_t item, int thread)
{
    const struct heads *h = ctx;
    const struct clip_exact *x = h->x;
    int64_t t = x->rows, d = x->d, dh = d / x->t->cfg.heads, b = item / x->t->cfg.heads,
            at = item % x->t->cfg.heads * dh;
    const double *q = h->qkv + b * t * 3 * d + at, *go = h->d_out + b * t * d + at;
    double *dq = h->d_qkv + b * t * 3 * d + at, *p = scores_of(h, q, q + d), *dp = doubles(t * t);
    double scale = 1 / sqrt((double)dh);
    int ld = (int)(3 * d), n = (int)t, w = (int)dh;
    (void)thread;
    cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, n, w, n, 1, p, n, go, (int)d, 0, dq + 2 * d, ld);
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, n, w, 1, go, (int)d, q + 2 * d, ld, 0, dp, n);
    for (int64_t i = 0; i < t; i++) {
        double dot = 0;
        for (int64_t j = 0; j < t; j++) dot += p[i * t + j] * dp[i * t + j];
        for (int64_t j = 0; j < t; j++) dp[i * t + j] = scale * p[i * t + j] * (dp[i * t + j] - dot);
    }
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, w, n, 1, dp, n, q + d, ld, 0, dq, ld);
    cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, n, w, n, 1, dp, n, q, ld, 0, dq + d, ld);
    free(p);
    free(dp);
}

/* ---- activations ---------------------------------------------------------------------------------------------- */

static double act(double z, enum mode_act kind)
{
    switch (kind) {
    case MODE_ACT_GELU: return z * 0.5 * erfc(-z * M_SQRT1_2);
    case MODE_ACT_GELU_TANH: return 0.5 * z * (1 + tanh(sqrt(2 / M_PI) * (z + 0.044715 * z * z * z)));
    case MODE_ACT_QUICK_GELU: return z / (1 + exp(-1.702 * z));
    case MODE_ACT_TANH: return tanh(z);
    case MODE_ACT_NONE: break;
    }
    return z;
}

static double act_slope(double z, enum mode_act kind)
{
    double s;
    switch (kind) {
    case MODE_ACT_GELU: return 0.5 * erfc(-z * M_SQRT1_2) + z * exp(-z * z / 2) / sqrt(2 * M_PI);
    case MODE_ACT_GELU_TANH:
        s = tanh(sqrt(2 / M_PI) * (z + 0.044715 * z * z * z));
        return 0.5 * (1 + s) + 0.5 * z * (1 - s * s) * sqrt(2 / M_PI) * (1 + 3 * 0.044715 * z * z);
    case MODE_ACT_QUICK_GELU: s = 1 / (1 + exp(-1.702 * z)); return s * (1 + 1.702 * z * (1 - s));
    case MODE_ACT_TANH: s = tanh(z); return 1 - s * s;
    case MODE_ACT_NONE: break;
    }
    return 1;
}

/* ---- a tower -------------------------------------------------------------------------------------------------- */

/* y = x + ls * branch; ls (LayerScale) may be NULL */
static void residual(double *y, const double *x, const double *branch, const struct mode_param *ls, int64_t n,
                     int64_t d)
{
    for (int64_t i = 0; i < n; i++) y[i] = x[i] + branch[i] * (ls ? mode_f32(&ls->value)[i % d] : 1);
}

/* dbranch from dy */
static double *residual_back(const double *dy, const double *branch, const struct mode_param *ls, int64_t n, int64_t d,
                             clip_exact_grad_fn *each, void *ctx)
{
    double *g = doubles(n), *dls = doubles(d);
    for (int64_t i = 0; i < n; i++) {
        g[i] = dy[i] * (ls ? mode_f32(&ls->value)[i % d] : 1);
        dls[i % d] += dy[i] * branch[i];
    }
    if (ls) each(ctx, ls, dls);
    free(dls);
    return g;
}

static void block_forward(struct clip_exact *x, int64_t layer, const double *in, double *out)
{
    const struct clip_block *w = &x->t->blocks[layer];
    struct clip_exact_block *v = &x->blocks[layer];
    int64_t r = x->b * x->rows, d = x->d, f = x->f;
    double eps = x->t->cfg.ln_eps;
    *v = (struct clip_exact_block){doubles(r * d), doubles(r * d), doubles(3 * r * d), doubles(r * d), doubles(r * d),
                                   doubles(r * d), doubles(r * d), doubles(r * f),     doubles(r * f), doubles(r * d)};
    memcpy(v->x, in, (size_t)(r * d) * sizeof *in);
    layernorm(v->ln_1, in, w->ln_1_w, w->ln_1_b, r, d, eps);
    linear(v->qkv, v->ln_1, w->qkv_w, w->qkv_b, r, 3 * d, d);
    struct heads h = {.x = x, .qkv = v->qkv, .out = v->attn};
    mode_parallel_for(x->b * x->t->cfg.heads, head_forward, &h);
    linear(v->out_1, v->attn, w->out_w, w->out_b, r, d, d);
    residual(v->mid, in, v->out_1, w->ls_1, r * d, d);
    layernorm(v->ln_2, v->mid, w->ln_2_w, w->ln_2_b, r, d, eps);
    linear(v->z, v->ln_2, w->fc_w, w->fc_b, r, f, d);
    for (int64_t i = 0; i < r * f; i++) v->hidden[i] = act(v->z[i], x->t->cfg.act);
    linear(v->out_2, v->hidden, w->proj_w, w->proj_b, r, d, f);
    residual(out, v->mid, v->out_2, w->ls_2, r * d, d);
}

/* d_x [R, D]: gradient of the block's output on entry, of its input on return. */
static void block_back(struct clip_exact *x, int64_t layer, double *d_x, clip_exact_grad_fn *each, void *ctx)
{
    const struct clip_block *w = &x->t->blocks[layer];
    struct clip_exact_block *v = &x->blocks[layer];
    int64_t r = x->b * x->rows, d = x->d, f = x->f;
    double eps = x->t->cfg.ln_eps, *d_hidden = doubles(r * f), *d_ln = doubles(r * d), *d_qkv = doubles(3 * r * d);
    double *g = residual_back(d_x, v->out_2, w->ls_2, r * d, d, each, ctx);
    linear_back(d_hidden, g, v->hidden, w->proj_w, w->proj_b, r, d, f, each, ctx);
    free(g);
    for (int64_t i = 0; i < r * f; i++) d_hidden[i] *= act_slope(v->z[i], x->t->cfg.act);
    linear_back(d_ln, d_hidden, v->ln_2, w->fc_w, w->fc_b, r, f, d, each, ctx);
    layernorm_back(d_x, d_ln, v->mid, w->ln_2_w, w->ln_2_b, r, d, eps, each, ctx);
    g = residual_back(d_x, v->out_1, w->ls_1, r * d, d, each, ctx);
    linear_back(d_ln, g, v->attn, w->out_w, w->out_b, r, d, d, each, ctx);
    free(g);
    struct heads h = {.x = x, .qkv = v->qkv, .d_out = d_ln, .d_qkv = d_qkv};
    mode_parallel_for(x->b * x->t->cfg.heads, head_back, &h);
    linear_back(d_ln, d_qkv, v->ln_1, w->qkv_w, w->qkv_b, r, 3 * d, d, each, ctx);
    layernorm_back(d_x, d_ln, v->x, w->ln_1_w, w->ln_1_b, r, d, eps, each, ctx);
    free(d_hidden);
    free(d_ln);
    free(d_qkv);
}

/* x->x -> everything after it */
static void tower_forward(struct clip_exact *x)
{
    int64_t t = x->rows, d = x->d, e = x->e, r = x->b * t;
    const struct clip_tower *w = x->t;
    double *in = x->x, *all = doubles(r * d);
    x->blocks = mode_xcalloc((size_t)w->cfg.layers, sizeof *x->blocks);
    x->out = doubles(r * d);
    for (int64_t i = 0; i < w->cfg.layers; i++) {
        block_forward(x, i, in, x->out);
        memcpy(all, x->out, (size_t)(r * d) * sizeof *all);
        in = all;
    }
    x->pooled = doubles(x->b * d);
    x->ln = doubles(x->b * d);
    x->emb = doubles(x->b * e);
    x->unit = doubles(x->b * e);
    if (w->mean && !w->ln_after) layernorm(all, x->out, w->ln_w, w->ln_b, r, d, w->cfg.ln_eps);
    for (int64_t b = 0; b < x->b; b++)
        for (int64_t j = 0; j < d; j++) {
            double s = 0;
            for (int64_t i = 1; w->mean && i < t; i++) s += all[(b * t + i) * d + j] / (double)(t - 1);
            x->pooled[b * d + j] = w->mean ? s : all[(b * t + x->pool[b]) * d + j];
        }
    free(all);
    if (w->mean && !w->ln_after)
        memcpy(x->ln, x->pooled, (size_t)(x->b * d) * sizeof *x->ln);
    else
        layernorm(x->ln, x->pooled, w->ln_w, w->ln_b, x->b, d, w->cfg.ln_eps);
    if (w->proj) {
        double *p = value_of(w->proj);
        gemm(x->emb, x->ln, false, p, false, x->b, e, d);
        free(p);
    } else if (w->proj_w) {
        linear(x->emb, x->ln, w->proj_w, w->proj_b, x->b, e, d);
    } else {
        memcpy(x->emb, x->ln, (size_t)(x->b * d) * sizeof *x->ln);
    }
    for (int64_t b = 0; b < x->b; b++) {
        double norm = 0;
        for (int64_t j = 0; j < e; j++) norm += x->emb[b * e + j] * x->emb[b * e + j];
        norm = fmax(sqrt(norm), 1e-12);
        for (int64_t j = 0; j < e; j++) x->unit[b * e + j] = x->emb[b * e + j] / norm;
    }
}

/* The gradient [R, D] of x->x from d_unit; the caller frees. */
static double *tower_back(struct clip_exact *x, const float *d_unit, clip_exact_grad_fn *each, void *ctx)
{
    int64_t t = x->rows, d = x->d, e = x->e, r = x->b * t;
    const struct clip_tower *w = x->t;
    double *d_emb = doubles(x->b * e), *d_ln = doubles(x->b * d), *d_pooled = doubles(x->b * d), *d_x = doubles(r * d);
    for (int64_t b = 0; b < x->b; b++) {
        double dot = 0, norm = 0;
        for (int64_t j = 0; j < e; j++) {
            dot += d_unit[b * e + j] * x->unit[b * e + j];
            norm += x->emb[b * e + j] * x->emb[b * e + j];
        }
        for (int64_t j = 0; j < e; j++)
            d_emb[b * e + j] = (d_unit[b * e + j] - dot * x->unit[b * e + j]) / fmax(sqrt(norm), 1e-12);
    }
    if (w->proj) {
        double *p = value_of(w->proj);
        gemm(d_ln, d_emb, false, p, true, x->b, d, e);
        gemm(p, x->ln, true, d_emb, false, d, e, x->b);
        each(ctx, w->proj, p);
        free(p);
    } else if (w->proj_w) {
        linear_back(d_ln, d_emb, x->ln, w->proj_w, w->proj_b, x->b, e, d, each, ctx);
    } else {
        memcpy(d_ln, d_emb, (size_t)(x->b * d) * sizeof *d_ln);
    }
    bool rows_normed = w->mean && !w->ln_after;
    if (rows_normed)
        memcpy(d_pooled, d_ln, (size_t)(x->b * d) * sizeof *d_ln);
    else
        layernorm_back(d_pooled, d_ln, x->pooled, w->ln_w, w->ln_b, x->b, d, w->cfg.ln_eps, each, ctx);
    double *d_rows = rows_normed ? doubles(r * d) : d_x;
    for (int64_t b = 0; b < x->b; b++)
        for (int64_t j = 0; j < d; j++) {
            for (int64_t i = 1; w->mean && i < t; i++)
                d_rows[(b * t + i) * d + j] = d_pooled[b * d + j] / (double)(t - 1);
            if (!w->mean) d_rows[(b * t + x->pool[b]) * d + j] = d_pooled[b * d + j];
        }
    if (rows_normed) {
        layernorm_back(d_x, d_rows, x->out, w->ln_w, w->ln_b, r, d, w->cfg.ln_eps, each, ctx);
        free(d_rows);
    }
    for (int64_t i = w->cfg.layers - 1; i >= 0; i--) block_back(x, i, d_x, each, ctx);
    free(d_emb);
    free(d_ln);
    free(d_pooled);
    return d_x;
}

void mode__clip_exact_image(struct clip_exact *x, struct mode_clip *clip, const float *pixels, int64_t b)
{
    const struct mode_clip_config *c = &clip->cfg;
    int64_t p = c->patch_size, s = c->image_size, g = s / p, t = 1 + g * g, d = c->image.width, k = 3 * p * p;
    *x = (struct clip_exact){
        .clip = clip, .t = &clip->image, .b = b, .rows = t, .d = d, .f = c->image.mlp, .e = c->embed_dim};
    x->pool = mode_xcalloc((size_t)b, sizeof *x->pool);
    x->cols = doubles(b * g * g * k);
    x->tokens = doubles(b * t * d);
    x->x = doubles(b * t * d);
    for (int64_t i = 0; i < b * g * g * k; i++) {
        int64_t col = i % k, patch = i / k % (g * g), n = i / k / (g * g);
        int64_t channel = col / (p * p), py = patch / g * p + col / p % p, px = patch % g * p + col % p;
        x->cols[i] = pixels[((n * 3 + channel) * s + py) * s + px];
    }
    double *patches = doubles(b * g * g * d);
    linear(patches, x->cols, clip->conv, NULL, b * g * g, d, k);
    for (int64_t i = 0; i < b * t * d; i++) {
        int64_t j = i % d, row = i / d % t, n = i / d / t;
        x->tokens[i] = (row == 0 ? (double)mode_f32(&clip->class_embedding->value)[j]
                                 : patches[(n * g * g + row - 1) * d + j]) +
                       mode_f32(&clip->visual_positional->value)[row * d + j];
    }
    free(patches);
    if (clip->ln_pre_w)
        layernorm(x->x, x->tokens, clip->ln_pre_w, clip->ln_pre_b, b * t, d, c->image.ln_eps);
    else
        memcpy(x->x, x->tokens, (size_t)(b * t * d) * sizeof *x->x);
    tower_forward(x);
}

void mode__clip_exact_text(struct clip_exact *x, struct mode_clip *clip, const int32_t *ids, const int32_t *n_ids,
                           int64_t b)
{
    const struct mode_clip_config *c = &clip->cfg;
    int64_t t = c->context_length, d = c->text.width;
    *x = (struct clip_exact){
        .clip = clip, .t = &clip->text, .text = true, .b = b, .rows = t, .d = d, .f = c->text.mlp, .e = c->embed_dim};
    x->ids = mode_xcalloc((size_t)(b * t), sizeof *x->ids);
    x->pool = mode_xcalloc((size_t)b, sizeof *x->pool);
    x->x = doubles(b * t * d);
    for (int64_t n = 0; n < b; n++) {
        int32_t *row = x->ids + n * t, best = 0;
        memcpy(row, ids, (size_t)n_ids[n] * sizeof *row);
        ids += n_ids[n];
        for (int32_t i = (int32_t)t - 1; i >= 0; i--) { /* from the end, so that the first match wins */
            if (c->text_pool == MODE_CLIP_POOL_ARGMAX && row[i] >= row[best]) best = i;
            if (c->text_pool == MODE_CLIP_POOL_EOS && row[i] == c->text_eos_id) best = i;
        }
        x->pool[n] = c->text_pool == MODE_CLIP_POOL_LAST ? (int32_t)t - 1 : best;
    }
    for (int64_t i = 0; i < b * t * d; i++)
        x->x[i] = (double)mode_f32(&clip->token_embedding->value)[x->ids[i / d] * d + i % d] +
                  mode_f32(&clip->positional->value)[i / d % t * d + i % d];
    tower_forward(x);
}

void mode__clip_exact_back(struct clip_exact *x, const float *d_unit, clip_exact_grad_fn *each, void *ctx)
{
    struct mode_clip *c = x->clip;
    int64_t t = x->rows, d = x->d, r = x->b * t, patches = x->b * (t - 1);
    double *d_x = tower_back(x, d_unit, each, ctx), *position = doubles(t * d);
    if (x->text) {
        double *table = doubles(mode_tensor_count(&c->token_embedding->value));
        for (int64_t i = 0; i < r * d; i++) {
            table[x->ids[i / d] * d + i % d] += d_x[i];
            position[i / d % t * d + i % d] += d_x[i];
        }
        each(ctx, c->token_embedding, table);
        each(ctx, c->positional, position);
        free(table);
    } else {
        double *d_tokens = d_x, *d_patches = doubles(patches * d);
        if (c->ln_pre_w) {
            d_tokens = doubles(r * d);
            layernorm_back(d_tokens, d_x, x->tokens, c->ln_pre_w, c->ln_pre_b, r, d, x->t->cfg.ln_eps, each, ctx);
        }
        for (int64_t i = 0; i < r * d; i++) {
            int64_t row = i / d % t;
            position[row * d + i % d] += d_tokens[i];
            if (row > 0) d_patches[(i / d / t * (t - 1) + row - 1) * d + i % d] = d_tokens[i];
        }
        if (!c->visual_positional->frozen) each(ctx, c->visual_positional, position);
        double *cls = doubles(d);
        for (int64_t i = 0; i < x->b * d; i++) cls[i % d] += d_tokens[i / d * t * d + i % d];
        each(ctx, c->class_embedding, cls);
        linear_back(NULL, d_patches, x->cols, c->conv, NULL, patches, d, mode_tensor_count(&c->conv->value) / d, each,
                    ctx);
        free(cls);
        free(d_patches);
        if (d_tokens != d_x) free(d_tokens);
    }
    free(position);
    free(d_x);
}

void mode__clip_exact_clear(struct clip_exact *x)
{
    for (int64_t i = 0; x->blocks && i < x->t->cfg.layers; i++) {
        struct clip_exact_block *v = &x->blocks[i];
        double *all[] = {v->x, v->ln_1, v->qkv, v->attn, v->out_1, v->mid, v->ln_2, v->z, v->hidden, v->out_2};
        for (size_t k = 0; k < sizeof all / sizeof *all; k++) free(all[k]);
    }
    double *all[] = {x->cols, x->tokens, x->x, x->out, x->pooled, x->ln, x->emb, x->unit};
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) free(all[k]);
    free(x->blocks);
    free(x->ids);
    free(x->pool);
    *x = (struct clip_exact){0};
}

double mode__clip_exact_loss(double *da, double *db, double *d_scale, const float *a, const float *b, int64_t n,
                             int64_t e, double logit_scale)
{
    double scale = exp(logit_scale), loss = 0, *s = doubles(n * n), *row = doubles(n), *col = doubles(n);
    for (int64_t i = 0; i < n * n; i++)
        for (int64_t j = 0; j < e; j++) s[i] += scale * a[i / n * e + j] * b[i % n * e + j];
    for (int64_t i = 0; i < n; i++) {
        double max_row = -INFINITY, max_col = -INFINITY;
        for (int64_t j = 0; j < n; j++) {
            max_row = fmax(max_row, s[i * n + j]);
            max_col = fmax(max_col, s[j * n + i]);
        }
        for (int64_t j = 0; j < n; j++) {
            row[i] += exp(s[i * n + j] - max_row);
            col[i] += exp(s[j * n + i] - max_col);
        }
        row[i] = max_row + log(row[i]);
        col[i] = max_col + log(col[i]);
        loss += (row[i] + col[i] - 2 * s[i * n + i]) / (2 * (double)n);
    }
    *d_scale = 0;
    memset(da, 0, (size_t)(n * e) * sizeof *da);
    memset(db, 0, (size_t)(n * e) * sizeof *db);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            double g = (exp(s[i * n + j] - row[i]) + exp(s[i * n + j] - col[j]) - (i == j ? 2 : 0)) / (2 * (double)n);
            *d_scale += g * s[i * n + j];
            for (int64_t k = 0; k < e; k++) {
                da[i * e + k] += g * scale * b[j * e + k];
                db[j * e + k] += g * scale * a[i * e + k];
            }
        }
    free(s);
    free(row);
    free(col);
    return loss;
}
