/* clip_folder.h - the folders in which CLIP models travel, read and written.
 *
 *     open_clip      open_clip_config.json + open_clip_model.safetensors (or open_clip_pytorch_model.bin, .pt, ...)
 *     Hugging Face   config.json (model_type "clip") + model.safetensors (or its index, or pytorch_model.bin),
 *                    preprocessor_config.json, and on writing the tokenizer's files
 *
 * Converting renames, cuts and turns tensors and changes no number: dtypes stay as they are.
 * Threads: pure. */
#ifndef MODE_MODELS_CLIP_FOLDER_H
#define MODE_MODELS_CLIP_FOLDER_H

#include "base/error.h"

enum mode_clip_format { MODE_CLIP_OPEN_CLIP, MODE_CLIP_HF };

struct mode_clip_files {
    char *config;         /* its path, for errors */
    char *model_cfg;      /* open_clip's JSON, translated where the folder is Hugging Face's */
    char *preprocess_cfg; /* the same; NULL: the folder does not say, OpenAI's are meant */
    char *weights;        /* path */
};
/* E_NOINPUT: neither kind of config, or no weights beside it. */
enum mode_status mode_clip_files_find(struct mode_clip_files *f, const char *dir, struct mode_error *err);
/* Only the config (of either kind) and its preprocessing; weights stays NULL: of a folder, of a config by its path. */
enum mode_status mode_clip_files_find_config(struct mode_clip_files *f, const char *dir, struct mode_error *err);
enum mode_status mode_clip_files_read(struct mode_clip_files *f, const char *config_path, struct mode_error *err);
void mode_clip_files_clear(struct mode_clip_files *f);

/* Whether the weights are those of the config, tensor by tensor: E_FORMAT, E_SHAPE. No number is looked at. */
enum mode_status mode_clip_files_check(const struct mode_clip_files *f, struct mode_error *err);
/* The model as open_clip's two files, wherever these lie; note: as below. */
enum mode_status mode_clip_files_copy(const char *config_path, const char *weights_path,
                                      const struct mode_clip_files *f, char **note, struct mode_error *err);

/* Write the model into a new folder, complete or not at all. merges: CLIP's merges file for Hugging Face's tokenizer
 * files, NULL (and a vocabulary smaller than CLIP's) leaves them out. note (may be NULL): "" or what was left aside;
 * the caller frees. E_CREATE: out is there already; E_VALUE: the format cannot express the model. */
enum mode_status mode_clip_convert(const char *out, const struct mode_clip_files *in, enum mode_clip_format format,
                                   const char *merges, char **note, struct mode_error *err);

#endif
