/* cost.h - the cost of putting a row into a cluster, some rows at a time, on any backend (mode_costs of nn/ops.h).
 *
 * euclidean: squared L2; cosine: 1 - x.c (both unit). The [n, k, d] differences are never formed.
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
    const float *x, *c; /* [n, d], [k, d], borrowed */
    int64_t n;
    int k, d;
    const float *host; /* x in the memory of the host, where x itself is a device's; NULL: it is not */
};

/* out [rows, k] for rows first .. first+rows-1; never negative. */
void mode_cost_rows(const struct mode_cost *cost, float *out, int64_t first, int64_t rows);

/* MODE_E_VALUE naming the first row that is not finite or, where unit is set, not of length 1 +- 1e-3. what
 * names the rows ("feat of shard 3"); number [n] gives the rows' numbers there, NULL: 0, 1, ... */
enum mode_status mode_rows_check(const float *x, int64_t n, int d, bool unit, const int64_t *number, const char *what,
                                 struct mode_error *err);

#endif
