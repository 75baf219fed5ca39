/* ensemble_run.h - the ensembling step on plain paths: everything the service and `mode ensemble` share. */
#ifndef MODE_PIPELINE_ENSEMBLE_RUN_H
#define MODE_PIPELINE_ENSEMBLE_RUN_H

#include "pipeline/report.h"

struct mode_ensemble_run_task {
    const char *name;
    const char *dir; /* CLIP_benchmark folder, for class names and captions; NULL: numbers stand in */
    enum mode_task_kind kind;
    const char *words;         /* feat.safetensors */
    const char *const *logits; /* [n_models] */
};

struct mode_ensemble_selected {   /* a model that was trained for the words of tasks */
    const char *name, *selection; /* selection.safetensors; NULL: nobody says which clusters */
    const char *const *task;      /* [n_tasks] of the run's; 0: its words were nobody's */
    int n_tasks;
};

struct mode_ensemble_run {
    const char *run_name, *router, *spec; /* spec: text for the report, or NULL */
    const char *router_params;            /* mode_router_params_parse; NULL: the defaults */
    int top_experts;                      /* as in mode_ensemble_spec */
    uint64_t seed;                        /* of the sample pictures */
    const char *centres;
    int n_models, n_tasks, n_shards;
    const char *const *model; /* [n_models] expert-0 .. expert-(n-1), then dense, then seed, as there are; selected */
    const char *const *steps, *const *train; /* [n_models] steps.jsonl, train.json; entries, or all, may be NULL */
    const struct mode_ensemble_run_task *task;
    const struct mode_corpus_shard *shard; /* 0 shards: no corpus sections */
    const char *const *skipped;            /* [n_skipped] sentences: tasks that were left out, and why */
    int n_skipped;
    const struct mode_ensemble_selected *selected; /* [n_selected] the last models, in their order */
    int n_selected;
    void (*progress)(void *ctx, int done, int total);
    void *ctx;
};

struct mode_ensemble_outputs {
    const char *csv, *summary, *report, *weights;
};

/* sentence (malloc'd, may be NULL): the first verdict, of classification tasks where there are any and then of
 * retrieval; it stays as it was where there is no task to judge by. */
enum mode_status mode_ensemble_run(const struct mode_ensemble_run *run, const struct mode_ensemble_outputs *out,
                                   char **sentence, struct mode_error *err);

#endif
