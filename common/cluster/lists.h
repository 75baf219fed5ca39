/* lists.h - every row's candidate list: its cheapest centres, and a lower bound on all others. Inside cluster only.
 *
 * Prices only rise, so while a list's best cost + price does not exceed the bound, it is the best of all centres.
 *
 * Threads: one caller per backend; uses the pool. Bit-identical for any number of threads. */
#ifndef MODE_CLUSTER_LISTS_H
#define MODE_CLUSTER_LISTS_H

#include "cluster/cheapest.h"
#include "cluster/cost.h"

enum { MODE__LISTS_MEASURED = 8192 }; /* rows whose costs are computed at a time */

struct mode__lists {
    const struct mode_cost *cost; /* borrowed; set by mode__lists_make */
    int64_t n;
    int k, length;
    struct mode__candidate *list; /* [n, length] */
    float *limit;                 /* [n] lower bound on cost + price of every centre outside the list */
    /* inside */
    float *all;     /* [n, k] costs, or NULL */
    float *scratch; /* [MODE__LISTS_MEASURED, k] costs; without all */
    float *rows;    /* [MODE__LISTS_MEASURED, d] gathered rows; without all */
    float *price;   /* [k] */
    char *room;     /* mode__cheapest_room of each thread */
};

/* length: of a list, at most MODE__CHEAPEST_MOST. keep_bytes: see balanced.h. False: out of memory; clear it in either
 * case. */
bool mode__lists_open(struct mode__lists *l, int64_t n, int k, int d, int length, size_t keep_bytes);
void mode__lists_clear(struct mode__lists *l);
/* Build the lists of all rows at price [k]. */
void mode__lists_make(struct mode__lists *l, const struct mode_cost *cost, const double *price);
/* Rebuild those of row [m]. */
void mode__lists_again(struct mode__lists *l, const double *price, const int32_t *row, int64_t m);
/* The same in two steps, for lists at different prices: compute the costs of 1 <= m <= MODE__LISTS_MEASURED rows, then
 * rebuild the list of row[at]. */
void mode__lists_measure(struct mode__lists *l, const int32_t *row, int64_t m);
void mode__lists_renew(struct mode__lists *l, const double *price, int32_t row, int64_t at);

#endif
