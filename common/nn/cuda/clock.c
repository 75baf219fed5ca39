/* The profiler: events around every op and around the GEMMs in it, so that it counts what the GPU was busy with, not
 * what the host waited for. Events are read on demand, or when many are pending. */
#include "nn/cuda/clock.h"

#include "base/str.h"
#include "nn/cuda/device.h"

#include <stdlib.h>

enum { MAX_PENDING = 2048 }; /* spans not yet read */

struct span {
    cudaEvent_t begin, end;
    enum mode__op op;
    bool product; /* a GEMM's span, inside the op's */
};

struct mode__clock {
    size_t n, n_made; /* spans in use; spans with events */
    size_t op, part;  /* the current op's span, the current GEMM's */
    struct span *span;
};

void mode__clock_close(struct mode__clock **k)
{
    if (!*k) return;
    for (size_t i = 0; i < (*k)->n_made; i++) {
        (void)cudaEventDestroy((*k)->span[i].begin);
        (void)cudaEventDestroy((*k)->span[i].end);
    }
    free((*k)->span);
    free(*k);
    *k = NULL;
}

void mode__cuda_clock_read(struct mode_backend *be)
{
    struct mode__clock *k = mode__cuda_of(be)->clock;
    if (!k) return;
    mode_backend_sync(be);
    for (size_t i = 0; i < k->n; i++) {
        const struct span *s = &k->span[i];
        float ms;
        CUDA_OK(cudaEventElapsedTime(&ms, s->begin, s->end));
        *(s->product ? &be->time[s->op].products : &be->time[s->op].seconds) += 1e-3 * ms;
    }
    k->n = 0;
}

static size_t begin(struct mode_backend *be, enum mode__op op, bool product)
{
    struct mode__cuda *c = mode__cuda_of(be);
    struct mode__clock *k = c->clock;
    size_t i = k->n++;
    if (i == k->n_made) {
        k->span = mode_xrealloc(k->span, (i + 1) * sizeof *k->span);
        CUDA_OK(cudaEventCreate(&k->span[i].begin));
        CUDA_OK(cudaEventCreate(&k->span[i].end));
        k->n_made++;
    }
    k->span[i].op = op;
    k->span[i].product = product;
    CUDA_OK(cudaEventRecord(k->span[i].begin, c->stream));
    return i;
}

void mode__cuda_clock_begin(struct mode_backend *be, enum mode__op op)
{
    struct mode__cuda *c = mode__cuda_of(be);
    if (!c->clock) c->clock = mode_xcalloc(1, sizeof *c->clock);
    if (c->clock->n > MAX_PENDING) mode__cuda_clock_read(be);
    c->clock->op = begin(be, op, false);
}

void mode__cuda_clock_end(struct mode_backend *be)
{
    struct mode__cuda *c = mode__cuda_of(be);
    CUDA_OK(cudaEventRecord(c->clock->span[c->clock->op].end, c->stream));
}

void mode__clock_product_begin(struct mode_backend *be)
{
    struct mode__clock *k = mode__cuda_of(be)->clock;
    if (be->profile && k) k->part = begin(be, k->span[k->op].op, true);
}

void mode__clock_product_end(struct mode_backend *be)
{
    struct mode__cuda *c = mode__cuda_of(be);
    if (be->profile && c->clock) CUDA_OK(cudaEventRecord(c->clock->span[c->clock->part].end, c->stream));
}
