#include "cluster/balanced.h"

#include "cluster/auction.h"
#include "tensor/tensor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct auction {
    struct mode__seats seats;
    struct mode__lists lists;
    int64_t n, all;            /* rows; with the imaginary ones */
    int32_t *queue;            /* [all] ring of those without a place */
    struct mode__offer *offer; /* [MODE__OFFERS] */
    double eps;
    int64_t bids, refreshed;
};

/* Who bids, and what: a row what it offered, an imaginary row what it sees now. Returns who is without a place then. */
static int32_t bid(struct auction *a, const struct mode__offer *f)
{
    struct mode__bid b = {f->level, f->who};
    int k = f->centre;
    a->bids++;
    if (f->who >= a->n) {
        double best, next;
        k = mode__seats_best(&a->seats, &best, &next);
        b.level = best + (isfinite(next) ? next - best : 0) + a->eps;
    } else if (f->state == MODE__OFFER_ANEW) {
        a->refreshed++;
    }
    return mode__seats_bid(&a->seats, k, b);
}

/* One round at the current epsilon, from current prices, everyone without a place. */
static void run_phase(struct auction *a)
{
    int64_t head = 0, left = a->all, limit = a->bids + 64 * a->all + 100000;
    mode__seats_clear(&a->seats);
    for (int64_t i = 0; i < a->all; i++) a->queue[i] = (int32_t)i;
    while (left > 0) {
        const int64_t block = left < MODE__OFFERS ? left : MODE__OFFERS;
        for (int64_t i = 0; i < block; i++) {
            a->offer[i].who = a->queue[head];
            head = head + 1 == a->all ? 0 : head + 1;
        }
        left -= block;
        mode__offers_make(a->offer, &a->lists, block, a->seats.price, a->eps);
        for (int64_t i = 0; i < block; i++) {
            int32_t loser = bid(a, &a->offer[i]);
            if (loser < 0) continue;
            int64_t tail = head + left++;
            a->queue[tail >= a->all ? tail - a->all : tail] = loser;
        }
        if (a->bids >= limit) { /* many equal rows: coarser steps end the haggling; epsilon says so */
            a->eps *= 2;
            limit = a->bids + 64 * a->all + 100000;
        }
    }
}

static void collect(const struct auction *a, int32_t *id, struct mode_balanced_stats *s)
{
    const struct mode__seats *seats = &a->seats;
    const struct mode__lists *lists = &a->lists;
    s->largest = 0;
    s->smallest = INT64_MAX;
    for (int k = 0; k < seats->k; k++) {
        int64_t rows = 0;
        for (int64_t i = 0; i < seats->size[k]; i++) {
            int32_t who = seats->heap[k * seats->cap + i].who;
            if (who >= a->n) continue;
            id[who] = k;
            rows++;
        }
        if (rows > s->largest) s->largest = rows;
        if (rows < s->smallest) s->smallest = rows;
    }
    s->objective = 0;
    for (int64_t i = 0; i < a->n; i++) {
        const struct mode__candidate *c = lists->cand + i * lists->wanted;
        while (c->id != id[i]) c++; /* a row bids only for centres of its list */
        s->objective += c->cost;
    }
    /* any prices give a lower bound (linear programming duality): what everyone would pay for the best place,
     * less what the places take in */
    double least_seat = INFINITY;
    s->bound = 0;
    for (int64_t i = 0; i < a->n; i++) {
        double best, next;
        mode__lists_best(lists, i, seats->price, &best, &next);
        s->bound += best < lists->limit[i] ? best : lists->limit[i];
    }
    for (int k = 0; k < seats->k; k++) {
        s->bound -= (double)(a->n / seats->k) * seats->price[k] + (seats->imaginary ? seats->seat[k] : 0);
        least_seat = seats->seat[k] < least_seat ? seats->seat[k] : least_seat;
    }
    s->bound += (double)(a->all - a->n) * least_seat;
}

enum mode_status mode_balanced_assign(int32_t *id, double *price, struct mode_balanced_stats *stats,
                                      const struct mode_cost *cost, const struct mode_balanced_params *params,
                                      struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    const int64_t n = cost->n, rest = n % cost->k;
    const int k = cost->k;
    MODE_ASSERT(n >= 1 && n + k < INT32_MAX && params->candidates >= 2 && params->tolerance > 0);
    int want = params->candidates < MODE__CHEAPEST_MOST ? params->candidates : MODE__CHEAPEST_MOST;
    if (want > k) want = k;
    struct auction a = {.n = n, .all = n + (rest ? k - rest : 0)};
    a.queue = malloc((size_t)a.all * sizeof *a.queue);
    a.offer = malloc(MODE__OFFERS * sizeof *a.offer);
    bool room = mode__seats_open(&a.seats, n, k);
    if (!mode__lists_open(&a.lists, cost, want, params->keep_bytes) || !room || !a.queue || !a.offer) {
        st = MODE_FAIL(err, MODE_E_MEMORY, "balanced assignment: no memory for %lld rows and %d centres", (long long)n,
                       k);
        goto out;
    }
    if (price) memcpy(a.seats.price, price, (size_t)k * sizeof *price);
    mode__lists_make(&a.lists, a.seats.price);

    double nearest = 0, spread = 0;
    for (int64_t i = 0; i < n; i++) {
        const struct mode__candidate *c = a.lists.cand + i * want;
        nearest += c[0].cost;
        spread += fabs((double)c[want - 1].cost - c[0].cost);
    }
    double last = params->tolerance * nearest / (double)n;
    if (last < 1e-9 * (spread / (double)n) || !(last > 0)) last = 1e-9 * (spread / (double)n) + 1e-12;
    double first = params->start > 0 ? params->start : spread / (double)n / 4;
    for (a.eps = first > last ? first : last;;) {
        double asked = a.eps;
        run_phase(&a);
        if (a.eps > asked || asked <= last) break; /* had to be made coarser: finer would only haggle again */
        a.eps = asked / 5 > last ? asked / 5 : last;
    }
    struct mode_balanced_stats s = {.epsilon = a.eps, .bids = a.bids, .refreshed = a.refreshed};
    collect(&a, id, &s);
    if (stats) *stats = s;
    if (price) {
        double least = a.seats.price[0];
        for (int j = 1; j < k; j++) least = a.seats.price[j] < least ? a.seats.price[j] : least;
        for (int j = 0; j < k; j++) price[j] = a.seats.price[j] - least;
    }
out:
    mode__lists_close(&a.lists);
    mode__seats_close(&a.seats);
    free(a.queue);
    free(a.offer);
    return st;
}
