#include "cluster/auction.h"

#include "base/parallel.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    COST_ROWS = 8192,    /* whose costs are made at a time, to begin with; and that are remembered later */
    MEASURED_ROWS = 256, /* whose costs are made at a time later                                         */
    MEASURED_LEAST = 8,  /* fewer may be measured in another way, to other bits                          */
    OFFERS_BLOCK = 64    /* per work item                                                                */
};

bool mode__lists_open(struct mode__lists *l, const struct mode_cost *cost, int wanted, size_t keep_bytes)
{
    const size_t n = (size_t)cost->n, k = (size_t)cost->k;
    *l = (struct mode__lists){.cost = cost, .k = cost->k, .wanted = wanted};
    l->cand = malloc(n * (size_t)wanted * sizeof *l->cand);
    l->limit = malloc(n * sizeof *l->limit);
    l->room = malloc((size_t)mode_parallel_threads() * mode__cheapest_room(cost->k));
    if (n <= keep_bytes / sizeof *l->all / k) l->all = malloc(n * k * sizeof *l->all);
    if (!l->cand || !l->limit || !l->room) return false;
    if (l->all) return true;
    l->some = malloc(COST_ROWS * k * sizeof *l->some);
    l->slot = malloc(n * sizeof *l->slot);
    l->holder = malloc(COST_ROWS * sizeof *l->holder);
    l->rows = malloc(MEASURED_ROWS * (size_t)cost->d * sizeof *l->rows);
    if (!l->some || !l->slot || !l->holder || !l->rows) return false;
    for (size_t i = 0; i < n; i++) l->slot[i] = -1;
    for (int i = 0; i < COST_ROWS; i++) l->holder[i] = -1;
    return true;
}

void mode__lists_close(struct mode__lists *l)
{
    free(l->cand);
    free(l->limit);
    free(l->all);
    free(l->some);
    free(l->slot);
    free(l->holder);
    free(l->rows);
    free(l->room);
}

/* The cheapest centres of one row, of costs cost [k]. */
static void pick(struct mode__lists *l, int64_t row, const float *cost, const double *price, int thread)
{
    double dearest = mode__cheapest(l->cand + row * l->wanted, l->wanted, cost, price, l->k,
                                    l->room + (size_t)thread * mode__cheapest_room(l->k));
    /* rounded down, so that comparing in float stays on the safe side */
    l->limit[row] = l->wanted == l->k ? INFINITY : nextafterf((float)dearest, -INFINITY);
}

struct picking {
    struct mode__lists *l;
    const double *price;
    const float *cost; /* [rows, k] */
    int64_t first, rows;
};

static void pick_item(void *ctx, int64_t item, int thread)
{
    const struct picking *p = ctx;
    int64_t end = (item + 1) * MODE_ROWS_BLOCK < p->rows ? (item + 1) * MODE_ROWS_BLOCK : p->rows;
    for (int64_t i = item * MODE_ROWS_BLOCK; i < end; i++)
        pick(p->l, p->first + i, p->cost + i * p->l->k, p->price, thread);
}

void mode__lists_make(struct mode__lists *l, const double *price)
{
    const int64_t n = l->cost->n;
    for (int64_t first = 0; first < n; first += COST_ROWS) {
        float *cost = l->all ? l->all + first * l->k : l->some;
        struct picking p = {l, price, cost, first, n - first < COST_ROWS ? n - first : COST_ROWS};
        mode_cost_rows(l->cost, cost, first, p.rows);
        mode_parallel_for((p.rows + MODE_ROWS_BLOCK - 1) / MODE_ROWS_BLOCK, pick_item, &p);
    }
}

int mode__lists_best(const struct mode__lists *l, int64_t row, const double *price, double *best, double *next)
{
    const struct mode__candidate *c = l->cand + row * l->wanted;
    double least = INFINITY, second = INFINITY;
    int32_t who = INT32_MAX;
    for (int i = 0; i < l->wanted; i++) {
        const double v = c[i].cost + price[c[i].id];
        const bool takes = v < least || (v == least && c[i].id < who);
        const double loser = takes ? least : v;
        second = loser < second ? loser : second;
        least = takes ? v : least;
        who = takes ? c[i].id : who;
    }
    *best = least;
    *next = second;
    return who;
}

/* Costs of the rows of list [n], of which there is room for MEASURED_LEAST at least, into the next slots. */
static void measure(struct mode__lists *l, int32_t *list, int64_t n)
{
    const int64_t d = l->cost->d;
    const float *x = l->cost->host ? l->cost->host : l->cost->x;
    while (n < MEASURED_LEAST) list[n++] = list[0];
    if (l->next_slot + n > COST_ROWS) l->next_slot = 0;
    for (int64_t i = 0; i < n; i++) {
        const int64_t slot = l->next_slot + i;
        memcpy(l->rows + i * d, x + list[i] * d, (size_t)d * sizeof *l->rows);
        if (l->holder[slot] >= 0) l->slot[l->holder[slot]] = -1;
        l->holder[slot] = list[i];
    }
    for (int64_t i = 0; i < n; i++) l->slot[list[i]] = (int32_t)(l->next_slot + i);
    const struct mode_cost some = {l->cost->be, l->cost->metric, l->rows, l->cost->c, n, l->k, l->cost->d, NULL};
    mode_cost_rows(&some, l->some + l->next_slot * l->k, 0, n);
    l->next_slot += n;
}

/* A row's costs where they are at hand, or NULL. */
static const float *costs_of(const struct mode__lists *l, int64_t row)
{
    if (l->all) return l->all + row * l->k;
    return l->slot[row] >= 0 ? l->some + (int64_t)l->slot[row] * l->k : NULL;
}

struct offering {
    struct mode__lists *l;
    struct mode__offer *offer;
    const int32_t *which; /* [n] numbers of offers; NULL: all */
    const double *price;
    double eps;
    int64_t n;
};

static void make_offer(const struct offering *o, struct mode__offer *f, int thread)
{
    double best, next;
    int k = mode__lists_best(o->l, f->who, o->price, &best, &next);
    f->state = MODE__OFFER_MADE;
    if (next > o->l->limit[f->who]) { /* a centre outside the list might be better by now */
        const float *cost = costs_of(o->l, f->who);
        f->state = cost ? MODE__OFFER_ANEW : MODE__OFFER_UNKNOWN;
        if (!cost) return;
        pick(o->l, f->who, cost, o->price, thread);
        k = mode__lists_best(o->l, f->who, o->price, &best, &next);
    }
    double rise = isfinite(next) ? next - best : 0; /* k = 1: nothing else to compare with */
    f->centre = k;
    f->level = o->price[k] + rise + o->eps;
}

static void offers_item(void *ctx, int64_t item, int thread)
{
    const struct offering *o = ctx;
    int64_t end = (item + 1) * OFFERS_BLOCK < o->n ? (item + 1) * OFFERS_BLOCK : o->n;
    for (int64_t i = item * OFFERS_BLOCK; i < end; i++) {
        struct mode__offer *f = &o->offer[o->which ? o->which[i] : i];
        if (f->who < o->l->cost->n) make_offer(o, f, thread);
    }
}

static void make_offers(struct offering *o)
{
    mode_parallel_for((o->n + OFFERS_BLOCK - 1) / OFFERS_BLOCK, offers_item, o);
}

void mode__offers_make(struct mode__offer *offer, struct mode__lists *l, int64_t n, const double *price, double eps)
{
    struct offering o = {l, offer, NULL, price, eps, n};
    make_offers(&o);
    for (int64_t i = 0; !l->all && i < n;) { /* those whose costs are not at hand, some at a time */
        int32_t row[MEASURED_ROWS], which[MEASURED_ROWS];
        struct offering rest = {l, offer, which, price, eps, 0};
        for (; i < n && rest.n < MEASURED_ROWS; i++) {
            if (offer[i].who >= l->cost->n || offer[i].state != MODE__OFFER_UNKNOWN) continue;
            row[rest.n] = offer[i].who;
            which[rest.n++] = (int32_t)i;
        }
        if (rest.n == 0) break;
        measure(l, row, rest.n);
        make_offers(&rest);
    }
}
