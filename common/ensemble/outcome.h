/* outcome.h - a model's per-sample results, so that two models can be compared by paired differences.
 *
 * A metric here is a weighted mean over samples of a value in [0, 1]: 0 or 1, or a precision. Two models are evaluated
 * on the same samples, so the standard error of their difference is that of the paired differences: much smaller than
 * for two independent proportions, and the right one. Precisions of one class are correlated, since they come from one
 * ranking; their standard errors ignore that. For ROC-AUC the values are the placements of positives and negatives, and
 * the standard error is DeLong's (Biometrics 44, 1988): the sum of the variances of the two means.
 *
 * Ties go to the lower index, as in metrics.h.
 * Threads: reentrant. */
#ifndef MODE_ENSEMBLE_OUTCOME_H
#define MODE_ENSEMBLE_OUTCOME_H

#include "data/evalset.h"

#include <stdbool.h>
#include <stdint.h>

enum mode_measure {
    MODE_MEASURE_ACC1,                   /* sample = image: is the top class the right one?             */
    MODE_MEASURE_MEAN_PER_CLASS,         /* the same, averaged per class, then over classes that occur  */
    MODE_MEASURE_IMAGE_RECALL_1,         /* sample = text: is the top image its own?                    */
    MODE_MEASURE_TEXT_RECALL_1,          /* sample = image: is the top text one of its own?             */
    MODE_MEASURE_MEAN_AVERAGE_PRECISION, /* sample = (image, positive class): precision; mean by class  */
    MODE_MEASURE_TOP1_TOP5,              /* sample = image: 1 if top-1, 1/2 if top-5, else 0            */
    MODE_MEASURE_ROC_AUC                 /* sample = image: its placement (metrics.h)                   */
};
const char *mode_measure_name(enum mode_measure measure); /* "acc1", "image_retrieval_recall@1" */
/* The metrics reported for a task, in order; returns their number (1 or 2). The name of a classification task decides:
 * mean per class for aircraft, pets, Caltech-101 and flowers, the mean of top-1 and top-5 for Kinetics-700, ROC-AUC for
 * Hateful Memes, accuracy for all others. Names are CLIP_benchmark's in any spelling: "vtab/pets", "wds_vtab-pets",
 * "wds_fgvc_aircraft_test", "Flowers102". Accuracy also where the metric is undefined: ROC-AUC needs exactly two
 * classes, top-5 at least five. */
enum { MODE_MEASURES_MOST = 2 };
int mode_measures_of(enum mode_measure out[MODE_MEASURES_MOST], enum mode_task_kind kind, const char *task,
                     int64_t n_classes);

struct mode_outcome {
    int64_t n;
    double *value;    /* [n] in [0, 1], owned */
    int n_strata;     /* the metric is the mean of the strata's means */
    int32_t *stratum; /* [n] in [0, n_strata), owned; NULL: one stratum. A stratum without samples counts 0 */
    bool is_area;     /* ROC-AUC: each of the two strata's means is the AUC, and their variances add up */
};

/* scores [rows, cols] f32; truth: target [rows], or image_of_text [cols] for the recalls, or target [rows, cols] of 0
 * and 1 for mean average precision. ROC-AUC is 1/2 if only one class occurs. Clear o with mode_outcome_clear. */
void mode_outcome_make(struct mode_outcome *o, enum mode_measure measure, const float *scores, const int32_t *truth,
                       int64_t rows, int64_t cols);
void mode_outcome_clear(struct mode_outcome *o);
/* In [0, 1]; *error (may be NULL) is its standard error. */
double mode_outcome_mean(const struct mode_outcome *o, double *error);
/* Mean of a minus mean of b, on the same samples; *error is the paired standard error of the difference. */
double mode_outcome_difference(const struct mode_outcome *a, const struct mode_outcome *b, double *error);
/* Chance level, the score of the best constant answer: the most frequent class (acc1; and the five most frequent, for
 * top-1 and top-5), 1 / classes (mean per class), 1 / images (both recalls), the expected average precision of a random
 * ranking, or 1/2 (ROC-AUC). */
double mode_measure_chance(enum mode_measure measure, const int32_t *truth, int64_t rows, int64_t cols);

#endif
