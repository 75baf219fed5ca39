/* together.h - the optimizer of a training, by one process or by several that train one model.
 *
 * Alone (group NULL) it is optim/adamw.h, with others optim/sharded.h; files are the same either way, written and
 * read by whichever number of processes. Every function is called by all processes of the group.
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

/* After mode_clip_train_begin, with the group that the clip was given; all borrowed. */
enum mode_status mode_together_open(struct mode_together **t, struct mode_backend *be, struct mode_clip *clip,
                                    struct mode_ranks *group, struct mode_error *err);
void mode_together_close(struct mode_together **t);
/* This process writes the files. */
bool mode_together_first(const struct mode_together *t);

/* E_VALUE: text, the same everywhere by right, differs between the processes. Then the weights become rank 0's. */
enum mode_status mode_together_begin(struct mode_together *t, const char *text, struct mode_error *err);
/* A step of what mode_clip_train_load has put in place. Tell what its update is to read (optim/adamw.h); all ops of it:
 * gradients, update, the logit scale clamped; after a mode_backend_sync, the length of the gradients. why_not: "", or a
 * clause that says why a device runs the ops one by one and not as a graph (mode_backend_repeat). */
void mode_together_tell(struct mode_together *t, const struct mode_adamw *options, int64_t step);
enum mode_status mode_together_step(struct mode_together *t, const char **why_not, struct mode_error *err);
double mode_together_norm(const struct mode_together *t);
/* After a mode_backend_sync: MODE_E_PEER when another process has ended, and what was computed since may be nothing. */
enum mode_status mode_together_check(struct mode_together *t, struct mode_error *err);
/* *flag becomes true when it is anywhere. Also a place where all wait for all. */
enum mode_status mode_together_any(struct mode_together *t, bool *flag, struct mode_error *err);
/* checkpoint.h; the first process writes, every one reads. */
enum mode_status mode_together_save_moments(struct mode_together *t, const char *path, uint64_t step,
                                            struct mode_error *err);
enum mode_status mode_together_load_moments(struct mode_together *t, uint64_t *step, const char *path,
                                            struct mode_error *err);

#endif
