/* clip.h - CLIP: a ViT image tower and a causal text tower, forward and backward.
 *
 * Parameters carry open_clip's names; the config is open_clip's JSON; a checkpoint is a folder that open_clip
 * loads as local-dir:. The text tower is computed only up to each text's end token (exact: later rows are masked
 * and pooled away), and the last block only for the pooled row.
 *
 * This header is the part other modules use. Dimensions: B pairs, T tokens, D width, E joint embedding.
 * Threads: one caller per model. */
#ifndef MODE_MODELS_CLIP_H
#define MODE_MODELS_CLIP_H

#include "base/error.h"
#include "data/image.h"

#include <stddef.h>
#include <stdint.h>

struct mode_clip;
struct mode_backend;
struct mode_pictures;

/* Load a folder of open_clip's or Hugging Face's (models/clip_folder.h). be: common/nn/backend.h, borrowed. */
enum mode_status mode_clip_load(struct mode_clip **clip, struct mode_backend *be, const char *dir,
                                struct mode_error *err);
/* The same from two files wherever they lie. */
enum mode_status mode_clip_load_files(struct mode_clip **clip, struct mode_backend *be, const char *config_path,
                                      const char *weights_path, struct mode_error *err);
void mode_clip_close(struct mode_clip **clip);
/* "" or what a person should know of the loaded weights: conversions to f32, parts of the file left aside. */
const char *mode_clip_note(const struct mode_clip *clip);
struct mode_backend *mode_clip_backend(const struct mode_clip *clip); /* borrowed */
int mode_clip_embed_dim(const struct mode_clip *clip);
int mode_clip_context(const struct mode_clip *clip); /* 77 */
const struct mode_preprocess *mode_clip_preprocess(const struct mode_clip *clip);
float mode_clip_logit_scale(const struct mode_clip *clip); /* exp(logit_scale) */

/* pixels [B, 3, S, S] f32, the host's or the backend's -> out [B, E] f32, unit rows unless raw. Any B: cut into batches
 * inside. */
enum mode_status mode_clip_encode_images(struct mode_clip *clip, float *out, const float *pixels, int64_t b, int raw,
                                         struct mode_error *err);
/* The same from decoded pictures that the backend resizes (nn/pixels.h). */
enum mode_status mode_clip_encode_pictures(struct mode_clip *clip, float *out, const struct mode_pictures *pictures,
                                           int64_t b, int raw, struct mode_error *err);
/* ids: texts one after another, n_ids[i] tokens each (special tokens included, no padding) -> out [B, E]. */
enum mode_status mode_clip_encode_texts(struct mode_clip *clip, float *out, const int32_t *ids, const int32_t *n_ids,
                                        int64_t b, int raw, struct mode_error *err);

#endif
