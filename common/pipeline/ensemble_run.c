#include "pipeline/ensemble_run.h"

#include "base/file.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>

static bool is_expert(const char *model)
{
    return strncmp(model, "expert-", 7) == 0;
}

/* Curves in the order of the legend, which is also that of drawing: seed, dense, then the experts, which lie on top. */
static enum mode_status load_curves(struct mode_curve *curve, int *n, const struct mode_ensemble_run *run,
                                    struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    *n = 0;
    for (int k = 0; k < 2 * run->n_models && run->steps && !st; k++) {
        bool experts = k >= run->n_models;
        int i = experts ? k - run->n_models : run->n_models - 1 - k; /* the models are experts, dense, seed */
        if (is_expert(run->model[i]) != experts || !run->steps[i]) continue;
        st = mode_curve_load(&curve[(*n)++], run->model[i], run->steps[i], run->train ? run->train[i] : NULL, err);
    }
    return st;
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
    struct mode_ensemble_spec spec = {.centres_path = run->centres,
                                      .model = run->model,
                                      .n_models = run->n_models,
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
    if ((st = load_curves(curve, &n_curves, run, err))) goto out;
    struct mode_report report = {.run_name = run->run_name,
                                 .spec = run->spec,
                                 .ensemble = &e,
                                 .corpus = run->n_shards > 0 ? &corpus : NULL,
                                 .curve = curve,
                                 .n_curves = n_curves,
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
    free(source);
    free(set);
    return st;
}
