/* The memory plan of activations, made once for the largest batch. The same function counts the bytes and places the
 * tensors, so the two cannot disagree.
 *
 * DESIGN: first the activations saved for the backward pass: of each block those that its policy saves. Then one region
 * that phases of a step reuse: the loss; the backward passes of the two towers, which have disjoint memory only where
 * they run concurrently (branches); and, forward and backward, what a block computes but does not save: of a locked
 * block everything (docs/decisions/0018-memory-plan.md, 0020-streams.md, 0049-locked-towers.md). */
#include "base/str.h"
#include "models/clip_impl.h"

#include <stdlib.h>
#include <string.h>

/* cuBLASLt chooses its algorithm by alignment, too: aligned alike, a GEMM has the same algorithm in every plan. */
enum { ALIGN = 256 };

static struct mode_tensor take(struct clip_arena *a, enum mode_dtype dtype, int n_dims, int64_t rows, int64_t cols)
{
    int64_t dim[2] = {rows, cols};
    struct mode_tensor t = mode_tensor_make(NULL, dtype, n_dims, dim);
    size_t n = (size_t)rows, bytes;
    if (n_dims == 2) a->overflow |= !mode_mul_size(n, (size_t)cols, &n);
    a->overflow |= !mode_mul_size(n, mode_dtype_size(dtype), &bytes) || bytes > SIZE_MAX / 2 - a->used;
    if (a->overflow) return t;
    if (a->base) t.data = a->base + a->used;
    a->used += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    return t;
}

static struct mode_tensor mat(struct clip_arena *a, int64_t rows, int64_t cols)
{
    return take(a, MODE_DTYPE_F32, 2, rows, cols);
}

/* An activation or its gradient. */
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

enum mode_clip_policy mode__clip_policy(const int64_t n[MODE_CLIP_POLICIES], int64_t layer)
{
    if (layer < n[MODE_CLIP_CHECKPOINT]) return MODE_CLIP_CHECKPOINT;
    return layer < n[MODE_CLIP_CHECKPOINT] + n[MODE_CLIP_LEAN] ? MODE_CLIP_LEAN : MODE_CLIP_KEEP;
}

struct shape {
    const struct mode_clip_tower_config *t;
    int64_t rows; /* of attention's input: keys and values */
    int64_t q;    /* rows with a query: all, or one per sequence where pooled */
    int64_t batch;
    bool pooled;
};

/* Cheap to recompute: elementwise ops and LayerNorms. */
static void place_cheap(struct clip_block_acts *b, struct clip_arena *a, const struct shape *s)
{
    b->ln_1 = act(a, s->rows, s->t->width);
    b->ln_2 = act(a, s->q, s->t->width);
    b->hidden = act(a, s->q, s->t->mlp);
}

static void place_pooled(struct clip_block_acts *b, struct clip_arena *a, const struct shape *s)
{
    int64_t d = s->t->width;
    b->ln_q = act(a, s->batch, d);
    b->q = act(a, s->batch, d);
    b->x_q = act(a, s->batch, d);
}

/* Expensive to recompute: outputs of GEMMs and attention, except the block's output. */
static void place_expensive(struct clip_block_acts *b, struct clip_arena *a, const struct shape *s)
{
    int64_t d = s->t->width;
    *(s->pooled ? &b->kv : &b->qkv) = act(a, s->rows, s->pooled ? 2 * d : 3 * d);
    b->stats_1 = mat(a, s->rows, 2);
    b->attn = act(a, s->q, d);
    b->lse = mat(a, s->q, s->t->heads);
    b->mid = act(a, s->q, d);
    b->stats_2 = mat(a, s->q, 2);
    b->z = act(a, s->q, s->t->mlp);
    if (s->t->layer_scale) b->branch_1 = act(a, s->q, d);
    if (s->t->layer_scale) b->branch_2 = act(a, s->q, d);
    if (s->pooled) place_pooled(b, a, s);
}

/* What a block saves for its backward pass. */
static void place_kept(struct clip_block_acts *b, struct clip_arena *a, const struct shape *s)
{
    if (b->policy != MODE_CLIP_CHECKPOINT) place_expensive(b, a, s);
    if (b->policy == MODE_CLIP_KEEP) place_cheap(b, a, s);
    b->out = act(a, s->q, s->t->width);
}

/* What it recomputes: all blocks share this memory. */
static void place_recomputed(struct clip_block_acts *b, struct clip_arena *a, const struct shape *s)
{
    if (b->policy == MODE_CLIP_CHECKPOINT) place_expensive(b, a, s);
    if (b->policy != MODE_CLIP_KEEP) place_cheap(b, a, s);
}

/* In inference all layers share one block's memory. */
static void place_inference(struct clip_block_acts *b, struct clip_arena *a, const struct shape *s)
{
    int64_t d = s->t->width;
    b->ln_1 = act(a, s->rows, d);
    b->kv = b->qkv = act(a, s->rows, 3 * d);
    b->attn = act(a, s->rows, d);
    b->ln_2 = act(a, s->rows, d);
    b->hidden = act(a, s->rows, s->t->mlp);
    if (s->t->layer_scale) b->branch_1 = b->branch_2 = act(a, s->rows, d);
    if (s->pooled) place_pooled(b, a, s);
}

/* As in inference, but that the first residual branch is not added in place: it would be rounded differently. */
static void place_locked(struct clip_block_acts *b, struct clip_arena *a, const struct shape *s)
{
    place_inference(b, a, s);
    b->mid = act(a, s->q, s->t->width);
}

static struct shape shape_of(const struct mode_clip *clip, const struct clip_tower *t, int64_t batch, int64_t rows,
                             int64_t layer)
{
    bool pooled = layer == t->cfg.layers - 1 && mode__clip_pooled_last(clip, t);
    return (struct shape){&t->cfg, rows, pooled ? batch : rows, batch, pooled};
}

static int64_t micro_of(const struct mode_clip *clip, int64_t batch)
{
    return batch / clip->accumulate + (batch % clip->accumulate != 0);
}

/* Packed texts have a different number of rows in every step, so no captured graph could be replayed. `pads` padding
 * texts bring the rows to a multiple of `round`, about a 64th of the maximum. Each padding text has 1 to t rows: pads
 * rows are always added, and up to round - 1 more, which are spread over them, so pads (t - 1) >= round - 1. */
static void plan_padding(struct clip_acts *x, const struct mode_clip *clip, bool train)
{
    int64_t t = clip->cfg.context_length, most = x->micro * t, step = (most + 63) / 64, unit = step < 128 ? 8 : 128;
    bool wanted = train && clip->pad_texts && x->micro == x->batch && !clip->group;
    x->pads = 0;
    x->round = 1;
    x->text_rows = most;
    if (!wanted || clip->dense_tokens || !clip->text.causal || t < 2) return; /* their number of rows is constant */
    x->round = (step + unit - 1) / unit * unit;
    x->pads = (x->round - 1 + t - 2) / (t - 1);
    x->text_rows = (most + x->pads + x->round - 1) / x->round * x->round;
}

size_t mode__clip_kept_bytes(const struct mode_clip *clip, const struct clip_tower *t, int64_t batch, int64_t layer,
                             enum mode_clip_policy policy)
{
    struct clip_acts x = {.batch = batch, .micro = micro_of(clip, batch)};
    struct clip_arena a = {.activations = mode_backend_activations(clip->be)};
    struct clip_block_acts b = {.policy = policy};
    plan_padding(&x, clip, true);
    const struct shape s = t == &clip->text
                               ? shape_of(clip, t, x.micro + x.pads, x.text_rows, layer)
                               : shape_of(clip, t, x.micro, x.micro * mode__clip_image_rows(clip, true), layer);
    place_kept(&b, &a, &s);
    return a.used;
}

static void plan_tower(struct clip_tower_acts *x, struct clip_arena *a, struct clip_arena *shared,
                       const struct mode_clip *clip, const struct clip_tower *t, int64_t batch, int64_t rows, bool keep)
{
    int64_t d = t->cfg.width, e = clip->cfg.embed_dim;
    x->keep = keep;
    x->n_blocks = keep ? t->cfg.layers : 1;
    if (!x->blocks) x->blocks = mode_xcalloc((size_t)x->n_blocks, sizeof *x->blocks);
    x->seq = ints(shared, batch + 1);
    if (!keep || mode__clip_trained_blocks(t) > 0) x->x = act(a, rows, d); /* else plan_backward */
    if (!mode__clip_pooled_last(clip, t)) x->pooled = act(a, batch, d);
    x->ln = act(a, batch, d);
    x->emb = act(a, batch, e);
    x->norm = vec(a, batch);
    if (!keep) {
        const struct shape s = {&t->cfg, rows, rows, batch, mode__clip_pooled_last(clip, t)};
        place_inference(x->blocks, a, &s);
        if (t->mean && !t->ln_after) x->rows_ln = act(a, rows, d);
        return;
    }
    if (t->mean && !t->ln_after) x->rows_stats = mat(a, rows, 2);
    x->ln_stats = mat(a, batch, 2);
}

static void plan_blocks(struct clip_acts *x, struct clip_tower_acts *to, const struct mode_clip *clip,
                        const struct clip_tower *t, const int64_t n[MODE_CLIP_POLICIES], int64_t batch, int64_t rows)
{
    const int64_t first = mode__clip_first_trained(t);
    for (int64_t i = first; i < to->n_blocks; i++) {
        const struct shape s = shape_of(clip, t, batch, rows, i);
        size_t before = x->arena.used;
        to->blocks[i].policy = mode__clip_policy(n, i - first);
        place_kept(&to->blocks[i], &x->arena, &s);
        x->kept[to->blocks[i].policy] += x->arena.used - before;
    }
}

static void furthest(size_t *end, struct clip_arena *a, size_t back_to)
{
    if (a->used > *end) *end = a->used;
    a->used = back_to;
}

/* The columns of all patches, of which the kept ones are copied. */
static void plan_all_cols(struct clip_acts *x, const struct mode_clip *clip, int64_t batch)
{
    int64_t p = clip->cfg.patch_size;
    x->cols = act(&x->arena, batch * (mode__clip_image_tokens(clip) - 1), 3 * p * p);
}

/* What the patch embedding reads. */
static void plan_inputs(struct clip_acts *x, const struct mode_clip *clip, int64_t patches)
{
    int64_t p = clip->cfg.patch_size;
    *(clip->patch_dropout > 0 ? &x->kept_cols : &x->cols) = act(&x->arena, patches, 3 * p * p);
}

static void plan_block_gradients(struct clip_tower_acts *to, struct clip_arena *a, const struct mode_clip *clip,
                                 const struct clip_tower *t, int64_t rows)
{
    int64_t d = t->cfg.width, f = t->cfg.mlp;
    to->d_x = act(a, rows, d);
    to->d_a = act(a, rows, d);
    /* d_hidden is dead when d_qkv is written, so they share memory; but with branches a weight gradient that runs
     * beside the branch still reads d_hidden, and sharing would serialise the two */
    to->d_hidden = to->d_qkv = act(a, rows, f > 3 * d ? f : 3 * d);
    if (clip->branches) to->d_qkv = act(a, rows, 3 * d);
    to->d_hidden.dim[1] = f;
    to->d_qkv.dim[1] = 3 * d;
    if (t->cfg.layer_scale) to->d_branch = act(a, rows, d);
}

/* What lives only before the first block's forward and, where it is trained, after its backward. */
static void plan_embedding(struct clip_acts *x, const struct mode_clip *clip, int64_t batch, int64_t patches,
                           size_t *end)
{
    struct clip_arena *a = &x->arena;
    const size_t begin = a->used;
    if (clip->image.locked > 0) plan_inputs(x, clip, patches);
    const size_t beyond = a->used;
    x->patch = act(a, patches, clip->cfg.image.width);
    furthest(end, a, beyond);
    if (clip->patch_dropout > 0) plan_all_cols(x, clip, batch); /* dead before patch is written */
    furthest(end, a, begin);
}

/* Gradients of activations, and beyond them what lives only between two blocks or inside one. */
static void plan_backward(struct clip_acts *x, struct clip_tower_acts *to, const struct mode_clip *clip,
                          const struct clip_tower *t, int64_t batch, int64_t rows, size_t *end)
{
    struct clip_arena *a = &x->arena;
    int64_t d = t->cfg.width, e = clip->cfg.embed_dim;
    const int64_t first = mode__clip_first_trained(t);
    const size_t begin = a->used;
    to->d_emb = act(a, batch, e);
    to->d_ln = act(a, batch, d);
    to->d_pooled = act(a, batch, d);
    to->d_q = act(a, batch, d);
    to->d_ln_q = act(a, batch, d);
    if (first == to->n_blocks)
        to->x = act(a, rows, d);
    else
        plan_block_gradients(to, a, clip, t, rows);
    const size_t beyond = a->used;
    for (int64_t i = 0; i < to->n_blocks; i++) {
        const struct shape s = shape_of(clip, t, batch, rows, i);
        (i < first ? place_locked : place_recomputed)(&to->blocks[i], a, &s);
        furthest(end, a, beyond);
    }
    if (t->mean && !t->ln_after) to->rows_ln = act(a, rows, d); /* forward, after the last block */
    furthest(end, a, beyond);
    if (to == &x->image) plan_embedding(x, clip, batch, rows - batch, end);
    furthest(end, a, begin);
}

static void plan_loss(struct clip_acts *x, const struct mode_clip *clip, int64_t batch)
{
    struct clip_arena *a = &x->arena;
    int64_t size = clip->group ? clip->group->size : 1, all = size * batch;
    a->overflow |= batch > INT32_MAX / size;
    x->logits = vec(a, mode_contrastive_work(batch, all));
    x->lse_row = doubles(a, batch);
    x->lse_col = doubles(a, all);
    if (clip->group) x->lse_cols = doubles(a, size * all).data;
}

/* Collectives overlap with the towers' ops, so their buffers are not in the reused region. */
static void plan_exchanged(struct clip_acts *x, const struct mode_clip *clip, int64_t batch)
{
    if (!clip->group || batch > INT32_MAX / clip->group->size) return; /* plan_loss sets overflow */
    x->texts = mat(&x->arena, clip->group->size * batch, clip->cfg.embed_dim);
    x->d_texts = mat(&x->arena, clip->group->size * batch, clip->cfg.embed_dim);
}

/* The two towers' backward passes run serially and share memory, or concurrently (branches); the loss precedes both. */
static void plan_turns(struct clip_acts *x, const struct mode_clip *clip)
{
    const size_t begin = x->arena.used;
    size_t end = begin;
    plan_backward(x, &x->image, clip, &clip->image, x->micro, x->micro * x->image_rows, &end);
    if (clip->branches) x->arena.used = end;
    plan_backward(x, &x->text, clip, &clip->text, x->micro + x->pads, x->text_rows, &end);
    x->arena.used = begin;
    plan_loss(x, clip, x->batch);
    furthest(&end, &x->arena, begin);
    x->turns = end - begin;
    x->arena.used = end;
}

/* Lists that the host writes: the images' offsets and pooled rows; those and the ids of every micro-batch's texts; with
 * patch dropout the kept patches of every micro-batch's images. */
static void plan_lists(struct clip_acts *x, int64_t pieces, bool drops)
{
    struct clip_arena *s = &x->shared;
    const int64_t patches = x->micro * (x->image_rows - 1);
    x->image.offsets = ints(s, x->micro + 1);
    x->image.pool = ints(s, x->micro);
    x->lists_each = 2 * (x->micro + x->pads) + 1 + x->text_rows;
    s->overflow |= x->lists_each > INT64_MAX / pieces || patches > INT64_MAX / pieces;
    if (drops && !s->overflow) x->patch_lists = ints(s, pieces * patches).data;
    if (!s->overflow) x->lists = ints(s, pieces * x->lists_each).data;
}

bool mode__clip_acts_plan(struct clip_acts *x, const struct mode_clip *clip, int64_t batch, bool train, char *base,
                          char *shared)
{
    int64_t t = mode__clip_image_rows(clip, train), d = clip->cfg.image.width, p = clip->cfg.patch_size;
    const bool drops = train && clip->patch_dropout > 0;
    int64_t pieces = train ? clip->accumulate : 1, micro = train ? micro_of(clip, batch) : batch;
    int64_t e = clip->cfg.embed_dim;
    struct clip_arena *a = &x->arena, *s = &x->shared;
    x->batch = batch;
    x->micro = micro;
    memset(x->kept, 0, sizeof x->kept);
    *a = (struct clip_arena){.activations = clip->be ? mode_backend_activations(clip->be) : MODE_DTYPE_F32,
                             .base = base};
    *s = (struct clip_arena){.base = shared};
    if (batch < 1 || micro > INT32_MAX / clip->cfg.context_length || micro > INT32_MAX / mode__clip_image_tokens(clip))
        return false;
    x->image_rows = t;
    if (train && clip->image.locked == 0) plan_inputs(x, clip, micro * (t - 1)); /* else plan_embedding */
    if (!train) x->cols = act(a, micro * (t - 1), 3 * p * p);
    plan_padding(x, clip, train);
    if (x->text_rows > INT32_MAX) return false;
    const int64_t texts = micro + x->pads;
    plan_tower(&x->image, a, s, clip, &clip->image, micro, micro * t, train);
    plan_tower(&x->text, a, s, clip, &clip->text, texts, x->text_rows, train);
    plan_lists(x, pieces, drops);
    struct clip_tower_acts *towers[] = {&x->image, &x->text};
    for (int k = 0; k < 2; k++) {
        int64_t rows = batch + (k == 1 ? x->pads : 0);
        towers[k]->all = towers[k]->unit = mat(a, rows, e);
        if (train) towers[k]->d_all = towers[k]->d_unit = mat(a, rows, e);
    }
    if (!train) {
        x->patch = act(a, micro * (t - 1), d);
        return !a->overflow && !s->overflow;
    }
    if (clip->ln_pre_w && clip->image.locked == 0) {
        x->tokens = act(a, micro * t, d);
        x->tokens_stats = mat(a, micro * t, 2);
    }
    plan_blocks(x, &x->image, clip, &clip->image, clip->kept.image, micro, micro * t);
    plan_blocks(x, &x->text, clip, &clip->text, clip->kept.text, texts, x->text_rows);
    plan_exchanged(x, clip, batch);
    plan_turns(x, clip);
    return !a->overflow && !s->overflow;
}

/* Lists that are the same in every step: the images' offsets, their pooled rows, offsets of sequences of one row. */
static void fill_lists(struct clip_acts *a)
{
    int32_t *offsets = a->image.offsets.data, *pool = a->image.pool.data;
    struct mode_tensor *seq[] = {&a->image.seq, &a->text.seq};
    for (int64_t i = 0; i <= a->micro; i++) offsets[i] = (int32_t)(i * a->image_rows);
    for (int64_t i = 0; i < a->micro; i++) pool[i] = offsets[i]; /* the class token */
    for (int k = 0; k < 2; k++)
        for (int64_t i = 0; i < seq[k]->dim[0]; i++) ((int32_t *)seq[k]->data)[i] = (int32_t)i;
}

enum mode_status mode__clip_acts_new(struct clip_acts **acts, const struct mode_clip *clip, int64_t batch, bool train,
                                     const struct clip_acts *lender, struct mode_error *err)
{
    struct clip_acts *a = *acts = mode_xcalloc(1, sizeof *a);
    void *base = NULL, *shared = NULL, *loss = NULL;
    enum mode_status st;
    if (!mode__clip_acts_plan(a, clip, batch, train, NULL, NULL))
        st = MODE_FAIL(err, MODE_E_VALUE, "a batch of %lld is out of range for this model", (long long)batch);
    else if ((a->is_lent = lender && a->arena.used <= lender->arena.used))
        st = MODE_OK;
    else
        st = mode_backend_alloc(clip->be, &base, a->arena.used, err);
    if (!st) st = mode_backend_share(clip->be, &shared, a->shared.used, err);
    if (!st) st = mode_backend_alloc(clip->be, &loss, sizeof *a->loss, err);
    if (!st && train) st = mode_results_open(&a->result, clip->be, sizeof(struct clip_step_result), err);
    if (st) {
        mode_backend_free(clip->be, loss);
        mode_backend_free(clip->be, shared);
        mode_backend_free(clip->be, base);
        mode__clip_acts_free(acts, clip->be);
        return st;
    }
    (void)mode__clip_acts_plan(a, clip, batch, train, a->is_lent ? lender->arena.base : base, shared);
    a->loss = loss;
    fill_lists(a);
    if (a->patch_lists) a->drawn = mode_xcalloc((size_t)(batch * (a->image_rows - 1)), sizeof *a->drawn);
    mode_backend_written(clip->be, shared, a->shared.used);
    mode_backend_sync(clip->be); /* the host writes texts there next */
    return MODE_OK;
}

void mode__clip_acts_free(struct clip_acts **acts, struct mode_backend *be)
{
    if (!*acts) return;
    mode_results_close(&(*acts)->result);
    if (!(*acts)->is_lent) mode_backend_free(be, (*acts)->arena.base);
    mode_backend_free(be, (*acts)->shared.base);
    mode_backend_free(be, (*acts)->loss);
    free((*acts)->image.blocks);
    free((*acts)->text.blocks);
    free((*acts)->drawn);
    free(*acts);
    *acts = NULL;
}
