#include "optim/sharded.h"

#include "base/str.h"
#include "nn/ops.h"

#include <stdlib.h>

enum { ALIGN = 16, BUCKET = 8 << 20 }; /* floats */

struct mode_sharded {
    struct mode_backend *be;
    struct mode_ranks *group;
    struct mode_flat flat;
    size_t bucket;           /* floats of every bucket but the last; a multiple of ALIGN * size */
    size_t n_buckets, n_own; /* n_own: floats of all own pieces */
    float *m, *v;            /* [n_own] */
    const struct mode_param *params;
    size_t n_params;
    struct bucket *buckets;
    struct mode_param *parts;   /* by bucket: the parts of parameters that lie in its own piece */
    struct rounding *roundings; /* by bucket: the parts of parameters with a bf16 copy that lie in it */
    int parcel;                 /* the group's, of bucket 0 */
    size_t unsent;              /* buckets from this one on have been reduced in this step */
    enum mode_status failed;    /* of a collective in mode_sharded_made */
    struct mode_error why;
};

struct bucket {
    size_t params, left;                           /* parameters that overlap it; those with incomplete gradients */
    size_t parts, n_parts, roundings, n_roundings; /* first index and number */
};

struct rounding {
    struct mode_tensor value, copy;
};

struct piece { /* of a bucket: its offset in the blocks, floats of one piece, offset of the own one's moments */
    size_t at, n, own;
};

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static struct piece piece_of(const struct mode_sharded *s, size_t b)
{
    size_t size = (size_t)s->group->size, at = b * s->bucket, left = round_up(s->flat.n, ALIGN * size) - at;
    return (struct piece){at, (left < s->bucket ? left : s->bucket) / size, b * (s->bucket / size)};
}

struct span { /* [from, to), floats in the blocks */
    size_t from, to;
};

static struct span overlap(struct span a, struct span b)
{
    struct span c = {a.from > b.from ? a.from : b.from, a.to < b.to ? a.to : b.to};
    if (c.from > c.to) c.from = c.to;
    return c;
}

static struct span span_of(const struct mode_sharded *s, const struct mode_param *p)
{
    if (!p->grad.data) return (struct span){0, 0}; /* locked: in neither block */
    size_t at = (size_t)(mode_f32(&p->value) - s->flat.values);
    return (struct span){at, at + (size_t)mode_tensor_count(&p->value)};
}

static struct span bucket_span(const struct mode_sharded *s, size_t b)
{
    struct piece x = piece_of(s, b);
    return (struct span){x.at, x.at + x.n * (size_t)s->group->size};
}

/* The part of p in the own piece of bucket b; false: none. */
static bool cut(struct mode_param *part, const struct mode_sharded *s, const struct mode_param *p, size_t b)
{
    struct piece x = piece_of(s, b);
    size_t first = x.at + (size_t)s->group->rank * x.n;
    struct span c = overlap(span_of(s, p), (struct span){first, first + x.n});
    if (c.from == c.to) return false;
    float *const data[] = {s->flat.values + c.from, s->flat.grads + c.from, s->m + x.own + (c.from - first),
                           s->v + x.own + (c.from - first)};
    struct mode_tensor *t[] = {&part->value, &part->grad, &part->m, &part->v};
    *part = (struct mode_param){.name = p->name, .decay = p->decay, .frozen = p->frozen};
    for (int k = 0; k < 4; k++) *t[k] = mode_tensor_1d(data[k], MODE_DTYPE_F32, (int64_t)(c.to - c.from));
    part->operand = part->value; /* bf16 copies are updated after the bucket's all-gather */
    return true;
}

/* The part of p in bucket b and its bf16 copy; false: p has no copy, or is not in the bucket. */
static bool cut_copy(struct rounding *r, const struct mode_sharded *s, const struct mode_param *p, size_t b)
{
    struct span whole = span_of(s, p), c = overlap(whole, bucket_span(s, b));
    if (c.from == c.to || p->operand.data == p->value.data) return false;
    char *copy = (char *)p->operand.data + (c.from - whole.from) * mode_dtype_size(p->operand.dtype);
    r->value = mode_tensor_1d(s->flat.values + c.from, MODE_DTYPE_F32, (int64_t)(c.to - c.from));
    r->copy = mode_tensor_1d(copy, p->operand.dtype, (int64_t)(c.to - c.from));
    return true;
}

static void fill_bucket(struct mode_sharded *s, size_t b, size_t *n_parts, size_t *n_roundings)
{
    struct bucket *x = &s->buckets[b];
    *x = (struct bucket){.parts = *n_parts, .roundings = *n_roundings};
    for (size_t i = 0; i < s->n_params; i++) {
        struct span c = overlap(span_of(s, &s->params[i]), bucket_span(s, b));
        struct mode_param part;
        struct rounding r;
        if (c.from < c.to) x->params++;
        if (cut(&part, s, &s->params[i], b)) {
            s->parts = mode_xrealloc(s->parts, (*n_parts + 1) * sizeof *s->parts);
            s->parts[(*n_parts)++] = part;
        }
        if (cut_copy(&r, s, &s->params[i], b)) {
            s->roundings = mode_xrealloc(s->roundings, (*n_roundings + 1) * sizeof *s->roundings);
            s->roundings[(*n_roundings)++] = r;
        }
    }
    x->left = x->params;
    x->n_parts = *n_parts - x->parts;
    x->n_roundings = *n_roundings - x->roundings;
}

enum mode_status mode_sharded_open(struct mode_sharded **s, struct mode_backend *be, struct mode_ranks *group,
                                   const struct mode_param *params, size_t n_params, const struct mode_flat *flat,
                                   size_t bucket, struct mode_error *err)
{
    struct mode_sharded *x = *s = mode_xcalloc(1, sizeof *x);
    size_t step = ALIGN * (size_t)group->size, whole = round_up(flat->n, step);
    void *memory[2] = {0};
    MODE_ASSERT(flat->n > 0 && flat->n % ALIGN == 0 && whole <= flat->room);
    x->be = be;
    x->group = group;
    x->flat = *flat;
    x->bucket = round_up(bucket ? bucket : BUCKET, step);
    x->n_buckets = (whole + x->bucket - 1) / x->bucket;
    x->n_own = whole / (size_t)group->size;
    enum mode_status st = MODE_OK;
    for (int k = 0; k < 2 && !st; k++) st = mode_backend_alloc(be, &memory[k], x->n_own * sizeof(float), err);
    x->m = memory[0];
    x->v = memory[1];
    if (st) {
        mode_sharded_close(s);
        return st;
    }
    x->params = params;
    x->n_params = n_params;
    x->buckets = mode_xcalloc(x->n_buckets, sizeof *x->buckets);
    x->unsent = x->n_buckets;
    for (size_t i = 0; i < n_params; i++)
        MODE_ASSERT(!params[i].grad.data ||
                    mode_f32(&params[i].grad) - flat->grads == mode_f32(&params[i].value) - flat->values);
    size_t n_parts = 0, n_roundings = 0;
    for (size_t b = 0; b < x->n_buckets; b++) fill_bucket(x, b, &n_parts, &n_roundings);
    st = mode_ranks_parcels(group, (int)x->n_buckets, &x->parcel, err);
    if (st) mode_sharded_close(s);
    return st;
}

void mode_sharded_close(struct mode_sharded **s)
{
    struct mode_sharded *x = *s;
    if (!x) return;
    mode_backend_free(x->be, x->m);
    mode_backend_free(x->be, x->v);
    free(x->buckets);
    free(x->parts);
    free(x->roundings);
    free(x);
    *s = NULL;
}

enum mode_status mode_sharded_broadcast(struct mode_sharded *s, struct mode_error *err)
{
    return mode_ranks_broadcast(s->group, s->flat.values - s->flat.locked, s->flat.locked + s->flat.n, MODE_DTYPE_F32,
                                err);
}

/* Reduce-scatter the last bucket that was not reduced yet. From the end on, in all processes: the backward pass
 * completes the gradients at the end of the block first. */
static enum mode_status send_one(struct mode_sharded *s, struct mode_error *err)
{
    size_t b = --s->unsent;
    struct piece x = piece_of(s, b);
    float *all = s->flat.grads + x.at, *own = all + (size_t)s->group->rank * x.n;
    mode_ranks_begin(s->group, s->parcel + (int)b);
    enum mode_status st = mode_ranks_reduce_scatter(s->group, own, all, x.n, MODE_DTYPE_F32, err);
    mode_ranks_end(s->group);
    return st;
}

void mode_sharded_made(void *sharded, const struct mode_param *p, size_t n)
{
    struct mode_sharded *s = sharded;
    for (size_t b = 0; b < s->n_buckets; b++) {
        size_t made = 0;
        for (size_t i = 0; i < n; i++) {
            struct span c = overlap(span_of(s, &p[i]), bucket_span(s, b));
            made += c.from < c.to;
        }
        if (made == 0) continue;
        MODE_ASSERT(made <= s->buckets[b].left);
        s->buckets[b].left -= made;
        mode_ranks_made(s->group, s->parcel + (int)b);
    }
    while (s->unsent > 0 && s->buckets[s->unsent - 1].left == 0 && !s->failed) s->failed = send_one(s, &s->why);
}

enum mode_status mode_sharded_reduce(struct mode_sharded *s, struct mode_error *err)
{
    enum mode_status st = s->failed;
    if (st && err) *err = s->why;
    while (s->unsent > 0 && !st) {
        mode_ranks_made(s->group, s->parcel + (int)s->unsent - 1); /* whatever mode_sharded_made was not called for */
        st = send_one(s, err);
    }
    for (size_t b = 0; b < s->n_buckets; b++) s->buckets[b].left = s->buckets[b].params;
    s->unsent = s->n_buckets;
    return st;
}

/* All-gather bucket b of a block. */
static enum mode_status share_bucket(struct mode_sharded *s, float *block, size_t b, struct mode_error *err)
{
    struct piece x = piece_of(s, b);
    float *all = block + x.at;
    return mode_ranks_all_gather(s->group, all, all + (size_t)s->group->rank * x.n, x.n, MODE_DTYPE_F32, err);
}

static enum mode_status share(struct mode_sharded *s, float *block, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    for (size_t b = 0; b < s->n_buckets && !st; b++) st = share_bucket(s, block, b, err);
    return st;
}

/* Update the own piece of bucket b; then, overlapping with later ops, all-gather its weights and update bf16 copies. */
static enum mode_status update_bucket(struct mode_sharded *s, size_t b, const struct mode_adamw_step *now,
                                      struct mode_error *err)
{
    const struct bucket *x = &s->buckets[b];
    mode_adamw(s->be, s->parts + x->parts, x->n_parts, now);
    mode_ranks_begin(s->group, s->parcel + (int)b);
    enum mode_status st = share_bucket(s, s->flat.values, b, err);
    for (size_t i = 0; i < x->n_roundings && !st; i++) {
        struct rounding *r = &s->roundings[x->roundings + i];
        mode_rounded(s->be, &r->copy, &r->value);
    }
    mode_ranks_end(s->group);
    return st;
}

enum mode_status mode_sharded_update(struct mode_sharded *s, struct mode_adamw_step *now, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    mode_backend_written(s->be, now, sizeof *now);
    if (now->clip_norm > 0) {
        const struct bucket *last = &s->buckets[s->n_buckets - 1];
        mode_grad_squares(s->be, &now->squares, s->parts, last->parts + last->n_parts);
        st = mode_ranks_all_reduce(s->group, &now->squares, 1, MODE_DTYPE_F64, err);
        mode_backend_show(s->be, &now->squares, sizeof now->squares);
    }
    for (size_t b = 0; b < s->n_buckets && !st; b++) st = update_bucket(s, b, now, err);
    return st;
}

enum mode_status mode_sharded_save_moments(struct mode_sharded *s, float *m, float *v, struct mode_error *err)
{
    const float *own[] = {s->m, s->v};
    float *to[] = {m, v};
    for (int k = 0; k < 2; k++) {
        for (size_t b = 0; b < s->n_buckets; b++) {
            struct piece x = piece_of(s, b);
            mode_backend_copy(s->be, s->flat.grads + x.at + (size_t)s->group->rank * x.n, own[k] + x.own,
                              x.n * sizeof(float));
        }
        enum mode_status st = share(s, s->flat.grads, err);
        if (st) return st;
        mode_backend_sync(s->be);
        if ((st = mode_ranks_check(s->group, err))) return st;
        if (to[k]) mode_backend_copy(s->be, to[k], s->flat.grads, s->flat.n * sizeof(float));
    }
    return MODE_OK;
}

void mode_sharded_load_moments(struct mode_sharded *s, const float *m, const float *v)
{
    for (size_t b = 0; b < s->n_buckets; b++) {
        struct piece x = piece_of(s, b);
        size_t from = x.at + (size_t)s->group->rank * x.n, to = from + x.n;
        if (to > s->flat.n) to = s->flat.n;
        if (from >= to) continue;
        mode_backend_copy(s->be, s->m + x.own, m + from, (to - from) * sizeof *m);
        mode_backend_copy(s->be, s->v + x.own, v + from, (to - from) * sizeof *v);
    }
}
