/* shard_order.h - an order of rows that keeps to a few shards at a time.
 *
 * The shards of an epoch take turns, in a drawn order. A window is `window` of them that follow one another; the next
 * window is without the first of these and with one more, and so on to the last shard. The rows of a shard are shuffled
 * and dealt out in equal parts over the windows that it is in; what a window was dealt is shuffled. So at any place of
 * an epoch the samples are of `window` shards alike, shards come and go one at a time, and each is needed for one
 * stretch of the epoch. Where an epoch begins and ends the shards that come first and go last are in fewer windows,
 * with larger parts. Not more shards than `window`: one permutation of all rows.
 *
 * The order is a function of (seed, epoch, rows of the shards). Turns are counted over all epochs: turn t is place t %
 * n of epoch t / n.
 *
 * Source:  the shuffle buffers of WebDataset, of shards in the place of samples and with an end to every stay
 *          (docs/decisions/0038).
 * Threads: one caller; turns is pure. */
#ifndef MODE_PIPELINE_SHARD_ORDER_H
#define MODE_PIPELINE_SHARD_ORDER_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct mode_shard_order {
    uint64_t seed;
    uint32_t n;           /* shards that have a turn */
    uint32_t window;      /* shards in a window, 1 .. n */
    uint32_t n_windows;   /* of an epoch: n - window + 1 */
    uint32_t *shard;      /* [n] their numbers, ascending */
    uint32_t *end;        /* [n] the row after the last one of each */
    uint32_t *turn;       /* [n] of the epoch that was built: places in shard, in the order of their turns */
    uint32_t *window_end; /* [n_windows] of that epoch: samples up to the end of each window */
    uint32_t *drawn;      /* [n_drawn] rows by shard */
    uint32_t *first;      /* [n + 1] of drawn: where those of each shard begin */
    uint32_t *rows;       /* rows of one shard */
};

/* Shard i's rows are row_end[i - 1] (0) to row_end[i] - 1; has_turn[i] false: no epoch takes any of them. At most
 * n_drawn rows of an epoch are drawn. The caller clears o whatever the result. MODE_E_MEMORY. */
enum mode_status mode_shard_order_init(struct mode_shard_order *o, uint32_t n_shards, const uint32_t *row_end,
                                       const bool *has_turn, uint32_t window, uint32_t n_drawn, uint64_t seed,
                                       struct mode_error *err);
void mode_shard_order_clear(struct mode_shard_order *o);

/* The epoch's order of rows in [n_in], ascending, and drawn [n_drawn]: to [n_in + n_drawn], where drawn may lie. */
void mode_shard_order_build(struct mode_shard_order *o, uint64_t epoch, const uint32_t *in, uint32_t n_in,
                            const uint32_t *drawn, uint32_t n_drawn, uint32_t *to);
/* turn [n] of any epoch, as in the struct. */
void mode_shard_order_turns(const struct mode_shard_order *o, uint64_t epoch, uint32_t *turn);
/* The window of that sample of the epoch that was built. */
uint32_t mode_shard_order_window(const struct mode_shard_order *o, uint32_t sample);

#endif
