#include "models/clip_config.h"

#include "base/str.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

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

/* Every key of o must be in the NULL-terminated list. */
static enum mode_status known_keys(json_t *o, const char *const *known, const char *what, const char *section,
                                   struct mode_error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach(o, key, value)
    {
        bool found = false;
        for (const char *const *k = known; *k; k++) found = found || strcmp(*k, key) == 0;
        if (!found)
            return MODE_FAIL(err, MODE_E_FORMAT,
                             "%s: %s.%s is not supported; only plain ViT + causal text CLIP models are", what, section,
                             key);
    }
    return MODE_OK;
}

/* Integer key in [1, max]; fallback < 0: it must be there. */
static enum mode_status get_int(int64_t *out, json_t *o, const char *key, int64_t fallback, int64_t max,
                                const char *what, struct mode_error *err)
{
    json_t *v = json_object_get(o, key);
    if (!v && fallback >= 0) {
        *out = fallback;
        return MODE_OK;
    }
    if (!v) return MODE_FAIL(err, MODE_E_FORMAT, "%s: \"%s\" is missing", what, key);
    if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > max)
        return MODE_FAIL(err, MODE_E_VALUE, "%s: \"%s\" must be a whole number from 1 to %lld", what, key,
                         (long long)max);
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

enum mode_status mode_clip_config_parse(struct mode_clip_config *c, const char *json, const char *what,
                                        struct mode_error *err)
{
    static const char *const keys[] = {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg", NULL};
    static const char *const vision_keys[] = {"image_size", "layers",    "width", "patch_size",
                                              "head_width", "mlp_ratio", NULL};
    static const char *const text_keys[] = {"context_length", "vocab_size", "width", "heads",
                                            "layers",         "mlp_ratio",  NULL};
    json_t *root = NULL, *v, *t, *quick;
    int64_t head_width;
    enum mode_status st = parse_object(&root, json, what, err);
    if (st) return st;
    *c = (struct mode_clip_config){0};
    if ((st = known_keys(root, keys, what, "model_cfg", err)) != MODE_OK ||
        (st = get_object(&v, root, "vision_cfg", what, err)) != MODE_OK ||
        (st = get_object(&t, root, "text_cfg", what, err)) != MODE_OK ||
        (st = known_keys(v, vision_keys, what, "vision_cfg", err)) != MODE_OK ||
        (st = known_keys(t, text_keys, what, "text_cfg", err)) != MODE_OK ||
        (st = get_int(&c->embed_dim, root, "embed_dim", -1, 16384, what, err)) != MODE_OK ||
        (st = get_int(&c->image_size, v, "image_size", -1, 4096, what, err)) != MODE_OK ||
        (st = get_int(&c->patch_size, v, "patch_size", -1, 4096, what, err)) != MODE_OK ||
        (st = get_int(&c->image.layers, v, "layers", -1, 256, what, err)) != MODE_OK ||
        (st = get_int(&c->image.width, v, "width", -1, 16384, what, err)) != MODE_OK ||
        (st = get_int(&head_width, v, "head_width", 64, 16384, what, err)) != MODE_OK ||
        (st = get_mlp(&c->image.mlp, v, c->image.width, what, err)) != MODE_OK ||
        (st = get_int(&c->context_length, t, "context_length", 77, 8192, what, err)) != MODE_OK ||
        (st = get_int(&c->vocab_size, t, "vocab_size", 49408, 4000000, what, err)) != MODE_OK ||
        (st = get_int(&c->text.layers, t, "layers", 12, 256, what, err)) != MODE_OK ||
        (st = get_int(&c->text.width, t, "width", 512, 16384, what, err)) != MODE_OK ||
        (st = get_int(&c->text.heads, t, "heads", 8, 16384, what, err)) != MODE_OK ||
        (st = get_mlp(&c->text.mlp, t, c->text.width, what, err)) != MODE_OK)
        goto out;
    quick = json_object_get(root, "quick_gelu");
    if (quick && !json_is_boolean(quick)) {
        st = MODE_FAIL(err, MODE_E_VALUE, "%s: \"quick_gelu\" must be true or false", what);
        goto out;
    }
    c->quick_gelu = json_is_true(quick);
    c->image.heads = c->image.width / head_width;
    if (c->image.width % head_width != 0)
        st = MODE_FAIL(err, MODE_E_VALUE, "%s: vision width %lld is not a multiple of head_width %lld", what,
                       (long long)c->image.width, (long long)head_width);
    else if (c->text.width % c->text.heads != 0)
        st = MODE_FAIL(err, MODE_E_VALUE, "%s: text width %lld is not a multiple of heads %lld", what,
                       (long long)c->text.width, (long long)c->text.heads);
    else if (c->image_size % c->patch_size != 0)
        st = MODE_FAIL(err, MODE_E_VALUE, "%s: image_size %lld is not a multiple of patch_size %lld", what,
                       (long long)c->image_size, (long long)c->patch_size);
out:
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

enum mode_status mode_clip_preprocess_parse(struct mode_preprocess *p, const char *json, int64_t size, const char *what,
                                            struct mode_error *err)
{
    static const char *const keys[] = {"size",          "mode",        "mean",       "std",
                                       "interpolation", "resize_mode", "fill_color", NULL};
    static const char *const resizes[] = {"shortest", "longest", "squash"}; /* enum mode_resize */
    mode_preprocess_default(p, (int)size);
    if (!json) return MODE_OK;
    json_t *root = NULL;
    enum mode_status st = parse_object(&root, json, what, err);
    if (st) return st;
    if ((st = known_keys(root, keys, what, "preprocess_cfg", err)) != MODE_OK ||
        (st = get_triple(p->mean, root, "mean", false, what, err)) != MODE_OK ||
        (st = get_triple(p->std, root, "std", true, what, err)) != MODE_OK)
        goto out;
    json_t *sizes = json_object_get(root, "size");
    for (size_t i = 0; sizes && i < 2; i++) {
        json_t *s = json_is_array(sizes) && json_array_size(sizes) == 2 ? json_array_get(sizes, i) : sizes;
        if (json_integer_value(s) != size) {
            st = MODE_FAIL(err, MODE_E_VALUE, "%s: preprocess \"size\" differs from the model's image_size %lld", what,
                           (long long)size);
            goto out;
        }
    }
    json_t *mode = json_object_get(root, "mode"), *inter = json_object_get(root, "interpolation");
    if (mode && (!json_is_string(mode) || strcmp(json_string_value(mode), "RGB") != 0)) {
        st = MODE_FAIL(err, MODE_E_VALUE, "%s: preprocess \"mode\" must be \"RGB\"", what);
        goto out;
    }
    if (inter && (!json_is_string(inter) || strcmp(json_string_value(inter), "bicubic") != 0)) {
        st = MODE_FAIL(err, MODE_E_VALUE, "%s: preprocess \"interpolation\" must be \"bicubic\"", what);
        goto out;
    }
    json_t *fill = json_object_get(root, "fill_color");
    if (fill && !(json_is_integer(fill) && json_integer_value(fill) == 0)) {
        st = MODE_FAIL(err, MODE_E_VALUE, "%s: preprocess \"fill_color\" must be 0", what);
        goto out;
    }
    json_t *resize = json_object_get(root, "resize_mode");
    if (resize) {
        int found = -1;
        for (int i = 0; i < 3; i++)
            if (json_is_string(resize) && strcmp(json_string_value(resize), resizes[i]) == 0) found = i;
        if (found < 0) {
            st = MODE_FAIL(err, MODE_E_VALUE, "%s: preprocess \"resize_mode\" must be shortest, longest or squash",
                           what);
            goto out;
        }
        p->resize_mode = found;
    }
out:
    json_decref(root);
    return st;
}

enum mode_status mode_clip_config_split(char **model_cfg, char **preprocess_cfg, const char *json, const char *what,
                                        struct mode_error *err)
{
    static const char *const keys[] = {"model_cfg", "preprocess_cfg", NULL};
    json_t *root = NULL, *model;
    *model_cfg = *preprocess_cfg = NULL;
    enum mode_status st = parse_object(&root, json, what, err);
    if (st) return st;
    if ((st = known_keys(root, keys, what, "file", err)) == MODE_OK &&
        (st = get_object(&model, root, "model_cfg", what, err)) == MODE_OK) {
        json_t *pre = json_object_get(root, "preprocess_cfg");
        char *a = json_dumps(model, JSON_COMPACT), *b = pre ? json_dumps(pre, JSON_COMPACT) : NULL;
        MODE_ASSERT(a && (b || !pre));
        *model_cfg = a;
        *preprocess_cfg = b;
    }
    json_decref(root);
    return st;
}
