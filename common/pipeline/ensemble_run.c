#include "pipeline/ensemble_run.h"

#include "base/file.h"
#include "base/str.h"
#include "ensemble/selection.h"

#include <stdlib.h>
#include <string.h>

/* Drawing layer of a model's curve: 0 for seed and dense, 1 for experts, 2 for task-specific models. */
static int layer_of(const struct mode_ensemble_run *run, int i)
{
    if (i >= run->n_models - run->n_selected) return 2;
    return strncmp(run->model[i], "expert-", 7) == 0;
}

/* Curves in the order of the legend and of drawing: seed, dense, then the experts on top, then task-specific models. */
static enum mode_status load_curves(struct mode_curve *curve, int *n, const struct mode_ensemble_run *run,
                                    struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    *n = 0;
    for (int k = 0; k < 3 * run->n_models && run->steps && !st; k++) {
        const int layer = k / run->n_models, at = k % run->n_models;
        int i = layer ? at : run->n_models - 1 - at; /* the models are experts, dense, seed */
        if (layer_of(run, i) != layer || !run->steps[i]) continue;
        st = mode_curve_load(&curve[(*n)++], run->model[i], run->steps[i], run->train ? run->train[i] : NULL, err);
    }
    return st;
}

/* The selected fine centres of task-specific models, and their pairs. */
static enum mode_status load_selected(struct mode_report_selected *out, const struct mode_ensemble_run *run,
                                      const struct mode_ensemble *e, const struct mode_corpus *corpus,
                                      struct mode_error *err)
{
    for (int j = 0; j < run->n_selected; j++) {
        const struct mode_ensemble_selected *x = &run->selected[j];
        struct mode_selection s;
        out[j] = (struct mode_report_selected){
            .model = run->n_models - run->n_selected + j, .task = x->task, .n_tasks = x->n_tasks};
        if (!x->selection) continue;
        enum mode_status st = mode_selection_load(&s, x->selection, err);
        if (!st && s.m > e->centres.m)
            st = MODE_FAIL(err, MODE_E_FORMAT, "%s: chooses among %d fine centres, there are %d", x->selection, s.m,
                           e->centres.m);
        out[j].n_fine = s.n_chosen;
        out[j].n_among = s.m;
        for (int i = 0; i < s.m && !st && run->n_shards > 0; i++)
            if (s.chosen[i]) out[j].rows += corpus->fine_rows[i];
        mode_selection_clear(&s);
        if (st) return mode_error_prefix(err, st, "the selection of %s", x->name);
    }
    return MODE_OK;
}

enum mode_status mode_ensemble_run(const struct mode_ensemble_run *run, const struct mode_ensemble_outputs *out,
                                   char **sentence, struct mode_error *err)
{
    enum mode_status st;
    struct mode_ensemble e = {0};
    struct mode_corpus corpus = {0};
    char digest[MODE_DIGEST_HEX];
    int n_curves = 0;
    struct mode_evalset *set = mode_xcalloc((size_t)run->n_tasks + 1, sizeof *set);
    struct mode_ensemble_source *source = mode_xcalloc((size_t)run->n_tasks + 1, sizeof *source);
    struct mode_curve *curve = mode_xcalloc((size_t)run->n_models + 1, sizeof *curve);
    struct mode_report_selected *selected = mode_xcalloc((size_t)run->n_selected + 1, sizeof *selected);
    struct mode_ensemble_spec spec = {.centres_path = run->centres,
                                      .model = run->model,
                                      .n_models = run->n_models,
                                      .n_selected = run->n_selected,
                                      .task = source,
                                      .n_tasks = run->n_tasks,
                                      .top_experts = run->top_experts,
                                      .progress = run->progress,
                                      .ctx = run->ctx};
    if ((st = mode_router_parse(&spec.router, run->router, err)) ||
        (st = mode_router_params_parse(&spec.params, run->router_params, err)))
        goto out;
    for (int t = 0; t < run->n_tasks; t++) {
        const struct mode_ensemble_run_task *x = &run->task[t];
        source[t] = (struct mode_ensemble_source){
            .name = x->name, .kind = x->kind, .words_path = x->words, .logits_path = x->logits};
        if (!x->dir) continue;
        if ((st = mode_evalset_open(&set[t], x->dir, err))) goto out;
        bool retrieval = x->kind == MODE_TASK_RETRIEVAL;
        source[t].word = (const char *const *)(retrieval ? set[t].texts : set[t].classes);
        source[t].n_words = retrieval ? set[t].n_texts : set[t].n_classes;
    }
    if ((st = mode_ensemble_open(&e, &spec, err))) goto out;
    if (run->n_shards > 0 &&
        ((st = mode_digest_file(run->centres, digest, NULL, err)) ||
         (st = mode_corpus_open(&corpus, run->shard, run->n_shards, &e.centres, digest, run->seed, err))))
        goto out;
    if ((st = load_curves(curve, &n_curves, run, err)) || (st = load_selected(selected, run, &e, &corpus, err)))
        goto out;
    struct mode_report report = {.run_name = run->run_name,
                                 .spec = run->spec,
                                 .ensemble = &e,
                                 .corpus = run->n_shards > 0 ? &corpus : NULL,
                                 .curve = curve,
                                 .n_curves = n_curves,
                                 .selected = selected,
                                 .n_selected = run->n_selected,
                                 .skipped = run->skipped,
                                 .n_skipped = run->n_skipped};
    if ((st = mode_ensemble_write_csv(&e, out->csv, err)) ||
        (st = mode_ensemble_write_weights(&e, out->weights, err)) ||
        (st = mode_summary_write(&report, out->summary, err)) || (st = mode_report_write(&report, out->report, err)))
        goto out;
    for (int k = 0; k < MODE_FAMILY_COUNT && sentence && !*sentence; k++) {
        struct mode_comparison c[3];
        int best;
        if (!mode_ensemble_compare(&e, (enum mode_family)k, e.router, c, &best)) continue;
        char *first = mode_comparison_sentence(&c[0]), *name = mode_ensemble_name(&e, e.router);
        *sentence = mode_xasprintf("%s %s.", name, first);
        free(first);
        free(name);
    }
out:
    for (int i = 0; i < n_curves; i++) mode_curve_clear(&curve[i]);
    for (int t = 0; t < run->n_tasks; t++) mode_evalset_close(&set[t]);
    mode_corpus_close(&corpus);
    mode_ensemble_close(&e);
    free(curve);
    free(selected);
    free(source);
    free(set);
    return st;
}
