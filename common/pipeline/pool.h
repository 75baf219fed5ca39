/* pool.h - the sampler: which rows a model trains on, and in which order.
 *
 * The rows of a run are numbered 0 .. n_rows-1 over all shards in shard order. A dense model's pool is all of
 * them. An expert's pool is every row of its own coarse cluster plus floor(out_ratio * outside) of the rows
 * outside it, redrawn every epoch without replacement.
 *
 * The pool is an infinite sequence of samples: epoch e is a permutation of the epoch's pool, and sample p is
 * sample p % size of epoch p / size. Step s trains on the `batch` samples from s * batch on, where s counts the
 * whole schedule (an expert starts at the fork's step, usually in the middle of an epoch). So a batch is a
 * function of (seed, pool, step, batch) alone: no sample is dropped at the end of an epoch, a resume needs no
 * sampler state, and a dense continuation sees exactly what an uninterrupted run would have seen.
 *
 *     mode_pool_init(&pool, n_rows, coarse_of_row, 2, 0.02, seed, &err);
 *     mode_pool_draw(&pool, step * batch, batch, rows, epochs);
 *
 * With windows an epoch has the same rows in an order that reads few shards at a time (shard_order.h).
 *
 * Source:  MoDE (arXiv:2404.16030) section 3.2; the fraction of outside rows is the reference implementation's.
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
    uint32_t n_out;     /* of those drawn per epoch: floor(out_ratio * n_outside)   */
    uint32_t *in;       /* [n_in] ascending      */
    uint32_t *outside;  /* [n_outside] ascending */
    uint64_t epoch;     /* of order; UINT64_MAX = none yet */
    uint32_t *order;    /* [n_in + n_out] the epoch's rows in order */

    struct mode_shard_order *windows; /* NULL: one permutation of all rows */
};

enum { MODE_POOL_ALL = -1 };

/* coarse [n_rows]: coarse id of every row; may be NULL if expert is MODE_POOL_ALL. The caller clears pool, also after a
 * failure. MODE_E_VALUE: no rows, over 2^32 - 1 rows, out_ratio outside [0, 1], an expert without rows of its own;
 * MODE_E_MEMORY. */
enum mode_status mode_pool_init(struct mode_pool *pool, uint64_t n_rows, const int32_t *coarse, int32_t expert,
                                double out_ratio, uint64_t seed, struct mode_error *err);
/* After init, before the first draw: order by windows of `window` shards; shard i ends before row row_end[i].
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
/* With windows: the shards of the sample's window have the turns *from .. *to - 1 (shard_order.h). */
void mode_pool_turns(struct mode_pool *pool, uint64_t sample, uint64_t *from, uint64_t *to);

#endif
