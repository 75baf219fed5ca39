/* auction.h - rows bid for places at centres until everyone has one. Inside cluster only.
 *
 * Rows without a place bid many at a time, all at the same prices; then every centre keeps its highest bids. The last
 * few of a phase bid one after another.
 *
 * Threads: one caller; bids, and centres, are shared out to the pool: the same for any number of threads. */
#ifndef MODE_CLUSTER_AUCTION_H
#define MODE_CLUSTER_AUCTION_H

#include "cluster/lists.h"
#include "cluster/places.h"

struct mode__auction {
    struct mode__lists *lists; /* borrowed */
    struct mode__places places;
    int32_t *place;          /* [n] the centre of every row at the end of a phase; -1: none yet */
    double eps;              /* of the last phase */
    int64_t bids, refreshed; /* bids made; lists made anew */
    /* inside */
    int64_t n, part; /* part: bids that are sorted in an item of work */
    int32_t *queue;  /* [n] ring of rows without a place */
    int64_t head, left;
    int64_t wasted;          /* bids, of all, that others of the same round outbid */
    int64_t limit;           /* bids less these after which epsilon grows */
    int64_t many;            /* rows that bid in a round */
    int32_t *last;           /* [n] the last round in which the row bid */
    int32_t rounds;          /* of this assignment */
    int64_t standing;        /* imaginary rows without a seat */
    struct mode__bid *made;  /* [n] bids of a round, one for each row; who: the row */
    int32_t *to;             /* [n] for which centre; -1: its list has to be made anew */
    struct mode__bid *taken; /* [n] the same bids centre by centre; then who: who lost a place by it */
    int32_t *start;          /* [parts, k] where in taken[] a centre's bids of a part of the round go */
    int32_t *again;          /* [n] rows whose lists are made anew */
};

/* false: no memory; clear it in either case. */
bool mode__auction_open(struct mode__auction *a, struct mode__lists *lists);
void mode__auction_clear(struct mode__auction *a);
/* Nobody has a place; price [k], NULL: zeros. */
void mode__auction_begin(struct mode__auction *a, const double *price);
/* From the prices and the places there are: rows whose place is within epsilon of their best keep it. Raises epsilon
 * when there is no end to it otherwise. */
void mode__auction_phase(struct mode__auction *a, double eps);

#endif
