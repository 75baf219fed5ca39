/* Selection without sorting. The minima of LANES interleaved parts of the row bound what can be among the cheapest: if
 * `want` of them are at most t, so are `want` sums, and the others drop out. What is left, some more than `want`, is
 * cut at the value that just enough of them do not exceed; such values are found by halving an interval. */
#include "cluster/cheapest.h"

#include <math.h>
#include <stdbool.h>

enum { LANES = MODE__CHEAPEST_MOST };

size_t mode__cheapest_room(int k)
{
    return ((size_t)k * (sizeof(double) + sizeof(int32_t)) + 63) / 64 * 64; /* threads have theirs side by side */
}

static int up_to(const double *v, int n, double most)
{
    int count = 0;
    for (int i = 0; i < n; i++) count += v[i] <= most;
    return count;
}

/* v [n] holds at least `want` numbers. *below < *most: fewer than `want` are at most *below, at least `want` at most
 * *most: exactly that many, or no double lies between the two. */
static void cut(const double *v, int n, int want, double *below, double *most)
{
    double low = v[0], high = v[0];
    for (int i = 1; i < n; i++) {
        low = v[i] < low ? v[i] : low;
        high = v[i] > high ? v[i] : high;
    }
    low = nextafter(low, -INFINITY);
    for (int have = n; have != want;) {
        double middle = low + (high - low) / 2;
        if (!(middle > low && middle < high)) break;
        int count = up_to(v, n, middle);
        if (count < want) {
            low = middle;
        } else {
            high = middle;
            have = count;
        }
    }
    *below = low;
    *most = high;
}

/* sum [k] = cost + price; least [LANES]: of each lane, infinite where it has none. */
static void add_prices(double *restrict sum, double *restrict least, const float *restrict cost,
                       const double *restrict price, int k)
{
    int i = 0;
    for (int l = 0; l < LANES; l++) least[l] = INFINITY;
    for (; i + LANES <= k; i += LANES)
        for (int l = 0; l < LANES; l++) {
            double v = cost[i + l] + price[i + l];
            sum[i + l] = v;
            least[l] = v < least[l] ? v : least[l];
        }
    for (int l = 0; i + l < k; l++) {
        double v = cost[i + l] + price[i + l];
        sum[i + l] = v;
        least[l] = v < least[l] ? v : least[l];
    }
}

/* The numbers that are at most t, to the front, and where they were; how many. */
static int keep(double *v, int32_t *id, int k, double t)
{
    int n = 0;
    for (int i = 0; i < k; i++) {
        double x = v[i];
        v[n] = x;
        id[n] = i;
        n += x <= t;
    }
    return n;
}

double mode__cheapest(struct mode__candidate *list, int want, const float *cost, const double *price, int k, void *room)
{
    double *sum = room, least[LANES], below, most;
    int32_t *id = (int32_t *)(sum + k);
    add_prices(sum, least, cost, price, k);
    const int lanes = k < LANES ? k : LANES;
    cut(least, lanes, want < lanes ? want : lanes, &below, &most);
    const int n = keep(sum, id, k, want < lanes ? most : INFINITY);
    cut(sum, n, want, &below, &most);
    int equal = want - up_to(sum, n, below), have = 0, first = 0, last = 0; /* places for those above `below` */
    double low = INFINITY, high = -INFINITY;
    for (int i = 0; i < n && have < want; i++) {
        if (sum[i] > most || (sum[i] > below && equal-- <= 0)) continue;
        if (sum[i] < low) low = sum[i], first = have;
        if (sum[i] >= high) high = sum[i], last = have;
        list[have++] = (struct mode__candidate){cost[id[i]], id[i]};
    }
    const struct mode__candidate cheapest = list[first], dearest = list[last];
    list[first] = list[0];
    if (last == 0) last = first;
    list[0] = cheapest;
    list[last] = list[want - 1];
    list[want - 1] = dearest;
    return high;
}
