/* nccl_watch.h - detects that a group of GPUs cannot go on, and aborts it. Inside nn/cuda only.
 *
 * NCCL hangs, on the GPU, if a process has ended, and reports a failed link only when polled. So a thread watches the
 * meeting's connections and polls NCCL once a second. On a failure no further call is admitted, the other processes are
 * notified, and the communicator is aborted, which releases waiters on its stream.
 *
 *     if (!mode__watch_enter(w)) return mode__watch_why(w, err);
 *     result = ncclAllReduce(...);
 *     mode__watch_leave(w, result);
 *     return mode__watch_why(w, err);
 *
 * An abort frees the communicator, so it waits for a call in progress. If that call, or the abort, does not return (it
 * is waiting for a dead process), the process exits with the same message and exit code: nothing else would help.
 *
 * Threads: one caller, beside the watch itself. */
#ifndef MODE_NN_CUDA_NCCL_WATCH_H
#define MODE_NN_CUDA_NCCL_WATCH_H

#include "dist/meeting.h"
#include "nn/cuda/nccl.h"

#include <stdbool.h>

struct mode__watch;

/* Takes over the connections of m, but not m: nobody else may send or receive until it is closed. E_GENERIC. */
enum mode_status mode__watch_open(struct mode__watch **w, struct mode_meeting *m, struct mode_error *err);
/* Hands over the communicator, created between enter and leave: the watch owns it from now on. */
void mode__watch_take(struct mode__watch *w, ncclComm_t comm);
/* Around each NCCL call. enter: false if the group has failed, and the communicator may be gone. leave: takes the
 * call's result; after an error it waits some seconds until the watch knows the cause. */
bool mode__watch_enter(struct mode__watch *w);
void mode__watch_leave(struct mode__watch *w, ncclResult_t result);
/* MODE_OK, or why the group has failed: E_PEER, another process; E_DEVICE, NCCL in this one. */
enum mode_status mode__watch_why(struct mode__watch *w, struct mode_error *err);
/* Destroys the communicator. in_order: see mode_ranks_close. */
void mode__watch_close(struct mode__watch **w, bool in_order);

#endif
