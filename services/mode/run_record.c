#include "run_record.h"

#include "base/file.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_EXPERTS = 10000 };

const char *run_record_text(const json_t *node, const char *field)
{
    const char *s = json_string_value(json_object_get(node, field));
    return s ? s : "";
}

const char *run_record_shard(const struct run_record *r, size_t shard)
{
    const char *s = json_string_value(json_array_get(json_object_get(r->plan, "shards"), shard));
    return s ? s : "";
}

enum mode_status run_record_tasks(json_t **dirs, const char *workspace, const char *run, struct mode_error *err)
{
    char *file = mode_xasprintf("%s/runs/%s/inputs.json", workspace, run), *text = NULL;
    json_t *inputs = NULL, *task;
    size_t size, i;
    enum mode_status st = mode_file_read(file, 1u << 30, &text, &size, err);
    if (st) goto out;
    inputs = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
    const json_t *tasks = json_object_get(inputs, "tasks");
    if (!json_is_array(tasks)) {
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: has no list of tasks", file);
        goto out;
    }
    *dirs = json_array();
    json_array_foreach(tasks, i, task) json_array_append_new(*dirs, json_string(run_record_text(task, "dir")));
out:
    json_decref(inputs);
    free(text);
    free(file);
    return st;
}

void run_record_centres_label(const struct run_record *r, char *label, size_t size)
{
    if (r->n_added)
        snprintf(label, size, "grow/%zu", r->n_added - 1);
    else
        snprintf(label, size, "cluster");
}

const char *run_record_selected(const struct run_record *r, size_t *at)
{
    static const char before[] = "train/";
    const json_t *nodes = json_object_get(r->plan, "nodes");
    while (*at < json_array_size(nodes)) {
        const json_t *node = json_array_get(nodes, (*at)++);
        const char *label = run_record_text(node, "label");
        if (strcmp(run_record_text(node, "stage"), "train-selected") == 0 &&
            strncmp(label, before, sizeof before - 1) == 0)
            return label + sizeof before - 1;
    }
    return NULL;
}

static enum mode_status read_plan(struct run_record *r, const char *file, struct mode_error *err)
{
    char *text = NULL;
    size_t size, i;
    json_t *node;
    json_error_t why;
    enum mode_status st = mode_file_read(file, 1u << 30, &text, &size, err);
    if (st) return st;
    r->plan = json_loadb(text, size, JSON_REJECT_DUPLICATES, &why);
    free(text);
    if (!r->plan) return MODE_FAIL(err, MODE_E_FORMAT, "%s:%d: %s", file, why.line, why.text);
    json_int_t n = json_integer_value(json_object_get(r->plan, "experts"));
    if (n < 1 || n > MOST_EXPERTS) return MODE_FAIL(err, MODE_E_FORMAT, "%s: %lld experts", file, (long long)n);
    r->n_experts = (int)n;
    r->n_shards = json_array_size(json_object_get(r->plan, "shards"));
    r->shard_end = json_object_get(r->plan, "shard_end");
    size_t ends = json_array_size(r->shard_end);
    if (!ends || ends - 1 >= (size_t)n)
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: shard_end does not fit %d experts", file, r->n_experts);
    r->n_added = ends - 1;
    json_array_foreach(json_object_get(r->plan, "nodes"), i, node)
        mode_index_put(&r->by_label, run_record_text(node, "label"), (uint32_t)i);
    return MODE_OK;
}

enum mode_status run_record_open(struct run_record *r, const char *workspace, const char *run, struct mode_error *err)
{
    char *file = mode_xasprintf("%s/runs/%s/plan.json", workspace, run);
    *r = (struct run_record){0};
    enum mode_status st = mode_file_exists(file)
                              ? read_plan(r, file, err)
                              : MODE_FAIL(err, MODE_E_NOINPUT, "%s has no run \"%s\" that was planned", workspace, run);
    if (!st) st = mode_store_open_to_read(&r->store, workspace, err);
    free(file);
    return st;
}

static enum mode_status read_index(char **text, const char *workspace, const char *key, const char *hint,
                                   struct mode_error *err)
{
    char *path = mode_path_join(workspace, "experts/index.json");
    json_t *index = json_load_file(path, 0, NULL);
    const char *value = json_string_value(json_object_get(index, key));
    enum mode_status st = MODE_OK;
    *text = value ? mode_xstrdup(value) : NULL;
    if (!value) st = MODE_FAIL(err, MODE_E_NOINPUT, "%s names no %s; %s", path, key, hint);
    json_decref(index);
    free(path);
    return st;
}

enum mode_status run_record_latest(char **run, const char *workspace, struct mode_error *err)
{
    return read_index(run, workspace, "run", "name one with --run (`mode status` lists them)", err);
}

enum mode_status run_record_encoder(char **dir, const char *workspace, struct mode_error *err)
{
    return read_index(dir, workspace, "encoder", "name it with --encoder", err);
}

void run_record_close(struct run_record *r)
{
    mode_index_clear(&r->by_label);
    mode_store_close(&r->store);
    json_decref(r->plan);
    *r = (struct run_record){0};
}

enum mode_status run_record_output(const struct run_record *r, Mode__Commit **commit, char **path, const char *label,
                                   const char *output, struct mode_error *err)
{
    uint32_t at = mode_index_get(&r->by_label, label);
    *commit = NULL;
    if (path) *path = NULL;
    if (at == MODE_INDEX_NONE) return MODE_FAIL(err, MODE_E_VALUE, "the plan has no task %s", label);
    const char *key = run_record_text(json_array_get(json_object_get(r->plan, "nodes"), at), "key");
    enum mode_status st = mode_key_valid(key) ? mode_store_commit_get(r->store, commit, key, err)
                                              : MODE_FAIL(err, MODE_E_NOINPUT, "%s is not done", label);
    if (st || !output) return st;
    for (size_t o = 0; o < (*commit)->n_outputs; o++)
        if (strcmp((*commit)->outputs[o]->name, output) == 0) {
            st = mode_store_blob_path(r->store, path, (*commit)->outputs[o]->digest, (*commit)->outputs[o]->size, err);
            return st ? mode_error_prefix(err, st, "%s", label) : MODE_OK;
        }
    return MODE_FAIL(err, MODE_E_FORMAT, "%s: its commit record names no %s", label, output);
}
