/* model_config.h - resolves the key `model` of a run spec to open_clip's JSON.
 *
 * It is one of: the config itself as a YAML mapping (open_clip's model_cfg, or {model_cfg, preprocess_cfg}); the path
 * of such a JSON file (it ends in .json); the name of one of open_clip's plain ViTs (clip_config.h).
 *
 * Source:  open_clip's model configs.
 * Threads: reentrant. */
#ifndef MODE_PIPELINE_MODEL_CONFIG_H
#define MODE_PIPELINE_MODEL_CONFIG_H

#include "base/error.h"

#include <yaml.h>

/* model, preprocess: compact JSON text, the caller frees; *preprocess may become NULL. folder: of relative paths; what:
 * names the source in errors. MODE_E_CONFIG. */
enum mode_status mode_model_config_read(char **model, char **preprocess, yaml_document_t *doc, yaml_node_t *node,
                                        const char *folder, const char *what, struct mode_error *err);
/* The same for a name or path on a command line: relative paths start in the current folder. E_NOINPUT, E_PERM, E_IO:
 * the file; E_CONFIG: its contents, or an unknown model name. */
enum mode_status mode_model_config_named(char **model, char **preprocess, const char *text, const char *what,
                                         struct mode_error *err);
/* The config of a CLIP model's folder (models/clip_folder.h), for a run that starts from it and has no `model`. */
enum mode_status mode_model_config_found(char **model, char **preprocess, const char *dir, const char *what,
                                         struct mode_error *err);
/* vision_cfg.patch_dropout of a model_cfg, JSON text; 0: it has none, or is no valid config, which creating the model
 * reports. */
double mode_model_config_patch_dropout(const char *model);

#endif
