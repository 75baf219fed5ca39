/* mirror.h - the host's side of the backend's memory, a piece at a time: what it wants to read or to write there.
 *
 *     struct mode_mirror m = {.be = be};
 *     const float *w = mode_mirror_read(&m, weights, bytes);
 *     float *v = mode_mirror_write(&m, values, bytes);           // w is gone
 *     fill(v);
 *     mode_mirror_send(&m);
 *     mode_mirror_clear(&m);
 *
 * Where host and device are one (all backends but GPUs) it is that memory itself, and nothing is copied; else the
 * host's own, as large as the largest piece so far. Good for one piece: until the next.
 *
 * Threads: the backend's caller. */
#ifndef MODE_NN_MIRROR_H
#define MODE_NN_MIRROR_H

#include "nn/backend.h"

struct mode_mirror {
    struct mode_backend *be; /* borrowed */
    void *room, *to;         /* owned; the backend's memory that is written now */
    size_t room_bytes, bytes;
};

/* After all ops that were called before (mode_backend_copy). */
const void *mode_mirror_read(struct mode_mirror *m, const void *data, size_t bytes);
/* What is there at first is undefined. */
void *mode_mirror_write(struct mode_mirror *m, void *data, size_t bytes);
void mode_mirror_send(struct mode_mirror *m);
void mode_mirror_clear(struct mode_mirror *m);
/* mode_mirror_read for who writes files (data/safetensors.h). mirror: a struct mode_mirror. */
const void *mode_mirror_fetch(void *mirror, const void *data, size_t bytes);

#endif
