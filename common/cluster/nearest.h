/* nearest.h - the nearest centre of every row, exactly, on any backend (mode_nearest_rows of nn/ops.h).
 *
 * The answer is that of a plain loop in double precision: it does not depend on how rows were cut into shards, nor on
 * where it was computed. Ties go to the lower id.
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

#endif
