/* probe.h - linear probe: logistic regression on frozen image features of one CLIP, or of several concatenated. It uses
 * neither text nor router.
 *
 *     st = mode_probe(&p, &spec, &train, &test, &err);      // p.scores [p.n_test, p.c]
 *     struct mode_result r = mode_probe_result(&p, &test, "dense");
 *     mode_probe_clear(&p);
 * Features are L2-normalised, as in zero-shot classification. Those of several models are concatenated, each of norm 1,
 * so that every model has equal influence: an L2 penalty is not scale-invariant and would favour a model with longer
 * vectors.
 *
 * The inverse regularisation strength C (scikit-learn's) is chosen on a validation split of the training pictures,
 * stratified by class and drawn by a seed: a sweep over C = 1e-6, 1e-4 ... 1e6, then a binary search around the best,
 * down to eight steps per decade; each fit is warm-started from a neighbour. The C with the highest validation accuracy
 * (ties to the smallest) is then fitted to all training pictures. The test pictures are scored once, at the end.
 *
 * Memory: f32 features of all pictures, once. Beside them only labels and test scores grow with the number of pictures.
 *
 * Source:  Radford et al. (arXiv:2103.00020), appendix A.3; MoDE (arXiv:2404.16030), for concatenated features.
 * Threads: one caller per backend; bit-identical for any number of threads. */
#ifndef MODE_PIPELINE_PROBE_H
#define MODE_PIPELINE_PROBE_H

#include "base/error.h"
#include "data/evalset.h"
#include "optim/logistic.h"
#include "pipeline/encode.h"
#include "pipeline/result.h"

#include <stdbool.h>
#include <stdint.h>

struct mode_backend;

struct mode_probe_try {
    double strength; /* C */
    double accuracy; /* on the validation split, a fraction */
    struct mode_logistic_fit fit;
};

struct mode_probe;
struct mode_probe_spec {
    struct mode_backend *be; /* computes features; the regression runs on the CPU */
    char *const *models;     /* [n_models] folders */
    int n_models;
    int64_t batch;                                        /* pictures at a time */
    uint64_t seed;                                        /* of the validation split */
    double held_back;                                     /* its fraction, in (0, 1) */
    double strength;                                      /* C; 0: chosen as above; otherwise there is no split */
    const struct mode_encode_hook *hook;                  /* may be NULL */
    void (*tried)(void *ctx, const struct mode_probe *p); /* after each C, the last of p->tries; may be NULL */
    void *ctx;                                            /* of tried */
    size_t memory;                                        /* limit in bytes; 0: the machine's available memory */
};

enum { MODE_PROBE_TRIES = 15 };

struct mode_probe {
    int64_t n_train, n_held_back, n_test; /* n_train includes the validation split */
    int64_t width, c;                     /* features of a picture; classes with training pictures */
    struct mode_probe_try tries[MODE_PROBE_TRIES];
    int n_tries;              /* in the order they were made */
    struct mode_probe_try at; /* the chosen C, its validation accuracy (NaN without a split), the fit of all pictures */
    float *scores;            /* [n_test, c] */
    int32_t *target;          /* [n_test] in [0, c) */
};

/* MODE_E_FORMAT: the task's kind has no probe (retrieval, multilabel). mode_probe checks this too; call it first where
 * missing training data would otherwise be the error. */
enum mode_status mode_probe_check_kind(const struct mode_evalset *e, struct mode_error *err);
/* train and test: classification tasks with the same class names in the same order. MODE_E_FORMAT, MODE_E_VALUE:
 * another kind, other class names, a test class without training pictures, only one class, no class with two pictures
 * to split; MODE_E_SHAPE: models differ in width; MODE_E_MEMORY: the error says how much is needed. Clear also after a
 * failure. */
enum mode_status mode_probe(struct mode_probe *p, const struct mode_probe_spec *spec, const struct mode_evalset *train,
                            const struct mode_evalset *test, struct mode_error *err);
void mode_probe_clear(struct mode_probe *p);
/* The scores as a classification result with c classes, which borrows its arguments. */
struct mode_result mode_probe_result(const struct mode_probe *p, const struct mode_evalset *test,
                                     const char *model_name);

#endif
