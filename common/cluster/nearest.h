/* nearest.h - the nearest centre of every row, exactly.
 *
 * A blocked f32 matrix product finds the few centres that could be nearest; those are measured again in
 * double from the differences. So the answer is that of a plain loop in double precision, and does not depend
 * on how rows were cut into blocks or shards. Ties go to the lower id.
 *
 * Threads: uses the pool. */
#ifndef MODE_CLUSTER_NEAREST_H
#define MODE_CLUSTER_NEAREST_H

#include "cluster/centres.h"

/* id [n] in [0, k); distance [n] (may be NULL): euclidean: L2 (not squared); cosine: 1 - x.c.
 * x [n, d], c [k, d]; cosine: both unit rows. Errors: MODE_E_MEMORY. */
enum mode_status mode_nearest(int32_t *id, float *distance, enum mode_metric metric, const float *x, int64_t n,
                              const float *c, int k, int d, struct mode_error *err);

#endif
