/* probe.h - a linear probe: how well classes can be told apart by the image features of one CLIP, or of several together,
 * by a logistic regression that has seen labelled pictures. No text and no router: it asks what the features know.
 *
 *     st = mode_probe(&p, &spec, &train, &test, &err);      // p.scores [p.n_test, p.c]
 *     struct mode_result r = mode_probe_result(&p, &test, "dense");
 *     mode_probe_clear(&p);
 *
 * Features are those of zero-shot classification: of length 1. Several models' stand side by side, each of length 1, so
 * that every model has an equal say; a regression holds down weights of features of every scale alike, and would let a
 * model whose vectors happen to be longer speak for the others.
 *
 * How much the weights are held down (C, as scikit-learn has it) is chosen by a part of the training pictures, drawn from
 * each class by a seed: those with C = 1e-6, 1e-4 ... 1e6, then four times finer and finer about the best, down to eight
 * in a decade; each search goes on from the weights of a neighbour. The C of most pictures right, of equal ones the
 * smallest, is then taken for all training pictures. Test pictures are looked at once, at the end.
 *
 * Memory: features of all pictures, 4 bytes a number, once; nothing else grows with the number of pictures but their
 * labels, and the scores of the test.
 *
 * Source:  Radford et al. (arXiv:2103.00020), appendix A.3; MoDE (arXiv:2404.16030), for features side by side.
 * Threads: one caller per backend; the same bytes with any number of threads. */
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
    double accuracy; /* of the pictures held back */
    struct mode_logistic_fit fit;
};

struct mode_probe;
struct mode_probe_spec {
    struct mode_backend *be; /* makes features; regressions are the processor's */
    char *const *models;     /* [n_models] folders */
    int n_models;
    int64_t batch;                                        /* pictures at a time */
    uint64_t seed;                                        /* of which pictures are held back */
    double held_back;                                     /* their share, in (0, 1) */
    double strength;                                      /* C; 0: chosen as above, else nothing is held back */
    const struct mode_encode_hook *hook;                  /* may be NULL */
    void (*tried)(void *ctx, const struct mode_probe *p); /* told after each C, the last of p->tries; may be NULL */
    void *ctx;                                            /* its */
    size_t memory;                                        /* bytes that may be taken; 0: what is left on this machine */
};

enum { MODE_PROBE_TRIES = 15 };

struct mode_probe {
    int64_t n_train, n_held_back, n_test; /* n_train: with those held back */
    int64_t width, c;                     /* numbers of a picture; classes with training pictures */
    struct mode_probe_try tries[MODE_PROBE_TRIES];
    int n_tries; /* in the order in which they were made */
    struct mode_probe_try
        at;          /* the C that was taken, its accuracy before (NaN where none was held back), and the fit of all */
    float *scores;   /* [n_test, c] */
    int32_t *target; /* [n_test] in [0, c) */
};

/* MODE_E_FORMAT: a task that no probe is made of (retrieval, multilabel). mode_probe checks this too; ask first where
 * training data would otherwise be looked for in vain. */
enum mode_status mode_probe_check_kind(const struct mode_evalset *e, struct mode_error *err);
/* train and test: classification with the same class names in the same order. MODE_E_FORMAT, MODE_E_VALUE: another kind,
 * other class names, a class of the test that training never has, one class only, no class with a second picture to hold
 * back; MODE_E_SHAPE: a model has another width than the first; MODE_E_MEMORY says how much it would take. Clear also
 * after a failure. */
enum mode_status mode_probe(struct mode_probe *p, const struct mode_probe_spec *spec, const struct mode_evalset *train,
                            const struct mode_evalset *test, struct mode_error *err);
void mode_probe_clear(struct mode_probe *p);
/* Its scores as those of a classification of c classes; borrows all. */
struct mode_result mode_probe_result(const struct mode_probe *p, const struct mode_evalset *test,
                                     const char *model_name);

#endif
