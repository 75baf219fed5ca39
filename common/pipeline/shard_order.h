/* shard_order.h - a shuffled order of rows that reads few shards at a time: a sliding window over shuffled shards.
 *
 * Every epoch permutes the shards; a shard's position is its turn. A window is `window` consecutive shards; the next
 * window drops the first and adds one, and so on to the last shard. The rows of a shard are shuffled and divided
 * equally among the windows that contain it; the rows of a window are shuffled. So the samples at any point of an epoch
 * are an even mix of `window` shards, shards enter and leave one at a time, and each is needed for one contiguous
 * stretch of the epoch. At the ends of an epoch the first and last shards are in fewer windows and contribute more rows
 * to each. With at most `window` shards: one permutation of all rows.
 *
 * The order is a function of (seed, epoch, rows of the shards). Turns are counted over all epochs: turn t is position
 * t % n of epoch t / n.
 *
 * Source:  WebDataset's shuffle buffers, over shards instead of samples and with a bounded stay
 *          (docs/decisions/0038).
 * Threads: one caller; mode_shard_order_turns is reentrant. */
#ifndef MODE_PIPELINE_SHARD_ORDER_H
#define MODE_PIPELINE_SHARD_ORDER_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct mode_shard_order {
    uint64_t seed;
    uint32_t n;           /* shards with a turn */
    uint32_t window;      /* shards of a window, 1 .. n */
    uint32_t n_windows;   /* of an epoch: n - window + 1 */
    uint32_t *shard;      /* [n] their indices, ascending */
    uint32_t *end;        /* [n] the row after the last one of each */
    uint32_t *turn;       /* [n] of the last built epoch: indices into shard, in the order of their turns */
    uint32_t *window_end; /* [n_windows] of that epoch: samples up to the end of each window */
    uint32_t *drawn;      /* [n_drawn] the drawn rows, grouped by shard */
    uint32_t *first;      /* [n + 1] offsets of the shards in drawn */
    uint32_t *rows;       /* scratch: rows of one shard */
};

/* Shard i's rows are row_end[i - 1] (0) to row_end[i] - 1; has_turn[i] false: no epoch uses any of them. n_drawn: drawn
 * rows of an epoch at most. The caller clears o, also after a failure. MODE_E_MEMORY. */
enum mode_status mode_shard_order_init(struct mode_shard_order *o, uint32_t n_shards, const uint32_t *row_end,
                                       const bool *has_turn, uint32_t window, uint32_t n_drawn, uint64_t seed,
                                       struct mode_error *err);
void mode_shard_order_clear(struct mode_shard_order *o);

/* to [n_in + n_drawn]: the epoch's order of the rows in [n_in], ascending, and drawn [n_drawn], which may be part of
 * to. */
void mode_shard_order_build(struct mode_shard_order *o, uint64_t epoch, const uint32_t *in, uint32_t n_in,
                            const uint32_t *drawn, uint32_t n_drawn, uint32_t *to);
/* turn [n], as in the struct, of any epoch. */
void mode_shard_order_turns(const struct mode_shard_order *o, uint64_t epoch, uint32_t *turn);
/* The window of a sample of the last built epoch. */
uint32_t mode_shard_order_window(const struct mode_shard_order *o, uint32_t sample);

#endif
