/* metrics.h - zero-shot metrics of a score matrix: classification, multi-label classification, retrieval.
 *
 * Higher scores are better: cosines of one expert, or the weighted sum of several experts' cosines. Every metric is a
 * fraction in [0, 1]. Ties go to the lower index, so that the result for a constant matrix is well defined.
 *
 *     struct mode_classification_metrics m;
 *     st = mode_classification_measure(&m, cosine, target, n, c, &err);   // m.acc1
 *
 * Dimensions: N images, C classes or texts; scores [N, C] f32 row-major, on the host.
 * Source:  CLIP_benchmark's definitions of acc1, acc5, mean_per_class_recall, mean_average_precision and recall@k;
 *          ROC-AUC and the mean of top-1 and top-5 as in the 26-task CLIP evaluation.
 * Threads: reentrant; recalls use the pool. */
#ifndef MODE_ENSEMBLE_METRICS_H
#define MODE_ENSEMBLE_METRICS_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

/* The rank of value `of` among n values, `stride` elements apart: the number of larger ones, and of equal ones before
 * it. */
int64_t mode_score_rank(const float *v, int64_t n, int64_t stride, int64_t of);

struct mode_classification_metrics {
    double acc1;
    double acc5;                  /* NaN below 5 classes                                          */
    double mean_per_class_recall; /* over the classes that occur in target                        */
    double mean_top1_top5;        /* (acc1 + acc5) / 2; NaN below 5 classes                       */
    double roc_auc;               /* of score[1] - score[0]; NaN unless C = 2 and both occur      */
};

/* target [N] i32 in [0, C). MODE_E_VALUE: N or C < 1, a target out of range, a score that is not finite (the error
 * names row and column); out is then undefined. */
enum mode_status mode_classification_measure(struct mode_classification_metrics *out, const float *scores,
                                             const int32_t *target, int64_t n, int64_t c, struct mode_error *err);

/* Placement values of the ROC curve, scores [N, 2] with margin score[1] - score[0]: placement [N] is for a positive
 * (target 1) the fraction of negatives with a smaller margin, for a negative the fraction of positives with a larger
 * one; ties count half. Their mean over the positives is the AUC, and so is that over the negatives. False, and nothing
 * is written: only one class occurs. */
bool mode_auc_placements(double *placement, const float *scores, const int32_t *target, int64_t n);

/* Mean average precision of multi-label classification: target [N, C], 0 or 1. Images are ranked once per class; a
 * class's average precision is the mean of the precisions at its positives, *out the mean over all C classes. A class
 * without positives counts 0, as in CLIP_benchmark. Errors as above. */
enum mode_status mode_mean_average_precision(double *out, const float *scores, const int32_t *target, int64_t n,
                                             int64_t c, struct mode_error *err);
/* Precisions at the positives of class k: precision [N] is for a positive the fraction of positives among the images
 * ranked at or above it, for others 0. */
void mode_class_precisions(double *precision, const float *scores, const int32_t *target, int64_t n, int64_t c,
                           int64_t k);

enum { MODE_RECALL_1, MODE_RECALL_5, MODE_RECALL_10, MODE_RECALL_COUNT };
extern const int mode_recall_k[MODE_RECALL_COUNT]; /* 1, 5, 10 */

struct mode_retrieval_metrics {
    double image_recall[MODE_RECALL_COUNT]; /* text to image: is the text's image among the top k?         */
    double text_recall[MODE_RECALL_COUNT];  /* image to text: is any of the image's texts among the top k? */
};

/* image_of_text [C] in [0, N). An image without texts is a miss in text_recall (as in CLIP_benchmark). Errors as above.
 * With fewer than k candidates every query is a hit. */
enum mode_status mode_retrieval_measure(struct mode_retrieval_metrics *out, const float *scores,
                                        const int32_t *image_of_text, int64_t n, int64_t c, struct mode_error *err);

/* The two directions of mode_retrieval_measure separately: an ensemble weights them differently, so it has a score
 * matrix for each. */
enum mode_status mode_image_recall(double out[MODE_RECALL_COUNT], const float *scores, const int32_t *image_of_text,
                                   int64_t n, int64_t c, struct mode_error *err);
enum mode_status mode_text_recall(double out[MODE_RECALL_COUNT], const float *scores, const int32_t *image_of_text,
                                  int64_t n, int64_t c, struct mode_error *err);

#endif
