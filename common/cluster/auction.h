/* auction.h - what the parts of an auction of places share. Inside cluster only: balanced.h has the contract.
 *
 * Bidders are the rows 0 .. n - 1 and, behind them, imaginary rows that even out the sizes. They bid in blocks: first
 * all of a block make their offers at the same prices, in parallel (offers.c), then the offers become bids one after
 * another (seats.c). */
#ifndef MODE_CLUSTER_AUCTION_H
#define MODE_CLUSTER_AUCTION_H

#include "cluster/cheapest.h"
#include "cluster/cost.h"

enum { MODE__OFFERS = 1024 }; /* of a block, at most: fixed, so that results do not depend on the thread count */

struct mode__bid {
    double level;
    int32_t who;
};

struct mode__offer {
    double level;
    int32_t who, centre;
    enum { MODE__OFFER_MADE, MODE__OFFER_ANEW, MODE__OFFER_UNKNOWN } state; /* anew: its list was; unknown: not made */
};

/* Of every centre its places and what they cost. */
struct mode__seats {
    int64_t n, cap; /* bidders from n on are imaginary; places per centre */
    int k;
    bool imaginary;
    struct mode__bid *heap; /* [k, cap] min-heaps by (level, who) */
    int64_t *size;          /* [k] */
    double *price;          /* [k] what a row must beat: the lowest bid once all places are taken */
    double *seat;           /* [k] what an imaginary row must beat; each centre holds at most one */
    unsigned char *held;    /* [k] an imaginary row sits here */
    int32_t *tree;          /* [2 * leaves] tournament over seat[]; leaf leaves + k is centre k; -1 = nobody */
    int leaves;             /* a power of two >= k */
};

/* false: no memory; close in any case. price [k]: zeros. */
bool mode__seats_open(struct mode__seats *s, int64_t n, int k);
void mode__seats_close(struct mode__seats *s);
/* Every place free, at the prices that there are. */
void mode__seats_clear(struct mode__seats *s);
/* The cheapest seat of all, its price and the next cheapest one (infinite where there is one centre alone). */
int mode__seats_best(const struct mode__seats *s, double *best, double *next);
/* Put a bid into centre k. Returns who is without a place now: the bidder when the bid is not above the lowest one, who
 * held that, or -1. */
int32_t mode__seats_bid(struct mode__seats *s, int k, struct mode__bid b);

/* Every row's cheapest centres, and the costs that are behind them. */
struct mode__lists {
    const struct mode_cost *cost;
    int k, wanted;                /* centres to a list */
    struct mode__candidate *cand; /* [n, wanted] */
    float *limit;                 /* [n] no centre outside the list was below this when the list was made */
    float *all;                   /* [n, k] costs, or NULL: then */
    float *some;                  /* costs of the rows measured last */
    int32_t *slot, *holder;       /* [n] where in `some`, or -1; whose, or -1 */
    int64_t next_slot;
    float *rows; /* a batch of rows to be measured */
    char *room;  /* of each thread's choice of candidates */
};

/* keep_bytes as in balanced.h. false: no memory; close in any case. */
bool mode__lists_open(struct mode__lists *l, const struct mode_cost *cost, int wanted, size_t keep_bytes);
void mode__lists_close(struct mode__lists *l);
/* All of them, at these prices. */
void mode__lists_make(struct mode__lists *l, const double *price);
/* A row's best centre at these prices, cost + price there, and the next best value. */
int mode__lists_best(const struct mode__lists *l, int64_t row, const double *price, double *best, double *next);

/* offer [n] of the bidders who [n]: what each is ready to pay for its best place, as much as its next best choice
 * allows and eps. Not made for imaginary rows. Lists that may lack the best or next best centre are made anew, at most
 * MODE__OFFERS. Threads: one caller, which uses the pool. */
void mode__offers_make(struct mode__offer *offer, struct mode__lists *l, int64_t n, const double *price, double eps);

#endif
