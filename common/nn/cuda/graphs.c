/* Sequences of ops as CUDA graphs: mode_backend_repeat of nn/backend.h.
 *
 * A sequence that is met for the first time runs op by op: that makes plans, takes scratch and raises kernels' limits,
 * none of which a capture allows. The second time it is captured, and from then on its graph is launched. A graph holds
 * pointers, so all are dropped when this backend gives memory back. What the driver will not capture is run op by op
 * from then on, and why is kept for who asks. */
#include "nn/cuda/device.h"

#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GRAPHS = 32 };

struct graph {
    struct mode_sequence key;
    cudaGraphExec_t exec; /* NULL: met once */
    long used;            /* when last; 0: a free place */
};

struct mode__graphs {
    bool off;
    cudaError_t failed; /* while capturing */
    long clock;
    struct mode_backend_repeats told;
    struct graph of[GRAPHS];
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
    for (int i = 0; i < GRAPHS; i++) forget(&g->of[i]);
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
    *r = mode__cuda_of(be)->graphs->told;
}

static struct graph *find(struct mode__graphs *g, const struct mode_sequence *key)
{
    for (int i = 0; i < GRAPHS; i++) {
        const struct mode_sequence *k = &g->of[i].key;
        if (g->of[i].used && k->owner == key->owner && memcmp(k->shape, key->shape, sizeof k->shape) == 0)
            return &g->of[i];
    }
    return NULL;
}

/* A place for a new sequence: the one that was not used for longest makes room. */
static struct graph *place_for(struct mode__graphs *g, const struct mode_sequence *key)
{
    struct graph *x = &g->of[0];
    for (int i = 1; i < GRAPHS; i++)
        if (g->of[i].used < x->used) x = &g->of[i];
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

static bool record(struct mode__graphs *g, struct graph *x, cudaStream_t stream, void (*ops)(void *ctx), void *ctx)
{
    cudaGraph_t graph = NULL;
    cudaError_t e = capture(&graph, g, stream, ops, ctx);
    /* else all of it would run as what this stream is, and what lies beside the branches would not give way to them */
    if (e == cudaSuccess) e = cudaGraphInstantiate(&x->exec, graph, cudaGraphInstantiateFlagUseNodePriority);
    if (graph) (void)cudaGraphDestroy(graph);
    if (e == cudaSuccess) {
        g->told.recorded++;
        return true;
    }
    x->exec = NULL;
    (void)cudaGetLastError();
    snprintf(g->told.why_not, sizeof g->told.why_not, "CUDA does not record them as a graph: %s",
             cudaGetErrorString(e));
    return false;
}

void mode__cuda_repeat(struct mode_backend *be, const struct mode_sequence *key, void (*ops)(void *ctx), void *ctx)
{
    struct mode__cuda *c = mode__cuda_of(be);
    struct mode__graphs *g = c->graphs;
    bool one_by_one = g->off || c->measuring || g->told.why_not[0] || be->profile;
    struct graph *x = one_by_one ? NULL : find(g, key);
    bool is_new = !one_by_one && !x;
    MODE_ASSERT(!capturing && !mode__cuda_forked(be));
    if (is_new) x = place_for(g, key);
    if (x) x->used = ++g->clock;
    if (one_by_one || is_new || (!x->exec && !record(g, x, c->stream, ops, ctx))) {
        ops(ctx);
        g->told.one_by_one++;
        return;
    }
    CUDA_OK(cudaGraphLaunch(x->exec, c->stream));
    g->told.replayed++;
}
