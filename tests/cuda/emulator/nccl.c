/* nccl.c - what is loaded in NCCL's place where GPUs are emulated: the few functions that nn/cuda/nccl.c uses, between
 * processes of one machine, over the sockets of a meeting. As NCCL it notices no death: a call waits until it is
 * aborted from another thread. Calls are done when they return. */
#include "nn/cuda/nccl.h"
#include "base/str.h"
#include "dist/meeting.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { OTHER_ERROR = 6 };

struct ncclComm {
    struct mode_meeting *meeting;
    int rank, size;
    atomic_bool aborted;
    ncclComm_t left; /* the one that was aborted before this one */
};

static ncclComm_t left_behind; /* aborted, perhaps still waited in: their memory is left to the process */

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    static int number;
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "/tmp/mode-nccl-%ld-%d", (long)getpid(), number++);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int size, ncclUniqueId id, int rank)
{
    const struct mode_meeting_options o = {.rank = rank, .size = size, .place = id.internal, .timeout_s = 20};
    struct ncclComm *c = mode_xcalloc(1, sizeof *c);
    struct mode_error err;
    c->rank = rank;
    c->size = size;
    *comm = c;
    return mode_meeting_open(&c->meeting, &o, &err) ? (ncclResult_t)OTHER_ERROR : ncclSuccess;
}

/* Whoever waits in a call returns. */
ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    comm->left = left_behind;
    left_behind = comm;
    atomic_store(&comm->aborted, true);
    for (int r = 0; r < comm->size; r++)
        if (comm->meeting->fd[r] >= 0) (void)shutdown(comm->meeting->fd[r], SHUT_RDWR);
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    mode_meeting_close(&comm->meeting);
    free(comm);
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    return result == ncclSuccess ? "no error" : "an emulated call was aborted";
}

static size_t size_of(ncclDataType_t type)
{
    return type == ncclFloat64 ? 8 : type == ncclFloat32 ? 4 : 1;
}

/* all [size, bytes]; the own row is at `in`. A process that has ended is waited for, as by NCCL, until the abort. */
static ncclResult_t gather(ncclComm_t comm, void *all, const void *in, size_t bytes, cudaStream_t s)
{
    struct mode_error err;
    if (cudaStreamSynchronize(s) != cudaSuccess) return (ncclResult_t)OTHER_ERROR;
    memmove((char *)all + (size_t)comm->rank * bytes, in, bytes);
    if (mode_meeting_all_gather(comm->meeting, all, bytes, &err) == MODE_OK) return ncclSuccess;
    while (!atomic_load(&comm->aborted)) usleep(1000);
    return (ncclResult_t)OTHER_ERROR;
}

/* out [n] = the sum over processes of their in [from, from + n), in [rows] */
static ncclResult_t sum(ncclComm_t comm, void *out, const void *in, size_t rows, size_t from, size_t n,
                        ncclDataType_t type, cudaStream_t s)
{
    char *all = mode_xmalloc((size_t)comm->size * rows * size_of(type));
    ncclResult_t result = gather(comm, all, in, rows * size_of(type), s);
    for (size_t i = 0; i < n && result == ncclSuccess; i++) {
        double wide = 0;
        float narrow = 0;
        for (int r = 0; r < comm->size; r++) {
            const void *x = all + ((size_t)r * rows + from + i) * size_of(type);
            if (type == ncclFloat64)
                wide += *(const double *)x;
            else
                narrow += *(const float *)x;
        }
        if (type == ncclFloat64)
            ((double *)out)[i] = wide;
        else
            ((float *)out)[i] = narrow;
    }
    free(all);
    return result;
}

ncclResult_t ncclAllGather(const void *in, void *out, size_t n, ncclDataType_t type, ncclComm_t comm, cudaStream_t s)
{
    return gather(comm, out, in, n * size_of(type), s);
}

ncclResult_t ncclReduceScatter(const void *in, void *out, size_t n, ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t s)
{
    if (op != ncclSum) return (ncclResult_t)OTHER_ERROR;
    return sum(comm, out, in, n * (size_t)comm->size, n * (size_t)comm->rank, n, type, s);
}

ncclResult_t ncclAllReduce(const void *in, void *out, size_t n, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm,
                           cudaStream_t s)
{
    if (op != ncclSum) return (ncclResult_t)OTHER_ERROR;
    return sum(comm, out, in, n, 0, n, type, s);
}

ncclResult_t ncclBroadcast(const void *in, void *out, size_t n, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t s)
{
    char *all = mode_xmalloc((size_t)comm->size * n * size_of(type));
    ncclResult_t result = gather(comm, all, in, n * size_of(type), s);
    if (result == ncclSuccess) memcpy(out, all + (size_t)root * n * size_of(type), n * size_of(type));
    free(all);
    return result;
}
