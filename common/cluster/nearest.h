/* nearest.h - the nearest centre of every row, exactly, on any backend (mode_nearest_rows of nn/ops.h).
 *
 * The answer is that of a plain loop in double precision: it does not depend on how rows were cut into shards, nor on
 * where it was computed. Ties go to the lower id.
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

/* id [n] in [0, k); distance [n] (may be NULL): euclidean: L2 (not squared); cosine: 1 - x.c.
 * x [n, d], c [k, d]; cosine: both unit rows. be: NULL = the processor. Errors: MODE_E_MEMORY. */
enum mode_status mode_nearest(struct mode_backend *be, int32_t *id, float *distance, enum mode_metric metric,
                              const float *x, int64_t n, const float *c, int k, int d, struct mode_error *err);

/* For rows that are assigned more than once, to at most k centres at a time; scratch is taken once. A GPU keeps half as
 * much again as the rows take (mode_nearest_ready), where it has room. x is borrowed and must stay as it is.
 * MODE_E_MEMORY. */
struct mode_nearest;
enum mode_status mode_nearest_open(struct mode_nearest **a, struct mode_backend *be, const float *x, int64_t n, int d,
                                   int k, struct mode_error *err);
/* As mode_nearest. */
void mode_nearest_again(struct mode_nearest *a, int32_t *id, float *distance, enum mode_metric metric, const float *c,
                        int k);
void mode_nearest_close(struct mode_nearest **a);

#endif
