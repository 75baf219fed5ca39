#include "pipeline/shard_order.h"

#include "base/rng.h"

#include <stdlib.h>
#include <string.h>

enum { RNG_ITEM = 1 }; /* item 0 is the permutation of a whole pool (pool.c) */

static uint32_t *numbers(size_t n)
{
    return malloc((n ? n : 1) * sizeof(uint32_t));
}

enum mode_status mode_shard_order_init(struct mode_shard_order *o, uint32_t n_shards, const uint32_t *row_end,
                                       const bool *has_turn, uint32_t window, uint32_t n_drawn, uint64_t seed,
                                       struct mode_error *err)
{
    uint32_t most = 0;
    *o = (struct mode_shard_order){.seed = seed};
    for (uint32_t i = 0; i < n_shards; i++) o->n += has_turn[i];
    MODE_ASSERT(o->n > 0 && window > 0);
    o->window = window < o->n ? window : o->n;
    o->n_windows = o->n - o->window + 1;
    o->shard = numbers(o->n);
    o->end = numbers(o->n);
    o->turn = numbers(o->n);
    o->window_end = numbers(o->n_windows);
    o->drawn = numbers(n_drawn);
    o->first = numbers((size_t)o->n + 1);
    for (uint32_t i = 0; i < n_shards; i++) {
        const uint32_t rows = row_end[i] - (i ? row_end[i - 1] : 0);
        if (has_turn[i] && rows > most) most = rows;
    }
    o->rows = numbers(most);
    if (!o->shard || !o->end || !o->turn || !o->window_end || !o->drawn || !o->first || !o->rows)
        return MODE_FAIL(err, MODE_E_MEMORY, "no memory for the order of %u shards", o->n);
    for (uint32_t i = 0, k = 0; i < n_shards; i++) {
        if (!has_turn[i]) continue;
        o->shard[k] = i;
        o->end[k++] = row_end[i];
    }
    return MODE_OK;
}

void mode_shard_order_clear(struct mode_shard_order *o)
{
    free(o->shard);
    free(o->end);
    free(o->turn);
    free(o->window_end);
    free(o->drawn);
    free(o->first);
    free(o->rows);
    *o = (struct mode_shard_order){0};
}

static struct mode_rng draw_turns(const struct mode_shard_order *o, uint64_t epoch, uint32_t *turn)
{
    struct mode_rng r = mode_rng_for(o->seed, MODE_RNG_ORDER, epoch, RNG_ITEM);
    for (uint32_t i = 0; i < o->n; i++) turn[i] = i;
    mode_rng_shuffle_u32(&r, turn, o->n);
    return r;
}

void mode_shard_order_turns(const struct mode_shard_order *o, uint64_t epoch, uint32_t *turn)
{
    draw_turns(o, epoch, turn);
}

/* Index of the first of n ascending numbers that is >= x; n: none. */
static uint32_t lower_bound(const uint32_t *v, uint32_t n, uint64_t x)
{
    uint32_t lo = 0;
    while (n) {
        const uint32_t half = n / 2;
        if (v[lo + half] < x) {
            lo += half + 1;
            n -= half + 1;
        } else
            n = half;
    }
    return lo;
}

uint32_t mode_shard_order_window(const struct mode_shard_order *o, uint32_t sample)
{
    return lower_bound(o->window_end, o->n_windows, (uint64_t)sample + 1);
}

static uint32_t place_of(const struct mode_shard_order *o, uint32_t row)
{
    return lower_bound(o->end, o->n, (uint64_t)row + 1);
}

/* Group the drawn rows by shard: a counting sort. */
static void sort_drawn(struct mode_shard_order *o, const uint32_t *drawn, uint32_t n_drawn)
{
    memset(o->first, 0, ((size_t)o->n + 1) * sizeof *o->first);
    for (uint32_t i = 0; i < n_drawn; i++) o->first[place_of(o, drawn[i]) + 1]++;
    for (uint32_t k = 0; k < o->n; k++) o->first[k + 1] += o->first[k];
    for (uint32_t i = 0; i < n_drawn; i++) o->drawn[o->first[place_of(o, drawn[i])]++] = drawn[i];
    for (uint32_t k = o->n; k > 0; k--) o->first[k] = o->first[k - 1]; /* undo: each was advanced to its end */
    o->first[0] = 0;
}

/* One shard's stay in the sliding window during an epoch. */
struct stay {
    uint32_t window, n_windows; /* first window that contains it, and how many do */
    uint32_t in, n_in;          /* its range in the pool's own rows */
    uint32_t drawn, n_drawn;    /* its range in o->drawn */
};

static struct stay stay_of(const struct mode_shard_order *o, uint32_t turn, const uint32_t *in, uint32_t n_in)
{
    const uint32_t k = o->turn[turn], end = turn < o->n_windows ? turn + 1 : o->n_windows;
    struct stay s = {.window = turn < o->window ? 0 : turn - o->window + 1,
                     .in = k ? lower_bound(in, n_in, o->end[k - 1]) : 0,
                     .drawn = o->first[k],
                     .n_drawn = o->first[k + 1] - o->first[k]};
    s.n_in = lower_bound(in, n_in, o->end[k]) - s.in;
    s.n_windows = end - s.window;
    return s;
}

/* How many of its rows its first `windows` windows get together: equal shares, rounded. */
static uint32_t share(const struct stay *s, uint32_t windows)
{
    return (uint32_t)(((uint64_t)s->n_in + s->n_drawn) * windows / s->n_windows);
}

void mode_shard_order_build(struct mode_shard_order *o, uint64_t epoch, const uint32_t *in, uint32_t n_in,
                            const uint32_t *drawn, uint32_t n_drawn, uint32_t *to)
{
    struct mode_rng r = draw_turns(o, epoch, o->turn);
    sort_drawn(o, drawn, n_drawn);
    memset(o->window_end, 0, o->n_windows * sizeof *o->window_end);
    for (uint32_t t = 0; t < o->n; t++) {
        const struct stay s = stay_of(o, t, in, n_in);
        for (uint32_t w = 0; w < s.n_windows; w++) o->window_end[s.window + w] += share(&s, w + 1) - share(&s, w);
    }
    for (uint32_t w = 0, at = 0; w < o->n_windows; w++) { /* sizes to begins, which the copies advance to ends */
        const uint32_t size = o->window_end[w];
        o->window_end[w] = at;
        at += size;
    }
    for (uint32_t t = 0; t < o->n; t++) {
        const struct stay s = stay_of(o, t, in, n_in);
        memcpy(o->rows, in + s.in, s.n_in * sizeof *o->rows);
        memcpy(o->rows + s.n_in, o->drawn + s.drawn, s.n_drawn * sizeof *o->rows);
        mode_rng_shuffle_u32(&r, o->rows, (uint64_t)s.n_in + s.n_drawn);
        for (uint32_t w = 0; w < s.n_windows; w++) {
            const uint32_t from = share(&s, w), n = share(&s, w + 1) - from;
            memcpy(to + o->window_end[s.window + w], o->rows + from, n * sizeof *to);
            o->window_end[s.window + w] += n;
        }
    }
    for (uint32_t w = 0; w < o->n_windows; w++) {
        const uint32_t from = w ? o->window_end[w - 1] : 0;
        mode_rng_shuffle_u32(&r, to + from, o->window_end[w] - from);
    }
}
