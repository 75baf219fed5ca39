/* mirror.h - host access to the backend's memory, one buffer at a time.
 *
 *     struct mode_mirror m = {.be = be};
 *     const float *w = mode_mirror_read(&m, weights, bytes);
 *     float *v = mode_mirror_write(&m, values, bytes);           // w is invalid from here on
 *     fill(v);
 *     mode_mirror_send(&m);
 *     mode_mirror_clear(&m);
 *
 * Where host and device share memory (all backends but GPUs) it is that memory itself, and nothing is copied; otherwise
 * a host buffer, as large as the largest so far. Valid until the next call.
 *
 * Threads: the backend's caller. */
#ifndef MODE_NN_MIRROR_H
#define MODE_NN_MIRROR_H

#include "nn/backend.h"

struct mode_mirror {
    struct mode_backend *be; /* borrowed */
    void *buffer, *to;       /* owned host buffer; the backend's memory that send writes */
    size_t buffer_bytes, bytes;
};

/* After all earlier ops (mode_backend_copy). */
const void *mode_mirror_read(struct mode_mirror *m, const void *data, size_t bytes);
/* Its contents are undefined at first. */
void *mode_mirror_write(struct mode_mirror *m, void *data, size_t bytes);
void mode_mirror_send(struct mode_mirror *m);
void mode_mirror_clear(struct mode_mirror *m);
/* mode_mirror_read as a callback for writers of files (data/safetensors.h). mirror: a struct mode_mirror. */
const void *mode_mirror_fetch(void *mirror, const void *data, size_t bytes);

#endif
