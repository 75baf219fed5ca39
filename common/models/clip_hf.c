#include "models/clip_hf.h"

#include "base/str.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CLIP_VOCABULARY = 49408, CLIP_START = 49406, CLIP_END = 49407 };

static enum mode_status load(json_t **root, const char *json, const char *what, struct mode_error *err)
{
    json_error_t why;
    *root = json_loads(json, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(*root)) {
        json_decref(*root);
        *root = NULL;
        return MODE_FAIL(err, MODE_E_FORMAT, "%s is not a JSON object: line %d: %s", what, why.line, why.text);
    }
    return MODE_OK;
}

static char *dump(json_t *root, size_t flags)
{
    MODE_ASSERT(root);
    char *text = json_dumps(root, flags);
    MODE_ASSERT(text);
    json_decref(root);
    return text;
}

/* The shortest decimal that round-trips to this f32, so that 1e-5f is written as 1e-05. */
static json_t *real(float x)
{
    char text[32];
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)x);
        if (strtof(text, NULL) == x) break;
    }
    return json_real(strtod(text, NULL));
}

bool mode__clip_hf_is(const char *json)
{
    json_t *root = json_loads(json, JSON_REJECT_DUPLICATES, NULL);
    const char *type = json_string_value(json_object_get(root, "model_type"));
    bool is = type && strcmp(type, "clip") == 0;
    json_decref(root);
    return is;
}

/* ---- config.json -------------------------------------------------------------------------------------------- */

/* The section, updated by "<section>_dict" as transformers does. */
static enum mode_status get_section(json_t **section, json_t *root, const char *name, const char *what,
                                    struct mode_error *err)
{
    char *dict = mode_xasprintf("%s_dict", name);
    json_t *plain = json_object_get(root, name), *over = json_object_get(root, dict);
    free(dict);
    if ((plain && !json_is_object(plain) && !json_is_null(plain)) ||
        (over && !json_is_object(over) && !json_is_null(over)))
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: %s must be an object", what, name);
    *section = json_is_object(plain) ? json_copy(plain) : json_object();
    if (json_is_object(over)) json_object_update(*section, over);
    return MODE_OK;
}

static enum mode_status get_count(int64_t *out, json_t *o, const char *key, int64_t fallback, const char *what,
                                  struct mode_error *err)
{
    json_t *v = json_object_get(o, key);
    *out = fallback;
    if (!v) return MODE_OK;
    if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > 4000000)
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: %s must be a whole number from 1 to 4000000", what, key);
    *out = json_integer_value(v);
    return MODE_OK;
}

struct tower {
    int64_t width, inner, layers, heads;
    const char *act;
    double eps;
};

static enum mode_status get_tower(struct tower *t, json_t *o, const struct tower *usual, const char *what,
                                  struct mode_error *err)
{
    enum mode_status st;
    if ((st = get_count(&t->width, o, "hidden_size", usual->width, what, err)) ||
        (st = get_count(&t->inner, o, "intermediate_size", usual->inner, what, err)) ||
        (st = get_count(&t->layers, o, "num_hidden_layers", usual->layers, what, err)) ||
        (st = get_count(&t->heads, o, "num_attention_heads", usual->heads, what, err)))
        return st;
    json_t *act = json_object_get(o, "hidden_act"), *eps = json_object_get(o, "layer_norm_eps");
    t->act = act ? json_string_value(act) : "quick_gelu";
    t->eps = eps ? json_number_value(eps) : 1e-5;
    if (!t->act || (strcmp(t->act, "quick_gelu") != 0 && strcmp(t->act, "gelu") != 0 &&
                    strcmp(t->act, "gelu_new") != 0 && strcmp(t->act, "gelu_pytorch_tanh") != 0))
        return MODE_FAIL(err, MODE_E_FORMAT,
                         "%s: hidden_act is \"%s\"; quick_gelu, gelu, gelu_new and gelu_pytorch_tanh are supported",
                         what, t->act ? t->act : "(no text)");
    if (!(t->eps > 0 && t->eps < 1))
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: layer_norm_eps must lie in (0, 1)", what);
    if (t->width % t->heads != 0)
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: hidden_size %" PRId64 " is not a multiple of %" PRId64 " heads", what,
                         t->width, t->heads);
    return MODE_OK;
}

/* open_clip has mlp_ratio, not a width, and truncates: choose a ratio that gives exactly t->inner. */
static void put_tower(json_t *o, const struct tower *t)
{
    double ratio = (double)t->inner / (double)t->width;
    while ((int64_t)((double)t->width * ratio) < t->inner) ratio = nextafter(ratio, INFINITY);
    json_object_set_new(o, "width", json_integer(t->width));
    json_object_set_new(o, "layers", json_integer(t->layers));
    if (t->inner != 4 * t->width) json_object_set_new(o, "mlp_ratio", json_real(ratio));
    if (strcmp(t->act, "gelu_new") == 0 || strcmp(t->act, "gelu_pytorch_tanh") == 0)
        json_object_set_new(o, "act_kwargs", json_pack("{s:s}", "approximate", "tanh"));
    if (t->eps != 1e-5) json_object_set_new(o, "norm_kwargs", json_pack("{s:f}", "eps", t->eps));
}

/* Which token a text is pooled at. Before 2023 every CLIP config had eos_token_id 2 and the model took the highest id,
 * so 2 still means argmax; the vocabulary's last id gives the same token. */
static enum mode_status put_pool(json_t *text, json_t *section, int64_t vocabulary, const char *what,
                                 struct mode_error *err)
{
    json_t *end = json_object_get(section, "eos_token_id");
    json_int_t id = end ? json_integer_value(end) : CLIP_END;
    if ((end && !json_is_integer(end)) || id < 0 || id >= vocabulary)
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: eos_token_id must be one id of the vocabulary", what);
    if (id == 2 || id == vocabulary - 1) return MODE_OK;
    json_object_set_new(text, "pool_type", json_string("eos"));
    json_object_set_new(text, "eos_id", json_integer(id));
    return MODE_OK;
}

static enum mode_status translate(char **model_cfg, json_t *root, json_t *t, json_t *v, const char *what,
                                  struct mode_error *err)
{
    static const struct tower usual_text = {512, 2048, 12, 8, NULL, 0}, usual_image = {768, 3072, 12, 12, NULL, 0};
    struct tower text, image;
    int64_t embed, vocabulary, context, size, patch, channels;
    enum mode_status st;
    if (json_object_get(root, "quantization_config"))
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: quantization_config: quantized weights are not supported", what);
    if ((st = get_count(&embed, root, "projection_dim", 512, what, err)) ||
        (st = get_tower(&text, t, &usual_text, what, err)) || (st = get_tower(&image, v, &usual_image, what, err)) ||
        (st = get_count(&vocabulary, t, "vocab_size", CLIP_VOCABULARY, what, err)) ||
        (st = get_count(&context, t, "max_position_embeddings", 77, what, err)) ||
        (st = get_count(&size, v, "image_size", 224, what, err)) ||
        (st = get_count(&patch, v, "patch_size", 32, what, err)) ||
        (st = get_count(&channels, v, "num_channels", 3, what, err)))
        return st;
    if (channels != 3) return MODE_FAIL(err, MODE_E_FORMAT, "%s: num_channels must be 3", what);
    bool quick = strcmp(text.act, "quick_gelu") == 0;
    if (quick != (strcmp(image.act, "quick_gelu") == 0))
        return MODE_FAIL(err, MODE_E_FORMAT,
                         "%s: hidden_act is %s for texts and %s for images; quick_gelu is for both or none", what,
                         text.act, image.act);
    json_t *image_cfg = json_pack("{s:I, s:I}", "image_size", (json_int_t)size, "patch_size", (json_int_t)patch);
    json_t *text_cfg = json_pack("{s:I, s:I, s:I}", "context_length", (json_int_t)context, "vocab_size",
                                 (json_int_t)vocabulary, "heads", (json_int_t)text.heads);
    json_t *model = json_pack("{s:I, s:o, s:o}", "embed_dim", (json_int_t)embed, "vision_cfg", image_cfg, "text_cfg",
                              text_cfg);
    put_tower(image_cfg, &image);
    if (image.width / image.heads != 64)
        json_object_set_new(image_cfg, "head_width", json_integer(image.width / image.heads));
    put_tower(text_cfg, &text);
    if (quick) json_object_set_new(model, "quick_gelu", json_true());
    st = put_pool(text_cfg, t, vocabulary, what, err);
    if (st)
        json_decref(model);
    else
        *model_cfg = dump(model, JSON_COMPACT);
    return st;
}

enum mode_status mode__clip_hf_config_read(char **model_cfg, const char *json, const char *what, struct mode_error *err)
{
    json_t *root = NULL, *text = NULL, *image = NULL;
    *model_cfg = NULL;
    enum mode_status st = load(&root, json, what, err);
    if (!st) st = get_section(&text, root, "text_config", what, err);
    if (!st) st = get_section(&image, root, "vision_config", what, err);
    if (!st) st = translate(model_cfg, root, text, image, what, err);
    json_decref(text);
    json_decref(image);
    json_decref(root);
    return st;
}

static json_t *tower_json(const struct mode_clip_tower_config *t, const char *type, int64_t embed)
{
    const char *act = t->act == MODE_ACT_QUICK_GELU  ? "quick_gelu"
                      : t->act == MODE_ACT_GELU_TANH ? "gelu_pytorch_tanh"
                                                     : "gelu";
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:s, s:o, s:I, s:f}", "model_type", type, "hidden_size",
                     (json_int_t)t->width, "intermediate_size", (json_int_t)t->mlp, "num_hidden_layers",
                     (json_int_t)t->layers, "num_attention_heads", (json_int_t)t->heads, "hidden_act", act,
                     "layer_norm_eps", real(t->ln_eps), "projection_dim", (json_int_t)embed, "attention_dropout", 0.0);
}

enum mode_status mode__clip_hf_config_write(char **json, const struct mode_clip_config *c, const char *what,
                                            struct mode_error *err)
{
    const char *cannot = c->image.layer_scale || c->text.layer_scale    ? "layer scale (ls_init_value)"
                         : !c->image_ln_pre                             ? "no_ln_pre"
                         : c->image_mean_pool || c->image_ln_after_pool ? "an image tower pooled by the mean"
                         : !c->text_causal                              ? "no_causal_mask"
                         : c->text_proj != MODE_CLIP_PROJ_MATRIX        ? "a text projection with a bias, or none"
                         : c->text_pool != MODE_CLIP_POOL_ARGMAX && c->text_pool != MODE_CLIP_POOL_EOS
                             ? "a text tower pooled by its first or last token"
                             : NULL;
    if (cannot)
        return MODE_FAIL(err, MODE_E_VALUE, "%s: has %s, which Hugging Face's CLIPModel cannot express", what, cannot);
    /* 2: the highest id, whatever it is; see put_pool */
    json_int_t end = c->text_pool == MODE_CLIP_POOL_EOS ? c->text_eos_id
                     : c->vocab_size == CLIP_VOCABULARY ? CLIP_END
                                                        : 2;
    if (c->text_pool == MODE_CLIP_POOL_EOS && (end == 2 || end < 0 || end >= c->vocab_size))
        return MODE_FAIL(err, MODE_E_VALUE, "%s: eos_id %lld means something else to Hugging Face's CLIPModel", what,
                         (long long)end);
    json_t *text = tower_json(&c->text, "clip_text_model", c->embed_dim),
           *image = tower_json(&c->image, "clip_vision_model", c->embed_dim);
    json_object_set_new(text, "vocab_size", json_integer(c->vocab_size));
    json_object_set_new(text, "max_position_embeddings", json_integer(c->context_length));
    json_object_set_new(text, "bos_token_id", json_integer(c->vocab_size >= CLIP_VOCABULARY ? CLIP_START : 0));
    json_object_set_new(text, "eos_token_id", json_integer(end));
    json_object_set_new(text, "pad_token_id", json_integer(1));
    json_object_set_new(image, "image_size", json_integer(c->image_size));
    json_object_set_new(image, "patch_size", json_integer(c->patch_size));
    json_object_set_new(image, "num_channels", json_integer(3));
    *json = dump(json_pack("{s:[s], s:s, s:f, s:I, s:o, s:o}", "architectures", "CLIPModel", "model_type", "clip",
                           "logit_scale_init_value", c->init_logit_scale, "projection_dim", (json_int_t)c->embed_dim,
                           "text_config", text, "vision_config", image),
                 JSON_INDENT(2));
    return MODE_OK;
}

/* ---- preprocessor_config.json ------------------------------------------------------------------------------- */

/* 224, {"shortest_edge": 224} or {"height": 224, "width": 224}; -1: none of them. */
static json_int_t get_side(json_t *v, bool *both)
{
    json_t *edge = json_object_get(v, "shortest_edge"), *height = json_object_get(v, "height");
    *both = false;
    if (json_is_integer(v)) return json_integer_value(v);
    if (json_is_integer(edge)) return json_integer_value(edge);
    *both = true;
    return json_is_integer(height) && json_equal(height, json_object_get(v, "width")) ? json_integer_value(height) : -1;
}

static bool is_off(json_t *root, const char *key)
{
    json_t *v = json_object_get(root, key);
    return v && !json_is_true(v) && !json_is_null(v);
}

enum mode_status mode__clip_hf_preprocess_read(char **preprocess_cfg, const char *json, const char *what,
                                               struct mode_error *err)
{
    static const char *const needed[] = {"do_resize", "do_rescale", "do_normalize"};
    json_t *root = NULL;
    *preprocess_cfg = NULL;
    enum mode_status st = load(&root, json, what, err);
    if (st) return st;
    json_t *size = json_object_get(root, "size"), *crop = json_object_get(root, "crop_size"),
           *resample = json_object_get(root, "resample"), *factor = json_object_get(root, "rescale_factor"),
           *mean = json_object_get(root, "image_mean"), *std = json_object_get(root, "image_std");
    bool square = false, ignored, cropped = !is_off(root, "do_center_crop");
    json_int_t side = size ? get_side(size, &square) : 224, crop_side = crop ? get_side(crop, &ignored) : side;
    for (size_t i = 0; !st && i < 3; i++)
        if (is_off(root, needed[i]))
            st = MODE_FAIL(err, MODE_E_FORMAT, "%s: %s is off, which is not supported", what, needed[i]);
    if (!st && (side < 1 || (cropped ? crop_side != side : !square)))
        st = MODE_FAIL(err, MODE_E_FORMAT,
                       "%s: size and crop_size must be the same side (or, without a crop, equal height and width)",
                       what);
    if (!st && resample &&
        (!json_is_integer(resample) || (json_integer_value(resample) != 3 && json_integer_value(resample) != 2)))
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: resample must be 3 (bicubic) or 2 (bilinear)", what);
    if (!st && factor && fabs(json_number_value(factor) * 255 - 1) > 1e-6)
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: rescale_factor must be 1/255", what);
    if (!st) {
        json_t *out = json_pack("{s:I, s:s, s:s}", "size", side, "interpolation",
                                resample && json_integer_value(resample) == 2 ? "bilinear" : "bicubic", "resize_mode",
                                square ? "squash" : "shortest");
        if (mean) json_object_set(out, "mean", mean);
        if (std) json_object_set(out, "std", std);
        *preprocess_cfg = dump(out, JSON_COMPACT);
    }
    json_decref(root);
    return st;
}

enum mode_status mode__clip_hf_preprocess_write(char **json, const struct mode_preprocess *p, const char *what,
                                                struct mode_error *err)
{
    bool squash = p->resize_mode == MODE_RESIZE_SQUASH;
    if (p->resize_mode == MODE_RESIZE_LONGEST)
        return MODE_FAIL(err, MODE_E_VALUE,
                         "%s: resize_mode \"longest\" is not supported by Hugging Face's CLIP processor", what);
    json_t *size = squash ? json_pack("{s:i, s:i}", "height", p->size, "width", p->size)
                          : json_pack("{s:i}", "shortest_edge", p->size);
    *json = dump(json_pack("{s:s, s:s, s:b, s:o, s:i, s:b, s:{s:i, s:i}, s:b, s:f, s:b, s:[o,o,o], s:[o,o,o], s:b}",
                           "image_processor_type", "CLIPImageProcessor", "processor_class", "CLIPProcessor",
                           "do_resize", 1, "size", size, "resample", p->filter == MODE_FILTER_BILINEAR ? 2 : 3,
                           "do_center_crop", (int)!squash, "crop_size", "height", p->size, "width", p->size,
                           "do_rescale", 1, "rescale_factor", 1.0 / 255, "do_normalize", 1, "image_mean",
                           real(p->mean[0]), real(p->mean[1]), real(p->mean[2]), "image_std", real(p->std[0]),
                           real(p->std[1]), real(p->std[2]), "do_convert_rgb", 1),
                 JSON_INDENT(2));
    return MODE_OK;
}
