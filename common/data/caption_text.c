#include "data/caption_text.h"

#include "data/sample_json.h"
#include "data/utf8.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "json:a,txt" looks like two selectors. A comma is in no extension, and hardly in any field's name. */
static enum mode_status refuse_comma(const char *text, size_t n, struct mode_error *err)
{
    char several[128];
    size_t len = 0;
    for (size_t i = 0; i < n && len < sizeof several - 1; i++) {
        if (text[i] == ' ' && len && several[len - 1] == ';') continue;
        several[len++] = text[i];
        if (text[i] == ',') several[len - 1] = ';';
    }
    return MODE_FAIL(err, MODE_E_VALUE,
                     "caption selector \"%.*s\" has a comma. HINT: several are separated by \";\": \"%.*s\"; in a run "
                     "spec they may also be a list",
                     (int)n, text, (int)len, several);
}

static enum mode_status parse_one(struct mode_text_key *k, const char *text, size_t n, struct mode_error *err)
{
    const char *colon = memchr(text, ':', n), *end = text + n;
    const size_t ext = (size_t)((colon ? colon : end) - text);
    size_t field = colon ? (size_t)(end - colon) - 1 : 0;
    *k = (struct mode_text_key){0};
    if (field >= 2 && strncmp(end - 2, "[]", 2) == 0) {
        k->list = true;
        field -= 2;
    }
    if (memchr(text, ',', n)) return refuse_comma(text, n, err);
    static const char of_names[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.";
    if (ext == 0 || ext >= sizeof k->ext || field >= sizeof k->field || (colon && field == 0) || *text == '.' ||
        strspn(text, of_names) < ext)
        return MODE_FAIL(err, MODE_E_VALUE,
                         "caption selector \"%.*s\" is not understood; expected txt, json:<field> or json:<field>[]",
                         (int)n, text);
    for (size_t i = 0; i < ext; i++)
        k->ext[i] = (char)(text[i] >= 'A' && text[i] <= 'Z' ? text[i] - 'A' + 'a' : text[i]);
    if (colon) memcpy(k->field, colon + 1, field);
    return MODE_OK;
}

enum mode_status mode_text_keys_parse(struct mode_text_keys *keys, const char *const *texts, size_t n,
                                      struct mode_error *err)
{
    static const char *const standard[] = {MODE_TEXT_KEYS_DEFAULT};
    enum mode_status st;
    if (n == 0) {
        texts = standard;
        n = 1;
    }
    *keys = (struct mode_text_keys){0};
    for (size_t i = 0; i < n; i++) {
        for (const char *p = texts[i];; p++) {
            const size_t len = strcspn(p, ";");
            if (keys->n == MODE_TEXT_KEYS_MAX)
                return MODE_FAIL(err, MODE_E_VALUE, "more than %d caption selectors", MODE_TEXT_KEYS_MAX);
            if ((st = parse_one(&keys->key[keys->n], p, len, err))) return st;
            keys->n++;
            p += len;
            if (!*p) break;
        }
    }
    return MODE_OK;
}

enum mode_status mode_face_key_parse(struct mode_text_key *key, const char *text, struct mode_error *err)
{
    struct mode_error why;
    if (parse_one(key, text, strlen(text), &why) || !key->field[0] || key->list || strchr(text, ';'))
        return MODE_FAIL(err, MODE_E_VALUE, "\"%.80s\" does not say where boxes to blur are; expected json:<field>",
                         text);
    return MODE_OK;
}

/* The first reason is the one reported. */
static void refuse(struct mode_text_choice *out, enum mode_fate fate, const char *why)
{
    if (out->fate != MODE_FATE_NO_CAPTION) return;
    out->fate = fate;
    snprintf(out->why, sizeof out->why, "%s", why);
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* The usable part of a candidate, or false with the reason recorded. */
static bool usable(struct mode_text_choice *out, const char **text, size_t *n)
{
    const char *p = *text;
    size_t len = *n;
    if (len > MODE_TEXT_MAX_BYTES) {
        refuse(out, MODE_FATE_BAD_TEXT, "the caption is longer than 1 MiB");
        return false;
    }
    if (!mode_utf8_is_text(p, len)) {
        refuse(out, MODE_FATE_BAD_TEXT, "the caption is not UTF-8");
        return false;
    }
    while (len > 0 && is_blank(p[0])) p++, len--;
    while (len > 0 && is_blank(p[len - 1])) len--;
    if (len == 0 || (len == 1 && p[0] == '"')) {
        refuse(out, MODE_FATE_EMPTY_CAPTION, len ? "the caption is a lone double quote" : "the caption is empty");
        return false;
    }
    *text = p;
    *n = len;
    return true;
}

static void take(struct mode_text_choice *out, const char *text, size_t n, uint32_t index, uint32_t count)
{
    struct mode_text t = {.fate = MODE_FATE_KEPT, .index = index, .caption = mode_xmalloc(n + 1)};
    memcpy(t.caption, text, n);
    t.caption[n] = '\0';
    out->fate = MODE_FATE_KEPT;
    out->count = count;
    out->texts = mode_xrealloc(out->texts, (out->n + 1) * sizeof *out->texts);
    out->texts[out->n++] = t;
}

/* The string of a list entry: itself, or the second of a [source, caption] pair. */
static const json_t *entry_text(const json_t *v)
{
    if (json_is_array(v) && json_array_size(v) >= 2) v = json_array_get(v, 1);
    return v;
}

static bool usable_json(struct mode_text_choice *out, const json_t *v, const char **text, size_t *n)
{
    if (json_is_null(v)) {
        refuse(out, MODE_FATE_EMPTY_CAPTION, "the caption is null");
        return false;
    }
    if (!json_is_string(v)) {
        refuse(out, MODE_FATE_BAD_JSON, "the caption is not a string");
        return false;
    }
    *text = json_string_value(v);
    *n = json_string_length(v);
    return usable(out, text, n);
}

/* Every candidate, each with a fate of its own; at least one of them is usable. */
static void take_list(struct mode_text_choice *out, const json_t *list, size_t count)
{
    const char *text;
    size_t n;
    for (size_t i = 0; i < count; i++) {
        struct mode_text_choice one = {.fate = MODE_FATE_NO_CAPTION};
        if (usable_json(&one, entry_text(json_array_get(list, i)), &text, &n)) {
            take(out, text, n, (uint32_t)i, (uint32_t)count);
            continue;
        }
        out->texts = mode_xrealloc(out->texts, (out->n + 1) * sizeof *out->texts);
        out->texts[out->n++] = (struct mode_text){.fate = one.fate, .index = (uint32_t)i};
    }
}

static void choose_from_list(struct mode_text_choice *out, const json_t *list, bool all, struct mode_rng *rng)
{
    const size_t count = json_array_size(list);
    const char *text;
    size_t n, n_usable = 0;
    if (count == 0) refuse(out, MODE_FATE_EMPTY_CAPTION, "the list of captions is empty");
    for (size_t i = 0; i < count; i++) n_usable += usable_json(out, entry_text(json_array_get(list, i)), &text, &n);
    if (n_usable == 0) return;
    if (all) {
        take_list(out, list, count);
        return;
    }
    size_t draw = mode_rng_below(rng, n_usable);
    for (size_t i = 0; i < count; i++)
        if (usable_json(out, entry_text(json_array_get(list, i)), &text, &n) && draw-- == 0) {
            take(out, text, n, (uint32_t)i, (uint32_t)count);
            return;
        }
}

static void choose_from_json(struct mode_text_choice *out, const struct mode_text_key *k, const char *data, size_t size,
                             bool all, struct mode_rng *rng)
{
    json_t *root;
    char why[MODE_WHY_BYTES];
    const enum mode_fate fate = mode_sample_json(&root, data, size, why);
    if (fate) {
        refuse(out, fate, why);
        return;
    }
    const json_t *v = json_object_get(root, k->field);
    const char *text;
    size_t n;
    if (!v) goto out; /* another selector may match */
    if (k->list && json_is_array(v))
        choose_from_list(out, v, all, rng);
    else if (usable_json(out, v, &text, &n))
        take(out, text, n, 0, 1);
out:
    json_decref(root);
}

void mode_text_choose(struct mode_text_choice *out, const struct mode_text_keys *keys, const uint8_t *tar,
                      const struct mode_sample_list *s, const struct mode_group *g, bool all, struct mode_rng rng)
{
    *out = (struct mode_text_choice){.fate = MODE_FATE_NO_CAPTION};
    for (int i = 0; i < keys->n && out->fate != MODE_FATE_KEPT; i++) {
        const struct mode_text_key *k = &keys->key[i];
        const struct mode_member *m = mode_group_member(s, g, k->ext);
        if (!m) continue;
        const char *data = (const char *)tar + m->offset;
        size_t size = (size_t)m->size;
        if (k->field[0])
            choose_from_json(out, k, data, size, all, &rng);
        else if (usable(out, &data, &size))
            take(out, data, size, 0, 1);
    }
    if (out->fate == MODE_FATE_NO_CAPTION)
        snprintf(out->why, sizeof out->why, "no member or field of the caption selectors");
}

void mode_text_choice_clear(struct mode_text_choice *c)
{
    for (uint32_t i = 0; i < c->n; i++) free(c->texts[i].caption);
    free(c->texts);
    *c = (struct mode_text_choice){0};
}
