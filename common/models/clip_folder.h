/* clip_folder.h - reads and writes the folder formats of CLIP models.
 *
 *     open_clip      open_clip_config.json + open_clip_model.safetensors (or open_clip_pytorch_model.bin, .pt, ...)
 *     Hugging Face   config.json (model_type "clip") + model.safetensors (or its index, or pytorch_model.bin),
 *                    preprocessor_config.json, and on writing the tokenizer's files
 *
 * Converting renames, splits, fuses and transposes tensors and changes no value: dtypes stay as they are.
 * Threads: reentrant. */
#ifndef MODE_MODELS_CLIP_FOLDER_H
#define MODE_MODELS_CLIP_FOLDER_H

#include "base/error.h"

enum mode_clip_format { MODE_CLIP_OPEN_CLIP, MODE_CLIP_HF };

struct mode_clip_files {  /* owns its strings */
    char *config;         /* path of the config, for errors */
    char *model_cfg;      /* open_clip's JSON, translated if the config is Hugging Face's */
    char *preprocess_cfg; /* likewise; NULL: not given, OpenAI's apply */
    char *weights;        /* path */
};
/* Finds config and weights in dir. E_NOINPUT: neither kind of config, or no weights beside it; E_FORMAT, E_VALUE: the
 * config. Clear f also after a failure (so for all three). */
enum mode_status mode_clip_files_find(struct mode_clip_files *f, const char *dir, struct mode_error *err);
/* The config (of either kind) and its preprocessing alone, of a folder or by the config's path; weights stays NULL. */
enum mode_status mode_clip_files_find_config(struct mode_clip_files *f, const char *dir, struct mode_error *err);
enum mode_status mode_clip_files_read(struct mode_clip_files *f, const char *config_path, struct mode_error *err);
void mode_clip_files_clear(struct mode_clip_files *f);

/* Do names and shapes of the weights match the config? E_FORMAT, E_SHAPE. Values are not read. */
enum mode_status mode_clip_files_check(const struct mode_clip_files *f, struct mode_error *err);
/* Write the model as open_clip's config and weights files to these paths; note: as below. */
enum mode_status mode_clip_files_copy(const char *config_path, const char *weights_path,
                                      const struct mode_clip_files *f, char **note, struct mode_error *err);

/* Write the model into a new folder, atomically. merges: CLIP's BPE merges file, from which Hugging Face's tokenizer
 * files are written; they are left out if it is NULL or the vocabulary is smaller than CLIP's. note (may be NULL):
 * parts of the weights file that were not used, or ""; the caller frees. E_CREATE: out exists; E_VALUE: the format
 * cannot express the model. */
enum mode_status mode_clip_convert(const char *out, const struct mode_clip_files *in, enum mode_clip_format format,
                                   const char *merges, char **note, struct mode_error *err);

#endif
