/* Forward and backward of the two towers, written as in the paper; the memory plan is clip_acts.c. */
#include "models/clip_impl.h"
#include "models/patch_dropout.h"

#include <string.h>

static struct mode_tensor with_rows(struct mode_tensor t, int64_t rows)
{
    t.dim[0] = rows;
    return t;
}

/* Rows [r0, r1) of a weight or bias, of its value or its gradient. */
static struct mode_tensor cut(const struct mode_tensor *t, int64_t r0, int64_t r1)
{
    struct mode_tensor c = *t;
    c.data = (char *)t->data + (size_t)(r0 * (t->n_dims == 2 ? t->dim[1] : 1)) * mode_dtype_size(t->dtype);
    c.dim[0] = r1 - r0;
    return c;
}

/* A lone query is not masked. The pooled row of a padded causal text is not its last one, so it would see keys that the
 * causal mask hides from it. */
bool mode__clip_pooled_last(const struct mode_clip *clip, const struct clip_tower *t)
{
    return !clip->full_last_block && !t->mean && !(t->causal && clip->dense_tokens);
}

static bool is_pooled(const struct mode_clip *clip, const struct clip_tower *t, int64_t layer)
{
    return layer == t->cfg.layers - 1 && mode__clip_pooled_last(clip, t);
}

/* Are this block's activations saved for its backward pass, or recomputed? */
static bool saves(const struct clip_tower *t, const struct clip_tower_acts *a, int64_t layer)
{
    return a->keep && layer >= mode__clip_first_trained(t);
}

/* A layer's activations, with the rows in use now; in inference, and where they are locked, layers replace x. */
static struct clip_block_acts layer_acts(const struct mode_clip *clip, const struct clip_tower *t,
                                         const struct clip_tower_acts *a, int64_t layer)
{
    struct clip_block_acts v = a->blocks[a->keep ? layer : 0];
    bool pooled = is_pooled(clip, t, layer);
    int64_t r = a->rows, q = pooled ? a->seqs : r;
    if (!saves(t, a, layer)) v.out = pooled ? v.x_q : a->x;
    if (!a->keep) v.mid = v.out;
    v.ln_1 = with_rows(v.ln_1, r);
    v.qkv = with_rows(v.qkv, r);
    v.stats_1 = with_rows(v.stats_1, r);
    v.attn = with_rows(v.attn, q);
    v.lse = with_rows(v.lse, q);
    v.mid = with_rows(v.mid, q);
    v.ln_2 = with_rows(v.ln_2, q);
    v.stats_2 = with_rows(v.stats_2, q);
    v.hidden = with_rows(v.hidden, q);
    v.z = with_rows(v.z, q);
    v.out = with_rows(v.out, q);
    v.branch_1 = with_rows(v.branch_1, q);
    v.branch_2 = with_rows(v.branch_2, q);
    if (pooled) {
        v.kv = with_rows(v.kv, r);
        v.kv.dim[1] = 2 * t->cfg.width;
        v.ln_q = with_rows(v.ln_q, q);
        v.q = with_rows(v.q, q);
        v.x_q = with_rows(v.x_q, q);
    }
    return v;
}

static struct mode_attention attention_of(const struct mode_clip *clip, const struct clip_tower *t,
                                          const struct clip_tower_acts *a, bool pooled)
{
    int64_t d = t->cfg.width, longest = t == &clip->text ? clip->cfg.context_length : a->rows / a->seqs;
    if (pooled) /* no mask: the pooled token is its text's last row, or the tower is not causal */
        return (struct mode_attention){d, t->cfg.heads, 0, 0, d, false, &a->seq, &a->offsets, longest};
    return (struct mode_attention){d, t->cfg.heads, 0, d, 2 * d, t->causal, &a->offsets, &a->offsets, longest};
}

/* y = add + ls * (x w^T + b); branch receives x w^T + b. Without LayerScale (ls NULL): y = add + x w^T + b. */
static void branch_forward(struct mode_backend *be, struct mode_tensor *y, struct mode_tensor *branch,
                           const struct mode_tensor *x, const struct mode_param *w, const struct mode_param *b,
                           const struct mode_param *ls, const struct mode_tensor *add)
{
    if (!ls) {
        mode_linear_add(be, y, x, &w->operand, &b->operand, add);
        return;
    }
    mode_linear(be, branch, x, &w->operand, &b->operand);
    mode_scale(be, y, branch, &ls->value, add);
}

/* The gradient of x w^T + b from d, that of y: in room, or without LayerScale d itself. */
static const struct mode_tensor *branch_back(struct mode_backend *be, struct mode_tensor *room,
                                             const struct mode_tensor *d, const struct mode_tensor *branch,
                                             struct mode_param *ls)
{
    if (!ls) return d;
    mode_scale_back(be, room, &ls->grad, d, branch, &ls->value);
    return room;
}

/* x -> v->out. saved: with what the backward pass needs. recompute: v->out is saved already; compute the rest. */
static void block_forward(struct mode_clip *clip, const struct clip_tower *t, const struct clip_tower_acts *a,
                          const struct clip_block *w, struct clip_block_acts *v, const struct mode_tensor *x,
                          bool pooled, bool saved, bool recompute)
{
    struct mode_backend *be = clip->be;
    struct mode_attention s = attention_of(clip, t, a, pooled);
    struct mode_tensor *stats_1 = saved ? &v->stats_1 : NULL, *stats_2 = saved ? &v->stats_2 : NULL;
    struct mode_tensor *lse = saved ? &v->lse : NULL, *z = saved ? &v->z : NULL;
    int64_t d = t->cfg.width;
    mode_layernorm(be, &v->ln_1, stats_1, x, &w->ln_1_w->value, &w->ln_1_b->value, t->cfg.ln_eps);
    if (pooled) { /* keys and values for all rows, the rest for the pooled ones */
        struct mode_tensor wq = cut(&w->qkv_w->operand, 0, d), bq = cut(&w->qkv_b->operand, 0, d);
        struct mode_tensor wkv = cut(&w->qkv_w->operand, d, 3 * d), bkv = cut(&w->qkv_b->operand, d, 3 * d);
        mode_linear(be, &v->kv, &v->ln_1, &wkv, &bkv);
        mode_gather(be, &v->ln_q, &v->ln_1, &a->pool);
        mode_gather(be, &v->x_q, x, &a->pool);
        mode_linear(be, &v->q, &v->ln_q, &wq, &bq);
        mode_attention(be, &v->attn, lse, &v->q, &v->kv, &s);
        x = &v->x_q;
    } else {
        mode_linear(be, &v->qkv, &v->ln_1, &w->qkv_w->operand, &w->qkv_b->operand);
        mode_attention(be, &v->attn, lse, &v->qkv, &v->qkv, &s);
    }
    branch_forward(be, &v->mid, &v->branch_1, &v->attn, w->out_w, w->out_b, w->ls_1, x);
    mode_layernorm(be, &v->ln_2, stats_2, &v->mid, &w->ln_2_w->value, &w->ln_2_b->value, t->cfg.ln_eps);
    mode_linear_act(be, &v->hidden, z, &v->ln_2, &w->fc_w->operand, &w->fc_b->operand, t->cfg.act);
    if (!recompute || w->ls_2)
        branch_forward(be, &v->out, &v->branch_2, &v->hidden, w->proj_w, w->proj_b, w->ls_2, &v->mid);
}

/* Recompute what the block's policy did not save: the same ops on the same values, so the result is bit-identical. */
static void block_recompute(struct mode_clip *clip, const struct clip_tower *t, const struct clip_tower_acts *a,
                            const struct clip_block *w, struct clip_block_acts *v, const struct mode_tensor *x,
                            bool pooled)
{
    struct mode_backend *be = clip->be;
    if (v->policy == MODE_CLIP_CHECKPOINT) block_forward(clip, t, a, w, v, x, pooled, true, true);
    if (v->policy != MODE_CLIP_LEAN) return;
    mode_layernorm(be, &v->ln_1, &v->stats_1, x, &w->ln_1_w->value, &w->ln_1_b->value, t->cfg.ln_eps);
    mode_layernorm(be, &v->ln_2, &v->stats_2, &v->mid, &w->ln_2_w->value, &w->ln_2_b->value, t->cfg.ln_eps);
    mode_activate(be, &v->hidden, &v->z, t->cfg.act);
}

/* d: gradient of the block's output on entry; a->d_x: gradient of x on return (d may be a->d_x, and is overwritten). */
static void block_back(struct mode_clip *clip, const struct clip_tower *t, struct clip_tower_acts *a,
                       const struct clip_block *w, struct clip_block_acts *v, const struct mode_tensor *x,
                       struct mode_tensor *d, bool pooled)
{
    struct mode_backend *be = clip->be;
    struct mode_attention s = attention_of(clip, t, a, pooled);
    int64_t n = t->cfg.width, r = a->rows, q = pooled ? a->seqs : r;
    struct mode_tensor d_hidden = with_rows(a->d_hidden, q), room = with_rows(a->d_branch, q);
    struct mode_tensor d_q_rows = with_rows(a->d_a, q), d_a = with_rows(a->d_a, r);
    const struct mode_tensor *dy = branch_back(be, &room, d, &v->branch_2, w->ls_2);
    mode_linear_back_act(be, &d_hidden, &w->proj_w->grad, &w->proj_b->grad, dy, &v->hidden, &w->proj_w->operand, &v->z,
                         t->cfg.act);
    mode_linear_back(be, &d_q_rows, &w->fc_w->grad, &w->fc_b->grad, &d_hidden, &v->ln_2, &w->fc_w->operand);
    mode_layernorm_back(be, d, &w->ln_2_w->grad, &w->ln_2_b->grad, &d_q_rows, &v->mid, &v->stats_2, &w->ln_2_w->value,
                        d);
    dy = branch_back(be, &room, d, &v->branch_1, w->ls_1);
    mode_linear_back(be, &d_q_rows, &w->out_w->grad, &w->out_b->grad, dy, &v->attn, &w->out_w->operand);
    if (!pooled) {
        struct mode_tensor d_qkv = with_rows(a->d_qkv, r);
        mode_attention_back(be, &d_qkv, &d_qkv, &d_a, &v->attn, &v->lse, &v->qkv, &v->qkv, &s);
        mode_linear_back(be, &d_a, &w->qkv_w->grad, &w->qkv_b->grad, &d_qkv, &v->ln_1, &w->qkv_w->operand);
        mode_layernorm_back(be, &a->d_x, &w->ln_1_w->grad, &w->ln_1_b->grad, &d_a, x, &v->stats_1, &w->ln_1_w->value,
                            d);
        return;
    }
    struct mode_tensor wq = cut(&w->qkv_w->operand, 0, n), wkv = cut(&w->qkv_w->operand, n, 3 * n);
    struct mode_tensor d_wq = cut(&w->qkv_w->grad, 0, n), d_wkv = cut(&w->qkv_w->grad, n, 3 * n);
    struct mode_tensor d_bq = cut(&w->qkv_b->grad, 0, n), d_bkv = cut(&w->qkv_b->grad, n, 3 * n);
    struct mode_tensor d_q = with_rows(a->d_q, q), d_ln_q = with_rows(a->d_ln_q, q), d_kv = with_rows(a->d_qkv, r);
    d_kv.dim[1] = 2 * n;
    mode_attention_back(be, &d_q, &d_kv, &d_q_rows, &v->attn, &v->lse, &v->q, &v->kv, &s);
    mode_linear_back(be, &d_a, &d_wkv, &d_bkv, &d_kv, &v->ln_1, &wkv);
    mode_linear_back(be, &d_ln_q, &d_wq, &d_bq, &d_q, &v->ln_q, &wq);
    mode_scatter_add(be, &d_a, &d_ln_q, &a->pool);
    mode_layernorm_back(be, &a->d_x, &w->ln_1_w->grad, &w->ln_1_b->grad, &d_a, x, &v->stats_1, &w->ln_1_w->value, NULL);
    mode_scatter_add(be, &a->d_x, d, &a->pool);
}

/* Set the sizes of a pass whose features are rows `first` on of `all`; offsets and pool are filled already. */
static void tower_begin(struct clip_tower_acts *a, int64_t rows, int64_t seqs, int64_t first)
{
    struct mode_tensor *by_seq[] = {&a->pooled, &a->ln,     &a->ln_stats, &a->emb,  &a->unit,
                                    &a->norm,   &a->d_unit, &a->d_emb,    &a->d_ln, &a->d_pooled};
    a->rows = rows;
    a->seqs = seqs;
    for (size_t i = 0; i < sizeof by_seq / sizeof *by_seq; i++) by_seq[i]->dim[0] = seqs;
    a->offsets.dim[0] = a->seq.dim[0] = seqs + 1;
    a->pool.dim[0] = seqs;
    a->x.dim[0] = a->d_x.dim[0] = a->rows_ln.dim[0] = a->rows_stats.dim[0] = rows;
    a->unit.data = mode_f32(&a->all) + first * a->all.dim[1];
    if (a->keep) a->d_unit.data = mode_f32(&a->d_all) + first * a->all.dim[1];
}

/* The final LayerNorm and the pooling of x, in the model's order: a->ln [B, D]. */
static void pool_forward(struct mode_clip *clip, const struct clip_tower *t, struct clip_tower_acts *a,
                         const struct mode_tensor *x)
{
    struct mode_backend *be = clip->be;
    if (t->mean && !t->ln_after) {
        mode_layernorm(be, &a->rows_ln, a->keep ? &a->rows_stats : NULL, x, &t->ln_w->value, &t->ln_b->value,
                       t->cfg.ln_eps);
        mode_mean_rows(be, &a->ln, &a->rows_ln, &a->offsets, 1);
        return;
    }
    if (t->mean)
        mode_mean_rows(be, &a->pooled, x, &a->offsets, 1);
    else if (mode__clip_pooled_last(clip, t))
        a->pooled = *x;
    else
        mode_gather(be, &a->pooled, x, &a->pool);
    mode_layernorm(be, &a->ln, a->keep ? &a->ln_stats : NULL, &a->pooled, &t->ln_w->value, &t->ln_b->value,
                   t->cfg.ln_eps);
}

/* a->d_ln -> a->d_pooled if the last block computes only pooled rows, else a->d_x. x: as in the forward pass. */
static void pool_back(struct mode_clip *clip, const struct clip_tower *t, struct clip_tower_acts *a,
                      const struct mode_tensor *x)
{
    struct mode_backend *be = clip->be;
    if (t->mean && !t->ln_after) {
        struct mode_tensor d_rows = with_rows(a->d_a, a->rows);
        mode_mean_rows_back(be, &d_rows, &a->d_ln, &a->offsets, 1);
        mode_layernorm_back(be, &a->d_x, &t->ln_w->grad, &t->ln_b->grad, &d_rows, x, &a->rows_stats, &t->ln_w->value,
                            NULL);
        return;
    }
    mode_layernorm_back(be, &a->d_pooled, &t->ln_w->grad, &t->ln_b->grad, &a->d_ln, &a->pooled, &a->ln_stats,
                        &t->ln_w->value, NULL);
    if (t->mean) {
        mode_mean_rows_back(be, &a->d_x, &a->d_pooled, &a->offsets, 1);
    } else if (!mode__clip_pooled_last(clip, t)) {
        mode_zero(be, &a->d_x);
        mode_scatter_add(be, &a->d_x, &a->d_pooled, &a->pool);
    }
}

/* a->x -> a->emb and a->unit */
static void tower_forward(struct mode_clip *clip, const struct clip_tower *t, struct clip_tower_acts *a)
{
    struct mode_backend *be = clip->be;
    struct mode_tensor x = a->x;
    mode_backend_narrow(be, true);
    for (int64_t i = 0; i < t->cfg.layers; i++) {
        struct clip_block_acts v = layer_acts(clip, t, a, i);
        block_forward(clip, t, a, &t->blocks[i], &v, &x, is_pooled(clip, t, i), saves(t, a, i), false);
        x = v.out;
    }
    mode_backend_narrow(be, false);
    pool_forward(clip, t, a, &x);
    if (t->proj)
        mode_project(be, &a->emb, &a->ln, &t->proj->operand);
    else if (t->proj_w)
        mode_linear(be, &a->emb, &a->ln, &t->proj_w->operand, &t->proj_b->operand);
    else
        a->emb = a->ln;
    mode_l2norm(be, &a->unit, &a->norm, &a->emb);
}

/* a->d_unit -> a->d_x, as far down as the tower is trained */
static void tower_back(struct mode_clip *clip, const struct clip_tower *t, struct clip_tower_acts *a)
{
    struct mode_backend *be = clip->be;
    const int64_t first = mode__clip_first_trained(t);
    if (!mode__clip_is_trained(t)) return;
    struct mode_tensor *d_emb = t->proj || t->proj_w ? &a->d_emb : &a->d_ln;
    mode_l2norm_back(be, d_emb, &a->d_unit, &a->unit, &a->norm);
    if (t->proj)
        mode_project_back(be, &a->d_ln, &t->proj->grad, &a->d_emb, &a->ln, &t->proj->operand);
    else if (t->proj_w)
        mode_linear_back(be, &a->d_ln, &t->proj_w->grad, &t->proj_b->grad, &a->d_emb, &a->ln, &t->proj_w->operand);
    mode__clip_made(clip, t->proj, 1);
    mode__clip_made(clip, t->proj_w, 2);
    mode_backend_narrow(be, true);
    for (int64_t i = t->cfg.layers - 1; i >= first; i--) {
        struct clip_block_acts v = layer_acts(clip, t, a, i);
        struct mode_tensor x = i == first ? a->x : layer_acts(clip, t, a, i - 1).out;
        bool pooled = is_pooled(clip, t, i);
        if (i == t->cfg.layers - 1) {
            pool_back(clip, t, a, &v.out);
            mode__clip_made(clip, t->ln_w, 2);
        }
        block_recompute(clip, t, a, &t->blocks[i], &v, &x, pooled);
        block_back(clip, t, a, &t->blocks[i], &v, &x, pooled ? &a->d_pooled : &a->d_x, pooled);
        mode__clip_made(clip, t->blocks[i].ln_1_w, mode__clip_block_params(&t->blocks[i]));
    }
    mode_backend_narrow(be, false);
}

/* The patch embedding's weight or gradient as a matrix [D, 3 p p]. */
static struct mode_tensor conv_matrix(const struct mode_tensor *t)
{
    return mode_tensor_2d(t->data, t->dtype, t->dim[0], mode_tensor_count(t) / t->dim[0]);
}

void mode__clip_image_begin(struct mode_clip *clip, struct clip_acts *a, int64_t piece,
                            const struct clip_images *images, int64_t b)
{
    int64_t n = a->image_rows, s = clip->cfg.image_size;
    tower_begin(&a->image, b * n, b, piece * a->micro);
    a->cols.dim[0] = b * (mode__clip_image_tokens(clip) - 1);
    a->patch.dim[0] = a->kept_cols.dim[0] = b * (n - 1);
    if (a->patch_lists)
        a->kept_rows = mode_tensor_1d(a->patch_lists + piece * a->micro * (n - 1), MODE_DTYPE_I32, b * (n - 1));
    a->tokens.dim[0] = a->tokens_stats.dim[0] = b * n;
    if (images->pictures) {
        mode_picture_patches(clip->be, &a->cols, images->pictures, images->first, s, clip->cfg.patch_size);
        return;
    }
    const float *from = images->pixels + images->first * 3 * s * s;
    const struct mode_tensor pixels = mode_tensor_make((void *)(uintptr_t)from, MODE_DTYPE_F32, 4,
                                                       (int64_t[]){b, 3, s, s});
    mode_patches(clip->be, &a->cols, &pixels, clip->cfg.patch_size);
}

void mode__clip_draw_patches(struct mode_clip *clip, struct clip_acts *a)
{
    const int64_t patches = mode__clip_image_tokens(clip) - 1, n = a->image_rows - 1;
    for (int64_t i = 0; a->drawn && i < a->batch; i++) {
        int32_t *kept = a->drawn + i * n;
        mode_patches_draw(kept, n, patches, clip->patch_seed, clip->place + (uint64_t)i);
        for (int64_t k = 0; k < n; k++) kept[k] += (int32_t)(i % a->micro * patches);
    }
}

void mode__clip_keep_patches(struct mode_clip *clip, struct clip_acts *a, int64_t b)
{
    const size_t bytes = (size_t)(b * (a->image_rows - 1)) * sizeof *a->drawn;
    if (!a->drawn) return;
    memcpy(a->patch_lists, a->drawn, bytes);
    mode_backend_written(clip->be, a->patch_lists, bytes);
}

/* What the patch embedding reads. */
static const struct mode_tensor *patch_inputs(const struct clip_acts *a)
{
    return a->patch_lists ? &a->kept_cols : &a->cols;
}

void mode__clip_image_forward(struct mode_clip *clip, struct clip_acts *a)
{
    struct mode_backend *be = clip->be;
    struct clip_tower_acts *t = &a->image;
    struct mode_tensor w = conv_matrix(&clip->conv->operand);
    const bool saved = t->keep && clip->image.locked == 0;
    struct mode_tensor *tokens = saved && clip->ln_pre_w ? &a->tokens : &t->x;
    const struct mode_tensor *kept = a->patch_lists ? &a->kept_rows : NULL;
    if (kept) mode_gather(be, &a->kept_cols, &a->cols, kept);
    mode_linear(be, &a->patch, patch_inputs(a), &w, NULL);
    mode_image_tokens(be, tokens, &a->patch, &clip->class_embedding->value, &clip->visual_positional->value, kept);
    if (clip->ln_pre_w)
        mode_layernorm(be, &t->x, saved ? &a->tokens_stats : NULL, tokens, &clip->ln_pre_w->value,
                       &clip->ln_pre_b->value, clip->image.cfg.ln_eps);
    tower_forward(clip, &clip->image, t);
}

void mode__clip_image_back(struct mode_clip *clip, struct clip_acts *a)
{
    struct mode_backend *be = clip->be;
    struct clip_tower_acts *t = &a->image;
    struct mode_tensor dw = conv_matrix(&clip->conv->grad), w = conv_matrix(&clip->conv->operand);
    tower_back(clip, &clip->image, t);
    if (clip->image.locked > 0) return;
    if (clip->ln_pre_w)
        mode_layernorm_back(be, &t->d_x, &clip->ln_pre_w->grad, &clip->ln_pre_b->grad, &t->d_x, &a->tokens,
                            &a->tokens_stats, &clip->ln_pre_w->value, NULL);
    mode_image_tokens_back(be, &a->patch, &clip->class_embedding->grad, &clip->visual_positional->grad, &t->d_x,
                           a->patch_lists ? &a->kept_rows : NULL);
    if (clip->visual_positional->frozen) mode_zero(be, &clip->visual_positional->grad);
    mode_linear_back(be, NULL, &dw, NULL, &a->patch, patch_inputs(a), &w); /* patch now holds its gradient */
    mode__clip_made(clip, clip->class_embedding, 2);                       /* and visual.positional_embedding */
    mode__clip_made(clip, clip->conv, 1);
    mode__clip_made(clip, clip->ln_pre_w, 2);
}

/* Position of the pooled token of a text. */
static int32_t pool_of(const struct mode_clip_config *c, const int32_t *ids, int32_t n)
{
    int32_t best = 0;
    switch (c->text_pool) {
    case MODE_CLIP_POOL_FIRST: return 0;
    case MODE_CLIP_POOL_LAST: return (int32_t)c->context_length - 1;
    case MODE_CLIP_POOL_EOS:
        for (int32_t i = 0; i < n; i++)
            if (ids[i] == c->text_eos_id) return i;
        return c->text_eos_id == 0 && n < c->context_length ? n : 0; /* padding is 0 */
    case MODE_CLIP_POOL_ARGMAX:
        for (int32_t i = 1; i < n; i++)
            if (ids[i] > ids[best]) best = i;
        return best;
    }
    return best;
}

/* Offsets, pooled rows and ids of the texts, then of the padding texts. Those are pooled at their last row, too; their
 * gradients are zero (clip_train.c), so they contribute nothing to any parameter's. */
static void fill_texts(const struct mode_clip *clip, struct clip_acts *a, const int32_t *ids, const int32_t *n_ids,
                       int64_t b)
{
    int32_t *offsets = a->text.offsets.data, *pool = a->text.pool.data, *id = a->ids.data, at = 0;
    for (int64_t i = 0; i < b; i++) {
        /* causal: rows past the pooled token do not affect it and receive no gradient */
        int32_t place = pool_of(&clip->cfg, ids, n_ids[i]);
        int32_t rows = clip->dense_tokens || !clip->text.causal ? (int32_t)clip->cfg.context_length : place + 1;
        int32_t given = n_ids[i] < rows ? n_ids[i] : rows;
        offsets[i] = at;
        pool[i] = at + place;
        memcpy(id + at, ids, (size_t)given * sizeof *id);
        memset(id + at + given, 0, (size_t)(rows - given) * sizeof *id); /* padding */
        ids += n_ids[i];
        at += rows;
    }
    int64_t rows = (at + a->pads + a->round - 1) / a->round * a->round, more = rows - at;
    for (int64_t i = 0; i < a->pads; i++) {
        offsets[b + i] = at + (int32_t)(more * i / a->pads);
        pool[b + i] = at + (int32_t)(more * (i + 1) / a->pads) - 1;
    }
    memset(id + at, 0, (size_t)more * sizeof *id);
    offsets[b + a->pads] = (int32_t)rows;
}

void mode__clip_text_begin(struct mode_clip *clip, struct clip_acts *a, int64_t piece, const int32_t *ids,
                           const int32_t *n_ids, int64_t b)
{
    int32_t *lists = a->lists + piece * a->lists_each;
    const int64_t most = a->micro + a->pads, texts = b + a->pads;
    a->text.offsets = mode_tensor_1d(lists, MODE_DTYPE_I32, most + 1);
    a->text.pool = mode_tensor_1d(lists + most + 1, MODE_DTYPE_I32, most);
    a->ids = mode_tensor_1d(lists + 2 * most + 1, MODE_DTYPE_I32, a->text_rows);
    if (ids) {
        fill_texts(clip, a, ids, n_ids, b);
        mode_backend_written(clip->be, lists, (size_t)a->lists_each * sizeof *lists);
    }
    MODE_ASSERT(lists[texts] <= a->text_rows);
    a->ids.dim[0] = lists[texts];
    tower_begin(&a->text, lists[texts], texts, piece * a->micro);
}

void mode__clip_text_forward(struct mode_clip *clip, struct clip_acts *a)
{
    struct mode_backend *be = clip->be;
    struct clip_tower_acts *t = &a->text;
    mode_embed(be, &t->x, &clip->token_embedding->value, &clip->positional->value, &a->ids, &t->offsets);
    tower_forward(clip, &clip->text, t);
}

void mode__clip_text_back(struct mode_clip *clip, struct clip_acts *a)
{
    struct clip_tower_acts *t = &a->text;
    tower_back(clip, &clip->text, t);
    if (clip->text.locked > 0) return;
    mode_embed_back(clip->be, &clip->token_embedding->grad, &clip->positional->grad, &t->d_x, &a->ids, &t->offsets);
    mode__clip_made(clip, clip->token_embedding, 1);
    mode__clip_made(clip, clip->positional, 1);
}

enum mode_status mode__clip_check_texts(const struct mode_clip *clip, const int32_t *ids, const int32_t *n_ids,
                                        int64_t b, struct mode_error *err)
{
    for (int64_t i = 0; i < b; i++) {
        if (n_ids[i] < 1 || n_ids[i] > clip->cfg.context_length)
            return MODE_FAIL(err, MODE_E_VALUE, "text %lld has %d tokens; from 1 to %lld are possible", (long long)i,
                             n_ids[i], (long long)clip->cfg.context_length);
        for (int32_t j = 0; j < n_ids[i]; j++)
            if (ids[j] < 0 || ids[j] >= clip->cfg.vocab_size)
                return MODE_FAIL(err, MODE_E_VALUE, "text %lld: token id %d is outside the vocabulary of %lld",
                                 (long long)i, ids[j], (long long)clip->cfg.vocab_size);
        ids += n_ids[i];
    }
    return MODE_OK;
}
