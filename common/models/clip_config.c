#include "models/clip_config.h"

#include "base/str.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double LOGIT_SCALE_INIT = 2.6592600369327779; /* ln(1 / 0.07) */

static enum mode_status parse_object(json_t **root, const char *json, const char *what, struct mode_error *err)
{
    json_error_t je;
    *root = json_loads(json, JSON_REJECT_DUPLICATES, &je);
    if (!*root) return MODE_FAIL(err, MODE_E_FORMAT, "%s is not JSON: line %d: %s", what, je.line, je.text);
    if (!json_is_object(*root)) {
        json_decref(*root);
        *root = NULL;
        return MODE_FAIL(err, MODE_E_FORMAT, "%s is JSON, but not an object", what);
    }
    return MODE_OK;
}

static bool in_list(const char *key, const char *const *list)
{
    for (; *list; list++)
        if (strcmp(*list, key) == 0) return true;
    return false;
}

static enum mode_status refuse(const char *section, const char *key, const json_t *value, const char *what,
                               struct mode_error *err)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    enum mode_status st = MODE_FAIL(
        err, MODE_E_FORMAT, "%s: %s.%s = %.80s is not supported; %s", what, section, key, text ? text : "?",
        strcmp(section, "preprocess_cfg") == 0 ? "what open_clip's own evaluation transform has is"
                                               : "plain ViT image towers with CLIP's own text tower are");
    free(text);
    return st;
}

/* Every key of o must be in `known`, or in `off` with a value that disables it; both lists end with NULL. */
static enum mode_status known_keys(json_t *o, const char *const *known, const char *const *off, const char *what,
                                   const char *section, struct mode_error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach(o, key, value)
    {
        bool is_off = json_is_null(value) || json_is_false(value) ||
                      (json_is_number(value) && json_number_value(value) == 0) ||
                      (json_is_string(value) && strcmp(json_string_value(value), "default") == 0);
        if (!in_list(key, known) && !(in_list(key, off) && is_off)) return refuse(section, key, value, what, err);
    }
    return MODE_OK;
}

static enum mode_status get_bool(bool *out, json_t *o, const char *key, const char *what, struct mode_error *err)
{
    json_t *v = json_object_get(o, key);
    if (v && !json_is_boolean(v) && !json_is_null(v))
        return MODE_FAIL(err, MODE_E_VALUE, "%s: \"%s\" must be true or false", what, key);
    *out = json_is_true(v);
    return MODE_OK;
}

/* A key whose value is one of the names (NULL-terminated); *out is the name's index, 0 if the key is missing. */
static enum mode_status get_choice(int *out, json_t *o, const char *key, const char *const *names, const char *section,
                                   const char *what, struct mode_error *err)
{
    json_t *v = json_object_get(o, key);
    *out = 0;
    if (!v) return MODE_OK;
    for (int i = 0; names[i]; i++)
        if (json_is_string(v) && strcmp(json_string_value(v), names[i]) == 0) {
            *out = i;
            return MODE_OK;
        }
    return refuse(section, key, v, what, err);
}

static enum mode_status get_real(double *out, json_t *o, const char *key, double fallback, double min, double max,
                                 const char *what, struct mode_error *err)
{
    json_t *v = json_object_get(o, key);
    *out = fallback;
    if (!v || json_is_null(v)) return MODE_OK;
    *out = json_number_value(v);
    if (json_is_number(v) && *out >= min && *out <= max) return MODE_OK;
    return MODE_FAIL(err, MODE_E_VALUE, "%s: \"%s\" must be a number from %g to %g", what, key, min, max);
}

/* Integer key in [1, max]; fallback < 0: it must be there. [n, n] counts as n. */
static enum mode_status get_int(int64_t *out, json_t *o, const char *key, int64_t fallback, int64_t max,
                                const char *what, struct mode_error *err)
{
    json_t *v = json_object_get(o, key);
    if (json_is_array(v) && json_array_size(v) == 2 && json_equal(json_array_get(v, 0), json_array_get(v, 1)))
        v = json_array_get(v, 0);
    if (!v && fallback >= 0) {
        *out = fallback;
        return MODE_OK;
    }
    if (!v) return MODE_FAIL(err, MODE_E_FORMAT, "%s: \"%s\" is missing", what, key);
    if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > max)
        return MODE_FAIL(err, MODE_E_VALUE, "%s: \"%s\" must be a whole number from 1 to %lld%s", what, key,
                         (long long)max, json_is_array(v) ? "; only square pictures and patches are supported" : "");
    *out = json_integer_value(v);
    return MODE_OK;
}

static enum mode_status get_object(json_t **out, json_t *o, const char *key, const char *what, struct mode_error *err)
{
    *out = json_object_get(o, key);
    if (!json_is_object(*out)) return MODE_FAIL(err, MODE_E_FORMAT, "%s: \"%s\" must be an object", what, key);
    return MODE_OK;
}

static enum mode_status get_mlp(int64_t *mlp, json_t *o, int64_t width, const char *what, struct mode_error *err)
{
    json_t *v = json_object_get(o, "mlp_ratio");
    double ratio = v ? json_number_value(v) : 4.0;
    if (!(ratio > 0 && ratio <= 64)) return MODE_FAIL(err, MODE_E_VALUE, "%s: \"mlp_ratio\" must be in (0, 64]", what);
    *mlp = (int64_t)((double)width * ratio);
    if (*mlp < 1) return MODE_FAIL(err, MODE_E_VALUE, "%s: \"mlp_ratio\" leaves no hidden units", what);
    return MODE_OK;
}

/* Keys of both towers: layers, width, mlp_ratio, LayerScale, the kind of GELU, LayerNorm's epsilon. */
static enum mode_status get_tower(struct mode_clip_tower_config *t, json_t *o, int64_t layers, int64_t width,
                                  bool quick, const char *section, const char *what, struct mode_error *err)
{
    static const char *const act_keys[] = {"approximate", NULL}, *const norm_keys[] = {"eps", NULL},
                             *const nothing[] = {NULL}, *const gelus[] = {"none", "tanh", NULL};
    json_t *act = json_object_get(o, "act_kwargs"), *norm = json_object_get(o, "norm_kwargs"),
           *scale = json_object_get(o, "ls_init_value");
    int gelu = 0;
    double eps = 1e-5;
    enum mode_status st;
    if ((act && !json_is_null(act) && !json_is_object(act)) || (quick && json_object_size(act) > 0))
        return refuse(section, "act_kwargs", act, what, err);
    if (norm && !json_is_null(norm) && !json_is_object(norm)) return refuse(section, "norm_kwargs", norm, what, err);
    if ((st = get_int(&t->layers, o, "layers", layers, 256, what, err)) != MODE_OK ||
        (st = get_int(&t->width, o, "width", width, 16384, what, err)) != MODE_OK ||
        (st = get_mlp(&t->mlp, o, t->width, what, err)) != MODE_OK ||
        (st = get_real(&t->layer_scale_init, o, "ls_init_value", 0, -1e6, 1e6, what, err)) != MODE_OK ||
        (st = known_keys(act, act_keys, nothing, what, "act_kwargs", err)) != MODE_OK ||
        (st = get_choice(&gelu, act, "approximate", gelus, "act_kwargs", what, err)) != MODE_OK ||
        (st = known_keys(norm, norm_keys, nothing, what, "norm_kwargs", err)) != MODE_OK ||
        (st = get_real(&eps, norm, "eps", 1e-5, 1e-30, 1, what, err)) != MODE_OK)
        return st;
    t->layer_scale = json_is_number(scale);
    t->act = quick ? MODE_ACT_QUICK_GELU : gelu == 1 ? MODE_ACT_GELU_TANH : MODE_ACT_GELU;
    t->ln_eps = (float)eps;
    return MODE_OK;
}

static enum mode_status get_image(struct mode_clip_config *c, json_t *o, const char *what, struct mode_error *err)
{
    static const char *const keys[] = {"image_size",
                                       "patch_size",
                                       "layers",
                                       "width",
                                       "head_width",
                                       "mlp_ratio",
                                       "ls_init_value",
                                       "no_ln_pre",
                                       "pos_embed_type",
                                       "pool_type",
                                       "final_ln_after_pool",
                                       "patch_dropout",
                                       "act_kwargs",
                                       "norm_kwargs",
                                       "attn_pooler_queries",
                                       "attn_pooler_heads",
                                       "timm_model_pretrained",
                                       "timm_pool",
                                       "timm_proj",
                                       "timm_proj_bias",
                                       "timm_drop",
                                       "timm_drop_path",
                                       NULL};
    static const char *const off[] = {"attentional_pool",
                                      "output_tokens",
                                      "block_type",
                                      "qk_norm",
                                      "scaled_cosine_attn",
                                      "scale_heads",
                                      "scale_attn_inner",
                                      "scale_attn",
                                      "scale_fc",
                                      "timm_model_name",
                                      NULL};
    static const char *const pools[] = {"tok", "avg", NULL}, *const positions[] = {"learnable", "sin_cos_2d", NULL};
    int64_t head_width;
    int pool, position;
    bool no_ln_pre;
    enum mode_status st;
    if (json_is_array(json_object_get(o, "layers")))
        return refuse("vision_cfg", "layers", json_object_get(o, "layers"), what, err);
    if ((st = known_keys(o, keys, off, what, "vision_cfg", err)) != MODE_OK ||
        (st = get_tower(&c->image, o, 12, 768, c->quick_gelu, "vision_cfg", what, err)) != MODE_OK ||
        (st = get_int(&c->image_size, o, "image_size", 224, 4096, what, err)) != MODE_OK ||
        (st = get_int(&c->patch_size, o, "patch_size", 16, 4096, what, err)) != MODE_OK ||
        (st = get_int(&head_width, o, "head_width", 64, 16384, what, err)) != MODE_OK ||
        (st = get_real(&c->patch_dropout, o, "patch_dropout", 0, 0, 1, what, err)) != MODE_OK ||
        (st = get_bool(&no_ln_pre, o, "no_ln_pre", what, err)) != MODE_OK ||
        (st = get_bool(&c->image_ln_after_pool, o, "final_ln_after_pool", what, err)) != MODE_OK ||
        (st = get_choice(&pool, o, "pool_type", pools, "vision_cfg", what, err)) != MODE_OK ||
        (st = get_choice(&position, o, "pos_embed_type", positions, "vision_cfg", what, err)) != MODE_OK)
        return st;
    if (c->patch_dropout == 1)
        return MODE_FAIL(err, MODE_E_VALUE, "%s: \"patch_dropout\" is 1, which keeps no patch; it must be below 1",
                         what);
    c->image_ln_pre = !no_ln_pre;
    c->image_mean_pool = pool == 1;
    c->image_sincos = position == 1;
    c->image.heads = c->image.width / head_width;
    if (c->image.heads < 1 || c->image.width % c->image.heads != 0)
        return MODE_FAIL(err, MODE_E_VALUE, "%s: vision width %lld is not a multiple of the head width %lld", what,
                         (long long)c->image.width, (long long)head_width);
    if (c->image_size % c->patch_size != 0)
        return MODE_FAIL(err, MODE_E_VALUE, "%s: image_size %lld is not a multiple of patch_size %lld", what,
                         (long long)c->image_size, (long long)c->patch_size);
    if (c->image_sincos && c->image.width % 4 != 0)
        return MODE_FAIL(err, MODE_E_VALUE, "%s: sin_cos_2d positions need a width that is a multiple of 4, not %lld",
                         what, (long long)c->image.width);
    return MODE_OK;
}

static enum mode_status get_text(struct mode_clip_config *c, json_t *o, const char *what, struct mode_error *err)
{
    static const char *const keys[] = {"context_length",
                                       "vocab_size",
                                       "width",
                                       "heads",
                                       "layers",
                                       "mlp_ratio",
                                       "ls_init_value",
                                       "no_causal_mask",
                                       "pool_type",
                                       "proj_bias",
                                       "proj_type",
                                       "pad_id",
                                       "eos_id",
                                       "act_kwargs",
                                       "norm_kwargs",
                                       "final_ln_after_pool",
                                       "hf_model_pretrained",
                                       "hf_proj_type",
                                       "hf_pooler_type",
                                       NULL};
    static const char *const off[] = {
        "embed_cls",         "output_tokens",    "block_type",       "qk_norm",  "scaled_cosine_attn",
        "scale_heads",       "scale_attn_inner", "scale_attn",       "scale_fc", "hf_model_name",
        "hf_tokenizer_name", "tokenizer_mode",   "tokenizer_kwargs", NULL};
    static const char *const pools[] = {"argmax", "eos", "first", "last", NULL}; /* enum mode_clip_text_pool */
    static const char *const projections[] = {"linear", "none", NULL};
    int pool = 0, projection = 0;
    bool no_causal = false, bias = false;
    json_t *eos = json_object_get(o, "eos_id");
    enum mode_status st;
    if ((st = known_keys(o, keys, off, what, "text_cfg", err)) != MODE_OK ||
        (st = get_tower(&c->text, o, 12, 512, c->quick_gelu, "text_cfg", what, err)) != MODE_OK ||
        (st = get_int(&c->context_length, o, "context_length", 77, 8192, what, err)) != MODE_OK ||
        (st = get_int(&c->vocab_size, o, "vocab_size", 49408, 4000000, what, err)) != MODE_OK ||
        (st = get_int(&c->text.heads, o, "heads", 8, 16384, what, err)) != MODE_OK ||
        (st = get_bool(&no_causal, o, "no_causal_mask", what, err)) != MODE_OK ||
        (st = get_bool(&bias, o, "proj_bias", what, err)) != MODE_OK ||
        (st = get_choice(&pool, o, "pool_type", pools, "text_cfg", what, err)) != MODE_OK ||
        (st = get_choice(&projection, o, "proj_type", projections, "text_cfg", what, err)) != MODE_OK)
        return st;
    if (eos && !json_is_integer(eos)) return refuse("text_cfg", "eos_id", eos, what, err);
    c->text_eos_id = eos ? json_integer_value(eos) : 2;
    c->text_causal = !no_causal;
    c->text_pool = (enum mode_clip_text_pool)pool;
    c->text_proj = projection == 1 ? MODE_CLIP_PROJ_NONE : bias ? MODE_CLIP_PROJ_LINEAR : MODE_CLIP_PROJ_MATRIX;
    if (c->text.width % c->text.heads != 0)
        return MODE_FAIL(err, MODE_E_VALUE, "%s: text width %lld is not a multiple of heads %lld", what,
                         (long long)c->text.width, (long long)c->text.heads);
    if (c->text_proj == MODE_CLIP_PROJ_NONE && c->text.width != c->embed_dim)
        return MODE_FAIL(err, MODE_E_VALUE, "%s: without a projection the text width %lld must be embed_dim %lld", what,
                         (long long)c->text.width, (long long)c->embed_dim);
    return MODE_OK;
}

enum mode_status mode_clip_config_parse(struct mode_clip_config *c, const char *json, const char *what,
                                        struct mode_error *err)
{
    static const char *const keys[] = {"embed_dim",   "quick_gelu",       "vision_cfg",
                                       "text_cfg",    "init_logit_scale", "nonscalar_logit_scale",
                                       "custom_text", "output_dict",      NULL};
    static const char *const off[] = {"init_logit_bias", "multimodal_cfg", NULL};
    json_t *root = NULL, *v, *t;
    enum mode_status st = parse_object(&root, json, what, err);
    if (st) return st;
    *c = (struct mode_clip_config){0};
    if ((st = known_keys(root, keys, off, what, "model_cfg", err)) == MODE_OK &&
        (st = get_object(&v, root, "vision_cfg", what, err)) == MODE_OK &&
        (st = get_object(&t, root, "text_cfg", what, err)) == MODE_OK &&
        (st = get_int(&c->embed_dim, root, "embed_dim", -1, 16384, what, err)) == MODE_OK &&
        (st = get_bool(&c->quick_gelu, root, "quick_gelu", what, err)) == MODE_OK &&
        (st = get_bool(&c->custom_text, root, "custom_text", what, err)) == MODE_OK &&
        (st = get_bool(&c->logit_scale_vector, root, "nonscalar_logit_scale", what, err)) == MODE_OK &&
        (st = get_real(&c->init_logit_scale, root, "init_logit_scale", LOGIT_SCALE_INIT, -50, 50, what, err)) ==
            MODE_OK &&
        (st = get_image(c, v, what, err)) == MODE_OK)
        st = get_text(c, t, what, err);
    json_decref(root);
    return st;
}

/* Three numbers, or one for all. */
static enum mode_status get_triple(float out[3], json_t *o, const char *key, bool positive, const char *what,
                                   struct mode_error *err)
{
    json_t *v = json_object_get(o, key);
    if (!v) return MODE_OK;
    for (size_t i = 0; i < 3; i++) {
        json_t *x = json_is_array(v) && json_array_size(v) == 3 ? json_array_get(v, i) : v;
        double d = json_number_value(x);
        if (!json_is_number(x) || !isfinite(d) || (positive && d <= 0))
            return MODE_FAIL(err, MODE_E_VALUE, "%s: preprocess \"%s\" must be three %snumbers", what, key,
                             positive ? "positive " : "");
        out[i] = (float)d;
    }
    return MODE_OK;
}

static enum mode_status parse_preprocess(struct mode_preprocess *p, json_t *root, int64_t size, const char *what,
                                         struct mode_error *err)
{
    static const char *const keys[] = {"size",          "mode",        "mean",       "std",
                                       "interpolation", "resize_mode", "fill_color", NULL};
    static const char *const nothing[] = {NULL};
    static const char *const resizes[] = {"shortest", "longest", "squash", NULL}; /* enum mode_resize */
    /* Of evaluation. open_clip's training crops are bicubic regardless, and "random" means bicubic in evaluation. */
    static const char *const filters[] = {"bicubic", "bilinear", "random", NULL}; /* enum mode_filter */
    const char *key;
    void *next;
    json_t *value;
    enum mode_status st;
    json_object_foreach_safe(root, next, key, value) if (json_is_null(value)) json_object_del(root, key);
    if ((st = known_keys(root, keys, nothing, what, "preprocess_cfg", err)) != MODE_OK ||
        (st = get_triple(p->mean, root, "mean", false, what, err)) != MODE_OK ||
        (st = get_triple(p->std, root, "std", true, what, err)) != MODE_OK ||
        (st = get_choice(&p->resize_mode, root, "resize_mode", resizes, "preprocess_cfg", what, err)) != MODE_OK ||
        (st = get_choice(&p->filter, root, "interpolation", filters, "preprocess_cfg", what, err)) != MODE_OK)
        return st;
    if (p->filter == 2) p->filter = MODE_FILTER_BICUBIC;
    json_t *sizes = json_object_get(root, "size");
    const size_t n = json_is_array(sizes) ? json_array_size(sizes) : 1;
    for (size_t i = 0; sizes && i < n; i++) {
        json_t *s = json_is_array(sizes) ? json_array_get(sizes, i) : sizes;
        if (n > 2 || !json_is_integer(s) || json_integer_value(s) != size)
            return MODE_FAIL(err, MODE_E_VALUE,
                             "%s: preprocess \"size\" differs from the model's image_size %lld (pictures that are not "
                             "square are not read)",
                             what, (long long)size);
    }
    json_t *colours = json_object_get(root, "mode"), *fill = json_object_get(root, "fill_color");
    if (colours && (!json_is_string(colours) || strcmp(json_string_value(colours), "RGB") != 0))
        return MODE_FAIL(err, MODE_E_VALUE, "%s: preprocess \"mode\" must be \"RGB\"", what);
    if (fill && (!json_is_integer(fill) || json_integer_value(fill) < 0 || json_integer_value(fill) > 255))
        return MODE_FAIL(err, MODE_E_VALUE, "%s: preprocess \"fill_color\" must be a whole number, 0 to 255", what);
    p->fill = (uint8_t)json_integer_value(fill);
    return MODE_OK;
}

enum mode_status mode_clip_preprocess_parse(struct mode_preprocess *p, const char *json, int64_t size, const char *what,
                                            struct mode_error *err)
{
    json_t *root = NULL;
    mode_preprocess_default(p, (int)size);
    if (!json) return MODE_OK;
    enum mode_status st = parse_object(&root, json, what, err);
    if (st) return st;
    st = parse_preprocess(p, root, size, what, err);
    json_decref(root);
    return st;
}

enum mode_status mode_clip_config_split(char **model_cfg, char **preprocess_cfg, const char *json, const char *what,
                                        struct mode_error *err)
{
    static const char *const keys[] = {"model_cfg", "preprocess_cfg", NULL}, *const nothing[] = {NULL};
    json_t *root = NULL, *model, *pre = NULL;
    *model_cfg = *preprocess_cfg = NULL;
    enum mode_status st = parse_object(&root, json, what, err);
    if (st) return st;
    if (!json_object_get(root, "model_cfg") && json_object_get(root, "vision_cfg")) { /* open_clip's bare form */
        *model_cfg = json_dumps(root, JSON_COMPACT);
        MODE_ASSERT(*model_cfg);
        json_decref(root);
        return MODE_OK;
    }
    if ((st = known_keys(root, keys, nothing, what, "file", err)) == MODE_OK &&
        (st = get_object(&model, root, "model_cfg", what, err)) == MODE_OK &&
        (!json_object_get(root, "preprocess_cfg") ||
         (st = get_object(&pre, root, "preprocess_cfg", what, err)) == MODE_OK)) {
        char *a = json_dumps(model, JSON_COMPACT), *b = pre ? json_dumps(pre, JSON_COMPACT) : NULL;
        MODE_ASSERT(a && (b || !pre));
        *model_cfg = a;
        *preprocess_cfg = b;
    }
    json_decref(root);
    return st;
}
