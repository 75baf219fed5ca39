/* result.h - the result of an evaluation as files: logits.safetensors, and metrics.json in CLIP_benchmark's format.
 *
 * logits.safetensors: cosine [N, C] f32 (no logit scale); classification: target [N] i32; multilabel: target
 * [N, C] i32; retrieval: image_of_text [C] i32; metadata: task, kind, model.
 *
 * metrics.json: {"dataset", "model", "pretrained", "task", "metrics", "main_metrics", "language"}; metrics are
 * fractions, main_metrics the names of those in result.csv.
 * zeroshot_classification: acc1, acc5, mean_per_class_recall, mean_top1_top5, roc_auc (the last only with two
 * classes); for a multilabel task only mean_average_precision. zeroshot_retrieval: image_retrieval_recall@K and
 * text_retrieval_recall@K for K = 1, 5, 10. Undefined metrics (acc5 below 5 classes) are null, which is valid JSON, and
 * not the bare NaN that Python writes.
 *
 * Source:  CLIP_benchmark's result format.
 * Threads: reentrant. */
#ifndef MODE_PIPELINE_RESULT_H
#define MODE_PIPELINE_RESULT_H

#include "base/error.h"
#include "data/evalset.h"

#include <jansson.h>
#include <stdint.h>

/* Scores of one model, or of an ensemble, on one task. All pointers are borrowed. */
struct mode_result {
    const char *task_name, *model_name;
    enum mode_task_kind kind;
    int64_t n, c;         /* images; classes or texts */
    const float *cosine;  /* [N, C]                                                           */
    const int32_t *truth; /* classification: target [N]; multilabel: target [N, C]; retrieval: image_of_text [C] */
};

/* Only the object `metrics`; the caller decrefs. For retrieval text_cosine [N, C] may hold other scores for
 * image-to-text ranking (an ensemble weights the directions differently); NULL = cosine. MODE_E_VALUE: scores or truth
 * are invalid (ensemble/metrics.h). */
enum mode_status mode_result_metrics(json_t **out, const struct mode_result *r, const float *text_cosine,
                                     struct mode_error *err);

/* The whole object of metrics.json; the caller decrefs. */
enum mode_status mode_result_json(json_t **out, const struct mode_result *r, struct mode_error *err);
enum mode_status mode_result_write_metrics(const char *path, const struct mode_result *r, struct mode_error *err);
enum mode_status mode_result_write_logits(const char *path, const struct mode_result *r, struct mode_error *err);

#endif
