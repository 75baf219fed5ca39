/* clip.h - CLIP: a ViT image tower and a text Transformer. Loading and inference; training is clip_train.h.
 *
 * Parameters carry open_clip's names; the config is open_clip's JSON; a checkpoint is a folder that open_clip
 * loads as local-dir:. A causal text tower is computed only up to each text's end token (exact: the causal mask hides
 * later rows from it, and pooling drops them), and the last block only for the pooled row.
 *
 * Dimensions: B pairs, E joint embedding, S image_size. Pointers are host memory unless it says otherwise.
 *
 * Source:  Radford et al. 2021 (CLIP); open_clip is the reference for names, config and numbers.
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

/* Load a folder of open_clip's or Hugging Face's (models/clip_folder.h). be: common/nn/backend.h, borrowed. On failure
 * *clip is NULL. E_NOINPUT: no config or no weights; E_FORMAT, E_VALUE: the config; E_FORMAT, E_SHAPE: the weights;
 * E_MEMORY. */
enum mode_status mode_clip_load(struct mode_clip **clip, struct mode_backend *be, const char *dir,
                                struct mode_error *err);
/* The same from two files, wherever they are. */
enum mode_status mode_clip_load_files(struct mode_clip **clip, struct mode_backend *be, const char *config_path,
                                      const char *weights_path, struct mode_error *err);
void mode_clip_close(struct mode_clip **clip);
/* For people: dtype conversions to f32 and parts of the weights file that were not used; "" if there are none. */
const char *mode_clip_note(const struct mode_clip *clip);
struct mode_backend *mode_clip_backend(const struct mode_clip *clip); /* borrowed */
int mode_clip_embed_dim(const struct mode_clip *clip);
int mode_clip_context(const struct mode_clip *clip);     /* context_length in tokens: 77 in OpenAI's models */
int64_t mode_clip_patches(const struct mode_clip *clip); /* of an image */
const struct mode_preprocess *mode_clip_preprocess(const struct mode_clip *clip);
float mode_clip_logit_scale(const struct mode_clip *clip); /* exp(logit_scale) */

/* pixels [B, 3, S, S] f32, normalised (mean, std), in host or backend memory -> out [B, E] f32, unit rows unless raw.
 * Any B: it is cut into batches inside. E_MEMORY. */
enum mode_status mode_clip_encode_images(struct mode_clip *clip, float *out, const float *pixels, int64_t b, int raw,
                                         struct mode_error *err);
/* The same from decoded pictures that the backend resizes (nn/pixels.h). */
enum mode_status mode_clip_encode_pictures(struct mode_clip *clip, float *out, const struct mode_pictures *pictures,
                                           int64_t b, int raw, struct mode_error *err);
/* ids: the texts' tokens concatenated, n_ids[i] tokens each (special tokens included, no padding) -> out [B, E].
 * E_VALUE: a length outside 1 .. context_length, or an id outside the vocabulary; E_MEMORY. */
enum mode_status mode_clip_encode_texts(struct mode_clip *clip, float *out, const int32_t *ids, const int32_t *n_ids,
                                        int64_t b, int raw, struct mode_error *err);

#endif
