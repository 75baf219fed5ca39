#include "pipeline/result.h"

#include "base/file.h"
#include "data/safetensors.h"
#include "ensemble/metrics.h"
#include "ensemble/outcome.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void set_number(json_t *o, const char *key, double x)
{
    json_object_set_new(o, key, isnan(x) ? json_null() : json_real(x));
}

static enum mode_status add_classification(json_t *metrics, const struct mode_result *r, struct mode_error *err)
{
    struct mode_classification_metrics m;
    enum mode_status st = mode_classification_measure(&m, r->cosine, r->truth, r->n, r->c, err);
    if (st) return st;
    set_number(metrics, "acc1", m.acc1);
    set_number(metrics, "acc5", m.acc5);
    set_number(metrics, "mean_per_class_recall", m.mean_per_class_recall);
    set_number(metrics, "mean_top1_top5", m.mean_top1_top5);
    if (r->c == 2) set_number(metrics, "roc_auc", m.roc_auc);
    return MODE_OK;
}

static enum mode_status add_retrieval(json_t *metrics, const struct mode_result *r, const float *text_cosine,
                                      struct mode_error *err)
{
    double image[MODE_RECALL_COUNT], text[MODE_RECALL_COUNT];
    char key[48];
    enum mode_status st = mode_image_recall(image, r->cosine, r->truth, r->n, r->c, err);
    if (!st) st = mode_text_recall(text, text_cosine ? text_cosine : r->cosine, r->truth, r->n, r->c, err);
    if (st) return st;
    for (int k = 0; k < MODE_RECALL_COUNT; k++) {
        snprintf(key, sizeof key, "image_retrieval_recall@%d", mode_recall_k[k]);
        set_number(metrics, key, image[k]);
        snprintf(key, sizeof key, "text_retrieval_recall@%d", mode_recall_k[k]);
        set_number(metrics, key, text[k]);
    }
    return MODE_OK;
}

static enum mode_status add_multilabel(json_t *metrics, const struct mode_result *r, struct mode_error *err)
{
    double map;
    enum mode_status st = mode_mean_average_precision(&map, r->cosine, r->truth, r->n, r->c, err);
    if (!st) set_number(metrics, "mean_average_precision", map);
    return st;
}

enum mode_status mode_result_metrics(json_t **out, const struct mode_result *r, const float *text_cosine,
                                     struct mode_error *err)
{
    json_t *metrics = json_object();
    enum mode_status st = r->kind == MODE_TASK_RETRIEVAL    ? add_retrieval(metrics, r, text_cosine, err)
                          : r->kind == MODE_TASK_MULTILABEL ? add_multilabel(metrics, r, err)
                                                            : add_classification(metrics, r, err);
    *out = st ? NULL : metrics;
    if (st) json_decref(metrics);
    return st;
}

enum mode_status mode_result_json(json_t **out, const struct mode_result *r, struct mode_error *err)
{
    enum mode_measure measure[MODE_MEASURES_MOST];
    json_t *metrics, *names = json_array();
    enum mode_status st = mode_result_metrics(&metrics, r, NULL, err);
    if (st) {
        json_decref(names);
        return mode_error_prefix(err, st, "task %s, model %s", r->task_name, r->model_name);
    }
    int n = mode_measures_of(measure, r->kind, r->task_name, r->c);
    for (int i = 0; i < n; i++) json_array_append_new(names, json_string(mode_measure_name(measure[i])));
    *out = json_pack("{s:s, s:s, s:s, s:s, s:o, s:o, s:s}", "dataset", r->task_name, "model", r->model_name,
                     "pretrained", "", "task",
                     r->kind == MODE_TASK_RETRIEVAL ? "zeroshot_retrieval" : "zeroshot_classification", "metrics",
                     metrics, "main_metrics", names, "language", "en");
    if (!*out) return MODE_FAIL(err, MODE_E_VALUE, "task or model name \"%s\" is not UTF-8", r->task_name);
    return MODE_OK;
}

enum mode_status mode_result_write_metrics(const char *path, const struct mode_result *r, struct mode_error *err)
{
    json_t *o = NULL;
    enum mode_status st = mode_result_json(&o, r, err);
    if (st) return st;
    char *text = json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(12));
    json_decref(o);
    MODE_ASSERT(text);
    st = mode_file_write_atomic(path, text, strlen(text), err);
    free(text);
    return st;
}

enum mode_status mode_result_write_logits(const char *path, const struct mode_result *r, struct mode_error *err)
{
    bool retrieval = r->kind == MODE_TASK_RETRIEVAL;
    struct mode_tensor t[] = {mode_tensor_2d((void *)r->cosine, MODE_DTYPE_F32, r->n, r->c),
                              mode_tensor_1d((void *)r->truth, MODE_DTYPE_I32, retrieval ? r->c : r->n)};
    if (r->kind == MODE_TASK_MULTILABEL) t[1] = mode_tensor_2d((void *)r->truth, MODE_DTYPE_I32, r->n, r->c);
    const struct mode_meta meta[] = {{(char *)"kind", (char *)mode_task_kind_name(r->kind)},
                                     {(char *)"model", (char *)r->model_name},
                                     {(char *)"task", (char *)r->task_name}};
    t[0].name = "cosine";
    t[1].name = retrieval ? "image_of_text" : "target";
    return mode_safetensors_write(path, t, 2, meta, 3, err);
}
