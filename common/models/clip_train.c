#include "models/clip_train.h"

#include "base/parallel.h"
#include "models/clip_impl.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* Bounds on the cpu backend's scratch: rows of a GEMM's packed operand (nn/cpu/gemm.h); partial sums of gradients; per
 * thread, the other packed operand. */
enum { WORKSPACE_ROWS = 1536 };
static const size_t WORKSPACE_SUMS = (size_t)20 << 20, WORKSPACE_THREAD = (size_t)2 << 20;

/* FP8 copies of the operands of a block's largest GEMM: the MLP's or qkv's. */
static size_t narrow_copies(const struct mode_clip *clip, const struct mode_clip_tower_config *t, int64_t rows)
{
    int64_t widest = t->mlp > 3 * t->width ? t->mlp : 3 * t->width;
    return clip->be ? (size_t)mode_backend_narrow_work(clip->be, rows, t->width, widest) : 0;
}

static size_t narrow_texts(const struct mode_clip *clip, int64_t piece)
{
    int64_t rows = piece * clip->cfg.context_length;
    return narrow_copies(clip, &clip->text.cfg, rows + rows / 32 + 256); /* padded (mode_clip_set_padding) */
}

/* Scratch of attention backward on a GPU. cuDNN's deterministic bf16 backward stores a [T, T] matrix of every head
 * (docs/decisions/0013-attention-on-gpus.md); the non-deterministic one, which autotuning may choose, accumulates dq in
 * f32. Every implementation stores statistics of each row and head. */
static size_t attention_scratch(const struct mode_clip *clip, const struct clip_tower *t, int64_t batch, int64_t tokens)
{
    size_t heads = (size_t)batch * (size_t)t->cfg.heads, side = ((size_t)tokens + 63) / 64 * 64;
    size_t products = side * side * 2,
           sums = (size_t)tokens * (size_t)t->cfg.width / (size_t)t->cfg.heads * sizeof(float);
    bool half = mode_backend_activations(clip->be) == MODE_DTYPE_BF16;
    return heads * (size_t)tokens * 2 * sizeof(float) + (half ? heads * (products > sums ? products : sums) : 0);
}

size_t mode__clip_workspace(const struct mode_clip *clip, int64_t batch)
{
    size_t widest = (size_t)batch * (clip->group ? (size_t)clip->group->size : 1),
           tokens = (size_t)mode__clip_image_tokens(clip);
    if (tokens < (size_t)clip->cfg.context_length) tokens = (size_t)clip->cfg.context_length;
    for (size_t i = 0; i < clip->n_params; i++) {
        const struct mode_tensor *t = &clip->params[i].value;
        size_t n = (size_t)mode_tensor_count(t), rows = t->n_dims >= 2 ? (size_t)t->dim[0] : n, cols = n / rows;
        if (&clip->params[i] == clip->token_embedding) rows = cols;
        if (rows > widest) widest = rows;
        if (cols > widest) widest = cols;
    }
    size_t scores = 2 * sizeof(float) * (tokens + 32) * (tokens + 32);
    size_t piece = ((size_t)batch + (size_t)clip->accumulate - 1) / (size_t)clip->accumulate;
    size_t side = (size_t)clip->cfg.image_size;
    size_t images = clip->pictures ? MODE_PIXELS_BETWEEN : piece * 3 * side * side * sizeof(float);
    size_t bound = WORKSPACE_ROWS * sizeof(float) * (widest + 64) + WORKSPACE_SUMS +
                   (size_t)mode_parallel_threads() * (WORKSPACE_THREAD + scores);
    const int64_t rows = mode__clip_image_rows(clip, true);
    size_t narrow[] = {narrow_copies(clip, &clip->image.cfg, (int64_t)piece * rows),
                       narrow_texts(clip, (int64_t)piece)};
    for (int i = 0; i < 2; i++) bound = narrow[i] > bound ? narrow[i] : bound;
    if (!clip->be || !mode_backend_is_device(clip->be)) return bound;
    /* images: the device copy of pixels, or pictures resized along one axis */
    const size_t device[] = {images, attention_scratch(clip, &clip->image, (int64_t)piece, rows),
                             attention_scratch(clip, &clip->text, (int64_t)piece, clip->cfg.context_length)};
    for (int i = 0; i < 3; i++) bound = device[i] > bound ? device[i] : bound;
    return bound;
}

/* Scratch of the text tower as a branch. */
static size_t branch_workspace(const struct mode_clip *clip, int64_t batch)
{
    int64_t piece = (batch + clip->accumulate - 1) / clip->accumulate;
    size_t bound = WORKSPACE_SUMS + attention_scratch(clip, &clip->text, piece, clip->cfg.context_length),
           narrow = narrow_texts(clip, piece);
    return narrow > bound ? narrow : bound;
}

static size_t workspaces(const struct mode_clip *clip, int64_t batch)
{
    size_t one = mode__clip_workspace(clip, batch);
    if (!clip->be || !clip->branches) return one;
    return one + mode_backend_branches_bytes(clip->be, branch_workspace(clip, batch), WORKSPACE_SUMS);
}

void mode_clip_set_savings(struct mode_clip *clip, bool dense_tokens, bool full_last_block)
{
    MODE_ASSERT(!clip->train);
    clip->dense_tokens = dense_tokens;
    clip->full_last_block = full_last_block;
    mode__clip_acts_free(&clip->infer, clip->be);
}

void mode_clip_set_memory(struct mode_clip *clip, int64_t accumulate, bool checkpoint)
{
    MODE_ASSERT(!clip->train && accumulate >= 1);
    clip->accumulate = accumulate;
    struct mode_clip_blocks blocks = {0};
    blocks.image[checkpoint ? MODE_CLIP_CHECKPOINT : MODE_CLIP_KEEP] = mode__clip_trained_blocks(&clip->image);
    blocks.text[checkpoint ? MODE_CLIP_CHECKPOINT : MODE_CLIP_KEEP] = mode__clip_trained_blocks(&clip->text);
    mode_clip_set_blocks(clip, &blocks);
}

void mode_clip_set_padding(struct mode_clip *clip, bool pad)
{
    MODE_ASSERT(!clip->train);
    clip->pad_texts = pad;
}

void mode_clip_set_branches(struct mode_clip *clip, bool on)
{
    MODE_ASSERT(!clip->train);
    clip->branches = on;
}

void mode_clip_set_pictures(struct mode_clip *clip, bool on)
{
    MODE_ASSERT(!clip->train);
    clip->pictures = on;
}

void mode_clip_set_patch_dropout(struct mode_clip *clip, double probability, uint64_t seed)
{
    MODE_ASSERT(!clip->train && probability >= 0 && probability < 1);
    clip->patch_dropout = probability;
    clip->patch_seed = seed;
}

void mode_clip_train_place(struct mode_clip *clip, uint64_t first)
{
    clip->place = first;
    if (clip->train) mode__clip_draw_patches(clip, clip->train);
}

void mode_clip_set_group(struct mode_clip *clip, struct mode_ranks *group)
{
    MODE_ASSERT(!clip->train);
    clip->group = group;
}

void mode_clip_set_made(struct mode_clip *clip, mode_clip_made *made, void *ctx)
{
    clip->made = made;
    clip->made_ctx = ctx;
}

void mode__clip_made(struct mode_clip *clip, const struct mode_param *p, size_t n)
{
    if (p && clip->made && clip->is_final_backward) clip->made(clip->made_ctx, p, n);
}

struct mode_flat mode_clip_flat(const struct mode_clip *clip)
{
    const size_t locked = clip->n_floats - clip->n_trained;
    return (struct mode_flat){clip->values + locked, clip->grads, clip->n_trained, clip->n_trained + MODE_FLAT_ROOM,
                              locked};
}

void mode_clip_memory(struct mode_clip_memory *m, const struct mode_clip *clip, int64_t batch)
{
    struct clip_acts a = {0};
    size_t values = clip->n_floats * sizeof(float), shares = clip->group ? (size_t)clip->group->size : 1;
    size_t gradients = clip->n_trained * sizeof(float);
    bool fits = mode__clip_acts_plan(&a, clip, batch, true, NULL, NULL);
    free(a.image.blocks);
    free(a.text.blocks);
    *m = (struct mode_clip_memory){.parameters = values,
                                   .gradients = gradients,
                                   .moments = 2 * (gradients / shares),
                                   .copies = clip->copy_bytes,
                                   .activations = fits ? a.arena.used - a.turns + a.shared.used + sizeof *a.loss
                                                       : SIZE_MAX,
                                   .turns = fits ? a.turns : SIZE_MAX,
                                   .workspace = workspaces(clip, batch),
                                   .blocks = clip->kept,
                                   .branches = clip->branches,
                                   .again = mode__clip_recompute_share(clip)};
    memcpy(m->kept, a.kept, sizeof m->kept);
    m->total = fits ? values + gradients + m->moments + m->copies + m->activations + m->turns + m->workspace : SIZE_MAX;
}

enum mode_status mode_clip_train_begin(struct mode_clip *clip, int64_t batch, struct mode_error *err)
{
    float **kinds[] = {&clip->grads, &clip->ms, &clip->vs};
    enum mode_status st = MODE_OK;
    int n_kinds = clip->group ? 1 : 3; /* in a group optim/sharded.h allocates each process's share of the moments */
    MODE_ASSERT(!clip->train);
    for (int k = 0; k < n_kinds && st == MODE_OK; k++) {
        void *mem = NULL;
        size_t room = clip->group ? MODE_FLAT_ROOM : 0;
        if (!*kinds[k]) st = mode_backend_alloc(clip->be, &mem, (clip->n_trained + room) * sizeof(float), err);
        if (mem) *kinds[k] = mem;
    }
    if (st == MODE_OK) st = mode__clip_acts_new(&clip->train, clip, batch, true, NULL, err);
    if (st == MODE_OK && clip->group) st = mode_ranks_parcels(clip->group, PARCELS, &clip->parcels, err);
    if (st == MODE_OK) st = mode_backend_reserve(clip->be, mode__clip_workspace(clip, batch), err);
    if (st == MODE_OK && clip->branches)
        st = mode_backend_branches(clip->be, branch_workspace(clip, batch), WORKSPACE_SUMS, err);
    if (st) return st;
    mode__clip_draw_patches(clip, clip->train);
    for (size_t i = 0; i < clip->n_params; i++) {
        struct mode_param *p = &clip->params[i];
        if (mode__clip_is_locked(clip, p)) continue;
        ptrdiff_t at = mode_f32(&p->value) - mode_clip_flat(clip).values;
        p->grad.data = clip->grads + at;
        if (clip->group) continue;
        p->m.data = clip->ms + at;
        p->v.data = clip->vs + at;
    }
    return MODE_OK;
}

enum mode_status mode_clip_train_infer(struct mode_clip *clip, struct mode_error *err)
{
    MODE_ASSERT(clip->train);
    return mode__clip_infer_begin(clip, err);
}

size_t mode_clip_train_infer_bytes(const struct mode_clip *clip, int64_t batch)
{
    struct clip_acts a = {0};
    const int64_t micro = (batch + clip->accumulate - 1) / clip->accumulate;
    const bool fits = mode__clip_acts_plan(&a, clip, mode__clip_between_batch(clip, micro), false, NULL, NULL);
    free(a.image.blocks);
    free(a.text.blocks);
    return fits ? a.shared.used + sizeof *a.loss : 0;
}

/* Advance p to the n pairs after it. */
static void next_pairs(struct clip_pairs *p, int64_t n)
{
    for (int64_t i = 0; i < p->n; i++) p->ids += p->n_ids[i];
    p->n_ids += p->n;
    p->images.first += p->n;
    p->n = n;
}

/* Does a pass compute this tower? again: the second forward of a micro-batch in a step, for a backward. */
static bool computes(const struct clip_tower *t, bool again)
{
    return !again || mode__clip_is_trained(t);
}

/* Set the inputs of a micro-batch; again: for its second forward in this step. */
static void begin(struct mode_clip *clip, const struct clip_pairs *p, bool again)
{
    int64_t piece = p->images.first / clip->train->micro;
    if (computes(&clip->image, again)) mode__clip_image_begin(clip, clip->train, piece, &p->images, p->n);
    if (computes(&clip->text, again))
        mode__clip_text_begin(clip, clip->train, piece, again ? NULL : p->ids, p->n_ids, p->n);
}

/* The towers are independent in both passes. The image tower takes longer, so the all-gather of the texts overlaps with
 * it. */
static enum mode_status forward(struct mode_clip *clip, bool gather, bool again, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    if (clip->branches) mode_backend_fork(clip->be);
    if (computes(&clip->image, again)) mode__clip_image_forward(clip, clip->train);
    if (clip->branches) mode_backend_branch(clip->be, 1);
    if (computes(&clip->text, again)) mode__clip_text_forward(clip, clip->train);
    if (gather && clip->group) st = mode__clip_gather_texts(clip, err);
    if (clip->branches) mode_backend_join(clip->be);
    return st;
}

static void backward(struct mode_clip *clip)
{
    if (clip->branches) mode_backend_fork(clip->be);
    mode__clip_image_back(clip, clip->train);
    if (clip->branches) mode_backend_branch(clip->be, 1);
    mode__clip_text_back(clip, clip->train);
    if (clip->branches) mode_backend_join(clip->be);
}

static struct clip_pairs piece_of(const struct mode_clip *clip, const struct clip_pairs *whole, int64_t i)
{
    struct clip_pairs p = *whole;
    p.n = 0;
    for (int64_t k = 0; k <= i; k++) {
        int64_t left = whole->n - k * clip->train->micro;
        next_pairs(&p, left < clip->train->micro ? left : clip->train->micro);
    }
    return p;
}

static enum mode_status load(struct mode_clip *clip, struct clip_images images, const int32_t *ids,
                             const int32_t *n_ids, int64_t b, struct mode_error *err)
{
    struct clip_acts *a = clip->train;
    MODE_ASSERT(a);
    if (b < 1 || b > a->batch)
        return MODE_FAIL(err, MODE_E_VALUE, "a step of %lld pairs; training was begun for 1 to %lld", (long long)b,
                         (long long)a->batch);
    enum mode_status st = mode__clip_check_texts(clip, ids, n_ids, b, err);
    if (st) return st;
    a->step = (struct clip_pairs){.images = images, .ids = ids, .n_ids = n_ids, .n = b};
    mode_backend_sync(clip->be); /* the previous step's lists are about to be overwritten */
    mode__clip_keep_patches(clip, a, b);
    if (b <= a->micro) begin(clip, &a->step, false);
    return MODE_OK;
}

enum mode_status mode_clip_train_load(struct mode_clip *clip, const float *pixels, const int32_t *ids,
                                      const int32_t *n_ids, int64_t b, struct mode_error *err)
{
    return load(clip, (struct clip_images){.pixels = pixels}, ids, n_ids, b, err);
}

enum mode_status mode_clip_train_load_pictures(struct mode_clip *clip, const struct mode_pictures *pictures,
                                               const int32_t *ids, const int32_t *n_ids, int64_t b,
                                               struct mode_error *err)
{
    return load(clip, (struct clip_images){.pictures = pictures}, ids, n_ids, b, err);
}

bool mode_clip_train_sequence(const struct mode_clip *clip, struct mode_sequence *key)
{
    const struct clip_acts *a = clip->train;
    *key = (struct mode_sequence){.owner = clip, .shape = {a->step.n, a->text.rows}};
    return a->step.n <= a->micro && !clip->group;
}

/* Features of all micro-batches, the loss over them, then every micro-batch's forward again and its backward, from the
 * last one on, whose activations are still there. */
enum mode_status mode_clip_train_compute(struct mode_clip *clip, struct mode_error *err)
{
    struct clip_acts *a = clip->train;
    struct mode_tensor grads = mode_tensor_1d(clip->grads, MODE_DTYPE_F32, (int64_t)clip->n_trained);
    int64_t n = (a->step.n + a->micro - 1) / a->micro, e = clip->cfg.embed_dim;
    enum mode_status st = MODE_OK;
    MODE_ASSERT(n <= clip->accumulate); /* the number of lists */
    mode_zero(clip->be, &grads);
    for (int64_t i = 0; i < n && !st; i++) {
        struct clip_pairs p = piece_of(clip, &a->step, i);
        if (n > 1) begin(clip, &p, false);
        st = forward(clip, i == n - 1, false, err);
    }
    if (st) return st;
    a->image.all.dim[0] = a->text.all.dim[0] = a->image.d_all.dim[0] = a->text.d_all.dim[0] = a->step.n;
    if (a->pads > 0) {
        struct mode_tensor none = mode_tensor_2d(mode_f32(&a->text.d_all) + a->step.n * e, MODE_DTYPE_F32, a->pads, e);
        mode_zero(clip->be, &none);
    }
    st = mode__clip_loss(clip, &a->image.d_all, &a->text.d_all, &a->image.all, &a->text.all, err);
    for (int64_t i = n - 1; i >= 0 && !st; i--) {
        struct clip_pairs p = piece_of(clip, &a->step, i);
        if (i < n - 1) begin(clip, &p, true);
        if (i < n - 1) st = forward(clip, false, true, err);
        clip->is_final_backward = i == 0;
        mode__clip_made(clip, clip->logit_scale, 1); /* the loss completed it */
        backward(clip);
        clip->is_final_backward = false;
    }
    return st;
}

enum mode_status mode_clip_train_step(struct mode_clip *clip, double *loss, const float *pixels, const int32_t *ids,
                                      const int32_t *n_ids, int64_t b, struct mode_error *err)
{
    enum mode_status st = mode_clip_train_load(clip, pixels, ids, n_ids, b, err);
    if (!st) st = mode_clip_train_compute(clip, err);
    if (!st) *loss = mode_clip_train_loss(clip);
    return st;
}

/* One wait for both values and for the step. */
double mode_clip_train_loss(struct mode_clip *clip)
{
    struct clip_acts *a = clip->train;
    const struct clip_step_result *r = a->result->host;
    mode_results_take(a->result, offsetof(struct clip_step_result, loss), a->loss, sizeof r->loss);
    mode_results_take(a->result, offsetof(struct clip_step_result, logit_scale), clip->logit_scale->value.data,
                      sizeof r->logit_scale);
    mode_backend_sync(clip->be);
    mode_results_wait(a->result);
    return r->loss;
}

float mode_clip_train_logit_scale(const struct mode_clip *clip)
{
    const struct clip_step_result *r = clip->train->result->host;
    return expf(r->logit_scale);
}
