/* nccl_watch.h - how a group of GPUs ends that cannot go on. Inside nn/cuda only.
 *
 * NCCL waits for ever, on the GPU, for a process that has ended, and tells of a link that has failed only who asks. So
 * a thread watches the connections of the meeting and asks NCCL once a second. When one of them says so, no further
 * call is let in, the others are told, and the communicator is aborted: that frees who waits on its stream.
 *
 *     if (!mode__watch_enter(w)) return mode__watch_why(w, err);
 *     result = ncclAllReduce(...);
 *     mode__watch_leave(w, result);
 *     return mode__watch_why(w, err);
 *
 * An abort frees the communicator, so none comes while a call is under way. A call that does not return although the
 * group is at its end (it waits for the dead), or an abort that does not, ends the process: with the same sentence and
 * its exit code, as nothing else could.
 *
 * Threads: one caller, beside the watch itself. */
#ifndef MODE_NN_CUDA_NCCL_WATCH_H
#define MODE_NN_CUDA_NCCL_WATCH_H

#include "dist/meeting.h"
#include "nn/cuda/nccl.h"

#include <stdbool.h>

struct mode__watch;

/* Takes the connections of m over, but not m: nobody else sends or receives until it is closed. E_GENERIC. */
enum mode_status mode__watch_open(struct mode__watch **w, struct mode_meeting *m, struct mode_error *err);
/* The communicator, made between enter and leave: the watch's from now on. */
void mode__watch_take(struct mode__watch *w, ncclComm_t comm);
/* Around each call of NCCL. enter: false, the group is at its end, and the communicator may be gone. leave: what the
 * call said; after an error it waits until the watch knows whose it was, some seconds. */
bool mode__watch_enter(struct mode__watch *w);
void mode__watch_leave(struct mode__watch *w, ncclResult_t result);
/* MODE_OK, or why the group is at its end: E_PEER, another process; E_DEVICE, NCCL in this one. */
enum mode_status mode__watch_why(struct mode__watch *w, struct mode_error *err);
/* Ends the communicator. in_order: as of mode_ranks_close. */
void mode__watch_close(struct mode__watch **w, bool in_order);

#endif
