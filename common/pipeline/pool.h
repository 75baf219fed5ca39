/* pool.h - which rows a model trains on, and in which order.
 *
 * The rows of a run are numbered 0 .. n_rows-1 over all shards in shard order. A dense model's pool is all of
 * them. An expert's pool is every row of its own coarse cluster plus, drawn afresh every epoch without
 * replacement, floor(out_ratio * outside) of the rows outside it.
 *
 * The pool is an endless sequence of samples: epoch e is a permutation of the epoch's pool, epochs follow one
 * another without a gap, and sample number p is sample p % size of epoch p / size. Training takes `batch`
 * consecutive samples a step, the step s those from s * batch on, where s counts the whole schedule (an
 * expert starts at the fork's step, in the middle of an epoch as a rule). So what a step sees is a function
 * of (seed, pool, step, batch) alone: nothing is dropped at an epoch's end, nothing has to be remembered for
 * a resume, and a dense continuation sees exactly what an uninterrupted run would have seen.
 *
 *     mode_pool_init(&pool, n_rows, coarse_of_row, 2, 0.02, seed, &err);
 *     mode_pool_draw(&pool, step * batch, batch, rows, epochs);
 *
 * By windows the same rows of an epoch come in an order that keeps to a few shards at a time (shard_order.h).
 *
 * Source:  MoDE (arXiv:2404.16030) section 3.2; the share of outside rows is the reference implementation's.
 * Threads: one caller (draw keeps the current epoch's order). */
#ifndef MODE_PIPELINE_POOL_H
#define MODE_PIPELINE_POOL_H

#include "base/error.h"
#include "pipeline/shard_order.h"

#include <stdint.h>

struct mode_pool {
    uint64_t seed;
    uint32_t n_in;      /* rows of the expert's cluster; all rows for a dense model */
    uint32_t n_outside; /* rows of other clusters; 0 for a dense model              */
    uint32_t n_out;     /* how many of those an epoch takes: floor(ratio * outside) */
    uint32_t *in;       /* [n_in] ascending      */
    uint32_t *outside;  /* [n_outside] ascending */
    uint64_t epoch;     /* of order; UINT64_MAX = none yet */
    uint32_t *order;    /* [n_in + n_out] rows in the order of that epoch */

    struct mode_shard_order *windows; /* NULL: one permutation of all */
};

enum { MODE_POOL_ALL = -1 };

/* coarse [n_rows]: coarse id of every row; may be NULL when expert is MODE_POOL_ALL. The caller clears pool
 * whatever the result. MODE_E_VALUE: no rows, over 2^32 - 1 rows, out_ratio outside [0, 1], an expert without
 * any row of its own. */
enum mode_status mode_pool_init(struct mode_pool *pool, uint64_t n_rows, const int32_t *coarse, int32_t expert,
                                double out_ratio, uint64_t seed, struct mode_error *err);
/* After init, before the first draw: in windows of so many shards, of which shard i ends before row row_end[i].
 * MODE_E_MEMORY. */
enum mode_status mode_pool_by_windows(struct mode_pool *pool, uint32_t n_shards, const uint32_t *row_end,
                                      uint32_t window, struct mode_error *err);
void mode_pool_clear(struct mode_pool *pool);
/* Samples in an epoch. */
static inline uint32_t mode_pool_size(const struct mode_pool *pool)
{
    return pool->n_in + pool->n_out;
}
/* Samples first .. first+n-1: their rows [n] and epochs [n]. */
void mode_pool_draw(struct mode_pool *pool, uint64_t first, uint64_t n, uint32_t *rows, uint32_t *epochs);
/* Of a pool by windows: turns *from .. *to - 1 (shard_order.h) are those of the shards in the sample's window. */
void mode_pool_turns(struct mode_pool *pool, uint64_t sample, uint64_t *from, uint64_t *to);

#endif
