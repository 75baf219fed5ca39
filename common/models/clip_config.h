/* clip_config.h - open_clip's model_cfg and preprocess_cfg, read from JSON text.
 *
 * Only what our towers can do exactly is accepted; any other key, or a value with another meaning, is refused by
 * name, so that no checkpoint is ever run as something it is not. */
#ifndef MODE_MODELS_CLIP_CONFIG_H
#define MODE_MODELS_CLIP_CONFIG_H

#include "base/error.h"
#include "data/image.h"
#include "nn/ops.h"

#include <stdbool.h>
#include <stdint.h>

enum mode_clip_text_pool {                        /* which token of a text is its summary */
                           MODE_CLIP_POOL_ARGMAX, /* the first of the highest id: CLIP's end token */
                           MODE_CLIP_POOL_EOS,    /* the first that is eos_id; the first token where none is */
                           MODE_CLIP_POOL_FIRST,
                           MODE_CLIP_POOL_LAST /* of the padded text: place context_length - 1 */
};

enum mode_clip_text_proj { MODE_CLIP_PROJ_MATRIX, MODE_CLIP_PROJ_LINEAR, MODE_CLIP_PROJ_NONE };

struct mode_clip_tower_config {
    int64_t width, heads, layers, mlp; /* heads divides width; mlp = width of the hidden layer */
    enum mode_act act;
    float ln_eps;
    bool layer_scale; /* ls_init_value is given */
    double layer_scale_init;
};

struct mode_clip_config {
    int64_t embed_dim;
    bool quick_gelu;
    struct mode_clip_tower_config image, text;
    int64_t image_size, patch_size; /* patch divides size */
    int64_t context_length, vocab_size;
    bool image_ln_pre, image_mean_pool, image_ln_after_pool;
    bool image_sincos; /* positions are fixed sines and cosines, not learned */
    bool text_causal;
    enum mode_clip_text_pool text_pool;
    enum mode_clip_text_proj text_proj; /* NONE: text width is embed_dim */
    int64_t text_eos_id;
    bool custom_text; /* the text tower's parameters are called text.* */
    bool logit_scale_vector;
    double init_logit_scale;
};

/* what: names the source in errors ("<dir>/open_clip_config.json"). E_FORMAT: not JSON or an unknown key;
 * E_VALUE: out of range. */
enum mode_status mode_clip_config_parse(struct mode_clip_config *c, const char *json, const char *what,
                                        struct mode_error *err);
/* The model_cfg of one of open_clip's plain ViTs by its name ("ViT-L-14-336", "ViT-B-32-quickgelu"), as JSON text that
 * the caller frees; NULL: not one of them. -quickgelu may be put behind every name, and "ViT-B/32", as OpenAI writes it,
 * is ViT-B-32, as open_clip has it. */
char *mode_clip_config_by_name(const char *name);
/* The i-th name without -quickgelu; NULL past the last. */
const char *mode_clip_config_name(size_t i);
/* json NULL: OpenAI's mean and std, shortest side. size: the model's. */
enum mode_status mode_clip_preprocess_parse(struct mode_preprocess *p, const char *json, int64_t size, const char *what,
                                            struct mode_error *err);
/* Split an open_clip_config.json into the text of its two parts; the caller frees both. */
enum mode_status mode_clip_config_split(char **model_cfg, char **preprocess_cfg, const char *json, const char *what,
                                        struct mode_error *err);

#endif
