/* materialise.c - the results for people after a run: <workspace>/report and <workspace>/experts. */
#include "run.h"

#include "base/file.h"
#include "base/fresh.h"
#include "base/str.h"
#include "pipeline/validation.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Replaces the folder of that name by a finished one: readers see the old or the new one, complete. */
static enum mode_status swap_in(const char *fresh, const char *final, struct mode_error *err)
{
    if (renameat2(AT_FDCWD, fresh, AT_FDCWD, final, RENAME_EXCHANGE) == 0) return mode_dir_remove(fresh, err);
    if (errno != ENOENT) { /* a filesystem without RENAME_EXCHANGE: the folder is missing for a moment */
        enum mode_status st = mode_dir_remove(final, err);
        if (st) return st;
    }
    if (rename(fresh, final) != 0)
        return MODE_FAIL(err, MODE_E_CREATE, "%s cannot be renamed to %s: %s", fresh, final, strerror(errno));
    return MODE_OK;
}

/* The path of a node's output. A damaged one is recorded, so that it can be remade. */
static enum mode_status output_path(char **path, struct plan *p, const struct plan_node *x, const char *name,
                                    struct mode_error *err)
{
    const Mode__Blob *blob = plan_output(x, name);
    *path = NULL;
    if (!blob) return MODE_FAIL(err, MODE_E_FORMAT, "the commit record of %s has no %s", x->label, name);
    enum mode_status st = mode_store_blob_path(p->store, path, blob->digest, blob->size, err);
    if (st == MODE_E_FORMAT || st == MODE_E_NOINPUT) {
        p->bad_node = (uint32_t)(x - p->node);
        p->bad = blob;
    }
    return st;
}

/* Places the node's outputs of these names in folder <parent>/<name>. With a cost they are copies, since people edit
 * reports, into which the cost and the results during training (validation: a folder) are inserted. */
static enum mode_status make_folder(struct plan *p, const struct plan_node *x, const char *parent, const char *name,
                                    const char *const *files, const struct mode_report_cost *cost,
                                    const char *validation, struct mode_error *err)
{
    char *fresh = mode_xasprintf("%s/.%s.new", parent, name), *final = mode_path_join(parent, name);
    enum mode_status st = mode_dir_remove(fresh, err);
    if (!st) st = mode_dir_make(fresh, err);
    for (; *files && !st; files++) {
        char *from, *to = mode_path_join(fresh, *files);
        if (!(st = output_path(&from, p, x, *files, err))) st = mode_file_copy(from, to, cost == NULL, err);
        free(from);
        free(to);
    }
    if (!st && cost) {
        char *html = mode_path_join(fresh, "report.html"), *summary = mode_path_join(fresh, "summary.json");
        st = mode_report_complete(html, summary, cost, validation, err);
        free(html);
        free(summary);
    }
    if (!st) st = swap_in(fresh, final, err);
    free(fresh);
    free(final);
    return st;
}

static enum mode_status write_index(struct plan *p, const char *dir, struct mode_error *err)
{
    json_t *models = json_array();
    for (uint32_t m = 0; m < p->n_models; m++) {
        const struct plan_node *x = &p->node[plan_model_node(p, m)];
        const Mode__Blob *weights = plan_output(x, "open_clip_model.safetensors");
        char *name = plan_model_name(p, m);
        json_t *note = x->commit->note ? json_loads(x->commit->note, 0, NULL) : NULL;
        json_array_append_new(models,
                              json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:f, s:o}", "name", name, "run",
                                        p->spec.name, "key", x->key, "digest", weights ? weights->digest : "", "bytes",
                                        (json_int_t)(weights ? weights->size : 0), "rows_in",
                                        (json_int_t)x->commit->rows_in, "rows_out", (json_int_t)x->commit->rows_out,
                                        "seconds", x->commit->seconds, "note", note ? note : json_null()));
        free(name);
    }
    json_t *root = json_pack("{s:s, s:s, s:s, s:I, s:s, s:s, s:o}", "run", p->spec.name, "router", p->spec.router,
                             "router_params", p->spec.router_params, "top_experts", (json_int_t)p->spec.top_experts,
                             "encoder", p->spec.encoder.dir, "clip_merges", p->spec.tokenizer_merges, "models", models);
    char *text = json_dumps(root, JSON_INDENT(2)), *path = mode_path_join(dir, "index.json");
    enum mode_status st = mode_file_write_atomic(path, text, strlen(text), err);
    free(path);
    free(text);
    json_decref(root);
    return st;
}

/* Copies the centres of all experts, used for routing words. */
static enum mode_status copy_centres(struct plan *p, const char *dir, struct mode_error *err)
{
    static const char name[] = "centres.safetensors";
    const struct plan_node *x = &p->node[plan_centres_node(p, plan_experts(p) - 1)];
    char *from, *to = mode_path_join(dir, name);
    enum mode_status st = output_path(&from, p, x, name, err);
    if (!st) st = mode_file_copy(from, to, true, err);
    free(from);
    free(to);
    return st;
}

/* Whether a model named by the index is replaced or removed by this run. Readers of the folders must then notice: the
 * index is removed until all folders are of one run again. An additional expert does not matter. */
static bool replaces(struct plan *p, const char *dir)
{
    char *path = mode_path_join(dir, "index.json");
    json_t *index = json_load_file(path, 0, NULL), *x;
    bool same = true;
    size_t i;
    json_array_foreach(json_object_get(index, "models"), i, x)
    {
        const char *name = json_string_value(json_object_get(x, "name")),
                   *digest = json_string_value(json_object_get(x, "digest"));
        bool found = false;
        for (uint32_t m = 0; m < p->n_models && name && digest && !found; m++) {
            const Mode__Blob *weights = plan_output(&p->node[plan_model_node(p, m)], "open_clip_model.safetensors");
            char *one = plan_model_name(p, m);
            found = weights && strcmp(one, name) == 0 && strcmp(weights->digest, digest) == 0;
            free(one);
        }
        same &= found;
    }
    json_decref(index);
    free(path);
    return !same;
}

static enum mode_status remove_index(const char *dir, struct mode_error *err)
{
    char *path = mode_path_join(dir, "index.json");
    enum mode_status st = MODE_OK;
    if (unlink(path) != 0 && errno != ENOENT) st = mode_output_fail(err, errno, path, "be removed");
    free(path);
    return st;
}

static bool is_model_of(const struct plan *p, const char *name)
{
    bool found = false;
    for (uint32_t m = 0; m < p->n_models && !found; m++) {
        char *one = plan_model_name(p, m);
        found = strcmp(one, name) == 0;
        free(one);
    }
    return found;
}

/* Removes models that the index names and the run no longer has, such as those of experts_for removed from the spec.
 * The index stays until all of them are removed. */
static enum mode_status remove_former(const struct plan *p, const char *dir, struct mode_error *err)
{
    char *path = mode_path_join(dir, "index.json");
    json_t *index = json_load_file(path, 0, NULL), *x;
    enum mode_status st = MODE_OK;
    size_t i;
    free(path);
    json_array_foreach(json_object_get(index, "models"), i, x)
    {
        const char *name = json_string_value(json_object_get(x, "name"));
        if (st || !name || !*name || name[0] == '.' || strchr(name, '/') || is_model_of(p, name)) continue;
        path = mode_path_join(dir, name);
        st = mode_dir_remove(path, err);
        free(path);
    }
    json_decref(index);
    return st;
}

/* Removes experts of an earlier run with more of them: their files stay in the store, and resubmitting that run
 * recreates their folders. */
static enum mode_status remove_others(const struct plan *p, const char *dir, struct mode_error *err)
{
    DIR *d = mode_fresh_opendir(dir);
    enum mode_status st = MODE_OK;
    if (!d) return MODE_FAIL(err, MODE_E_NOINPUT, "%s cannot be read: %s", dir, strerror(errno));
    for (struct dirent *e; !st && (e = readdir(d)) != NULL;) {
        size_t digits = strncmp(e->d_name, "expert-", 7) == 0 ? strspn(e->d_name + 7, "0123456789") : 0;
        if (digits == 0 || e->d_name[7 + digits] || is_model_of(p, e->d_name)) continue;
        char *path = mode_path_join(dir, e->d_name);
        st = mode_dir_remove(path, err);
        free(path);
    }
    closedir(d);
    return st;
}

/* Adds a name to a list like "cpu-avx2, cuda", unless it is there already or does not fit. */
static void add_backend(char *list, size_t size, const char *name)
{
    size_t len = strlen(list), n = strlen(name);
    for (const char *at = list; (at = strstr(at, name)); at += n)
        if ((at == list || at[-1] == ' ') && (at[n] == ',' || at[n] == '\0')) return;
    if (len + n + 3 <= size) snprintf(list + len, size - len, "%s%s", len ? ", " : "", name);
}

/* Adds the stages that have tasks; returns their number. */
static int add_stages(struct mode_report_stage stage[PLAN_STAGES], const struct plan *p)
{
    int at = 0;
    for (enum plan_stage k = 0; k < PLAN_STAGES; k++) {
        if (p->first[k] == p->first[k + 1]) continue;
        stage[at] = (struct mode_report_stage){.name = plan_stage_name(k), .service = plan_stage_service(k)};
        for (uint32_t n = p->first[k]; n < p->first[k + 1]; n++) {
            const Mode__Commit *c = p->node[n].commit;
            stage[at].tasks++;
            stage[at].seconds += c->seconds;
            if (c->peak_rss_bytes > stage[at].peak_rss_bytes) stage[at].peak_rss_bytes = c->peak_rss_bytes;
            if (c->backend) add_backend(stage[at].backends, sizeof stage[at].backends, c->backend);
        }
        at++;
    }
    return at;
}

/* Drops results during training of models of the same name that were trained under an earlier spec. */
static void keep_validations(const struct plan *p, const char *dir)
{
    char **model = mode_xcalloc(p->n_models, sizeof *model);
    const char **key = mode_xcalloc(p->n_models, sizeof *key);
    for (uint32_t m = 0; m < p->n_models; m++) {
        model[m] = plan_model_name(p, m);
        key[m] = p->node[plan_model_node(p, m)].key;
    }
    mode_validation_keep(dir, p->n_models, model, key);
    for (uint32_t m = 0; m < p->n_models; m++) free(model[m]);
    free(model);
    free(key);
}

/* Resubmitting a finished run rewrites its report: keeps what was measured while it ran. */
static void add_earlier(struct peaks *peaks, const char *workspace, const char *key)
{
    char *path = mode_path_join(workspace, "report/summary.json");
    json_t *o = json_load_file(path, 0, NULL), *x;
    const char *of = json_string_value(json_object_get(o, "key"));
    size_t i;
    if (of && strcmp(of, key) == 0) json_array_foreach(json_object_get(o, "processes"), i, x)
        {
            const char *name = json_string_value(json_object_get(x, "name"));
            json_int_t bytes = json_integer_value(json_object_get(x, "peak_rss_bytes"));
            if (name && bytes > 0) peaks_note(peaks, name, (uint64_t)bytes);
        }
    json_decref(o);
    free(path);
}

static enum mode_status make_report(struct plan *p, const struct peaks *peaks, const char *workspace,
                                    struct mode_error *err)
{
    static const char *const files[] = {"result.csv", "summary.json", "report.html", "weights.json", NULL};
    const struct plan_node *ensemble = &p->node[p->first[PLAN_ENSEMBLE]];
    struct mode_report_stage stage[PLAN_STAGES];
    struct peaks all = {0};
    for (int i = 0; i < peaks->n; i++) peaks_note(&all, peaks->item[i].name, peaks->item[i].peak_rss_bytes);
    peaks_measure(&all, NULL);
    add_earlier(&all, workspace, ensemble->key);
    int n_stages = add_stages(stage, p);
    struct mode_report_cost cost = {ensemble->key, stage, n_stages, all.item, all.n};
    char *validation = mode_xasprintf("%s/runs/%s/validation", workspace, p->spec.name);
    keep_validations(p, validation);
    enum mode_status st = make_folder(p, ensemble, workspace, "report", files, &cost, validation, err);
    free(validation);
    peaks_clear(&all);
    return st;
}

enum mode_status materialise_experts(struct plan *p, const char *workspace, struct mode_error *err)
{
    static const char *const expert[] = {"open_clip_config.json", "open_clip_model.safetensors", NULL};
    char *experts = mode_path_join(workspace, "experts");
    enum mode_status st = mode_dir_make(experts, err);
    if (!st) st = remove_former(p, experts, err);
    if (!st && replaces(p, experts)) st = remove_index(experts, err);
    for (uint32_t m = 0; m < p->n_models && !st; m++) {
        char *name = plan_model_name(p, m);
        st = make_folder(p, &p->node[plan_model_node(p, m)], experts, name, expert, NULL, NULL, err);
        free(name);
    }
    if (!st) st = copy_centres(p, experts, err);
    if (!st) st = write_index(p, experts, err);
    if (!st) st = remove_others(p, experts, err);
    free(experts);
    return st;
}

enum mode_status materialise(struct plan *p, const struct peaks *peaks, const char *workspace, struct mode_error *err)
{
    enum mode_status st = materialise_experts(p, workspace, err);
    return st ? st : make_report(p, peaks, workspace, err);
}
