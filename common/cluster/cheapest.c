/* Selection without sorting. Minima over LANES interleaved parts of the row give a threshold: if `want` of them are at
 * most t, so are `want` sums, and all sums above t drop out. Among the few that are left, the exact threshold that
 * `want` of them do not exceed is found by bisection on the value. */
#include "cluster/cheapest.h"

#include <math.h>
#include <stdbool.h>
#if defined(__x86_64__)
#include <immintrin.h>
#define WIDE __attribute__((target("avx2,bmi")))
#endif
#define INLINE static inline __attribute__((always_inline))

enum { LANES = MODE__CHEAPEST_MOST, WIDTH = 8, VECTORS = LANES / WIDTH };

typedef float eight __attribute__((vector_size(WIDTH * sizeof(float))));
typedef int32_t eight_bits __attribute__((vector_size(WIDTH * sizeof(float))));
typedef float eight_loose __attribute__((vector_size(WIDTH * sizeof(float)), aligned(4), may_alias));

size_t mode__cheapest_room(int k)
{
    return ((size_t)k * (sizeof(float) + sizeof(int32_t)) + 63) / 64 * 64; /* no false sharing between threads */
}

INLINE int up_to(const float *v, int n, float most)
{
    int count = 0;
    for (int i = 0; i < n; i++) count += v[i] <= most;
    return count;
}

/* Bisection: *below < *most with fewer than `want` of v [n] <= *below and at least `want` <= *most; either exactly
 * `want` are, or no float lies between the two. n >= want. */
INLINE void threshold(const float *v, int n, int want, float *below, float *most)
{
    float low = v[0], high = v[0];
    for (int i = 1; i < n; i++) {
        low = v[i] < low ? v[i] : low;
        high = v[i] > high ? v[i] : high;
    }
    low = nextafterf(low, -INFINITY);
    for (int have = n; have != want;) {
        float middle = low + (high - low) / 2;
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

/* sum [k] = cost + price; least [LANES]: minimum of each lane, infinite if it is empty. */
INLINE void add_prices(float *restrict sum, float *restrict least, const float *restrict cost,
                       const float *restrict price, int k)
{
    eight low[VECTORS];
    int i = 0;
    for (int v = 0; v < VECTORS; v++)
        for (int l = 0; l < WIDTH; l++) low[v][l] = INFINITY;
    for (; i + LANES <= k; i += LANES)
        for (int v = 0; v < VECTORS; v++) {
            const int at = i + v * WIDTH;
            const eight x = *(const eight_loose *)(cost + at) + *(const eight_loose *)(price + at);
            *(eight_loose *)(sum + at) = x;
            const eight_bits less = x < low[v];
            low[v] = (eight)((less & (eight_bits)x) | (~less & (eight_bits)low[v]));
        }
    for (int v = 0; v < VECTORS; v++) *(eight_loose *)(least + v * WIDTH) = low[v];
    for (int l = 0; i + l < k; l++) {
        sum[i + l] = cost[i + l] + price[i + l];
        least[l] = sum[i + l] < least[l] ? sum[i + l] : least[l];
    }
}

/* Compact: values v[i..k) that are <= t go to v[n..), their indices to id. Returns the new n. */
static int keep_rest(float *v, int32_t *id, int i, int k, float t, int n)
{
    for (; i < k; i++) {
        const float x = v[i];
        v[n] = x;
        id[n] = i;
        n += x <= t;
    }
    return n;
}

#ifdef WIDE
WIDE static int keep_wide(float *v, int32_t *id, int k, float t)
{
    const __m256 most = _mm256_set1_ps(t);
    int n = 0, i = 0;
    for (; i + WIDTH <= k; i += WIDTH)
        for (unsigned in = (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(v + i), most, _CMP_LE_OQ)); in;
             in &= in - 1) {
            const int at = i + __builtin_ctz(in);
            v[n] = v[at];
            id[n++] = at;
        }
    return keep_rest(v, id, i, k, t, n);
}
#endif

INLINE float choose(struct mode__candidate *list, int want, const float *cost, const float *price, int k, void *room,
                    int keep(float *, int32_t *, int, float))
{
    float *sum = room, least[LANES], below, most;
    int32_t *id = (int32_t *)(sum + k);
    add_prices(sum, least, cost, price, k);
    const int lanes = k < LANES ? k : LANES;
    threshold(least, lanes, want < lanes ? want : lanes, &below, &most);
    const int n = keep(sum, id, k, want < lanes ? most : INFINITY);
    threshold(sum, n, want, &below, &most);
    int equal = want - up_to(sum, n, below), have = 0, first = 0, last = 0; /* equal: taken of those above `below` */
    float low = INFINITY, high = -INFINITY;
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

static int keep_plain(float *v, int32_t *id, int k, float t)
{
    return keep_rest(v, id, 0, k, t, 0);
}

float mode__cheapest_plain(struct mode__candidate *list, int want, const float *cost, const float *price, int k,
                           void *room)
{
    return choose(list, want, cost, price, k, room, keep_plain);
}

#ifdef WIDE
WIDE static float choose_wide(struct mode__candidate *list, int want, const float *cost, const float *price, int k,
                              void *room)
{
    return choose(list, want, cost, price, k, room, keep_wide);
}
#endif

float mode__cheapest(struct mode__candidate *list, int want, const float *cost, const float *price, int k, void *room)
{
#ifdef WIDE
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi"))
        return choose_wide(list, want, cost, price, k, room);
#endif
    return mode__cheapest_plain(list, want, cost, price, k, room);
}
