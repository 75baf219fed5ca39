/* sharded.h - AdamW in a group of processes with partitioned optimiser state (ZeRO stage 1).
 *
 * All parameters of a model but the locked ones lie in one block, their gradients in another. The block is cut into
 * buckets, and each bucket into one equal piece per process: piece r belongs to rank r. A process stores the moments of
 * its own pieces only, so they take 1/size of the memory:
 *
 *     st = mode_sharded_reduce(s, &err);                        // reduce-scatter of gradients
 *     st = mode_sharded_update(s, now, &err);                   // AdamW on own pieces, all-gather of weights
 *
 * The result is that of mode_adamw_update on the summed gradients, up to the order of additions.
 *
 * Source:  Rajbhandari et al., "ZeRO: memory optimizations toward training trillion parameter models", stage 1.
 * Threads: one caller. */
#ifndef MODE_OPTIM_SHARDED_H
#define MODE_OPTIM_SHARDED_H

#include "dist/ranks.h"
#include "nn/backend.h"
#include "optim/adamw.h"

struct mode_sharded;

/* bucket: approximate floats of a bucket; 0: 32 MiB. be, group, params and flat's blocks are borrowed. On failure *s is
 * NULL. E_MEMORY, E_DEVICE. */
enum mode_status mode_sharded_open(struct mode_sharded **s, struct mode_backend *be, struct mode_ranks *group,
                                   const struct mode_param *params, size_t n_params, const struct mode_flat *flat,
                                   size_t bucket, struct mode_error *err);
void mode_sharded_close(struct mode_sharded **s);

/* Broadcast rank 0's weights, locked ones included. E_PEER, as in all of these: a process of the group has ended. */
enum mode_status mode_sharded_broadcast(struct mode_sharded *s, struct mode_error *err);
/* Reduces gradients during the backward pass, as DDP's hooks do: call it (mode_clip_set_made) when the gradients of the
 * n parameters from p on are complete, in the branch of the ops that wrote them. A complete bucket's reduce-scatter
 * overlaps with later ops; buckets go in the same order in every process. Between two mode_sharded_reduce call it once
 * for each parameter, or for none. Errors are returned by mode_sharded_reduce. */
void mode_sharded_made(void *sharded, const struct mode_param *p, size_t n);
/* Own pieces of the gradients become sums over all processes; the rest is undefined. Reduces all buckets that
 * mode_sharded_made has not. */
enum mode_status mode_sharded_reduce(struct mode_sharded *s, struct mode_error *err);
/* One update, as mode_adamw_update; now->squares is the same in every process. The all-gather of weights and their bf16
 * copies overlaps with later ops, from the first bucket on: an op waits for the buckets it reads (dist/ranks.h). */
enum mode_status mode_sharded_update(struct mode_sharded *s, struct mode_adamw_step *now, struct mode_error *err);

/* All moments, [flat->n] f32 each in host memory, laid out as the blocks. Save is collective and gathers them on rank 0
 * (m, v are NULL elsewhere); gradients are overwritten. Load: every process copies its own pieces. */
enum mode_status mode_sharded_save_moments(struct mode_sharded *s, float *m, float *v, struct mode_error *err);
void mode_sharded_load_moments(struct mode_sharded *s, const float *m, const float *v);

#endif
