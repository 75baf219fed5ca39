/* ranks.h - collectives of the processes that train one model together (data parallelism).
 *
 * A process is rank 0 .. size - 1 of its group. Every function below is collective: all processes call it, in the same
 * order, with the same counts. If a process has ended, the others get MODE_E_PEER within seconds. The transport is NCCL
 * between GPUs (nn/cuda/nccl.c), sockets in the tests.
 *
 *     st = mode_ranks_all_gather(g, all, mine, n, MODE_DTYPE_F32, &err);       // all [size, n]
 *     st = mode_ranks_reduce_scatter(g, sum, parts, n, MODE_DTYPE_F32, &err);  // parts [size, n] -> sum [n]
 *
 * Pointers are memory of the backend that the group was opened for. Collectives run in stream order with its ops: they
 * see what earlier ops wrote, and later ops and mode_backend_copy see their results. Between mode_ranks_begin and _end
 * they overlap with ops instead. The order of a reduction is the same in every call; on sockets it is by rank.
 *
 * Threads: one caller. */
#ifndef MODE_DIST_RANKS_H
#define MODE_DIST_RANKS_H

#include "base/error.h"
#include "tensor/tensor.h"

#include <stdbool.h>
#include <stddef.h>

enum { MODE_RANKS_MAX = 256 }; /* processes */

struct mode_ranks;

struct mode_ranks_ops { /* a transport; dtype is F32, F64 or U8, reductions are of F32 and F64 */
    const char *name;
    enum mode_status (*all_gather)(struct mode_ranks *g, void *out, const void *in, size_t n, enum mode_dtype dtype,
                                   struct mode_error *err);
    enum mode_status (*reduce_scatter)(struct mode_ranks *g, void *out, const void *in, size_t n, enum mode_dtype dtype,
                                       struct mode_error *err);
    enum mode_status (*all_reduce)(struct mode_ranks *g, void *data, size_t n, enum mode_dtype dtype,
                                   struct mode_error *err);
    enum mode_status (*broadcast)(struct mode_ranks *g, void *data, size_t n, enum mode_dtype dtype,
                                  struct mode_error *err);
    enum mode_status (*check)(struct mode_ranks *g, struct mode_error *err); /* NULL: collectives return all errors */
    void (*close)(struct mode_ranks *g, bool in_order);
    /* Collectives that overlap with ops, below; all four NULL: collectives block until they are done. */
    enum mode_status (*parcels)(struct mode_ranks *g, int n, int *first, struct mode_error *err);
    void (*made)(struct mode_ranks *g, int parcel);
    void (*begin)(struct mode_ranks *g, int parcel);
    void (*end)(struct mode_ranks *g);
};

struct mode_ranks {
    int rank, size;
    const struct mode_ranks_ops *ops;
    void *self; /* the transport's */
};

/* out [size, n]: every process's in [n], by rank. In place: in may be the own row of out. MODE_E_PEER, as in all of
 * these. */
enum mode_status mode_ranks_all_gather(struct mode_ranks *g, void *out, const void *in, size_t n, enum mode_dtype dtype,
                                       struct mode_error *err);
/* out [n]: the sum over all processes of row `rank` of in [size, n]. In place: out may be that row. The other rows of
 * in may be overwritten. */
enum mode_status mode_ranks_reduce_scatter(struct mode_ranks *g, void *out, const void *in, size_t n,
                                           enum mode_dtype dtype, struct mode_error *err);
/* Call it after a mode_backend_sync, before the host uses results: MODE_E_PEER if a process has ended, as collectives
 * in flight were aborted then and their results are undefined. */
enum mode_status mode_ranks_check(struct mode_ranks *g, struct mode_error *err);
/* data [n] becomes the sum over all processes, bit-identical in each. data may come from mode_backend_share: then the
 * device's copy is reduced. */
enum mode_status mode_ranks_all_reduce(struct mode_ranks *g, void *data, size_t n, enum mode_dtype dtype,
                                       struct mode_error *err);
/* data [n] becomes rank 0's. */
enum mode_status mode_ranks_broadcast(struct mode_ranks *g, void *data, size_t n, enum mode_dtype dtype,
                                      struct mode_error *err);

/* Collectives that overlap with ops. Between begin and end collectives are not in stream order with ops: they wait only
 * for the ops that wrote their inputs. Of later ops only those wait for them that read their outputs, or write their
 * inputs or outputs, as a tensor or a parameter of nn/ops.h: the transport tracks these dependencies. Memory that no op
 * accesses through a tensor belongs to them until the next collective in stream order, or until mode_backend_sync.
 * Collectives always run serially, in the order of the calls, which must be the same in all processes.
 *
 *     mode_ranks_made(g, parcel);                  // in each branch (nn/backend.h) that wrote a part of the inputs
 *     ...
 *     mode_ranks_begin(g, parcel);
 *     st = mode_ranks_reduce_scatter(g, ...);
 *     mode_ranks_end(g);
 *
 * A parcel identifies the collectives between a begin and its end and is reused in every step. made records a
 * dependency, as an event does: the parcel's next collectives wait for all ops that the branch has issued so far,
 * weight gradients beside it included. Without a made they wait for all ops of the branch that calls begin. Ops issued
 * between begin and end run there too, after the collectives before them; they may not use scratch. */
/* Allocates n parcels, numbered from *first on. They live as long as the group. E_DEVICE. */
enum mode_status mode_ranks_parcels(struct mode_ranks *g, int n, int *first, struct mode_error *err);
void mode_ranks_made(struct mode_ranks *g, int parcel);
void mode_ranks_begin(struct mode_ranks *g, int parcel);
void mode_ranks_end(struct mode_ranks *g);

/* in_order: a collective, orderly shutdown. Otherwise the other processes' calls fail, as if this process had ended. */
void mode_ranks_close(struct mode_ranks **g, bool in_order);

#endif
