/* op_run.h - one run of an op on one backend: its memory, and inputs drawn from a fixed seed. Inputs that are activations
 * come as the backend stores them.
 *
 * The memory of a run is the backend's, and what the host wants of it lies in a copy of its own: op_host finds it. What
 * is drawn is sent as it is made; a case that writes there later calls op_send before its next op, and every case ends
 * with op_fetch. */
#ifndef MODE_TESTS_OPS_OP_RUN_H
#define MODE_TESTS_OPS_OP_RUN_H

#include "base/parallel.h"
#include "base/rng.h"
#include "base/str.h"
#include "nn/ops.h"
#include "tensor/half.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TENSORS = 24, MAX_OUTSIDE = 4 };

/* What a run's first activations are besides drawn: one that is no number and one that is infinite; or so small that
 * every fifth or so is subnormal. */
enum op_special { OP_PLAIN, OP_NO_NUMBERS, OP_TINY };

struct op_run {
    struct mode_backend *be;
    struct mode_rng rng;
    bool rounded; /* activations hold numbers that bf16 has, however they are stored */
    enum op_special special;
    int n, n_out;
    struct op_memory {
        void *data, *host; /* the same where host and device are one, and where both sides have it */
        size_t bytes;
        bool shared;
    } memory[MAX_TENSORS];
    int n_outside;
    void *outside[MAX_OUTSIDE]; /* the host's own */
    struct mode_tensor out[MAX_TENSORS];
    double scalar; /* a result which is no tensor */
};

static inline void *op_memory(struct op_run *r, size_t bytes)
{
    struct op_memory *m = &r->memory[r->n++];
    struct mode_error err;
    MODE_ASSERT(r->n <= MAX_TENSORS && mode_backend_alloc(r->be, &m->data, bytes, &err) == MODE_OK);
    m->bytes = bytes;
    m->host = mode_backend_is_device(r->be) ? mode_xcalloc(1, bytes + 1) : m->data;
    return m->data;
}

/* That both sides have. */
static inline void *op_shared(struct op_run *r, size_t bytes)
{
    struct op_memory *m = &r->memory[r->n++];
    struct mode_error err;
    MODE_ASSERT(r->n <= MAX_TENSORS && mode_backend_share(r->be, &m->data, bytes, &err) == MODE_OK);
    m->bytes = bytes;
    m->host = m->data;
    m->shared = true;
    return m->data;
}

/* The host's side of the run's memory; of other memory, which is the host's, itself. */
static inline void *op_host(const struct op_run *r, const void *at)
{
    const char *p = at;
    for (int i = 0; i < r->n; i++) {
        const struct op_memory *m = &r->memory[i];
        const char *data = m->data;
        if (p == data || (p > data && p < data + m->bytes)) return (char *)m->host + (p - data);
    }
    return (void *)(uintptr_t)at;
}

static inline float *op_f32(const struct op_run *r, const struct mode_tensor *t)
{
    return op_host(r, t->data);
}

static inline int32_t *op_i32(const struct op_run *r, const struct mode_tensor *t)
{
    return op_host(r, t->data);
}

/* The tensor as the host sees it. */
static inline struct mode_tensor op_seen(const struct op_run *r, const struct mode_tensor *t)
{
    struct mode_tensor seen = *t;
    seen.data = op_host(r, t->data);
    return seen;
}

static inline void op_send_one(struct op_run *r, const struct op_memory *m)
{
    if (m->shared)
        mode_backend_written(r->be, m->data, m->bytes);
    else if (m->host != m->data)
        mode_backend_copy(r->be, m->data, m->host, m->bytes);
}

static inline void op_send(struct op_run *r)
{
    for (int i = 0; i < r->n; i++) op_send_one(r, &r->memory[i]);
}

static inline void op_fetch(struct op_run *r)
{
    mode_backend_sync(r->be);
    for (int i = 0; i < r->n; i++)
        if (r->memory[i].host != r->memory[i].data)
            mode_backend_copy(r->be, r->memory[i].host, r->memory[i].data, r->memory[i].bytes);
}

/* What was made last. */
static inline void op_sent(struct op_run *r)
{
    op_send_one(r, &r->memory[r->n - 1]);
}

/* Normal numbers: few from the run's generator; of many each piece from one of its own, by all threads. */
struct op_draw {
    double *to;
    int64_t n;
    uint64_t seed;
};
enum { OP_MANY = 1 << 21, OP_PIECE = 1 << 14 };

static inline void op_draw_piece(void *ctx, int64_t piece, int thread)
{
    const struct op_draw *d = ctx;
    struct mode_rng r = mode_rng_for(d->seed, MODE_RNG_TEST, 1, (uint64_t)piece);
    (void)thread;
    for (int64_t i = piece * OP_PIECE; i < d->n && i < (piece + 1) * OP_PIECE; i++) d->to[i] = mode_rng_normal(&r);
}

/* A case draws the same for every backend and every time; the last draws are kept, for a normal number takes longer than
 * most of what is done with it. */
struct op_drawn {
    struct mode_rng before, after;
    int64_t n;
    double *x;
};
enum { OP_DRAWS_KEPT = 24, OP_KEPT = 1 << 19 };

static inline void op_draw(double *to, int64_t n, struct mode_rng *r)
{
    static struct op_drawn kept[OP_DRAWS_KEPT];
    static int next;
    for (int i = 0; i < OP_DRAWS_KEPT; i++)
        if (kept[i].n == n && n > 0 && memcmp(&kept[i].before, r, sizeof *r) == 0) {
            memcpy(to, kept[i].x, (size_t)n * sizeof *to);
            *r = kept[i].after;
            return;
        }
    struct op_drawn *d = &kept[next];
    const struct mode_rng before = *r;
    for (int64_t i = 0; i < n; i++) to[i] = mode_rng_normal(r);
    if (n > OP_KEPT) return;
    next = (next + 1) % OP_DRAWS_KEPT;
    free(d->x);
    *d = (struct op_drawn){before, *r, n, mode_xmalloc((size_t)(n + 1) * sizeof *to)};
    memcpy(d->x, to, (size_t)n * sizeof *to);
}

/* n of them, which the caller frees. */
static inline double *op_normals(struct op_run *r, int64_t n)
{
    struct op_draw d = {mode_xmalloc((size_t)(n + 1) * sizeof *d.to), n, 0};
    if (n < OP_MANY) {
        op_draw(d.to, n, &r->rng);
        return d.to;
    }
    d.seed = mode_rng_u64(&r->rng);
    mode_parallel_for((n + OP_PIECE - 1) / OP_PIECE, op_draw_piece, &d);
    return d.to;
}

static inline struct mode_tensor noise(struct op_run *r, int n_dims, const int64_t *dim, double scale)
{
    struct mode_tensor t = mode_tensor_make(NULL, MODE_DTYPE_F32, n_dims, dim);
    int64_t n = mode_tensor_count(&t);
    double *x = op_normals(r, n);
    t.data = op_memory(r, (size_t)n * sizeof(float));
    for (int64_t i = 0; i < n; i++) op_f32(r, &t)[i] = (float)(scale * x[i]);
    op_sent(r);
    free(x);
    return t;
}

static inline float op_special_of(enum op_special what, float x, int64_t i, int64_t n)
{
    if (what == OP_NO_NUMBERS) return i == n / 3 ? NAN : i == n - 1 ? INFINITY : x;
    return what == OP_TINY ? ldexpf(x, -124) : x;
}

/* Activations, and what products read. */
static inline struct mode_tensor act_noise(struct op_run *r, int n_dims, const int64_t *dim)
{
    struct mode_tensor t = mode_tensor_make(NULL, mode_backend_activations(r->be), n_dims, dim);
    int64_t n = mode_tensor_count(&t);
    double *all = op_normals(r, n);
    t.data = op_memory(r, mode_tensor_bytes(&t));
    const struct mode_tensor seen = op_seen(r, &t);
    for (int64_t i = 0; i < n; i++) {
        float x = op_special_of(r->special, (float)all[i], i, n);
        if (r->rounded) x = mode_bf16_to_f32(mode_f32_to_bf16(x));
        if (t.dtype == MODE_DTYPE_BF16)
            ((uint16_t *)seen.data)[i] = mode_f32_to_bf16(x);
        else
            mode_f32(&seen)[i] = x;
    }
    op_sent(r);
    free(all);
    r->special = OP_PLAIN;
    return t;
}

static inline struct mode_tensor acts(struct op_run *r, int64_t a, int64_t b)
{
    return act_noise(r, 2, (int64_t[]){a, b});
}

static inline struct mode_tensor act_vec(struct op_run *r, int64_t a)
{
    return act_noise(r, 1, (int64_t[]){a});
}

/* t: as the host sees it */
static inline double op_number(const struct mode_tensor *t, int64_t i)
{
    return t->dtype == MODE_DTYPE_BF16 ? mode_bf16_to_f32(((const uint16_t *)t->data)[i]) : mode_f32(t)[i];
}

static inline struct mode_tensor mat(struct op_run *r, int64_t a, int64_t b)
{
    return noise(r, 2, (int64_t[]){a, b}, 1);
}

static inline struct mode_tensor vec(struct op_run *r, int64_t a)
{
    return noise(r, 1, (int64_t[]){a}, 1);
}

static inline struct mode_tensor *keep(struct op_run *r, struct mode_tensor t)
{
    r->out[r->n_out] = t;
    return &r->out[r->n_out++];
}

static inline struct mode_tensor numbers_in(struct op_run *r, void *data, int64_t n, int64_t below)
{
    struct mode_tensor t = mode_tensor_1d(data, MODE_DTYPE_I32, n);
    for (int64_t i = 0; i < n; i++) op_i32(r, &t)[i] = (int32_t)mode_rng_below(&r->rng, (uint64_t)below);
    op_sent(r);
    return t;
}

/* Of clustering. */
static inline struct mode_tensor index_of(struct op_run *r, int64_t n, int64_t below)
{
    return numbers_in(r, op_memory(r, (size_t)n * sizeof(int32_t)), n, below);
}

/* Of all other ops. */
static inline struct mode_tensor list_of(struct op_run *r, int64_t n, int64_t below)
{
    return numbers_in(r, op_shared(r, (size_t)n * sizeof(int32_t)), n, below);
}

/* offsets of b sequences of 1..longest rows */
static inline struct mode_tensor offsets_of(struct op_run *r, int64_t b, int64_t longest)
{
    struct mode_tensor t = list_of(r, b + 1, longest);
    int32_t *o = t.data, at = 0;
    mode_backend_sync(r->be);
    for (int64_t i = 0; i <= b; i++) {
        int32_t len = i == 0 ? (int32_t)longest : o[i] + 1;
        o[i] = at;
        at += len;
    }
    op_sent(r);
    return t;
}

static inline int64_t last_of(const struct mode_tensor *offsets)
{
    return ((const int32_t *)offsets->data)[offsets->dim[0] - 1];
}

static inline void op_run_clear(struct op_run *r)
{
    for (int i = 0; i < r->n; i++) {
        if (r->memory[i].host != r->memory[i].data) free(r->memory[i].host);
        mode_backend_free(r->be, r->memory[i].data);
    }
    for (int i = 0; i < r->n_outside; i++) free(r->outside[i]);
}

#endif
