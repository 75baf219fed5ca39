/* staging.h - a staging buffer for the device's inputs: one copy on the host, one on the device.
 *
 *     mode_staging_wait(s);                      // the host may write
 *     fill(s->host); mode_staging_send(s, n);    // an asynchronous copy, while the device computes
 *     mode_staging_begin(s);                     // ops from here on find the bytes at s->device
 *     an_op(be, ...); mode_staging_end(s);       // ... up to here
 *
 * The host's copy is pinned if possible, so that the transfer is DMA and overlaps with ops. Where host and device share
 * memory (all backends but GPUs) both are the same buffer, and all this does nothing.
 *
 * Threads: wait and send by one thread, begin and end by the backend's caller; for one s they alternate. open and close
 *          by the backend's caller. */
#ifndef MODE_NN_STAGING_H
#define MODE_NN_STAGING_H

#include "nn/backend.h"

struct mode_staging {
    struct mode_backend *be; /* borrowed */
    size_t bytes;
    void *host, *device; /* owned; aligned to 64 */
    void *impl;          /* the backend's own */
};

/* MODE_E_MEMORY. */
enum mode_status mode_staging_open(struct mode_staging **s, struct mode_backend *be, size_t bytes,
                                   struct mode_error *err);
/* Waits for pending copies and readers. */
void mode_staging_close(struct mode_staging **s);
/* Until the last send has completed and the ops between begin and end have read it. Before host is written. */
void mode_staging_wait(struct mode_staging *s);
/* Copy the first n bytes, once after each wait. host must not change until the next wait. */
void mode_staging_send(struct mode_staging *s, size_t n);
void mode_staging_begin(struct mode_staging *s);
void mode_staging_end(struct mode_staging *s);

#endif
