/* ensemble_run.h - the ensembling step on plain paths, as the service and `mode ensemble` run it.
 *
 * Threads: one caller. */
#ifndef MODE_PIPELINE_ENSEMBLE_RUN_H
#define MODE_PIPELINE_ENSEMBLE_RUN_H

#include "pipeline/report.h"

struct mode_ensemble_run_task {
    const char *name;
    const char *dir; /* CLIP_benchmark folder, for class names and captions; NULL: "#0", "#1" ... */
    enum mode_task_kind kind;
    const char *words;         /* feat.safetensors */
    const char *const *logits; /* [n_models] */
};

struct mode_ensemble_selected {   /* a task-specific model */
    const char *name, *selection; /* selection.safetensors; NULL: not known */
    const char *const *task;      /* [n_tasks] the run's tasks whose words selected its data; 0: other words */
    int n_tasks;
};

struct mode_ensemble_run {
    const char *run_name, *router, *spec; /* spec: text for the report, or NULL */
    const char *router_params;            /* mode_router_params_parse; NULL: the defaults */
    int top_experts;                      /* as in mode_ensemble_spec */
    uint64_t seed;                        /* of the sample pictures */
    const char *centres;
    int n_models, n_tasks, n_shards;
    const char *const *model;                /* [n_models] names, in the order of mode_ensemble_spec */
    const char *const *steps, *const *train; /* [n_models] steps.jsonl, train.json; entries, or all, may be NULL */
    const struct mode_ensemble_run_task *task;
    const struct mode_corpus_shard *shard; /* [n_shards]; 0: no corpus sections */
    const char *const *skipped;            /* [n_skipped] sentences: tasks that were skipped, and why */
    int n_skipped;
    const struct mode_ensemble_selected *selected; /* [n_selected] the last models, in their order */
    int n_selected;
    void (*progress)(void *ctx, int done, int total);
    void *ctx;
};

struct mode_ensemble_outputs {
    const char *csv, *summary, *report, *weights;
};

/* Writes all outputs. sentence (malloc'd, may be NULL): the first verdict, on classification tasks, or on retrieval
 * tasks if there are no others; untouched without tasks. Errors: those of mode_ensemble_open and mode_corpus_open, and
 * of writing. */
enum mode_status mode_ensemble_run(const struct mode_ensemble_run *run, const struct mode_ensemble_outputs *out,
                                   char **sentence, struct mode_error *err);

#endif
