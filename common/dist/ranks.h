/* ranks.h - the processes that train one model together, and what they do with numbers.
 *
 * A process is rank 0 .. size - 1 of its group. Every function below is called by all of them, in the same order, with
 * the same counts; who calls while another has ended gets MODE_E_PEER within seconds. How numbers travel is the
 * transport's matter: NCCL between GPUs (nn/cuda/nccl.c), sockets in the tests.
 *
 *     st = mode_ranks_all_gather(g, all, mine, n, MODE_DTYPE_F32, &err);       // all [size, n]
 *     st = mode_ranks_reduce_scatter(g, sum, parts, n, MODE_DTYPE_F32, &err);  // parts [size, n] -> sum [n]
 *
 * Pointers are memory of the backend that the group was opened for, and the functions take their turn among its ops:
 * they see what ops before them wrote, ops after them see their results, and so does mode_backend_copy. Between
 * mode_ranks_begin and _end they run beside the ops instead. A sum is made in an order that does not change from call
 * to call; on the sockets it is that of the ranks.
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

struct mode_ranks_ops { /* a transport; dtype is F32, F64 or U8, sums are of F32 and F64 */
    const char *name;
    enum mode_status (*all_gather)(struct mode_ranks *g, void *out, const void *in, size_t n, enum mode_dtype dtype,
                                   struct mode_error *err);
    enum mode_status (*reduce_scatter)(struct mode_ranks *g, void *out, const void *in, size_t n, enum mode_dtype dtype,
                                       struct mode_error *err);
    enum mode_status (*all_reduce)(struct mode_ranks *g, void *data, size_t n, enum mode_dtype dtype,
                                   struct mode_error *err);
    enum mode_status (*broadcast)(struct mode_ranks *g, void *data, size_t n, enum mode_dtype dtype,
                                  struct mode_error *err);
    enum mode_status (*check)(struct mode_ranks *g, struct mode_error *err); /* NULL: the functions above say it all */
    void (*close)(struct mode_ranks *g, bool in_order);
    /* Exchanges beside the ops, below; all four NULL: every exchange is done when its function returns. */
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

/* out [size, n]: everyone's in [n], in the order of ranks. in may be its own place in out. */
enum mode_status mode_ranks_all_gather(struct mode_ranks *g, void *out, const void *in, size_t n, enum mode_dtype dtype,
                                       struct mode_error *err);
/* out [n]: the sum over all processes of row `rank` of in [size, n]. out may be that row; the others may change. */
enum mode_status mode_ranks_reduce_scatter(struct mode_ranks *g, void *out, const void *in, size_t n,
                                           enum mode_dtype dtype, struct mode_error *err);
/* After a mode_backend_sync, before the host believes what was exchanged: MODE_E_PEER when a process has ended, because
 * exchanges that were under way have been broken off then, and what they wrote is nothing. */
enum mode_status mode_ranks_check(struct mode_ranks *g, struct mode_error *err);
/* data [n] becomes the sum over all processes, the same bits everywhere; it may be memory that both sides have, and is
 * added up where the device has it. */
enum mode_status mode_ranks_all_reduce(struct mode_ranks *g, void *data, size_t n, enum mode_dtype dtype,
                                       struct mode_error *err);
/* data [n] becomes rank 0's. */
enum mode_status mode_ranks_broadcast(struct mode_ranks *g, void *data, size_t n, enum mode_dtype dtype,
                                      struct mode_error *err);

/* Exchanges beside the ops. Those between begin and end do not take their turn: they come after the ops that made their
 * numbers alone, and of the ops called later only those wait for them that read what they write, or write what they
 * read or write, as a tensor or a parameter of nn/ops.h: the transport sees to it. Numbers that no op knows by a tensor
 * are theirs until the next exchange that takes its turn, or until mode_backend_sync. Whatever runs beside what,
 * exchanges go one after another, in the order of the calls, which must be the same in all processes.
 *
 *     mode_ranks_made(g, parcel);                  // in each branch (nn/backend.h) that made a part of the numbers
 *     ...
 *     mode_ranks_begin(g, parcel);
 *     st = mode_ranks_reduce_scatter(g, ...);
 *     mode_ranks_end(g);
 *
 * A parcel is a number for what is exchanged between a begin and its end, to be used again and again. made: what the
 * branch has called so far, and has beside it, comes before the parcel's next exchanges. Where nobody said so of a
 * parcel, they come after all that their branch has called. Ops called between begin and end run there too, after the
 * exchanges before them; they may take no scratch. */
/* n more parcels; *first is the first one's number. They live as long as the group. E_DEVICE. */
enum mode_status mode_ranks_parcels(struct mode_ranks *g, int n, int *first, struct mode_error *err);
void mode_ranks_made(struct mode_ranks *g, int parcel);
void mode_ranks_begin(struct mode_ranks *g, int parcel);
void mode_ranks_end(struct mode_ranks *g);

/* in_order: all processes come to their end here. Otherwise the others' calls fail, as if this one had died. */
void mode_ranks_close(struct mode_ranks **g, bool in_order);

#endif
