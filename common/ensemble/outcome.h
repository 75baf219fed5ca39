/* outcome.h - what a model got right, sample by sample, so that two models can be compared fairly.
 *
 * A metric here is a weighted mean over samples of a value in [0, 1]: 0 or 1, or a precision. Two models answer the
 * same samples, so the standard error of their difference comes from the differences sample by sample: much smaller
 * than from two separate proportions, and the one to believe. Precisions of one class hang together, since they come
 * from one ranking; their errors are taken as if they did not. Of an area under the ROC curve the values are the
 * placements of positives and negatives, and the errors DeLong's (Biometrics 44, 1988): the variances of the two means,
 * added.
 *
 * Equal scores: the lower index wins, as in metrics.h.
 * Threads: pure. */
#ifndef MODE_ENSEMBLE_OUTCOME_H
#define MODE_ENSEMBLE_OUTCOME_H

#include "data/evalset.h"

#include <stdbool.h>
#include <stdint.h>

enum mode_measure {
    MODE_MEASURE_ACC1,                   /* sample = image: is the best class its own?                    */
    MODE_MEASURE_MEAN_PER_CLASS,         /* the same, every class that occurs counts alike                */
    MODE_MEASURE_IMAGE_RECALL_1,         /* sample = text: is the best image its own?                     */
    MODE_MEASURE_TEXT_RECALL_1,          /* sample = image: is the best text one of its own?              */
    MODE_MEASURE_MEAN_AVERAGE_PRECISION, /* sample = image and a class it has; classes count alike     */
    MODE_MEASURE_TOP1_TOP5,              /* sample = image: 1 best class, 1/2 among the best five, or 0 */
    MODE_MEASURE_ROC_AUC                 /* sample = image: its placement (metrics.h)                   */
};
const char *mode_measure_name(enum mode_measure measure); /* "acc1", "image_retrieval_recall@1" */
/* What results of a task are judged by, in order; returns how many (1 or 2). Of a classification task its name decides:
 * for aircraft, pets, Caltech-101 and flowers the mean per class is customary, for Kinetics-700 the mean of top-1 and
 * top-5, for Hateful Memes the area under the ROC curve, for all others accuracy. Names are those of CLIP_benchmark in
 * any spelling: "vtab/pets", "wds_vtab-pets", "wds_fgvc_aircraft_test", "Flowers102". A name says nothing where the
 * measure is not defined: the area needs two classes, the top five at least five. */
enum { MODE_MEASURES_MOST = 2 };
int mode_measures_of(enum mode_measure out[MODE_MEASURES_MOST], enum mode_task_kind kind, const char *task,
                     int64_t n_classes);

struct mode_outcome {
    int64_t n;
    double *value;    /* [n] in [0, 1], owned */
    int n_strata;     /* strata have equal weight, samples in a stratum too */
    int32_t *stratum; /* [n], owned; NULL: one. A stratum without samples counts 0 */
    bool is_area;     /* every stratum's mean is the same area, and its error one part of the area's */
};

/* An area where only one of the two classes occurs is 1/2: nothing can be told apart.
 * scores [rows, cols]; truth: target [rows], image_of_text [cols] for the recalls, target [rows, cols] of 0 and 1 for
 * the average precision. */
void mode_outcome_make(struct mode_outcome *o, enum mode_measure measure, const float *scores, const int32_t *truth,
                       int64_t rows, int64_t cols);
void mode_outcome_clear(struct mode_outcome *o);
/* In [0, 1]; *error (may be NULL) is its standard error. */
double mode_outcome_mean(const struct mode_outcome *o, double *error);
/* Mean of a less mean of b, same samples; *error is the standard error of the difference. */
double mode_outcome_difference(const struct mode_outcome *a, const struct mode_outcome *b, double *error);
/* What the best answer that ignores its input scores: the most frequent class (acc1; and the five most frequent, for
 * top-1 and top-5), 1 / classes (mean per class), 1 / images, the mean share of an image's texts among all, the
 * expected precision of a random order, or half the area. */
double mode_measure_chance(enum mode_measure measure, const int32_t *truth, int64_t rows, int64_t cols);

#endif
