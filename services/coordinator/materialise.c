/* materialise.c - what people look for after a run: <workspace>/report and <workspace>/experts. */
#include "run.h"

#include "base/file.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Swap a finished folder in for the one of that name: readers see the old one or the new one, whole. */
static enum mode_status swap_in(const char *fresh, const char *final, struct mode_error *err)
{
    if (renameat2(AT_FDCWD, fresh, AT_FDCWD, final, RENAME_EXCHANGE) == 0) return mode_dir_remove(fresh, err);
    if (errno != ENOENT) { /* a filesystem without exchange: a moment without the folder */
        enum mode_status st = mode_dir_remove(final, err);
        if (st) return st;
    }
    if (rename(fresh, final) != 0)
        return MODE_FAIL(err, MODE_E_CREATE, "%s cannot become %s: %s", fresh, final, strerror(errno));
    return MODE_OK;
}

/* The node's outputs of these names, as files of folder <parent>/<name>. */
static enum mode_status make_folder(struct plan *p, const struct plan_node *x, const char *parent, const char *name,
                                    const char *const *files, bool link, struct mode_error *err)
{
    char *fresh = mode_xasprintf("%s/.%s.new", parent, name), *final = mode_path_join(parent, name);
    enum mode_status st = mode_dir_remove(fresh, err);
    if (!st) st = mode_dir_make(fresh, err);
    for (; *files && !st; files++) {
        const Mode__Blob *blob = plan_output(x, *files);
        char *from = NULL, *to = mode_path_join(fresh, *files);
        if (!blob)
            st = MODE_FAIL(err, MODE_E_FORMAT, "the commit record of %s has no %s", x->label, *files);
        else if (!(st = mode_store_blob_path(p->store, &from, blob->digest, blob->size, err)))
            st = mode_file_copy(from, to, link, err);
        free(from);
        free(to);
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
        char *name = plan_model_name(m);
        json_t *note = x->commit->note ? json_loads(x->commit->note, 0, NULL) : NULL;
        json_array_append_new(models,
                              json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:f, s:o}", "name", name, "run",
                                        p->spec.name, "key", x->key, "digest", weights ? weights->digest : "", "bytes",
                                        (json_int_t)(weights ? weights->size : 0), "rows_in",
                                        (json_int_t)x->commit->rows_in, "rows_out", (json_int_t)x->commit->rows_out,
                                        "seconds", x->commit->seconds, "note", note ? note : json_null()));
        free(name);
    }
    json_t *root = json_pack("{s:s, s:o}", "run", p->spec.name, "models", models);
    char *text = json_dumps(root, JSON_INDENT(2)), *path = mode_path_join(dir, "index.json");
    enum mode_status st = mode_file_write_atomic(path, text, strlen(text), err);
    free(path);
    free(text);
    json_decref(root);
    return st;
}

enum mode_status materialise(struct plan *p, const char *workspace, struct mode_error *err)
{
    static const char *const report[] = {"result.csv", "summary.json", "report.html", "weights.json", NULL};
    static const char *const expert[] = {"open_clip_config.json", "open_clip_model.safetensors", NULL};
    char *experts = mode_path_join(workspace, "experts");
    enum mode_status st = mode_dir_make(experts, err);
    for (uint32_t m = 0; m < p->n_models && !st; m++) {
        char *name = plan_model_name(m);
        st = make_folder(p, &p->node[plan_model_node(p, m)], experts, name, expert, true, err);
        free(name);
    }
    if (!st) st = write_index(p, experts, err);
    /* copies, not links: people edit reports */
    if (!st) st = make_folder(p, &p->node[p->first[PLAN_ENSEMBLE]], workspace, "report", report, false, err);
    free(experts);
    return st;
}
