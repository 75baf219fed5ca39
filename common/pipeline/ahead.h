/* ahead.h - batches made ready while the ones before them are being used.
 *
 * A thread of its own fills batches of consecutive steps into a ring of slots, so that a device computes while the
 * host reads, decodes and tokenises. The batches are those of mode_stream_fill whatever the number of slots. With no
 * slots there is no thread: a batch is filled when it is asked for, which is right where the processor that decodes is
 * the one that computes.
 *
 *     mode_ahead_open(&ahead, stream, be, false, 256, size, context, start, end, 2, &err);
 *     for (step = start; step < end; step++) mode_ahead_next(ahead, &batch, &err);
 *     mode_ahead_close(&ahead);
 *
 * A device may resize the pictures (windows.h): the host decodes them to bytes, which move while the batch before
 * computes, and ops of the model make of them what they would make of the floats.
 *
 * Memory: slots + 1 batches (588 KiB per pair at 224 pixels; or the bytes of the pictures, and as much on the device).
 * Threads: one caller. While it is open the stream belongs to it; fills use the pool of threads. */
#ifndef MODE_PIPELINE_AHEAD_H
#define MODE_PIPELINE_AHEAD_H

#include "pipeline/stream.h"

#include <stdbool.h>

enum { MODE_AHEAD_SLOTS = 2 }; /* for a device: one in use, one ready, one being filled */

struct mode_ahead;
struct mode_backend;
struct mode_pictures;

/* Batches of steps first .. end - 1, each of size pairs, for be (may be NULL): be resizes their pictures, which come to
 * lie in its memory, or their pixels are pinned for it. stream and be are borrowed until close. E_MEMORY, E_GENERIC (no
 * thread to be had). */
enum mode_status mode_ahead_open(struct mode_ahead **ahead, struct mode_stream *stream, struct mode_backend *be,
                                 bool resizes, int64_t size, int side, int context, uint64_t first, uint64_t end,
                                 int slots, struct mode_error *err);
/* The batch of the next step; it stays as it is until the next call. Not called more often than there are steps. An
 * error is that of mode_stream_fill for this very step, told when its turn comes; after it only close may be called. */
enum mode_status mode_ahead_next(struct mode_ahead *ahead, const struct mode_batch **batch, struct mode_error *err);
/* The pictures of that batch, in the place of its pixels, for ops that are called before the next call; NULL: it has
 * pixels. */
const struct mode_pictures *mode_ahead_pictures(const struct mode_ahead *ahead);
/* Are pictures resized by the device, and of how many did the host do it so far for want of room in their batch? */
bool mode_ahead_resizes(struct mode_ahead *ahead, uint64_t *by_host);
/* May be NULL inside. What was read ahead and not asked for is dropped. */
void mode_ahead_close(struct mode_ahead **ahead);

#endif
