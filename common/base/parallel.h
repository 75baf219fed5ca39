/* parallel.h - one pool of threads for the whole process.
 *
 * Work is cut into items whose number does not depend on how many threads there are, and an item's result does
 * not depend on which thread ran it: so results are bit-identical with one thread or sixty-four. A call from inside an
 * item runs its items serially on the calling thread.
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
 * process may run on; reduced to the share set by mode_parallel_share. */
int mode_parallel_threads(void);
/* MODE_E_VALUE: the variable that applies is not a number of threads (1 to 1024; OMP_NUM_THREADS is a list, whose first
 * entry counts). */
enum mode_status mode_parallel_check(struct mode_error *err);
/* Override before first use (tests, --threads). Asserts that the pool has not started. */
void mode_parallel_set_threads(int n);
/* This is now one of n processes that share the machine's processors: 1/n of the threads are used (at least one). For
 * tasks done by several processes; 1: alone again. The pool must be idle. */
void mode_parallel_share(int n);
/* From now on *items is incremented for every finished item, so that others see progress within a long call; NULL: off.
 * The pool must be idle. */
void mode_parallel_count_in(atomic_uint_fast64_t *items);
/* Run fn for item = 0 .. n-1, return when all are done. */
void mode_parallel_for(int64_t n, mode_item_fn *fn, void *ctx);

#endif
