/* clip_config.h - open_clip's model_cfg and preprocess_cfg, read from JSON text.
 *
 * Only what our towers can do exactly is accepted; any other key, or a value with another meaning, is refused by
 * name, so that no checkpoint is ever run as something it is not. */
#ifndef MODE_MODELS_CLIP_CONFIG_H
#define MODE_MODELS_CLIP_CONFIG_H

#include "base/error.h"
#include "data/image.h"

#include <stdbool.h>
#include <stdint.h>

struct mode_clip_tower_config {
    int64_t width, heads, layers, mlp; /* heads divides width; mlp = width of the hidden layer */
};

struct mode_clip_config {
    int64_t embed_dim;
    bool quick_gelu;
    struct mode_clip_tower_config image, text;
    int64_t image_size, patch_size; /* patch divides size */
    int64_t context_length, vocab_size;
};

/* what: names the source in errors ("<dir>/open_clip_config.json"). E_FORMAT: not JSON or an unknown key;
 * E_VALUE: out of range. */
enum mode_status mode_clip_config_parse(struct mode_clip_config *c, const char *json, const char *what,
                                        struct mode_error *err);
/* json NULL: OpenAI's mean and std, shortest side. size: the model's. */
enum mode_status mode_clip_preprocess_parse(struct mode_preprocess *p, const char *json, int64_t size, const char *what,
                                            struct mode_error *err);
/* Split an open_clip_config.json into the text of its two parts; the caller frees both. */
enum mode_status mode_clip_config_split(char **model_cfg, char **preprocess_cfg, const char *json, const char *what,
                                        struct mode_error *err);

#endif
