#include "cluster/auction.h"

#include <math.h>
#include <stdlib.h>

bool mode__seats_open(struct mode__seats *s, int64_t n, int k)
{
    *s = (struct mode__seats){.n = n, .k = k, .cap = (n + k - 1) / k, .imaginary = n % k != 0, .leaves = 1};
    while (s->leaves < k) s->leaves *= 2;
    s->heap = malloc((size_t)k * (size_t)s->cap * sizeof *s->heap);
    s->size = malloc((size_t)k * sizeof *s->size);
    s->price = calloc((size_t)k, sizeof *s->price);
    s->seat = malloc((size_t)k * sizeof *s->seat);
    s->held = malloc((size_t)k);
    s->tree = malloc(2 * (size_t)s->leaves * sizeof *s->tree);
    if (!s->heap || !s->size || !s->price || !s->seat || !s->held || !s->tree) return false;
    for (int j = 0; j < s->leaves; j++) s->tree[s->leaves + j] = j < k ? j : -1;
    return true;
}

void mode__seats_close(struct mode__seats *s)
{
    free(s->heap);
    free(s->size);
    free(s->price);
    free(s->seat);
    free(s->held);
    free(s->tree);
}

/* The tournament over seats: every node holds the centre of its half whose seat is cheaper, ties to the lower
 * id. */
static int32_t winner(const struct mode__seats *s, int32_t left, int32_t right)
{
    if (right < 0) return left;
    return left >= 0 && s->seat[left] <= s->seat[right] ? left : right;
}

void mode__seats_clear(struct mode__seats *s)
{
    for (int k = 0; k < s->k; k++) {
        s->size[k] = 0;
        s->held[k] = 0;
        s->seat[k] = s->price[k];
    }
    for (int at = s->leaves - 1; at >= 1; at--) s->tree[at] = winner(s, s->tree[2 * at], s->tree[2 * at + 1]);
}

int mode__seats_best(const struct mode__seats *s, double *best, double *next)
{
    int k = s->tree[1];
    *best = s->seat[k];
    *next = INFINITY;
    for (int at = s->leaves + k; at > 1; at /= 2) { /* the runner-up lost to k somewhere on k's way up */
        int32_t rival = s->tree[at ^ 1];
        if (rival >= 0 && s->seat[rival] < *next) *next = s->seat[rival];
    }
    return k;
}

static bool below(struct mode__bid a, struct mode__bid b)
{
    return a.level < b.level || (a.level == b.level && a.who < b.who);
}

static void sift_down(struct mode__bid *h, int64_t size, int64_t at)
{
    for (;;) {
        int64_t least = at, l = 2 * at + 1;
        if (l < size && below(h[l], h[least])) least = l;
        if (l + 1 < size && below(h[l + 1], h[least])) least = l + 1;
        if (least == at) return;
        struct mode__bid t = h[at];
        h[at] = h[least];
        h[least] = t;
        at = least;
    }
}

static void sift_up(struct mode__bid *h, int64_t at)
{
    while (at > 0 && below(h[at], h[(at - 1) / 2])) {
        struct mode__bid t = h[at];
        h[at] = h[(at - 1) / 2];
        h[(at - 1) / 2] = t;
        at = (at - 1) / 2;
    }
}

int32_t mode__seats_bid(struct mode__seats *s, int k, struct mode__bid b)
{
    struct mode__bid *h = s->heap + k * s->cap;
    bool imaginary = b.who >= s->n;
    int32_t loser = -1;
    if (imaginary && s->held[k]) { /* takes the one seat from its holder */
        int64_t at = 0;
        while (h[at].who < s->n) at++;
        loser = h[at].who;
        h[at] = b;
        sift_down(h, s->size[k], at);
    } else if (s->size[k] < s->cap) {
        h[s->size[k]] = b;
        sift_up(h, s->size[k]++);
    } else {
        if (!below(h[0], b)) return b.who; /* others of its block have bid more */
        loser = h[0].who;
        if (loser >= s->n) s->held[k] = 0;
        h[0] = b;
        sift_down(h, s->size[k], 0);
    }
    if (imaginary) {
        s->held[k] = 1;
        s->seat[k] = b.level;
    }
    if (s->size[k] == s->cap) s->price[k] = h[0].level;
    if (!s->held[k]) s->seat[k] = s->price[k];
    if (s->imaginary)
        for (int at = (s->leaves + k) / 2; at >= 1; at /= 2)
            s->tree[at] = winner(s, s->tree[2 * at], s->tree[2 * at + 1]);
    return loser;
}
