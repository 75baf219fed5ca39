/* board.c - the curves of a finished run: <workspace>/runs/<name>/tensorboard/<model>. Workers wrote them during
 * training; this adds models trained by another run and the results of evaluations, and removes models of an earlier
 * spec. */
#include "run.h"

#include "base/file.h"
#include "base/fresh.h"
#include "base/log.h"
#include "base/str.h"
#include "pipeline/board.h"
#include "pipeline/checkpoint.h"

#include <dirent.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* The output of that name of a committed node; the caller frees. */
static enum mode_status read_output(char **data, const struct plan *p, const struct plan_node *x, const char *name,
                                    struct mode_error *err)
{
    const Mode__Blob *blob = plan_output(x, name);
    char *path = NULL;
    if (!blob) return MODE_FAIL(err, MODE_E_FORMAT, "the commit record of %s has no %s", x->label, name);
    enum mode_status st = mode_store_blob_path(p->store, &path, blob->digest, blob->size, err);
    if (!st) st = mode_file_read(path, 0, data, NULL, err);
    free(path);
    return st;
}

static enum mode_status model(const struct plan *p, const struct mode_board_place *place, uint32_t m,
                              const struct plan_node *trained, struct mode_error *err)
{
    struct mode_board_scalars r = {0};
    char *text = NULL;
    uint64_t last = 0;
    enum mode_status st = read_output(&text, p, trained, MODE_FILE_STEPS, err);
    if (!st) st = mode_board_complete(&last, place, text, err);
    free(text);
    for (uint32_t n = p->first[PLAN_EVALUATE]; !st && n < p->first[PLAN_EVALUATE + 1]; n++) {
        if (p->node[n].a != m || (st = read_output(&text, p, &p->node[n], "metrics.json", err))) continue;
        json_t *result = json_loads(text, 0, NULL);
        mode_board_metrics(&r, result);
        json_decref(result);
        free(text);
    }
    if (!st && r.n) st = mode_board_results(place, last, r.s, r.n, err);
    mode_board_scalars_clear(&r);
    return st;
}

/* Removes models that the run no longer has. */
static void remove_others(const struct plan *p, const char *dir)
{
    DIR *d = mode_fresh_opendir(dir);
    if (!d) return;
    for (const struct dirent *e; (e = readdir(d));) {
        bool ours = e->d_name[0] == '.';
        for (uint32_t m = 0; m < p->n_models && !ours; m++) {
            char *name = plan_model_name(p, m);
            ours = strcmp(name, e->d_name) == 0;
            free(name);
        }
        if (ours) continue;
        char *path = mode_path_join(dir, e->d_name);
        mode_dir_remove(path, NULL);
        free(path);
    }
    closedir(d);
}

void board_complete(struct plan *p, const char *workspace)
{
    char *dir = mode_xasprintf("%s/runs/%s/tensorboard", workspace, p->spec.name);
    for (uint32_t m = 0; m < p->n_models; m++) {
        const struct plan_node *x = &p->node[plan_model_node(p, m)];
        struct mode_error err = {0};
        char *name = plan_model_name(p, m), *path = mode_path_join(dir, name);
        const struct mode_board_place place = {path, x->commit->fence};
        if (model(p, &place, m, x, &err))
            mode_log_warn("curve_not_written", "run=%s model=%s %s", p->spec.name, name, err.text);
        free(name);
        free(path);
    }
    remove_others(p, dir);
    free(dir);
}
