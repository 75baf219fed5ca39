#include "marks.h"

#include "base/fresh.h"
#include "base/str.h"
#include "pipeline/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static enum mode_status read_json(json_t **out, const char *path, struct mode_error *err)
{
    char *text = NULL;
    size_t size;
    json_error_t why;
    enum mode_status st = mode_file_read(path, 1u << 30, &text, &size, err);
    if (!st && !(*out = json_loadb(text, size, JSON_REJECT_DUPLICATES, &why)))
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s:%d: %s", path, why.line, why.text);
    free(text);
    return st;
}

static enum mode_status read_run(struct marks *m, const char *dir, const char *name, struct mode_error *err)
{
    char *file = mode_xasprintf("%s/%s/run.json", dir, name), *plan = mode_xasprintf("%s/%s/plan.json", dir, name);
    json_t *o = NULL;
    enum mode_status st = MODE_OK;
    if (mode_file_exists(file)) {
        m->run = mode_xrealloc(m->run, (m->n + 1) * sizeof *m->run);
        struct marks_run *run = &m->run[m->n++];
        *run = (struct marks_run){.name = mode_xstrdup(name)};
        st = read_json(&o, file, err);
        run->state = (Mode__RunState)json_integer_value(json_object_get(o, "state"));
        if (!st && mode_file_exists(plan)) st = read_json(&run->plan, plan, err);
        json_t *settled = json_object_get(run->plan, "settled"); /* missing in plans of earlier versions */
        run->settled = settled ? json_is_true(settled) : run->plan && run->state != MODE__RUN_STATE__RUN_RUNNING;
    }
    json_decref(o);
    free(file);
    free(plan);
    return st;
}

enum mode_status marks_runs(struct marks *m, const char *workspace, struct mode_error *err)
{
    char *dir = mode_path_join(workspace, "runs");
    struct dirent **entry = NULL;
    enum mode_status st = MODE_OK;
    int n = mode_fresh_scandir(dir, &entry, NULL, alphasort);
    if (n < 0 && errno != ENOENT) st = mode_input_fail(err, errno, dir, "be read");
    for (int i = 0; i < n; i++) {
        if (!st && entry[i]->d_name[0] != '.') st = read_run(m, dir, entry[i]->d_name, err);
        free(entry[i]);
    }
    free(entry);
    free(dir);
    return st;
}

/* Grows a list for one more element: doubled at powers of two. */
static void *grown(void *list, size_t n, size_t size)
{
    return n & (n - 1) ? list : mode_xrealloc(list, (n ? 2 * n : 1) * size);
}

static void mark_task(struct marks *m, uint32_t run, const char *key, const char *stage)
{
    uint32_t at = mode_index_get(&m->tasks, key);
    if (at == MODE_INDEX_NONE) {
        m->task = grown(m->task, m->n_tasks, sizeof *m->task);
        at = (uint32_t)m->n_tasks++;
        m->task[at] = (struct marks_task){.key = key, .run = run};
        mode_index_put(&m->tasks, key, at);
    }
    struct marks_task *t = &m->task[at];
    if (t->run != run) t->run = MODE_INDEX_NONE;
    t->parent |= strcmp(stage, "train-seed") == 0 || strcmp(stage, "train-init") == 0;
    t->model |= strcmp(stage, "train-dense") == 0 || strcmp(stage, "train-experts") == 0 ||
                strcmp(stage, "train-selected") == 0;
}

/* Collects the outputs of a task. The index of blobs by digest borrows from the list, so it is built when the list is
 * complete. */
static void mark_outputs(struct marks *m, const struct marks_task *t, const Mode__Commit *c)
{
    for (size_t i = 0; i < c->n_outputs; i++) {
        m->blob = grown(m->blob, m->n_blobs, sizeof *m->blob);
        struct marks_blob *b = &m->blob[m->n_blobs++];
        bool moments = t->model && !t->parent && strcmp(c->outputs[i]->name, MODE_FILE_CLIP_OPTIMIZER) == 0;
        *b = (struct marks_blob){.run = t->run, .needed = !moments, .size = c->outputs[i]->size};
        memcpy(b->digest, c->outputs[i]->digest, strnlen(c->outputs[i]->digest, MODE_DIGEST_HEX - 1));
    }
}

static void index_blobs(struct marks *m)
{
    size_t n = 0;
    for (size_t i = 0; i < m->n_blobs; i++) {
        uint32_t at = mode_index_get(&m->blobs, m->blob[i].digest);
        if (at == MODE_INDEX_NONE) {
            m->blob[n] = m->blob[i]; /* compacted in place: entries below n no longer move */
            mode_index_put(&m->blobs, m->blob[n].digest, (uint32_t)n);
            n++;
            continue;
        }
        struct marks_blob *b = &m->blob[at];
        if (b->run != m->blob[i].run) b->run = MODE_INDEX_NONE;
        b->needed |= m->blob[i].needed;
    }
    m->n_blobs = n;
}

enum mode_status marks_take(struct marks *m, struct mode_store *store, struct mode_error *err)
{
    for (uint32_t r = 0; r < m->n; r++) {
        size_t i;
        json_t *node;
        if (m->run[r].dropped) continue;
        json_array_foreach(json_object_get(m->run[r].plan, "nodes"), i, node)
        {
            const char *key = json_string_value(json_object_get(node, "key")),
                       *stage = json_string_value(json_object_get(node, "stage"));
            if (mode_key_valid(key)) mark_task(m, r, key, stage ? stage : "");
        }
    }
    for (size_t i = 0; i < m->n_tasks; i++) {
        Mode__Commit *c;
        enum mode_status st = mode_store_commit_get(store, &c, m->task[i].key, err);
        if (st == MODE_E_NOINPUT) continue;
        if (st) return st; /* the outputs named by a damaged record are unknown: a person must act first */
        mark_outputs(m, &m->task[i], c);
        mode__commit__free_unpacked(c, NULL);
    }
    index_blobs(m);
    for (size_t i = 0; i < m->n_blobs; i++) {
        const struct marks_blob *b = &m->blob[i];
        if (!mode_store_blob_exists(store, b->digest, b->size)) continue;
        if (!b->needed) m->optimizer_bytes += b->size;
        if (b->run != MODE_INDEX_NONE && (b->needed || !m->optimizer)) m->run[b->run].bytes += b->size;
    }
    return MODE_OK;
}

void marks_clear(struct marks *m)
{
    for (size_t i = 0; i < m->n; i++) {
        free(m->run[i].name);
        json_decref(m->run[i].plan);
    }
    mode_index_clear(&m->tasks);
    mode_index_clear(&m->blobs);
    free(m->run);
    free(m->task);
    free(m->blob);
    *m = (struct marks){0};
}

bool marks_needs_task(void *ctx, const char *key)
{
    return mode_index_get(&((const struct marks *)ctx)->tasks, key) != MODE_INDEX_NONE;
}

enum mode_gc_kind marks_keeps_blob(void *ctx, const char *digest)
{
    const struct marks *m = ctx;
    uint32_t at = mode_index_get(&m->blobs, digest);
    if (at == MODE_INDEX_NONE) return MODE_GC_BLOBS;
    return m->blob[at].needed || !m->optimizer ? MODE_GC_KEPT : MODE_GC_OPTIMIZER;
}
