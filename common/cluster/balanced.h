/* balanced.h - balanced assignment: every row to one of k centres, cluster sizes differing by at most one.
 *
 * Sizes are floor(n/k) or ceil(n/k), and n mod k clusters have the larger one, for every n and k (n < k: 0 or
 * 1). The total cost is within (n + k) * epsilon of the optimum: an auction in which rows bid for places, a
 * centre's price is its lowest accepted bid, with epsilon scaling. The auction also decides which centres get the
 * larger size: if k does not divide n, k - n mod k zero-cost dummy rows take a place, at most one per centre.
 *
 * Source:  Bertsekas and Castanon, "The auction algorithm for the transportation problem" (1989); written
 *          afresh. docs/decisions/0004-balanced-assignment.md says why.
 * Threads: uses the pool; bit-identical for any number of threads. */
#ifndef MODE_CLUSTER_BALANCED_H
#define MODE_CLUSTER_BALANCED_H

#include "cluster/cost.h"

struct mode_balanced_params {
    double tolerance;  /* final epsilon, relative to the mean cost to the nearest centre, > 0 */
    int candidates;    /* length of a row's candidate list, 2 .. 64; rebuilt when prices outgrow it */
    size_t keep_bytes; /* store the [n, k] costs if they fit into this; otherwise recompute rows */
};
#define MODE_BALANCED_PARAMS_DEFAULT                                                                                   \
    {                                                                                                                  \
        .tolerance = 1e-3, .candidates = 32, .keep_bytes = (size_t)2 << 30                                             \
    }

struct mode_balanced_stats {
    double objective;          /* sum of costs: squared L2 distances, or 1 - cosine */
    double bound;              /* lower bound on the optimum, from the final prices (LP duality) */
    double epsilon;            /* objective <= bound + (n + k) * epsilon (+ rounding of f32 costs) */
    int64_t bids, refreshed;   /* bids made; candidate lists rebuilt */
    int64_t largest, smallest; /* cluster sizes */
};

struct mode_balanced;

/* Allocates for assignments of n rows of width d to k centres, n + k < 2^31. On failure *b is NULL. MODE_E_MEMORY. */
enum mode_status mode_balanced_open(struct mode_balanced **b, int64_t n, int k, int d,
                                    const struct mode_balanced_params *params, struct mode_error *err);
void mode_balanced_close(struct mode_balanced **b);
/* id [n] in [0, k). price [k] (NULL: zeros): start prices >= 0 in, final prices out, a warm start for centres that have
 * hardly moved. stats may be NULL. cost has the sizes that b was opened for. */
void mode_balanced_assign(struct mode_balanced *b, int32_t *id, double *price, struct mode_balanced_stats *stats,
                          const struct mode_cost *cost);

#endif
