/* BERT: loading, and texts to batches. The forward pass is bert_forward.c.
 *
 * DESIGN: weights live in one block, query, key and value of a layer fused into one [3D, D] matrix. A single sentence
 * has token type 0 throughout, so that embedding is folded into the position table. On a bf16 backend GEMM operands are
 * rounded once, at load. A window of texts is tokenized in parallel, sorted by (length, index) and cut into batches by
 * a fixed rule, so the same texts always share a batch. */
#include "models/bert_impl.h"

#include "base/file.h"
#include "base/parallel.h"
#include "base/str.h"
#include "data/tokenizer.h"
#include "data/weights.h"
#include "nn/mirror.h"
#include "nn/ops.h"
#include "tensor/half.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WINDOW = 8192, TOKENIZE_BLOCK = 64, DEVICE_BATCH = 16, DEVICE_WINDOW = 4 /* times as much on a device */ };

/* ---- loading --------------------------------------------------------------------------------------------- */

struct loader {
    struct mode_text_encoder *enc;
    struct mode_weights file;
    struct mode_mirror mirror; /* of the tensor being loaded */
    const char *path, *prefix; /* prefix: "" or "bert." */
};

/* Tensor <prefix><name> of shape [rows, cols] (cols 0: [rows]) to `to`, host memory, as f32. */
static enum mode_status read_tensor(struct loader *l, float *to, const char *name, int64_t rows, int64_t cols,
                                    struct mode_error *err)
{
    char full[160], got[160];
    snprintf(full, sizeof full, "%s%s", l->prefix, name);
    const struct mode_tensor *t = mode_weights_find(&l->file, full);
    if (!t) { /* the old spelling of LayerNorm */
        size_t n = strlen(full);
        if (n > 16 && strcmp(full + n - 16, "LayerNorm.weight") == 0)
            strcpy(full + n - 6, "gamma");
        else if (n > 14 && strcmp(full + n - 14, "LayerNorm.bias") == 0)
            strcpy(full + n - 4, "beta");
        t = mode_weights_find(&l->file, full);
    }
    if (!t) return MODE_FAIL(err, MODE_E_FORMAT, "%s: tensor %s%s is missing", l->path, l->prefix, name);
    if (t->n_dims != (cols ? 2 : 1) || t->dim[0] != rows || (cols && t->dim[1] != cols))
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: tensor %s is %s, config.json says [%" PRId64 "%s%" PRId64 "]",
                         l->path, full, mode_tensor_shape_text(t, got, sizeof got), rows, cols ? ", " : " x ",
                         cols ? cols : 1);
    if (!mode_half_to_f32(to, t->data, t->dtype, (size_t)(rows * (cols ? cols : 1))))
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: tensor %s is %s, expected F32, F16, BF16 or F64", l->path, full,
                         mode_dtype_name(t->dtype));
    return MODE_OK;
}

/* The same, to backend memory. */
static enum mode_status copy_tensor(struct loader *l, float *to, const char *name, int64_t rows, int64_t cols,
                                    struct mode_error *err)
{
    float *here = mode_mirror_write(&l->mirror, to, (size_t)(rows * (cols ? cols : 1)) * sizeof *to);
    enum mode_status st = read_tensor(l, here, name, rows, cols, err);
    if (!st) mode_mirror_send(&l->mirror);
    return st;
}

static float *take(struct mode_text_encoder *enc, int64_t n)
{
    float *p = enc->weights + enc->used;
    enc->used += (size_t)n;
    MODE_ASSERT(enc->used <= enc->n_weights);
    return p;
}

static enum mode_status load_matrix(struct loader *l, struct mode_tensor *t, const char *name, int64_t rows,
                                    int64_t cols, struct mode_error *err)
{
    float *p = take(l->enc, rows * cols);
    *t = mode_tensor_2d(p, MODE_DTYPE_F32, rows, cols);
    return copy_tensor(l, p, name, rows, cols, err);
}

static enum mode_status load_vector(struct loader *l, struct mode_tensor *t, const char *name, int64_t n,
                                    struct mode_error *err)
{
    float *p = take(l->enc, n);
    *t = mode_tensor_1d(p, MODE_DTYPE_F32, n);
    return copy_tensor(l, p, name, n, 0, err);
}

static enum mode_status load_layer(struct loader *l, int64_t i, struct mode_error *err)
{
    static const char *const parts[] = {"query", "key", "value"};
    const struct mode__bert_config *c = &l->enc->c;
    struct bert_layer *y = &l->enc->layers[i];
    int64_t d = c->width;
    char name[128];
    enum mode_status st;
    y->qkv_w = mode_tensor_2d(take(l->enc, 3 * d * d), MODE_DTYPE_F32, 3 * d, d);
    y->qkv_b = mode_tensor_1d(take(l->enc, 3 * d), MODE_DTYPE_F32, 3 * d);
    for (int k = 0; k < 3; k++) {
        snprintf(name, sizeof name, "encoder.layer.%" PRId64 ".attention.self.%s.weight", i, parts[k]);
        if ((st = copy_tensor(l, mode_f32(&y->qkv_w) + k * d * d, name, d, d, err))) return st;
        snprintf(name, sizeof name, "encoder.layer.%" PRId64 ".attention.self.%s.bias", i, parts[k]);
        if ((st = copy_tensor(l, mode_f32(&y->qkv_b) + k * d, name, d, 0, err))) return st;
    }
    const struct {
        struct mode_tensor *w, *b, *ln_w, *ln_b;
        const char *name;
        int64_t rows, cols;
    } rest[] = {
        {&y->out_w, &y->out_b, &y->out_ln_w, &y->out_ln_b, "attention.output", d, d},
        {&y->fc_w, &y->fc_b, NULL, NULL, "intermediate", c->inner, d},
        {&y->proj_w, &y->proj_b, &y->proj_ln_w, &y->proj_ln_b, "output", d, c->inner},
    };
    for (size_t k = 0; k < 3; k++) {
        snprintf(name, sizeof name, "encoder.layer.%" PRId64 ".%s.dense.weight", i, rest[k].name);
        if ((st = load_matrix(l, rest[k].w, name, rest[k].rows, rest[k].cols, err))) return st;
        snprintf(name, sizeof name, "encoder.layer.%" PRId64 ".%s.dense.bias", i, rest[k].name);
        if ((st = load_vector(l, rest[k].b, name, rest[k].rows, err))) return st;
        if (!rest[k].ln_w) continue;
        snprintf(name, sizeof name, "encoder.layer.%" PRId64 ".%s.LayerNorm.weight", i, rest[k].name);
        if ((st = load_vector(l, rest[k].ln_w, name, d, err))) return st;
        snprintf(name, sizeof name, "encoder.layer.%" PRId64 ".%s.LayerNorm.bias", i, rest[k].name);
        if ((st = load_vector(l, rest[k].ln_b, name, d, err))) return st;
    }
    return MODE_OK;
}

static enum mode_status load_embeddings(struct loader *l, struct mode_error *err)
{
    struct mode_text_encoder *enc = l->enc;
    const struct mode__bert_config *c = &enc->c;
    int64_t d = c->width;
    float *types = mode_xmalloc((size_t)(c->types * d) * sizeof *types);
    enum mode_status st = load_matrix(l, &enc->words, "embeddings.word_embeddings.weight", c->vocab, d, err);
    enc->positions = mode_tensor_2d(take(enc, c->positions * d), MODE_DTYPE_F32, c->positions, d);
    float *positions = mode_mirror_write(&l->mirror, enc->positions.data, mode_tensor_bytes(&enc->positions));
    if (!st) st = read_tensor(l, positions, "embeddings.position_embeddings.weight", c->positions, d, err);
    if (!st) st = read_tensor(l, types, "embeddings.token_type_embeddings.weight", c->types, d, err);
    for (int64_t i = 0; !st && i < c->positions * d; i++) positions[i] += types[i % d];
    if (!st) mode_mirror_send(&l->mirror);
    if (!st) st = load_vector(l, &enc->ln_w, "embeddings.LayerNorm.weight", d, err);
    if (!st) st = load_vector(l, &enc->ln_b, "embeddings.LayerNorm.bias", d, err);
    free(types);
    return st;
}

/* Make t a bf16 copy of itself at *to. */
static void round_tensor(struct mode_backend *be, struct mode_tensor *t, uint16_t **to)
{
    struct mode_tensor rounded = *t;
    rounded.data = *to;
    rounded.dtype = MODE_DTYPE_BF16;
    mode_rounded(be, &rounded, t);
    *t = rounded;
    *to += (mode_tensor_count(t) + 31) / 32 * 32;
}

static enum mode_status round_operands(struct mode_text_encoder *enc, bool has_pooler, struct mode_error *err)
{
    void *memory;
    size_t room = (enc->n_weights + (size_t)(8 * enc->c.layers + 2) * 32) * sizeof *enc->copies;
    enum mode_status st = mode_backend_alloc(enc->be, &memory, room, err);
    if (st) return st;
    uint16_t *to = enc->copies = memory;
    for (int64_t i = 0; i < enc->c.layers; i++) {
        struct bert_layer *y = &enc->layers[i];
        struct mode_tensor *const read[] = {&y->qkv_w, &y->qkv_b, &y->out_w,  &y->out_b,
                                            &y->fc_w,  &y->fc_b,  &y->proj_w, &y->proj_b};
        for (size_t k = 0; k < sizeof read / sizeof *read; k++) round_tensor(enc->be, read[k], &to);
    }
    if (has_pooler) round_tensor(enc->be, &enc->pooler_w, &to);
    if (has_pooler) round_tensor(enc->be, &enc->pooler_b, &to);
    return MODE_OK;
}

static enum mode_status load_weights(struct mode_text_encoder *enc, const char *dir, struct mode_error *err)
{
    const struct mode__bert_config *c = &enc->c;
    int64_t d = c->width;
    char *path = mode__bert_weights(dir), name[64];
    struct loader l = {.enc = enc, .mirror = {.be = enc->be}, .path = path, .prefix = ""};
    bool has_pooler = enc->pooling == MODE__POOLING_POOLER;
    enum mode_status st = mode_weights_open(&l.file, path, err);
    if (st) goto out;
    if (!mode_weights_find(&l.file, "embeddings.word_embeddings.weight")) l.prefix = "bert.";
    snprintf(name, sizeof name, "%sencoder.layer.%" PRId64 ".output.dense.weight", l.prefix, c->layers);
    if (mode_weights_find(&l.file, name)) {
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: holds %s, config.json specifies %" PRId64 " layers", path, name,
                       c->layers);
        goto out;
    }
    /* config.json's checks cap every size: no multiplication below can overflow */
    enc->n_weights = (size_t)((c->vocab + c->positions + 2) * d +
                              c->layers * (4 * d * d + 9 * d + 2 * d * c->inner + c->inner) +
                              (has_pooler ? d * d + d : 0));
    if (enc->n_weights > l.file.bytes) { /* every accepted dtype takes at least two bytes */
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: %zu bytes cannot hold the %zu weights that config.json specifies", path,
                       l.file.bytes, enc->n_weights);
        goto out;
    }
    void *memory;
    enc->layers = mode_xcalloc((size_t)c->layers, sizeof *enc->layers);
    if ((st = mode_backend_alloc(enc->be, &memory, enc->n_weights * sizeof(float), err))) goto out;
    enc->weights = memory;
    st = load_embeddings(&l, err);
    for (int64_t i = 0; !st && i < c->layers; i++) st = load_layer(&l, i, err);
    if (!st && has_pooler) st = load_matrix(&l, &enc->pooler_w, "pooler.dense.weight", d, d, err);
    if (!st && has_pooler) st = load_vector(&l, &enc->pooler_b, "pooler.dense.bias", d, err);
    if (!st && mode_backend_activations(enc->be) == MODE_DTYPE_BF16) st = round_operands(enc, has_pooler, err);
out:
    mode_mirror_clear(&l.mirror);
    mode_weights_close(&l.file);
    free(path);
    return st;
}

enum mode_status mode_text_encoder_open(struct mode_text_encoder **enc, struct mode_backend *be, const char *dir,
                                        const char *pooling, int max_tokens, struct mode_error *err)
{
    struct mode_text_encoder *self = *enc = mode_xcalloc(1, sizeof *self);
    self->be = be;
    enum mode_status st = mode__bert_config_load(&self->c, dir, err);
    if (!st) st = mode__bert_choose(&self->pooling, &self->max_tokens, &self->c, dir, pooling, max_tokens, err);
    if (!st) st = mode__bert_identity(self->id, dir, self->pooling, self->max_tokens, err);
    if (!st) st = mode_tokenizer_open_bert(&self->tokenizer, dir, err);
    if (!st && mode_tokenizer_vocab_size(self->tokenizer) > self->c.vocab)
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: the tokenizer has %d ids, the model has %" PRId64, dir,
                       mode_tokenizer_vocab_size(self->tokenizer), self->c.vocab);
    if (!st) st = load_weights(self, dir, err);
    if (st) mode_text_encoder_close(enc);
    return st;
}

void mode_text_encoder_close(struct mode_text_encoder **enc)
{
    if (!*enc) return;
    mode_tokenizer_close(&(*enc)->tokenizer);
    free((*enc)->layers);
    mode_backend_free((*enc)->be, (*enc)->weights);
    mode_backend_free((*enc)->be, (*enc)->copies);
    free(*enc);
    *enc = NULL;
}

int mode_text_encoder_dim(const struct mode_text_encoder *enc)
{
    return (int)enc->c.width;
}

const char *mode_text_encoder_id(const struct mode_text_encoder *enc)
{
    return enc->id;
}

/* ---- texts to batches ------------------------------------------------------------------------------------ */

struct window {
    const struct mode_text_encoder *enc;
    const char *const *texts;
    size_t n;
    int32_t *ids; /* [n, max_tokens] */
    struct place {
        int32_t length, index;
    } * places;
};

struct window_tick { /* of a window that begins at `before` */
    mode_encode_tick_fn *call;
    void *ctx;
    size_t before, total;
};

static void tokenize_block(void *ctx, int64_t item, int thread)
{
    struct window *w = ctx;
    (void)thread;
    int max = w->enc->max_tokens;
    for (size_t i = (size_t)item * TOKENIZE_BLOCK; i < w->n && i < (size_t)(item + 1) * TOKENIZE_BLOCK; i++) {
        int n = mode_tokenizer_encode(w->enc->tokenizer, w->texts[i], strlen(w->texts[i]), w->ids + i * (size_t)max,
                                      max);
        w->places[i] = (struct place){n, (int32_t)i};
    }
}

static int by_length(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    return x->length != y->length ? (x->length < y->length ? -1 : 1) : x->index < y->index ? -1 : 1;
}

/* Fill the slot with sequences from *at on, up to the budget of tokens. */
static void next_batch(struct bert_slot *s, int64_t budget, const struct window *w, size_t *at)
{
    s->first = *at;
    s->n = 0;
    s->offsets[0] = 0;
    while (*at < w->n) {
        struct place p = w->places[*at];
        if (s->n > 0 && s->offsets[s->n] + p.length > budget) break;
        memcpy(s->ids + s->offsets[s->n], w->ids + (size_t)p.index * (size_t)w->enc->max_tokens,
               (size_t)p.length * sizeof *s->ids);
        s->offsets[s->n + 1] = s->offsets[s->n] + p.length;
        s->n++;
        ++*at;
    }
}

/* Wait for the slot's batch and scatter its rows to the texts' places in out. Returns the number of texts. */
static size_t finish(struct bert_slot *s, float *out, const struct window *w)
{
    size_t n = (size_t)s->n, d = (size_t)w->enc->c.width;
    if (n == 0) return 0;
    mode_results_wait(s->out);
    for (size_t i = 0; i < n; i++)
        memcpy(out + (size_t)w->places[s->first + i].index * d, (const float *)s->out->host + i * d, d * sizeof *out);
    s->n = 0;
    return n;
}

/* The window's texts -> out [n, D]. */
static enum mode_status encode_window(struct mode_text_encoder *enc, struct bert_acts *a, float *out,
                                      const struct window *w, const struct window_tick *tick)
{
    enum mode_status st = MODE_OK;
    size_t done = 0;
    int turn = 0;
    for (size_t at = 0; !st && done < w->n; turn = (turn + 1) % BERT_SLOTS) {
        struct bert_slot *s = &a->slot[turn];
        size_t n = finish(s, out, w);
        done += n;
        if (n > 0 && tick->call) st = tick->call(tick->ctx, tick->before + done, tick->total);
        if (st || at == w->n) continue;
        next_batch(s, a->rows, w, &at);
        mode_backend_written(enc->be, s->lists, s->bytes);
        mode__bert_forward(enc, a, s);
        mode_results_take(s->out, 0, a->unit, (size_t)(s->n * enc->c.width) * sizeof *a->unit);
    }
    return st;
}

/* Tokens of a batch: on a CPU few enough that activations stay in its caches; on a GPU enough to occupy all SMs, in at
 * most half of the free memory. */
static size_t batch_tokens(const struct mode_text_encoder *enc)
{
    size_t n = MODE_TEXT_BATCH_TOKENS, left, total;
    if (mode_backend_is_device(enc->be)) {
        const struct mode__bert_config *c = &enc->c;
        const size_t each = (size_t)(9 * c->width + c->inner) * sizeof(float);
        mode_backend_room(enc->be, &left, &total);
        for (n *= DEVICE_BATCH; n > MODE_TEXT_BATCH_TOKENS && n * each > left / 2;) n /= 2;
    }
    return n > (size_t)enc->max_tokens ? n : (size_t)enc->max_tokens;
}

enum mode_status mode_text_encoder_encode(struct mode_text_encoder *enc, float *out, const char *const *texts, size_t n,
                                          mode_encode_tick_fn *tick, void *ctx, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    struct bert_acts a = {0};
    size_t d = (size_t)enc->c.width, max = (size_t)enc->max_tokens,
           most = mode_backend_is_device(enc->be) ? WINDOW * DEVICE_WINDOW : WINDOW, widest = n < most ? n : most;
    struct window w = {.enc = enc};
    if (n == 0) return MODE_OK;
    w.ids = malloc(widest * max * sizeof *w.ids);
    w.places = malloc(widest * sizeof *w.places);
    st = w.ids && w.places ? mode__bert_acts_open(&a, enc->be, &enc->c, batch_tokens(enc), err)
                           : MODE_FAIL(err, MODE_E_MEMORY, "text encoder: no memory for %zu texts", widest);
    for (size_t begin = 0; !st && begin < n; begin += most) {
        const struct window_tick part = {tick, ctx, begin, n};
        w.texts = texts + begin;
        w.n = n - begin < most ? n - begin : most;
        mode_parallel_for((int64_t)((w.n + TOKENIZE_BLOCK - 1) / TOKENIZE_BLOCK), tokenize_block, &w);
        qsort(w.places, w.n, sizeof *w.places, by_length);
        st = encode_window(enc, &a, out + begin * d, &w, &part);
    }
    mode__bert_acts_close(&a, enc->be);
    free(w.places);
    free(w.ids);
    return st;
}
