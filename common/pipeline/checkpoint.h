/* checkpoint.h - AdamW moments between a model and a safetensors file.
 *
 * optimizer.safetensors holds, for every parameter of the model in its order, "exp_avg.<name>" and
 * "exp_avg_sq.<name>" (f32, the parameter's shape), and the metadata key "step": optimizer steps done.
 * Reading is exact: a tensor that is missing, superfluous or of another shape is an error, so that training
 * never goes on from something else than what was saved.
 *
 * Threads: none of their own. */
#ifndef MODE_PIPELINE_CHECKPOINT_H
#define MODE_PIPELINE_CHECKPOINT_H

#include "base/error.h"
#include "nn/backend.h"
#include "nn/param.h"

#include <stddef.h>
#include <stdint.h>

/* Names of the files a training leaves, in its output folder and in its checkpoints. */
#define MODE_FILE_CLIP_CONFIG    "open_clip_config.json"
#define MODE_FILE_CLIP_WEIGHTS   "open_clip_model.safetensors"
#define MODE_FILE_CLIP_OPTIMIZER "optimizer.safetensors"
#define MODE_FILE_STEPS          "steps.jsonl"
#define MODE_FILE_TRAIN          "train.json"

/* The moments must be allocated: in be's memory, or in the host's own where be is NULL. */
enum mode_status mode_checkpoint_save_moments(const char *path, struct mode_backend *be,
                                              const struct mode_param *params, size_t n, uint64_t step,
                                              struct mode_error *err);
enum mode_status mode_checkpoint_load_moments(struct mode_backend *be, struct mode_param *params, size_t n,
                                              uint64_t *step, const char *path, struct mode_error *err);
/* The step of an optimizer.safetensors. */
enum mode_status mode_checkpoint_step(uint64_t *step, const char *path, struct mode_error *err);

#endif
