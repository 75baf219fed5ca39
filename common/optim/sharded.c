#include "optim/sharded.h"

#include "base/str.h"
#include "nn/ops.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGN = 16, BUCKET = 8 << 20 }; /* floats */

struct mode_sharded {
    struct mode_backend *be;
    struct mode_ranks *group;
    struct mode_flat flat;
    size_t bucket;            /* floats of every bucket but the last; a multiple of ALIGN * size */
    size_t n_buckets, n_own;  /* own: floats of all own pieces */
    float *m, *v;             /* [n_own] */
    struct mode_param *parts; /* what of each parameter lies in own pieces, in order */
    size_t n_parts;
};

struct piece { /* of bucket b: its place in the blocks, floats of one piece, place of the own one's moments */
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

size_t mode_sharded_bytes(size_t n, int size)
{
    return 2 * sizeof(float) * (round_up(n, ALIGN * (size_t)size) / (size_t)size);
}

/* The parts of parameter p, which lies at `at`, in own pieces; counts when parts is NULL. */
static size_t cut(struct mode_param *parts, const struct mode_sharded *s, const struct mode_param *p, size_t at)
{
    size_t n = 0, end = at + (size_t)mode_tensor_count(&p->value);
    for (size_t b = at / s->bucket; b < s->n_buckets && b * s->bucket < end; b++) {
        struct piece x = piece_of(s, b);
        size_t first = x.at + (size_t)s->group->rank * x.n, last = first + x.n, moments = x.own;
        size_t from = at > first ? at : first, to = end < last ? end : last;
        if (from >= to) continue;
        if (parts) {
            float *const data[] = {s->flat.values + from, s->flat.grads + from, s->m + moments + (from - first),
                                   s->v + moments + (from - first)};
            struct mode_tensor *t[] = {&parts[n].value, &parts[n].grad, &parts[n].m, &parts[n].v};
            parts[n] = (struct mode_param){.name = p->name, .decay = p->decay, .frozen = p->frozen};
            for (int k = 0; k < 4; k++) *t[k] = mode_tensor_1d(data[k], MODE_DTYPE_F32, (int64_t)(to - from));
            parts[n].operand = parts[n].value; /* rounded copies are made when all weights are here */
        }
        n++;
    }
    return n;
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
    for (int fill = 0; fill < 2; fill++) {
        if (fill) x->parts = mode_xcalloc(x->n_parts + 1, sizeof *x->parts);
        x->n_parts = 0;
        for (size_t i = 0; i < n_params; i++) {
            ptrdiff_t at = mode_f32(&params[i].value) - flat->values;
            MODE_ASSERT(at >= 0 && mode_f32(&params[i].grad) - flat->grads == at);
            x->n_parts += cut(fill ? x->parts + x->n_parts : NULL, x, &params[i], (size_t)at);
        }
    }
    return MODE_OK;
}

void mode_sharded_close(struct mode_sharded **s)
{
    struct mode_sharded *x = *s;
    if (!x) return;
    mode_backend_free(x->be, x->m);
    mode_backend_free(x->be, x->v);
    free(x->parts);
    free(x);
    *s = NULL;
}

enum mode_status mode_sharded_broadcast(struct mode_sharded *s, struct mode_error *err)
{
    return mode_ranks_broadcast(s->group, s->flat.values, s->flat.n, MODE_DTYPE_F32, err);
}

/* Backwards: the blocks' ends are what the way back of a model has finished first. */
enum mode_status mode_sharded_reduce(struct mode_sharded *s, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    for (size_t b = s->n_buckets; b-- > 0 && !st;) {
        struct piece x = piece_of(s, b);
        float *all = s->flat.grads + x.at;
        st = mode_ranks_reduce_scatter(s->group, all + (size_t)s->group->rank * x.n, all, x.n, MODE_DTYPE_F32, err);
    }
    return st;
}

/* Every process's pieces of a block to all. */
static enum mode_status share(struct mode_sharded *s, float *block, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    for (size_t b = 0; b < s->n_buckets && !st; b++) {
        struct piece x = piece_of(s, b);
        float *all = block + x.at;
        st = mode_ranks_all_gather(s->group, all, all + (size_t)s->group->rank * x.n, x.n, MODE_DTYPE_F32, err);
    }
    return st;
}

enum mode_status mode_sharded_update(struct mode_sharded *s, struct mode_adamw_step *now, struct mode_error *err)
{
    if (now->clip_norm > 0) {
        mode_grad_squares(s->be, &now->squares, s->parts, s->n_parts);
        enum mode_status st = mode_ranks_all_reduce(s->group, &now->squares, 1, MODE_DTYPE_F64, err);
        if (st) return st;
    }
    mode_adamw(s->be, s->parts, s->n_parts, now);
    return share(s, s->flat.values, err);
}

enum mode_status mode_sharded_save_moments(struct mode_sharded *s, float *m, float *v, struct mode_error *err)
{
    const float *own[] = {s->m, s->v};
    float *to[] = {m, v};
    for (int k = 0; k < 2; k++) {
        mode_backend_sync(s->be);
        for (size_t b = 0; b < s->n_buckets; b++) {
            struct piece x = piece_of(s, b);
            memcpy(s->flat.grads + x.at + (size_t)s->group->rank * x.n, own[k] + x.own, x.n * sizeof(float));
        }
        enum mode_status st = share(s, s->flat.grads, err);
        if (st) return st;
        mode_backend_sync(s->be);
        if (to[k]) memcpy(to[k], s->flat.grads, s->flat.n * sizeof(float));
    }
    return MODE_OK;
}

void mode_sharded_load_moments(struct mode_sharded *s, const float *m, const float *v)
{
    mode_backend_sync(s->be);
    for (size_t b = 0; b < s->n_buckets; b++) {
        struct piece x = piece_of(s, b);
        size_t from = x.at + (size_t)s->group->rank * x.n, to = from + x.n;
        if (to > s->flat.n) to = s->flat.n;
        if (from >= to) continue;
        memcpy(s->m + x.own, m + from, (to - from) * sizeof *m);
        memcpy(s->v + x.own, v + from, (to - from) * sizeof *v);
    }
}
