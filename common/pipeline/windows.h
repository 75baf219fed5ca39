/* windows.h - a batch of pictures for a device that resizes them itself: decoded by the host, packed, sent, resized.
 *
 *     mode_windows_begin(w);                                              // may wait for the device
 *     for each i: mode_windows_add(w, i, &file, &draw, &err);             // any threads
 *     mode_windows_send(w, n);
 *     pictures = mode_windows_take(w);                                    // ops may read them from here on
 *     mode_clip_encode_pictures(clip, out, pictures, n, raw, &err);
 *     mode_windows_done(w);                                               // ... to here
 *
 * The floats that ops make of them are those of mode_preprocess_eval_file and mode_preprocess_train_file, to the bit.
 * What a batch's pictures take together is limited; a picture that finds no room, whose window is larger than
 * MODE_WINDOW_MOST, or that is larger than MODE_PIXELS_BETWEEN (nn/pixels.h) when half resized, is resized by the host
 * and travels as a window of its final size. Which pictures these are depends on the threads, the floats do not.
 *
 * Threads: begin, add, send belong to one thread and its pool; open, take, done, close to the backend's caller. For one
 * w the two take turns. */
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

enum { MODE_WINDOW_MOST = 16 << 20 }; /* bytes of one picture's */

/* Batches of up to `most` pictures, whose windows may take `bytes` together, on average for each. be is borrowed.
 * MODE_E_MEMORY. */
enum mode_status mode_windows_open(struct mode_windows **w, struct mode_backend *be, const struct mode_preprocess *p,
                                   int64_t most, size_t bytes, struct mode_error *err);
void mode_windows_close(struct mode_windows **w);
/* `bytes` that do for batches of `most` pictures of which the average window has so many: batches vary. */
size_t mode_windows_average(double mean, int64_t most);
/* Of the host's and of the device's memory each, what open would take; SIZE_MAX: too much to say. */
size_t mode_windows_bytes(const struct mode_preprocess *p, int64_t most, size_t bytes);

void mode_windows_begin(struct mode_windows *w);
/* Picture i of the batch, once. draw NULL: the evaluation transform. Errors: those of decoding. */
enum mode_status mode_windows_add(struct mode_windows *w, int64_t i, const struct mode_picture *f,
                                  const struct mode_crop_draw *draw, struct mode_error *err);
/* All of pictures 0 .. n - 1 have been added. */
void mode_windows_send(struct mode_windows *w, int64_t n);
/* What was sent, borrowed; once after each send. done: no op after those that were called reads it. */
const struct mode_pictures *mode_windows_take(struct mode_windows *w);
void mode_windows_done(struct mode_windows *w);
/* Pictures so far that the host resized. Any thread. */
uint64_t mode_windows_resized(struct mode_windows *w);

/* Is be to resize pictures, if its memory allows? A device, unless the environment says MODE_CUDA_PIXELS=host. Results
 * are the same. */
bool mode_windows_wanted(const struct mode_backend *be);
/* May `batches` such batches lie in its memory? They take at most half of what it has left. why: "", or a sentence that
 * says why the host has to resize. */
enum { MODE_WINDOWS_WHY = 200 };
bool mode_windows_fit(char why[MODE_WINDOWS_WHY], const struct mode_backend *be, const struct mode_preprocess *p,
                      int64_t most, size_t bytes, int batches);
void mode_windows_why(char why[MODE_WINDOWS_WHY], size_t bytes, size_t room);

#endif
