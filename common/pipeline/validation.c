#include "pipeline/validation.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/fresh.h"
#include "data/evalset.h"
#include "models/clip.h"
#include "pipeline/evaluate.h"
#include "tensor/tensor.h"

#include <dirent.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct mode_validation {
    struct mode_evalset *set;
    size_t n;
    uint64_t every;
    bool last;
    int64_t batch;
};

static enum mode_status open_task(struct mode_validation *v, const char *dir, const char *digest,
                                  struct mode_error *err)
{
    struct mode_evalset *set = &v->set[v->n];
    enum mode_status st = digest ? mode_evalset_unchanged(dir, digest, err) : MODE_OK;
    if (!st) st = mode_evalset_open(set, dir, err);
    if (st) return st;
    v->n++;
    for (size_t i = 0; i + 1 < v->n; i++)
        if (strcmp(v->set[i].name, set->name) == 0)
            return MODE_FAIL(err, MODE_E_VALUE, "%s: two tasks of a training are called \"%s\"", dir, set->name);
    return MODE_OK;
}

enum mode_status mode_validation_open(struct mode_validation **v, const struct mode_validation_options *o,
                                      struct mode_error *err)
{
    struct mode_validation *x = *v = mode_xmalloc(sizeof *x);
    enum mode_status st = MODE_OK;
    MODE_ASSERT(o->n > 0 && o->every > 0);
    *x = (struct mode_validation){
        .set = mode_xcalloc(o->n, sizeof *x->set), .every = o->every, .last = o->last, .batch = o->batch};
    for (size_t i = 0; !st && i < o->n; i++) st = open_task(x, o->dir[i], o->digest ? o->digest[i] : NULL, err);
    if (st) mode_validation_close(v);
    return st;
}

void mode_validation_close(struct mode_validation **v)
{
    if (!*v) return;
    for (size_t i = 0; i < (*v)->n; i++) mode_evalset_close(&(*v)->set[i]);
    free((*v)->set);
    free(*v);
    *v = NULL;
}

enum mode_status mode_validation_save(const struct mode_validation_options *o, const char *path, struct mode_error *err)
{
    json_t *tasks = json_array();
    bool good = true;
    for (size_t i = 0; i < o->n; i++) {
        json_t *task = json_pack("{s:s, s:s}", "dir", o->dir[i], "digest", o->digest[i]);
        good &= task && json_array_append_new(tasks, task) == 0;
    }
    json_t *all = json_pack("{s:I, s:I, s:o}", "every", (json_int_t)o->every, "batch", (json_int_t)o->batch, "tasks",
                            tasks);
    char *text = json_dumps(all, JSON_INDENT(1));
    enum mode_status st = good ? mode_file_write_atomic(path, text, strlen(text), err)
                               : MODE_FAIL(err, MODE_E_VALUE, "%s: a task's path is not UTF-8", path);
    free(text);
    json_decref(all);
    return st;
}

enum mode_status mode_validation_open_saved(struct mode_validation **v, const char *path, bool look,
                                            struct mode_error *err)
{
    const json_t *tasks = NULL;
    json_int_t every = 0, batch = 0;
    char *text;
    size_t size;
    *v = NULL;
    enum mode_status st = mode_file_read(path, 0, &text, &size, err);
    if (st) return st == MODE_E_NOINPUT ? MODE_OK : st;
    json_t *all = json_loadb(text, size, 0, NULL);
    const size_t n = json_unpack(all, "{s:I, s:I, s:o}", "every", &every, "batch", &batch, "tasks", &tasks) == 0
                         ? json_array_size(tasks)
                         : 0;
    char **dir = mode_xcalloc(n + 1, sizeof *dir);
    const char **digest = mode_xcalloc(n + 1, sizeof *digest);
    bool good = n > 0 && every > 0 && batch > 0;
    for (size_t i = 0; i < n; i++)
        good &= json_unpack(json_array_get(tasks, i), "{s:s, s:s}", "dir", &dir[i], "digest", &digest[i]) == 0;
    const struct mode_validation_options o = {
        .n = n, .dir = dir, .digest = look ? digest : NULL, .every = (uint64_t)every, .batch = batch};
    st = good ? mode_validation_open(v, &o, err)
              : MODE_FAIL(err, MODE_E_FORMAT, "%s: does not say on which tasks and how often models are evaluated",
                          path);
    json_decref(all);
    free(dir);
    free(digest);
    free(text);
    return st;
}

uint64_t mode_validation_every(const struct mode_validation *v)
{
    return v->every;
}

bool mode_validation_due(const struct mode_validation *v, uint64_t step, uint64_t start, uint64_t end)
{
    return step == end ? v->last : step == start || step % v->every == 0;
}

static size_t add(size_t a, size_t b)
{
    return a > SIZE_MAX - b ? SIZE_MAX : a + b;
}

static size_t floats(int64_t rows, int64_t cols)
{
    size_t n;
    return mode_mul_size((size_t)rows, (size_t)cols, &n) && mode_mul_size(n, sizeof(float), &n) ? n : SIZE_MAX;
}

size_t mode_validation_bytes(const struct mode_validation *v, const struct mode_clip *clip)
{
    const int64_t e = mode_clip_embed_dim(clip), side = mode_clip_preprocess(clip)->size;
    size_t most = 0;
    for (size_t i = 0; i < v->n; i++) {
        const struct mode_evalset *s = &v->set[i];
        const int64_t n = s->n_images, c = mode_evaluate_columns(s);
        const size_t bytes = add(floats(n, c),
                                 add(floats(n + c, e), floats(n < v->batch ? n : v->batch, 3 * side * side)));
        if (bytes > most) most = bytes;
    }
    return most;
}

/* ---- a validation ---- */

static bool on_batch(void *ctx, uint64_t done, uint64_t total, const char *unit)
{
    const struct mode_validation_hook *hook = ctx;
    (void)done;
    (void)total;
    (void)unit;
    return !hook->more || hook->more(hook->ctx);
}

/* Append the JSON row of one task, and set the value for the hook. */
static enum mode_status add_row(struct mode_str *rows, struct mode_validation_result *told, const struct mode_result *r,
                                char measure[64], struct mode_error *err)
{
    json_t *result;
    enum mode_status st = mode_result_json(&result, r, err);
    if (st) return st;
    json_t *metrics = json_object_get(result, "metrics"), *main_metrics = json_object_get(result, "main_metrics");
    const char *name = json_string_value(json_array_get(main_metrics, 0));
    const json_t *value = json_object_get(metrics, name);
    snprintf(measure, 64, "%s", name);
    told->measure = measure;
    told->value = json_is_number(value) ? json_number_value(value) : NAN;
    json_t *row = json_pack("{s:I, s:O, s:O, s:O}", "step", (json_int_t)told->step, "dataset",
                            json_object_get(result, "dataset"), "metrics", metrics, "main_metrics", main_metrics);
    char *text = json_dumps(row, JSON_REAL_PRECISION(12));
    MODE_ASSERT(text);
    mode_str_printf(rows, "%s\n", text);
    free(text);
    json_decref(row);
    json_decref(result);
    return MODE_OK;
}

static enum mode_status run_task(struct mode_str *rows, const struct mode_validation *v, const struct mode_evalset *set,
                                 struct mode_clip *clip, const struct mode_tokenizer *tokenizer, uint64_t step,
                                 const struct mode_validation_hook *hook, struct mode_error *err)
{
    const struct mode_encode_hook each = {.ctx = (void *)(uintptr_t)hook, .more = on_batch, .no_room = true};
    struct mode_validation_result told = {.step = step, .task = set->name};
    const double began = mode_clock_s();
    const size_t bytes = floats(set->n_images, mode_evaluate_columns(set));
    float *cosine = bytes == SIZE_MAX ? NULL : malloc(bytes ? bytes : 1);
    char measure[64];
    if (!cosine) return MODE_FAIL(err, MODE_E_MEMORY, "task %s: no memory for its scores", set->name);
    enum mode_status st = mode_evaluate(cosine, clip, tokenizer, set, v->batch, &each, err);
    const struct mode_result r = mode_evaluate_result(set, cosine, "");
    if (!st) st = add_row(rows, &told, &r, measure, err);
    told.seconds = mode_clock_s() - began;
    if (!st && hook->result) hook->result(hook->ctx, &told);
    free(cosine);
    return st;
}

enum mode_status mode_validation_run(const struct mode_validation *v, struct mode_str *rows, struct mode_clip *clip,
                                     const struct mode_tokenizer *tokenizer, uint64_t step,
                                     const struct mode_validation_hook *hook, struct mode_error *err)
{
    struct mode_str fresh = {0};
    enum mode_status st = MODE_OK;
    for (size_t i = 0; !st && i < v->n; i++) st = run_task(&fresh, v, &v->set[i], clip, tokenizer, step, hook, err);
    if (!st) mode_str_add(rows, fresh.data, fresh.len);
    mode_str_clear(&fresh);
    return st;
}

bool mode_validation_last(uint64_t *step, const struct mode_str *rows)
{
    if (rows->len == 0) return false;
    const char *line = rows->data + rows->len - 1; /* the last newline */
    while (line > rows->data && line[-1] != '\n') line--;
    json_t *row = json_loads(line, 0, NULL);
    const json_t *s = json_object_get(row, "step");
    const bool is_row = json_is_integer(s);
    *step = is_row ? (uint64_t)json_integer_value(s) : 0;
    json_decref(row);
    return is_row;
}

static char *key_path(const char *dir, const char *model)
{
    return mode_xasprintf("%s/%s.key", dir, model);
}

static bool has_key(const char *path, const char *key)
{
    char *text = NULL;
    const bool same = mode_file_read(path, 0, &text, NULL, NULL) == MODE_OK && strcmp(text, key) == 0;
    free(text);
    return same;
}

enum mode_status mode_validation_begin(char **path, const char *dir, const char *model, const char *key,
                                       struct mode_error *err)
{
    char *file = key_path(dir, model);
    *path = mode_xasprintf("%s/%s.jsonl", dir, model);
    enum mode_status st = mode_dir_make(dir, err);
    if (!st && !has_key(file, key)) {
        unlink(*path); /* first, so that rows are never found with the key of another training */
        st = mode_file_write_atomic(file, key, strlen(key), err);
    }
    free(file);
    if (st) {
        free(*path);
        *path = NULL;
    }
    return st;
}

void mode_validation_keep(const char *dir, size_t n, char *const *model, const char *const *key)
{
    DIR *d = mode_fresh_opendir(dir);
    if (!d) return;
    for (const struct dirent *e; (e = readdir(d));) {
        bool stays = e->d_name[0] == '.';
        for (size_t i = 0; i < n && !stays; i++) {
            const size_t len = strlen(model[i]);
            char *file = key_path(dir, model[i]);
            stays = strncmp(e->d_name, model[i], len) == 0 && e->d_name[len] == '.' && has_key(file, key[i]);
            free(file);
        }
        if (stays) continue;
        char *path = mode_path_join(dir, e->d_name);
        unlink(path);
        free(path);
    }
    closedir(d);
}
