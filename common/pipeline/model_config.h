/* model_config.h - what the key `model` of a run spec may be, as open_clip JSON.
 *
 * One of: the config itself as a YAML mapping (open_clip's model_cfg, or {model_cfg, preprocess_cfg}); the path
 * of such a JSON file (it ends in .json); the name of one of open_clip's plain ViTs (clip_config.h). Source:
 * open_clip's model configs. */
#ifndef MODE_PIPELINE_MODEL_CONFIG_H
#define MODE_PIPELINE_MODEL_CONFIG_H

#include "base/error.h"

#include <yaml.h>

/* model, preprocess: compact JSON text, the caller frees. folder: relative paths start there; what: for errors. */
enum mode_status mode_model_config_read(char **model, char **preprocess, yaml_document_t *doc, yaml_node_t *node,
                                        const char *folder, const char *what, struct mode_error *err);
/* The same of a name or path on a command line: relative paths start in the current folder. Of the errors E_NOINPUT,
 * E_PERM, E_IO: the file; E_CONFIG: what it holds, or no model has that name. */
enum mode_status mode_model_config_named(char **model, char **preprocess, const char *text, const char *what,
                                         struct mode_error *err);
/* That of a folder of a CLIP model (models/clip_folder.h), for a run that begins with it and names no other. */
enum mode_status mode_model_config_found(char **model, char **preprocess, const char *dir, const char *what,
                                         struct mode_error *err);

#endif
