/* mode ensemble - experts' scores and task words on disk to tables and a report. */
#include "base/file.h"
#include "base/options.h"
#include "base/output.h"
#include "base/str.h"
#include "data/safetensors.h"
#include "pipeline/defaults.h"
#include "pipeline/ensemble_run.h"
#include "pipeline/spec.h"
#include "ranges.h"
#include "router_option.h"
#include "verb.h"

#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct options {
    struct router_options router;
    const char *centres, *results, *words, *tasks, *out, *captions, *assign, *shards, *train, *name, *models;
    int64_t seed;
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct options, centres, "centres", "centres.safetensors", "FILE", "of `mode cluster`"),
    MODE_OPT_STR(struct options, results, "results", NULL, "DIR",
                 "DIR/<model>/<task>/logits.safetensors of `mode evaluate`; models expert-0, expert-1, ..., "
                 "dense, seed"),
    MODE_OPT_STR(
        struct options, models, "models", NULL, "NAME[,NAME...]",
        "further models of --results, reported beside the experts as dense is: those of `mode train --selection`"),
    MODE_OPT_STR(struct options, words, "words", NULL, "DIR",
                 "DIR/<task>.safetensors: the tasks' words, of `mode embed --task`"),
    MODE_OPT_STR(struct options, tasks, "tasks", NULL, "DIR", "DIR/<task>: CLIP_benchmark folders, for class names"),
    ROUTER_OPTIONS(struct options, MODE_DEFAULT_ROUTER,
                   "router of the ensemble column of result.csv: paper | reference | uniform | coarse-centre | share"),
    MODE_OPT_STR(struct options, out, "out", ".", "DIR",
                 "where result.csv, weights.json, summary.json and report.html go"),
    MODE_OPT_STR(struct options, train, "train", NULL, "DIR",
                 "DIR/<model>/steps.jsonl and train.json, for the loss curves"),
    MODE_OPT_STR(struct options, captions, "captions", NULL, "GLOB", "captions.bin files, for words and the ledger"),
    MODE_OPT_STR(struct options, assign, "assign", NULL, "GLOB", "assign.safetensors files, in the same order"),
    MODE_OPT_STR(struct options, shards, "shards", NULL, "GLOB", "the shards, in the same order, for sample pictures"),
    MODE_OPT_STR(struct options, name, "name", "ensemble", "TEXT", "title of the report"),
    MODE_OPT_INT(struct options, seed, "seed", "0", "N", "seed of the sample pictures"),
    MODE_OPT_END};

static const struct option_range ranges[] = {RANGE_SEED, RANGE_END};

enum { MAX_MODELS = 4096, MAX_SELECTED = 1000, MOST_ROWS = MAX_MODELS + 2 + MAX_SELECTED };

/* Inputs found on disk; freed together. */
struct found {
    char *model[MOST_ROWS];
    const char *steps[MOST_ROWS], *train[MOST_ROWS];
    int n_models, n_selected; /* selected: of --models, the last ones */
    struct mode_ensemble_selected selected[MAX_SELECTED];
    glob_t tasks, captions, assign, shards;
    struct mode_ensemble_run_task *task;
    struct mode_corpus_shard *shard;
};

static char *existing(char *path)
{
    if (mode_file_exists(path)) return path;
    free(path);
    return NULL;
}

/* Adds the models of --models; their training data is unknown. */
static enum mode_status find_selected(struct found *f, const struct options *o, struct mode_error *err)
{
    char *list = o->models ? mode_xstrdup(o->models) : NULL, *rest = list;
    enum mode_status st = MODE_OK;
    for (char *name; !st && (name = strsep(&rest, ","));) {
        char *dir = mode_path_join(o->results, name);
        for (int m = 0; m < f->n_models && !st; m++)
            if (strcmp(f->model[m], name) == 0)
                st = MODE_FAIL(err, MODE_E_USAGE, "--models: %s is in the list already", name);
        if (!st && f->n_selected == MAX_SELECTED)
            st = MODE_FAIL(err, MODE_E_USAGE, "--models: more than %d", MAX_SELECTED);
        if (!st && !mode_spec_is_name(name))
            st = MODE_FAIL(err, MODE_E_USAGE,
                           "--models: \"%s\" is not a name, expected 1 to 64 letters, digits, '.', '_' or '-'", name);
        if (!st && mode_spec_is_taken(name))
            st = MODE_FAIL(err, MODE_E_USAGE,
                           "--models: %s is taken (seed, dense, expert-N, routers, columns of result.csv)", name);
        if (!st && !mode_file_exists(dir))
            st = MODE_FAIL(err, MODE_E_NOINPUT, "--models: %s has no folder \"%s\"", o->results, name);
        free(dir);
        if (st) break;
        f->model[f->n_models] = mode_xstrdup(name);
        f->selected[f->n_selected++] = (struct mode_ensemble_selected){.name = f->model[f->n_models++]};
    }
    free(list);
    return st;
}

static enum mode_status find_models(struct found *f, const struct options *o, struct mode_error *err)
{
    bool curves = false;
    const struct {
        const char *option, *dir;
    } in[] = {{"--results", o->results}, {"--words", o->words}, {"--tasks", o->tasks}, {"--train", o->train}};
    for (size_t i = 0; i < sizeof in / sizeof *in; i++) {
        enum mode_status st = in[i].dir ? mode_input_folder(in[i].dir, err) : MODE_OK;
        if (st) return mode_error_prefix(err, st, "%s", in[i].option);
    }
    for (int k = 0; k < MAX_MODELS; k++) {
        char *name = mode_xasprintf("expert-%d", k), *dir = mode_path_join(o->results, name);
        bool there = mode_file_exists(dir);
        free(dir);
        if (!there) {
            free(name);
            break;
        }
        f->model[f->n_models++] = name;
    }
    static const char *const others[] = {"dense", "seed"};
    for (int i = 0; i < 2; i++) {
        char *dir = mode_path_join(o->results, others[i]);
        if (mode_file_exists(dir)) f->model[f->n_models++] = mode_xstrdup(others[i]);
        free(dir);
    }
    enum mode_status st = find_selected(f, o, err);
    if (st) return st;
    for (int m = 0; m < f->n_models && o->train; m++) {
        f->steps[m] = existing(mode_xasprintf("%s/%s/steps.jsonl", o->train, f->model[m]));
        f->train[m] = existing(mode_xasprintf("%s/%s/train.json", o->train, f->model[m]));
        curves = curves || f->steps[m];
    }
    if (o->train && f->n_models > 0 && !curves)
        return MODE_FAIL(err, MODE_E_NOINPUT, "--train %s: has no %s/steps.jsonl, nor another model's", o->train,
                         f->model[0]);
    return MODE_OK;
}

/* Derives a task's kind from its logits: one target or several per image, or the image of every text. */
static enum mode_status kind_of(enum mode_task_kind *kind, const char *path, struct mode_error *err)
{
    struct mode_safetensors f;
    enum mode_status st = mode_safetensors_open(&f, path, err);
    if (st) return st;
    const struct mode_tensor *target = mode_safetensors_find(&f, "target");
    *kind = mode_safetensors_find(&f, "image_of_text") ? MODE_TASK_RETRIEVAL
            : target && target->n_dims == 2            ? MODE_TASK_MULTILABEL
                                                       : MODE_TASK_CLASSIFICATION;
    mode_safetensors_close(&f);
    return MODE_OK;
}

static enum mode_status find_tasks(struct found *f, const struct options *o, struct mode_error *err)
{
    char *pattern = mode_xasprintf("%s/expert-0/*/logits.safetensors", o->results);
    int none = glob(pattern, 0, NULL, &f->tasks);
    free(pattern);
    if (none || f->n_models == 0)
        return MODE_FAIL(err, MODE_E_NOINPUT,
                         "%s: no expert-0/<task>/logits.safetensors. HINT: `mode evaluate --out %s/expert-0`",
                         o->results, o->results);
    f->task = mode_xcalloc(f->tasks.gl_pathc, sizeof *f->task);
    for (size_t t = 0; t < f->tasks.gl_pathc; t++) {
        struct mode_ensemble_run_task *x = &f->task[t];
        char *dir = mode_xstrdup(f->tasks.gl_pathv[t]);
        *strrchr(dir, '/') = 0;
        x->name = mode_xstrdup(mode_path_base(dir));
        free(dir);
        enum mode_status st = kind_of(&x->kind, f->tasks.gl_pathv[t], err);
        if (st) return st;
        x->words = mode_xasprintf("%s/%s.safetensors", o->words, x->name);
        x->dir = o->tasks ? mode_path_join(o->tasks, x->name) : NULL;
        const char **logits = mode_xcalloc((size_t)f->n_models, sizeof *logits);
        for (int m = 0; m < f->n_models; m++)
            logits[m] = mode_xasprintf("%s/%s/%s/logits.safetensors", o->results, f->model[m], x->name);
        x->logits = logits;
    }
    return MODE_OK;
}

static enum mode_status find_all(glob_t *found, const char *pattern, const char *option, struct mode_error *err)
{
    if (!pattern || glob(pattern, 0, NULL, found) == 0) return MODE_OK;
    return MODE_FAIL(err, MODE_E_NOINPUT, "%s: no file matches \"%s\"", option, pattern);
}

static enum mode_status find_shards(struct found *f, const struct options *o, struct mode_error *err)
{
    if (!o->captions && !o->assign && !o->shards) return MODE_OK;
    enum mode_status st;
    if (!o->captions || !o->assign)
        return MODE_FAIL(err, MODE_E_USAGE, "--captions and --assign go together%s; %s is missing",
                         o->shards ? ", and --shards with them" : "", o->captions ? "--assign" : "--captions");
    if ((st = find_all(&f->captions, o->captions, "--captions", err)) ||
        (st = find_all(&f->assign, o->assign, "--assign", err)) ||
        (st = find_all(&f->shards, o->shards, "--shards", err)))
        return st;
    if (f->captions.gl_pathc != f->assign.gl_pathc)
        return MODE_FAIL(err, MODE_E_USAGE, "--captions names %zu file%s, --assign %zu: expected as many of each",
                         f->captions.gl_pathc, MODE_PLURAL(f->captions.gl_pathc), f->assign.gl_pathc);
    if (o->shards && f->shards.gl_pathc != f->assign.gl_pathc)
        return MODE_FAIL(err, MODE_E_USAGE,
                         "--shards names %zu file%s, --captions and --assign %zu: expected as many of each",
                         f->shards.gl_pathc, MODE_PLURAL(f->shards.gl_pathc), f->assign.gl_pathc);
    for (size_t i = 0; i < f->shards.gl_pathc; i++) {
        struct mode_mapping map;
        if ((st = mode_file_map(f->shards.gl_pathv[i], &map, err))) return st;
        mode_file_unmap(&map);
    }
    f->shard = mode_xcalloc(f->captions.gl_pathc, sizeof *f->shard);
    for (size_t i = 0; i < f->captions.gl_pathc; i++)
        f->shard[i] = (struct mode_corpus_shard){f->captions.gl_pathv[i], f->assign.gl_pathv[i],
                                                 o->shards ? f->shards.gl_pathv[i] : NULL};
    return MODE_OK;
}

static enum mode_status check_outputs(const char *const *path, size_t n, const struct found *f, const char *centres,
                                      struct mode_error *err)
{
    const glob_t *const lists[] = {&f->captions, &f->assign, &f->shards};
    enum mode_status st = MODE_OK;
    for (size_t i = 0; !st && i < n; i++) {
        st = mode_output_apart(path[i], &centres, 1, err);
        for (size_t k = 0; !st && k < 3; k++)
            st = mode_output_apart(path[i], (const char *const *)lists[k]->gl_pathv, lists[k]->gl_pathc, err);
    }
    return st;
}

static void clear(struct found *f)
{
    for (size_t t = 0; f->task && t < f->tasks.gl_pathc; t++) {
        for (int m = 0; f->task[t].logits && m < f->n_models; m++) free((char *)f->task[t].logits[m]);
        free((void *)f->task[t].logits);
        free((char *)f->task[t].name);
        free((char *)f->task[t].words);
        free((char *)f->task[t].dir);
    }
    for (int m = 0; m < f->n_models; m++) {
        free(f->model[m]);
        free((char *)f->steps[m]);
        free((char *)f->train[m]);
    }
    free(f->task);
    free(f->shard);
    globfree(&f->tasks);
    globfree(&f->captions);
    globfree(&f->assign);
    globfree(&f->shards);
    free(f);
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct options o = {0};
    int n_args;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_", "mode ensemble --results DIR --words DIR [options]",
                          "Weights the experts by every task's words, mixes their scores, and writes result.csv, "
                          "weights.json, summary.json and report.html.");
        return MODE_OK;
    }
    enum mode_status st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err);
    if (st) return st;
    if ((st = arguments_check(n_args, 0, argv, NULL, err)) || (st = option_needed(o.results, "--results DIR", err)) ||
        (st = option_needed(o.words, "--words DIR", err)) || (st = ranges_check(&o, table, ranges, err)))
        return st;
    enum mode_router router;
    struct mode_router_params params;
    if ((st = router_check(&o.router, &router, &params, err))) return st;
    struct found *f = mode_xcalloc(1, sizeof *f);
    char *sentence = NULL, *csv = mode_path_join(o.out, "result.csv"), *summary = mode_path_join(o.out, "summary.json"),
         *report = mode_path_join(o.out, "report.html"), *weights = mode_path_join(o.out, "weights.json");
    const char *const names[] = {weights, summary, report, csv}; /* the result last */
    struct mode_output_folder folder = {0};
    struct mode_output_set set = {0};
    if ((st = find_models(f, &o, err)) || (st = find_tasks(f, &o, err)) || (st = find_shards(f, &o, err)) ||
        (st = check_outputs(names, 4, f, o.centres, err)) || (st = mode_output_folder_make(&folder, o.out, err)) ||
        (st = mode_output_set_open(&set, names, 4, err)))
        goto out;
    struct mode_ensemble_run r = {.run_name = o.name,
                                  .router = o.router.name,
                                  .router_params = o.router.params,
                                  .top_experts = o.router.top > 0 ? (int)o.router.top : 0,
                                  .seed = (uint64_t)o.seed,
                                  .centres = o.centres,
                                  .n_models = f->n_models,
                                  .selected = f->selected,
                                  .n_selected = f->n_selected,
                                  .n_tasks = (int)f->tasks.gl_pathc,
                                  .n_shards = (int)f->captions.gl_pathc,
                                  .model = (const char *const *)f->model,
                                  .steps = o.train ? f->steps : NULL,
                                  .train = f->train,
                                  .task = f->task,
                                  .shard = f->shard};
    const struct mode_ensemble_outputs files = {
        .weights = set.aside[0], .summary = set.aside[1], .report = set.aside[2], .csv = set.aside[3]};
    st = mode_ensemble_run(&r, &files, &sentence, err);
    if ((st = mode_output_set_close(&set, st, err))) goto out;
    printf("%s\n%s\n%s\n", sentence, csv, report);
out:
    mode_output_folder_close(&folder, st != MODE_OK);
    clear(f);
    free(sentence);
    free(csv);
    free(summary);
    free(report);
    free(weights);
    return st;
}

const struct mode_verb mode_verb_ensemble = {"ensemble", "experts' scores and task words to tables and a report", run};
