/* given.h - a model that a training begins with in the place of random weights: `train.init` of a run, --init of
 * `mode train`.
 *
 *     st = mode_given_find(&g, path, &err);
 *     if (!st) st = mode_given_agree(&g, model_config, preprocess_config, &err);
 *     if (!st) st = mode_given_take(&g, &outputs, &note, &err);
 *     mode_given_clear(&g);
 *
 * A folder (open_clip's or Hugging Face's, models/clip_folder.h) or a file of weights alone (data/weights.h), which
 * does not say what model it is. A folder that `mode train` left has optimizer.safetensors too, and with it AdamW's
 * moments and the step of the schedule that they belong to; every other model begins at step 0 with moments of zero.
 *
 * Threads: pure. */
#ifndef MODE_PIPELINE_GIVEN_H
#define MODE_PIPELINE_GIVEN_H

#include "base/file.h"
#include "models/clip_folder.h"
#include "pipeline/train.h"

#include <stdbool.h>
#include <stdint.h>

struct mode_given {
    bool folder;
    struct mode_clip_files files; /* of a file of weights: that alone, until mode_given_agree */
    char *optimizer;              /* its path, or NULL */
    uint64_t step;                /* steps of the schedule behind it; 0 without an optimizer */
};

/* The sentence for a path that stat refused with errno why; a name that is no path may be a tag of open_clip. */
enum mode_status mode_given_fail(int why, const char *path, struct mode_error *err);
/* Opens no more than configs and headers. Clear also after a failure. */
enum mode_status mode_given_find(struct mode_given *g, const char *path, struct mode_error *err);
/* Only a folder will do. weights_alone: an optimizer that is there is not looked at. */
enum mode_status mode_given_find_folder(struct mode_given *g, const char *dir, bool weights_alone,
                                        struct mode_error *err);
void mode_given_clear(struct mode_given *g);
/* That it is this model; E_CONFIG names the file, what was expected and what is there. Afterwards its configs are these
 * texts. What a folder says of pictures must be the same, too, since the model has learned from such pictures. */
enum mode_status mode_given_agree(struct mode_given *g, const char *model_config, const char *preprocess_config,
                                  struct mode_error *err);
/* Of every file that is read, names and contents; where they lie does not matter. */
enum mode_status mode_given_digest(const struct mode_given *g, char hex[MODE_DIGEST_HEX], struct mode_error *err);
/* The outputs of a seed that is this model as it is: its numbers in our folder's form, the optimizer if its step is not
 * 0, no steps. note: "" or what was left aside of the weights; the caller frees. */
enum mode_status mode_given_take(const struct mode_given *g, const struct mode_train_outputs *out, char **note,
                                 struct mode_error *err);

#endif
