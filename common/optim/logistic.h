/* logistic.h - multinomial logistic regression with L2 regularisation: linear probes of frozen features.
 *
 * It minimises, over weights w [c, d] and biases b [c], the mean cross-entropy with an L2 penalty:
 *
 *     (1 / n) sum of -log softmax(x w^T + b)[label]  +  |w|^2 / (2 C n)
 *
 * The minimum is that of scikit-learn's LogisticRegression(C=C): biases are not penalised, and C is not divided by the
 * number of rows. For two classes scikit-learn has one weight vector, the difference of ours, and penalises that. Its
 * minimum is ours with the penalty doubled, |w|^2 / (C n), which is what is used for c = 2.
 *
 *     struct mode_logistic m;
 *     mode_rows_mean(mean, x, n, d);
 *     mode_rows_less(x, n, d, mean);                                // and all rows that will be scored
 *     st = mode_logistic_open(&m, be, x, label, n, d, c, &err);     // x and label are borrowed
 *     st = mode_logistic_fit(&m, &options, &fit, &err);             // m.w, m.b; a second fit is warm-started
 *     mode_logistic_scores(&m, scores, other, n_other);
 *     mode_logistic_close(&m);
 *
 * Precision: GEMMs (scores, gradient of w over a batch) and exp are f32; the loss, sums over rows, gradients, weights
 * and L-BFGS are f64. Rows are processed in batches of at most 4096, so no memory beside x grows with n.
 *
 * Centre the rows first (mode_rows_less). Biases are not penalised, so the minimum is the same up to b. CLIP features
 * lie in a narrow cone, so their mean dominates them: without it L-BFGS needs far fewer iterations, and scores are
 * small and lose less to f32 rounding.
 *
 * Source:  scikit-learn's LogisticRegression(solver="lbfgs") is the reference; tests/golden compares the minima.
 * Threads: one caller; bit-identical for any number of threads. */
#ifndef MODE_OPTIM_LOGISTIC_H
#define MODE_OPTIM_LOGISTIC_H

#include "base/error.h"
#include "optim/lbfgs.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mode_backend;

struct mode_logistic {
    struct mode_backend *be;
    const float *x;       /* [n, d] */
    const int32_t *label; /* [n] in [0, c) */
    int64_t n, d, c;
    double *w, *b;                   /* [c, d], [c], owned; zero after open */
    struct mode_logistic_room *room; /* scratch */
};

struct mode_logistic_options {
    double strength;  /* scikit-learn's C, > 0: inverse regularisation strength */
    double tolerance; /* converged when the gradient's norm is at most this fraction of that at w = 0, b = 0 */
    int max_iterations;
};
#define MODE_LOGISTIC_DEFAULT                                                                                          \
    {                                                                                                                  \
        .strength = 1, .tolerance = 1e-5, .max_iterations = 1000                                                       \
    }

struct mode_logistic_fit {
    double objective; /* the minimised function, in nats */
    double gradient;  /* norm of its gradient, relative to that at w = 0, b = 0 */
    int iterations, evaluations;
    bool converged;
};

/* mean [d] of the rows of x [n, d], n >= 1; and x - mean, in place. */
void mode_rows_mean(double *mean, const float *x, int64_t n, int64_t d);
void mode_rows_less(float *x, int64_t n, int64_t d, const double *mean);

/* x [n, d] f32, host memory; be must be a CPU backend ("cpu", "ref"). MODE_E_VALUE: fewer than two classes, no row, a
 * label out of range, a class without rows (its bias would diverge), or x is not finite. MODE_E_MEMORY. Close also
 * after a failure. */
enum mode_status mode_logistic_open(struct mode_logistic *m, struct mode_backend *be, const float *x,
                                    const int32_t *label, int64_t n, int64_t d, int64_t c, struct mode_error *err);
void mode_logistic_close(struct mode_logistic *m);
/* Bytes that open and fit allocate; independent of n. */
size_t mode_logistic_bytes(int64_t d, int64_t c);
/* Minimises from the current w and b on (warm start). MODE_OK also without convergence: see fit. MODE_E_MEMORY;
 * MODE_E_VALUE: the objective is not finite at the start. */
enum mode_status mode_logistic_fit(struct mode_logistic *m, const struct mode_logistic_options *o,
                                   struct mode_logistic_fit *fit, struct mode_error *err);
/* The objective at m's w and b, and its gradients dw [c, d], db [c]. */
double mode_logistic_value(struct mode_logistic *m, double strength, double *dw, double *db);
/* scores [n, c] f32 = x [n, d] w^T + b, w and b rounded to f32. */
void mode_logistic_scores(struct mode_logistic *m, float *scores, const float *x, int64_t n);

#endif
