/* auction.h - the auction algorithm: rows bid for places at centres until every row has one. Inside cluster only.
 *
 * Unassigned rows bid in rounds of many rows at the same prices (a Jacobi auction); then every centre keeps its highest
 * bids. The last few rows of a phase bid one at a time, at current prices (Gauss-Seidel).
 *
 * Source:  Bertsekas and Castanon 1989, see balanced.h.
 * Threads: one caller; bids, and centres, are distributed over the pool. Bit-identical for any number of threads. */
#ifndef MODE_CLUSTER_AUCTION_H
#define MODE_CLUSTER_AUCTION_H

#include "cluster/lists.h"
#include "cluster/places.h"

struct mode__auction {
    struct mode__lists *lists; /* borrowed */
    struct mode__places places;
    int32_t *place;          /* [n] the centre of every row at the end of a phase; -1: none yet */
    double eps;              /* of the last phase, in units of cost */
    int64_t bids, refreshed; /* bids made; candidate lists rebuilt */
    /* inside */
    int64_t n, part; /* part: bids that are sorted in an item of work */
    int32_t *queue;  /* [n] ring of unassigned rows */
    int64_t head, left;
    int64_t wasted;          /* bids that others of the same round outbid */
    int64_t limit;           /* epsilon doubles when bids - wasted reaches this */
    int64_t many;            /* rows that bid in a round */
    int32_t *last;           /* [n] the last round in which the row bid */
    int32_t rounds;          /* of this assignment */
    int64_t standing;        /* unassigned dummies */
    struct mode__bid *made;  /* [n] bids of a round, one for each row; who: the row */
    int32_t *to;             /* [n] their centres; -1: the row's list must be rebuilt first */
    struct mode__bid *taken; /* [n] the same bids sorted by centre; afterwards who: the row that the bid displaced */
    int32_t *start;          /* [parts, k] where in taken[] a part's bids for a centre go */
    int32_t *again;          /* [n] rows whose lists are rebuilt */
};

/* False: out of memory; clear it in either case. lists is borrowed. */
bool mode__auction_open(struct mode__auction *a, struct mode__lists *lists);
void mode__auction_clear(struct mode__auction *a);
/* Unassigns all rows; price [k], NULL: zeros. */
void mode__auction_begin(struct mode__auction *a, const double *price);
/* One phase of epsilon scaling, from current prices on: rows whose place is within epsilon of their best one rebid for
 * it. Doubles epsilon if the phase makes too many bids (price wars); a->eps is the final value. */
void mode__auction_phase(struct mode__auction *a, double eps);

#endif
