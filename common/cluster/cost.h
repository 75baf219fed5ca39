/* cost.h - the cost of putting a row into a cluster, a block of rows at a time.
 *
 * euclidean: squared L2, as |x|^2 + |c|^2 - 2 x.c with one blocked matrix product; cosine: 1 - x.c (both
 * unit). The [n, k, d] differences are never formed: one block is [rows, k] floats.
 *
 * Threads: an open struct is read-only; blocks may be computed from several threads at once. */
#ifndef MODE_CLUSTER_COST_H
#define MODE_CLUSTER_COST_H

#include "cluster/centres.h"

#include <stdbool.h>
#include <stdint.h>

enum { MODE_COST_BLOCK = 256 }; /* rows per work item: fixed, so results do not depend on the thread count */

struct mode_cost {
    enum mode_metric metric;
    const float *x, *c; /* [n, d], [k, d], borrowed */
    int64_t n;
    int k, d;
    float *x_sq, *c_sq; /* [n], [k] squared lengths; owned; NULL for cosine */
};

enum mode_status mode_cost_open(struct mode_cost *cost, enum mode_metric metric, const float *x, int64_t n,
                                const float *c, int k, int d, struct mode_error *err);
void mode_cost_close(struct mode_cost *cost);
/* out [rows, k] for rows first .. first+rows-1; never negative. */
void mode_cost_block(const struct mode_cost *cost, float *out, int64_t first, int rows);

/* MODE_E_VALUE naming the first row that is not finite or, where unit is set, not of length 1 +- 1e-3. what
 * names the rows ("feat of shard 3"); number [n] gives the rows' numbers there, NULL: 0, 1, ... */
enum mode_status mode_rows_check(const float *x, int64_t n, int d, bool unit, const int64_t *number, const char *what,
                                 struct mode_error *err);

#endif
