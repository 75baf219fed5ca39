/* staging.h - memory in which the host prepares what a device reads next: two copies of the same bytes.
 *
 *     mode_staging_wait(s);                      // the host may write
 *     fill(s->host); mode_staging_send(s, n);    // on its way, while the device computes
 *     mode_staging_begin(s);                     // ops from here on find the bytes at s->device
 *     an_op(be, ...); mode_staging_end(s);       // ... up to here
 *
 * The host's copy is pinned where it can be, so that it moves without the processor, beside the ops that run. Where
 * host and device are one (all backends but GPUs) host and device are the same memory, and all this does nothing.
 *
 * Threads: wait and send by one thread, begin and end by the backend's caller; for one s they take turns. open and
 * close by the backend's caller. */
#ifndef MODE_NN_STAGING_H
#define MODE_NN_STAGING_H

#include "nn/backend.h"

struct mode_staging {
    struct mode_backend *be; /* borrowed */
    size_t bytes;
    void *host, *device; /* owned; aligned to 64 */
    void *way;           /* the backend's own */
};

/* MODE_E_MEMORY. */
enum mode_status mode_staging_open(struct mode_staging **s, struct mode_backend *be, size_t bytes,
                                   struct mode_error *err);
/* Waits for whoever still reads. */
void mode_staging_close(struct mode_staging **s);
/* Until what was sent last has arrived and has been read by the ops between begin and end. Before host is written. */
void mode_staging_wait(struct mode_staging *s);
/* The first n bytes, once after each wait. host stays as it is until the next. */
void mode_staging_send(struct mode_staging *s, size_t n);
void mode_staging_begin(struct mode_staging *s);
void mode_staging_end(struct mode_staging *s);

#endif
