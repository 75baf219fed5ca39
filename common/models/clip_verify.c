#include "models/clip_verify.h"

#include "base/str.h"
#include "data/safetensors.h"
#include "models/clip_exact.h"

#include <cblas.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct check {
    struct mode_clip *clip, *exact; /* exact: the same parameters in host memory; clip itself on a CPU */
    struct mode_backend *host;      /* exact's backend if it is a copy, else NULL */
    struct mode_mirror mirror;
    mode_verify_fn *each;
    void *ctx;
    const char *stage;
};

double mode_verify_limit_block(int64_t blocks_before)
{
    return 2e-6 * sqrt((double)(blocks_before + 1));
}

double mode_verify_limit_gradient(int n_dims)
{
    return n_dims >= 2 ? 2e-5 : 1e-4;
}

static const float *seen(struct mode_mirror *m, const struct mode_tensor *t)
{
    return mode_mirror_read(m, t->data, mode_tensor_bytes(t));
}

/* Compare t [n, cols] (backend memory) with rows place[i] of exact (NULL: row i). */
static void compare(struct check *c, const char *tensor, const struct mode_tensor *t, const double *exact, int64_t n,
                    int64_t cols, const int32_t *place, double tolerance)
{
    const float *ours = mode_mirror_read(&c->mirror, t->data, (size_t)(n * cols) * sizeof *ours);
    struct mode_verify_row row = {.stage = c->stage, .tensor = tensor, .tolerance = tolerance};
    double diff = 0, size = 0, worst = -1;
    for (int64_t i = 0; i < n * cols; i++) {
        double want = exact[(place ? place[i / cols] : i / cols) * cols + i % cols], off = fabs(ours[i] - want);
        diff += off * off;
        size += want * want;
        if (off > worst || !(off == off)) {
            worst = off;
            row.worst = i;
            row.ours = ours[i];
            row.exact = want;
        }
    }
    row.error = sqrt(diff) / fmax(sqrt(size), 1e-30);
    if (!isfinite(row.error)) row.error = INFINITY; /* NaN must not pass */
    c->each(c->ctx, &row);
}

/* The dense row of each of our packed rows; sequences of the dense tensor have `rows` rows. The caller frees. */
static int32_t *places(const struct clip_tower_acts *a, int64_t rows)
{
    int32_t *p = mode_xmalloc((size_t)a->rows * sizeof *p);
    const int32_t *o = a->offsets.data;
    for (int64_t s = 0; s < a->seqs; s++)
        for (int32_t i = o[s]; i < o[s + 1]; i++) p[i] = (int32_t)(s * rows) + i - o[s];
    return p;
}

struct stages { /* the reference's outputs of a tower, dense; rows: per sequence; ln NULL: not compared */
    int64_t rows;
    const double *x, **block, *ln, *emb, *unit;
};

static void check_forward(struct check *c, const struct clip_tower *t, const struct clip_tower_acts *a,
                          const struct stages *x)
{
    bool text = t == &c->clip->text;
    const char *prefix = !text ? "visual." : c->clip->cfg.custom_text ? "text." : "";
    int64_t layers = t->cfg.layers, b = a->seqs, d = t->cfg.width, e = c->clip->cfg.embed_dim;
    int32_t *all = places(a, x->rows), *pooled = mode_xmalloc((size_t)b * sizeof *pooled);
    double end = mode_verify_limit_block(layers);
    for (int64_t i = 0; i < b; i++) pooled[i] = all[((const int32_t *)a->pool.data)[i]];
    c->stage = text ? "text tower" : "image tower";
    compare(c, text ? "tokens + positions" : "patches + positions", &a->x, x->x, a->rows, d, all,
            mode_verify_limit_block(0));
    for (int64_t i = 0; i < layers; i++) {
        char *name = mode_xasprintf("%stransformer.resblocks.%lld", prefix, (long long)i);
        bool few = i == layers - 1 && mode__clip_pooled_last(c->clip, t);
        compare(c, name, &a->blocks[i].out, x->block[i], few ? b : a->rows, d, few ? pooled : all,
                mode_verify_limit_block(i + 1));
        free(name);
    }
    if (x->ln) compare(c, text ? "ln_final, pooled" : "ln_post, pooled", &a->ln, x->ln, b, d, NULL, end);
    compare(c, "features", &a->emb, x->emb, b, e, NULL, end);
    compare(c, "unit features", &a->unit, x->unit, b, e, NULL, end);
    free(all);
    free(pooled);
}

static void check_exact(struct check *c, const struct clip_tower_acts *a, const struct clip_exact *x)
{
    int64_t layers = x->t->cfg.layers;
    const double **block = mode_xcalloc((size_t)layers, sizeof *block);
    for (int64_t i = 0; i < layers; i++) block[i] = i + 1 < layers ? x->blocks[i + 1].x : x->out;
    const struct stages s = {x->rows, x->x, block, x->ln, x->emb, x->unit};
    check_forward(c, x->text ? &c->clip->text : &c->clip->image, a, &s);
    free(block);
}

/* The scale multiplies rounding errors of the logits, and with them those of the softmax: tolerances grow with it. */
static void check_loss(struct check *c)
{
    struct clip_acts *a = c->clip->train;
    int64_t b = a->image.seqs, e = c->clip->cfg.embed_dim;
    const struct mode_tensor *d_scale = &c->clip->logit_scale->grad;
    const float log_scale = *mode_f32(&c->exact->logit_scale->value);
    double *da = mode_xcalloc((size_t)(b * e), sizeof *da), *db = mode_xcalloc((size_t)(b * e), sizeof *db),
           exact_scale;
    double limit = mode_verify_limit_gradient(2) + 1e-6 * exp(log_scale);
    struct mode_mirror image = {.be = c->clip->be}, text = image;
    struct mode_error err;
    MODE_ASSERT(!mode__clip_loss(c->clip, &a->image.d_unit, &a->text.d_unit, &a->image.unit, &a->text.unit, &err));
    double loss = mode_clip_train_loss(c->clip);
    double exact = mode__clip_exact_loss(da, db, &exact_scale, seen(&image, &a->image.unit), seen(&text, &a->text.unit),
                                         b, e, log_scale);
    c->stage = "loss";
    struct mode_verify_row row = {.stage = c->stage,
                                  .tensor = "loss",
                                  .error = fabs(loss - exact) / fmax(exact, 1e-30),
                                  .tolerance = 2e-6 + 1e-7 * exp(log_scale),
                                  .ours = loss,
                                  .exact = exact};
    if (!isfinite(row.error)) row.error = INFINITY;
    c->each(c->ctx, &row);
    compare(c, "gradient of the image features", &a->image.d_unit, da, b, e, NULL, limit);
    compare(c, "gradient of the text features", &a->text.d_unit, db, b, e, NULL, limit);
    compare(c, "gradient of logit_scale", d_scale, &exact_scale, 1, 1, NULL, limit * 5);
    mode_mirror_clear(&image);
    mode_mirror_clear(&text);
    free(da);
    free(db);
}

static void check_gradient(struct check *c, const struct mode_param *p, const double *grad)
{
    compare(c, p->name, &p->grad, grad, 1, mode_tensor_count(&p->grad), NULL,
            mode_verify_limit_gradient(p->value.n_dims));
}

static void on_gradient(void *ctx, const struct mode_param *p, const double *grad)
{
    struct check *c = ctx;
    check_gradient(c, &c->clip->params[p - c->exact->params], grad);
}

/* clip_exact.c reads parameters from host memory: the model itself, or a copy of a device's. */
static enum mode_status open_exact(struct check *c, struct mode_error *err)
{
    c->exact = c->clip;
    if (!mode_backend_is_device(c->clip->be)) return MODE_OK;
    enum mode_status st = mode_backend_open(&c->host, "ref", err);
    if (!st) st = mode__clip_new(&c->exact, c->host, &c->clip->cfg, err);
    if (!st) mode_backend_copy(c->clip->be, c->exact->values, c->clip->values, c->clip->n_floats * sizeof(float));
    return st;
}

static void close_exact(struct check *c)
{
    if (c->host && c->exact) mode_clip_close(&c->exact);
    mode_backend_close(&c->host);
    mode_mirror_clear(&c->mirror);
}

static enum mode_status check_f32(const struct mode_clip *clip, struct mode_error *err)
{
    if (mode_backend_activations(clip->be) == MODE_DTYPE_F32) return MODE_OK;
    return MODE_FAIL(err, MODE_E_VALUE, "verification has limits for f32; backend \"%s\" computes in %s",
                     mode_backend_name(clip->be), mode_dtype_name(mode_backend_activations(clip->be)));
}

static void forward(struct mode_clip *clip, const float *pixels, const int32_t *ids, const int32_t *n_ids, int64_t b)
{
    struct mode_tensor grads = mode_tensor_1d(clip->grads, MODE_DTYPE_F32, (int64_t)clip->n_floats);
    mode_zero(clip->be, &grads);
    mode__clip_image_begin(clip, clip->train, 0, &(struct clip_images){.pixels = pixels}, b);
    mode__clip_image_forward(clip, clip->train);
    mode__clip_text_begin(clip, clip->train, 0, ids, n_ids, b);
    mode__clip_text_forward(clip, clip->train);
    mode_backend_sync(clip->be);
}

enum mode_status mode_clip_verify(struct mode_clip *clip, const float *pixels, const int32_t *ids, const int32_t *n_ids,
                                  int64_t b, mode_verify_fn *each, void *ctx, struct mode_error *err)
{
    struct check c = {.clip = clip, .mirror = {.be = clip->be}, .each = each, .ctx = ctx};
    struct mode_mirror d_unit = {.be = clip->be};
    struct clip_exact image = {0}, text = {0};
    enum mode_status st = check_f32(clip, err);
    if (!st) st = mode__clip_check_texts(clip, ids, n_ids, b, err);
    if (!st) mode_clip_set_padding(clip, false); /* every text is compared */
    if (!st) st = mode_clip_train_begin(clip, b, err);
    if (!st) st = open_exact(&c, err);
    if (st) goto out;
    openblas_set_num_threads(1); /* the thread pool calls BLAS in parallel */
    forward(clip, pixels, ids, n_ids, b);
    mode__clip_exact_image(&image, c.exact, pixels, b);
    check_exact(&c, &clip->train->image, &image);
    mode__clip_exact_text(&text, c.exact, ids, n_ids, b);
    check_exact(&c, &clip->train->text, &text);
    check_loss(&c);
    mode__clip_text_back(clip, clip->train);
    mode__clip_image_back(clip, clip->train);
    c.stage = "image gradients";
    mode__clip_exact_back(&image, seen(&d_unit, &clip->train->image.d_unit), on_gradient, &c);
    c.stage = "text gradients";
    mode__clip_exact_back(&text, seen(&d_unit, &clip->train->text.d_unit), on_gradient, &c);
    mode__clip_exact_clear(&image);
    mode__clip_exact_clear(&text);
out:
    mode_mirror_clear(&d_unit);
    close_exact(&c);
    return st;
}

/* ---- against stored tensors ------------------------------------------------------------------------------------ */

struct stored {
    const struct mode_safetensors *f;
    const char *prefix;
    double *values[512]; /* as f64; freed at the end */
    size_t n;
    enum mode_status st;
};

__attribute__((format(printf, 4, 5))) static const double *widened(struct stored *s, int64_t count,
                                                                   struct mode_error *err, const char *format, ...)
{
    char name[160];
    va_list args;
    int at = snprintf(name, sizeof name, "%s", s->prefix);
    va_start(args, format);
    vsnprintf(name + at, sizeof name - (size_t)at, format, args);
    va_end(args);
    const struct mode_tensor *t = mode_safetensors_find(s->f, name);
    MODE_ASSERT(s->n < sizeof s->values / sizeof *s->values);
    double *v = s->values[s->n++] = mode_xcalloc((size_t)count, sizeof *v);
    if (!t || t->dtype != MODE_DTYPE_F32 || mode_tensor_count(t) != count) {
        if (!s->st)
            s->st = MODE_FAIL(err, MODE_E_FORMAT, "the stored vectors have no %s of %lld numbers", name,
                              (long long)count);
        return v;
    }
    for (int64_t i = 0; i < count; i++) v[i] = mode_f32(t)[i];
    return v;
}

static void check_stored(struct check *c, struct stored *s, const struct clip_tower *t, const struct clip_tower_acts *a,
                         const char *tower, struct mode_error *err)
{
    int64_t rows = t == &c->clip->text ? c->clip->cfg.context_length : mode__clip_image_tokens(c->clip);
    int64_t n = a->seqs * rows * t->cfg.width, e = a->seqs * c->clip->cfg.embed_dim;
    const double **block = mode_xcalloc((size_t)t->cfg.layers, sizeof *block);
    struct stages x = {.rows = rows, .block = block};
    x.x = widened(s, n, err, "%s.x", tower);
    for (int64_t i = 0; i < t->cfg.layers; i++) block[i] = widened(s, n, err, "%s.block.%lld", tower, (long long)i);
    x.emb = widened(s, e, err, "%s.features", tower);
    x.unit = widened(s, e, err, "%s.unit", tower);
    if (!s->st) check_forward(c, t, a, &x);
    free(block);
}

enum mode_status mode_clip_verify_stored(struct mode_clip *clip, const struct mode_safetensors *f, const char *prefix,
                                         const float *pixels, const int32_t *ids, const int32_t *n_ids, int64_t b,
                                         mode_verify_fn *each, void *ctx, struct mode_error *err)
{
    struct check c = {.clip = clip, .mirror = {.be = clip->be}, .each = each, .ctx = ctx};
    struct stored s = {.f = f, .prefix = prefix};
    double loss = 0;
    enum mode_status st = check_f32(clip, err);
    if (!st) mode_clip_set_padding(clip, false); /* every text is compared */
    if (!st) st = mode_clip_train_begin(clip, b, err);
    if (!st) st = mode_clip_train_step(clip, &loss, pixels, ids, n_ids, b, err);
    mode_backend_sync(clip->be);
    if (st) return st;
    check_stored(&c, &s, &clip->image, &clip->train->image, "image", err);
    check_stored(&c, &s, &clip->text, &clip->train->text, "text", err);
    const double *exact = widened(&s, 1, err, "loss");
    c.stage = "loss";
    const struct mode_verify_row row = {.stage = "loss",
                                        .tensor = "loss",
                                        .error = fabs(loss - *exact) / fmax(*exact, 1e-30),
                                        .tolerance = 2e-6,
                                        .ours = loss,
                                        .exact = *exact};
    each(ctx, &row);
    c.stage = "gradients";
    for (size_t i = 0; !s.st && i < clip->n_params; i++) {
        const struct mode_param *p = &clip->params[i];
        if (!p->frozen) check_gradient(&c, p, widened(&s, mode_tensor_count(&p->grad), err, "grad.%s", p->name));
    }
    mode_mirror_clear(&c.mirror);
    for (size_t i = 0; i < s.n; i++) free(s.values[i]);
    return s.st;
}
