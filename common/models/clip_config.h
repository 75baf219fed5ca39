/* clip_config.h - open_clip's model_cfg and preprocess_cfg, read from JSON text.
 *
 * Only what our towers compute exactly is accepted. Any other key or value is refused, and the error names it: a model
 * of another architecture must never run as plain CLIP. */
#ifndef MODE_MODELS_CLIP_CONFIG_H
#define MODE_MODELS_CLIP_CONFIG_H

#include "base/error.h"
#include "data/image.h"
#include "nn/ops.h"

#include <stdbool.h>
#include <stdint.h>

enum mode_clip_text_pool {                        /* open_clip's text pool_type: which token's row is projected */
                           MODE_CLIP_POOL_ARGMAX, /* the first with the highest id: CLIP's end token */
                           MODE_CLIP_POOL_EOS,    /* the first eos_id; token 0 if there is none */
                           MODE_CLIP_POOL_FIRST,
                           MODE_CLIP_POOL_LAST /* of the padded text: position context_length - 1 */
};

enum mode_clip_text_proj { MODE_CLIP_PROJ_MATRIX, MODE_CLIP_PROJ_LINEAR, MODE_CLIP_PROJ_NONE };

struct mode_clip_tower_config {
    int64_t width, heads, layers, mlp; /* heads divides width; mlp: width of the MLP's hidden layer */
    enum mode_act act;
    float ln_eps;
    bool layer_scale; /* LayerScale on both residual branches: ls_init_value is given */
    double layer_scale_init;
};

struct mode_clip_config {
    int64_t embed_dim;
    bool quick_gelu;
    struct mode_clip_tower_config image, text;
    int64_t image_size, patch_size; /* patch divides size */
    int64_t context_length, vocab_size;
    bool image_ln_pre, image_mean_pool, image_ln_after_pool;
    double patch_dropout; /* default of trainings with this model, [0, 1); inference has none */
    bool image_sincos;    /* fixed 2-D sin-cos position embedding, not learned */
    bool text_causal;
    enum mode_clip_text_pool text_pool;
    enum mode_clip_text_proj text_proj; /* NONE: text width is embed_dim */
    int64_t text_eos_id;
    bool custom_text;        /* the text tower's parameters are called text.* */
    bool logit_scale_vector; /* logit_scale has shape [1], not [] */
    double init_logit_scale; /* its logarithm, as the parameter stores it */
};

/* json: a model_cfg object. what: names the source in errors ("<dir>/open_clip_config.json"). E_FORMAT: not JSON, a
 * missing key or an unsupported one; E_VALUE: out of range. */
enum mode_status mode_clip_config_parse(struct mode_clip_config *c, const char *json, const char *what,
                                        struct mode_error *err);
/* The model_cfg of one of open_clip's plain ViTs by its name ("ViT-L-14-336", "ViT-B-32-quickgelu"), as JSON text that
 * the caller frees; NULL: unknown name. Every name also exists with the suffix -quickgelu, and OpenAI's spelling
 * "ViT-B/32" means ViT-B-32. */
char *mode_clip_config_by_name(const char *name);
/* The i-th name without -quickgelu; NULL past the last. */
const char *mode_clip_config_name(size_t i);
/* json: a preprocess_cfg object; NULL: OpenAI's mean and std, resize_mode "shortest". size: the model's image_size; a
 * "size" in json must equal it. E_FORMAT, E_VALUE. */
enum mode_status mode_clip_preprocess_parse(struct mode_preprocess *p, const char *json, int64_t size, const char *what,
                                            struct mode_error *err);
/* Split an open_clip_config.json into the JSON of its two objects; the caller frees both. A bare model_cfg, and a file
 * without preprocess_cfg, give *preprocess_cfg NULL. E_FORMAT. */
enum mode_status mode_clip_config_split(char **model_cfg, char **preprocess_cfg, const char *json, const char *what,
                                        struct mode_error *err);

#endif
