/* ahead.h - prefetching of batches: the data loader's background thread.
 *
 * A thread fills batches of consecutive steps into a ring of slots, so that a device computes while the host reads,
 * decodes and tokenises. The batches are those of mode_stream_fill for any number of slots. Without slots there is no
 * thread: a batch is filled when it is requested, which is right if the CPU both decodes and computes.
 *
 *     mode_ahead_open(&ahead, stream, be, false, 256, size, context, start, end, 2, &err);
 *     for (step = start; step < end; step++) mode_ahead_next(ahead, &batch, &err);
 *     mode_ahead_close(&ahead);
 *
 * A device may resize the pictures (windows.h): the host decodes them to bytes, which are copied to the device while
 * the previous batch computes. The model's inputs are bit-identical to those from host pixels.
 *
 * Memory: slots + 1 batches (588 KiB per pair at 224 pixels; or the bytes of the pictures, and as much on the device).
 * Threads: one caller. While it is open the stream belongs to it; fills use the thread pool. */
#ifndef MODE_PIPELINE_AHEAD_H
#define MODE_PIPELINE_AHEAD_H

#include "pipeline/stream.h"

#include <stdbool.h>

enum { MODE_AHEAD_SLOTS = 2 }; /* for a device: beside the batch in use, one ready and one being filled */

struct mode_ahead;
struct mode_backend;
struct mode_pictures;

/* Batches of steps first .. end - 1, each of `size` pairs, for be (may be NULL). resizes: be resizes the pictures,
 * which are copied to its memory; otherwise pixels [size, 3, side, side] are in pinned host memory. context: tokens of
 * a text. stream and be are borrowed until close. On failure *ahead is NULL. E_MEMORY, E_GENERIC (no thread). */
enum mode_status mode_ahead_open(struct mode_ahead **ahead, struct mode_stream *stream, struct mode_backend *be,
                                 bool resizes, int64_t size, int side, int context, uint64_t first, uint64_t end,
                                 int slots, struct mode_error *err);
/* The batch of the next step, borrowed and valid until the next call. Call it at most end - first times. Waits for the
 * batch; its error is that of mode_stream_fill for this step, and after an error only close may be called. */
enum mode_status mode_ahead_next(struct mode_ahead *ahead, const struct mode_batch **batch, struct mode_error *err);
/* The pictures of that batch, which replace its pixels, for ops issued before the next call; NULL: it has pixels. */
const struct mode_pictures *mode_ahead_pictures(const struct mode_ahead *ahead);
/* Does the device resize pictures? *by_host: pictures that the host resized so far, as they did not fit the batch. */
bool mode_ahead_resizes(struct mode_ahead *ahead, uint64_t *by_host);
/* *ahead may be NULL. Prefetched batches are dropped. */
void mode_ahead_close(struct mode_ahead **ahead);

#endif
