/* checkpoint.h - saves and loads AdamW's state, as a safetensors file.
 *
 * optimizer.safetensors holds, for every parameter of the model in its order, "exp_avg.<name>" and
 * "exp_avg_sq.<name>" (f32, the parameter's shape), and the metadata key "step": optimizer steps done. Locked parameters
 * (models/clip_train.h) have none: they are not written, and ignored where a file has them.
 * Loading is strict: a tensor that is missing, unexpected or of another shape is an error, so that training never
 * resumes from another state than the saved one.
 *
 * Source:  the names are PyTorch's state of AdamW.
 * Threads: the backend's caller. */
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

/* Moments (m, v) of params must be allocated, but for locked ones: in be's memory, or in host memory if be is NULL. Save
 * is atomic.
 * MODE_E_NOINPUT, MODE_E_IO, MODE_E_CREATE, MODE_E_FORMAT, MODE_E_SHAPE. */
enum mode_status mode_checkpoint_save_moments(const char *path, struct mode_backend *be,
                                              const struct mode_param *params, size_t n, uint64_t step,
                                              struct mode_error *err);
enum mode_status mode_checkpoint_load_moments(struct mode_backend *be, struct mode_param *params, size_t n,
                                              uint64_t *step, const char *path, struct mode_error *err);
/* The step of an optimizer.safetensors, from its header. */
enum mode_status mode_checkpoint_step(uint64_t *step, const char *path, struct mode_error *err);

#endif
