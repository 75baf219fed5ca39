/* Groups of processes with a GPU each, by NCCL.
 *
 * There is one communicator, and all its collectives go to one stream (exchanges.c), in the same order in all
 * processes: two communicators could deadlock, each holding SMs that the other needs on another GPU. It is aborted when
 * the group cannot go on (nccl_watch.h), and the group's next call returns the reason. */
#include "nn/cuda/nccl.h"
#include "base/str.h"
#include "dist/meeting.h"
#include "dist/ranks.h"
#include "nn/cuda/exchanges.h"
#include "nn/cuda/nccl_watch.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct mode__nccl mode__nccl;

/* CTAS: at most so many SMs are taken from concurrent ops by a collective; NCCL_MAX_CTAS in the environment overrides
 * it. */
enum { NEWS_TEXT = 200, CTAS = 16 };

struct nccl_ranks {
    struct mode_meeting *meeting;
    struct mode_backend *be;
    struct mode__watch *watch;
    ncclComm_t comm; /* the watch destroys it; valid between mode__watch_enter and _leave */
};

static enum mode_status load(struct mode_error *err)
{
    static bool is_loaded;
    void *lib = is_loaded ? NULL : dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (is_loaded) return MODE_OK;
    if (!lib)
        return MODE_FAIL(err, MODE_E_DEVICE,
                         "several processes need NCCL, and libnccl.so.2 cannot be loaded: %s. HINT: install it or add "
                         "its folder to LD_LIBRARY_PATH",
                         dlerror());
#define X(name)                                                                                                        \
    {                                                                                                                  \
        void *f = dlsym(lib, #name);                                                                                   \
        if (!f) return MODE_FAIL(err, MODE_E_DEVICE, "this libnccl has no %s. HINT: install 2.14 or newer", #name);    \
        memcpy(&mode__nccl.name, &f, sizeof f);                                                                        \
    }
    MODE__NCCL_CALLS(X)
#undef X
    /* otherwise it allocates, and synchronises with the others, at the first collective of a new size */
    (void)setenv("NCCL_RUNTIME_CONNECT", "0", 0);
    is_loaded = true;
    return MODE_OK;
}

static ncclDataType_t type_of(enum mode_dtype dtype)
{
    return dtype == MODE_DTYPE_F32 ? ncclFloat32 : dtype == MODE_DTYPE_F64 ? ncclFloat64 : ncclUint8;
}

/* n is the element count per rank; out and in have out_rows and in_rows times as many. */
#define COLLECTIVE(out, out_rows, in, in_rows, ...)                                                                    \
    struct nccl_ranks *x = g->self;                                                                                    \
    const size_t bytes = n * mode_dtype_size(dtype);                                                                   \
    cudaStream_t s = mode__exchange_enter(x->be);                                                                      \
    if (!mode__watch_enter(x->watch)) return mode__watch_why(x->watch, err);                                           \
    mode__watch_leave(x->watch, __VA_ARGS__);                                                                          \
    mode__exchange_leave(x->be, out, (size_t)(out_rows)*bytes, in, (size_t)(in_rows)*bytes);                           \
    return mode__watch_why(x->watch, err)

static enum mode_status all_gather(struct mode_ranks *g, void *out, const void *in, size_t n, enum mode_dtype dtype,
                                   struct mode_error *err)
{
    COLLECTIVE(out, g->size, in, 1, mode__nccl.ncclAllGather(in, out, n, type_of(dtype), x->comm, s));
}

static enum mode_status reduce_scatter(struct mode_ranks *g, void *out, const void *in, size_t n, enum mode_dtype dtype,
                                       struct mode_error *err)
{
    COLLECTIVE(out, 1, in, g->size, mode__nccl.ncclReduceScatter(in, out, n, type_of(dtype), ncclSum, x->comm, s));
}

static enum mode_status all_reduce(struct mode_ranks *g, void *data, size_t n, enum mode_dtype dtype,
                                   struct mode_error *err)
{
    void *here = mode__cuda_shared(((struct nccl_ranks *)g->self)->be, data);
    if (here) data = here;
    COLLECTIVE(data, 1, data, 1, mode__nccl.ncclAllReduce(data, data, n, type_of(dtype), ncclSum, x->comm, s));
}

static enum mode_status broadcast(struct mode_ranks *g, void *data, size_t n, enum mode_dtype dtype,
                                  struct mode_error *err)
{
    COLLECTIVE(data, 1, data, 1, mode__nccl.ncclBroadcast(data, data, n, type_of(dtype), 0, x->comm, s));
}

/* Waiters on the stream are released by the abort, which comes after the watch knows the cause. */
static enum mode_status check(struct mode_ranks *g, struct mode_error *err)
{
    return mode__watch_why(((struct nccl_ranks *)g->self)->watch, err);
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
    if (in_order && !mode__watch_why(x->watch, NULL)) mode_backend_sync(x->be);
    mode__watch_close(&x->watch, in_order);
    mode__exchanges_close(x->be);
    mode_meeting_close(&x->meeting);
    free(x);
}

static const struct mode_ranks_ops nccl_ops = {"NCCL",      all_gather, reduce_scatter, all_reduce, broadcast, check,
                                               close_ranks, parcels,    made,           begin,      end};

/* NCCL's GPU memory is accounted for, as a model cannot use it. A communicator whose creation failed is leaked: its
 * state is unknown. */
static enum mode_status begin_nccl(struct nccl_ranks *x, ncclUniqueId id, struct mode_error *err)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    size_t before = 0, after = 0, total;
    config.maxCTAs = CTAS;
    bool known = cudaMemGetInfo(&before, &total) == cudaSuccess;
    if (!mode__watch_enter(x->watch)) return mode__watch_why(x->watch, err);
    ncclResult_t result = mode__nccl.ncclCommInitRankConfig(&x->comm, x->meeting->size, id, x->meeting->rank, &config);
    if (result == ncclSuccess) mode__watch_take(x->watch, x->comm);
    mode__watch_leave(x->watch, result);
    if (known && cudaMemGetInfo(&after, &total) == cudaSuccess && before > after)
        mode__cuda_took(mode__cuda_of(x->be), NULL, before - after);
    return mode__watch_why(x->watch, err);
}

static enum mode_status make_id(ncclUniqueId *id, const struct mode_meeting *m, struct mode_error *err)
{
    const ncclResult_t result = mode__nccl.ncclGetUniqueId(id);
    if (result == ncclSuccess) return MODE_OK;
    return MODE_FAIL(err, MODE_E_DEVICE, "NCCL cannot begin in process %d of %d: %s", m->rank, m->size,
                     mode__nccl.ncclGetErrorString(result));
}

/* No process may enter NCCL, where it would block, before all of them are able to. */
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
    *g = mode_xcalloc(1, sizeof **g);
    **g = (struct mode_ranks){m->rank, m->size, &nccl_ops, x};
    *x = (struct nccl_ranks){.meeting = m, .be = be};
    enum mode_status st = load(err);
    if (!st) st = mode__exchanges_open(be, err);
    if (!st && m->rank == 0) st = make_id(&ids[0], m, err);
    if ((st = all_ready(m, st, err))) goto out;
    if ((st = mode_meeting_all_gather(m, ids, sizeof *ids, err))) goto out;
    if ((st = mode__watch_open(&x->watch, m, err))) goto out;
    st = begin_nccl(x, ids[0], err);
out:
    free(ids);
    if (st) mode_ranks_close(g, false);
    return st;
}
