/* together.h - the optimizer of a training, in one process or in a group.
 *
 * In one process (group NULL) it is optim/adamw.h, in a group optim/sharded.h. Checkpoints are the same, and can be
 * resumed by any number of processes. In a group every function but open and close is collective.
 *
 * Threads: one caller. */
#ifndef MODE_PIPELINE_TOGETHER_H
#define MODE_PIPELINE_TOGETHER_H

#include "base/error.h"
#include "models/clip_train.h"
#include "optim/adamw.h"

#include <stdbool.h>
#include <stdint.h>

struct mode_together;

/* After mode_clip_train_begin, with the clip's group; all borrowed. The caller closes *t, also after a failure.
 * E_MEMORY, E_DEVICE. */
enum mode_status mode_together_open(struct mode_together **t, struct mode_backend *be, struct mode_clip *clip,
                                    struct mode_ranks *group, struct mode_error *err);
void mode_together_close(struct mode_together **t);
/* Rank 0, or the only process: it writes the files. */
bool mode_together_first(const struct mode_together *t);

/* E_VALUE: text (the configuration) differs between processes. Then broadcasts rank 0's weights. */
enum mode_status mode_together_begin(struct mode_together *t, const char *text, struct mode_error *err);
/* One step on what mode_clip_train_load has loaded:
 *   tell   sets the arguments of its update (optim/adamw.h)
 *   step   issues all its ops: gradients, update, logit scale clamped. why_not: "", or a clause that says why a device
 *          runs the ops one by one and not as a captured graph (mode_backend_repeat)
 *   norm   the gradients' global norm; after a mode_backend_sync */
void mode_together_tell(struct mode_together *t, const struct mode_adamw *options, int64_t step);
enum mode_status mode_together_step(struct mode_together *t, const char **why_not, struct mode_error *err);
double mode_together_norm(const struct mode_together *t);
/* After a mode_backend_sync: MODE_E_PEER if another process has ended; results since the last check are undefined. */
enum mode_status mode_together_check(struct mode_together *t, struct mode_error *err);
/* Logical or: *flag becomes true if it is true in any process. Also a barrier. */
enum mode_status mode_together_any(struct mode_together *t, bool *flag, struct mode_error *err);
/* checkpoint.h; rank 0 writes, every process reads. */
enum mode_status mode_together_save_moments(struct mode_together *t, const char *path, uint64_t step,
                                            struct mode_error *err);
enum mode_status mode_together_load_moments(struct mode_together *t, uint64_t *step, const char *path,
                                            struct mode_error *err);

#endif
