/* pipeline/ensemble.h - the ensembling step: the experts' scores and the tasks' words to ensembles and their metrics.
 *
 * For every task and every router: weights from the words, the weighted sum of the experts' cosines, and its
 * metrics. Retrieval: image-to-text ranking uses the task's weights, text-to-image the weights of each text query.
 *
 * A task has one or two metrics (mode_measures_of); result.csv has a row per metric. Rows are averaged and compared
 * by family: accuracies of classification tasks, and recalls of retrieval tasks (two per task).
 *
 * Models are in a fixed order: expert-0 .. expert-(n-1), then dense and seed if they were evaluated, then task-specific
 * models (experts_for), which are not part of the ensemble.
 *
 * Source:  MoDE (arXiv:2404.16030) section 3.3; docs/FORMATS.md.
 * Threads: a finished struct is read-only. */
#ifndef MODE_PIPELINE_ENSEMBLE_H
#define MODE_PIPELINE_ENSEMBLE_H

#include "data/evalset.h"
#include "ensemble/outcome.h"
#include "ensemble/router.h"

#include <jansson.h>

struct mode_ensemble_source { /* one task's files */
    const char *name;
    enum mode_task_kind kind;
    const char *words_path;         /* feat.safetensors: class vectors, or caption vectors */
    const char *const *logits_path; /* [n_models] logits.safetensors, in model order       */
    const char *const *word;        /* [n_words] class names or captions; NULL: "#0", "#1" ...   */
    int n_words;
};

struct mode_ensemble_spec {
    const char *centres_path;
    const char *const *model; /* [n_models] names; the first n are the experts, n = coarse groups of the centres */
    int n_models;
    int n_selected; /* the last of them, which are task-specific */
    const struct mode_ensemble_source *task;
    int n_tasks;             /* 0: no rows, no comparisons, averages are NaN */
    enum mode_router router; /* of the `ensemble` column of result.csv */
    struct mode_router_params params;
    int top_experts; /* experts with a weight above 0 at most, except for `uniform`; 0: all. An approximation */
    void (*progress)(void *ctx, int done, int total); /* in tasks; may be NULL */
    void *ctx;
};

struct mode_ensemble_task {
    char *name;
    enum mode_task_kind kind;
    int64_t n_images, n_columns; /* columns: classes or texts */
    char **word;                 /* [near.k], owned; "#3" if no names were given */
    struct mode_near near;
    double *weight[MODE_ROUTER_COUNT]; /* [n] */
    double entropy[MODE_ROUTER_COUNT]; /* nats */
    json_t **model_metrics;            /* [n_models] objects as in metrics.json */
    json_t *router_metrics[MODE_ROUTER_COUNT];
};

#define MODE_FAMILY_MAP(X)                                                                                             \
    X(CLASSIFICATION, "classification") /* with one label or several */                                                \
    X(RETRIEVAL, "retrieval")

enum mode_family {
#define X(name, text) MODE_FAMILY_##name,
    MODE_FAMILY_MAP(X)
#undef X
        MODE_FAMILY_COUNT
};
const char *mode_family_name(enum mode_family family);

struct mode_ensemble_row { /* one metric of one task */
    int task;
    enum mode_family family;
    enum mode_measure measure;
    char *dataset;              /* "flags", "retrieval_stamps image_retrieval_recall@1" */
    int64_t n_classes;          /* number of candidate answers */
    double chance;              /* chance level, a fraction (mode_measure_chance) */
    struct mode_outcome *model; /* [n_models] */
    struct mode_outcome router[MODE_ROUTER_COUNT];
};

struct mode_ensemble {
    struct mode_centres centres;
    int n, n_models, n_tasks, n_rows;
    int dense, seed; /* index of that model, or -1 */
    int n_selected;
    char **model;
    enum mode_router router;
    struct mode_router_params params;
    int top_experts; /* 0: all, also if the spec has n or more */
    struct mode_ensemble_task *task;
    struct mode_ensemble_row *row;
};

/* Close also after a failure. Errors: MODE_E_FORMAT, MODE_E_VALUE (encoders differ; the number of experts is not that
 * of the coarse groups; scores of two models on a task disagree in shape or truth; words and columns disagree). */
enum mode_status mode_ensemble_open(struct mode_ensemble *e, const struct mode_ensemble_spec *spec,
                                    struct mode_error *err);
void mode_ensemble_close(struct mode_ensemble *e);

/* result.csv: unnamed index, dataset, num_classes, expert-0.., expert-max, all_unit, ensemble, then dense and seed if
 * evaluated, then task-specific models, metric; percent with four decimals; last rows `average_retrieval` and
 * `average`, which is that of classification (each if there are such tasks). Same inputs, same bytes. */
enum mode_status mode_ensemble_write_csv(const struct mode_ensemble *e, const char *path, struct mode_error *err);
/* weights.json: for every task and router the weights and their entropy; for every word its nearest fine centre, expert
 * and distance. */
enum mode_status mode_ensemble_write_weights(const struct mode_ensemble *e, const char *path, struct mode_error *err);

/* Two systems compared over rows. */
struct mode_comparison {
    const char *than; /* "dense", "the plain average of the experts", ... */
    const char *row;  /* what to call a row: "row", "classification row" */
    int n_rows;
    double mine, other;       /* averages over rows, in percent */
    double difference, error; /* percentage points; error: paired standard error of the difference */
    int wins, ties, losses;   /* rows */
};
/* The unweighted mean over rows of a[r] compared with that of b[r]. */
struct mode_comparison mode_compare(const char *than, const struct mode_outcome *const *a,
                                    const struct mode_outcome *const *b, int n_rows);
/* 1: better by more than two standard errors; -1: worse by as much; 0: neither. */
int mode_comparison_verdict(const struct mode_comparison *c);
/* "beats dense by 1.3 +- 0.4 points (31.2 against 29.9; better on 9 of 14 classification rows)"; malloc'd. */
char *mode_comparison_sentence(const struct mode_comparison *c);

/* The number of rows of the family. */
int mode_ensemble_rows(const struct mode_ensemble *e, enum mode_family family);
/* On the rows of the family: the router's ensemble compared with dense (if evaluated), the plain average, and the
 * expert with the best average, into out[3]; returns the number of comparisons, 0 without rows. *best: that expert. */
int mode_ensemble_compare(const struct mode_ensemble *e, enum mode_family family, enum mode_router router,
                          struct mode_comparison out[3], int *best);
/* On the rows of the family and these tasks (n_tasks 0: all tasks): a model compared with dense (if evaluated) and the
 * ensemble, into out[2]; returns the number of comparisons, 0 without rows. */
int mode_ensemble_compare_model(const struct mode_ensemble *e, enum mode_family family, int model,
                                const char *const *task, int n_tasks, struct mode_comparison out[2]);
/* Average over the family's rows in percent; NaN without rows. */
double mode_ensemble_model_average(const struct mode_ensemble *e, enum mode_family family, int model);
double mode_ensemble_router_average(const struct mode_ensemble *e, enum mode_family family, enum mode_router router);
/* Mean entropy of the router's weights over the family's tasks; NaN without tasks. */
double mode_ensemble_entropy(const struct mode_ensemble *e, enum mode_family family, enum mode_router router);
/* Does top_experts restrict the router's weights? */
bool mode_ensemble_is_approximate(const struct mode_ensemble *e, enum mode_router router);
/* "The ensemble", or "The ensemble (approximate: 2 of 4 experts)"; malloc'd. */
char *mode_ensemble_name(const struct mode_ensemble *e, enum mode_router router);

#endif
