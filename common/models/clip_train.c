#include "models/clip_train.h"

#include "base/parallel.h"
#include "models/clip_impl.h"

#include <stdlib.h>
#include <string.h>

/* Bounds on the scratch of the cpu backend: of the packed operand of a product so many rows (nn/cpu/gemm.h); partial
 * sums of gradients; the other packed operand and attention scores of a thread. */
enum { WORKSPACE_ROWS = 1536 };
static const size_t WORKSPACE_SUMS = (size_t)20 << 20, WORKSPACE_THREAD = (size_t)2 << 20;

/* Of the running op, at most. */
static size_t workspace(const struct mode_clip *clip, int64_t batch)
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
    size_t side = (size_t)clip->cfg.image_size, pixels = piece * 3 * side * side * sizeof(float);
    size_t bound = WORKSPACE_ROWS * sizeof(float) * (widest + 64) + WORKSPACE_SUMS +
                   (size_t)mode_parallel_threads() * (WORKSPACE_THREAD + scores);
    return clip->be && mode_backend_is_device(clip->be) && pixels > bound ? pixels
                                                                          : bound; /* pixels are copied to a device */
}

void mode_clip_set_savings(struct mode_clip *clip, bool dense_tokens, bool full_last_block)
{
    MODE_ASSERT(!clip->train);
    clip->dense_tokens = dense_tokens;
    clip->full_last_block = full_last_block;
    mode__clip_acts_free(&clip->infer, clip->be);
}

void mode_clip_set_dense(struct mode_clip *clip, bool dense)
{
    mode_clip_set_savings(clip, dense, dense);
}

void mode_clip_set_memory(struct mode_clip *clip, int64_t accumulate, bool checkpoint)
{
    MODE_ASSERT(!clip->train && accumulate >= 1);
    clip->accumulate = accumulate;
    struct mode_clip_blocks blocks = {0};
    blocks.image[checkpoint ? MODE_CLIP_CHECKPOINT : MODE_CLIP_KEEP] = clip->image.cfg.layers;
    blocks.text[checkpoint ? MODE_CLIP_CHECKPOINT : MODE_CLIP_KEEP] = clip->text.cfg.layers;
    mode_clip_set_blocks(clip, &blocks);
}

void mode_clip_set_group(struct mode_clip *clip, struct mode_ranks *group)
{
    MODE_ASSERT(!clip->train);
    clip->group = group;
}

struct mode_flat mode_clip_flat(const struct mode_clip *clip)
{
    return (struct mode_flat){clip->values, clip->grads, clip->n_floats, clip->n_floats + MODE_FLAT_ROOM};
}

void mode_clip_memory(struct mode_clip_memory *m, const struct mode_clip *clip, int64_t batch)
{
    struct clip_acts a = {0};
    size_t values = clip->n_floats * sizeof(float), shares = clip->group ? (size_t)clip->group->size : 1;
    bool fits = mode__clip_acts_plan(&a, clip, batch, true, NULL);
    free(a.image.blocks);
    free(a.text.blocks);
    *m = (struct mode_clip_memory){.parameters = values,
                                   .gradients = values,
                                   .moments = 2 * (values / shares),
                                   .copies = clip->copy_bytes,
                                   .activations = fits ? a.arena.used - a.turns : SIZE_MAX,
                                   .turns = fits ? a.turns : SIZE_MAX,
                                   .workspace = workspace(clip, batch),
                                   .blocks = clip->kept,
                                   .again = mode__clip_again(clip)};
    memcpy(m->kept, a.kept, sizeof m->kept);
    m->total = fits ? 2 * values + m->moments + m->copies + a.arena.used + m->workspace : SIZE_MAX;
}

size_t mode_clip_train_bytes(const struct mode_clip *clip, int64_t batch)
{
    struct mode_clip_memory m;
    mode_clip_memory(&m, clip, batch);
    return m.total == SIZE_MAX ? SIZE_MAX : m.total - m.parameters - m.copies - m.workspace;
}

enum mode_status mode_clip_train_begin(struct mode_clip *clip, int64_t batch, struct mode_error *err)
{
    float **kinds[] = {&clip->grads, &clip->ms, &clip->vs};
    enum mode_status st = MODE_OK;
    int n_kinds = clip->group ? 1 : 3; /* of several processes each keeps moments of its share: optim/sharded.h */
    MODE_ASSERT(!clip->train);
    for (int k = 0; k < n_kinds && st == MODE_OK; k++) {
        void *mem = NULL;
        size_t room = clip->group ? MODE_FLAT_ROOM : 0;
        if (!*kinds[k]) st = mode_backend_alloc(clip->be, &mem, (clip->n_floats + room) * sizeof(float), err);
        if (mem) *kinds[k] = mem;
    }
    if (st == MODE_OK) st = mode__clip_acts_new(&clip->train, clip, batch, true, err);
    if (st == MODE_OK) st = mode_backend_reserve(clip->be, workspace(clip, batch), err);
    if (st) return st;
    for (size_t i = 0; i < clip->n_params; i++) {
        struct mode_param *p = &clip->params[i];
        ptrdiff_t at = mode_f32(&p->value) - clip->values;
        p->grad.data = clip->grads + at;
        if (clip->group) continue;
        p->m.data = clip->ms + at;
        p->v.data = clip->vs + at;
    }
    return MODE_OK;
}

struct pairs { /* some of a step's pairs */
    const float *pixels;
    const int32_t *ids, *n_ids;
    int64_t first, n;
};

/* The next n pairs after p. */
static void next_pairs(struct pairs *p, const struct mode_clip *clip, int64_t n)
{
    int64_t s = clip->cfg.image_size;
    for (int64_t i = 0; i < p->n; i++) p->ids += p->n_ids[i];
    p->pixels += p->n * 3 * s * s;
    p->n_ids += p->n;
    p->first += p->n;
    p->n = n;
}

static void forward(struct mode_clip *clip, const struct pairs *p)
{
    mode_backend_sync(clip->be); /* the places of texts are about to be overwritten */
    mode__clip_image_forward(clip, clip->train, p->pixels, p->n);
    mode__clip_text_forward(clip, clip->train, p->ids, p->n_ids, p->n);
}

static void back(struct mode_clip *clip)
{
    mode__clip_text_back(clip, clip->train);
    mode__clip_image_back(clip, clip->train);
}

/* Copy rows first.. of all <- or -> those of a piece. */
static void copy_rows(struct mode_backend *be, struct mode_tensor *all, struct mode_tensor *piece,
                      const struct pairs *p, bool out)
{
    int64_t e = all->dim[1];
    mode_backend_sync(be);
    float *a = mode_f32(all) + p->first * e, *b = mode_f32(piece);
    memcpy(out ? b : a, out ? a : b, (size_t)(p->n * e) * sizeof *a);
}

static struct pairs piece_of(const struct mode_clip *clip, const struct pairs *whole, int64_t i)
{
    struct pairs p = *whole;
    p.n = 0;
    for (int64_t k = 0; k <= i; k++) {
        int64_t left = whole->n - k * clip->train->micro;
        next_pairs(&p, clip, left < clip->train->micro ? left : clip->train->micro);
    }
    return p;
}

static enum mode_status step_in_pieces(struct mode_clip *clip, double *loss, const struct pairs *whole,
                                       struct mode_error *err)
{
    struct clip_acts *a = clip->train;
    int64_t n = (whole->n + a->micro - 1) / a->micro;
    a->all_image.dim[0] = a->all_text.dim[0] = a->d_all_image.dim[0] = a->d_all_text.dim[0] = whole->n;
    for (int64_t i = 0; i < n; i++) {
        struct pairs p = piece_of(clip, whole, i);
        forward(clip, &p);
        copy_rows(clip->be, &a->all_image, &a->image.unit, &p, false);
        copy_rows(clip->be, &a->all_text, &a->text.unit, &p, false);
    }
    enum mode_status st = mode__clip_loss(clip, loss, &a->d_all_image, &a->d_all_text, &a->all_image, &a->all_text,
                                          err);
    if (st) return st;
    for (int64_t i = n - 1; i >= 0; i--) {
        struct pairs p = piece_of(clip, whole, i);
        if (i < n - 1) forward(clip, &p); /* the last one's is still there */
        copy_rows(clip->be, &a->d_all_image, &a->image.d_unit, &p, true);
        copy_rows(clip->be, &a->d_all_text, &a->text.d_unit, &p, true);
        back(clip);
    }
    return MODE_OK;
}

enum mode_status mode_clip_train_step(struct mode_clip *clip, double *loss, const float *pixels, const int32_t *ids,
                                      const int32_t *n_ids, int64_t b, struct mode_error *err)
{
    struct clip_acts *a = clip->train;
    MODE_ASSERT(a);
    if (b < 1 || b > a->batch)
        return MODE_FAIL(err, MODE_E_VALUE, "a step of %lld pairs; training was begun for 1 to %lld", (long long)b,
                         (long long)a->batch);
    enum mode_status st = mode__clip_check_texts(clip, ids, n_ids, b, err);
    if (st) return st;
    struct mode_tensor grads = mode_tensor_1d(clip->grads, MODE_DTYPE_F32, (int64_t)clip->n_floats);
    const struct pairs whole = {.pixels = pixels, .ids = ids, .n_ids = n_ids, .n = b};
    mode_zero(clip->be, &grads);
    if (b > a->micro) return step_in_pieces(clip, loss, &whole, err);
    forward(clip, &whole);
    st = mode__clip_loss(clip, loss, &a->image.d_unit, &a->text.d_unit, &a->image.unit, &a->text.unit, err);
    if (st) return st;
    back(clip);
    return MODE_OK;
}
