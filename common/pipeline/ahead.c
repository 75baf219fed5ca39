#include "pipeline/ahead.h"

#include "base/str.h"
#include "nn/backend.h"
#include "pipeline/windows.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct slot {
    struct mode_batch batch;
    enum mode_status status;
    struct mode_error err;
};

struct mode_ahead {
    struct mode_stream *stream;
    struct mode_backend *be;
    struct slot *ring;
    int n;        /* of the ring: one in use, the others prefetched */
    bool resizes; /* the device does, from windows */
    struct mode_batch *in_use;
    const struct mode_pictures *pictures; /* of the batch in use */
    uint64_t first, end;
    pthread_t thread;
    bool threaded;
    pthread_mutex_t lock; /* protects all below */
    pthread_cond_t changed;
    uint64_t filled, taken; /* steps ready or failed; steps handed out */
    bool closing;
};

static void fill(struct mode_ahead *a, uint64_t step)
{
    struct slot *s = &a->ring[(step - a->first) % (uint64_t)a->n];
    s->status = mode_stream_fill(a->stream, &s->batch, step, &s->err);
}

/* The slot of the step in use must not be overwritten: with n slots, at most n - 1 are filled ahead of it. */
static void *reader(void *ctx)
{
    struct mode_ahead *a = ctx;
    pthread_mutex_lock(&a->lock);
    while (!a->closing && a->filled < a->end) {
        uint64_t step = a->filled, in_use = a->taken > a->first ? a->taken - 1 : a->first;
        if (step >= in_use + (uint64_t)a->n) {
            pthread_cond_wait(&a->changed, &a->lock);
            continue;
        }
        pthread_mutex_unlock(&a->lock);
        fill(a, step);
        pthread_mutex_lock(&a->lock);
        a->filled++;
        pthread_cond_broadcast(&a->changed);
        if (a->ring[(step - a->first) % (uint64_t)a->n].status) break; /* no step after a failure is used */
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

/* Buffers of all slots for a device that resizes the pictures. */
static enum mode_status open_windows(struct mode_ahead *a, int64_t size, struct mode_error *err)
{
    const struct mode_preprocess *p = mode_stream_preprocess(a->stream);
    const size_t each = mode_windows_average(mode_stream_window_bytes(a->stream), size);
    enum mode_status st = MODE_OK;
    for (int i = 0; !st && i < a->n; i++) st = mode_windows_open(&a->ring[i].batch.windows, a->be, p, size, each, err);
    return st;
}

enum mode_status mode_ahead_open(struct mode_ahead **ahead, struct mode_stream *stream, struct mode_backend *be,
                                 bool resizes, int64_t size, int side, int context, uint64_t first, uint64_t end,
                                 int slots, struct mode_error *err)
{
    struct mode_ahead *a = *ahead = mode_xcalloc(1, sizeof *a);
    enum mode_status st = MODE_OK;
    MODE_ASSERT(slots >= 0 && first <= end);
    a->stream = stream;
    a->be = be;
    a->resizes = resizes;
    a->n = slots + 1;
    a->first = a->filled = a->taken = first;
    a->end = end;
    a->ring = mode_xcalloc((size_t)a->n, sizeof *a->ring);
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->changed, NULL);
    if (resizes) st = open_windows(a, size, err);
    for (int i = 0; !st && i < a->n; i++) {
        struct mode_batch *b = &a->ring[i].batch;
        struct mode_windows *windows = b->windows;
        st = mode_batch_init(b, size, windows ? 0 : side, context, err);
        b->windows = windows;
        if (!st && be && !windows)
            mode_backend_pin(be, b->pixels, (size_t)size * 3 * (size_t)side * (size_t)side * sizeof(float));
    }
    if (!st && slots > 0) {
        int e = pthread_create(&a->thread, NULL, reader, a);
        if (e) st = MODE_FAIL(err, MODE_E_GENERIC, "no thread to read batches ahead: %s", strerror(e));
        a->threaded = !e;
    }
    if (st) mode_ahead_close(ahead);
    return st;
}

enum mode_status mode_ahead_next(struct mode_ahead *a, const struct mode_batch **batch, struct mode_error *err)
{
    MODE_ASSERT(a->taken < a->end);
    struct slot *s = &a->ring[(a->taken - a->first) % (uint64_t)a->n];
    if (a->in_use) mode_windows_done(a->in_use->windows);
    a->in_use = NULL;
    pthread_mutex_lock(&a->lock);
    if (a->threaded) {
        while (a->filled <= a->taken) pthread_cond_wait(&a->changed, &a->lock);
    } else {
        fill(a, a->taken);
        a->filled++;
    }
    a->taken++;
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->lock);
    if (a->resizes && !s->status) {
        a->in_use = &s->batch;
        a->pictures = mode_windows_take(s->batch.windows);
    }
    *batch = &s->batch;
    if (s->status && err) *err = s->err;
    return s->status;
}

const struct mode_pictures *mode_ahead_pictures(const struct mode_ahead *a)
{
    return a->resizes ? a->pictures : NULL;
}

bool mode_ahead_resizes(struct mode_ahead *a, uint64_t *by_host)
{
    *by_host = 0;
    for (int i = 0; a->resizes && i < a->n; i++) *by_host += mode_windows_resized(a->ring[i].batch.windows);
    return a->resizes;
}

void mode_ahead_close(struct mode_ahead **ahead)
{
    struct mode_ahead *a = *ahead;
    if (!a) return;
    if (a->threaded) {
        pthread_mutex_lock(&a->lock);
        a->closing = true;
        pthread_cond_broadcast(&a->changed);
        pthread_mutex_unlock(&a->lock);
        pthread_join(a->thread, NULL);
    }
    for (int i = 0; i < a->n; i++) {
        mode_windows_close(&a->ring[i].batch.windows);
        if (a->be && a->ring[i].batch.pixels) mode_backend_unpin(a->be, a->ring[i].batch.pixels);
        mode_batch_clear(&a->ring[i].batch);
    }
    pthread_cond_destroy(&a->changed);
    pthread_mutex_destroy(&a->lock);
    free(a->ring);
    free(a);
    *ahead = NULL;
}
