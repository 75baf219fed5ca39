/* cost.h - the cost matrix of rows and centres, a range of rows at a time, on any backend (mode_costs of nn/ops.h).
 *
 * euclidean: squared L2 distance; cosine: 1 - x.c (both unit). The [n, k, d] differences are never formed.
 *
 * Threads: one caller per backend. */
#ifndef MODE_CLUSTER_COST_H
#define MODE_CLUSTER_COST_H

#include "cluster/centres.h"
#include "nn/backend.h"

#include <stdbool.h>
#include <stdint.h>

enum { MODE_ROWS_BLOCK = 256 }; /* rows per work item: fixed, so results do not depend on the thread count */

struct mode_cost {
    struct mode_backend *be; /* borrowed */
    enum mode_metric metric;
    const float *x, *c; /* [n, d], [k, d] f32, borrowed; host or backend memory */
    int64_t n;
    int k, d;
    const float *host; /* a host copy of x if x is in a device's memory, else NULL */
};

/* out [rows, k] f32, for rows first .. first+rows-1; never negative. Waits for the result. */
void mode_cost_rows(const struct mode_cost *cost, float *out, int64_t first, int64_t rows);

/* MODE_E_VALUE naming the first row that is not finite or, if unit is set, whose length is not 1 +- 1e-3. what
 * names the rows in the error ("feat of shard 3"); number [n]: the rows' numbers there, NULL: 0, 1, ... */
enum mode_status mode_rows_check(const float *x, int64_t n, int d, bool unit, const int64_t *number, const char *what,
                                 struct mode_error *err);

#endif
