/* The model as a list of parameters, their initialisation, and inference. Files are clip_store.c's. */
#include "models/clip.h"

#include "base/parallel.h"
#include "base/rng.h"
#include "base/str.h"
#include "models/clip_impl.h"
#include "models/patch_dropout.h"
#include "tensor/half.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { INIT_CONSTANT, INIT_NORMAL, INIT_UNIFORM, INIT_SINCOS };
static const double LOGIT_SCALE_MAX = 4.6051701859880914; /* ln 100 */

int64_t mode__clip_image_tokens(const struct mode_clip *clip)
{
    int64_t g = clip->cfg.image_size / clip->cfg.patch_size;
    return 1 + g * g;
}

int64_t mode__clip_image_rows(const struct mode_clip *clip, bool train)
{
    const int64_t patches = mode__clip_image_tokens(clip) - 1;
    return 1 + (train ? mode_patches_kept(patches, clip->patch_dropout) : patches);
}

/* open_clip's rule: no weight decay for fewer than two dimensions or names with bn, ln, bias or logit_scale. */
static bool decays(const char *name, int n_dims)
{
    return n_dims >= 2 && !strstr(name, "bn") && !strstr(name, "ln") && !strstr(name, "bias") &&
           !strstr(name, "logit_scale");
}

static struct mode_param *add_param(struct mode_clip *c, char *name, int n_dims, const int64_t *dim, int init,
                                    double scale)
{
    MODE_ASSERT(c->n_params < c->cap_params);
    c->init[c->n_params] = (struct clip_init){init, scale};
    struct mode_param *p = &c->params[c->n_params++];
    *p = (struct mode_param){.name = name, .value = mode_tensor_make(NULL, MODE_DTYPE_F32, n_dims, dim)};
    p->value.name = name;
    p->operand = p->grad = p->m = p->v = p->value;
    p->decay = decays(name, n_dims);
    c->n_floats += ((size_t)mode_tensor_count(&p->value) + 15) / 16 * 16;
    return p;
}

/* p is a GEMM operand: on a bf16 backend GEMMs read a rounded copy of it. */
static struct mode_param *operand(struct mode_clip *c, struct mode_param *p)
{
    if (!c->be || mode_backend_activations(c->be) == MODE_DTYPE_F32) return p;
    p->operand.dtype = mode_backend_activations(c->be);
    c->copy_bytes += (mode_tensor_bytes(&p->operand) + 63) / 64 * 64;
    return p;
}

static struct mode_param *add_1d(struct mode_clip *c, char *name, int64_t n, int init, double scale)
{
    return add_param(c, name, 1, &n, init, scale);
}

static struct mode_param *add_2d(struct mode_clip *c, char *name, int64_t rows, int64_t cols, int init, double scale)
{
    return add_param(c, name, 2, (int64_t[]){rows, cols}, init, scale);
}

/* Matrices of text blocks are normal, as in OpenAI's CLIP. Image blocks have PyTorch's defaults, as open_clip defines
 * no initialisation for them: Xavier uniform for qkv, uniform in +-1/sqrt(fan_in) elsewhere. */
static void add_blocks(struct mode_clip *c, struct clip_tower *t, const char *prefix, bool text)
{
    int64_t d = t->cfg.width, f = t->cfg.mlp;
    double attn = pow((double)d, -0.5), depth = pow(2.0 * (double)t->cfg.layers, -0.5), fc = pow(2.0 * (double)d, -0.5);
    double by_d = 1 / sqrt((double)d), by_f = 1 / sqrt((double)f), xavier = sqrt(6.0 / (4.0 * (double)d));
    int kind = text ? INIT_NORMAL : INIT_UNIFORM;
    t->blocks = mode_xcalloc((size_t)t->cfg.layers, sizeof *t->blocks);
    for (int64_t i = 0; i < t->cfg.layers; i++) {
        struct clip_block *b = &t->blocks[i];
        double ls = t->cfg.layer_scale_init;
#define NAME(rest) mode_xasprintf("%stransformer.resblocks.%lld." rest, prefix, (long long)i)
        b->ln_1_w = add_1d(c, NAME("ln_1.weight"), d, INIT_CONSTANT, 1);
        b->ln_1_b = add_1d(c, NAME("ln_1.bias"), d, INIT_CONSTANT, 0);
        b->qkv_w = operand(c, add_2d(c, NAME("attn.in_proj_weight"), 3 * d, d, kind, text ? attn : xavier));
        b->qkv_b = operand(c, add_1d(c, NAME("attn.in_proj_bias"), 3 * d, INIT_CONSTANT, 0));
        b->out_w = operand(c, add_2d(c, NAME("attn.out_proj.weight"), d, d, kind, text ? attn * depth : by_d));
        b->out_b = operand(c, add_1d(c, NAME("attn.out_proj.bias"), d, INIT_CONSTANT, 0));
        if (t->cfg.layer_scale) b->ls_1 = add_1d(c, NAME("ls_1.gamma"), d, INIT_CONSTANT, ls);
        b->ln_2_w = add_1d(c, NAME("ln_2.weight"), d, INIT_CONSTANT, 1);
        b->ln_2_b = add_1d(c, NAME("ln_2.bias"), d, INIT_CONSTANT, 0);
        b->fc_w = operand(c, add_2d(c, NAME("mlp.c_fc.weight"), f, d, kind, text ? fc : by_d));
        b->fc_b = operand(c, add_1d(c, NAME("mlp.c_fc.bias"), f, INIT_UNIFORM, by_d));
        b->proj_w = operand(c, add_2d(c, NAME("mlp.c_proj.weight"), d, f, kind, text ? attn * depth : by_f));
        b->proj_b = operand(c, add_1d(c, NAME("mlp.c_proj.bias"), d, INIT_UNIFORM, by_f));
        if (t->cfg.layer_scale) b->ls_2 = add_1d(c, NAME("ls_2.gamma"), d, INIT_CONSTANT, ls);
#undef NAME
    }
}

/* The only list of parameters: order, names, shapes, initial distributions. */
static void add_params(struct mode_clip *c)
{
    const struct mode_clip_config *g = &c->cfg;
    int64_t wi = g->image.width, wt = g->text.width, e = g->embed_dim, p = g->patch_size;
    double by_wi = pow((double)wi, -0.5), by_wt = pow((double)wt, -0.5);
    c->cap_params = 16 + 14 * (size_t)(g->image.layers + g->text.layers);
    c->params = mode_xcalloc(c->cap_params, sizeof *c->params);
    c->init = mode_xcalloc(c->cap_params, sizeof *c->init);
    const char *text = g->custom_text ? "text." : "";
    c->positional = add_2d(c, mode_xasprintf("%spositional_embedding", text), g->context_length, wt, INIT_NORMAL, 0.01);
    if (g->text_proj == MODE_CLIP_PROJ_MATRIX)
        c->text.proj = operand(c, add_2d(c, mode_xasprintf("%stext_projection", text), wt, e, INIT_NORMAL, by_wt));
    if (g->text_proj == MODE_CLIP_PROJ_LINEAR) {
        c->text.proj_w = operand(
            c, add_2d(c, mode_xasprintf("%stext_projection.weight", text), e, wt, INIT_NORMAL, by_wt));
        c->text.proj_b = operand(c, add_1d(c, mode_xasprintf("%stext_projection.bias", text), e, INIT_CONSTANT, 0));
    }
    c->logit_scale = add_param(c, mode_xstrdup("logit_scale"), g->logit_scale_vector ? 1 : 0, (int64_t[]){1},
                               INIT_CONSTANT, g->init_logit_scale);
    c->class_embedding = add_1d(c, mode_xstrdup("visual.class_embedding"), wi, INIT_NORMAL, by_wi);
    c->visual_positional = add_2d(c, mode_xstrdup("visual.positional_embedding"), mode__clip_image_tokens(c), wi,
                                  g->image_sincos ? INIT_SINCOS : INIT_NORMAL, by_wi);
    c->visual_positional->frozen = g->image_sincos;
    c->image.proj = operand(c, add_2d(c, mode_xstrdup("visual.proj"), wi, e, INIT_NORMAL, by_wi));
    c->conv = operand(c, add_param(c, mode_xstrdup("visual.conv1.weight"), 4, (int64_t[]){wi, 3, p, p}, INIT_UNIFORM,
                                   1 / sqrt(3.0 * (double)p * (double)p)));
    if (g->image_ln_pre) {
        c->ln_pre_w = add_1d(c, mode_xstrdup("visual.ln_pre.weight"), wi, INIT_CONSTANT, 1);
        c->ln_pre_b = add_1d(c, mode_xstrdup("visual.ln_pre.bias"), wi, INIT_CONSTANT, 0);
    }
    add_blocks(c, &c->image, "visual.", false);
    c->image.ln_w = add_1d(c, mode_xstrdup("visual.ln_post.weight"), wi, INIT_CONSTANT, 1);
    c->image.ln_b = add_1d(c, mode_xstrdup("visual.ln_post.bias"), wi, INIT_CONSTANT, 0);
    add_blocks(c, &c->text, text, true);
    c->token_embedding = add_2d(c, mode_xasprintf("%stoken_embedding.weight", text), g->vocab_size, wt, INIT_NORMAL,
                                0.02);
    c->text.ln_w = add_1d(c, mode_xasprintf("%sln_final.weight", text), wt, INIT_CONSTANT, 1);
    c->text.ln_b = add_1d(c, mode_xasprintf("%sln_final.bias", text), wt, INIT_CONSTANT, 0);
}

size_t mode__clip_block_params(const struct clip_block *b)
{
    return (size_t)((b->ls_2 ? b->ls_2 : b->proj_b) - b->ln_1_w) + 1;
}

/* Blocks that the forward pass runs from a parameter on, its own included: 0 after the last block, layers + 1 of the
 * deeper tower before the first block and outside the towers. */
static int64_t depth_of(const struct mode_clip *c, const struct mode_param *p)
{
    const struct clip_tower *const towers[] = {&c->image, &c->text};
    int64_t deepest = 0;
    for (int k = 0; k < 2; k++) {
        const struct clip_tower *t = towers[k];
        if (p == t->ln_w || p == t->ln_b || p == t->proj || p == t->proj_w || p == t->proj_b) return 0;
        for (int64_t i = 0; i < t->cfg.layers; i++)
            if (p >= t->blocks[i].ln_1_w && p < t->blocks[i].ln_1_w + mode__clip_block_params(&t->blocks[i]))
                return t->cfg.layers - i;
        if (t->cfg.layers >= deepest) deepest = t->cfg.layers + 1;
    }
    return deepest;
}

/* The parameters in memory order: locked ones, then the others, by first use in the forward pass, so the backward pass
 * completes gradients from the end on; blocks of the two towers interleaved (optim/sharded.h reduces buckets in this
 * order). The caller frees. */
static struct mode_param **by_depth(struct mode_clip *c)
{
    struct mode_param **all = mode_xcalloc(c->n_params, sizeof(struct mode_param *));
    size_t n = 0;
    for (int locked = 1; locked >= 0; locked--)
        for (int64_t depth = depth_of(c, c->logit_scale); depth >= 0; depth--)
            for (size_t i = 0; i < c->n_params; i++)
                if (mode__clip_is_locked(c, &c->params[i]) == locked && depth_of(c, &c->params[i]) == depth)
                    all[n++] = &c->params[i];
    MODE_ASSERT(n == c->n_params);
    return all;
}

enum mode_status mode__clip_place(struct mode_clip *c, struct mode_error *err)
{
    void *values = NULL, *copies = NULL, *const old[] = {c->values, c->copies};
    enum mode_status st = mode_backend_alloc(c->be, &values, (c->n_floats + MODE_FLAT_ROOM) * sizeof(float), err);
    if (!st && c->copy_bytes) st = mode_backend_alloc(c->be, &copies, c->copy_bytes, err);
    if (st) {
        mode_backend_free(c->be, values);
        return st;
    }
    size_t at = 0, copy_at = 0;
    struct mode_param **order = by_depth(c);
    c->values = values;
    c->copies = copies;
    c->n_trained = 0;
    for (size_t i = 0; i < c->n_params; i++) {
        struct mode_param *p = order[i];
        const size_t n = ((size_t)mode_tensor_count(&p->value) + 15) / 16 * 16;
        bool copied = p->operand.dtype != p->value.dtype;
        if (old[0]) mode_backend_copy(c->be, c->values + at, p->value.data, mode_tensor_bytes(&p->value));
        p->value.data = c->values + at;
        p->operand.data = copied ? (char *)c->copies + copy_at : p->value.data;
        at += n;
        if (copied) copy_at += (mode_tensor_bytes(&p->operand) + 63) / 64 * 64;
        if (!mode__clip_is_locked(c, p)) c->n_trained += n;
    }
    free(order);
    if (!old[0]) return MODE_OK;
    mode_clip_refresh(c);
    mode_backend_sync(c->be);
    for (int k = 0; k < 2; k++) mode_backend_free(c->be, old[k]);
    return MODE_OK;
}

enum mode_status mode__clip_new(struct mode_clip **clip, struct mode_backend *be, const struct mode_clip_config *cfg,
                                struct mode_error *err)
{
    struct mode_clip *c = *clip = mode_xcalloc(1, sizeof *c);
    c->be = be;
    c->cfg = *cfg;
    c->accumulate = 1;
    c->pad_texts = c->branches = be && mode_backend_is_device(be);
    c->kept.image[MODE_CLIP_KEEP] = cfg->image.layers;
    c->kept.text[MODE_CLIP_KEEP] = cfg->text.layers;
    c->image = (struct clip_tower){
        .cfg = c->cfg.image, .mean = c->cfg.image_mean_pool, .ln_after = c->cfg.image_ln_after_pool};
    c->text = (struct clip_tower){.cfg = c->cfg.text, .causal = c->cfg.text_causal};
    add_params(c);
    if (!be) return MODE_OK; /* names and shapes only */
    enum mode_status st = mode__clip_place(c, err);
    if (st) mode_clip_close(clip);
    return st;
}

enum mode_status mode_clip_create_plain(struct mode_clip **clip, struct mode_backend *be,
                                        const struct mode_clip_config *cfg, uint64_t seed, struct mode_error *err)
{
    enum mode_status st = mode__clip_new(clip, be, cfg, err);
    if (!st) mode__clip_draw(*clip, seed);
    return st;
}

void mode_clip_close(struct mode_clip **clip)
{
    struct mode_clip *c = *clip;
    if (!c) return;
    mode__clip_acts_free(&c->infer, c->be);
    mode__clip_acts_free(&c->train, c->be);
    void *const blocks[] = {c->values, c->copies, c->grads, c->ms, c->vs};
    for (size_t i = 0; c->be && i < 5; i++) mode_backend_free(c->be, blocks[i]);
    for (size_t i = 0; i < c->n_params; i++) free(c->params[i].name);
    free(c->params);
    free(c->init);
    free(c->image.blocks);
    free(c->text.blocks);
    free(c->model_cfg);
    free(c->preprocess_cfg);
    free(c->note);
    free(c);
    *clip = NULL;
}

struct draw {
    float *to;
    struct clip_init init;
    uint64_t seed, index;
    int64_t cols, grid;
};

/* Sin-cos position embedding of a g x g grid: a quarter of the columns each for sine and cosine of x and of y, over
 * geometrically decreasing frequencies; zero for the class token. Source: open_clip's sin_cos_2d. */
static void sincos_row(float *v, int64_t row, int64_t grid, int64_t d)
{
    memset(v, 0, (size_t)d * sizeof *v);
    if (row == 0) return;
    int64_t at[2] = {(row - 1) % grid, (row - 1) / grid}, q = d / 4;
    for (int axis = 0; axis < 2; axis++)
        for (int64_t k = 0; k < q; k++) {
            double angle = (double)at[axis] / pow(10000, (double)k / (double)q);
            v[axis * 2 * q + k] = (float)sin(angle);
            v[axis * 2 * q + q + k] = (float)cos(angle);
        }
}

static void draw_row(void *ctx, int64_t row, int thread)
{
    const struct draw *d = ctx;
    struct mode_rng r = mode_rng_for(d->seed, MODE_RNG_INIT, d->index, (uint64_t)row);
    float *v = d->to + row * d->cols;
    (void)thread;
    if (d->init.kind == INIT_SINCOS) {
        sincos_row(v, row, d->grid, d->cols);
        return;
    }
    for (int64_t j = 0; j < d->cols; j++) {
        double x = d->init.scale;
        if (d->init.kind == INIT_NORMAL)
            x *= mode_rng_normal(&r);
        else if (d->init.kind == INIT_UNIFORM)
            x *= 2 * mode_rng_uniform(&r) - 1;
        v[j] = (float)x;
    }
}

void mode__clip_draw(struct mode_clip *clip, uint64_t seed)
{
    struct mode_mirror m = {.be = clip->be};
    for (size_t i = 0; i < clip->n_params; i++) {
        struct mode_param *p = &clip->params[i];
        int64_t rows = p->value.n_dims >= 2 ? p->value.dim[0] : 1;
        struct draw d = {mode_mirror_write(&m, p->value.data, mode_tensor_bytes(&p->value)),
                         clip->init[i],
                         seed,
                         i,
                         mode_tensor_count(&p->value) / rows,
                         clip->cfg.image_size / clip->cfg.patch_size};
        mode_parallel_for(rows, draw_row, &d);
        mode_mirror_send(&m);
    }
    mode_mirror_clear(&m);
    mode_clip_refresh(clip);
}

void mode_clip_refresh(struct mode_clip *clip)
{
    for (size_t i = 0; i < clip->n_params; i++) {
        struct mode_tensor *copy = mode_param_copy(&clip->params[i]);
        if (copy) mode_rounded(clip->be, copy, &clip->params[i].value);
    }
}

struct mode_backend *mode_clip_backend(const struct mode_clip *clip)
{
    return clip->be;
}

int mode_clip_embed_dim(const struct mode_clip *clip)
{
    return (int)clip->cfg.embed_dim;
}

int mode_clip_context(const struct mode_clip *clip)
{
    return (int)clip->cfg.context_length;
}

int64_t mode_clip_patches(const struct mode_clip *clip)
{
    return mode__clip_image_tokens(clip) - 1;
}

const struct mode_preprocess *mode_clip_preprocess(const struct mode_clip *clip)
{
    return &clip->preprocess;
}

float mode_clip_logit_scale(const struct mode_clip *clip)
{
    float log_scale;
    mode_backend_copy(clip->be, &log_scale, clip->logit_scale->value.data, sizeof log_scale);
    return expf(log_scale);
}

struct mode_param *mode_clip_params(struct mode_clip *clip, size_t *n)
{
    *n = clip->n_params;
    return clip->params;
}

void mode_clip_clamp(struct mode_clip *clip)
{
    mode_clamp(clip->be, &clip->logit_scale->value, 0, (float)LOGIT_SCALE_MAX);
}

/* Batch of inference: on a CPU small enough that activations stay in its caches; on a GPU large enough to occupy all
 * SMs and to synchronise rarely, in at most a quarter of the free memory. */
enum { HOST_BATCH = 64, DEVICE_BATCH = 1024 };

static bool infer_fits(const struct mode_clip *clip, int64_t n, size_t bytes)
{
    struct clip_acts a = {0};
    const bool fits = mode__clip_acts_plan(&a, clip, n, false, NULL, NULL) && a.arena.used <= bytes;
    free(a.image.blocks);
    free(a.text.blocks);
    return fits;
}

static int64_t infer_batch(const struct mode_clip *clip)
{
    int64_t n = mode_backend_is_device(clip->be) ? DEVICE_BATCH : HOST_BATCH;
    size_t left, total;
    mode_backend_room(clip->be, &left, &total);
    while (n > HOST_BATCH && !infer_fits(clip, n, left / 4)) n /= 2;
    return n;
}

int64_t mode__clip_between_batch(const struct mode_clip *clip, int64_t micro)
{
    const int64_t most = mode_backend_is_device(clip->be) ? DEVICE_BATCH : HOST_BATCH;
    return micro < most ? micro : most;
}

/* Between training steps the memory of the activations is free. Training's scratch bounds the batch, too. */
static enum mode_status infer_between(struct mode_clip *clip, struct mode_error *err)
{
    const struct clip_acts *train = clip->train;
    const size_t side = (size_t)clip->cfg.image_size, scratch = mode__clip_workspace(clip, train->batch);
    int64_t n = mode__clip_between_batch(clip, train->micro);
    while (n > 1 && ((size_t)n * 3 * side * side * sizeof(float) > scratch || !infer_fits(clip, n, train->arena.used)))
        n /= 2;
    return mode__clip_acts_new(&clip->infer, clip, n, false, train, err);
}

enum mode_status mode__clip_infer_begin(struct mode_clip *clip, struct mode_error *err)
{
    if (clip->infer) return MODE_OK;
    if (clip->train) return infer_between(clip, err);
    return mode__clip_acts_new(&clip->infer, clip, infer_batch(clip), false, NULL, err);
}

static void take(struct mode_backend *be, float *out, const struct clip_tower_acts *t, int raw)
{
    const struct mode_tensor *src = raw ? &t->emb : &t->unit;
    struct mode_mirror m = {.be = be};
    if (src->dtype == MODE_DTYPE_F32) {
        mode_backend_copy(be, out, src->data, mode_tensor_bytes(src));
        return;
    }
    const void *here = mode_mirror_read(&m, src->data, mode_tensor_bytes(src));
    MODE_ASSERT(mode_half_to_f32(out, here, src->dtype, (size_t)mode_tensor_count(src)));
    mode_mirror_clear(&m);
}

static enum mode_status encode_images(struct mode_clip *clip, float *out, struct clip_images from, int64_t b, int raw,
                                      struct mode_error *err)
{
    enum mode_status st = mode__clip_infer_begin(clip, err);
    for (int64_t i = 0, n; st == MODE_OK && i < b; i += n) {
        n = b - i < clip->infer->batch ? b - i : clip->infer->batch;
        from.first = i;
        mode__clip_image_begin(clip, clip->infer, 0, &from, n);
        mode__clip_image_forward(clip, clip->infer);
        take(clip->be, out + i * clip->cfg.embed_dim, &clip->infer->image, raw);
    }
    return st;
}

enum mode_status mode_clip_encode_images(struct mode_clip *clip, float *out, const float *pixels, int64_t b, int raw,
                                         struct mode_error *err)
{
    return encode_images(clip, out, (struct clip_images){.pixels = pixels}, b, raw, err);
}

enum mode_status mode_clip_encode_pictures(struct mode_clip *clip, float *out, const struct mode_pictures *pictures,
                                           int64_t b, int raw, struct mode_error *err)
{
    return encode_images(clip, out, (struct clip_images){.pictures = pictures}, b, raw, err);
}

enum mode_status mode_clip_encode_texts(struct mode_clip *clip, float *out, const int32_t *ids, const int32_t *n_ids,
                                        int64_t b, int raw, struct mode_error *err)
{
    enum mode_status st = mode__clip_check_texts(clip, ids, n_ids, b, err);
    if (st == MODE_OK) st = mode__clip_infer_begin(clip, err);
    for (int64_t i = 0, n; st == MODE_OK && i < b; i += n) {
        n = b - i < clip->infer->batch ? b - i : clip->infer->batch;
        mode__clip_text_begin(clip, clip->infer, 0, ids, n_ids + i, n);
        mode__clip_text_forward(clip, clip->infer);
        take(clip->be, out + i * clip->cfg.embed_dim, &clip->infer->text, raw);
        for (int64_t j = i; j < i + n; j++) ids += n_ids[j];
    }
    return st;
}
