/* Groups of processes with a GPU each, by NCCL.
 *
 * There is one communicator, and all its calls go to one stream (exchanges.c), in the same order in all processes: two
 * communicators at a time could each hold multiprocessors that the other needs elsewhere. NCCL does not notice that a
 * process has died, and waits for it on the GPU for ever. So a thread watches the connections of the meeting: when one
 * ends without a goodbye, the communicator is aborted, which ends what waits on the stream, and the next call of the
 * group says who has gone. Process 0 passes the news on. */
#include "nn/cuda/nccl.h"
#include "base/str.h"
#include "dist/meeting.h"
#include "dist/ranks.h"
#include "nn/cuda/exchanges.h"

#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define NCCL_CALLS(X)                                                                                                  \
    X(ncclGetUniqueId)                                                                                                 \
    X(ncclCommInitRankConfig)                                                                                          \
    X(ncclCommAbort)                                                                                                   \
    X(ncclCommDestroy) X(ncclGetErrorString) X(ncclAllGather) X(ncclReduceScatter) X(ncclAllReduce) X(ncclBroadcast)

static struct {
#define X(name) __typeof__(&name) name;
    NCCL_CALLS(X)
#undef X
} nccl;

/* CTAS: multiprocessors that an exchange takes from the ops beside it, at most; NCCL_MAX_CTAS in the environment goes
 * first. */
enum { GOODBYE = -1, NEWS_TEXT = 200, CTAS = 16 };

struct nccl_ranks {
    struct mode_meeting *meeting;
    struct mode_backend *be;
    ncclComm_t comm;
    pthread_t watch;
    bool watched;
    int wake[2]; /* a pipe: its end ends the watch */
    pthread_mutex_t lock;
    int lost; /* the rank that has ended, -1: none; the communicator is gone then */
};

static enum mode_status load(struct mode_error *err)
{
    void *lib = nccl.ncclGetUniqueId ? NULL : dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (nccl.ncclGetUniqueId) return MODE_OK;
    if (!lib)
        return MODE_FAIL(err, MODE_E_DEVICE,
                         "several processes need NCCL, and libnccl.so.2 cannot be loaded: %s. HINT: install it or add "
                         "its folder to LD_LIBRARY_PATH",
                         dlerror());
#define X(name)                                                                                                        \
    {                                                                                                                  \
        void *f = dlsym(lib, #name);                                                                                   \
        if (!f) return MODE_FAIL(err, MODE_E_DEVICE, "this libnccl has no %s", #name);                                 \
        memcpy(&nccl.name, &f, sizeof f);                                                                              \
    }
    NCCL_CALLS(X)
#undef X
    return MODE_OK;
}

static int lost_rank(struct nccl_ranks *x)
{
    pthread_mutex_lock(&x->lock);
    int lost = x->lost;
    pthread_mutex_unlock(&x->lock);
    return lost;
}

/* A rank has ended. The caller of a collective may be inside NCCL: aborting from here is what ends that. */
static void lose(struct nccl_ranks *x, int rank)
{
    pthread_mutex_lock(&x->lock);
    bool first = x->lost < 0;
    if (first) x->lost = rank;
    pthread_mutex_unlock(&x->lock);
    if (!first) return;
    const int32_t news = rank;
    for (int r = 1; x->meeting->rank == 0 && r < x->meeting->size; r++)
        if (r != rank) (void)send(x->meeting->fd[r], &news, sizeof news, MSG_NOSIGNAL);
    (void)nccl.ncclCommAbort(x->comm);
}

/* Until woken, or until all others have said goodbye. What arrives: a rank that has ended, or goodbye. */
static void *watch(void *ctx)
{
    struct nccl_ranks *x = ctx;
    struct mode_meeting *m = x->meeting;
    struct pollfd p[MODE_RANKS_MAX + 1];
    int n = m->rank == 0 ? m->size : 1;
    for (int r = 0; r < n; r++) p[r] = (struct pollfd){.fd = m->fd[r], .events = POLLIN};
    p[n] = (struct pollfd){.fd = x->wake[0], .events = POLLIN};
    for (;;) {
        if (poll(p, (nfds_t)n + 1, -1) < 0 && errno != EINTR) break;
        if (p[n].revents) break;
        for (int r = 0; r < n; r++) {
            int32_t news = 0;
            if (p[r].fd < 0 || !p[r].revents) continue;
            ssize_t got = recv(p[r].fd, &news, sizeof news, MSG_WAITALL);
            p[r].fd = -1; /* nothing follows */
            if (got == (ssize_t)sizeof news && news == GOODBYE) continue;
            lose(x, got == (ssize_t)sizeof news ? news : m->rank == 0 ? r : 0);
        }
    }
    return NULL;
}

static enum mode_status gone(const struct mode_ranks *g, int rank, struct mode_error *err)
{
    return MODE_FAIL(err, MODE_E_PEER,
                     "process %d of %d has ended, so process %d cannot go on. HINT: its own message says why; --resume "
                     "goes on from the last checkpoint",
                     rank, g->size, g->rank);
}

static enum mode_status done(struct mode_ranks *g, ncclResult_t result, struct mode_error *err)
{
    int lost = lost_rank(g->self);
    if (lost >= 0) return gone(g, lost, err);
    if (result == ncclSuccess) return MODE_OK;
    return MODE_FAIL(err, MODE_E_DEVICE, "NCCL, process %d of %d: %s", g->rank, g->size,
                     nccl.ncclGetErrorString(result));
}

static ncclDataType_t type_of(enum mode_dtype dtype)
{
    return dtype == MODE_DTYPE_F32 ? ncclFloat32 : dtype == MODE_DTYPE_F64 ? ncclFloat64 : ncclUint8;
}

/* n numbers are out's and in's; those that a process has a row each of are `rows` times as many. */
#define COLLECTIVE(out, out_rows, in, in_rows, ...)                                                                    \
    struct nccl_ranks *x = g->self;                                                                                    \
    int lost = lost_rank(x);                                                                                           \
    if (lost >= 0) return gone(g, lost, err);                                                                          \
    const size_t bytes = n * mode_dtype_size(dtype);                                                                   \
    cudaStream_t s = mode__exchange_enter(x->be);                                                                      \
    ncclResult_t result = __VA_ARGS__;                                                                                 \
    mode__exchange_leave(x->be, out, (size_t)(out_rows)*bytes, in, (size_t)(in_rows)*bytes);                           \
    return done(g, result, err)

static enum mode_status all_gather(struct mode_ranks *g, void *out, const void *in, size_t n, enum mode_dtype dtype,
                                   struct mode_error *err)
{
    COLLECTIVE(out, g->size, in, 1, nccl.ncclAllGather(in, out, n, type_of(dtype), x->comm, s));
}

static enum mode_status reduce_scatter(struct mode_ranks *g, void *out, const void *in, size_t n, enum mode_dtype dtype,
                                       struct mode_error *err)
{
    COLLECTIVE(out, 1, in, g->size, nccl.ncclReduceScatter(in, out, n, type_of(dtype), ncclSum, x->comm, s));
}

static enum mode_status all_reduce(struct mode_ranks *g, void *data, size_t n, enum mode_dtype dtype,
                                   struct mode_error *err)
{
    COLLECTIVE(data, 1, data, 1, nccl.ncclAllReduce(data, data, n, type_of(dtype), ncclSum, x->comm, s));
}

static enum mode_status broadcast(struct mode_ranks *g, void *data, size_t n, enum mode_dtype dtype,
                                  struct mode_error *err)
{
    COLLECTIVE(data, 1, data, 1, nccl.ncclBroadcast(data, data, n, type_of(dtype), 0, x->comm, s));
}

/* Who waits on the stream is let go by the abort, which comes after the news. */
static enum mode_status check(struct mode_ranks *g, struct mode_error *err)
{
    return done(g, ncclSuccess, err);
}

static struct mode_backend *backend_of(const struct mode_ranks *g)
{
    return ((struct nccl_ranks *)g->self)->be;
}

static enum mode_status parcels(struct mode_ranks *g, int n, int *first, struct mode_error *err)
{
    return mode__exchanges_parcels(backend_of(g), n, first, err);
}

static void made(struct mode_ranks *g, int parcel)
{
    mode__exchanges_made(backend_of(g), parcel);
}

static void begin(struct mode_ranks *g, int parcel)
{
    mode__exchanges_begin(backend_of(g), parcel);
}

static void end(struct mode_ranks *g)
{
    mode__exchanges_end(backend_of(g));
}

static void close_ranks(struct mode_ranks *g, bool in_order)
{
    struct nccl_ranks *x = g->self;
    const int32_t news = GOODBYE;
    if (in_order && lost_rank(x) < 0) mode_backend_sync(x->be);
    for (int r = 0; in_order && r < x->meeting->size; r++)
        if (x->meeting->fd[r] >= 0) (void)send(x->meeting->fd[r], &news, sizeof news, MSG_NOSIGNAL);
    if (x->watched) {
        close(x->wake[1]);
        pthread_join(x->watch, NULL);
        close(x->wake[0]);
    }
    if (x->comm && x->lost < 0) (void)(in_order ? nccl.ncclCommDestroy(x->comm) : nccl.ncclCommAbort(x->comm));
    mode__exchanges_close(x->be);
    mode_meeting_close(&x->meeting);
    pthread_mutex_destroy(&x->lock);
    free(x);
}

static const struct mode_ranks_ops nccl_ops = {"NCCL",      all_gather, reduce_scatter, all_reduce, broadcast, check,
                                               close_ranks, parcels,    made,           begin,      end};

/* What NCCL takes of the GPU's memory is no longer there for a model. */
static ncclResult_t begin_nccl(struct nccl_ranks *x, ncclUniqueId id)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    size_t before = 0, after = 0, total;
    config.maxCTAs = CTAS;
    bool known = cudaMemGetInfo(&before, &total) == cudaSuccess;
    ncclResult_t result = nccl.ncclCommInitRankConfig(&x->comm, x->meeting->size, id, x->meeting->rank, &config);
    if (known && cudaMemGetInfo(&after, &total) == cudaSuccess && before > after)
        mode__cuda_took(mode__cuda_of(x->be), NULL, before - after);
    return result;
}

/* Nobody begins to wait inside NCCL before all are able to come. */
static enum mode_status all_ready(struct mode_meeting *m, enum mode_status own, struct mode_error *err)
{
    struct news {
        int32_t status;
        char text[NEWS_TEXT];
    } *all = mode_xcalloc((size_t)m->size, sizeof *all);
    all[m->rank].status = (int32_t)own;
    if (own && err) snprintf(all[m->rank].text, NEWS_TEXT, "%.*s", NEWS_TEXT - 1, err->text);
    enum mode_status st = mode_meeting_all_gather(m, all, sizeof *all, err);
    for (int r = 0; r < m->size && !st && !own; r++)
        if (all[r].status) st = MODE_FAIL(err, MODE_E_PEER, "process %d of %d: %s", r, m->size, all[r].text);
    free(all);
    return own ? own : st;
}

enum mode_status mode__cuda_ranks(struct mode_ranks **g, struct mode_backend *be, struct mode_meeting *m,
                                  struct mode_error *err)
{
    struct nccl_ranks *x = mode_xcalloc(1, sizeof *x);
    ncclUniqueId *ids = mode_xcalloc((size_t)m->size, sizeof *ids);
    ncclResult_t result = ncclSuccess;
    *g = mode_xcalloc(1, sizeof **g);
    **g = (struct mode_ranks){m->rank, m->size, &nccl_ops, x};
    *x = (struct nccl_ranks){.meeting = m, .be = be, .lost = -1};
    pthread_mutex_init(&x->lock, NULL);
    enum mode_status st = load(err);
    if (!st) st = mode__exchanges_open(be, err);
    if (!st && m->rank == 0) st = done(*g, nccl.ncclGetUniqueId(&ids[0]), err);
    if (!st && pipe(x->wake)) st = MODE_FAIL(err, MODE_E_GENERIC, "no pipe to be had: %s", strerror(errno));
    if ((st = all_ready(m, st, err))) goto out;
    if ((st = mode_meeting_all_gather(m, ids, sizeof *ids, err))) goto out;
    result = begin_nccl(x, ids[0]);
    if ((st = done(*g, result, err))) goto out;
    if ((st = mode_meeting_barrier(m, err))) goto out;
    int e = pthread_create(&x->watch, NULL, watch, x);
    x->watched = !e;
    if (e) st = MODE_FAIL(err, MODE_E_GENERIC, "no thread to watch the other processes: %s", strerror(e));
out:
    free(ids);
    if (st) mode_ranks_close(g, false);
    return st;
}
