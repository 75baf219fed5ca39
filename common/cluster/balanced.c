#include "cluster/balanced.h"

#include "base/parallel.h"
#include "cluster/auction.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    FIRST = 8, /* the first epsilon is the mean spread of a list's costs, divided by this */
    FINER = 5  /* and each later phase divides it by this (epsilon scaling)               */
};

/* Two sums over rows: by blocks of rows, then over the blocks in order, so that the thread count does not matter. */
struct sums {
    const struct mode__auction *a;
    double (*block)[2];
};

static void add_block(const struct sums *s, int64_t item,
                      void each(const struct mode__auction *a, int64_t row, double *sum))
{
    const int64_t end = (item + 1) * MODE_ROWS_BLOCK < s->a->n ? (item + 1) * MODE_ROWS_BLOCK : s->a->n;
    double sum[2] = {0};
    for (int64_t i = item * MODE_ROWS_BLOCK; i < end; i++) each(s->a, i, sum);
    memcpy(s->block[item], sum, sizeof sum);
}

static void add_all(const struct sums *s, mode_item_fn *block, double *first, double *second)
{
    const int64_t blocks = (s->a->n + MODE_ROWS_BLOCK - 1) / MODE_ROWS_BLOCK;
    mode_parallel_for(blocks, block, (void *)(uintptr_t)s);
    *first = *second = 0;
    for (int64_t i = 0; i < blocks; i++) {
        *first += s->block[i][0];
        *second += s->block[i][1];
    }
}

/* The cost to the nearest centre, and the spread of costs over the list. */
static void add_reach(const struct mode__auction *a, int64_t row, double *sum)
{
    const struct mode__candidate *c = a->lists->list + row * a->lists->length;
    sum[0] += c[0].cost;
    sum[1] += fabs((double)c[a->lists->length - 1].cost - c[0].cost);
}

static void reach_block(void *ctx, int64_t item, int thread)
{
    (void)thread;
    add_block(ctx, item, add_reach);
}

/* The row's cost at its centre, and the minimum of cost + price over all centres. */
static void add_result(const struct mode__auction *a, int64_t row, double *sum)
{
    const struct mode__lists *l = a->lists;
    const struct mode__candidate *c = l->list + row * l->length;
    double least = l->limit[row];
    for (int j = 0; j < l->length; j++) {
        double v = c[j].cost + a->places.price[c[j].id];
        least = v < least ? v : least;
        if (c[j].id == a->place[row]) sum[0] += c[j].cost; /* a row bids only for centres of its list */
    }
    sum[1] += least;
}

static void result_block(void *ctx, int64_t item, int thread)
{
    (void)thread;
    add_block(ctx, item, add_result);
}

static void collect(const struct sums *sums, int32_t *id, struct mode_balanced_stats *s)
{
    const struct mode__auction *a = sums->a;
    const struct mode__places *p = &a->places;
    memcpy(id, a->place, (size_t)a->n * sizeof *id);
    s->epsilon = a->eps;
    s->bids = a->bids;
    s->refreshed = a->refreshed;
    s->largest = 0;
    s->smallest = INT64_MAX;
    /* any prices give a lower bound (LP duality): the minimum of cost + price of every row and dummy, minus the prices
     * of all places */
    double least_seat = INFINITY;
    add_all(sums, result_block, &s->objective, &s->bound);
    for (int k = 0; k < p->k; k++) {
        int64_t rows = p->size[k] - p->held[k];
        if (rows > s->largest) s->largest = rows;
        if (rows < s->smallest) s->smallest = rows;
        s->bound -= (double)(a->n / p->k) * p->price[k] + (p->dummies ? p->seat[k] : 0);
        least_seat = p->seat[k] < least_seat ? p->seat[k] : least_seat;
    }
    s->bound += (double)p->dummies * least_seat;
}

struct mode_balanced {
    struct mode_balanced_params params;
    struct mode__lists lists;
    struct mode__auction auction;
    struct sums sums;
};

enum mode_status mode_balanced_open(struct mode_balanced **out, int64_t n, int k, int d,
                                    const struct mode_balanced_params *params, struct mode_error *err)
{
    MODE_ASSERT(n >= 1 && k >= 1 && d >= 1 && n + k < INT32_MAX && params->candidates >= 2 && params->tolerance > 0);
    const int want = params->candidates < MODE__CHEAPEST_MOST ? params->candidates : MODE__CHEAPEST_MOST;
    struct mode_balanced *b = *out = calloc(1, sizeof *b);
    if (b) {
        b->params = *params;
        b->sums.a = &b->auction;
        b->sums.block = malloc((size_t)(n / MODE_ROWS_BLOCK + 1) * sizeof *b->sums.block);
    }
    if (b && b->sums.block && mode__lists_open(&b->lists, n, k, d, want, params->keep_bytes) &&
        mode__auction_open(&b->auction, &b->lists))
        return MODE_OK;
    mode_balanced_close(out);
    return MODE_FAIL(err, MODE_E_MEMORY, "balanced assignment: no memory for %lld rows and %d centres", (long long)n,
                     k);
}

void mode_balanced_close(struct mode_balanced **out)
{
    struct mode_balanced *b = *out;
    if (!b) return;
    mode__lists_clear(&b->lists);
    mode__auction_clear(&b->auction);
    free(b->sums.block);
    free(b);
    *out = NULL;
}

void mode_balanced_assign(struct mode_balanced *b, int32_t *id, double *price, struct mode_balanced_stats *stats,
                          const struct mode_cost *cost)
{
    struct mode__auction *a = &b->auction;
    double *now = a->places.price, nearest, spread;
    MODE_ASSERT(cost->n == a->n && cost->k == a->places.k);
    mode__auction_begin(a, price);
    mode__lists_make(&b->lists, cost, now);

    add_all(&b->sums, reach_block, &nearest, &spread);
    nearest /= (double)a->n;
    spread /= (double)a->n;
    const double fine = 1e-9 * spread + 1e-12, wanted = b->params.tolerance * nearest;
    const double last = wanted > fine ? wanted : fine;
    double eps = spread / FIRST > last ? spread / FIRST : last;
    for (int phase = 0;; phase++, eps = a->eps / FINER > last ? a->eps / FINER : last) {
        mode__auction_phase(a, eps);
        /* a later phase that had to double epsilon ends the scaling: a smaller one would only start price wars again;
         * in the first phase epsilon was just too small for start prices */
        if ((phase > 0 && a->eps > eps) || a->eps <= last) break;
    }
    struct mode_balanced_stats s = {0};
    collect(&b->sums, id, &s);
    if (stats) *stats = s;
    if (price) {
        double least = now[0];
        for (int j = 1; j < cost->k; j++) least = now[j] < least ? now[j] : least;
        for (int j = 0; j < cost->k; j++) price[j] = now[j] - least;
    }
}
