/* clip_hf.h - Hugging Face's config.json and preprocessor_config.json of a CLIPModel as open_clip's JSON, and back;
 * inside models/ only. What one side cannot say is refused by name. */
#ifndef MODE_MODELS_CLIP_HF_H
#define MODE_MODELS_CLIP_HF_H

#include "models/clip_config.h"

/* Whether a config.json is that of a CLIPModel. */
bool mode__clip_hf_is(const char *json);
/* model_cfg: compact JSON text, the caller frees. what: names the source in errors. */
enum mode_status mode__clip_hf_config_read(char **model_cfg, const char *json, const char *what,
                                           struct mode_error *err);
enum mode_status mode__clip_hf_preprocess_read(char **preprocess_cfg, const char *json, const char *what,
                                               struct mode_error *err);
/* The other way; indented, the caller frees. E_VALUE: the model has something Hugging Face's CLIP cannot express. */
enum mode_status mode__clip_hf_config_write(char **json, const struct mode_clip_config *c, const char *what,
                                            struct mode_error *err);
enum mode_status mode__clip_hf_preprocess_write(char **json, const struct mode_preprocess *p, const char *what,
                                                struct mode_error *err);

#endif
