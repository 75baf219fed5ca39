/* plan_inputs.c - the inputs that a run was planned from, in runs/<name>/inputs.json.
 *
 * A run of weeks is planned again whenever its coordinator starts. Shards or tasks added to a folder meanwhile, or a
 * rewritten model file, would turn it into another run: so a plan takes its inputs from the run's own record, and only
 * checks that the files exist. Workers verify what they read (decision 3). */
#include "plan.h"

#include "base/file.h"
#include "base/str.h"
#include "data/evalset.h"
#include "remote/address.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define FORM 1 /* raised when an existing file would give another plan */

/* ---------------------------------------------------------------------------------------------- writing */

static json_t *tasks_json(const struct plan *p)
{
    json_t *list = json_array();
    for (uint32_t t = 0; t < p->n_tasks; t++)
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s}", "dir", p->task[t].dir, "kind", p->task[t].kind,
                                              "digest", p->task[t].digest, "words", p->task[t].words_digest));
    return list;
}

static json_t *strings_json(const struct mode_spec_list *l)
{
    json_t *list = json_array();
    for (size_t i = 0; i < l->n; i++) json_array_append_new(list, json_string(l->item[i]));
    return list;
}

/* All but the shards; NULL: something is not UTF-8. */
static json_t *head_json(const struct plan *p)
{
    char spec[MODE_DIGEST_HEX];
    json_t *ends = json_array();
    for (uint32_t j = 0; j <= p->n_added; j++) json_array_append_new(ends, json_integer(p->shard_end[j]));
    mode_digest_bytes(p->spec.text, strlen(p->spec.text), spec);
    json_t *o = json_pack("{s:i, s:s, s:s, s:s, s:I, s:s, s:s, s:s, s:s, s:s, s:I, s:o, s:o, s:o}", "version", FORM,
                          "spec", spec, "encoder", p->encoder_id, "pooling", p->spec.encoder.pooling, "max_tokens",
                          (json_int_t)p->spec.encoder.max_tokens, "model", p->spec.model_config, "preprocess",
                          p->spec.preprocess_config, "tokenizer", p->tokenizer_digest, "algorithms",
                          p->algorithms ? p->algorithms : "", "init", p->init_digest, "init_step",
                          (json_int_t)p->init_step, "tasks", tasks_json(p), "skipped", strings_json(&p->skipped),
                          "shard_end", ends);
    const size_t n_tasks = json_array_size(json_object_get(o, "tasks")),
                 n_skipped = json_array_size(json_object_get(o, "skipped"));
    if (o && p->spec.n_experts_for) json_object_set_new(o, "experts_for", plan_for_json(p));
    if (o && n_tasks == p->n_tasks && n_skipped == p->skipped.n) return o;
    json_decref(o);
    return NULL;
}

/* A line for each shard, since there may be two million: [path, offset of its name in the path, bytes, mtime in ns].
 * The name of a remote shard ends before the version in its address. */
static bool add_shard(struct mode_str *out, const struct mode_shard *s, const char *before)
{
    json_t *line = json_pack("[s, I, I, I]", s->path, (json_int_t)(mode_remote_pin_at(s->path) - strlen(s->name)),
                             (json_int_t)s->size, (json_int_t)s->mtime_ns);
    if (!line) return false;
    char *text = json_dumps(line, JSON_COMPACT);
    mode_str_printf(out, "%s%s", before, text);
    free(text);
    json_decref(line);
    return true;
}

enum mode_status plan_inputs_save(const struct plan *p, const char *path, struct mode_error *err)
{
    struct mode_str out = {0};
    json_t *o = head_json(p);
    char *head = o ? json_dumps(o, JSON_INDENT(1)) : NULL;
    bool good = head != NULL;
    json_decref(o);
    if (good) mode_str_add(&out, head, strlen(head) - 2); /* without "\n}" */
    free(head);
    mode_str_add_cstr(&out, ",\n \"shards\": [");
    for (size_t i = 0; i < p->shards.n && good; i++) good = add_shard(&out, &p->shards.shard[i], i ? ",\n  " : "\n  ");
    mode_str_add_cstr(&out, "\n ]\n}\n");
    enum mode_status st = good ? mode_file_write_atomic(path, out.data, out.len, err)
                               : MODE_FAIL(err, MODE_E_VALUE, "%s: an input's path is not UTF-8", p->spec.name);
    mode_str_clear(&out);
    return st;
}

/* ---------------------------------------------------------------------------------------------- reading */

void plan_inputs_forget(struct plan *p)
{
    for (uint32_t t = 0; t < p->n_tasks; t++) {
        free(p->task[t].name);
        free(p->task[t].dir);
    }
    plan_for_forget(p);
    free(p->task);
    p->task = NULL;
    p->n_tasks = 0;
    mode_spec_list_clear(&p->skipped);
    free(p->shard_end);
    p->shard_end = NULL;
    mode_shards_clear(&p->shards);
    p->init_digest[0] = '\0';
}

static void replace(char **text, const char *by)
{
    char *old = *text;
    *text = mode_xstrdup(by);
    free(old);
}

static bool take_digest(char to[DIGESTS_VALUE], const char *from)
{
    if (!mode_key_valid(from)) return false;
    memcpy(to, from, MODE_DIGEST_HEX);
    return true;
}

static bool take_tasks(struct plan *p, const json_t *list)
{
    size_t i;
    const json_t *x;
    p->task = mode_xcalloc(json_array_size(list) + 1, sizeof *p->task);
    json_array_foreach(list, i, x)
    {
        const char *dir, *kind, *digest, *words;
        struct plan_task *t = &p->task[i];
        if (json_unpack((json_t *)(uintptr_t)x, "{s:s, s:s, s:s, s:s}", "dir", &dir, "kind", &kind, "digest", &digest,
                        "words", &words) != 0)
            return false;
        if (!take_digest(t->digest, digest) || !take_digest(t->words_digest, words)) return false;
        t->kind = mode_task_kind_name(mode_task_kind_parse(kind));
        t->dir = mode_xstrdup(dir);
        t->name = mode_xstrdup(mode_path_base(dir));
        p->n_tasks++;
    }
    return true;
}

static bool take_skipped(struct plan *p, const json_t *list)
{
    size_t i;
    const json_t *x;
    json_array_foreach(list, i, x)
    {
        char *text = (char *)(uintptr_t)json_string_value(x);
        if (!text) return false;
        mode_spec_list_copy(&p->skipped, &(struct mode_spec_list){.item = &text, .n = 1});
    }
    return true;
}

static bool take_shards(struct plan *p, const json_t *list, const json_t *ends)
{
    const size_t n = json_array_size(list);
    uint32_t last = 0;
    size_t i;
    json_t *x;
    p->n_added = (uint32_t)p->spec.data_added.n;
    p->shard_end = mode_xcalloc((size_t)p->n_added + 1, sizeof *p->shard_end);
    p->shards.shard = mode_xcalloc(n + 1, sizeof *p->shards.shard);
    json_array_foreach(list, i, x)
    {
        const char *path;
        json_int_t name, size, mtime;
        if (json_unpack(x, "[s, I, I, I]", &path, &name, &size, &mtime) != 0 || name < 0 ||
            (size_t)name >= mode_remote_pin_at(path))
            return false;
        const size_t n_name = mode_remote_pin_at(path) - (size_t)name;
        p->shards.shard[i] = (struct mode_shard){.path = mode_xstrdup(path),
                                                 .name = mode_xasprintf("%.*s", (int)n_name, path + name),
                                                 .size = (uint64_t)size,
                                                 .mtime_ns = (uint64_t)mtime};
        p->shards.n++;
    }
    if (json_array_size(ends) != (size_t)p->n_added + 1) return false;
    json_array_foreach(ends, i, x)
    {
        json_int_t end = json_integer_value(x);
        if (end <= (json_int_t)last || end > (json_int_t)n) return false;
        p->shard_end[i] = last = (uint32_t)end;
    }
    return last == n;
}

static bool take(struct plan *p, json_t *o)
{
    const char *of, *encoder, *pooling, *model, *preprocess, *tokenizer, *algorithms, *init;
    int version;
    json_int_t max_tokens, init_step;
    json_t *tasks, *skipped, *ends, *shards;
    char spec[MODE_DIGEST_HEX], digest[DIGESTS_VALUE];
    if (json_unpack(o, "{s:i, s:s, s:s, s:s, s:I, s:s, s:s, s:s, s:s, s:s, s:I, s:o, s:o, s:o, s:o}", "version",
                    &version, "spec", &of, "encoder", &encoder, "pooling", &pooling, "max_tokens", &max_tokens, "model",
                    &model, "preprocess", &preprocess, "tokenizer", &tokenizer, "algorithms", &algorithms, "init",
                    &init, "init_step", &init_step, "tasks", &tasks, "skipped", &skipped, "shard_end", &ends, "shards",
                    &shards) != 0)
        return false;
    mode_digest_bytes(p->spec.text, strlen(p->spec.text), spec);
    if (version != FORM || strcmp(of, spec) != 0 || !take_digest(digest, tokenizer) ||
        (*init && !take_digest(p->init_digest, init)))
        return false;
    if (!take_shards(p, shards, ends) || !take_tasks(p, tasks) || !take_skipped(p, skipped) ||
        !plan_for_take(p, json_object_get(o, "experts_for")))
        return false;
    memcpy(p->tokenizer_digest, digest, sizeof p->tokenizer_digest);
    p->init_step = (uint64_t)init_step;
    p->encoder_id = mode_xstrdup(encoder);
    p->algorithms = *algorithms ? mode_xstrdup(algorithms) : NULL;
    p->spec.encoder.max_tokens = (uint64_t)max_tokens;
    replace(&p->spec.encoder.pooling, pooling);
    replace(&p->spec.model_config, model);
    replace(&p->spec.preprocess_config, preprocess);
    return true;
}

enum mode_status plan_inputs_load(struct plan *p, const char *path, struct mode_error *err)
{
    char *text = NULL;
    size_t size;
    enum mode_status st = mode_file_read(path, 0, &text, &size, err);
    if (st) return st;
    json_t *o = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
    if (!o || !take(p, o)) {
        plan_inputs_forget(p);
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: is damaged, of another version or of another spec", path);
    }
    json_decref(o);
    free(text);
    return st;
}

/* ---------------------------------------------------------------------------------------------- looking */

static enum mode_status look_for(const char *path, const char *what, struct mode_error *err)
{
    struct stat s;
    if (stat(path, &s) == 0) return MODE_OK;
    enum mode_status st = mode_input_fail(err, errno, path, "be opened");
    return mode_error_prefix(err, st, "%s", what);
}

static enum mode_status look_for_in(const char *dir, const char *name, const char *what, struct mode_error *err)
{
    char *path = mode_path_join(dir, name);
    enum mode_status st = look_for(path, what, err);
    free(path);
    return st;
}

enum mode_status plan_inputs_find(const struct plan *p, struct mode_error *err)
{
    enum mode_status st = look_for_in(p->spec.encoder.dir, "config.json", "encoder", err);
    if (!st) st = look_for(p->spec.tokenizer_merges, "tokenizer.merges", err);
    if (!st && p->init_digest[0]) st = look_for(p->spec.train.init, "train.init", err);
    for (uint32_t t = 0; t < p->n_tasks && !st; t++)
        st = look_for_in(p->task[t].dir, "test/nshards.txt", "evaluation task", err);
    for (size_t i = 0; i < p->shards.n && !st; i++)
        if (!mode_remote_is(p->shards.shard[i].path)) st = look_for(p->shards.shard[i].path, "shard", err);
    return st;
}
