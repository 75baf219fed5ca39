/* parallel.h - one pool of threads for the whole process.
 *
 * Work is cut into items whose number does not depend on how many threads there are, and an item's result does
 * not depend on which thread ran it: so results are the same bytes with one thread or sixty-four. A call from
 * inside an item runs its items one after another on the calling thread.
 *
 *     mode_parallel_for(n_blocks, one_block, &ctx);
 *
 * Threads: one caller at a time enters the pool; others wait their turn. */
#ifndef MODE_BASE_PARALLEL_H
#define MODE_BASE_PARALLEL_H

#include "base/error.h"

#include <stdatomic.h>
#include <stdint.h>

typedef void mode_item_fn(void *ctx, int64_t item, int thread); /* thread in [0, mode_parallel_threads()) */

/* Threads in the pool, the caller included: MODE_THREADS, else OMP_NUM_THREADS, else the processors this
 * process may run on; of these the share of mode_parallel_share. */
int mode_parallel_threads(void);
/* MODE_E_VALUE: the variable that decides is no number of threads (1 to 1024; of OMP_NUM_THREADS, a list, the first is
 * taken). */
enum mode_status mode_parallel_check(struct mode_error *err);
/* Override before first use (tests, --threads). Asserts that the pool has not started. */
void mode_parallel_set_threads(int n);
/* From here on this is one of n processes that share the machine's processors: an n-th of the threads take part (at
 * least one). For tasks that several processes do; 1: alone again. Nobody may be in the pool. */
void mode_parallel_share(int n);
/* From here on 1 is added there for every item that is done, so that others see that work goes on within a long one;
 * NULL: nowhere. Nobody may be in the pool. */
void mode_parallel_count_in(atomic_uint_fast64_t *items);
/* Run fn for item = 0 .. n-1, return when all are done. */
void mode_parallel_for(int64_t n, mode_item_fn *fn, void *ctx);

#endif
