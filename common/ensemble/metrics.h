/* metrics.h - how good a matrix of scores is.
 *
 * Scores are higher-is-better: cosines of one expert, or the weighted sum of several experts' cosines. Every
 * metric is a fraction in [0, 1]. Equal scores are ordered by index, the lower first, so a constant matrix
 * has one result and not a lucky one.
 *
 *     struct mode_classification_metrics m;
 *     st = mode_classification_measure(&m, cosine, target, n, c, &err);   // m.acc1
 *
 * Dimensions: N images, C classes or texts; scores [N, C] f32 row-major, on the host.
 * Source:  CLIP_benchmark's definitions of acc1, acc5, mean_per_class_recall, mean_average_precision and recall@k;
 * ROC-AUC and the mean of top-1 and top-5 as the 26-task CLIP evaluation uses them. Threads: pure; large retrieval
 * matrices use the pool. */
#ifndef MODE_ENSEMBLE_METRICS_H
#define MODE_ENSEMBLE_METRICS_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

/* How many of the n values (stride apart) come before value number `of`: larger, or equal and earlier. */
int64_t mode_score_rank(const float *v, int64_t n, int64_t stride, int64_t of);

struct mode_classification_metrics {
    double acc1;
    double acc5;                  /* NaN below 5 classes                                          */
    double mean_per_class_recall; /* over the classes that occur in target; others are left out   */
    double mean_top1_top5;        /* (acc1 + acc5) / 2; NaN below 5 classes                       */
    double roc_auc;               /* of score[1] - score[0]; NaN unless C = 2 and both occur      */
};

/* target [N], each in [0, C). MODE_E_VALUE: N or C < 1, a target out of range, a score that is not finite
 * (the sentence names row and column); out is then undefined. */
enum mode_status mode_classification_measure(struct mode_classification_metrics *out, const float *scores,
                                             const int32_t *target, int64_t n, int64_t c, struct mode_error *err);

/* What the area under the ROC curve is the mean of, scores [N, 2]: placement [N] is for a positive (target 1) the share
 * of the negatives whose score[1] - score[0] is smaller, for a negative the share of the positives whose is larger;
 * equal ones count half. The mean over the positives is the area, that over the negatives too. False, and nothing is
 * written: one of the two does not occur. */
bool mode_auc_placements(double *placement, const float *scores, const int32_t *target, int64_t n);

/* Several classes may be right for a picture: target [N, C], each 0 or 1. The images are ranked once per class; the
 * class's average precision is the mean of the precisions at its positives, and *out the mean over all C classes. A
 * class without a positive counts 0, as CLIP_benchmark has it. Errors as above. */
enum mode_status mode_mean_average_precision(double *out, const float *scores, const int32_t *target, int64_t n,
                                             int64_t c, struct mode_error *err);
/* The precisions of class k: precision [N] is for a positive the share of positives among the images that rank no
 * lower, for others 0. */
void mode_class_precisions(double *precision, const float *scores, const int32_t *target, int64_t n, int64_t c,
                           int64_t k);

enum { MODE_RECALL_1, MODE_RECALL_5, MODE_RECALL_10, MODE_RECALL_COUNT };
extern const int mode_recall_k[MODE_RECALL_COUNT]; /* 1, 5, 10 */

struct mode_retrieval_metrics {
    double image_recall[MODE_RECALL_COUNT]; /* per text: is its image among the k best images?     */
    double text_recall[MODE_RECALL_COUNT];  /* per image: is any of its texts among the k best?    */
};

/* image_of_text [C], each in [0, N). An image without a text counts as a miss in text_recall (as
 * CLIP_benchmark has it). Errors as above. Works with any N, C >= 1: with fewer than k candidates everything
 * is a hit. */
enum mode_status mode_retrieval_measure(struct mode_retrieval_metrics *out, const float *scores,
                                        const int32_t *image_of_text, int64_t n, int64_t c, struct mode_error *err);

/* The half of mode_retrieval_measure that ranks images for texts, or texts for images: an ensemble weights
 * the two directions differently and so has two matrices. */
enum mode_status mode_image_recall(double out[MODE_RECALL_COUNT], const float *scores, const int32_t *image_of_text,
                                   int64_t n, int64_t c, struct mode_error *err);
enum mode_status mode_text_recall(double out[MODE_RECALL_COUNT], const float *scores, const int32_t *image_of_text,
                                  int64_t n, int64_t c, struct mode_error *err);

#endif
