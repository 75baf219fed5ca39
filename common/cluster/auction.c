/* DESIGN: every accepted bid satisfies epsilon-complementary slackness. A bid of row i for centre k, made at prices p,
 * has the level min over j != k of (c_ij + p_j) - c_ik + epsilon or less. Prices only rise and a centre's price never
 * exceeds a bid it holds, so at any later prices q: c_ik + q_k <= c_ik + level <= min (c_ij + p_j) + epsilon <=
 * min (c_ij + q_j) + epsilon. So stale prices are allowed: it does not matter who else bid at the same prices, nor when
 * the centre processes the bid. */
#include "cluster/auction.h"

#include "base/parallel.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    ITEM_ROWS = 256,   /* bids of an item of work                                           */
    ITEM_CENTRES = 8,  /* centres of one                                                    */
    PART_LEAST = 1024, /* bids sorted in one, at least                                      */
    FEW = 256,         /* up to this many unassigned rows bid one at a time                 */
    IN_TURN = 1024,    /* bids made one at a time before rounds are tried again             */
    ROUNDS = 16        /* a round has about n / ROUNDS rows at most                         */
};

/* Best centre of a row by cost + price, its value, and the second best value. */
static int best_of_row(const struct mode__auction *a, int32_t row, double *best, double *next)
{
    const struct mode__lists *l = a->lists;
    const struct mode__candidate *c = l->list + (int64_t)row * l->length;
    const double *price = a->places.price;
    double first = INFINITY, second = INFINITY;
    int who = -1;
    for (int i = 0; i < l->length; i++) {
        double v = c[i].cost + price[c[i].id];
        if (v < first || (v == first && c[i].id < who)) {
            second = first;
            first = v;
            who = c[i].id;
        } else if (v < second) {
            second = v;
        }
    }
    *best = first;
    *next = second;
    return who;
}

/* The row's centre of the previous phase, if that is within epsilon of its best; else -1. */
static int place_kept(const struct mode__auction *a, int32_t row, double best, float *cost)
{
    const struct mode__lists *l = a->lists;
    const struct mode__candidate *c = l->list + (int64_t)row * l->length;
    for (int i = 0; i < l->length; i++)
        if (c[i].id == a->place[row]) {
            *cost = c[i].cost;
            return c[i].cost + a->places.price[c[i].id] <= best + a->eps ? c[i].id : -1;
        }
    return -1;
}

/* The row's bid and its centre; -1: rebuild the list first, as centres outside it may be better, or so close that bids
 * would rise by little more than epsilon. fresh: the list has just been rebuilt. keep: prefer the row's last centre. */
static int bid_of(const struct mode__auction *a, int32_t row, struct mode__bid *b, bool keep, bool fresh)
{
    const double limit = a->lists->limit[row];
    double best, next;
    int k = best_of_row(a, row, &best, &next);
    if (next > limit) {
        if (!fresh && best + 4 * a->eps > limit) return -1;
        next = limit > best ? limit : best; /* a lower bound on the second best: the bid is lower than allowed */
    }
    float cost;
    if (keep && a->place[row] != k) {
        int kept = place_kept(a, row, best, &cost);
        if (kept >= 0) {
            *b = (struct mode__bid){best - cost + a->eps, row};
            return kept;
        }
    }
    double rise = isfinite(next) ? next - best : 0; /* infinite: k = 1 */
    *b = (struct mode__bid){a->places.price[k] + rise + a->eps, row};
    return k;
}

static int32_t queued(const struct mode__auction *a, int64_t i)
{
    return a->queue[a->head + i >= a->n ? a->head + i - a->n : a->head + i];
}

static void dequeue(struct mode__auction *a, int64_t m)
{
    a->head = a->head + m >= a->n ? a->head + m - a->n : a->head + m;
    a->left -= m;
}

static void enqueue(struct mode__auction *a, int32_t who)
{
    if (who >= a->n) {
        a->standing++;
        return;
    }
    int64_t tail = a->head + a->left++;
    a->queue[tail >= a->n ? tail - a->n : tail] = who;
}

struct round {
    struct mode__auction *a;
    int64_t m; /* rows, from the head of the queue on */
    bool keep;
};

static void make_bids(void *ctx, int64_t item, int thread)
{
    const struct round *r = ctx;
    struct mode__auction *a = r->a;
    (void)thread;
    for (int64_t i = item * ITEM_ROWS; i < r->m && i < (item + 1) * ITEM_ROWS; i++) {
        const int32_t row = queued(a, i);
        a->made[i].who = row;
        a->last[row] = a->rounds;
        a->to[i] = bid_of(a, row, &a->made[i], r->keep, false);
    }
}

/* Rebuild the lists of rows that could not bid, and let them bid. */
static void rebuild_lists(struct round *r)
{
    struct mode__auction *a = r->a;
    int64_t m = 0;
    for (int64_t i = 0; i < r->m; i++)
        if (a->to[i] < 0) a->again[m++] = a->made[i].who;
    if (m == 0) return;
    mode__lists_again(a->lists, a->places.price, a->again, m);
    a->refreshed += m;
    for (int64_t i = 0; i < r->m; i++)
        if (a->to[i] < 0) a->to[i] = bid_of(a, a->made[i].who, &a->made[i], r->keep, true);
}

static int64_t part_end(const struct round *r, int64_t part)
{
    return (part + 1) * r->a->part < r->m ? (part + 1) * r->a->part : r->m;
}

static void count_bids(void *ctx, int64_t part, int thread)
{
    const struct round *r = ctx;
    int32_t *count = r->a->start + part * r->a->places.k;
    (void)thread;
    memset(count, 0, (size_t)r->a->places.k * sizeof *count);
    for (int64_t i = part * r->a->part; i < part_end(r, part); i++) count[r->a->to[i]]++;
}

static void sort_bids(void *ctx, int64_t part, int thread)
{
    const struct round *r = ctx;
    struct mode__auction *a = r->a;
    int32_t *at = a->start + part * a->places.k;
    (void)thread;
    for (int64_t i = part * r->a->part; i < part_end(r, part); i++) a->taken[at[a->to[i]]++] = a->made[i];
}

/* Every centre processes its bids. sort_bids has advanced the last part's starts to the ends of the centres' bids. */
static void take_bids(void *ctx, int64_t item, int thread)
{
    const struct round *r = ctx;
    struct mode__auction *a = r->a;
    const int k_end = (int)(item + 1) * ITEM_CENTRES < a->places.k ? (int)(item + 1) * ITEM_CENTRES : a->places.k;
    const int32_t *end = a->start + ((r->m - 1) / a->part) * a->places.k;
    (void)thread;
    for (int k = (int)item * ITEM_CENTRES; k < k_end; k++)
        for (int64_t i = k > 0 ? end[k - 1] : 0; i < end[k]; i++)
            a->taken[i].who = mode__places_put(&a->places, k, a->taken[i]);
}

/* The first m > 0 rows of the queue bid at the same prices. Returns how many of them are still unassigned. */
static int64_t run_round(struct mode__auction *a, int64_t m, bool keep)
{
    struct round r = {a, m, keep};
    int64_t wasted = 0;
    const int k_all = a->places.k;
    const int64_t parts = (m + a->part - 1) / a->part;
    a->rounds++;
    mode_parallel_for((m + ITEM_ROWS - 1) / ITEM_ROWS, make_bids, &r);
    rebuild_lists(&r);
    mode_parallel_for(parts, count_bids, &r);
    int32_t at = 0;
    for (int k = 0; k < k_all; k++)
        for (int64_t part = 0; part < parts; part++) {
            int32_t count = a->start[part * k_all + k];
            a->start[part * k_all + k] = at;
            at += count;
        }
    mode_parallel_for(parts, sort_bids, &r);
    mode_parallel_for((k_all + ITEM_CENTRES - 1) / ITEM_CENTRES, take_bids, &r);
    mode__seats_changed(&a->places);
    a->bids += m;
    dequeue(a, m);
    for (int64_t i = 0; i < m; i++) {
        const int32_t who = a->taken[i].who;
        if (who < 0) continue;
        wasted += who < a->n && a->last[who] == a->rounds;
        enqueue(a, who);
    }
    a->wasted += wasted;
    return wasted;
}

static void bid_alone(struct mode__auction *a, int k, struct mode__bid b)
{
    a->bids++;
    int32_t loser = mode__places_put(&a->places, k, b);
    mode__seat_changed(&a->places, k);
    if (loser >= 0) enqueue(a, loser);
}

/* `most` bids, one row at a time at current prices. Rows whose list must be rebuilt bid last: their costs are computed
 * in one batch. */
static void bid_in_turn(struct mode__auction *a, int64_t most)
{
    struct mode__bid b;
    int64_t waiting = 0;
    for (; a->left > 0 && most > 0; most--) {
        const int32_t row = queued(a, 0);
        dequeue(a, 1);
        int k = bid_of(a, row, &b, false, false);
        if (k < 0)
            a->again[waiting++] = row;
        else
            bid_alone(a, k, b);
    }
    if (waiting == 0) return;
    mode__lists_measure(a->lists, a->again, waiting);
    a->refreshed += waiting;
    for (int64_t i = 0; i < waiting; i++) { /* each bid raises a price, so each list is rebuilt at the current ones */
        mode__lists_renew(a->lists, a->places.price, a->again[i], i);
        int k = bid_of(a, a->again[i], &b, false, true);
        bid_alone(a, k, b);
    }
}

static void dummy_bids(struct mode__auction *a)
{
    for (int64_t i = a->standing; i > 0; i--) {
        double best, next;
        int k = mode__seats_best(&a->places, &best, &next);
        a->bids++;
        a->standing--;
        const struct mode__bid b = {(isfinite(next) ? next : best) + a->eps, (int32_t)a->n};
        int32_t loser = mode__places_put(&a->places, k, b);
        mode__seat_changed(&a->places, k);
        if (loser >= 0) enqueue(a, loser);
    }
}

static void remember_places(void *ctx, int64_t item, int thread)
{
    struct mode__auction *a = ctx;
    const struct mode__places *p = &a->places;
    (void)thread;
    for (int64_t i = item * p->cap; i < item * p->cap + p->size[item]; i++)
        if (p->bid[i].who < a->n) a->place[p->bid[i].who] = (int32_t)item;
}

/* One round. Its size adapts: halved if more than a quarter of the bids were wasted, doubled below a sixteenth. */
static void bid_together(struct mode__auction *a)
{
    const int64_t m = a->left < a->many ? a->left : a->many, wasted = run_round(a, m, false);
    if (4 * wasted > m)
        a->many = m / 2;
    else if (16 * wasted < m && a->many < a->n / ROUNDS)
        a->many *= 2;
    if (a->many >= FEW) return;
    bid_in_turn(a, IN_TURN);
    a->many = FEW;
}

static void set_limit(struct mode__auction *a)
{
    a->limit = a->bids - a->wasted + 64 * (a->n + a->places.dummies) + 100000;
}

void mode__auction_phase(struct mode__auction *a, double eps)
{
    a->eps = eps;
    mode__places_empty(&a->places);
    for (int64_t i = 0; i < a->n; i++) a->queue[i] = (int32_t)i;
    a->head = 0;
    a->left = a->n;
    a->standing = a->places.dummies;
    if (a->place[0] >= 0) run_round(a, a->n, true);
    set_limit(a);
    while (a->left > 0 || a->standing > 0) {
        if (a->left > FEW)
            bid_together(a);
        else
            bid_in_turn(a, IN_TURN);
        dummy_bids(a);
        if (a->bids - a->wasted >= a->limit) { /* a price war of many equal rows: larger steps end it */
            a->eps *= 2;
            set_limit(a);
        }
    }
    mode_parallel_for(a->places.k, remember_places, a);
}

bool mode__auction_open(struct mode__auction *a, struct mode__lists *lists)
{
    *a = (struct mode__auction){.lists = lists, .n = lists->n, .part = lists->k > PART_LEAST ? lists->k : PART_LEAST};
    const size_t n = (size_t)lists->n, parts = (n + (size_t)a->part - 1) / (size_t)a->part;
    if (!mode__places_open(&a->places, lists->n, lists->k)) return false;
    a->place = malloc(n * sizeof *a->place);
    a->queue = malloc(n * sizeof *a->queue);
    a->last = malloc(n * sizeof *a->last);
    a->made = malloc(n * sizeof *a->made);
    a->to = malloc(n * sizeof *a->to);
    a->taken = malloc(n * sizeof *a->taken);
    a->start = malloc(parts * (size_t)lists->k * sizeof *a->start);
    a->again = malloc(n * sizeof *a->again);
    if (!a->place || !a->queue || !a->last || !a->made || !a->to || !a->taken || !a->start || !a->again) return false;
    return true;
}

void mode__auction_begin(struct mode__auction *a, const double *price)
{
    a->bids = a->refreshed = a->wasted = a->rounds = 0;
    a->many = a->n / ROUNDS > FEW ? a->n / ROUNDS : FEW;
    for (int k = 0; k < a->places.k; k++) a->places.price[k] = price ? price[k] : 0;
    for (int64_t i = 0; i < a->n; i++) a->place[i] = a->last[i] = -1;
}

void mode__auction_clear(struct mode__auction *a)
{
    mode__places_clear(&a->places);
    free(a->place);
    free(a->queue);
    free(a->last);
    free(a->made);
    free(a->to);
    free(a->taken);
    free(a->start);
    free(a->again);
}
