/* Branches of ops as streams, each with a side stream for weight gradients.
 *
 * The backward pass of a branch is a chain: every activation gradient needs the one before it. Weight gradients are not
 * read before the join, so their GEMMs go to the side stream ("beside" the branch). A launch there follows what the
 * branch has launched so far, and its inputs (an activation, an activation gradient) must not be overwritten until it
 * is done: `pending` lists them, and before an op of the branch writes to one, the branch's stream waits
 * (mode__cuda_writes, for every op). So models need not know when buffers are reused, and each wait is for exactly what
 * must be done. In a capture, waits become edges of the graph. */
#include "nn/cuda/device.h"

#include "base/str.h"

#include <stdlib.h>

enum { READS = 2, PENDING = 16 };

struct pending { /* launches on the side stream, and what they read */
    cudaEvent_t done;
    struct {
        const char *at;
        size_t bytes;
    } reads[READS];
};

struct beside {
    cudaEvent_t begun;
    struct pending ring[PENDING];
    int first, n; /* oldest entry; number of entries */
};

struct mode__streams {
    bool ready, forked;
    cudaEvent_t fork, end[MODE__EXCHANGES];
    bool used[MODE__EXCHANGES]; /* since the fork */
    struct beside beside[MODE_BRANCHES];
};

struct mode__streams *mode__streams_open(void)
{
    return mode_xcalloc(1, sizeof(struct mode__streams));
}

/* Enumerates all events; NULL after the last. */
static cudaEvent_t *event_of(struct mode__streams *s, int i)
{
    if (i == 0) return &s->fork;
    i -= 1;
    if (i < MODE__EXCHANGES) return &s->end[i];
    i -= MODE__EXCHANGES;
    if (i >= MODE_BRANCHES * (PENDING + 1)) return NULL;
    struct beside *b = &s->beside[i / (PENDING + 1)];
    i %= PENDING + 1;
    return i == PENDING ? &b->begun : &b->ring[i].done;
}

void mode__streams_close(struct mode__streams **s)
{
    if (!*s) return;
    for (int i = 0; event_of(*s, i); i++)
        if (*event_of(*s, i)) (void)cudaEventDestroy(*event_of(*s, i));
    free(*s);
    *s = NULL;
}

/* With a workspace on one lane and none on another, the same GEMM would not be bit-identical. */
static enum mode_status open_lane(struct mode_backend *be, int i, struct mode_error *err)
{
    struct mode__cuda *c = mode__cuda_of(be);
    enum mode_status st = c->lane[i].stream ? MODE_OK : mode__lane_open(be, i, err);
    if (!st && c->lane[0].workspace && !c->lane[i].workspace)
        st = MODE_FAIL(err, MODE_E_MEMORY,
                       "no GPU memory for the %d MiB of another stream. HINT: a smaller batch, or "
                       "--no-streams",
                       MODE__WORKSPACE >> 20);
    return st;
}

enum mode_status mode__cuda_branches(struct mode_backend *be, struct mode_error *err)
{
    struct mode__cuda *c = mode__cuda_of(be);
    struct mode__streams *s = c->streams;
    enum mode_status st = MODE_OK;
    if (s->ready) return MODE_OK;
    for (int i = 1; i < MODE__EXCHANGES && !st; i++) st = open_lane(be, i, err);
    for (int i = 0; event_of(s, i) && !st; i++)
        if (!*event_of(s, i) && cudaEventCreateWithFlags(event_of(s, i), cudaEventDisableTiming) != cudaSuccess)
            st = MODE_FAIL(err, MODE_E_DEVICE, "backend \"cuda\": an event cannot be made");
    if (st) return st;
    for (int i = 1; i < MODE__EXCHANGES; i++) mode__cuda_took(c, c->lane[i].workspace, MODE__WORKSPACE);
    s->ready = true;
    return MODE_OK;
}

static void switch_to(struct mode_backend *be, int lane)
{
    struct mode__cuda *c = mode__cuda_of(be);
    be->lane = lane;
    c->stream = c->lane[lane].stream;
}

static void wait_for(struct mode_backend *be, cudaEvent_t e)
{
    CUDA_OK(cudaStreamWaitEvent(mode__cuda_of(be)->stream, e, 0));
}

bool mode__cuda_forked(const struct mode_backend *be)
{
    return mode__cuda_of(be)->streams->forked;
}

bool mode__beside_used(const struct mode_backend *be)
{
    const struct mode__streams *s = mode__cuda_of(be)->streams;
    return s->forked && s->used[MODE_BRANCHES + be->lane];
}

void mode__cuda_fork(struct mode_backend *be)
{
    struct mode__cuda *c = mode__cuda_of(be);
    struct mode__streams *s = c->streams;
    MODE_ASSERT(!s->forked);
    if (!s->ready || c->measuring || be->profile) return;
    s->forked = true;
    for (int i = 0; i < MODE__EXCHANGES; i++) s->used[i] = i == 0;
    CUDA_OK(cudaEventRecord(s->fork, c->stream));
}

void mode__cuda_branch(struct mode_backend *be, int i)
{
    struct mode__streams *s = mode__cuda_of(be)->streams;
    if (!s->forked) return;
    switch_to(be, i);
    if (!s->used[i]) wait_for(be, s->fork);
    s->used[i] = true;
}

void mode__cuda_join(struct mode_backend *be)
{
    struct mode__cuda *c = mode__cuda_of(be);
    struct mode__streams *s = c->streams;
    if (!s->forked) return;
    switch_to(be, 0);
    for (int i = 1; i < MODE__EXCHANGES; i++) {
        if (!s->used[i]) continue;
        CUDA_OK(cudaEventRecord(s->end[i], c->lane[i].stream));
        wait_for(be, s->end[i]);
    }
    for (int i = 0; i < MODE_BRANCHES; i++) s->beside[i].n = 0;
    s->forked = false;
}

/* The branch waits for its oldest n pending launches. They are in stream order: waiting for the last of them suffices.
 */
static void wait_for_oldest(struct mode_backend *be, struct beside *b, int n)
{
    if (n == 0) return;
    wait_for(be, b->ring[(b->first + n - 1) % PENDING].done);
    b->first = (b->first + n) % PENDING;
    b->n -= n;
}

void mode__beside_begin(struct mode_backend *be)
{
    struct mode__cuda *c = mode__cuda_of(be);
    struct mode__streams *s = c->streams;
    if (!s->forked) return;
    struct beside *b = &s->beside[be->lane];
    if (b->n == PENDING) wait_for_oldest(be, b, 1);
    CUDA_OK(cudaEventRecord(b->begun, c->stream));
    switch_to(be, MODE_BRANCHES + be->lane);
    s->used[be->lane] = true;
    wait_for(be, b->begun);
}

void mode__beside_end(struct mode_backend *be, const struct mode_tensor *x, const struct mode_tensor *y)
{
    struct mode__cuda *c = mode__cuda_of(be);
    struct mode__streams *s = c->streams;
    if (!s->forked) return;
    struct beside *b = &s->beside[be->lane - MODE_BRANCHES];
    struct pending *p = &b->ring[(b->first + b->n++) % PENDING];
    const struct mode_tensor *read[READS] = {x, y};
    for (int i = 0; i < READS; i++) {
        p->reads[i].at = read[i]->data;
        p->reads[i].bytes = mode_tensor_bytes(read[i]);
    }
    CUDA_OK(cudaEventRecord(p->done, c->stream));
    switch_to(be, be->lane - MODE_BRANCHES);
}

static bool is_read(const struct pending *p, const struct mode_tensor *t)
{
    const char *at = t->data;
    for (int i = 0; i < READS; i++)
        if (at < p->reads[i].at + p->reads[i].bytes && p->reads[i].at < at + mode_tensor_bytes(t)) return true;
    return false;
}

void mode__cuda_writes(struct mode_backend *be, struct mode_tensor *const *written, int n)
{
    struct mode__streams *s = mode__cuda_of(be)->streams;
    int until = 0;
    if (!s->forked || be->lane == MODE__EXCHANGES) return;
    struct beside *b = &s->beside[be->lane];
    for (int k = 0; k < n; k++)
        for (int i = until; written[k] && i < b->n; i++)
            if (is_read(&b->ring[(b->first + i) % PENDING], written[k])) until = i + 1;
    wait_for_oldest(be, b, until);
}
