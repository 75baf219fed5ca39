/* nccl.c - what is loaded in place of NCCL on the emulated GPU: the few functions that nn/cuda/nccl.c uses, between
 * processes of one machine, over the sockets of a mode_meeting. A call enqueues work in its stream, which communicates
 * when it runs. Like NCCL it does not notice that a peer has died: it waits until another thread aborts it, and then
 * writes nothing. Stricter than NCCL: use of a communicator from two streams, after its destruction or during its
 * abort, and calls that differ between processes, end the process.
 *
 * MODE_EMULATOR_LINK: a path. A process that calls a collective and finds a file there with its rank removes it, and
 * its links have failed: "<number of an ncclResult_t> <rank> [<how> [<first call that may>]]". How "ask": the call
 * blocks as for a dead peer, and ncclCommGetAsyncError returns the error; "call": the call itself returns it; "stop":
 * nothing fails, but the process stops itself (SIGSTOP) in that call.
 * MODE_EMULATOR_NCCL=slow: calls take long. =waits: the first collective blocks until the peers are there, as when NCCL
 * connects; of two processes 1 exits (3) while 0 is in it. =dies: process 1 exits while 0 creates the communicator. */
#include "nn/cuda/nccl.h"
#include "base/str.h"
#include "dist/meeting.h"
#include "dist/ranks.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { OTHER_ERROR = 3, SLOW_US = 20000 };

struct ncclComm {
    struct mode_meeting *meeting;
    int rank, size;
    cudaStream_t stream; /* that all calls must use */
    long calls;
    atomic_int inside; /* calls in progress */
    atomic_bool aborted;
    _Atomic(int) failed; /* ncclResult_t of failed links; 0: none failed */
    ncclComm_t left;     /* next in the list of aborted ones */
};

static void stop(const struct ncclComm *c, const char *what)
{
    fprintf(stderr, "emulated NCCL, process %d, call %ld: %s\n", c->rank, c->calls, what);
    abort();
}

static bool is_so(const char *how)
{
    const char *s = getenv("MODE_EMULATOR_NCCL");
    return s && strcmp(s, how) == 0;
}

static ncclComm_t left_behind; /* aborted ones, never freed: a thread may still be inside */

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    static int number;
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "/tmp/mode-nccl-%ld-%d", (long)getpid(), number++);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int size, ncclUniqueId id, int rank, ncclConfig_t *config)
{
    if (config->size != sizeof *config || config->magic != 0xcafebeef || config->maxCTAs < 1)
        return (ncclResult_t)OTHER_ERROR;
    const struct mode_meeting_options o = {.rank = rank, .size = size, .place = id.internal, .timeout_s = 20};
    struct ncclComm *c = mode_xcalloc(1, sizeof *c);
    struct mode_error err;
    c->rank = rank;
    c->size = size;
    *comm = c;
    if (rank == 1 && is_so("dies")) {
        while (unlink(o.place)) usleep(1000); /* until process 0 waits there */
        _exit(3);
    }
    return mode_meeting_open(&c->meeting, &o, &err) ? (ncclResult_t)OTHER_ERROR : ncclSuccess;
}

/* Calls that are blocked return. */
ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    if (atomic_exchange(&comm->aborted, true)) stop(comm, "it is aborted twice");
    for (int i = 0; i < 2; i++) {
        if (atomic_load(&comm->inside)) stop(comm, "it is freed while a call is under way");
        if (i == 0 && is_so("slow")) usleep(SLOW_US);
    }
    comm->left = left_behind;
    left_behind = comm;
    for (int r = 0; r < comm->size; r++)
        if (comm->meeting->fd[r] >= 0) (void)shutdown(comm->meeting->fd[r], SHUT_RDWR);
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    if (atomic_load(&comm->aborted)) stop(comm, "it is destroyed after its abort");
    mode_meeting_close(&comm->meeting);
    free(comm);
    return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *result)
{
    if (atomic_load(&comm->aborted)) stop(comm, "it is asked after its abort");
    *result = (ncclResult_t)atomic_load(&comm->failed);
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    switch ((int)result) {
    case 0: return "no error";
    case 1: return "unhandled cuda error";
    case 2: return "unhandled system error";
    case 6: return "remote process exited or there was a network error";
    default: return "internal error";
    }
}

const char *ncclGetLastError(ncclComm_t comm)
{
    (void)comm;
    return "an emulated link\nhas failed";
}

static size_t size_of(ncclDataType_t type)
{
    return type == ncclFloat64 ? 8 : type == ncclFloat32 ? 4 : 1;
}

enum kind { ALL_GATHER, REDUCE_SCATTER, ALL_REDUCE, BROADCAST };

struct call {
    ncclComm_t comm;
    const void *in;
    void *out;
    struct what { /* must be equal in all processes */
        long number, bytes;
        int kind, type;
    } what;
    size_t n;
};

/* all [size, bytes]; this process's row is at `in`. Blocks until the abort when a peer has ended, as NCCL does. */
static bool gather(ncclComm_t comm, void *all, const void *in, size_t bytes)
{
    struct mode_error err;
    if (atomic_load(&comm->aborted)) return false;
    memmove((char *)all + (size_t)comm->rank * bytes, in, bytes);
    if (!atomic_load(&comm->failed) && mode_meeting_all_gather(comm->meeting, all, bytes, &err) == MODE_OK) return true;
    while (!atomic_load(&comm->aborted)) usleep(1000);
    return false;
}

static bool all_agree(const struct call *c)
{
    struct what *all = mode_xcalloc((size_t)c->comm->size, sizeof *all);
    bool ok = gather(c->comm, all, &c->what, sizeof *all);
    for (int r = 0; r < c->comm->size && ok; r++)
        if (memcmp(&all[r], &c->what, sizeof *all) != 0) stop(c->comm, "another process is at another call");
    free(all);
    return ok;
}

/* out [n] = the sum over processes of row `from` of each one's [rows, n]; all [size, rows, n] */
static void add_up(const struct call *c, const char *all, size_t rows, size_t from)
{
    const bool wide = c->what.type == ncclFloat64;
    for (size_t i = 0; i < c->n; i++) {
        double sum = 0;
        float narrow = 0;
        for (int r = 0; r < c->comm->size; r++) {
            size_t at = ((size_t)r * rows + from) * c->n + i;
            if (wide)
                sum += ((const double *)all)[at];
            else
                narrow += ((const float *)all)[at];
        }
        if (wide)
            ((double *)c->out)[i] = sum;
        else
            ((float *)c->out)[i] = narrow;
    }
}

/* Runs in stream order. */
static void run(void *ctx)
{
    struct call *c = ctx;
    const size_t size = (size_t)c->comm->size, own = (size_t)c->comm->rank, bytes = (size_t)c->what.bytes;
    const bool scatter = c->what.kind == REDUCE_SCATTER;
    const size_t row = scatter ? size * bytes : bytes; /* contribution of a process */
    char *all = mode_xcalloc(size, row);
    if (all_agree(c) && gather(c->comm, all, c->in, row)) switch (c->what.kind) {
        case ALL_GATHER: memcpy(c->out, all, size * bytes); break;
        case BROADCAST: memcpy(c->out, all, bytes); break;
        default: add_up(c, all, scatter ? size : 1, scatter ? own : 0);
        }
    free(all);
    free(c);
}

/* A collective that returns only when all are there. */
static bool wait_for_all(ncclComm_t comm)
{
    char here[MODE_RANKS_MAX] = {0};
    const int other = comm->meeting->fd[1 - comm->rank];
    if (comm->rank == 1) _exit(recv(other, here, 1, 0) == 1 ? 3 : 4);
    return send(other, here, 1, MSG_NOSIGNAL) == 1 && gather(comm, here, here, 1);
}

/* Reads MODE_EMULATOR_LINK: the result that the call returns. */
static ncclResult_t look_for_failure(ncclComm_t comm)
{
    const char *path = getenv("MODE_EMULATOR_LINK");
    FILE *f = path ? fopen(path, "r") : NULL;
    int result = 0, rank = -1;
    char how[16] = "ask";
    long first = 0;
    if (!f) return ncclSuccess;
    const int n = fscanf(f, "%d %d %15s %ld", &result, &rank, how, &first);
    fclose(f);
    if (n < 2 || rank != comm->rank || comm->calls < first || unlink(path)) return ncclSuccess;
    if (strcmp(how, "stop") == 0) return raise(SIGSTOP) ? (ncclResult_t)OTHER_ERROR : ncclSuccess;
    atomic_store(&comm->failed, result);
    return strcmp(how, "call") == 0 ? (ncclResult_t)result : ncclSuccess;
}

static ncclResult_t put(enum kind kind, const void *in, void *out, size_t n, ncclDataType_t type, ncclComm_t comm,
                        cudaStream_t s)
{
    const long bytes = (long)(n * size_of(type));
    ncclResult_t result = ncclSuccess;
    atomic_fetch_add(&comm->inside, 1);
    if (atomic_load(&comm->aborted)) stop(comm, "it is used after its abort");
    if (is_so("slow")) usleep(SLOW_US);
    if (++comm->calls == 1 && is_so("waits") && !wait_for_all(comm)) result = (ncclResult_t)OTHER_ERROR;
    if (result == ncclSuccess) result = look_for_failure(comm);
    if (comm->stream && comm->stream != s) stop(comm, "one communicator serves two streams");
    comm->stream = s;
    if (result == ncclSuccess) {
        struct call *c = mode_xcalloc(1, sizeof *c);
        *c = (struct call){
            .comm = comm, .in = in, .out = out, .what = {comm->calls, bytes, (int)kind, (int)type}, .n = n};
        if (cudaLaunchHostFunc(s, run, c) != cudaSuccess) result = (ncclResult_t)OTHER_ERROR;
    }
    atomic_fetch_sub(&comm->inside, 1);
    return result;
}

ncclResult_t ncclAllGather(const void *in, void *out, size_t n, ncclDataType_t type, ncclComm_t comm, cudaStream_t s)
{
    return put(ALL_GATHER, in, out, n, type, comm, s);
}

ncclResult_t ncclReduceScatter(const void *in, void *out, size_t n, ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t s)
{
    return op == ncclSum ? put(REDUCE_SCATTER, in, out, n, type, comm, s) : (ncclResult_t)OTHER_ERROR;
}

ncclResult_t ncclAllReduce(const void *in, void *out, size_t n, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm,
                           cudaStream_t s)
{
    return op == ncclSum ? put(ALL_REDUCE, in, out, n, type, comm, s) : (ncclResult_t)OTHER_ERROR;
}

ncclResult_t ncclBroadcast(const void *in, void *out, size_t n, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t s)
{
    return root == 0 ? put(BROADCAST, in, out, n, type, comm, s) : (ncclResult_t)OTHER_ERROR;
}
