/* BERT, forward.
 *
 * DESIGN: weights live in one block, query, key and value of a layer fused into one [3D, D] matrix; the one token
 * type a sentence has is folded into the position table. On a bf16 backend what products read is rounded once, when it
 * is loaded. A window of texts is tokenized in parallel, sorted by
 * (length, place) and cut into batches by a fixed rule, so the same texts always meet in the same batches. */
#include "models/bert.h"

#include "base/file.h"
#include "base/parallel.h"
#include "base/str.h"
#include "data/tokenizer.h"
#include "data/weights.h"
#include "models/bert_folder.h"
#include "tensor/half.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WINDOW = 8192, TOKENIZE_BLOCK = 64 };

struct layer {
    struct mode_tensor qkv_w, qkv_b;                         /* [3D, D], [3D] */
    struct mode_tensor out_w, out_b, out_ln_w, out_ln_b;     /* [D, D], [D] ... */
    struct mode_tensor fc_w, fc_b;                           /* [I, D], [I]   */
    struct mode_tensor proj_w, proj_b, proj_ln_w, proj_ln_b; /* [D, I], [D] ... */
};

struct mode_text_encoder {
    struct mode_backend *be;
    struct mode__bert_config c;
    enum mode__pooling pooling;
    int max_tokens;
    char id[MODE_ENCODER_ID];
    struct mode_tokenizer *tokenizer;
    float *weights; /* the block all tensors below point into */
    size_t n_weights, used;
    uint16_t *copies; /* bf16 backend: the tensors that products read point in here instead */
    struct mode_tensor words, positions, ln_w, ln_b; /* [V, D], [P, D], [D], [D] */
    struct layer *layers;
    struct mode_tensor pooler_w, pooler_b; /* [D, D], [D]; only when pooling needs it */
};

/* ---- loading --------------------------------------------------------------------------------------------- */

struct loader {
    struct mode_text_encoder *enc;
    struct mode_weights file;
    const char *path, *prefix; /* prefix: "" or "bert." */
};

/* Copy tensor <prefix><name> of shape [rows, cols] (cols 0: [rows]) to `to`. */
static enum mode_status copy_tensor(struct loader *l, float *to, const char *name, int64_t rows, int64_t cols,
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
    struct layer *y = &l->enc->layers[i];
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
    if (!st) st = load_matrix(l, &enc->positions, "embeddings.position_embeddings.weight", c->positions, d, err);
    if (!st) st = copy_tensor(l, types, "embeddings.token_type_embeddings.weight", c->types, d, err);
    if (!st) st = load_vector(l, &enc->ln_w, "embeddings.LayerNorm.weight", d, err);
    if (!st) st = load_vector(l, &enc->ln_b, "embeddings.LayerNorm.bias", d, err);
    for (int64_t i = 0; !st && i < c->positions * d; i++) mode_f32(&enc->positions)[i] += types[i % d];
    free(types);
    return st;
}

/* Let t point to a rounded copy of itself at *to. */
static void round_tensor(struct mode_tensor *t, uint16_t **to)
{
    int64_t n = mode_tensor_count(t);
    for (int64_t i = 0; i < n; i++) (*to)[i] = mode_f32_to_bf16(mode_f32(t)[i]);
    t->data = *to;
    t->dtype = MODE_DTYPE_BF16;
    *to += (n + 31) / 32 * 32;
}

static enum mode_status round_operands(struct mode_text_encoder *enc, bool has_pooler, struct mode_error *err)
{
    void *memory;
    size_t room = (enc->n_weights + (size_t)(8 * enc->c.layers + 2) * 32) * sizeof *enc->copies;
    enum mode_status st = mode_backend_alloc(enc->be, &memory, room, err);
    if (st) return st;
    uint16_t *to = enc->copies = memory;
    for (int64_t i = 0; i < enc->c.layers; i++) {
        struct layer *y = &enc->layers[i];
        struct mode_tensor *const read[] = {&y->qkv_w, &y->qkv_b, &y->out_w,  &y->out_b,
                                            &y->fc_w,  &y->fc_b,  &y->proj_w, &y->proj_b};
        for (size_t k = 0; k < sizeof read / sizeof *read; k++) round_tensor(read[k], &to);
    }
    if (has_pooler) round_tensor(&enc->pooler_w, &to);
    if (has_pooler) round_tensor(&enc->pooler_b, &to);
    return MODE_OK;
}

static enum mode_status load_weights(struct mode_text_encoder *enc, const char *dir, struct mode_error *err)
{
    const struct mode__bert_config *c = &enc->c;
    int64_t d = c->width;
    char *path = mode__bert_weights(dir), name[64];
    struct loader l = {.enc = enc, .path = path, .prefix = ""};
    bool has_pooler = enc->pooling == MODE__POOLING_POOLER;
    enum mode_status st = mode_weights_open(&l.file, path, err);
    if (st) goto out;
    if (!mode_weights_find(&l.file, "embeddings.word_embeddings.weight")) l.prefix = "bert.";
    snprintf(name, sizeof name, "%sencoder.layer.%" PRId64 ".output.dense.weight", l.prefix, c->layers);
    if (mode_weights_find(&l.file, name)) {
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: holds %s, config.json says that there are %" PRId64 " layers", path,
                       name, c->layers);
        goto out;
    }
    /* every size is capped by config.json's checks: no product below can overflow */
    enc->n_weights = (size_t)((c->vocab + c->positions + 2) * d +
                              c->layers * (4 * d * d + 9 * d + 2 * d * c->inner + c->inner) +
                              (has_pooler ? d * d + d : 0));
    if (enc->n_weights > l.file.bytes) { /* no dtype takes less than two bytes, and all of it must be in the file */
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: %zu bytes cannot hold the %zu weights config.json speaks of", path,
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
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: the tokenizer has %d ids, the model knows %" PRId64, dir,
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

const char *mode_text_encoder_pooling(const struct mode_text_encoder *enc)
{
    return mode__pooling_name(enc->pooling);
}

int mode_text_encoder_max_tokens(const struct mode_text_encoder *enc)
{
    return enc->max_tokens;
}

/* ---- forward --------------------------------------------------------------------------------------------- */

/* Activations of one batch: R packed rows, B sequences. */
struct acts {
    void *block;
    char *x, *y, *qkv, *attended, *hidden,
        *first;                   /* [R, D], [R, D], [R, 3D], [R, D], [R, I], [B, D]: as be stores them */
    float *unit, *norm;           /* [B, D], [B] */
    int32_t *ids, *offsets, *own; /* [R], [B + 1]; own: 0, 1, ... B for sequences of one row */
};

static enum mode_status acts_open(struct acts *a, struct mode_backend *be, const struct mode__bert_config *c,
                                  size_t rows, size_t sequences, struct mode_error *err)
{
    size_t d = (size_t)c->width, inner = (size_t)c->inner, one = mode_dtype_size(mode_backend_activations(be)), at = 0;
    const struct {
        void *to;
        size_t bytes;
    } parts[] = {{&a->x, rows * d * one},
                 {&a->y, rows * d * one},
                 {&a->qkv, rows * 3 * d * one},
                 {&a->attended, rows * d * one},
                 {&a->hidden, rows * inner * one},
                 {&a->first, sequences * d * one},
                 {&a->unit, sequences * d * sizeof *a->unit},
                 {&a->norm, sequences * sizeof *a->norm},
                 {&a->ids, rows * sizeof *a->ids},
                 {&a->offsets, (sequences + 1) * sizeof *a->offsets},
                 {&a->own, (sequences + 1) * sizeof *a->own}};
    enum { N_PARTS = sizeof parts / sizeof *parts };
    for (size_t i = 0; i < N_PARTS; i++) at += (parts[i].bytes + 63) / 64 * 64;
    enum mode_status st = mode_backend_alloc(be, &a->block, at, err);
    if (st) return mode_error_prefix(err, st, "text encoder: batches of %zu tokens", rows);
    at = 0;
    for (size_t i = 0; i < N_PARTS; i++) {
        void *p = (char *)a->block + at;
        memcpy(parts[i].to, &p, sizeof p);
        at += (parts[i].bytes + 63) / 64 * 64;
    }
    for (size_t i = 0; i <= sequences; i++) a->own[i] = (int32_t)i;
    return MODE_OK;
}

static struct mode_tensor rows_of(const struct mode_text_encoder *enc, void *data, int64_t rows, int64_t cols)
{
    return mode_tensor_2d(data, mode_backend_activations(enc->be), rows, cols);
}

/* Rows r0..r1 of a matrix, numbers r0..r1 of a vector. */
static struct mode_tensor cut(const struct mode_tensor *t, int64_t r0, int64_t r1)
{
    struct mode_tensor c = *t;
    c.data = (char *)t->data + (size_t)(r0 * (t->n_dims == 2 ? t->dim[1] : 1)) * mode_dtype_size(t->dtype);
    c.dim[0] = r1 - r0;
    return c;
}

/* x = LN(x + out(attended)); x = LN(x + proj(act(fc(x)))): BERT normalises after each residual. */
static void finish_layer(struct mode_text_encoder *enc, struct acts *a, const struct layer *w, struct mode_tensor *x,
                         const struct mode_tensor *attended)
{
    struct mode_tensor y = rows_of(enc, a->y, x->dim[0], enc->c.width),
                       hidden = rows_of(enc, a->hidden, x->dim[0], enc->c.inner);
    mode_linear_add(enc->be, &y, attended, &w->out_w, &w->out_b, x);
    mode_layernorm(enc->be, x, NULL, &y, &w->out_ln_w, &w->out_ln_b, enc->c.eps);
    mode_linear_act(enc->be, &hidden, NULL, x, &w->fc_w, &w->fc_b, enc->c.act);
    mode_linear_add(enc->be, &y, &hidden, &w->proj_w, &w->proj_b, x);
    mode_layernorm(enc->be, x, NULL, &y, &w->proj_ln_w, &w->proj_ln_b, enc->c.eps);
}

/* Every row of the batch through one layer, in place. */
static void layer_forward(struct mode_text_encoder *enc, struct acts *a, const struct layer *w, struct mode_tensor *x,
                          const struct mode_tensor *offsets)
{
    int64_t d = enc->c.width;
    struct mode_tensor qkv = rows_of(enc, a->qkv, x->dim[0], 3 * d), attended = rows_of(enc, a->attended, x->dim[0], d);
    struct mode_attention s = {
        .width = d, .heads = enc->c.heads, .k_at = d, .v_at = 2 * d, .q_offsets = offsets, .kv_offsets = offsets};
    mode_linear(enc->be, &qkv, x, &w->qkv_w, &w->qkv_b);
    mode_attention(enc->be, &attended, NULL, &qkv, &qkv, &s);
    finish_layer(enc, a, w, x, &attended);
}

/* The last layer for the first token of every sequence only: all rows give keys and values, B rows ask. */
static void last_layer_forward(struct mode_text_encoder *enc, struct acts *a, const struct layer *w,
                               struct mode_tensor *first, const struct mode_tensor *x,
                               const struct mode_tensor *offsets)
{
    int64_t d = enc->c.width, b = first->dim[0];
    struct mode_tensor q_w = cut(&w->qkv_w, 0, d), kv_w = cut(&w->qkv_w, d, 3 * d);
    struct mode_tensor q_b = cut(&w->qkv_b, 0, d), kv_b = cut(&w->qkv_b, d, 3 * d);
    struct mode_tensor kv = rows_of(enc, a->qkv, x->dim[0], 2 * d), q = rows_of(enc, a->y, b, d),
                       attended = rows_of(enc, a->attended, b, d);
    struct mode_tensor own = mode_tensor_1d(a->own, MODE_DTYPE_I32, b + 1);
    struct mode_tensor starts = mode_tensor_1d(a->offsets, MODE_DTYPE_I32, b);
    struct mode_attention s = {.width = d, .heads = enc->c.heads, .v_at = d, .q_offsets = &own, .kv_offsets = offsets};
    mode_gather(enc->be, first, x, &starts);
    mode_linear(enc->be, &kv, x, &kv_w, &kv_b);
    mode_linear(enc->be, &q, first, &q_w, &q_b);
    mode_attention(enc->be, &attended, NULL, &q, &kv, &s);
    finish_layer(enc, a, w, first, &attended);
}

/* a->ids and a->offsets of b sequences -> a->unit [b, D]. */
static void forward(struct mode_text_encoder *enc, struct acts *a, int64_t b)
{
    const struct mode__bert_config *c = &enc->c;
    int64_t rows = a->offsets[b];
    bool whole = enc->pooling == MODE__POOLING_MEAN;
    struct mode_tensor x = rows_of(enc, a->x, rows, c->width), first = rows_of(enc, a->first, b, c->width);
    struct mode_tensor ids = mode_tensor_1d(a->ids, MODE_DTYPE_I32, rows);
    struct mode_tensor offsets = mode_tensor_1d(a->offsets, MODE_DTYPE_I32, b + 1);
    struct mode_tensor norm = mode_tensor_1d(a->norm, MODE_DTYPE_F32, b);
    struct mode_tensor unit = mode_tensor_2d(a->unit, MODE_DTYPE_F32, b, c->width);
    mode_embed(enc->be, &x, &enc->words, &enc->positions, &ids, &offsets);
    mode_layernorm(enc->be, &x, NULL, &x, &enc->ln_w, &enc->ln_b, c->eps);
    for (int64_t i = 0; i < c->layers - !whole; i++) layer_forward(enc, a, &enc->layers[i], &x, &offsets);
    if (whole)
        mode_mean_rows(enc->be, &first, &x, &offsets, 0);
    else
        last_layer_forward(enc, a, &enc->layers[c->layers - 1], &first, &x, &offsets);
    if (enc->pooling == MODE__POOLING_POOLER) {
        struct mode_tensor y = rows_of(enc, a->y, b, c->width);
        mode_linear_act(enc->be, &y, NULL, &first, &enc->pooler_w, &enc->pooler_b, MODE_ACT_TANH);
        mode_l2norm(enc->be, &unit, &norm, &y);
    } else
        mode_l2norm(enc->be, &unit, &norm, &first);
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

/* Fill a with sequences from *at on, as many as the budget of tokens takes; returns how many. */
static int64_t next_batch(struct acts *a, const struct window *w, size_t *at)
{
    int64_t b = 0;
    a->offsets[0] = 0;
    while (*at < w->n) {
        struct place p = w->places[*at];
        if (b > 0 && a->offsets[b] + p.length > MODE_TEXT_BATCH_TOKENS) break;
        memcpy(a->ids + a->offsets[b], w->ids + (size_t)p.index * (size_t)w->enc->max_tokens,
               (size_t)p.length * sizeof *a->ids);
        a->offsets[b + 1] = a->offsets[b] + p.length;
        b++;
        ++*at;
    }
    return b;
}

enum mode_status mode_text_encoder_encode(struct mode_text_encoder *enc, float *out, const char *const *texts, size_t n,
                                          mode_encode_tick_fn *tick, void *ctx, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    struct acts a = {0};
    size_t d = (size_t)enc->c.width, max = (size_t)enc->max_tokens, widest = n < WINDOW ? n : WINDOW;
    size_t rows = max > MODE_TEXT_BATCH_TOKENS ? max : MODE_TEXT_BATCH_TOKENS;
    struct window w = {.enc = enc};
    if (n == 0) return MODE_OK;
    w.ids = malloc(widest * max * sizeof *w.ids);
    w.places = malloc(widest * sizeof *w.places);
    st = w.ids && w.places ? acts_open(&a, enc->be, &enc->c, rows, MODE_TEXT_BATCH_TOKENS, err)
                           : MODE_FAIL(err, MODE_E_MEMORY, "text encoder: no memory for %zu texts", widest);
    for (size_t begin = 0; !st && begin < n; begin += WINDOW) {
        w.texts = texts + begin;
        w.n = n - begin < WINDOW ? n - begin : WINDOW;
        mode_parallel_for((int64_t)((w.n + TOKENIZE_BLOCK - 1) / TOKENIZE_BLOCK), tokenize_block, &w);
        qsort(w.places, w.n, sizeof *w.places, by_length);
        for (size_t at = 0; !st && at < w.n;) {
            size_t from = at;
            int64_t b = next_batch(&a, &w, &at);
            forward(enc, &a, b);
            mode_backend_sync(enc->be);
            for (size_t i = 0; i < (size_t)b; i++)
                memcpy(out + (begin + (size_t)w.places[from + i].index) * d, a.unit + i * d, d * sizeof *out);
            if (tick) st = tick(ctx, begin + at, n);
        }
    }
    mode_backend_free(enc->be, a.block);
    free(w.places);
    free(w.ids);
    return st;
}
