/* Collectives of a group ("exchanges"), on a stream of their own: mode_ranks_begin and the functions around it
 * (dist/ranks.h).
 *
 * All collectives go to this one stream, in call order: a communicator serves one stream, and its calls must be in the
 * same order in all processes. A collective outside begin and end is in order with the ops: it waits for the ops before
 * it, and later ops wait for it. Between begin and end it overlaps with the ops: it waits for the events recorded where
 * its inputs were computed, and its parcel keeps the ranges that it reads and writes; before an op that conflicts with
 * one, the op's stream waits (mode__exchanges_used, for every op). So models need not know which collective they depend
 * on. Waiting for one means waiting for all before it. */
#include "nn/cuda/exchanges.h"

#include "base/str.h"

#include <stdlib.h>

enum { RANGES = 6, GAP = 256 };

struct range {
    const char *at;
    size_t bytes;
    bool written;
};

struct parcel {
    cudaEvent_t made[MODE__EXCHANGES]; /* per lane */
    unsigned marked;                   /* lanes where made was recorded since the last use */
    cudaEvent_t done;
    long number; /* sequence number of the last use; 0: none */
    struct range ranges[RANGES];
    int n_ranges;
};

struct mode__exchanges {
    struct parcel *parcels;
    int n, now;                   /* count; the one between begin and end, -1: none */
    int home;                     /* the lane that called begin */
    cudaEvent_t turn, out;        /* of collectives in order with the ops */
    long last;                    /* sequence number of the last use of a parcel */
    long seen[MODE__LANES], over; /* per lane: waited for all up to this number; the same for all lanes */
};

static enum mode_status make_event(cudaEvent_t *e, struct mode_error *err)
{
    if (cudaEventCreateWithFlags(e, cudaEventDisableTiming) == cudaSuccess) return MODE_OK;
    return MODE_FAIL(err, MODE_E_DEVICE, "backend \"cuda\": an event for exchanges between processes cannot be made");
}

enum mode_status mode__exchanges_open(struct mode_backend *be, struct mode_error *err)
{
    struct mode__cuda *c = mode__cuda_of(be);
    MODE_ASSERT(!c->exchanges);
    struct mode__exchanges *x = c->exchanges = mode_xcalloc(1, sizeof *x);
    x->now = -1;
    enum mode_status st = mode__lane_open(be, MODE__EXCHANGES, err);
    if (!st) st = make_event(&x->turn, err);
    if (!st) st = make_event(&x->out, err);
    return st;
}

static void destroy_event(cudaEvent_t e)
{
    if (e) (void)cudaEventDestroy(e);
}

void mode__exchanges_close(struct mode_backend *be)
{
    struct mode__cuda *c = mode__cuda_of(be);
    struct mode__exchanges *x = c->exchanges;
    if (!x) return;
    mode__lane_close(&c->lane[MODE__EXCHANGES]);
    for (int i = 0; i < x->n; i++) {
        for (int k = 0; k < MODE__EXCHANGES; k++) destroy_event(x->parcels[i].made[k]);
        destroy_event(x->parcels[i].done);
    }
    destroy_event(x->turn);
    destroy_event(x->out);
    free(x->parcels);
    free(x);
    c->exchanges = NULL;
}

enum mode_status mode__exchanges_parcels(struct mode_backend *be, int n, int *first, struct mode_error *err)
{
    struct mode__exchanges *x = mode__cuda_of(be)->exchanges;
    enum mode_status st = MODE_OK;
    *first = x->n;
    x->parcels = mode_xrealloc(x->parcels, (size_t)(x->n + n) * sizeof *x->parcels);
    for (int i = 0; i < n && !st; i++) {
        struct parcel *p = &x->parcels[x->n++];
        *p = (struct parcel){0};
        for (int k = 0; k < MODE__EXCHANGES && !st; k++) st = make_event(&p->made[k], err);
        if (!st) st = make_event(&p->done, err);
    }
    return st;
}

static cudaStream_t own_stream(const struct mode_backend *be)
{
    return mode__cuda_of(be)->lane[MODE__EXCHANGES].stream;
}

void mode__exchanges_made(struct mode_backend *be, int parcel)
{
    struct mode__cuda *c = mode__cuda_of(be);
    struct parcel *p = &c->exchanges->parcels[parcel];
    const int lanes[] = {be->lane, MODE_BRANCHES + be->lane};
    for (int k = 0; k < 1 + mode__beside_used(be); k++) {
        CUDA_OK(cudaEventRecord(p->made[lanes[k]], c->lane[lanes[k]].stream));
        p->marked |= 1u << lanes[k];
    }
}

void mode__exchanges_begin(struct mode_backend *be, int parcel)
{
    struct mode__cuda *c = mode__cuda_of(be);
    struct mode__exchanges *x = c->exchanges;
    struct parcel *p = &x->parcels[parcel];
    MODE_ASSERT(x->now < 0 && !mode__graphs_capturing());
    if (!p->marked) mode__exchanges_made(be, parcel);
    for (int k = 0; k < MODE__EXCHANGES; k++)
        if (p->marked & 1u << k) CUDA_OK(cudaStreamWaitEvent(own_stream(be), p->made[k], 0));
    p->marked = 0;
    if (p->number <= x->over) p->n_ranges = 0; /* else the last use may still be running, and its ranges stay */
    x->now = parcel;
    x->home = be->lane;
    be->lane = MODE__EXCHANGES;
    c->stream = own_stream(be);
}

void mode__exchanges_end(struct mode_backend *be)
{
    struct mode__cuda *c = mode__cuda_of(be);
    struct mode__exchanges *x = c->exchanges;
    struct parcel *p = &x->parcels[x->now];
    CUDA_OK(cudaEventRecord(p->done, own_stream(be)));
    p->number = ++x->last;
    x->now = -1;
    be->lane = x->home;
    c->stream = c->lane[x->home].stream;
}

/* Adjacent ranges (up to alignment) are merged. If there are too many, the last one is extended. */
static void add_range(struct parcel *p, const void *data, size_t bytes, bool written)
{
    const char *at = data;
    struct range *last = p->n_ranges > 0 ? &p->ranges[p->n_ranges - 1] : NULL;
    bool follows = last && last->written == written && at >= last->at && at <= last->at + last->bytes + GAP;
    if (bytes == 0) return;
    if (!follows && p->n_ranges < RANGES) {
        p->ranges[p->n_ranges++] = (struct range){at, bytes, written};
        return;
    }
    const char *begin = at < last->at ? at : last->at, *end = last->at + last->bytes;
    if (at + bytes > end) end = at + bytes;
    *last = (struct range){begin, (size_t)(end - begin), last->written || written};
}

static void seen(struct mode_backend *be, long number)
{
    struct mode__exchanges *x = mode__cuda_of(be)->exchanges;
    x->seen[be->lane] = number;
    if (!mode__cuda_forked(be)) x->over = number;
}

cudaStream_t mode__exchange_enter(struct mode_backend *be)
{
    struct mode__cuda *c = mode__cuda_of(be);
    struct mode__exchanges *x = c->exchanges;
    MODE_ASSERT(!mode__graphs_capturing()); /* a graph that captured a communicator would outlive its abort */
    if (x->now >= 0) return own_stream(be);
    CUDA_OK(cudaEventRecord(x->turn, c->stream));
    CUDA_OK(cudaStreamWaitEvent(own_stream(be), x->turn, 0));
    return own_stream(be);
}

void mode__exchange_leave(struct mode_backend *be, void *out, size_t out_bytes, const void *in, size_t in_bytes)
{
    struct mode__cuda *c = mode__cuda_of(be);
    struct mode__exchanges *x = c->exchanges;
    if (x->now >= 0) {
        add_range(&x->parcels[x->now], out, out_bytes, true);
        add_range(&x->parcels[x->now], in, in_bytes, false);
        return;
    }
    CUDA_OK(cudaEventRecord(x->out, own_stream(be)));
    CUDA_OK(cudaStreamWaitEvent(c->stream, x->out, 0));
    seen(be, x->last);
}

/* Does the parcel's collective write t's memory or, if t is written, read it? */
static bool conflicts(const struct parcel *p, const struct mode_tensor *t, bool written)
{
    const char *at = t ? t->data : NULL;
    for (int i = 0; at && i < p->n_ranges; i++)
        if ((written || p->ranges[i].written) && at < p->ranges[i].at + p->ranges[i].bytes &&
            p->ranges[i].at < at + mode_tensor_bytes(t))
            return true;
    return false;
}

void mode__exchanges_used(struct mode_backend *be, struct mode_tensor *const *written,
                          const struct mode_tensor *const *read, int n)
{
    struct mode__exchanges *x = mode__cuda_of(be)->exchanges;
    if (!x) return;
    if (x->now >= 0) {
        for (int i = 0; i < n; i++) {
            if (written[i]) add_range(&x->parcels[x->now], written[i]->data, mode_tensor_bytes(written[i]), true);
            if (read[i]) add_range(&x->parcels[x->now], read[i]->data, mode_tensor_bytes(read[i]), false);
        }
        return;
    }
    long until = x->seen[be->lane] > x->over ? x->seen[be->lane] : x->over;
    const struct parcel *last = NULL;
    for (int k = 0; k < x->n && x->last > until; k++) {
        const struct parcel *p = &x->parcels[k];
        bool touched = false;
        for (int i = 0; i < n && p->number > until && !touched; i++)
            touched = conflicts(p, written[i], true) || conflicts(p, read[i], false);
        if (touched) until = p->number;
        if (touched) last = p;
    }
    if (!last) return;
    CUDA_OK(cudaStreamWaitEvent(mode__cuda_of(be)->stream, last->done, 0));
    seen(be, until);
}

void mode__exchanges_done(struct mode_backend *be)
{
    struct mode__exchanges *x = mode__cuda_of(be)->exchanges;
    if (x) x->over = x->last;
}
