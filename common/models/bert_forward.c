/* The forward pass of BERT over one batch of packed sequences. */
#include "base/str.h"
#include "models/bert_impl.h"
#include "nn/ops.h"

#include <stdlib.h>
#include <string.h>

struct part {
    void *to;
    size_t bytes;
};

static size_t padded(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

/* mode_backend_alloc or mode_backend_share. */
typedef enum mode_status take_fn(struct mode_backend *be, void **data, size_t bytes, struct mode_error *err);

/* One allocation for all parts, each aligned to 64 bytes. */
static enum mode_status parts_alloc(void **block, struct mode_backend *be, take_fn *take, const struct part *parts,
                                    int n, struct mode_error *err)
{
    size_t at = 0;
    for (int i = 0; i < n; i++) at += padded(parts[i].bytes);
    enum mode_status st = take(be, block, at, err);
    at = 0;
    for (int i = 0; i < n && !st; i++) {
        void *p = (char *)*block + at;
        memcpy(parts[i].to, &p, sizeof p);
        at += padded(parts[i].bytes);
    }
    return st;
}

void mode__bert_acts_close(struct bert_acts *a, struct mode_backend *be)
{
    for (int i = 0; i < BERT_SLOTS; i++) {
        mode_results_close(&a->slot[i].out);
        mode_backend_free(be, a->slot[i].lists);
    }
    mode_backend_free(be, a->own);
    mode_backend_free(be, a->block);
}

static enum mode_status slot_open(struct bert_slot *s, struct mode_backend *be, size_t rows, size_t width,
                                  struct mode_error *err)
{
    const struct part parts[] = {{&s->ids, rows * sizeof *s->ids}, {&s->offsets, (rows + 1) * sizeof *s->offsets}};
    void *lists = NULL;
    enum mode_status st = parts_alloc(&lists, be, mode_backend_share, parts, 2, err);
    s->lists = lists;
    s->bytes = padded(parts[0].bytes) + padded(parts[1].bytes);
    return st ? st : mode_results_open(&s->out, be, rows * width * sizeof(float), err);
}

enum mode_status mode__bert_acts_open(struct bert_acts *a, struct mode_backend *be, const struct mode__bert_config *c,
                                      size_t rows, struct mode_error *err)
{
    size_t d = (size_t)c->width, inner = (size_t)c->inner, one = mode_dtype_size(mode_backend_activations(be));
    const struct part parts[] = {{&a->x, rows * d * one},
                                 {&a->y, rows * d * one},
                                 {&a->qkv, rows * 3 * d * one},
                                 {&a->attended, rows * d * one},
                                 {&a->hidden, rows * inner * one},
                                 {&a->first, rows * d * one},
                                 {&a->unit, rows * d * sizeof *a->unit},
                                 {&a->norm, rows * sizeof *a->norm}};
    void *own = NULL;
    a->rows = (int64_t)rows;
    enum mode_status st = parts_alloc(&a->block, be, mode_backend_alloc, parts, (int)(sizeof parts / sizeof *parts),
                                      err);
    if (!st) st = mode_backend_share(be, &own, (rows + 1) * sizeof *a->own, err);
    a->own = own;
    for (int i = 0; i < BERT_SLOTS && !st; i++) st = slot_open(&a->slot[i], be, rows, d, err);
    if (st) return mode_error_prefix(err, st, "text encoder: batches of %zu tokens", rows);
    for (size_t i = 0; i <= rows; i++) a->own[i] = (int32_t)i;
    mode_backend_written(be, a->own, (rows + 1) * sizeof *a->own);
    return MODE_OK;
}

static struct mode_tensor rows_of(const struct mode_text_encoder *enc, void *data, int64_t rows, int64_t cols)
{
    return mode_tensor_2d(data, mode_backend_activations(enc->be), rows, cols);
}

/* Rows [r0, r1) of a matrix, elements [r0, r1) of a vector. */
static struct mode_tensor cut(const struct mode_tensor *t, int64_t r0, int64_t r1)
{
    struct mode_tensor c = *t;
    c.data = (char *)t->data + (size_t)(r0 * (t->n_dims == 2 ? t->dim[1] : 1)) * mode_dtype_size(t->dtype);
    c.dim[0] = r1 - r0;
    return c;
}

/* x = LN(x + out(attended)); x = LN(x + proj(act(fc(x)))): BERT is post-norm. */
static void finish_layer(struct mode_text_encoder *enc, struct bert_acts *a, const struct bert_layer *w,
                         struct mode_tensor *x, const struct mode_tensor *attended)
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
static void layer_forward(struct mode_text_encoder *enc, struct bert_acts *a, const struct bert_layer *w,
                          struct mode_tensor *x, const struct mode_tensor *offsets)
{
    int64_t d = enc->c.width;
    struct mode_tensor qkv = rows_of(enc, a->qkv, x->dim[0], 3 * d), attended = rows_of(enc, a->attended, x->dim[0], d);
    struct mode_attention s = {
        .width = d, .heads = enc->c.heads, .k_at = d, .v_at = 2 * d, .q_offsets = offsets, .kv_offsets = offsets};
    mode_linear(enc->be, &qkv, x, &w->qkv_w, &w->qkv_b);
    mode_attention(enc->be, &attended, NULL, &qkv, &qkv, &s);
    finish_layer(enc, a, w, x, &attended);
}

/* The last layer for the first token of every sequence only: keys and values of all rows, queries of B rows. */
static void last_layer_forward(struct mode_text_encoder *enc, struct bert_acts *a, const struct bert_layer *w,
                               struct mode_tensor *first, const struct mode_tensor *x,
                               const struct mode_tensor *offsets)
{
    int64_t d = enc->c.width, b = first->dim[0];
    struct mode_tensor q_w = cut(&w->qkv_w, 0, d), kv_w = cut(&w->qkv_w, d, 3 * d);
    struct mode_tensor q_b = cut(&w->qkv_b, 0, d), kv_b = cut(&w->qkv_b, d, 3 * d);
    struct mode_tensor kv = rows_of(enc, a->qkv, x->dim[0], 2 * d), q = rows_of(enc, a->y, b, d),
                       attended = rows_of(enc, a->attended, b, d);
    struct mode_tensor own = mode_tensor_1d(a->own, MODE_DTYPE_I32, b + 1);
    struct mode_tensor starts = mode_tensor_1d(offsets->data, MODE_DTYPE_I32, b);
    struct mode_attention s = {.width = d, .heads = enc->c.heads, .v_at = d, .q_offsets = &own, .kv_offsets = offsets};
    mode_gather(enc->be, first, x, &starts);
    mode_linear(enc->be, &kv, x, &kv_w, &kv_b);
    mode_linear(enc->be, &q, first, &q_w, &q_b);
    mode_attention(enc->be, &attended, NULL, &q, &kv, &s);
    finish_layer(enc, a, w, first, &attended);
}

void mode__bert_forward(struct mode_text_encoder *enc, struct bert_acts *a, const struct bert_slot *s)
{
    const struct mode__bert_config *c = &enc->c;
    int64_t b = s->n, rows = s->offsets[b];
    bool whole = enc->pooling == MODE__POOLING_MEAN;
    struct mode_tensor x = rows_of(enc, a->x, rows, c->width), first = rows_of(enc, a->first, b, c->width);
    struct mode_tensor ids = mode_tensor_1d(s->ids, MODE_DTYPE_I32, rows);
    struct mode_tensor offsets = mode_tensor_1d(s->offsets, MODE_DTYPE_I32, b + 1);
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
