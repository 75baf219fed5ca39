#include "pipeline/model_config.h"

#include "base/file.h"
#include "base/str.h"
#include "models/clip_config.h"
#include "models/clip_folder.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH 16

/* YAML's core schema: plain scalars may be numbers, booleans or null; quoted ones are strings. */
static json_t *json_scalar(const yaml_node_t *node)
{
    const char *text = (const char *)node->data.scalar.value;
    if (node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE) {
        char *end;
        if (strcmp(text, "true") == 0) return json_true();
        if (strcmp(text, "false") == 0) return json_false();
        if (!*text || strcmp(text, "null") == 0 || strcmp(text, "~") == 0) return json_null();
        long long n = strtoll(text, &end, 10);
        if (!*end) return json_integer(n);
        double x = strtod(text, &end);
        if (!*end && strspn(text, "0123456789+-.eE") == strlen(text)) return json_real(x);
    }
    return json_string(text);
}

static json_t *json_from_yaml(yaml_document_t *doc, yaml_node_t *node, int depth)
{
    if (depth > MAX_DEPTH) return NULL;
    if (node->type == YAML_SCALAR_NODE) return json_scalar(node);
    if (node->type == YAML_SEQUENCE_NODE) {
        json_t *array = json_array();
        for (yaml_node_item_t *i = node->data.sequence.items.start; i < node->data.sequence.items.top; i++) {
            json_t *item = json_from_yaml(doc, yaml_document_get_node(doc, *i), depth + 1);
            if (!item || json_array_append_new(array, item) != 0) {
                json_decref(array);
                return NULL;
            }
        }
        return array;
    }
    json_t *object = json_object();
    for (yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top; p++) {
        yaml_node_t *key = yaml_document_get_node(doc, p->key);
        const char *name = key->type == YAML_SCALAR_NODE ? (const char *)key->data.scalar.value : NULL;
        json_t *value = name && !json_object_get(object, name)
                            ? json_from_yaml(doc, yaml_document_get_node(doc, p->value), depth + 1)
                            : NULL;
        if (!value || json_object_set_new(object, name, value) != 0) {
            json_decref(object);
            return NULL;
        }
    }
    return object;
}

static enum mode_status check_config(json_t *config, const char *what, struct mode_error *err)
{
    static const char *const known[] = {
        "embed_dim",   "vision_cfg", "text_cfg", "quick_gelu", "init_logit_scale", "nonscalar_logit_scale",
        "custom_text", NULL};
    const char *key;
    json_t *value;
    json_object_foreach(config, key, value)
    {
        size_t i = 0;
        while (known[i] && strcmp(known[i], key) != 0) i++;
        if (!known[i])
            return MODE_FAIL(err, MODE_E_CONFIG,
                             "%s: unknown key \"%s\"; a model has embed_dim, vision_cfg, text_cfg and "
                             "quick_gelu",
                             what, key);
    }
    if (!json_is_integer(json_object_get(config, "embed_dim")) ||
        !json_is_object(json_object_get(config, "vision_cfg")) || !json_is_object(json_object_get(config, "text_cfg")))
        return MODE_FAIL(err, MODE_E_CONFIG,
                         "%s: an open_clip config has embed_dim (a number), vision_cfg and text_cfg (objects)", what);
    return MODE_OK;
}

/* Finds invalid values before a run starts. */
static enum mode_status check_values(json_t *config, json_t *pre, const char *what, struct mode_error *err)
{
    struct mode_clip_config c;
    struct mode_preprocess p;
    struct mode_error why;
    char *model = json_dumps(config, JSON_COMPACT), *preprocess = json_dumps(pre, JSON_COMPACT);
    MODE_ASSERT(model && preprocess);
    enum mode_status st = mode_clip_config_parse(&c, model, "model_cfg", &why);
    if (!st) st = mode_clip_preprocess_parse(&p, preprocess, c.image_size, "preprocess_cfg", &why);
    free(model);
    free(preprocess);
    return st ? MODE_FAIL(err, MODE_E_CONFIG, "%s: %s", what, why.text) : MODE_OK;
}

static json_t *published_config(const char *name)
{
    char *text = mode_clip_config_by_name(name);
    json_t *config = text ? json_loads(text, 0, NULL) : NULL;
    MODE_ASSERT(config || !text);
    free(text);
    return config;
}

static json_t *default_preprocess(void)
{
    json_t *p = json_pack("{s:[f,f,f], s:[f,f,f], s:s, s:s}", "mean", 0.48145466, 0.4578275, 0.40821073, "std",
                          0.26862954, 0.26130258, 0.27577711, "interpolation", "bicubic", "resize_mode", "shortest");
    MODE_ASSERT(p);
    return p;
}

/* *given: the config of a model name, or of a file whose name ends in .json. *where: names the source in errors. */
static enum mode_status config_of_text(json_t **given, char **where, const char *text, const char *folder,
                                       struct mode_error *err)
{
    const size_t n = strlen(text);
    enum mode_status st;
    if (n > 5 && strcmp(text + n - 5, ".json") == 0) {
        char *path = text[0] == '/' || !folder ? mode_xstrdup(text) : mode_path_join(folder, text), *data = NULL;
        size_t size = 0;
        json_error_t why;
        if ((st = mode_file_read(path, 1u << 20, &data, &size, err)))
            st = mode_error_prefix(err, st, "%s", *where);
        else if (!(*given = json_loadb(data, size, JSON_REJECT_DUPLICATES, &why)))
            st = MODE_FAIL(err, MODE_E_CONFIG, "%s: %s:%d: not JSON: %s", *where, path, why.line, why.text);
        char *inside = mode_xasprintf("%s: %s", *where, path);
        free(*where);
        *where = inside;
        free(data);
        free(path);
        return st;
    }
    if ((*given = published_config(text))) return MODE_OK;
    struct mode_str names = {0}, meant = {0};
    size_t least = 3;
    for (size_t i = 0; mode_clip_config_name(i); i++) {
        const char *name = mode_clip_config_name(i);
        const size_t d = mode_str_distance(text, name);
        mode_str_printf(&names, "%s%s", i ? ", " : "", name);
        if (d >= least) continue;
        least = d;
        mode_str_reset(&meant);
        mode_str_printf(&meant, " (is %s meant?)", name);
    }
    st = MODE_FAIL(err, MODE_E_CONFIG,
                   "%s: \"%s\" is not known%s; known are %s, each also with -quickgelu; or give a path that "
                   "ends in .json%s",
                   *where, text, meant.len ? meant.data : "", names.data, folder ? ", or the config itself" : "");
    mode_str_clear(&names);
    mode_str_clear(&meant);
    return st;
}

/* given: ownership is taken; where: names it in errors. */
static enum mode_status take_config(char **model, char **preprocess, json_t *given, const char *where,
                                    struct mode_error *err)
{
    json_t *config = json_object_get(given, "model_cfg"), *pre = json_object_get(given, "preprocess_cfg"), *value;
    const char *key;
    enum mode_status st = MODE_OK;
    if (config) json_object_foreach(given, key, value)
        {
            if (!st && strcmp(key, "model_cfg") != 0 && strcmp(key, "preprocess_cfg") != 0)
                st = MODE_FAIL(err, MODE_E_CONFIG, "%s: unknown key \"%s\" beside model_cfg; expected preprocess_cfg",
                               where, key);
        }
    json_incref(config ? config : (config = given));
    pre = json_is_object(pre) ? json_incref(pre) : default_preprocess();
    if (!st) st = check_config(config, where, err);
    if (!st) st = check_values(config, pre, where, err);
    if (!st) {
        free(*model);
        free(*preprocess);
        *model = json_dumps(config, JSON_COMPACT | JSON_REAL_PRECISION(15));
        *preprocess = json_dumps(pre, JSON_COMPACT | JSON_REAL_PRECISION(15));
        MODE_ASSERT(*model && *preprocess);
    }
    json_decref(pre);
    json_decref(config);
    json_decref(given);
    return st;
}

enum mode_status mode_model_config_read(char **model, char **preprocess, yaml_document_t *doc, yaml_node_t *node,
                                        const char *folder, const char *what, struct mode_error *err)
{
    json_t *given = NULL;
    enum mode_status st = MODE_OK;
    char *where = mode_xasprintf("%s:%d: model", what, (int)node->start_mark.line + 1);
    if (node->type == YAML_SCALAR_NODE)
        st = config_of_text(&given, &where, (const char *)node->data.scalar.value, folder, err);
    else if (!(given = json_from_yaml(doc, node, 0)))
        st = MODE_FAIL(err, MODE_E_CONFIG, "%s: keys given twice, keys that are not strings or nested too deep", where);
    if (!st) st = take_config(model, preprocess, given, where, err);
    free(where);
    return st;
}

enum mode_status mode_model_config_found(char **model, char **preprocess, const char *dir, const char *what,
                                         struct mode_error *err)
{
    struct mode_clip_files f;
    enum mode_status st = mode_clip_files_find_config(&f, dir, err);
    if (st) {
        st = mode_error_prefix(err, st, "%s", what);
    } else {
        json_t *given = json_pack("{s:o*, s:o*}", "model_cfg", json_loads(f.model_cfg, 0, NULL), "preprocess_cfg",
                                  f.preprocess_cfg ? json_loads(f.preprocess_cfg, 0, NULL) : NULL);
        MODE_ASSERT(given);
        char *where = mode_xasprintf("%s: %s", what, f.config);
        st = take_config(model, preprocess, given, where, err);
        free(where);
    }
    mode_clip_files_clear(&f);
    return st;
}

enum mode_status mode_model_config_named(char **model, char **preprocess, const char *text, const char *what,
                                         struct mode_error *err)
{
    json_t *given = NULL;
    char *where = mode_xstrdup(what);
    enum mode_status st = config_of_text(&given, &where, text, NULL, err);
    if (!st) st = take_config(model, preprocess, given, where, err);
    free(where);
    return st;
}

double mode_model_config_patch_dropout(const char *model)
{
    struct mode_clip_config c;
    return mode_clip_config_parse(&c, model, "model", NULL) == MODE_OK ? c.patch_dropout : 0;
}
