/* places.h - the centres' places, accepted bids and prices. Inside cluster only.
 *
 * Every centre has `cap` places. If rows do not fill them all, zero-cost dummy rows take the rest, at most one per
 * centre: so the auction also decides which centres are the larger ones.
 *
 * Threads: mode__places_put may run concurrently for different centres; all else needs exclusive access. */
#ifndef MODE_CLUSTER_PLACES_H
#define MODE_CLUSTER_PLACES_H

#include <stdbool.h>
#include <stdint.h>

struct mode__bid {
    double level;
    int32_t who; /* row; n: a dummy */
};

struct mode__places {
    int64_t n, cap, dummies;
    int k;
    struct mode__bid *bid; /* [k, cap] accepted bids; a min-heap once all places are taken */
    int64_t *size;         /* [k] places that are taken */
    unsigned char *held;   /* [k] one of them by a dummy */
    double *price;         /* [k] what a row must outbid: the lowest accepted bid once all places are taken */
    double *seat;          /* [k] what a dummy must outbid */
    int32_t *tree;         /* [2 * leaves] tournament tree over seat[]; leaf leaves + k is centre k; -1 = none */
    int leaves;            /* a power of two >= k */
};

/* All prices 0. False: out of memory; clear it in either case. */
bool mode__places_open(struct mode__places *p, int64_t n, int k);
void mode__places_clear(struct mode__places *p);
/* Frees all places; prices stay. */
void mode__places_empty(struct mode__places *p);
/* A bid for a place at centre k. Returns who is left without a place (the displaced row, n: a dummy, or the bidder), or
 * -1. Call mode__seat_changed of this centre or mode__seats_changed before the next mode__seats_best. */
int32_t mode__places_put(struct mode__places *p, int k, struct mode__bid b);
void mode__seat_changed(struct mode__places *p, int k);
void mode__seats_changed(struct mode__places *p);
/* The centre with the lowest seat[], that value, and the second lowest (infinite if k = 1). */
int mode__seats_best(const struct mode__places *p, double *best, double *next);

#endif
