/* logistic.h - multinomial logistic regression: which of c classes a row of d numbers is, by a linear map.
 *
 * The map minimises, over weights w [c, d] and biases b [c],
 *
 *     (1 / n) sum of -log softmax(x w^T + b)[label]  +  |w|^2 / (2 C n)
 *
 * which has the minimum of scikit-learn's LogisticRegression(C=C): biases cost nothing, and C is not divided by how many
 * rows there are. Of two classes it has the difference of their weights alone, and holds that down: |w|^2 counts twice
 * here, which is the same minimum.
 *
 *     struct mode_logistic m;
 *     mode_rows_mean(mean, x, n, d);
 *     mode_rows_less(x, n, d, mean);                                // other rows as well, before they are scored
 *     st = mode_logistic_open(&m, be, x, label, n, d, c, &err);     // x and label are borrowed
 *     st = mode_logistic_fit(&m, &options, &fit, &err);             // m.w, m.b; again with another C: from there on
 *     mode_logistic_scores(&m, scores, other, n_other);
 *     mode_logistic_close(&m);
 *
 * Products are the backend's, in f32; softmax and loss of a row are made from them in double, and sums over rows, the
 * gradient, weights and all of L-BFGS are double. Rows are taken a few thousand at a time, so beside x nothing grows
 * with n.
 *
 * Take the mean off the rows first (mode_rows_less): biases cost nothing, so the minimum is the same, b taking up what w
 * makes of the mean. Features of a CLIP all lie in one narrow cone, and their mean is by far the longest direction: without
 * it the search is far shorter, and scores, which are f32, are small numbers that keep their digits.
 *
 * Threads: one caller; the bytes of a result do not depend on how many threads there are. */
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
    double *w, *b; /* [c, d], [c]: 0 to begin with */
    struct mode_logistic_room *room;
};

struct mode_logistic_options {
    double strength;  /* C: the larger, the less the weights are held down */
    double tolerance; /* the gradient's length at the end, as a share of its length where all weights are 0 */
    int max_iterations;
};
#define MODE_LOGISTIC_DEFAULT                                                                                          \
    {                                                                                                                  \
        .strength = 1, .tolerance = 1e-5, .max_iterations = 1000                                                       \
    }

struct mode_logistic_fit {
    double objective; /* as above */
    double gradient;  /* its length, as a share: at most the tolerance where it converged */
    int iterations, evaluations;
    bool converged;
};

/* mean [d] of x [n, d], n >= 1; and x less mean, in place. */
void mode_rows_mean(double *mean, const float *x, int64_t n, int64_t d);
void mode_rows_less(float *x, int64_t n, int64_t d, const double *mean);

/* Of the processor ("cpu", "ref"): memory of the host. MODE_E_VALUE: fewer than two classes, no row, a label out of
 * range, a class without a row, whose bias would have no minimum, or a number of x that is none. MODE_E_MEMORY. Close
 * also after a failure. */
enum mode_status mode_logistic_open(struct mode_logistic *m, struct mode_backend *be, const float *x,
                                    const int32_t *label, int64_t n, int64_t d, int64_t c, struct mode_error *err);
void mode_logistic_close(struct mode_logistic *m);
/* Bytes that open and fit take, x and label apart: as many for any number of rows. */
size_t mode_logistic_bytes(int64_t d, int64_t c);
/* From the weights that are there. */
enum mode_status mode_logistic_fit(struct mode_logistic *m, const struct mode_logistic_options *o,
                                   struct mode_logistic_fit *fit, struct mode_error *err);
/* The objective at m's weights, and its gradient dw [c, d], db [c] there. */
double mode_logistic_value(struct mode_logistic *m, double strength, double *dw, double *db);
/* scores [n, c] = x [n, d] w^T + b */
void mode_logistic_scores(struct mode_logistic *m, float *scores, const float *x, int64_t n);

#endif
