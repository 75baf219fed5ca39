/* clip_hf.h - translates Hugging Face's config.json and preprocessor_config.json of a CLIPModel to open_clip's JSON and
 * back; inside models/ only. What the target cannot express is refused, and the error names it. */
#ifndef MODE_MODELS_CLIP_HF_H
#define MODE_MODELS_CLIP_HF_H

#include "models/clip_config.h"

/* Is this the config.json of a CLIPModel (model_type "clip")? */
bool mode__clip_hf_is(const char *json);
/* model_cfg, preprocess_cfg: compact JSON text, the caller frees. what: names the source in errors. E_FORMAT. */
enum mode_status mode__clip_hf_config_read(char **model_cfg, const char *json, const char *what,
                                           struct mode_error *err);
enum mode_status mode__clip_hf_preprocess_read(char **preprocess_cfg, const char *json, const char *what,
                                               struct mode_error *err);
/* The reverse: indented JSON, the caller frees. E_VALUE: Hugging Face's CLIP cannot express the model. */
enum mode_status mode__clip_hf_config_write(char **json, const struct mode_clip_config *c, const char *what,
                                            struct mode_error *err);
enum mode_status mode__clip_hf_preprocess_write(char **json, const struct mode_preprocess *p, const char *what,
                                                struct mode_error *err);

#endif
