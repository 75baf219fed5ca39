/* towers-test [--small] [OUT] - whole models on the cuda backend against the reference, on a machine with a GPU; no
 * library but CUDA's is needed.
 *
 * Small CLIPs of every kind of tower: features, loss, every gradient, the losses of ten steps of AdamW; and to the
 * byte: steps once more, on several streams, as graphs, and with less kept of every block. Then models of full size
 * against "cpu", which is proven against "ref" (--small: not these, and fewer of bf16's bytes, for the emulator).
 * Prints a table, and writes it to OUT/towers_test.tsv. Ends with 1 when anything is off, with 77 when there is no GPU.
 *
 * What is allowed, as a relative distance to the truth (a tensor's |a - b| / |b|): of "cuda" `f32` below. Of
 * "cuda-bf16" twice what "ref-bf16", which rounds in the same places, is away from it, and `bf16` more, since two ways
 * of rounding meet in either. Models of full size have as much as so many layers and such long sums make: `deep` of
 * "cuda", `alone` of "cuda-bf16", where the truth is "cpu", which knows no bf16. (B/32, two pairs: "ref" of 4 layers is
 * 8e-7 away in features and 4e-6 in gradients of matrices, "ref-bf16" of 12 layers 1.1e-2 and 3.6e-2.) */
#include "cuda/table.h"

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

enum { STEPS = 10, FEW = 6 };
static const float SPREAD = 0.15f; /* added to small towers' weights, so that no gradient hides in noise */

struct model {
    const char *name;
    struct mode_clip_config cfg;
    int64_t pairs;
};

/* Allowed distances; those of vectors' gradients apart, which are sums over all rows. */
struct limits {
    double features, loss, matrix, vector, steps;
};
static const struct limits f32 = {2e-6, 2e-6, 2e-5, 1e-4, 1e-4}, bf16 = {8e-3, 16e-3, 16e-3, 8e-2, 2e-2},
                           deep = {1e-5, 1e-5, 1e-4, 4e-4, 0}, alone = {45e-3, 1e-2, 9e-2, 18e-2, 0};

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
     6},
    {"mean pool, layer scale",
     {SMALL, .image = IMAGE(64, MODE_ACT_GELU, 0.4), .text = TEXT(1e-5f, 0.3), .image_ln_pre = true,
      .image_mean_pool = true, .text_causal = true, .text_pool = MODE_CLIP_POOL_FIRST,
      .init_logit_scale = 2.6592600369327779},
     6},
    {"norm after pool, last token",
     {SMALL, .image = IMAGE(64, MODE_ACT_GELU, 0), .text = TEXT(1e-5f, 0), .image_ln_pre = true,
      .image_mean_pool = true, .image_ln_after_pool = true, .text_causal = true, .text_pool = MODE_CLIP_POOL_LAST,
      .text_proj = MODE_CLIP_PROJ_LINEAR, .logit_scale_vector = true, .init_logit_scale = 2.6592600369327779},
     6},
    {"tanh GELU, no causal mask",
     {SMALL, .image = IMAGE(64, MODE_ACT_GELU_TANH, 0), .text = TEXT(1e-6f, 0), .text_proj = MODE_CLIP_PROJ_NONE,
      .custom_text = true, .init_logit_scale = 2.6592600369327779},
     6},
    {"sines and cosines, end token",
     {SMALL, .image = IMAGE(11, MODE_ACT_GELU, 0), .text = TEXT(1e-5f, 0), .image_ln_pre = true, .image_sincos = true,
      .text_causal = true, .text_pool = MODE_CLIP_POOL_EOS, .text_eos_id = 22, .init_logit_scale = 1.5},
     6},
};
enum { N_SMALL = sizeof small / sizeof *small };

#define VIT(name, width, layers, patch, text_width, embed, pairs)                                                      \
    {                                                                                                                  \
        name,                                                                                                          \
            {.embed_dim = embed,                                                                                       \
             .image = {width, (width) / 64, layers, 4 * (width), MODE_ACT_GELU, 1e-5f, false, 0},                      \
             .text = {text_width, (text_width) / 64, 12, 4 * (text_width), MODE_ACT_GELU, 1e-5f, false, 0},            \
             .image_size = 224,                                                                                        \
             .patch_size = patch,                                                                                      \
             .context_length = 77,                                                                                     \
             .vocab_size = 49408,                                                                                      \
             .image_ln_pre = true,                                                                                     \
             .text_causal = true,                                                                                      \
             .init_logit_scale = 2.6592600369327779},                                                                  \
            pairs                                                                                                      \
    }
static const struct model large[] = {
    VIT("ViT-B-32", 768, 12, 32, 512, 512, 32),
    VIT("ViT-B-16", 768, 12, 16, 512, 512, 8),
    VIT("ViT-L-14", 1024, 24, 14, 768, 768, 4),
};
enum { N_LARGE = sizeof large / sizeof *large };

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

/* Texts of 2 tokens to the whole context; batch number `at`. */
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

/* What the tensor holds; to be freed. */
static float *seen(struct mode_backend *be, const struct mode_tensor *t)
{
    float *v = mode_xmalloc(mode_tensor_bytes(t) + 1);
    mode_backend_copy(be, v, t->data, mode_tensor_bytes(t));
    return v;
}

/* blocks: what is kept of them (NULL: everything). pieces: of a step; in several, blocks are made again.
 * branches: the towers side by side. spread: of
 * what is added to every weight. */
static struct mode_clip *make(struct mode_backend *be, const struct model *m, const struct mode_clip_blocks *blocks,
                              int pieces, bool branches, float spread)
{
    struct mode_clip *clip;
    struct mode_error err;
    size_t n;
    must(mode_clip_create_plain(&clip, be, &m->cfg, 5, &err), &err);
    mode_clip_set_memory(clip, pieces, pieces > 1);
    if (blocks) mode_clip_set_blocks(clip, blocks);
    mode_clip_set_branches(clip, branches && mode_backend_is_device(be));
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

/* Of parameter i's gradients in two models. */
static double distance(struct mode_clip *a, struct mode_clip *b, size_t i)
{
    size_t n;
    const struct mode_tensor *x = &mode_clip_params(a, &n)[i].grad, *y = &mode_clip_params(b, &n)[i].grad;
    float *v = seen(mode_clip_backend(a), x), *w = seen(mode_clip_backend(b), y);
    double d = distance_of(v, w, mode_tensor_count(x));
    free(v);
    free(w);
    return d;
}

/* What one backend makes of a batch; the gradients stay in the model. */
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

/* peer: as a, in another way; its clip is NULL where there is none. */
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
        l->features + (two ? 2 * distance_of(peer->images, truth->images, n) : 0), "");
    row(name, model, "features of texts", against, distance_of(a->texts, truth->texts, n),
        l->features + (two ? 2 * distance_of(peer->texts, truth->texts, n) : 0), "");
    row(name, model, "loss", against, fabs(a->loss - truth->loss) / truth->loss,
        l->loss + (two ? 2 * fabs(peer->loss - truth->loss) / truth->loss : 0), "");
    struct mode_param *p = mode_clip_params(a->clip, &n_params);
    for (size_t i = 0; i < n_params; i++) { /* of each kind the one that uses up most */
        int vector = p[i].value.n_dims < 2;
        double d = distance(a->clip, truth->clip, i),
               limit = (vector ? l->vector : l->matrix) + (two ? 2 * distance(peer->clip, truth->clip, i) : 0);
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

struct run {
    struct mode_backend *be;
    struct mode_clip *clip;
    struct mode_param *p;
    size_t n;
    struct mode_adamw_step *now;
    double loss[STEPS];
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

/* Two batches in turns, with a pair less every fourth time. The model stays in r->clip. */
static struct run run_steps(struct mode_backend *be, const struct model *m, const struct mode_clip_blocks *blocks,
                            int steps, bool graphs, bool branches)
{
    struct mode_adamw opt = MODE_ADAMW_DEFAULT;
    struct run r = {.be = be, .clip = make(be, m, blocks, 1, branches, SPREAD)};
    struct batch in[] = {draw(m, 1), draw(m, 2)};
    struct mode_sequence key;
    struct mode_error err;
    opt.clip_norm = 1;
    mode_backend_record(be, graphs);
    must(mode_adamw_begin(&r.now, be, &err), &err);
    r.p = mode_clip_params(r.clip, &r.n);
    for (int i = 0; i < steps; i++) {
        const struct batch *b = &in[i % 2];
        must(mode_clip_train_load(r.clip, b->pixels, b->ids, b->n_ids, b->pairs - (i % 4 == 3), &err), &err);
        mode_adamw_tell(r.now, &opt, i + 1);
        if (graphs && mode_clip_train_sequence(r.clip, &key))
            mode_backend_repeat(be, &key, step_ops, &r);
        else
            step_ops(&r);
        r.loss[i] = mode_clip_train_loss(r.clip);
    }
    mode_backend_sync(be);
    mode_backend_repeats(be, &r.repeats);
    mode_backend_free(be, r.now);
    clear(&in[0]);
    clear(&in[1]);
    return r;
}

/* The ten losses that it makes. */
static void curve_of(double loss[STEPS], struct mode_backend *be, const struct model *m)
{
    struct run r = run_steps(be, m, NULL, STEPS, false, true);
    memcpy(loss, r.loss, sizeof r.loss);
    mode_clip_close(&r.clip);
}

static double curve_distance(const double a[STEPS], const double b[STEPS])
{
    double worst = 0;
    for (int i = 0; i < STEPS; i++) {
        double off = fabs(a[i] - b[i]) / b[i];
        if (!(off <= worst)) worst = off;
    }
    return worst;
}

static bool same(const struct run *a, const struct run *b)
{
    bool yes = memcmp(a->loss, b->loss, FEW * sizeof *a->loss) == 0 && a->n == b->n;
    for (size_t i = 0; yes && i < a->n; i++) {
        const struct mode_tensor *const x[] = {&a->p[i].value, &a->p[i].m, &a->p[i].v}, *const y[] = {&b->p[i].value,
                                                                                                      &b->p[i].m,
                                                                                                      &b->p[i].v};
        for (int k = 0; k < 3; k++) {
            float *v = seen(a->be, x[k]), *w = seen(b->be, y[k]);
            yes &= memcmp(v, w, mode_tensor_bytes(x[k])) == 0;
            free(v);
            free(w);
        }
    }
    return yes;
}

static void check_bytes(struct mode_backend *be, const struct model *m)
{
    static const struct mode_clip_blocks keep = {{3, 0, 0}, {3, 0, 0}}, lean = {{0, 3, 0}, {0, 3, 0}},
                                         checkpoint = {{0, 0, 3}, {0, 0, 3}}, all = {{1, 1, 1}, {1, 1, 1}};
    static const struct {
        const char *name;
        const struct mode_clip_blocks *blocks;
        bool graphs, branches;
    } ways[] = {{"steps again", &keep, false, false},
                {"steps on several streams", &keep, false, true},
                {"the same as graphs", &keep, true, true},
                {"steps, lean", &lean, false, false},
                {"steps, checkpointed, on streams, as graphs", &checkpoint, true, true},
                {"steps, blocks of every kind, on streams", &all, false, true}};
    struct run want = run_steps(be, m, &keep, FEW, false, false);
    for (size_t k = 0; k < sizeof ways / sizeof *ways; k++) {
        struct run r = run_steps(be, m, ways[k].blocks, FEW, ways[k].graphs, ways[k].branches);
        row_same(mode_backend_name(be), m->name, ways[k].name, same(&r, &want));
        if (ways[k].graphs && (r.repeats.why_not[0] || !r.repeats.replayed)) {
            table_row("# no graph was launched: %s\n", r.repeats.why_not);
            n_bad++;
        }
        mode_clip_close(&r.clip);
    }
    mode_clip_close(&want.clip);
}

static void check_small(struct mode_backend *cuda, struct mode_backend *peer, struct mode_backend *truth,
                        const struct model *m, const struct limits *l, bool bytes)
{
    struct batch in = draw(m, 0);
    struct results a = results_of(cuda, m, &in, 1, SPREAD), pieces = results_of(cuda, m, &in, 2, SPREAD), b = {0},
                   t = results_of(truth, m, &in, 1, SPREAD);
    double ours[STEPS], theirs[STEPS], right[STEPS];
    if (peer) b = results_of(peer, m, &in, 1, SPREAD);
    compare(m, "", &a, &b, &t, l);
    compare(m, ", in pieces", &pieces, &b, &t, l);
    results_clear(&a);
    results_clear(&pieces);
    results_clear(&b);
    results_clear(&t);
    clear(&in);
    curve_of(ours, cuda, m);
    curve_of(right, truth, m);
    if (peer) curve_of(theirs, peer, m);
    row(mode_backend_name(cuda), m->name, "ten steps", mode_backend_name(truth), curve_distance(ours, right),
        l->steps + (peer ? 2 * curve_distance(theirs, right) : 0), "");
    if (bytes) check_bytes(cuda, m);
}

static void check_large(struct mode_backend *cuda, struct mode_backend *truth, const struct model *m,
                        const struct limits *l)
{
    struct batch in = draw(m, 0);
    struct results a = results_of(cuda, m, &in, 1, 0), t = results_of(truth, m, &in, 1, 0), nobody = {0};
    compare(m, "", &a, &nobody, &t, l);
    results_clear(&a);
    results_clear(&t);
    clear(&in);
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

int main(int argc, char **argv)
{
    bool only_small = argc > 1 && strcmp(argv[1], "--small") == 0;
    struct mode_backend *cuda = backend("cuda"), *half = backend("cuda-bf16"), *ref = backend("ref"),
                        *ref_half = backend("ref-bf16"), *cpu = backend("cpu");
    double t0 = mode_clock_s();
    if (!table_open(argc > 1 + only_small ? argv[1 + only_small] : NULL, "towers_test.tsv")) return 1;
    table_row("backend\tmodel\twhat\tagainst\tdistance\tallowed\tused\tverdict\n");
    for (int i = 0; i < N_SMALL; i++) check_small(cuda, NULL, ref, &small[i], &f32, true);
    for (int i = 0; i < N_SMALL; i++) check_small(half, ref_half, ref, &small[i], &bf16, i == 0 || !only_small);
    for (int i = 0; i < N_LARGE && !only_small; i++) {
        check_large(cuda, cpu, &large[i], &deep);
        check_large(half, cpu, &large[i], &alone);
    }
    table_row("%d of %d comparisons are off; %.1f s\n", n_bad, n_rows, mode_clock_s() - t0);
    table_close();
    mode_backend_close(&cuda);
    mode_backend_close(&half);
    mode_backend_close(&ref);
    mode_backend_close(&ref_half);
    mode_backend_close(&cpu);
    return n_bad > 0;
}
