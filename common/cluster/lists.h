/* lists.h - of every row its cheapest centres at some prices, and a bound on all others. Inside cluster only.
 *
 * Prices only rise: as long as the best of a list is not above the bound it is the best of all centres.
 *
 * Threads: one caller per backend; lists are made by the pool, the same for any number of threads. */
#ifndef MODE_CLUSTER_LISTS_H
#define MODE_CLUSTER_LISTS_H

#include "cluster/cheapest.h"
#include "cluster/cost.h"

enum { MODE__LISTS_MEASURED = 8192 }; /* rows whose costs are made at a time */

struct mode__lists {
    const struct mode_cost *cost; /* borrowed; set by mode__lists_make */
    int64_t n;
    int k, length;
    struct mode__candidate *list; /* [n, length] */
    float *limit;                 /* [n] no centre outside the list was below this when the list was made */
    /* inside */
    float *all;     /* [n, k] costs, or NULL */
    float *scratch; /* [rows at a time, k] */
    float *rows;    /* [rows at a time, d] */
    float *price;   /* [k] */
    char *room;     /* of each thread's choice */
};

/* false: no memory. Clear it in either case. */
bool mode__lists_open(struct mode__lists *l, int64_t n, int k, int d, int length, size_t keep_bytes);
void mode__lists_clear(struct mode__lists *l);
/* Of all rows at price [k]. */
void mode__lists_make(struct mode__lists *l, const struct mode_cost *cost, const double *price);
/* Of m rows once more. */
void mode__lists_again(struct mode__lists *l, const double *price, const int32_t *row, int64_t m);
/* The same in two steps, for lists at different prices: costs of 1 <= m <= MODE__LISTS_MEASURED rows, then the list of
 * row[at]. */
void mode__lists_measure(struct mode__lists *l, const int32_t *row, int64_t m);
void mode__lists_renew(struct mode__lists *l, const double *price, int32_t row, int64_t at);

#endif
