/* Where everything a pass needs lies: planned once, for the largest batch. The same function counts the bytes and
 * places the tensors, so the two cannot disagree. */
#include "base/str.h"
#include "models/clip_impl.h"

#include <stdlib.h>

static struct mode_tensor take(struct clip_arena *a, enum mode_dtype dtype, int n_dims, int64_t rows, int64_t cols)
{
    int64_t dim[2] = {rows, cols};
    struct mode_tensor t = mode_tensor_make(NULL, dtype, n_dims, dim);
    size_t n = (size_t)rows, bytes;
    if (n_dims == 2) a->overflow |= !mode_mul_size(n, (size_t)cols, &n);
    a->overflow |= !mode_mul_size(n, mode_dtype_size(dtype), &bytes) || bytes > SIZE_MAX / 2 - a->used;
    if (a->overflow) return t;
    if (a->base) t.data = a->base + a->used;
    a->used += (bytes + 63) / 64 * 64;
    return t;
}

static struct mode_tensor mat(struct clip_arena *a, int64_t rows, int64_t cols)
{
    return take(a, MODE_DTYPE_F32, 2, rows, cols);
}

/* An activation or the gradient of one. */
static struct mode_tensor act(struct clip_arena *a, int64_t rows, int64_t cols)
{
    return take(a, a->activations, 2, rows, cols);
}

static struct mode_tensor vec(struct clip_arena *a, int64_t n)
{
    return take(a, MODE_DTYPE_F32, 1, n, 1);
}

static struct mode_tensor doubles(struct clip_arena *a, int64_t n)
{
    struct mode_tensor t = take(a, MODE_DTYPE_F32, 1, 2 * n, 1);
    return mode_tensor_1d(t.data, MODE_DTYPE_F64, n);
}

static struct mode_tensor ints(struct clip_arena *a, int64_t n)
{
    return take(a, MODE_DTYPE_I32, 1, n, 1);
}

/* rows: of attention's input; q: rows that have a query (all, or one per sequence in a pooled last block). */
static void plan_block(struct clip_block_acts *b, struct clip_arena *a, const struct mode_clip_tower_config *t,
                       int64_t rows, int64_t q, bool pooled, bool keep)
{
    int64_t d = t->width;
    b->ln_1 = act(a, rows, d);
    if (!pooled || !keep) b->qkv = act(a, rows, 3 * d); /* inference: also the place of kv */
    b->attn = act(a, q, d);
    b->ln_2 = act(a, q, d);
    b->hidden = act(a, q, t->mlp);
    if (t->layer_scale) b->branch_1 = act(a, q, d);
    if (t->layer_scale) b->branch_2 = keep ? act(a, q, d) : b->branch_1;
    if (keep) {
        b->stats_1 = mat(a, rows, 2);
        b->lse = mat(a, q, t->heads);
        b->mid = act(a, q, d);
        b->stats_2 = mat(a, q, 2);
        b->slope = act(a, q, t->mlp);
    }
}

static void plan_tower(struct clip_tower_acts *x, struct clip_arena *a, struct clip_arena *shared,
                       const struct mode_clip *clip, const struct clip_tower *t, int64_t batch, int64_t rows, bool keep)
{
    int64_t d = t->cfg.width, e = clip->cfg.embed_dim, f = t->cfg.mlp;
    bool pooled_last = mode__clip_pooled_last(clip, t);
    x->keep = keep;
    x->checkpoint = keep && clip->checkpoint;
    x->n_blocks = keep ? t->cfg.layers : 1;
    if (!x->blocks) x->blocks = mode_xcalloc((size_t)x->n_blocks, sizeof *x->blocks);
    x->seq = ints(shared, batch + 1);
    x->x = act(a, rows, d);
    for (int64_t i = 0; i < x->n_blocks; i++) {
        struct clip_block_acts *b = &x->blocks[i];
        bool last = i == x->n_blocks - 1, pooled = last && pooled_last;
        int64_t q = pooled && keep ? batch : rows;
        if (x->checkpoint && i > 0 && !last)
            *b = x->blocks[0]; /* one block's memory for all but the last, which is used as soon as it is made */
        else
            plan_block(b, a, &t->cfg, rows, q, pooled, keep);
        if (keep) b->out = act(a, q, d);
        if (!pooled) continue;
        b->kv = keep ? act(a, rows, 2 * d) : b->qkv;
        b->ln_q = act(a, batch, d);
        b->q = act(a, batch, d);
        b->x_q = act(a, batch, d);
    }
    if (!pooled_last) x->pooled = act(a, batch, d);
    if (t->mean && !t->ln_after) x->rows_ln = act(a, rows, d);
    x->ln = act(a, batch, d);
    x->emb = act(a, batch, e);
    x->norm = vec(a, batch);
    if (!keep) return;
    if (t->mean && !t->ln_after) x->rows_stats = mat(a, rows, 2);
    x->ln_stats = mat(a, batch, 2);
    x->d_emb = act(a, batch, e);
    x->d_ln = act(a, batch, d);
    x->d_pooled = act(a, batch, d);
    x->d_q = act(a, batch, d);
    x->d_ln_q = act(a, batch, d);
    x->d_x = act(a, rows, d);
    x->d_a = act(a, rows, d);
    x->d_hidden = act(a, rows, f);
    x->d_qkv = act(a, rows, 3 * d);
    if (t->cfg.layer_scale) x->d_branch = act(a, rows, d);
}

/* Packed texts have another number of rows in every step, so that no step is the same sequence of ops as one before.
 * A few texts that nobody asked for fill up the rows to a multiple of `round`, about a 64th of the most there can be: n
 * rows and `pads` texts of at least one row become that with at most round - 1 rows more, which as many texts can take.
 */
static void plan_padding(struct clip_acts *x, const struct mode_clip *clip, bool train)
{
    int64_t t = clip->cfg.context_length, most = x->micro * t, step = (most + 63) / 64, unit = step < 128 ? 8 : 128;
    bool wanted = train && clip->pad_texts && x->micro == x->batch && !clip->group;
    x->pads = 0;
    x->round = 1;
    x->text_rows = most;
    if (!wanted || clip->dense_tokens || !clip->text.causal || t < 2) return; /* these have the same number always */
    x->round = (step + unit - 1) / unit * unit;
    x->pads = (x->round - 1 + t - 2) / (t - 1);
    x->text_rows = (most + x->pads + x->round - 1) / x->round * x->round;
}

bool mode__clip_acts_plan(struct clip_acts *x, const struct mode_clip *clip, int64_t batch, bool train, char *base,
                          char *shared)
{
    int64_t t = mode__clip_image_tokens(clip), d = clip->cfg.image.width, p = clip->cfg.patch_size;
    int64_t pieces = train ? clip->accumulate : 1, micro = batch / pieces + (batch % pieces != 0);
    int64_t e = clip->cfg.embed_dim;
    struct clip_arena *a = &x->arena, *s = &x->shared;
    x->batch = batch;
    x->micro = micro;
    *a = (struct clip_arena){.activations = clip->be ? mode_backend_activations(clip->be) : MODE_DTYPE_F32,
                             .base = base};
    *s = (struct clip_arena){.base = shared};
    if (batch < 1 || micro > INT32_MAX / clip->cfg.context_length || micro > INT32_MAX / t) return false;
    x->cols = act(a, micro * (t - 1), 3 * p * p);
    x->patch = act(a, micro * (t - 1), d);
    plan_padding(x, clip, train);
    if (x->text_rows > INT32_MAX) return false;
    const int64_t texts = micro + x->pads;
    plan_tower(&x->image, a, s, clip, &clip->image, micro, micro * t, train);
    plan_tower(&x->text, a, s, clip, &clip->text, texts, x->text_rows, train);
    x->image.offsets = ints(s, micro + 1);
    x->image.pool = ints(s, micro);
    x->lists_each = 2 * texts + 1 + x->text_rows;
    s->overflow |= x->lists_each > INT64_MAX / pieces;
    if (!s->overflow) x->lists = ints(s, pieces * x->lists_each).data;
    x->loss = doubles(s, 1).data;
    if (train) {
        x->tokens = act(a, micro * t, d);
        x->tokens_stats = mat(a, micro * t, 2);
    }
    size_t before = a->used;
    struct clip_tower_acts *towers[] = {&x->image, &x->text};
    for (int k = 0; k < 2; k++) {
        int64_t rows = batch + (k == 1 ? x->pads : 0);
        towers[k]->all = towers[k]->unit = mat(a, rows, e);
        if (train) towers[k]->d_all = towers[k]->d_unit = mat(a, rows, e);
    }
    if (micro == batch) before = a->used; /* in one piece, features are activations like others */
    if (train) {
        int64_t size = clip->group ? clip->group->size : 1, all = size * batch;
        a->overflow |= batch > INT32_MAX / size;
        x->logits = vec(a, mode_contrastive_work(batch, all));
        x->lse_row = doubles(a, batch);
        x->lse_col = doubles(a, all);
        if (clip->group) {
            x->texts = mat(a, all, e);
            x->d_texts = mat(a, all, e);
            x->lse_cols = doubles(a, size * all).data;
        }
        x->loss_bytes = a->used - before;
    }
    return !a->overflow && !s->overflow;
}

/* Lists that are the same in every step: where an image's rows begin, its pooled row, sequences of one row. */
static void fill_lists(struct clip_acts *a, int64_t image_tokens)
{
    int32_t *offsets = a->image.offsets.data, *pool = a->image.pool.data;
    struct mode_tensor *seq[] = {&a->image.seq, &a->text.seq};
    for (int64_t i = 0; i <= a->micro; i++) offsets[i] = (int32_t)(i * image_tokens);
    for (int64_t i = 0; i < a->micro; i++) pool[i] = offsets[i]; /* the class token */
    for (int k = 0; k < 2; k++)
        for (int64_t i = 0; i < seq[k]->dim[0]; i++) ((int32_t *)seq[k]->data)[i] = (int32_t)i;
}

enum mode_status mode__clip_acts_new(struct clip_acts **acts, const struct mode_clip *clip, int64_t batch, bool train,
                                     struct mode_error *err)
{
    struct clip_acts *a = *acts = mode_xcalloc(1, sizeof *a);
    void *base = NULL, *shared = NULL;
    enum mode_status st;
    if (!mode__clip_acts_plan(a, clip, batch, train, NULL, NULL))
        st = MODE_FAIL(err, MODE_E_VALUE, "a batch of %lld is out of range for this model", (long long)batch);
    else
        st = mode_backend_alloc(clip->be, &base, a->arena.used, err);
    if (!st && (st = mode_backend_alloc(clip->be, &shared, a->shared.used, err))) mode_backend_free(clip->be, base);
    if (st) {
        mode__clip_acts_free(acts, clip->be);
        return st;
    }
    (void)mode__clip_acts_plan(a, clip, batch, train, base, shared);
    fill_lists(a, mode__clip_image_tokens(clip));
    return MODE_OK;
}

void mode__clip_acts_free(struct clip_acts **acts, struct mode_backend *be)
{
    if (!*acts) return;
    mode_backend_free(be, (*acts)->arena.base);
    mode_backend_free(be, (*acts)->shared.base);
    free((*acts)->image.blocks);
    free((*acts)->text.blocks);
    free(*acts);
    *acts = NULL;
}
