#include "models/bert_folder.h"

#include "base/file.h"
#include "base/str.h"
#include "data/weights.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_JSON = 16 << 20 };

static const char *const pooling_names[] = {"pooler", "cls", "mean"};

const char *mode__pooling_name(enum mode__pooling p)
{
    return pooling_names[p];
}

/* optional: a file that does not exist gives *root NULL and MODE_OK. The caller frees *path and decrefs *root. */
static enum mode_status load_json(json_t **root, char **path, const char *dir, const char *name, bool optional,
                                  struct mode_error *err)
{
    char *data = NULL;
    size_t size;
    json_error_t why;
    *root = NULL;
    *path = mode_path_join(dir, name);
    if (optional && !mode_file_exists(*path)) return MODE_OK;
    enum mode_status st = mode_file_read(*path, MAX_JSON, &data, &size, err);
    if (st) return st;
    *root = json_loadb(data, size, JSON_REJECT_DUPLICATES, &why);
    free(data);
    if (!*root) return MODE_FAIL(err, MODE_E_FORMAT, "%s: not JSON: %s at line %d", *path, why.text, why.line);
    return MODE_OK;
}

/* ---- config.json ----------------------------------------------------------------------------------------- */

static enum mode_status need_count(int64_t *out, json_t *root, const char *path, const char *key, int64_t max,
                                   struct mode_error *err)
{
    json_t *v = json_object_get(root, key);
    if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > max)
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: %s must be a whole number from 1 to %" PRId64, path, key, max);
    *out = json_integer_value(v);
    return MODE_OK;
}

/* An optional key that must hold this text if it is present. */
static enum mode_status only(json_t *root, const char *path, const char *key, const char *want, struct mode_error *err)
{
    json_t *v = json_object_get(root, key);
    const char *text = json_string_value(v);
    if (v && !json_is_null(v) && (!text || strcmp(text, want) != 0))
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: %s is \"%s\", only \"%s\" is supported", path, key,
                         text ? text : "(not a text)", want);
    return MODE_OK;
}

static enum mode_status read_config(struct mode__bert_config *c, json_t *root, const char *path, struct mode_error *err)
{
    enum mode_status st;
    if (!json_object_get(root, "model_type"))
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: model_type is missing, expected \"bert\"", path);
    if ((st = only(root, path, "model_type", "bert", err))) return st;
    if ((st = only(root, path, "position_embedding_type", "absolute", err))) return st;
    static const char *const flags[] = {"is_decoder", "add_cross_attention"};
    for (size_t i = 0; i < 2; i++)
        if (json_is_true(json_object_get(root, flags[i])))
            return MODE_FAIL(err, MODE_E_FORMAT, "%s: %s is true: a decoder is not a sentence encoder", path, flags[i]);
    if (json_object_size(json_object_get(root, "pruned_heads")) > 0)
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: pruned_heads is not empty, which is not supported", path);
    if ((st = need_count(&c->layers, root, path, "num_hidden_layers", 128, err)) ||
        (st = need_count(&c->width, root, path, "hidden_size", 16384, err)) ||
        (st = need_count(&c->heads, root, path, "num_attention_heads", 512, err)) ||
        (st = need_count(&c->inner, root, path, "intermediate_size", 65536, err)) ||
        (st = need_count(&c->vocab, root, path, "vocab_size", 1 << 20, err)) ||
        (st = need_count(&c->positions, root, path, "max_position_embeddings", 1 << 16, err)))
        return st;
    if ((st = json_object_get(root, "type_vocab_size") ? need_count(&c->types, root, path, "type_vocab_size", 1024, err)
                                                       : (c->types = 2, MODE_OK)))
        return st;
    if (c->width % c->heads != 0)
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: hidden_size %" PRId64 " is not a multiple of %" PRId64 " heads", path,
                         c->width, c->heads);
    json_t *eps = json_object_get(root, "layer_norm_eps");
    if (eps && !(json_is_number(eps) && json_number_value(eps) > 0 && json_number_value(eps) < 1))
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: layer_norm_eps must be a number between 0 and 1", path);
    c->eps = eps ? (float)json_number_value(eps) : 1e-12f;
    const char *act = json_string_value(json_object_get(root, "hidden_act"));
    if (!act || strcmp(act, "gelu") == 0)
        c->act = MODE_ACT_GELU;
    else if (strcmp(act, "gelu_new") == 0 || strcmp(act, "gelu_pytorch_tanh") == 0)
        c->act = MODE_ACT_GELU_TANH;
    else
        return MODE_FAIL(
            err, MODE_E_FORMAT,
            "%s: hidden_act is \"%s\", only \"gelu\", \"gelu_new\" and \"gelu_pytorch_tanh\" are supported", path, act);
    return MODE_OK;
}

enum mode_status mode__bert_config_load(struct mode__bert_config *c, const char *dir, struct mode_error *err)
{
    char *path;
    json_t *root;
    *c = (struct mode__bert_config){0};
    enum mode_status st = load_json(&root, &path, dir, "config.json", false, err);
    if (!st) st = read_config(c, root, path, err);
    json_decref(root);
    free(path);
    return st;
}

/* ---- pooling and length ---------------------------------------------------------------------------------- */

static bool pooling_of_name(enum mode__pooling *p, const char *name)
{
    for (int i = 0; i < 3; i++)
        if (strcmp(pooling_names[i], name) == 0) {
            *p = (enum mode__pooling)i;
            return true;
        }
    return false;
}

bool mode_text_encoder_knows_pooling(const char *pooling)
{
    enum mode__pooling p;
    return pooling_of_name(&p, pooling);
}

/* A sentence-transformers model with further modules (Dense ...) would give other vectors than ours: refuse it. */
static enum mode_status check_modules(const char *dir, struct mode_error *err)
{
    static const char *const known[] = {"Transformer", "Pooling", "Normalize"};
    char *path;
    json_t *root, *module;
    size_t i;
    enum mode_status st = load_json(&root, &path, dir, "modules.json", true, err);
    json_array_foreach(root, i, module)
    {
        const char *type = json_string_value(json_object_get(module, "type"));
        const char *last = type ? strrchr(type, '.') : NULL;
        bool is_known = false;
        last = last ? last + 1 : type;
        for (size_t k = 0; last && k < 3; k++) is_known |= strcmp(last, known[k]) == 0;
        if (!is_known && !st)
            st = MODE_FAIL(err, MODE_E_FORMAT,
                           "%s: module %zu is \"%s\", only Transformer, Pooling and Normalize are supported", path, i,
                           type ? type : "missing");
    }
    json_decref(root);
    free(path);
    return st;
}

static enum mode_status pooling_of_folder(enum mode__pooling *p, const char *dir, struct mode_error *err)
{
    char *path;
    json_t *root, *value;
    const char *key, *chosen = NULL;
    enum mode_status st = check_modules(dir, err);
    if (st) return st;
    st = load_json(&root, &path, dir, "1_Pooling/config.json", true, err);
    if (st) goto out;
    *p = MODE__POOLING_POOLER;
    if (!root) goto out;
    int n_chosen = 0;
    json_object_foreach(root, key, value)
    {
        if (strncmp(key, "pooling_mode", 12) != 0) continue;
        if (json_is_true(value)) {
            chosen = key;
            n_chosen++;
        } else if (json_is_string(value)) {
            chosen = json_string_value(value);
            n_chosen++;
        }
    }
    if (n_chosen == 1 && (strcmp(chosen, "pooling_mode_cls_token") == 0 || strcmp(chosen, "cls") == 0))
        *p = MODE__POOLING_CLS;
    else if (n_chosen == 1 && (strcmp(chosen, "pooling_mode_mean_tokens") == 0 || strcmp(chosen, "mean") == 0))
        *p = MODE__POOLING_MEAN;
    else
        st = MODE_FAIL(err, MODE_E_FORMAT,
                       "%s: asks for %s, only the first token (cls) or the mean is supported. HINT: name the pooling "
                       "yourself",
                       path,
                       n_chosen == 1 ? chosen
                       : n_chosen    ? "several poolings"
                                     : "no pooling");
out:
    json_decref(root);
    free(path);
    return st;
}

enum mode_status mode__bert_choose(enum mode__pooling *p, int *max_tokens_out, const struct mode__bert_config *c,
                                   const char *dir, const char *pooling, int max_tokens, struct mode_error *err)
{
    enum { USUAL = 512, FEWEST = MODE_ENCODER_FEWEST_TOKENS };
    enum mode_status st = MODE_OK;
    if (!pooling)
        st = pooling_of_folder(p, dir, err);
    else if (!pooling_of_name(p, pooling))
        st = MODE_FAIL(err, MODE_E_VALUE, "pooling \"%s\" is unknown, expected pooler, cls or mean", pooling);
    if (st) return st;
    if (max_tokens == 0) {
        char *path;
        json_t *root;
        st = load_json(&root, &path, dir, "sentence_bert_config.json", true, err);
        json_int_t n = json_integer_value(json_object_get(root, "max_seq_length"));
        max_tokens = n >= FEWEST && n <= c->positions ? (int)n : c->positions < USUAL ? (int)c->positions : USUAL;
        json_decref(root);
        free(path);
        if (st) return st;
    }
    if (max_tokens < FEWEST || max_tokens > c->positions)
        return MODE_FAIL(err, MODE_E_VALUE, "%s: max_tokens is %d, expected %d to %" PRId64 " (the model's positions)",
                         dir, max_tokens, FEWEST, c->positions);
    *max_tokens_out = max_tokens;
    return MODE_OK;
}

/* ---- identity -------------------------------------------------------------------------------------------- */

char *mode__bert_weights(const char *dir)
{
    char *path = mode_weights_in(dir);
    return path ? path : mode_path_join(dir, "model.safetensors");
}

enum mode_status mode__bert_identity(char id[MODE_ENCODER_ID], const char *dir, enum mode__pooling p, int max_tokens,
                                     struct mode_error *err)
{
    /* tokenizer.json is complete by itself; the other two files matter only without it */
    static const char *const names[] = {"tokenizer.json", "vocab.txt", "tokenizer_config.json"};
    struct mode_str all = {0};
    bool whole = false;
    char *weights = mode__bert_weights(dir);
    enum mode_status st = mode_digest_line(&all, dir, "config.json", err);
    if (!st) st = mode_weights_digests(&all, weights, err);
    free(weights);
    for (size_t i = 0; !st && i < 3 && !whole; i++) {
        char *path = mode_path_join(dir, names[i]);
        if (mode_file_exists(path)) {
            st = mode_digest_line(&all, dir, names[i], err);
            whole = i == 0;
        }
        free(path);
    }
    if (!st) {
        char hex[MODE_DIGEST_HEX];
        mode_digest_bytes(all.data, all.len, hex);
        snprintf(id, MODE_ENCODER_ID, "bert:%.16s:%s:%d", hex, mode__pooling_name(p), max_tokens);
    }
    mode_str_clear(&all);
    return st;
}

enum mode_status mode_text_encoder_id_of(const char *dir, const char *pooling, int max_tokens, char id[MODE_ENCODER_ID],
                                         const char **pooling_out, int *max_tokens_out, struct mode_error *err)
{
    struct mode__bert_config c;
    enum mode__pooling p;
    int n;
    enum mode_status st = mode__bert_config_load(&c, dir, err);
    if (!st) st = mode__bert_choose(&p, &n, &c, dir, pooling, max_tokens, err);
    if (!st && id) st = mode__bert_identity(id, dir, p, n, err);
    if (st) return st;
    if (pooling_out) *pooling_out = mode__pooling_name(p);
    if (max_tokens_out) *max_tokens_out = n;
    return MODE_OK;
}
