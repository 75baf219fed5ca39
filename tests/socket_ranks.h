/* socket_ranks.h - a group of processes on one machine over the sockets of their rendezvous, for tests: every rank
 * computes every reduction from all parts, in rank order. And functions that start such processes. */
#ifndef MODE_TESTS_SOCKET_RANKS_H
#define MODE_TESTS_SOCKET_RANKS_H

#include "base/error.h"
#include "base/str.h"
#include "dist/meeting.h"
#include "dist/ranks.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MEET_S = 300 }; /* enough to start all of them on a slow, loaded machine */

static inline enum mode_status socket_all_gather(struct mode_ranks *g, void *out, const void *in, size_t n,
                                                 enum mode_dtype dtype, struct mode_error *err)
{
    size_t bytes = n * mode_dtype_size(dtype);
    memmove((char *)out + (size_t)g->rank * bytes, in, bytes);
    return mode_meeting_all_gather(g->self, out, bytes, err);
}

/* out [n] = the sum over ranks of rows [from, from + n) of their in [rows] */
static inline enum mode_status socket_sum(struct mode_ranks *g, void *out, const void *in, size_t rows, size_t from,
                                          size_t n, enum mode_dtype dtype, struct mode_error *err)
{
    size_t size = mode_dtype_size(dtype);
    char *all = mode_xmalloc((size_t)g->size * rows * size);
    enum mode_status st = socket_all_gather(g, all, in, rows, dtype, err);
    for (size_t i = 0; i < n && !st; i++) {
        double sum = 0;
        float sum32 = 0;
        for (int r = 0; r < g->size; r++) {
            const void *x = all + ((size_t)r * rows + from + i) * size;
            if (dtype == MODE_DTYPE_F64)
                sum += *(const double *)x;
            else
                sum32 += *(const float *)x;
        }
        if (dtype == MODE_DTYPE_F64)
            ((double *)out)[i] = sum;
        else
            ((float *)out)[i] = sum32;
    }
    free(all);
    return st;
}

static inline enum mode_status socket_reduce_scatter(struct mode_ranks *g, void *out, const void *in, size_t n,
                                                     enum mode_dtype dtype, struct mode_error *err)
{
    return socket_sum(g, out, in, n * (size_t)g->size, n * (size_t)g->rank, n, dtype, err);
}

static inline enum mode_status socket_all_reduce(struct mode_ranks *g, void *data, size_t n, enum mode_dtype dtype,
                                                 struct mode_error *err)
{
    return socket_sum(g, data, data, n, 0, n, dtype, err);
}

static inline enum mode_status socket_broadcast(struct mode_ranks *g, void *data, size_t n, enum mode_dtype dtype,
                                                struct mode_error *err)
{
    size_t bytes = n * mode_dtype_size(dtype);
    char *all = mode_xmalloc((size_t)g->size * bytes);
    enum mode_status st = socket_all_gather(g, all, data, n, dtype, err);
    if (!st) memcpy(data, all, bytes);
    free(all);
    return st;
}

static inline void socket_close(struct mode_ranks *g, bool in_order)
{
    struct mode_meeting *m = g->self;
    (void)in_order;
    mode_meeting_close(&m);
}

static const struct mode_ranks_ops socket_ranks_ops = {.name = "sockets",
                                                       .all_gather = socket_all_gather,
                                                       .reduce_scatter = socket_reduce_scatter,
                                                       .all_reduce = socket_all_reduce,
                                                       .broadcast = socket_broadcast,
                                                       .close = socket_close};

static inline enum mode_status socket_ranks_open(struct mode_ranks **g, int rank, int size, const char *place,
                                                 struct mode_error *err)
{
    const struct mode_meeting_options o = {.rank = rank, .size = size, .place = place, .timeout_s = MEET_S};
    struct mode_meeting *m;
    enum mode_status st = mode_meeting_open(&m, &o, err);
    *g = NULL;
    if (st) return st;
    *g = mode_xcalloc(1, sizeof **g);
    **g = (struct mode_ranks){rank, size, &socket_ranks_ops, m};
    return MODE_OK;
}

/* Open descriptors: as many before as after, unless one leaks. */
static inline int open_fds(void)
{
    int n = 0;
    for (int fd = 0; fd < 256; fd++) n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/* The work of one process; returns its exit code. */
typedef int rank_fn(int rank, int size, const char *place, void *ctx);

/* Starts `size` processes, waits for them, and returns how each ended: its exit code, or 128 + the signal. */
static inline void run_ranks(int *ended, int size, rank_fn *fn, void *ctx)
{
    char place[] = "/tmp/mode-ranks-XXXXXX", path[64];
    pid_t pid[MODE_RANKS_MAX];
    MODE_ASSERT(mkdtemp(place) != NULL);
    snprintf(path, sizeof path, "%s/meet", place);
    fflush(NULL);
    for (int r = 0; r < size; r++) {
        pid[r] = fork();
        MODE_ASSERT(pid[r] >= 0);
        if (pid[r] > 0) continue;
        int rc = fn(r, size, path, ctx);
        fflush(NULL);
        _exit(rc);
    }
    for (int r = 0; r < size; r++) {
        int status;
        MODE_ASSERT(waitpid(pid[r], &status, 0) == pid[r]);
        ended[r] = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
    rmdir(place);
}

#endif
