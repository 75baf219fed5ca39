/* Sequences of ops as CUDA graphs: mode_backend_repeat of nn/backend.h.
 *
 * The first run of a sequence is eager: that creates plans, allocates scratch and sets kernel attributes, which a
 * capture does not allow. The second run is captured, and from then on the graph is launched. Graphs hold pointers, so
 * all are dropped when this backend frees memory. After a failed capture everything runs eagerly, and the reason is
 * kept for mode_backend_repeats. */
#include "nn/cuda/device.h"

#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GRAPHS = 32 };

struct graph {
    struct mode_sequence key;
    cudaGraphExec_t exec; /* NULL: has run once, eagerly */
    long used;            /* time of last use; 0: a free slot */
};

struct mode__graphs {
    bool off;
    cudaError_t failed; /* the first error while capturing */
    long clock;
    struct mode_backend_repeats stats;
    struct graph entries[GRAPHS];
};

static _Thread_local struct mode__graphs *capturing;

struct mode__graphs *mode__graphs_open(void)
{
    return mode_xcalloc(1, sizeof(struct mode__graphs));
}

void mode__graphs_close(struct mode__graphs **g)
{
    if (!*g) return;
    mode__graphs_drop(*g);
    free(*g);
    *g = NULL;
}

static void forget(struct graph *x)
{
    if (x->exec) (void)cudaGraphExecDestroy(x->exec);
    *x = (struct graph){0};
}

void mode__graphs_drop(struct mode__graphs *g)
{
    MODE_ASSERT(!capturing);
    for (int i = 0; i < GRAPHS; i++) forget(&g->entries[i]);
}

bool mode__graphs_failed(cudaError_t e)
{
    if (!capturing) return false;
    if (!capturing->failed) capturing->failed = e;
    return true;
}

bool mode__graphs_capturing(void)
{
    return capturing != NULL;
}

void mode__cuda_record(struct mode_backend *be, bool on)
{
    mode__cuda_of(be)->graphs->off = !on;
}

void mode__cuda_repeats(const struct mode_backend *be, struct mode_backend_repeats *r)
{
    *r = mode__cuda_of(be)->graphs->stats;
}

static struct graph *find(struct mode__graphs *g, const struct mode_sequence *key)
{
    for (int i = 0; i < GRAPHS; i++) {
        const struct mode_sequence *k = &g->entries[i].key;
        if (g->entries[i].used && k->owner == key->owner && memcmp(k->shape, key->shape, sizeof k->shape) == 0)
            return &g->entries[i];
    }
    return NULL;
}

/* A slot for a new sequence: free, or the least recently used. */
static struct graph *slot_for(struct mode__graphs *g, const struct mode_sequence *key)
{
    struct graph *x = &g->entries[0];
    for (int i = 1; i < GRAPHS; i++)
        if (g->entries[i].used < x->used) x = &g->entries[i];
    forget(x);
    x->key = *key;
    return x;
}

static cudaError_t capture(cudaGraph_t *graph, struct mode__graphs *g, cudaStream_t stream, void (*ops)(void *ctx),
                           void *ctx)
{
    cudaError_t e = cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), end;
    if (e != cudaSuccess) return e;
    g->failed = cudaSuccess;
    capturing = g;
    ops(ctx);
    capturing = NULL;
    end = cudaStreamEndCapture(stream, graph);
    return g->failed != cudaSuccess ? g->failed : end;
}

static bool capture_and_instantiate(struct mode__graphs *g, struct graph *x, cudaStream_t stream,
                                    void (*ops)(void *ctx), void *ctx)
{
    cudaGraph_t graph = NULL;
    cudaError_t e = capture(&graph, g, stream, ops, ctx);
    /* otherwise every node would get this stream's priority, and side streams would not yield to the branches */
    if (e == cudaSuccess) e = cudaGraphInstantiate(&x->exec, graph, cudaGraphInstantiateFlagUseNodePriority);
    if (graph) (void)cudaGraphDestroy(graph);
    if (e == cudaSuccess) {
        g->stats.recorded++;
        return true;
    }
    x->exec = NULL;
    (void)cudaGetLastError();
    snprintf(g->stats.why_not, sizeof g->stats.why_not, "CUDA does not record them as a graph: %s",
             cudaGetErrorString(e));
    return false;
}

void mode__cuda_repeat(struct mode_backend *be, const struct mode_sequence *key, void (*ops)(void *ctx), void *ctx)
{
    struct mode__cuda *c = mode__cuda_of(be);
    struct mode__graphs *g = c->graphs;
    bool eager = g->off || c->measuring || g->stats.why_not[0] || be->profile;
    struct graph *x = eager ? NULL : find(g, key);
    bool is_new = !eager && !x;
    MODE_ASSERT(!capturing && !mode__cuda_forked(be));
    if (is_new) x = slot_for(g, key);
    if (x) x->used = ++g->clock;
    if (eager || is_new || (!x->exec && !capture_and_instantiate(g, x, c->stream, ops, ctx))) {
        ops(ctx);
        g->stats.one_by_one++;
        return;
    }
    CUDA_OK(cudaGraphLaunch(x->exec, c->stream));
    g->stats.replayed++;
}
