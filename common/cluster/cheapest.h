/* cheapest.h - the cheapest centres of a row at given prices. Inside cluster only.
 *
 * Threads: any, each with its own room. */
#ifndef MODE_CLUSTER_CHEAPEST_H
#define MODE_CLUSTER_CHEAPEST_H

#include <stddef.h>
#include <stdint.h>

enum { MODE__CHEAPEST_MOST = 64 };

struct mode__candidate {
    float cost;
    int32_t id;
};

/* list [want] = the centres of smallest cost + price, in float, ties to the lower ids: the cheapest first, the dearest
 * last, between them in any order. Returns the dearest's cost + price. cost [k] and price [k] are not negative;
 * 1 <= want <= k, want <= MODE__CHEAPEST_MOST; room: mode__cheapest_room(k) bytes, aligned to 4. */
float mode__cheapest(struct mode__candidate *list, int want, const float *cost, const float *price, int k, void *room);
/* The same bytes, as a processor without AVX2 makes them. */
float mode__cheapest_plain(struct mode__candidate *list, int want, const float *cost, const float *price, int k,
                           void *room);
size_t mode__cheapest_room(int k);

#endif
