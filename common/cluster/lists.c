#include "cluster/lists.h"

#include "base/parallel.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    ITEM_ROWS = 64, /* lists of an item of work                                          */
    LEAST_ROWS = 8  /* backends may use another kernel, with other rounding, below this  */
};

/* Build the list of a row at l->price. */
static void pick(struct mode__lists *l, int64_t row, const float *cost, int thread)
{
    float dearest = mode__cheapest(l->list + row * l->length, l->length, cost, l->price, l->k,
                                   l->room + (size_t)thread * mode__cheapest_room(l->k));
    /* relative error of an f32 sum of a cost and a rounded price: at most 2^-23 */
    l->limit[row] = l->length == l->k ? INFINITY : dearest * (1 - 0x1p-21f);
}

static void take_prices(struct mode__lists *l, const double *price)
{
    for (int k = 0; k < l->k; k++) l->price[k] = (float)price[k];
}

struct picking {
    struct mode__lists *l;
    const int32_t *row; /* NULL: first, first + 1, ... */
    int64_t first, m;
};

static const float *costs_of(const struct mode__lists *l, int64_t row, int64_t at)
{
    return l->all ? l->all + row * l->k : l->scratch + at * l->k;
}

static void pick_item(void *ctx, int64_t item, int thread)
{
    const struct picking *p = ctx;
    const int64_t end = (item + 1) * ITEM_ROWS < p->m ? (item + 1) * ITEM_ROWS : p->m;
    for (int64_t i = item * ITEM_ROWS; i < end; i++) {
        const int64_t row = p->row ? p->row[i] : p->first + i;
        pick(p->l, row, costs_of(p->l, row, i), thread);
    }
}

static void pick_all(struct picking p)
{
    mode_parallel_for((p.m + ITEM_ROWS - 1) / ITEM_ROWS, pick_item, &p);
}

void mode__lists_make(struct mode__lists *l, const struct mode_cost *cost, const double *price)
{
    l->cost = cost;
    take_prices(l, price);
    for (int64_t first = 0; first < l->n; first += MODE__LISTS_MEASURED) {
        const int64_t m = l->n - first < MODE__LISTS_MEASURED ? l->n - first : MODE__LISTS_MEASURED;
        mode_cost_rows(cost, l->all ? l->all + first * l->k : l->scratch, first, m);
        pick_all((struct picking){l, NULL, first, m});
    }
}

void mode__lists_measure(struct mode__lists *l, const int32_t *row, int64_t m)
{
    const int64_t d = l->cost->d, made = m < LEAST_ROWS ? LEAST_ROWS : m;
    const float *x = l->cost->host ? l->cost->host : l->cost->x;
    MODE_ASSERT(m >= 1 && m <= MODE__LISTS_MEASURED);
    if (l->all) return;
    for (int64_t i = 0; i < made; i++) memcpy(l->rows + i * d, x + row[i < m ? i : 0] * d, (size_t)d * sizeof *x);
    const struct mode_cost some = {l->cost->be, l->cost->metric, l->rows, l->cost->c, made, l->k, l->cost->d, NULL};
    mode_cost_rows(&some, l->scratch, 0, made);
}

void mode__lists_renew(struct mode__lists *l, const double *price, int32_t row, int64_t at)
{
    take_prices(l, price);
    pick(l, row, costs_of(l, row, at), 0);
}

void mode__lists_again(struct mode__lists *l, const double *price, const int32_t *row, int64_t m)
{
    take_prices(l, price);
    for (int64_t first = 0; first < m; first += MODE__LISTS_MEASURED) {
        const int64_t some = m - first < MODE__LISTS_MEASURED ? m - first : MODE__LISTS_MEASURED;
        mode__lists_measure(l, row + first, some);
        pick_all((struct picking){l, row + first, 0, some});
    }
}

/* Huge pages if available: stored costs are written once, and page faults took as long as the writes. */
static void *pages(size_t bytes)
{
    const size_t page = (size_t)2 << 20, size = (bytes + page - 1) / page * page;
    void *p = aligned_alloc(page, size);
    if (p) (void)madvise(p, size, MADV_HUGEPAGE);
    return p;
}

bool mode__lists_open(struct mode__lists *l, int64_t n, int k, int d, int length, size_t keep_bytes)
{
    *l = (struct mode__lists){.n = n, .k = k, .length = length < k ? length : k};
    const size_t rows = (size_t)n, row = (size_t)k * sizeof *l->all;
    l->list = pages(rows * (size_t)l->length * sizeof *l->list);
    l->limit = malloc(rows * sizeof *l->limit);
    l->price = malloc((size_t)k * sizeof *l->price);
    l->room = malloc((size_t)mode_parallel_threads() * mode__cheapest_room(k));
    if (rows <= keep_bytes / row) l->all = pages(rows * row);
    if (!l->all) {
        l->scratch = pages(MODE__LISTS_MEASURED * row);
        l->rows = malloc(MODE__LISTS_MEASURED * (size_t)d * sizeof *l->rows);
    }
    return l->list && l->limit && l->price && l->room && (l->all || (l->scratch && l->rows));
}

void mode__lists_clear(struct mode__lists *l)
{
    free(l->list);
    free(l->limit);
    free(l->price);
    free(l->room);
    free(l->all);
    free(l->scratch);
    free(l->rows);
}
