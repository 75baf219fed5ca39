/* cheapest.h - top-k selection: the cheapest centres of a row at given prices. Inside cluster only.
 *
 * Threads: reentrant, with one scratch `room` per thread. */
#ifndef MODE_CLUSTER_CHEAPEST_H
#define MODE_CLUSTER_CHEAPEST_H

#include <stddef.h>
#include <stdint.h>

enum { MODE__CHEAPEST_MOST = 64 };

struct mode__candidate {
    float cost;
    int32_t id;
};

/* list [want] = the centres with the smallest cost + price, in f32, ties to the lower ids: the cheapest first, the most
 * expensive last, the others in any order. Returns the last one's cost + price. cost [k] and price [k] are >= 0;
 * 1 <= want <= k, want <= MODE__CHEAPEST_MOST; room: mode__cheapest_room(k) bytes, aligned to 4. */
float mode__cheapest(struct mode__candidate *list, int want, const float *cost, const float *price, int k, void *room);
/* The variant without AVX2; bit-identical. */
float mode__cheapest_plain(struct mode__candidate *list, int want, const float *cost, const float *price, int k,
                           void *room);
size_t mode__cheapest_room(int k);

#endif
