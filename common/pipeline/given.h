/* given.h - a pretrained model that training starts from instead of random weights: `train.init` of a run, --init of
 * `mode train`.
 *
 *     st = mode_given_find(&g, path, &err);
 *     if (!st) st = mode_given_agree(&g, model_config, preprocess_config, &err);
 *     if (!st) st = mode_given_take(&g, &outputs, &note, &err);
 *     mode_given_clear(&g);
 *
 * A folder (open_clip's or Hugging Face's, models/clip_folder.h) or a weights file (data/weights.h), which does not
 * contain its config. A folder written by `mode train` also has optimizer.safetensors: AdamW's moments and their step
 * of the schedule. Any other model begins at step 0 with zero moments.
 *
 * Threads: reentrant. */
#ifndef MODE_PIPELINE_GIVEN_H
#define MODE_PIPELINE_GIVEN_H

#include "base/file.h"
#include "models/clip_folder.h"
#include "pipeline/train.h"

#include <stdbool.h>
#include <stdint.h>

struct mode_given {
    bool folder;
    struct mode_clip_files files; /* for a weights file only `weights`, until mode_given_agree */
    char *optimizer;              /* path of optimizer.safetensors, or NULL */
    uint64_t step;                /* steps of the schedule already done; 0 without an optimizer */
};

/* The error for a path on which stat failed with errno why; a name that is not a path may be an open_clip tag. */
enum mode_status mode_given_fail(int why, const char *path, struct mode_error *err);
/* Reads only configs and headers. Clear also after a failure. MODE_E_NOINPUT, MODE_E_FORMAT, MODE_E_VALUE. */
enum mode_status mode_given_find(struct mode_given *g, const char *path, struct mode_error *err);
/* The same for a folder only. weights_alone: ignore optimizer.safetensors. */
enum mode_status mode_given_find_folder(struct mode_given *g, const char *dir, bool weights_alone,
                                        struct mode_error *err);
void mode_given_clear(struct mode_given *g);
/* Check that it is the configured model; E_CONFIG names the file, what was expected and what was found. Afterwards its
 * configs are these texts. A folder's preprocessing must agree, too, since the model was trained with it. */
enum mode_status mode_given_agree(struct mode_given *g, const char *model_config, const char *preprocess_config,
                                  struct mode_error *err);
/* A digest of the names and contents of all its files, independent of their folder. */
enum mode_status mode_given_digest(const struct mode_given *g, char hex[MODE_DIGEST_HEX], struct mode_error *err);
/* Write the outputs of a training of zero steps: the model in our folder format, the optimizer if its step is not 0, no
 * rows of steps. note: parts of the weights file that were not used, or ""; the caller frees. */
enum mode_status mode_given_take(const struct mode_given *g, const struct mode_train_outputs *out, char **note,
                                 struct mode_error *err);

#endif
