/* nearest.h - exact nearest centre of every row, on any backend (mode_nearest_rows of nn/ops.h).
 *
 * The result is that of a plain f64 loop: it does not depend on how rows are split into shards, nor on the backend.
 * Ties go to the lower id.
 *
 *     st = mode_nearest_open(&a, be, x, n, d, k, err);          // the same rows, again and again
 *     if (!st) mode_nearest_again(a, id, NULL, MODE_METRIC_EUCLIDEAN, c, k);
 *     mode_nearest_close(&a);
 *
 * Threads: one caller per backend. */
#ifndef MODE_CLUSTER_NEAREST_H
#define MODE_CLUSTER_NEAREST_H

#include "cluster/centres.h"
#include "nn/backend.h"

/* id [n] i32 in [0, k); distance [n] f32 (may be NULL): euclidean: L2 (not squared); cosine: 1 - x.c.
 * x [n, d], c [k, d] f32; cosine: both unit rows. Host or backend memory. be: NULL = "cpu". Errors: MODE_E_MEMORY. */
enum mode_status mode_nearest(struct mode_backend *be, int32_t *id, float *distance, enum mode_metric metric,
                              const float *x, int64_t n, const float *c, int k, int d, struct mode_error *err);

/* For rows that are assigned repeatedly, to at most k centres at a time; scratch is allocated once. A GPU also stores
 * an fp16 copy of the rows (mode_nearest_ready) if it has the memory. x is borrowed and must not change.
 * MODE_E_MEMORY. */
struct mode_nearest;
enum mode_status mode_nearest_open(struct mode_nearest **a, struct mode_backend *be, const float *x, int64_t n, int d,
                                   int k, struct mode_error *err);
/* As mode_nearest. */
void mode_nearest_again(struct mode_nearest *a, int32_t *id, float *distance, enum mode_metric metric, const float *c,
                        int k);
void mode_nearest_close(struct mode_nearest **a);

#endif
