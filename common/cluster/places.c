#include "cluster/places.h"

#include <math.h>
#include <stdlib.h>

/* Ties go to the lower row: a bid that equals the lowest accepted one, from a later row, is rejected and displaces
 * nobody. */
static bool below(struct mode__bid a, struct mode__bid b)
{
    return a.level < b.level || (a.level == b.level && a.who > b.who);
}

static void sift_down(struct mode__bid *h, int64_t size, int64_t at)
{
    const struct mode__bid moved = h[at];
    for (;;) {
        int64_t least = 2 * at + 1;
        if (least >= size) break;
        if (least + 1 < size && below(h[least + 1], h[least])) least++;
        if (!below(h[least], moved)) break;
        h[at] = h[least];
        at = least;
    }
    h[at] = moved;
}

/* An inner node of the tournament tree holds the centre of its subtree with the lowest seat[], ties to the lower id. */
static int32_t winner(const struct mode__places *p, int at)
{
    int32_t left = p->tree[2 * at], right = p->tree[2 * at + 1];
    if (right < 0) return left;
    return left >= 0 && p->seat[left] <= p->seat[right] ? left : right;
}

void mode__seat_changed(struct mode__places *p, int k)
{
    if (!p->dummies) return;
    for (int at = (p->leaves + k) / 2; at >= 1; at /= 2) p->tree[at] = winner(p, at);
}

void mode__seats_changed(struct mode__places *p)
{
    if (!p->dummies) return;
    for (int at = p->leaves - 1; at >= 1; at--) p->tree[at] = winner(p, at);
}

int mode__seats_best(const struct mode__places *p, double *best, double *next)
{
    int k = p->tree[1];
    *best = p->seat[k];
    *next = INFINITY;
    for (int at = p->leaves + k; at > 1; at /= 2) { /* the second best lost to k at some node on k's path to the root */
        int32_t rival = p->tree[at ^ 1];
        if (rival >= 0 && p->seat[rival] < *next) *next = p->seat[rival];
    }
    return k;
}

int32_t mode__places_put(struct mode__places *p, int k, struct mode__bid b)
{
    struct mode__bid *h = p->bid + k * p->cap;
    const bool dummy = b.who >= p->n;
    int32_t loser = -1;
    if (dummy && p->held[k]) { /* a centre holds at most one dummy: this one displaces it */
        int64_t at = 0;
        while (h[at].who < p->n) at++;
        loser = h[at].who;
        h[at] = b;
        if (p->size[k] == p->cap) sift_down(h, p->cap, at);
    } else if (p->size[k] < p->cap) {
        h[p->size[k]++] = b;
        for (int64_t at = p->size[k] == p->cap ? p->cap / 2 : 0; at-- > 0;) sift_down(h, p->cap, at);
    } else {
        if (below(b, h[0])) return b.who;
        loser = h[0].who;
        if (loser >= p->n) p->held[k] = 0;
        h[0] = b;
        sift_down(h, p->cap, 0);
    }
    if (dummy) {
        p->held[k] = 1;
        p->seat[k] = b.level;
    }
    if (p->size[k] == p->cap) p->price[k] = h[0].level;
    if (!p->held[k]) p->seat[k] = p->price[k];
    return loser;
}

void mode__places_empty(struct mode__places *p)
{
    for (int k = 0; k < p->k; k++) {
        p->size[k] = 0;
        p->held[k] = 0;
        p->seat[k] = p->price[k];
    }
    mode__seats_changed(p);
}

bool mode__places_open(struct mode__places *p, int64_t n, int k)
{
    *p = (struct mode__places){.n = n, .k = k, .cap = (n + k - 1) / k, .dummies = n % k ? k - n % k : 0, .leaves = 1};
    while (p->leaves < k) p->leaves *= 2;
    p->bid = malloc((size_t)k * (size_t)p->cap * sizeof *p->bid);
    p->size = calloc((size_t)k, sizeof *p->size);
    p->held = calloc((size_t)k, 1);
    p->price = calloc((size_t)k, sizeof *p->price);
    p->seat = calloc((size_t)k, sizeof *p->seat);
    p->tree = malloc(2 * (size_t)p->leaves * sizeof *p->tree);
    if (!p->bid || !p->size || !p->held || !p->price || !p->seat || !p->tree) return false;
    for (int j = 0; j < p->leaves; j++) p->tree[p->leaves + j] = j < k ? j : -1;
    return true;
}

void mode__places_clear(struct mode__places *p)
{
    free(p->bid);
    free(p->size);
    free(p->held);
    free(p->price);
    free(p->seat);
    free(p->tree);
}
