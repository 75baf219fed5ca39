/* outcome.h - what a model got right, sample by sample, so that two models can be compared fairly.
 *
 * A metric here is a weighted mean over samples of 0 or 1. Two models answer the same samples, so the
 * standard error of their difference comes from the differences sample by sample: much smaller than from two
 * separate proportions, and the one to believe.
 *
 * Equal scores: the lower index wins, as in metrics.h.
 * Threads: pure. */
#ifndef MODE_ENSEMBLE_OUTCOME_H
#define MODE_ENSEMBLE_OUTCOME_H

#include <stdint.h>

enum mode_measure {
    MODE_MEASURE_ACC1,           /* sample = image: is the best class its own?                    */
    MODE_MEASURE_MEAN_PER_CLASS, /* the same, every class that occurs counts alike                */
    MODE_MEASURE_IMAGE_RECALL_1, /* sample = text: is the best image its own?                     */
    MODE_MEASURE_TEXT_RECALL_1   /* sample = image: is the best text one of its own?              */
};
const char *mode_measure_name(enum mode_measure measure); /* "acc1", "image_retrieval_recall@1" */

struct mode_outcome {
    int64_t n;
    unsigned char *hit; /* [n], owned */
    int n_strata;       /* strata have equal weight, samples in a stratum too */
    int32_t *stratum;   /* [n], owned; NULL: one */
};

/* scores [rows, cols]; truth: target [rows], or image_of_text [cols] for the recalls. */
void mode_outcome_make(struct mode_outcome *o, enum mode_measure measure, const float *scores, const int32_t *truth,
                       int64_t rows, int64_t cols);
void mode_outcome_clear(struct mode_outcome *o);
/* In [0, 1]; *error (may be NULL) is its standard error. */
double mode_outcome_mean(const struct mode_outcome *o, double *error);
/* Mean of a less mean of b, same samples; *error is the standard error of the difference. */
double mode_outcome_difference(const struct mode_outcome *a, const struct mode_outcome *b, double *error);
/* What the best answer that ignores its input scores: the most frequent class (acc1), 1 / classes (mean per
 * class), 1 / images, or the mean share of an image's texts among all. */
double mode_measure_chance(enum mode_measure measure, const int32_t *truth, int64_t rows, int64_t cols);

#endif
