/* exchanges.h - the stream of a group's collectives, and its synchronisation with the ops. Inside nn/cuda only.
 *
 *     cudaStream_t s = mode__exchange_enter(be); // in its turn, or beside the ops between begin and end
 *     result = ncclAllGather(in, out, n, type, comm, s);
 *     mode__exchange_leave(be, out, out_bytes, in, in_bytes);
 *
 * mode__exchanges_used and _done are no-ops until it is opened. */
#ifndef MODE_NN_CUDA_EXCHANGES_H
#define MODE_NN_CUDA_EXCHANGES_H

#include "nn/cuda/device.h"

/* Creates the stream. E_DEVICE; close synchronises, and also cleans up after a failed open. */
enum mode_status mode__exchanges_open(struct mode_backend *be, struct mode_error *err);
void mode__exchanges_close(struct mode_backend *be);
/* dist/ranks.h */
enum mode_status mode__exchanges_parcels(struct mode_backend *be, int n, int *first, struct mode_error *err);
void mode__exchanges_made(struct mode_backend *be, int parcel);
void mode__exchanges_begin(struct mode_backend *be, int parcel);
void mode__exchanges_end(struct mode_backend *be);
/* Around a call that writes out and reads in; returns the stream for it. */
cudaStream_t mode__exchange_enter(struct mode_backend *be);
void mode__exchange_leave(struct mode_backend *be, void *out, size_t out_bytes, const void *in, size_t in_bytes);
/* What the next op writes and reads, n entries each, NULL where there is none. */
void mode__exchanges_used(struct mode_backend *be, struct mode_tensor *const *written,
                          const struct mode_tensor *const *read, int n);
/* The host has synchronised with all streams. */
void mode__exchanges_done(struct mode_backend *be);

#endif
