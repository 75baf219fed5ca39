/* balanced.h - give every row to one of k centres so that cluster sizes differ by at most one.
 *
 * Sizes are floor(n/k) or ceil(n/k), and n mod k clusters have the larger one, for every n and k (n < k: 0 or
 * 1). The total cost is within (n + k) * epsilon of the smallest possible: an auction in which rows bid for places,
 * a centre's price is its lowest accepted bid, and epsilon shrinks in steps. Which centres get the larger
 * size is decided by the auction too: k - n mod k imaginary rows of no cost bid for one place in each centre.
 *
 * Source:  Bertsekas and Castanon, "The auction algorithm for the transportation problem" (1989); written
 * afresh. docs/decisions/0004-balanced-assignment.md says why.
 * Threads: uses the pool; same bytes for any thread count. */
#ifndef MODE_CLUSTER_BALANCED_H
#define MODE_CLUSTER_BALANCED_H

#include "cluster/cost.h"

struct mode_balanced_params {
    double tolerance;  /* epsilon at the end, as a share of the mean cost to the nearest centre, > 0 */
    int candidates;    /* centres remembered per row, 2 .. 64; rows look beyond them when priced out */
    size_t keep_bytes; /* keep all n * k costs when they fit into this; otherwise measure rows again */
};
#define MODE_BALANCED_PARAMS_DEFAULT                                                                                   \
    {                                                                                                                  \
        .tolerance = 1e-3, .candidates = 32, .keep_bytes = (size_t)2 << 30                                             \
    }

struct mode_balanced_stats {
    double objective;        /* sum of costs                                   */
    double bound;            /* no balanced assignment has a smaller sum of costs: the final prices prove it */
    double epsilon;          /* objective <= bound + (n + k) * epsilon (+ rounding of f32 costs) */
    int64_t bids, refreshed; /* bids made; rows whose candidates were looked up anew */
    int64_t largest, smallest;
};

struct mode_balanced;

/* Memory for assignments of n rows of d numbers to k centres. Errors: MODE_E_MEMORY. */
enum mode_status mode_balanced_open(struct mode_balanced **b, int64_t n, int k, int d,
                                    const struct mode_balanced_params *params, struct mode_error *err);
void mode_balanced_close(struct mode_balanced **b);
/* id [n] in [0, k). price [k]: start prices in, not negative; final prices out, for a start with centres that have
 * hardly moved; NULL: zeros. stats may be NULL. cost has the sizes that b was opened for. */
void mode_balanced_assign(struct mode_balanced *b, int32_t *id, double *price, struct mode_balanced_stats *stats,
                          const struct mode_cost *cost);

#endif
