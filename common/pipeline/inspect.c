#include "pipeline/inspect.h"

#include "base/str.h"
#include "data/evalset.h"
#include "data/safetensors.h"
#include "data/sample_json.h"
#include "data/utf8.h"
#include "pipeline/captions.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void set(json_t *o, const char *key, uint64_t v)
{
    json_object_set_new(o, key, json_integer((json_int_t)v));
}

static void add_one(json_t *o, const char *key)
{
    set(o, key, (uint64_t)json_integer_value(json_object_get(o, key)) + 1);
}

/* ---- captions.bin, also of a shard ---- */

static json_t *captions_json(const struct mode_captions *c, uint32_t first)
{
    json_t *o = json_object(), *fates = json_object(), *list = json_array();
    json_object_set_new(o, "shard", json_string(c->shard_name));
    set(o, "shard_bytes", c->shard_size);
    if (c->data_size != c->shard_size) set(o, "unpacked_bytes", c->data_size);
    set(o, "samples", c->n_samples);
    set(o, "rows", c->n_rows);
    for (int f = 0; f < MODE_FATE_COUNT; f++)
        if (c->fate_count[f]) set(fates, mode_fate_name((enum mode_fate)f), c->fate_count[f]);
    json_object_set_new(o, "fates", fates);
    set(o, "repeated_extensions", c->warn_duplicate_ext);
    set(o, "members_ignored", c->warn_ignored_members);
    if (c->cut_at) set(o, "cut_at_byte", c->cut_at);
    if (c->bad) json_object_set_new(o, "skipped", json_string(c->bad));

    uint32_t width[2] = {UINT32_MAX, 0}, height[2] = {UINT32_MAX, 0};
    uint64_t caption_bytes = 0, choices = 0;
    for (uint32_t i = 0; i < c->n_rows; i++) {
        const struct mode_sample sample = mode_captions_row(c, i), *s = &sample;
        if (s->width < width[0]) width[0] = s->width;
        if (s->width > width[1]) width[1] = s->width;
        if (s->height < height[0]) height[0] = s->height;
        if (s->height > height[1]) height[1] = s->height;
        caption_bytes += strlen(s->caption);
        choices += s->caption_count;
    }
    if (c->n_rows) {
        json_object_set_new(o, "width", json_pack("[I,I]", (json_int_t)width[0], (json_int_t)width[1]));
        json_object_set_new(o, "height", json_pack("[I,I]", (json_int_t)height[0], (json_int_t)height[1]));
        json_object_set_new(o, "captions_per_sample", json_real((double)choices / c->n_rows));
        json_object_set_new(o, "caption_bytes_mean", json_real((double)caption_bytes / c->n_rows));
    }
    for (uint32_t i = 0; i < c->n_samples && i < first; i++) {
        const struct mode_sample sample = mode_captions_sample(c, i), *s = &sample;
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:[I,I], s:I, s:I}", "key", s->key, "fate",
                                              mode_fate_name((enum mode_fate)s->fate), "caption", s->caption, "size",
                                              (json_int_t)s->width, (json_int_t)s->height, "image_offset",
                                              (json_int_t)s->image_offset, "image_bytes", (json_int_t)s->image_size));
    }
    json_object_set_new(o, "first", list);
    return o;
}

static enum mode_status inspect_captions(json_t **out, const char *path, uint32_t first, struct mode_error *err)
{
    struct mode_captions c;
    enum mode_status st = mode_captions_load(&c, path, err);
    if (st) return st;
    *out = captions_json(&c, first);
    mode_captions_clear(&c);
    return MODE_OK;
}

/* ---- shards ---- */

enum { JSON_MEMBERS = 1000, JSON_FIELDS = 64, EXAMPLE_BYTES = 80 };

/* Control characters would corrupt a terminal's output. */
static char *in_a_line(char *text)
{
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f) *p = ' ';
    return text;
}

/* A value (or NULL) as one line for people; NULL for null, "" and NULL. The caller frees. */
static char *example_of(const json_t *v)
{
    char *text = json_is_real(v)     ? mode_xasprintf("%.15g", json_real_value(v))
                 : json_is_string(v) ? mode_xstrdup(json_string_value(v))
                 : json_is_null(v)   ? NULL
                                     : json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(15));
    size_t n = text ? strlen(text) : 0;
    if (n == 0) {
        free(text);
        return NULL;
    }
    if (n > EXAMPLE_BYTES) {
        for (n = EXAMPLE_BYTES; n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80;) n--; /* do not split a character */
        memcpy(text + n, "...", 4);
    }
    return in_a_line(text);
}

static void add_field(json_t *fields, const char *ext, const char *name, const json_t *v)
{
    const bool list = json_is_array(v);
    char *selector = in_a_line(mode_xasprintf("%s:%s%s", ext, name, list ? "[]" : "")), *example;
    json_t *field = json_object_get(fields, selector);
    if (!field && json_object_size(fields) < JSON_FIELDS) {
        field = json_object();
        set(field, "samples", 0);
        json_object_set_new(fields, selector, field);
    }
    if (field) add_one(field, "samples");
    if (field && !json_object_get(field, "example") && (example = example_of(list ? json_array_get(v, 0) : v))) {
        json_object_set_new(field, "example", json_string(example));
        free(example);
    }
    free(selector);
}

/* The fields of the first samples' JSON members, as --text-keys names them. */
static void add_json_fields(json_t *o, const struct mode_tar_data *d, const struct mode_sample_list *s)
{
    json_t *fields = json_object(), *root, *v;
    const char *name;
    char why[MODE_WHY_BYTES];
    uint64_t n = 0;
    for (size_t i = 0; i < s->n_members && n < JSON_MEMBERS; i++) {
        const struct mode_member *m = &s->members[i];
        const size_t len = strlen(m->ext);
        if (!m->whole || len < 4 || strcmp(m->ext + len - 4, "json") != 0 || (len > 4 && m->ext[len - 5] != '.'))
            continue;
        n++;
        if (mode_sample_json(&root, (const char *)d->data + m->offset, m->size, why) != MODE_FATE_KEPT) continue;
        json_object_foreach(root, name, v) add_field(fields, m->ext, name, v);
        json_decref(root);
    }
    if (n) {
        set(o, "json_members_read", n);
        json_object_set_new(o, "json_fields", fields);
    } else
        json_decref(fields);
}

static enum mode_status add_members(json_t *o, const char *path, struct mode_error *err)
{
    struct mode_tar_data d;
    struct mode_sample_list s;
    enum mode_status st = mode_tar_data_open(&d, path, err);
    if (st) return st;
    if ((st = mode_samples_list(&s, &d, path, err))) {
        mode_tar_data_close(&d);
        return st;
    }
    json_t *exts = json_object(), *ignored = json_object();
    for (size_t i = 0; i < s.n_members; i++) {
        char *ext = mode_utf8_cleaned(s.members[i].ext, strlen(s.members[i].ext));
        add_one(exts, ext);
        free(ext);
    }
    for (int i = 0; i < MODE_IGNORED_COUNT; i++)
        if (s.ignored[i]) set(ignored, mode_ignored_name((enum mode_ignored)i), s.ignored[i]);
    json_object_set_new(o, "members", exts);
    add_json_fields(o, &d, &s);
    json_object_set_new(o, "ignored", ignored);
    set(o, "returning_keys", s.non_contiguous);
    json_object_set_new(o, "compressed", json_boolean(d.compressed));
    if (s.after) set(o, "data_after_end_mark_at_byte", s.after);
    mode_sample_list_clear(&s);
    mode_tar_data_close(&d);
    return MODE_OK;
}

/* Runs the captions step on the shard; its output file is discarded. */
static enum mode_status inspect_shard(json_t **out, const char *path, const struct mode_text_keys *keys, uint32_t first,
                                      struct mode_error *err)
{
    struct mode_captions c = {0};
    char *dir;
    struct mode_captions_options o = {.shard_path = path, .keys = *keys, .limits = MODE_IMAGE_LIMITS_DEFAULT};
    enum mode_status st = mode_dir_temporary(&dir, err);
    if (st) return st;
    char *file = mode_path_join(dir, "captions.bin");
    st = mode_captions_extract(&c, file, &o, err);
    if (st) mode_error_rename(err, dir, "a temporary folder (TMPDIR)");
    if (!st) {
        *out = captions_json(&c, first);
        st = add_members(*out, path, err);
    }
    mode_captions_clear(&c);
    mode_dir_remove(dir, NULL);
    free(file);
    free(dir);
    return st;
}

/* ---- safetensors, pictures, evaluation tasks ---- */

static enum mode_status inspect_safetensors(json_t **out, const char *path, uint32_t first, struct mode_error *err)
{
    struct mode_safetensors f;
    char shape[128];
    enum mode_status st = mode_safetensors_open(&f, path, err);
    if (st) return st;
    json_t *o = json_object(), *meta = json_object(), *list = json_object();
    uint64_t elements = 0;
    for (size_t i = 0; i < f.n_meta; i++) json_object_set_new(meta, f.meta[i].key, json_string(f.meta[i].value));
    for (size_t i = 0; i < f.n_tensors; i++) {
        const struct mode_tensor *t = &f.tensors[i];
        elements += (uint64_t)mode_tensor_count(t);
        if (i >= first) continue;
        char *text = mode_xasprintf("%s %s", mode_dtype_name(t->dtype), mode_tensor_shape_text(t, shape, sizeof shape));
        json_object_set_new(list, t->name, json_string(text));
        free(text);
    }
    set(o, "bytes", f.map.size);
    set(o, "tensors", f.n_tensors);
    set(o, "elements", elements);
    json_object_set_new(o, "metadata", meta);
    json_object_set_new(o, "first", list);
    mode_safetensors_close(&f);
    *out = o;
    return MODE_OK;
}

static enum mode_status inspect_picture(json_t **out, const char *path, const struct mode_mapping *map,
                                        struct mode_error *err)
{
    static const char *const names[] = {"", "JPEG", "PNG", "WebP"};
    const struct mode_image_limits limits = MODE_IMAGE_LIMITS_DEFAULT;
    struct mode_image im;
    enum mode_status st = mode_image_decode(&im, map->data, map->size, &limits, err);
    if (st) return mode_error_prefix(err, st, "%s", path);
    *out = json_pack("{s:s, s:I, s:i, s:i}", "type", names[mode_image_sniff(map->data, map->size)], "bytes",
                     (json_int_t)map->size, "width", im.width, "height", im.height);
    mode_image_clear(&im);
    return MODE_OK;
}

static enum mode_status inspect_task(json_t **out, const char *dir, uint32_t first, struct mode_error *err)
{
    struct mode_evalset e;
    char digest[MODE_DIGEST_HEX], words[MODE_DIGEST_HEX];
    char *n_shards = mode_path_join(dir, "test/nshards.txt");
    enum mode_status st = mode_input_folder(dir, err);
    if (!st && !mode_file_exists(n_shards))
        st = MODE_FAIL(
            err, MODE_E_NOINPUT,
            "%s: is a folder, but not an evaluation task: it has no test/nshards.txt. HINT: name the files in "
            "it",
            dir);
    free(n_shards);
    if (!st) st = mode_evalset_open(&e, dir, err);
    if (st) return st;
    if (!(st = mode_evalset_digest(dir, digest, err)) && !(st = mode_evalset_words_digest(dir, words, err))) {
        json_t *list = json_array();
        for (int i = 0; i < e.n_classes && (uint32_t)i < first; i++)
            json_array_append_new(list, json_string(e.classes[i]));
        for (int i = 0; i < e.n_texts && (uint32_t)i < first; i++) json_array_append_new(list, json_string(e.texts[i]));
        *out = json_pack("{s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:s, s:s, s:o}", "name", e.name, "task",
                         mode_task_kind_name(e.kind), "images", e.n_images, "classes", e.n_classes, "templates",
                         e.n_templates, "texts", e.n_texts, "shards", e.n_tars, "digest", digest, "words_digest", words,
                         "first", list);
    }
    mode_evalset_close(&e);
    return st;
}

static bool is_safetensors(const struct mode_mapping *m)
{
    uint64_t n = 0;
    if (m->size < 10) return false;
    for (int i = 7; i >= 0; i--) n = n << 8 | m->data[i];
    return n >= 2 && n <= m->size - 8 && m->data[8] == '{';
}

enum mode_status mode_inspect(json_t **out, const char *path, const struct mode_text_keys *keys, uint32_t first,
                              struct mode_error *err)
{
    struct stat sb;
    struct mode_mapping map = {0};
    const char *kind;
    enum mode_status st;
    *out = NULL;
    if (stat(path, &sb) == 0 && S_ISDIR(sb.st_mode)) {
        kind = "evaluation task";
        st = inspect_task(out, path, first, err);
    } else if ((st = mode_file_map(path, &map, err))) {
        return st;
    } else if (map.size >= 8 && memcmp(map.data, "MODECAP\n", 8) == 0) {
        kind = "captions";
        st = inspect_captions(out, path, first, err);
    } else if (is_safetensors(&map)) {
        kind = "safetensors";
        st = inspect_safetensors(out, path, first, err);
    } else if (mode_image_sniff(map.data, map.size) != MODE_IMAGE_UNKNOWN) {
        kind = "picture";
        st = inspect_picture(out, path, &map, err);
    } else {
        kind = "shard";
        st = inspect_shard(out, path, keys, first, err);
    }
    mode_file_unmap(&map);
    if (st) {
        json_decref(*out);
        *out = NULL;
        return st;
    }
    json_object_set_new(*out, "kind", json_string(kind));
    return MODE_OK;
}
