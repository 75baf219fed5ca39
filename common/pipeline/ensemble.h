/* pipeline/ensemble.h - the experts' scores and the tasks' words to ensembles, measured.
 *
 * For every task and every router: weights from the words, the weighted sum of the experts' cosines, its
 * metrics. Retrieval: texts for an image are ranked with the task's weights, images for a text with that
 * text's own.
 *
 * A task gives one measure or two (mode_measures_of); result.csv has a row per measure. Rows are averaged and compared
 * by family: accuracies of classification tasks are one thing, recalls of retrieval, two of each task, another.
 *
 * Models come in a fixed order: expert-0 .. expert-(n-1), then dense, then seed where they were evaluated, then those
 * that were trained for the words of tasks, which are no part of the ensemble.
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
    const char *const *word;        /* [n_words] class names or captions; NULL: numbers stand in */
    int n_words;
};

struct mode_ensemble_spec {
    const char *centres_path;
    const char *const *model; /* [n_models] names; the first n are the experts, n = coarse groups of the centres */
    int n_models;
    int n_selected; /* of them, the last ones: trained for the words of tasks */
    const struct mode_ensemble_source *task;
    int n_tasks;             /* 0: no rows, nothing is compared, averages mean nothing */
    enum mode_router router; /* the one result.csv's `ensemble` column uses */
    struct mode_router_params params;
    int top_experts; /* only so many in the weights of every router but `uniform`; 0: all. An approximation */
    void (*progress)(void *ctx, int done, int total); /* tasks; may be NULL */
    void *ctx;
};

struct mode_ensemble_task {
    char *name;
    enum mode_task_kind kind;
    int64_t n_images, n_columns; /* columns: classes or texts */
    char **word;                 /* [near.k], owned; "#3" where no names were given */
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

struct mode_ensemble_row { /* one measure of one task */
    int task;
    enum mode_family family;
    enum mode_measure measure;
    char *dataset;     /* "flags", "retrieval_stamps image_retrieval_recall@1" */
    int64_t n_classes; /* answers to choose from */
    double chance;
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
    int top_experts; /* 0: all, also where the spec asks for as many as there are */
    struct mode_ensemble_task *task;
    struct mode_ensemble_row *row;
};

/* Clear also after a failure. Errors: MODE_E_FORMAT, MODE_E_VALUE (encoders differ; another number of experts
 * than coarse groups; scores of two models on one task that disagree in shape or truth; words and columns
 * disagree). */
enum mode_status mode_ensemble_open(struct mode_ensemble *e, const struct mode_ensemble_spec *spec,
                                    struct mode_error *err);
void mode_ensemble_close(struct mode_ensemble *e);

/* result.csv: unnamed index, dataset, num_classes, expert-0.., expert-max, all_unit, ensemble, then dense and
 * seed where evaluated, then models for tasks, metric; percent with four decimals; last rows `average_retrieval` and `average`, that of the
 * classification tasks (each where there are such tasks). Same inputs, same bytes. */
enum mode_status mode_ensemble_write_csv(const struct mode_ensemble *e, const char *path, struct mode_error *err);
/* weights.json: every task, every router: weights and entropy; every word: nearest fine centre, expert,
 * distance. */
enum mode_status mode_ensemble_write_weights(const struct mode_ensemble *e, const char *path, struct mode_error *err);

/* Two systems compared over rows. */
struct mode_comparison {
    const char *than; /* "dense", "the plain average of the experts", ... */
    const char *rows; /* what the rows are: "rows", "classification rows" */
    int n_rows;
    double mine, other;       /* averages over rows, in percent */
    double difference, error; /* points; error of the difference, from paired samples */
    int wins, ties, losses;   /* rows */
};
/* The mean over rows of a[r] against b[r]; all rows count alike. */
struct mode_comparison mode_compare(const char *than, const struct mode_outcome *const *a,
                                    const struct mode_outcome *const *b, int n_rows);
/* 1: better by more than two standard errors; -1: worse by as much; 0: neither. */
int mode_comparison_verdict(const struct mode_comparison *c);
/* "beats dense by 1.3 +- 0.4 points (31.2 against 29.9; better on 9 of 14 classification rows)" */
char *mode_comparison_sentence(const struct mode_comparison *c);

/* How many rows are of the family. */
int mode_ensemble_rows(const struct mode_ensemble *e, enum mode_family family);
/* On the rows of the family: router's ensemble against dense (where evaluated), the plain average, and the expert that
 * is best on average: up to three comparisons into out[3]; returns how many, 0 without rows. *best: that expert. */
int mode_ensemble_compare(const struct mode_ensemble *e, enum mode_family family, enum mode_router router,
                          struct mode_comparison out[3], int *best);
/* On the rows of the family that are of these tasks (n_tasks 0: of all): a model against dense (where evaluated) and the
 * ensemble, into out[2]; returns how many, 0 without rows. */
int mode_ensemble_compare_model(const struct mode_ensemble *e, enum mode_family family, int model,
                                const char *const *task, int n_tasks, struct mode_comparison out[2]);
/* Average over the family's rows in percent; NaN without rows. */
double mode_ensemble_model_average(const struct mode_ensemble *e, enum mode_family family, int model);
double mode_ensemble_router_average(const struct mode_ensemble *e, enum mode_family family, enum mode_router router);
/* Mean entropy of the router's weights over the family's tasks; NaN without tasks. */
double mode_ensemble_entropy(const struct mode_ensemble *e, enum mode_family family, enum mode_router router);
/* Are only top_experts in the router's weights? */
bool mode_ensemble_is_approximate(const struct mode_ensemble *e, enum mode_router router);
/* "The ensemble", or "The ensemble (approximate: 2 of 4 experts)"; malloc'd. */
char *mode_ensemble_name(const struct mode_ensemble *e, enum mode_router router);

#endif
