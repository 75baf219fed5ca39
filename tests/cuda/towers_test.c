/* towers-test [--small|--smaller] [OUT [TRUTH]] - whole models on the cuda backend against the reference, on a machine
 * with a GPU; needs no library but CUDA's.
 * towers-test --truth TRUTH - computes the reference's results of the models of full size into that file, without a
 * GPU: some minutes of all processors. Existing entries stay; without a file results are computed when they are needed.
 *
 * Small CLIPs of every kind of tower: features, loss, every gradient, the losses of ten steps of AdamW; and
 * bit-identical: the steps again, on several streams, as graphs, and with activation checkpointing. Then single blocks
 * at the width and length of real models, and the models themselves, B/32 for ten steps (--small: not these, but a
 * small one in the same way, and fewer bit-identical runs of bf16, for the emulator; --smaller: in f32 only the first
 * model, too).
 * Prints a table, and writes it to OUT/towers_test.tsv. Exits with 1 when anything is off, with 77 when there is no
 * GPU.
 *
 * Tolerances are relative distances to the reference (a tensor's |a - b| / |b|): `f32` and `bf16` below, full sizes too
 * (docs/GPU.md). Where "ref-bf16", which rounds in the same places, is itself off by more than half of that,
 * "cuda-bf16" may be off by twice its distance (docs/decisions/0033-limits-on-gpus.md). */
#include "cuda/table.h"
#include "cuda/truth.h"
#include "ops/oracle.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/rng.h"
#include "base/str.h"
#include "models/clip.h"
#include "models/clip_config.h"
#include "models/clip_train.h"
#include "nn/backend.h"
#include "optim/adamw.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FEW = 6 };
static const double TWO_ROUNDINGS = 2 * 3.9e-3; /* of bf16 */
static const double WARM = 5e-7;   /* learning rate added per step, as in a warm-up to 5e-4 in a thousand steps */
static const float SPREAD = 0.15f; /* of noise added to small towers' weights: no gradient is lost in rounding */

struct model {
    const char *name;
    struct mode_clip_config cfg;
    int64_t pairs;
    struct mode_clip_lock lock;
};

/* Tolerances; vectors' gradients have their own, as they are sums over all rows. */
struct limits {
    double features, loss, matrix, vector, steps;
};
static const struct limits f32 = {2e-6, 2e-6, 2e-5, 1e-4, 1e-4}, bf16 = {8e-3, 5e-3, 3e-2, 8e-2, 2e-2};

#define IMAGE(mlp, act, ls)                                                                                            \
    {                                                                                                                  \
        16, 2, 3, mlp, act, 1e-5f, (ls) > 0, ls                                                                        \
    }
#define TEXT(eps, ls)                                                                                                  \
    {                                                                                                                  \
        12, 3, 3, 48, MODE_ACT_GELU, eps, (ls) > 0, ls                                                                 \
    }
#define SMALL .image_size = 12, .patch_size = 4, .context_length = 9, .vocab_size = 23, .embed_dim = 12

static const struct model small[] = {
    {"quick GELU",
     {SMALL, .quick_gelu = true, .image = IMAGE(64, MODE_ACT_QUICK_GELU, 0),
      .text = {12, 3, 3, 48, MODE_ACT_QUICK_GELU, 1e-5f, false, 0}, .image_ln_pre = true, .text_causal = true,
      .init_logit_scale = 2.6592600369327779},
     6,
     {0}},
    {"mean pool, layer scale",
     {SMALL, .image = IMAGE(64, MODE_ACT_GELU, 0.4), .text = TEXT(1e-5f, 0.3), .image_ln_pre = true,
      .image_mean_pool = true, .text_causal = true, .text_pool = MODE_CLIP_POOL_FIRST,
      .init_logit_scale = 2.6592600369327779},
     6,
     {0}},
    {"norm after pool, last token",
     {SMALL, .image = IMAGE(64, MODE_ACT_GELU, 0), .text = TEXT(1e-5f, 0), .image_ln_pre = true,
      .image_mean_pool = true, .image_ln_after_pool = true, .text_causal = true, .text_pool = MODE_CLIP_POOL_LAST,
      .text_proj = MODE_CLIP_PROJ_LINEAR, .logit_scale_vector = true, .init_logit_scale = 2.6592600369327779},
     6,
     {0}},
    {"tanh GELU, no causal mask",
     {SMALL, .image = IMAGE(64, MODE_ACT_GELU_TANH, 0), .text = TEXT(1e-6f, 0), .text_proj = MODE_CLIP_PROJ_NONE,
      .custom_text = true, .init_logit_scale = 2.6592600369327779},
     6,
     {0}},
    {"sines and cosines, end token",
     {SMALL, .image = IMAGE(11, MODE_ACT_GELU, 0), .text = TEXT(1e-5f, 0), .image_ln_pre = true, .image_sincos = true,
      .text_causal = true, .text_pool = MODE_CLIP_POOL_EOS, .text_eos_id = 22, .init_logit_scale = 1.5},
     6,
     {0}},
    {"patch dropout",
     {SMALL, .image = IMAGE(64, MODE_ACT_GELU, 0), .text = TEXT(1e-5f, 0), .patch_dropout = 0.5, .image_ln_pre = true,
      .text_causal = true, .init_logit_scale = 2.6592600369327779},
     6,
     {0}},
    {"locked image tower",
     {SMALL, .image = IMAGE(64, MODE_ACT_GELU, 0), .text = TEXT(1e-5f, 0), .patch_dropout = 0.5, .image_ln_pre = true,
      .text_causal = true, .init_logit_scale = 2.6592600369327779},
     6,
     {.image = true}},
    {"partly locked towers",
     {SMALL, .image = IMAGE(64, MODE_ACT_GELU, 0), .text = TEXT(1e-5f, 0), .image_ln_pre = true,
      .image_mean_pool = true, .text_causal = true, .init_logit_scale = 2.6592600369327779},
     6,
     {true, true, 3, 2}},
};
enum { N_SMALL = sizeof small / sizeof *small };

#define VIT(name, width, layers, patch, text_width, text_layers, embed, vocabulary, pairs)                             \
    {                                                                                                                  \
        name,                                                                                                          \
            {.embed_dim = embed,                                                                                       \
             .image = {width, (width) / 64, layers, 4 * (width), MODE_ACT_GELU, 1e-5f, false, 0},                      \
             .text = {text_width, (text_width) / 64, text_layers, 4 * (text_width), MODE_ACT_GELU, 1e-5f, false, 0},   \
             .image_size = 224,                                                                                        \
             .patch_size = patch,                                                                                      \
             .context_length = 77,                                                                                     \
             .vocab_size = vocabulary,                                                                                 \
             .image_ln_pre = true,                                                                                     \
             .text_causal = true,                                                                                      \
             .init_logit_scale = 2.6592600369327779},                                                                  \
            pairs,                                                                                                     \
        {                                                                                                              \
            0                                                                                                          \
        }                                                                                                              \
    }
/* Features of models are unit rows, measured by 1 - cosine; those of one block by relative distance. Few pairs: the
 * test compares what a step does with each, and the reference takes a second per pair. bytes: also as graphs on
 * streams, bit-identical; B/32 has attention by our own kernels, B/16 by cuDNN. */
static const struct full {
    struct model model;
    double cosine[2]; /* tolerance in f32 and bf16; 0: `features` of the limits */
    int steps;
    bool bytes;
    float spread;
} full[] = {
    {VIT("a block of ViT-B-32", 768, 1, 32, 512, 1, 512, 1000, 3), {0}, 1, false, 0},
    {VIT("a block of ViT-B-16", 768, 1, 16, 512, 1, 512, 1000, 3), {0}, 1, false, 0},
    {VIT("a block of ViT-L-14", 1024, 1, 14, 768, 1, 768, 1000, 3), {0}, 1, false, 0},
    {VIT("ViT-B-32", 768, 12, 32, 512, 12, 512, 49408, 4), {1e-10, 5e-4}, STEPS, true, 0},
    {VIT("ViT-B-16", 768, 12, 16, 512, 12, 512, 49408, 2), {1e-10, 5e-4}, 1, true, 0},
    {VIT("ViT-L-14", 1024, 24, 14, 768, 12, 768, 49408, 2), {1e-10, 1e-3}, 1, false, 0},
};
enum { N_FULL = sizeof full / sizeof *full };

static int n_bad, n_rows;

static void row(const char *backend, const char *model, const char *what, const char *truth, double off, double allowed,
                const char *where)
{
    bool good = off <= allowed; /* false for NaN */
    n_rows++;
    n_bad += !good;
    table_row("%s\t%s\t%s\t%s\t%.2e\t%.1e\t%.0f %%\t%s%s%s\n", backend, model, what, truth, off, allowed,
              100 * off / allowed, good ? "ok" : "OFF", where[0] ? " " : "", where);
}

/* peer: distance of the backend that rounds in the same places; 0: there is none */
static double allowed_of(double limit, double peer)
{
    return fmax(limit, 2 * peer);
}

/* For gradients two roundings of bf16 more, since forward and backward pass each add some. */
static double allowed_of_gradient(double limit, double peer)
{
    return peer > 0 ? fmax(limit, 2 * peer + TWO_ROUNDINGS) : limit;
}

static void row_same(const char *backend, const char *model, const char *what, bool same)
{
    n_rows++;
    n_bad += !same;
    table_row("%s\t%s\t%s\titself\t%d\t0\t\t%s\n", backend, model, what, !same, same ? "ok" : "BYTES DIFFER");
}

static void must(enum mode_status st, const struct mode_error *err)
{
    if (st == MODE_OK) return;
    fprintf(stderr, "towers-test: %s\n", err->text);
    exit(1);
}

struct batch {
    int64_t pairs;
    float *pixels; /* [pairs, 3, S, S] */
    int32_t *ids, *n_ids;
};

/* Texts of 2 tokens up to the whole context; batch number `at`. */
static struct batch draw(const struct model *m, int at)
{
    const int64_t side = m->cfg.image_size, context = m->cfg.context_length, n = m->pairs * 3 * side * side;
    struct mode_rng r = mode_rng_for(11, MODE_RNG_TEST, (uint64_t)at, (uint64_t)n);
    struct batch b = {m->pairs, mode_xmalloc((size_t)n * sizeof(float)),
                      mode_xmalloc((size_t)(m->pairs * context) * sizeof(int32_t)),
                      mode_xmalloc((size_t)m->pairs * sizeof(int32_t))};
    int32_t *id = b.ids, end = (int32_t)m->cfg.vocab_size - 1;
    for (int64_t i = 0; i < n; i++) b.pixels[i] = (float)mode_rng_normal(&r);
    for (int64_t i = 0; i < m->pairs; i++) {
        b.n_ids[i] = i == 0 ? (int32_t)context : 2 + (int32_t)mode_rng_below(&r, (uint64_t)context - 1);
        for (int j = 0; j < b.n_ids[i] - 1; j++) *id++ = (int32_t)mode_rng_below(&r, (uint64_t)end);
        *id++ = end;
    }
    return b;
}

static void clear(struct batch *b)
{
    free(b->pixels);
    free(b->ids);
    free(b->n_ids);
}

/* The tensor's values; the caller frees them. */
static float *seen(struct mode_backend *be, const struct mode_tensor *t)
{
    float *v = mode_xmalloc(mode_tensor_bytes(t) + 1);
    mode_backend_copy(be, v, t->data, mode_tensor_bytes(t));
    return v;
}

/* All that there are: the first blocks, which save the most, are the locked ones. */
static void cut_to(int64_t n[MODE_CLIP_POLICIES], const int64_t there[MODE_CLIP_POLICIES])
{
    int64_t left = 0;
    for (int p = 0; p < MODE_CLIP_POLICIES; p++) left += there[p];
    for (int p = 0; p < MODE_CLIP_POLICIES; p++) {
        n[p] = n[p] < left ? n[p] : left;
        left -= n[p];
    }
}

/* blocks: activations kept per block (NULL: all). pieces: micro-batches per step; with several, blocks are recomputed.
 * branches: towers on two streams. spread: of the noise added to every weight. */
static struct mode_clip *make(struct mode_backend *be, const struct model *m, const struct mode_clip_blocks *blocks,
                              int pieces, bool branches, float spread)
{
    struct mode_clip *clip;
    struct mode_error err;
    size_t n;
    must(mode_clip_create_plain(&clip, be, &m->cfg, 5, &err), &err);
    must(mode_clip_set_lock(clip, &m->lock, &err), &err);
    mode_clip_set_memory(clip, pieces, pieces > 1);
    if (blocks) {
        struct mode_clip_blocks cut = *blocks;
        struct mode_clip_memory there;
        mode_clip_memory(&there, clip, m->pairs);
        cut_to(cut.image, there.blocks.image);
        cut_to(cut.text, there.blocks.text);
        mode_clip_set_blocks(clip, &cut);
    }
    mode_clip_set_branches(clip, branches && mode_backend_is_device(be));
    mode_clip_set_patch_dropout(clip, m->cfg.patch_dropout, 5);
    must(mode_clip_train_begin(clip, m->pairs, &err), &err);
    struct mode_param *p = mode_clip_params(clip, &n);
    for (size_t i = 0; i < n && spread > 0; i++) {
        struct mode_rng r = mode_rng_for(3, MODE_RNG_TEST, 2, i);
        float *v = seen(be, &p[i].value);
        for (int64_t j = 0; j < mode_tensor_count(&p[i].value); j++) v[j] += spread * (float)mode_rng_normal(&r);
        mode_backend_copy(be, p[i].value.data, v, mode_tensor_bytes(&p[i].value));
        free(v);
    }
    mode_clip_refresh(clip);
    return clip;
}

/* ---- one step: features, loss, gradients ---- */

static double distance_of(const float *a, const float *b, int64_t n)
{
    double diff = 0, size = 0;
    for (int64_t j = 0; j < n; j++) {
        diff += ((double)a[j] - b[j]) * ((double)a[j] - b[j]);
        size += (double)b[j] * b[j];
    }
    return size > 0 ? sqrt(diff / size) : sqrt(diff);
}

/* Between parameter i's gradients in two models. */
static double distance(struct mode_clip *a, struct mode_clip *b, size_t i)
{
    size_t n;
    const struct mode_tensor *x = &mode_clip_params(a, &n)[i].grad, *y = &mode_clip_params(b, &n)[i].grad;
    if (!x->data && !y->data) return 0; /* locked */
    float *v = seen(mode_clip_backend(a), x), *w = seen(mode_clip_backend(b), y);
    double d = distance_of(v, w, mode_tensor_count(x));
    free(v);
    free(w);
    return d;
}

/* A backend's results of a batch; the gradients stay in the model. */
struct results {
    struct mode_clip *clip;
    float *images, *texts; /* [pairs, E], unit rows */
    double loss;
};

static struct results results_of(struct mode_backend *be, const struct model *m, const struct batch *in, int pieces,
                                 float spread)
{
    const size_t bytes = (size_t)(in->pairs * m->cfg.embed_dim) * sizeof(float);
    struct results r = {make(be, m, NULL, pieces, true, spread), mode_xmalloc(bytes), mode_xmalloc(bytes), 0};
    struct mode_error err;
    must(mode_clip_encode_images(r.clip, r.images, in->pixels, in->pairs, 0, &err), &err);
    must(mode_clip_encode_texts(r.clip, r.texts, in->ids, in->n_ids, in->pairs, 0, &err), &err);
    must(mode_clip_train_step(r.clip, &r.loss, in->pixels, in->ids, in->n_ids, in->pairs, &err), &err);
    mode_backend_sync(be);
    return r;
}

static void results_clear(struct results *r)
{
    if (r->clip) mode_clip_close(&r->clip);
    free(r->images);
    free(r->texts);
}

/* Root mean square error of the losses of eight batches: in bf16 a single one may be accurate by chance. */
static double losses_off(struct mode_backend *be, struct mode_backend *truth, const struct model *m)
{
    double squares = 0;
    for (int at = 0; at < 8; at++) {
        struct batch in = draw(m, at);
        struct results a = results_of(be, m, &in, 1, SPREAD), b = results_of(truth, m, &in, 1, SPREAD);
        squares += (a.loss - b.loss) * (a.loss - b.loss) / (b.loss * b.loss);
        results_clear(&a);
        results_clear(&b);
        clear(&in);
    }
    return sqrt(squares / 8);
}

/* peer: like a, by the backend that rounds in the same places; its clip is NULL where there is none. */
static void compare(const struct model *m, const char *how, const struct results *a, const struct results *peer,
                    const struct results *truth, const struct limits *l)
{
    char *model = mode_xasprintf("%s%s", m->name, how);
    const char *name = mode_backend_name(mode_clip_backend(a->clip)),
               *against = mode_backend_name(mode_clip_backend(truth->clip)), *where[2] = {"", ""};
    const int64_t n = m->pairs * m->cfg.embed_dim;
    double off[2] = {0, 0}, allowed[2] = {l->matrix, l->vector};
    size_t n_params;
    bool two = peer->clip != NULL;
    row(name, model, "features of pictures", against, distance_of(a->images, truth->images, n),
        allowed_of(l->features, two ? distance_of(peer->images, truth->images, n) : 0), "");
    row(name, model, "features of texts", against, distance_of(a->texts, truth->texts, n),
        allowed_of(l->features, two ? distance_of(peer->texts, truth->texts, n) : 0), "");
    if (!two) row(name, model, "loss", against, fabs(a->loss - truth->loss) / truth->loss, l->loss, "");
    struct mode_param *p = mode_clip_params(a->clip, &n_params);
    for (size_t i = 0; i < n_params; i++) { /* of each kind the one with the largest share of its tolerance */
        int vector = p[i].value.n_dims < 2;
        double d = distance(a->clip, truth->clip, i),
               limit = allowed_of_gradient(vector ? l->vector : l->matrix,
                                           two ? distance(peer->clip, truth->clip, i) : 0);
        if (d / limit < off[vector] / allowed[vector]) continue;
        off[vector] = d;
        allowed[vector] = limit;
        where[vector] = p[i].name;
    }
    row(name, model, "gradients of matrices", against, off[0], allowed[0], where[0]);
    row(name, model, "gradients of vectors", against, off[1], allowed[1], where[1]);
    free(model);
}

/* ---- ten steps ---- */

struct run_options {
    const struct mode_clip_blocks *blocks;
    int steps;
    bool graphs, branches;
    float spread;
};

struct run {
    struct mode_backend *be;
    struct mode_clip *clip;
    struct mode_param *p;
    size_t n;
    struct mode_adamw_step *now;
    double loss[STEPS], norm[STEPS];
    uint64_t sum; /* checksum of losses, values and moments */
    struct mode_backend_repeats repeats;
};

static void step_ops(void *ctx)
{
    struct run *r = ctx;
    struct mode_error err;
    must(mode_clip_train_compute(r->clip, &err), &err);
    mode_adamw_update(r->be, r->p, r->n, r->now);
    mode_clip_clamp(r->clip);
}

static void features_of(struct numbers *x, struct mode_clip *clip, const struct batch *in)
{
    struct mode_error err;
    x->floats = in->pairs * mode_clip_embed_dim(clip);
    for (int k = 0; k < 2; k++) x->features[k] = mode_xmalloc((size_t)x->floats * sizeof(float));
    must(mode_clip_encode_images(clip, x->features[0], in->pixels, in->pairs, 0, &err), &err);
    must(mode_clip_encode_texts(clip, x->features[1], in->ids, in->n_ids, in->pairs, 0, &err), &err);
}

static void gradients_of(struct numbers *x, const struct run *r)
{
    x->n = (int64_t)r->n;
    x->gradients = mode_xcalloc(r->n, sizeof *x->gradients);
    for (size_t i = 0; i < r->n; i++) {
        float *v = seen(r->be, &r->p[i].grad);
        x->gradients[i] = sketch_of(v, mode_tensor_count(&r->p[i].grad));
        free(v);
    }
}

static void sum_up(struct run *r, int steps)
{
    r->sum = sum_of(0, r->loss, (size_t)steps * sizeof *r->loss);
    for (size_t i = 0; i < r->n; i++) {
        const struct mode_tensor *const all[] = {&r->p[i].value, &r->p[i].m, &r->p[i].v};
        for (int k = 0; k < 3 && all[k]->data; k++) {
            float *v = seen(r->be, all[k]);
            r->sum = sum_of(r->sum, v, mode_tensor_bytes(all[k]));
            free(v);
        }
    }
}

/* Two alternating batches, with a pair less every fourth step. x: results, if not NULL. */
static struct run run_steps(struct mode_backend *be, const struct model *m, const struct run_options *w,
                            struct numbers *x)
{
    struct mode_adamw opt = MODE_ADAMW_DEFAULT;
    struct run r = {.be = be, .clip = make(be, m, w->blocks, 1, w->branches, w->spread)};
    struct batch in[] = {draw(m, 1), draw(m, 2)};
    struct mode_sequence key;
    struct mode_error err;
    opt.clip_norm = 1;
    mode_backend_record(be, w->graphs);
    must(mode_adamw_begin(&r.now, be, &err), &err);
    r.p = mode_clip_params(r.clip, &r.n);
    if (x) features_of(x, r.clip, &in[0]);
    for (int i = 0; i < w->steps; i++) {
        const struct batch *b = &in[i % 2];
        mode_clip_train_place(r.clip, (uint64_t)(i * b->pairs));
        must(mode_clip_train_load(r.clip, b->pixels, b->ids, b->n_ids, b->pairs - (i % 4 == 3), &err), &err);
        if (w->spread == 0) opt.lr = WARM * (i + 1); /* weights at initialisation do not bear the full rate */
        mode_adamw_tell(r.now, &opt, i + 1);
        if (w->graphs && mode_clip_train_sequence(r.clip, &key))
            mode_backend_repeat(be, &key, step_ops, &r);
        else
            step_ops(&r);
        r.loss[i] = mode_clip_train_loss(r.clip);
        mode_backend_sync(be);
        r.norm[i] = mode_adamw_norm(r.now);
        if (x && i == 0) gradients_of(x, &r);
    }
    mode_backend_repeats(be, &r.repeats);
    sum_up(&r, w->steps);
    mode_backend_free(be, r.now);
    clear(&in[0]);
    clear(&in[1]);
    mode_clip_close(&r.clip);
    if (x) {
        x->steps = w->steps;
        memcpy(x->loss, r.loss, sizeof x->loss);
        memcpy(x->norm, r.norm, sizeof x->norm);
    }
    return r;
}

static double curve_distance(const double *a, const double *b, int64_t steps)
{
    double worst = 0;
    for (int64_t i = 0; i < steps; i++) {
        double off = fabs(a[i] - b[i]) / b[i];
        if (!(off <= worst)) worst = off;
    }
    return worst;
}

static void row_same_run(const struct model *m, const char *what, bool graphs, const struct run *a, const struct run *b)
{
    row_same(mode_backend_name(a->be), m->name, what, a->sum == b->sum);
    if (graphs && (a->repeats.why_not[0] || !a->repeats.replayed)) {
        table_row("# no graph was launched: %s\n", a->repeats.why_not);
        n_bad++;
    }
}

/* few: only the runs with activation checkpointing */
static void check_bytes(struct mode_backend *be, const struct model *m, bool few)
{
    static const struct mode_clip_blocks keep = {{3, 0, 0}, {3, 0, 0}}, lean = {{0, 3, 0}, {0, 3, 0}},
                                         checkpoint = {{0, 0, 3}, {0, 0, 3}}, all = {{1, 1, 1}, {1, 1, 1}};
    static const struct {
        const char *name;
        const struct mode_clip_blocks *blocks;
        bool graphs, branches;
    } runs[] = {{"steps again", &keep, false, false},
                {"steps on several streams", &keep, false, true},
                {"the same as graphs", &keep, true, true},
                {"steps, lean", &lean, false, false},
                {"steps, checkpointed, on streams, as graphs", &checkpoint, true, true},
                {"steps, blocks of every kind, on streams", &all, false, true}};
    const struct run want = run_steps(be, m, &(struct run_options){&keep, FEW, false, false, SPREAD}, NULL);
    for (size_t k = few ? 3 : 0; k < sizeof runs / sizeof *runs; k++) {
        const struct run_options w = {runs[k].blocks, FEW, runs[k].graphs, runs[k].branches, SPREAD};
        const struct run r = run_steps(be, m, &w, NULL);
        row_same_run(m, runs[k].name, w.graphs, &r, &want);
    }
}

enum bytes { NO_WAYS, FEW_WAYS, ALL_WAYS };

static void check_small(struct mode_backend *cuda, struct mode_backend *peer, struct mode_backend *truth,
                        const struct model *m, const struct limits *l, enum bytes bytes)
{
    struct batch in = draw(m, 0);
    struct results a = results_of(cuda, m, &in, 1, SPREAD), pieces = results_of(cuda, m, &in, 2, SPREAD), b = {0},
                   t = results_of(truth, m, &in, 1, SPREAD);
    if (peer) b = results_of(peer, m, &in, 1, SPREAD);
    compare(m, "", &a, &b, &t, l);
    compare(m, ", in pieces", &pieces, &b, &t, l);
    results_clear(&a);
    results_clear(&pieces);
    results_clear(&b);
    results_clear(&t);
    clear(&in);
    if (peer)
        row(mode_backend_name(cuda), m->name, "losses of eight batches", mode_backend_name(truth),
            losses_off(cuda, truth, m), 1.5 * losses_off(peer, truth, m) + TWO_ROUNDINGS, "");
    const struct run_options w = {NULL, STEPS, false, true, SPREAD};
    const struct run right = run_steps(truth, m, &w, NULL), ours = run_steps(cuda, m, &w, NULL);
    double theirs = 0;
    if (peer) theirs = curve_distance(run_steps(peer, m, &w, NULL).loss, right.loss, STEPS);
    row(mode_backend_name(cuda), m->name, "ten steps", mode_backend_name(truth),
        curve_distance(ours.loss, right.loss, STEPS), allowed_of(l->steps, theirs), "");
    if (bytes) check_bytes(cuda, m, bytes == FEW_WAYS);
}

/* ---- full size ---- */

static uint64_t key_of(const struct full *f)
{
    const struct mode_clip_config *c = &f->model.cfg;
    const int64_t side = c->image_size, sizes[] = {c->image.width, c->image.layers, c->text.width, c->text.layers,
                                                   c->embed_dim,   c->patch_size,   c->vocab_size, c->context_length,
                                                   side,           f->model.pairs,  f->steps,      SKETCH};
    uint64_t key = sum_of(0, sizes, sizeof sizes);
    if (f->steps > 1) key = sum_of(key, &WARM, sizeof WARM);
    for (int k = 1; k <= 2; k++) {
        struct batch b = draw(&f->model, k);
        key = sum_of(key, b.pixels, (size_t)(b.pairs * 3 * side * side) * sizeof *b.pixels);
        key = sum_of(key, b.n_ids, (size_t)b.pairs * sizeof *b.n_ids);
        clear(&b);
    }
    return key;
}

/* Results of "ref" or "ref-bf16": read from the file, or computed now and, with add, appended to it. */
static struct numbers truth_of(const struct full *f, const char *name, const char *path, bool add)
{
    const struct truth_head head = truth_head_of(f->model.name, name, key_of(f));
    struct numbers x = {0};
    if (truth_find(path, head, &x)) return x;
    const double t0 = mode_clock_s();
    struct mode_backend *be = oracle_open(name);
    run_steps(be, &f->model, &(struct run_options){NULL, f->steps, false, false, f->spread}, &x);
    mode_backend_close(&be);
    table_row("# %s on %s: %.0f s on %d threads\n", f->model.name, name, mode_clock_s() - t0, mode_parallel_threads());
    if (add && !truth_add(path, head, &x)) exit(1);
    return x;
}

static double cosine_distance(const float *a, const float *b, int64_t rows, int64_t columns)
{
    double worst = 0;
    for (int64_t i = 0; i < rows; i++) {
        double dot = 0, aa = 0, bb = 0;
        for (int64_t j = i * columns; j < (i + 1) * columns; j++) {
            dot += (double)a[j] * b[j];
            aa += (double)a[j] * a[j];
            bb += (double)b[j] * b[j];
        }
        double off = 1 - dot / sqrt(aa * bb);
        if (!(off <= worst)) worst = off;
    }
    return worst;
}

/* Distance of features, by the measure of its limit. */
static double features_off(const struct full *f, const struct numbers *a, const struct numbers *truth, int tower)
{
    const float *x = a->features[tower], *y = truth->features[tower];
    return f->cosine[0] > 0 ? cosine_distance(x, y, f->model.pairs, f->model.cfg.embed_dim)
                            : distance_of(x, y, truth->floats);
}

/* peer: NULL, or results that are rounded as a's */
static void compare_numbers(const char *name, const struct full *f, const struct numbers *a, const struct numbers *peer,
                            const struct numbers *truth, const struct limits *l, struct mode_param *p)
{
    const char *model = f->model.name, *where[2] = {"", ""};
    const double features = f->cosine[0] > 0 ? f->cosine[peer != NULL] : l->features;
    double off[2] = {0, 0}, allowed[2] = {l->matrix, l->vector};
    for (int k = 0; k < 2; k++)
        row(name, model, k ? "features of texts" : "features of pictures", "ref", features_off(f, a, truth, k),
            allowed_of(features, peer ? features_off(f, peer, truth, k) : 0), "");
    row(name, model, "loss", "ref", curve_distance(a->loss, truth->loss, 1),
        allowed_of(l->loss, peer ? curve_distance(peer->loss, truth->loss, 1) : 0), "");
    for (int64_t i = 0; i < truth->n; i++) { /* of each kind the one with the largest share of its tolerance */
        const int vector = p[i].value.n_dims < 2;
        const double d = sketch_distance(&a->gradients[i], &truth->gradients[i]),
                     limit = allowed_of_gradient(vector ? l->vector : l->matrix,
                                                 peer ? sketch_distance(&peer->gradients[i], &truth->gradients[i]) : 0);
        if (d / limit < off[vector] / allowed[vector]) continue;
        off[vector] = d;
        allowed[vector] = limit;
        where[vector] = p[i].name;
    }
    row(name, model, "gradients of matrices", "ref", off[0], allowed[0], where[0]);
    row(name, model, "gradients of vectors", "ref", off[1], allowed[1], where[1]);
    row(name, model, "gradients' length", "ref", curve_distance(a->norm, truth->norm, 1),
        allowed_of(l->matrix, peer ? curve_distance(peer->norm, truth->norm, 1) : 0), "");
    if (truth->steps < STEPS) return;
    row(name, model, "ten steps", "ref", curve_distance(a->loss, truth->loss, STEPS),
        allowed_of(l->steps, peer ? curve_distance(peer->loss, truth->loss, STEPS) : 0), "");
    row(name, model, "ten steps, gradients' length", "ref", curve_distance(a->norm, truth->norm, STEPS),
        allowed_of(l->steps, peer ? curve_distance(peer->norm, truth->norm, STEPS) : 0), "");
}

static void check_full(struct mode_backend *be, const struct full *f, const struct numbers *peer,
                       const struct numbers *truth)
{
    const int steps = f->bytes && f->steps < FEW ? FEW : f->steps;
    struct numbers a = {0};
    struct mode_clip *named;
    struct mode_error err;
    size_t n;
    const struct run r = run_steps(be, &f->model, &(struct run_options){NULL, steps, false, false, f->spread}, &a);
    must(mode_clip_create_plain(&named, be, &f->model.cfg, 5, &err), &err);
    struct mode_param *p = mode_clip_params(named, &n);
    MODE_ASSERT((int64_t)n == truth->n && a.n == truth->n);
    compare_numbers(mode_backend_name(be), f, &a, peer, truth, peer ? &bf16 : &f32, p);
    mode_clip_close(&named);
    numbers_clear(&a);
    if (!f->bytes) return;
    const struct run again = run_steps(be, &f->model, &(struct run_options){NULL, steps, true, true, f->spread}, NULL);
    row_same_run(&f->model, "steps again, on streams, as graphs", true, &again, &r);
}

static void check_full_sizes(struct mode_backend *cuda, struct mode_backend *half, const char *path)
{
    for (int i = 0; i < N_FULL; i++) {
        struct numbers truth = truth_of(&full[i], "ref", path, false),
                       peer = truth_of(&full[i], "ref-bf16", path, false);
        check_full(cuda, &full[i], NULL, &truth);
        check_full(half, &full[i], &peer, &truth);
        numbers_clear(&truth);
        numbers_clear(&peer);
    }
}

static struct mode_backend *backend(const char *name)
{
    struct mode_backend *be;
    struct mode_error err;
    enum mode_status st = mode_backend_open(&be, name, &err);
    if (st == MODE_OK) return be;
    fprintf(stderr, "towers-test: %s\n", err.text);
    exit(st == MODE_E_DEVICE ? 77 : 1);
}

/* A small model, tested like those of full size; its reference is computed once and then found in the file, but not
 * after a byte of the file has changed. */
static void check_like_full(struct mode_backend *cuda, struct mode_backend *half)
{
    char path[] = "/tmp/towers-test-XXXXXX";
    const int fd = mkstemp(path);
    const struct full f = {small[0], {1e-10, 5e-4}, STEPS, true, SPREAD};
    struct numbers made[2], found[2] = {{0}, {0}};
    uint8_t byte;
    bool good = fd >= 0;
    for (int k = 0; k < 2; k++) {
        const char *name = k ? "ref-bf16" : "ref";
        made[k] = truth_of(&f, name, path, true);
        good &= truth_find(path, truth_head_of(f.model.name, name, key_of(&f)), &found[k]) &&
                memcmp(made[k].gradients, found[k].gradients, (size_t)made[k].n * sizeof *made[k].gradients) == 0 &&
                memcmp(made[k].features[1], found[k].features[1], (size_t)made[k].floats * sizeof(float)) == 0 &&
                memcmp(made[k].norm, found[k].norm, sizeof made[k].norm) == 0;
    }
    check_full(cuda, &f, NULL, &found[0]);
    check_full(half, &f, &found[1], &found[0]);
    for (int k = 0; k < 2; k++) {
        numbers_clear(&made[k]);
        numbers_clear(&found[k]);
    }
    good &= pread(fd, &byte, 1, 500) == 1 && (byte++, pwrite(fd, &byte, 1, 500) == 1) &&
            !truth_find(path, truth_head_of(f.model.name, "ref", key_of(&f)), &found[0]);
    row_same("ref", f.model.name, "the file of truths", good);
    close(fd);
    unlink(path);
}

static int make_truth(const char *path)
{
    for (int i = 0; i < N_FULL; i++)
        for (int k = 0; k < 2; k++) {
            struct numbers x = truth_of(&full[i], k ? "ref-bf16" : "ref", path, true);
            numbers_clear(&x);
        }
    return 0;
}

int main(int argc, char **argv)
{
    const bool smaller = argc > 1 && strcmp(argv[1], "--smaller") == 0,
               only_small = smaller || (argc > 1 && strcmp(argv[1], "--small") == 0);
    if (argc == 3 && strcmp(argv[1], "--truth") == 0) return make_truth(argv[2]);
    struct mode_backend *cuda = backend("cuda"), *half = backend("cuda-bf16"), *ref = backend("ref"),
                        *ref_half = backend("ref-bf16");
    double t0 = mode_clock_s();
    if (!table_open(argc > 1 + only_small ? argv[1 + only_small] : NULL, "towers_test.tsv")) return 1;
    table_row("backend\tmodel\twhat\tagainst\tdistance\tallowed\tused\tverdict\n");
    for (int i = 0; i < N_SMALL; i++) {
        const enum bytes bytes = smaller && i > 0 ? FEW_WAYS : ALL_WAYS;
        check_small(cuda, NULL, ref, &small[i], &f32, bytes);
    }
    for (int i = 0; i < N_SMALL; i++) {
        const bool wanted = i == 0 || small[i].cfg.patch_dropout > 0 || small[i].lock.image || !only_small;
        const enum bytes bytes = wanted ? ALL_WAYS : NO_WAYS;
        check_small(half, ref_half, ref, &small[i], &bf16, bytes);
    }
    if (only_small)
        check_like_full(cuda, half);
    else
        check_full_sizes(cuda, half, argc > 2 ? argv[2] : NULL);
    table_row("%d of %d comparisons are off; %.1f s\n", n_bad, n_rows, mode_clock_s() - t0);
    table_close();
    mode_backend_close(&cuda);
    mode_backend_close(&half);
    mode_backend_close(&ref);
    mode_backend_close(&ref_half);
    return n_bad > 0;
}
