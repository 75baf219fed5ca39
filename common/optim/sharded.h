/* sharded.h - AdamW by several processes, each for its share of the parameters.
 *
 * All parameters of a model lie in one block, their gradients in another. The block is cut into buckets, and each
 * bucket into as many equal pieces as there are processes: piece r belongs to rank r. A process keeps moments of its
 * own pieces alone, so they take 1/size of the memory:
 *
 *     st = mode_sharded_reduce(s, &err);                        // sum gradients, each process its pieces
 *     st = mode_sharded_update(s, now, &err);                   // AdamW on those, and the new weights to all
 *
 * The result is that of mode_adamw_update over gradients added up, but for the order of additions.
 *
 * Source:  Rajbhandari et al., "ZeRO: memory optimizations toward training trillion parameter models", stage 1.
 * Threads: one caller. */
#ifndef MODE_OPTIM_SHARDED_H
#define MODE_OPTIM_SHARDED_H

#include "dist/ranks.h"
#include "nn/backend.h"
#include "optim/adamw.h"

struct mode_sharded;

/* bucket: floats in a bucket, about; 0: 32 MiB. params, group and blocks are borrowed. E_MEMORY, E_DEVICE. */
enum mode_status mode_sharded_open(struct mode_sharded **s, struct mode_backend *be, struct mode_ranks *group,
                                   const struct mode_param *params, size_t n_params, const struct mode_flat *flat,
                                   size_t bucket, struct mode_error *err);
void mode_sharded_close(struct mode_sharded **s);

/* Weights of all processes become rank 0's. */
enum mode_status mode_sharded_broadcast(struct mode_sharded *s, struct mode_error *err);
/* Buckets go, beside the ops, as soon as they are whole and in the same order everywhere: to be called when the
 * gradients of n parameters from p on are final, in the branch that made them (mode_clip_set_made); of each parameter
 * once between two mode_sharded_reduce, or of none. Errors come with mode_sharded_reduce. */
void mode_sharded_made(void *sharded, const struct mode_param *p, size_t n);
/* Gradients become sums over all processes, in one's own pieces; elsewhere they are undefined. What nobody said to be
 * made is so now. */
enum mode_status mode_sharded_reduce(struct mode_sharded *s, struct mode_error *err);
/* One update, as mode_adamw_update; now->squares is the same number everywhere. Weights and rounded copies of them come
 * beside the ops, from the first bucket on: an op waits for those that it reads (dist/ranks.h). */
enum mode_status mode_sharded_update(struct mode_sharded *s, struct mode_adamw_step *now, struct mode_error *err);

/* All moments, [n] floats each on the host, laid out as the blocks. Save: received on rank 0 (m, v are NULL elsewhere),
 * every process calls; gradients are overwritten. Load: every process takes its pieces. */
enum mode_status mode_sharded_save_moments(struct mode_sharded *s, float *m, float *v, struct mode_error *err);
void mode_sharded_load_moments(struct mode_sharded *s, const float *m, const float *v);

#endif
