/* mode evaluate - evaluates one model on tasks in CLIP_benchmark's layout. */
#include "backend_option.h"
#include "base/file.h"
#include "base/options.h"
#include "base/output.h"
#include "base/parallel.h"
#include "base/str.h"
#include "data/tokenizer.h"
#include "hub.h"
#include "merges.h"
#include "models/clip.h"
#include "nn/backend.h"
#include "pipeline/defaults.h"
#include "pipeline/evaluate.h"
#include "pipeline/spec.h"
#include "ranges.h"
#include "scoring.h"
#include "tensor/tensor.h"
#include "verb.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct options {
    struct backend_options backend;
    const char *model, *name, *merges, *out;
    int64_t batch, threads;
    bool task, json;
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct options, model, "model", NULL, "DIR",
                 "folder of open_clip or Hugging Face, or hf-hub:ORG/NAME"),
    MODE_OPT_BARE(struct options, task, "task", "may precede the tasks: --task DIR DIR"),
    MODE_OPT_STR(struct options, name, "name", NULL, "NAME",
                 "name of the model in the results (default: the folder's name)"),
    MERGES_OPTION(struct options, merges),
    MODE_OPT_INT(struct options, batch, "batch", MODE_DEFAULT_EVALUATE_BATCH, "N", "images or texts in a batch"),
    MODE_OPT_STR(struct options, out, "out", NULL, "DIR", "write DIR/<task>/metrics.json and logits.safetensors"),
    BACKEND_OPTIONS(struct options),
    MODE_OPT_INT(struct options, threads, "threads", NULL, "N", "threads (default: every processor)"),
    MODE_OPT_FLAG(struct options, json, "json", "one CLIP_benchmark result object per line, one per task"),
    MODE_OPT_END};

static const struct option_range ranges[] = {RANGE("batch", 1, 1 << 20), RANGE_THREADS, RANGE_END};

static const char prose[] =
    "Zero-shot classification, single-label or multi-label, and retrieval. A task is a folder with classnames.txt, "
    "zeroshot_classification_templates.txt and test/, or dataset_type.txt = retrieval (docs/FORMATS.md; `mode pack "
    "--task` makes one of class folders, COCO's captions or a list of pairs). Metrics are fractions; \"-\" (null with "
    "--json) is what a task does not define.";

/* A task and its output paths, checked before anything is computed. */
struct task {
    const char *dir;
    char *name, *path[2]; /* of the two files in `folder`; NULL without --out */
    struct mode_output_folder folder;
};

/* evaluate.tasks of a run accepts a folder of tasks; here each task must be named, so that a wrong name is an error. */
static enum mode_status refuse(const char *dir, enum mode_status st, struct mode_error *err)
{
    struct mode_spec_list given = {0}, within = {0};
    mode_spec_list_add(&given, mode_xstrdup(dir));
    if (mode_spec_tasks(&given, "", &within, NULL, NULL) == MODE_OK && within.n && strcmp(within.item[0], dir) != 0)
        st = MODE_FAIL(err, st, "%s: is not a task, but a folder of %zu task%s. HINT: %s%s%s", dir, within.n,
                       MODE_PLURAL(within.n), within.n == 1 ? "" : "name them, ", within.item[0],
                       within.n == 1 ? "" : " and so on");
    mode_spec_list_clear(&given);
    mode_spec_list_clear(&within);
    return st;
}

static enum mode_status find_task(struct task *t, const char *dir, const char *out, struct mode_error *err)
{
    struct mode_evalset set = {0};
    t->dir = dir;
    enum mode_status st = mode_evalset_open(&set, dir, err);
    if (st) return refuse(dir, st, err);
    t->name = mode_xstrdup(set.name);
    mode_evalset_close(&set);
    if (!out) return MODE_OK;
    char *folder = mode_path_join(out, t->name);
    t->path[0] = mode_path_join(folder, "logits.safetensors");
    t->path[1] = mode_path_join(folder, "metrics.json");
    st = mode_output_apart(folder, &dir, 1, err);
    if (!st) st = mode_output_folder_make(&t->folder, folder, err);
    for (int i = 0; !st && i < 2; i++) st = mode_output_file(t->path[i], err);
    free(folder);
    return st;
}

static enum mode_status find_tasks(struct task *task, int n, char **dir, const char *out, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    for (int i = 0; !st && i < n; i++) {
        st = find_task(&task[i], dir[i], out, err);
        for (int k = 0; !st && out && k < i; k++)
            if (strcmp(task[k].name, task[i].name) == 0)
                st = MODE_FAIL(err, MODE_E_USAGE, "%s and %s: two tasks called \"%s\" have one place in --out",
                               task[k].dir, task[i].dir, task[i].name);
    }
    return st;
}

/* Removes folders of tasks without a result. */
static void free_tasks(struct task *task, int n)
{
    for (int i = 0; i < n; i++) {
        mode_output_folder_close(&task[i].folder, true);
        free(task[i].name);
        free(task[i].path[0]);
        free(task[i].path[1]);
    }
    free(task);
}

static enum mode_status write_files(const struct task *t, const struct mode_result *r, struct mode_error *err)
{
    struct mode_output_set set;
    enum mode_status st = mode_output_set_open(&set, (const char *const *)t->path, 2, err);
    if (st) return st;
    st = mode_result_write_logits(set.aside[0], r, err);
    if (!st) st = mode_result_write_metrics(set.aside[1], r, err);
    return mode_output_set_close(&set, st, err);
}

static enum mode_status one_task(const struct options *o, const struct task *task, struct mode_clip *clip,
                                 const struct mode_tokenizer *tokenizer, struct mode_error *err)
{
    struct mode_evalset set = {0};
    float *cosine = NULL;
    size_t bytes;
    json_t *json = NULL;
    enum mode_status st = mode_evalset_open(&set, task->dir, err);
    if (st) goto out;
    if (!mode_mul_size((size_t)set.n_images, (size_t)mode_evaluate_columns(&set) * sizeof(float), &bytes) ||
        !(cosine = malloc(bytes ? bytes : 1))) {
        st = MODE_FAIL(err, MODE_E_MEMORY, "task %s: no memory for its scores", set.name);
        goto out;
    }
    const struct mode_encode_hook hook = {
        .ctx = set.name, .more = isatty(2) ? scoring_more : NULL, .notice = scoring_notice};
    if ((st = mode_evaluate(cosine, clip, tokenizer, &set, o->batch, &hook, err))) goto out;
    struct mode_result r = mode_evaluate_result(&set, cosine, o->name);
    if ((st = mode_result_json(&json, &r, err))) goto out;
    scoring_print(set.name, json, o->json);
    if (o->out) st = write_files(task, &r, err);
out:
    json_decref(json);
    free(cosine);
    mode_evalset_close(&set);
    return st;
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct options o = {0};
    struct mode_backend *be = NULL;
    struct mode_clip *clip = NULL;
    struct mode_tokenizer *tokenizer = NULL;
    struct mode_output_folder out = {0};
    struct task *task = NULL;
    char *name = NULL, *fetched = NULL;
    int n = 0;
    enum mode_status st;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_", "mode evaluate --model DIR --task DIR... [--json] [--out DIR]", prose);
        return MODE_OK;
    }
    if ((st = mode_options_parse(&o, table, "MODE_", argc, argv, &n, err))) return st;
    if ((st = option_needed(o.model, "--model DIR", err)) ||
        (st = option_needed(n ? argv[1] : NULL, "a task's folder", err)) ||
        (st = ranges_check(&o, table, ranges, err)) || (st = backend_check(&o.backend, err)) ||
        (st = merges_find(&o.merges, err)))
        return st;
    if (o.threads > 0) mode_parallel_set_threads((int)o.threads);
    if ((st = mode_hub_clip(&o.model, &fetched, err))) goto out;
    name = scoring_name(o.model);
    if (!o.name) o.name = name;
    task = mode_xcalloc((size_t)n, sizeof *task);
    if ((o.out && (st = mode_output_apart(o.out, &o.model, 1, err))) ||
        (o.out && (st = mode_output_folder_make(&out, o.out, err))) || (st = find_tasks(task, n, argv + 1, o.out, err)))
        goto out;
    if ((st = mode_tokenizer_open_clip(&tokenizer, o.merges, MODE_CLIP_CLEAN_OPENAI, err))) goto out;
    if ((st = backend_open(&be, &o.backend, err))) goto out;
    if ((st = mode_clip_load(&clip, be, o.model, err))) goto out;
    if (mode_clip_note(clip)[0]) fprintf(stderr, "%s: %s\n", o.model, mode_clip_note(clip));
    for (int i = 0; !st && i < n; i++) st = one_task(&o, &task[i], clip, tokenizer, err);
out:
    if (task) free_tasks(task, n);
    mode_output_folder_close(&out, st != MODE_OK);
    mode_clip_close(&clip);
    mode_backend_close(&be);
    mode_tokenizer_close(&tokenizer);
    free(name);
    free(fetched);
    return st;
}

const struct mode_verb mode_verb_evaluate = {"evaluate", "score a model on CLIP_benchmark tasks", run};
