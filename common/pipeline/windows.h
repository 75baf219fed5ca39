/* windows.h - batches of pictures that a device resizes: the host decodes, packs and copies them to the device.
 *
 * A window is the part of a decoded picture (u8) that its crop needs.
 *
 *     mode_windows_begin(w);                                              // may wait for the device
 *     for each i: mode_windows_add(w, i, &file, &draw, &err);             // any threads
 *     mode_windows_send(w, n);
 *     pictures = mode_windows_take(w);                                    // ops may read them from here on
 *     mode_clip_encode_pictures(clip, out, pictures, n, raw, &err);
 *     mode_windows_done(w);                                               // ... to here
 *
 * The resulting pixels are bit-identical to those of mode_preprocess_eval_file and mode_preprocess_train_file. The
 * buffer of a batch is limited. A picture that does not fit it, whose window exceeds MODE_WINDOW_MOST, or whose
 * intermediate image (resized along one axis) exceeds MODE_PIXELS_BETWEEN (nn/pixels.h), is resized by the host and
 * sent as a window of its final size. Which pictures these are depends on the threads; the pixels do not.
 *
 * Threads: begin, add, send belong to one thread and its pool; open, take, done, close to the backend's caller. For one
 * w the two alternate. */
#ifndef MODE_PIPELINE_WINDOWS_H
#define MODE_PIPELINE_WINDOWS_H

#include "base/error.h"
#include "data/image.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mode_backend;
struct mode_pictures;
struct mode_windows;

enum { MODE_WINDOW_MOST = 16 << 20 }; /* bytes of a window */

/* Batches of up to `most` pictures, whose windows may take `bytes` on average. be is borrowed. MODE_E_MEMORY. */
enum mode_status mode_windows_open(struct mode_windows **w, struct mode_backend *be, const struct mode_preprocess *p,
                                   int64_t most, size_t bytes, struct mode_error *err);
void mode_windows_close(struct mode_windows **w);
/* `bytes` to choose for batches of `most` pictures whose windows have `mean` bytes: with a margin for their
 * variance. */
size_t mode_windows_average(double mean, int64_t most);
/* Bytes that open would take, of host and of device memory each; SIZE_MAX: overflow. */
size_t mode_windows_bytes(const struct mode_preprocess *p, int64_t most, size_t bytes);

void mode_windows_begin(struct mode_windows *w);
/* Decode picture i of the batch; once for each i. draw NULL: the evaluation transform. Errors: those of decoding. */
enum mode_status mode_windows_add(struct mode_windows *w, int64_t i, const struct mode_picture *f,
                                  const struct mode_crop_draw *draw, struct mode_error *err);
/* Copy the batch to the device, after pictures 0 .. n - 1 were added. */
void mode_windows_send(struct mode_windows *w, int64_t n);
/* The batch that was sent, borrowed; once after each send. done: no op issued after this call reads it. */
const struct mode_pictures *mode_windows_take(struct mode_windows *w);
void mode_windows_done(struct mode_windows *w);
/* Number of pictures that the host resized so far. Any thread. */
uint64_t mode_windows_resized(struct mode_windows *w);

/* Should be resize pictures, if its memory allows? True for a device, unless MODE_CUDA_PIXELS=host is set. Results are
 * the same. */
bool mode_windows_wanted(const struct mode_backend *be);
/* Do `batches` such batches fit its memory, in at most half of what is free? why: "", or a sentence that says why the
 * host resizes. */
enum { MODE_WINDOWS_WHY = 200 };
bool mode_windows_fit(char why[MODE_WINDOWS_WHY], const struct mode_backend *be, const struct mode_preprocess *p,
                      int64_t most, size_t bytes, int batches);
void mode_windows_why(char why[MODE_WINDOWS_WHY], size_t bytes, size_t room);

#endif
