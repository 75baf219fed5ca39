/* places.h - the places of the centres, what was bid for them, and what they cost. Inside cluster only.
 *
 * Every centre has `cap` places. Where rows do not fill them all, imaginary rows of no cost take what is left, at most
 * one at each centre: which centres are the larger ones is part of the auction.
 *
 * Threads: mode__places_put for different centres at a time; everything else alone. */
#ifndef MODE_CLUSTER_PLACES_H
#define MODE_CLUSTER_PLACES_H

#include <stdbool.h>
#include <stdint.h>

struct mode__bid {
    double level;
    int32_t who; /* row; n: an imaginary row */
};

struct mode__places {
    int64_t n, cap, imaginary;
    int k;
    struct mode__bid *bid; /* [k, cap] accepted; a heap with the lowest on top once all places are taken */
    int64_t *size;         /* [k] places that are taken */
    unsigned char *held;   /* [k] one of them by an imaginary row */
    double *price;         /* [k] what a row must beat: the lowest bid once all places are taken */
    double *seat;          /* [k] what an imaginary row must beat */
    int32_t *tree;         /* [2 * leaves] tournament over seat[]; leaf leaves + k is centre k; -1 = nobody */
    int leaves;            /* a power of two >= k */
};

/* At price 0. false: no memory; clear it in either case. */
bool mode__places_open(struct mode__places *p, int64_t n, int k);
void mode__places_clear(struct mode__places *p);
/* All places free, prices as they are. */
void mode__places_empty(struct mode__places *p);
/* A bid for a place at centre k; returns who has none now (a row, n, the bidder itself), or -1. Before the next look
 * at seats, mode__seat_changed of this centre or mode__seats_changed. */
int32_t mode__places_put(struct mode__places *p, int k, struct mode__bid b);
void mode__seat_changed(struct mode__places *p, int k);
void mode__seats_changed(struct mode__places *p);
/* The centre of the cheapest seat, its price, and the next cheapest one's (infinite: k = 1). */
int mode__seats_best(const struct mode__places *p, double *best, double *next);

#endif
