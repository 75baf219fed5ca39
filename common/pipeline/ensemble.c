#include "pipeline/ensemble.h"

#include "base/file.h"
#include "base/str.h"
#include "data/safetensors.h"
#include "ensemble/mix.h"
#include "pipeline/result.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One task's scores of all models, as mapped files. */
struct scores {
    int n_models;
    struct mode_safetensors *file;
    bool *open;
    const float **cosine;
    const int32_t *truth;
    int64_t rows, cols;
};

static void scores_close(struct scores *s)
{
    for (int m = 0; m < s->n_models; m++)
        if (s->open[m]) mode_safetensors_close(&s->file[m]);
    free(s->file);
    free(s->open);
    free(s->cosine);
}

static enum mode_status scores_open(struct scores *s, const struct mode_ensemble_source *t, int n_models,
                                    struct mode_error *err)
{
    bool retrieval = t->kind == MODE_TASK_RETRIEVAL, multilabel = t->kind == MODE_TASK_MULTILABEL;
    enum mode_status st;
    *s = (struct scores){.n_models = n_models, .rows = -1, .cols = -1};
    s->file = mode_xcalloc((size_t)n_models, sizeof *s->file);
    s->open = mode_xcalloc((size_t)n_models, sizeof *s->open);
    s->cosine = mode_xcalloc((size_t)n_models, sizeof *s->cosine);
    for (int m = 0; m < n_models; m++) {
        const struct mode_tensor *cosine, *truth;
        const char *path = t->logits_path[m];
        if ((st = mode_safetensors_open(&s->file[m], path, err))) return st;
        s->open[m] = true;
        int64_t dim[2] = {s->rows, s->cols};
        if ((st = mode_safetensors_need(&s->file[m], "cosine", MODE_DTYPE_F32, 2, dim, &cosine, err))) return st;
        s->rows = cosine->dim[0];
        s->cols = cosine->dim[1];
        if (s->rows < 1 || s->cols < 1) return MODE_FAIL(err, MODE_E_FORMAT, "%s: no scores", path);
        int64_t shape[2] = {retrieval ? s->cols : s->rows, s->cols}, n = shape[0] * (multilabel ? s->cols : 1),
                limit = multilabel  ? 2
                        : retrieval ? s->rows
                                    : s->cols;
        if ((st = mode_safetensors_need(&s->file[m], retrieval ? "image_of_text" : "target", MODE_DTYPE_I32,
                                        multilabel ? 2 : 1, shape, &truth, err)))
            return st;
        s->cosine[m] = cosine->data;
        for (int64_t i = 0; i < s->rows * s->cols; i++)
            if (!isfinite(s->cosine[m][i]))
                return MODE_FAIL(err, MODE_E_VALUE, "%s: score [%lld, %lld] is not finite", path,
                                 (long long)(i / s->cols), (long long)(i % s->cols));
        if (m == 0) {
            s->truth = truth->data;
            for (int64_t i = 0; i < n; i++)
                if (s->truth[i] < 0 || s->truth[i] >= limit)
                    return MODE_FAIL(err, MODE_E_VALUE, "%s: answer %lld is %d, expected 0 to %lld", path, (long long)i,
                                     s->truth[i], (long long)limit - 1);
        } else if (memcmp(s->truth, truth->data, (size_t)n * sizeof *s->truth) != 0) {
            return MODE_FAIL(err, MODE_E_VALUE, "%s and %s: right answers differ, so they are not scores of one task",
                             t->logits_path[0], path);
        }
    }
    return MODE_OK;
}

/* by_query: scores for text-to-image ranking; by_task: all others. */
static enum mode_status metrics_of(json_t **out, enum mode_task_kind kind, const float *by_query, const float *by_task,
                                   const struct scores *s, struct mode_error *err)
{
    const struct mode_result r = {.kind = kind,
                                  .n = s->rows,
                                  .c = s->cols,
                                  .cosine = kind == MODE_TASK_RETRIEVAL ? by_query : by_task,
                                  .truth = s->truth};
    return mode_result_metrics(out, &r, by_task, err);
}

static enum mode_status open_words(struct mode_ensemble_task *t, const struct mode_ensemble_source *src,
                                   const struct mode_ensemble *e, struct mode_error *err)
{
    struct mode_safetensors f;
    const struct mode_tensor *feat;
    int64_t dim[2] = {t->n_columns, e->centres.d};
    enum mode_status st = mode_safetensors_open(&f, src->words_path, err);
    if (st) return st;
    if ((st = mode_centres_check_encoder(&e->centres, mode_safetensors_meta(&f, "encoder_id"), src->words_path, err)) ||
        (st = mode_safetensors_need(&f, "feat", MODE_DTYPE_F32, 2, dim, &feat, err)) ||
        (st = mode_near_open(&t->near, &e->centres, mode_f32(feat), (int)t->n_columns, err)))
        goto out;
    t->word = mode_xcalloc((size_t)t->near.k, sizeof *t->word);
    for (int i = 0; i < t->near.k; i++) t->word[i] = src->word ? mode_xstrdup(src->word[i]) : mode_xasprintf("#%d", i);
out:
    mode_safetensors_close(&f);
    return st;
}

static struct mode_ensemble_row *add_row(struct mode_ensemble *e, int task, enum mode_measure measure,
                                         const struct scores *s)
{
    const char *name = e->task[task].name;
    struct mode_ensemble_row *r = &e->row[e->n_rows++];
    *r = (struct mode_ensemble_row){.task = task, .measure = measure};
    r->dataset = e->task[task].kind == MODE_TASK_RETRIEVAL ? mode_xasprintf("%s %s", name, mode_measure_name(measure))
                                                           : mode_xstrdup(name);
    r->family = e->task[task].kind == MODE_TASK_RETRIEVAL ? MODE_FAMILY_RETRIEVAL : MODE_FAMILY_CLASSIFICATION;
    r->n_classes = measure == MODE_MEASURE_IMAGE_RECALL_1 ? s->rows : s->cols;
    r->chance = mode_measure_chance(measure, s->truth, s->rows, s->cols);
    r->model = mode_xcalloc((size_t)e->n_models, sizeof *r->model);
    return r;
}

static enum mode_status run_task(struct mode_ensemble *e, int task, const struct mode_ensemble_source *src,
                                 struct mode_error *err)
{
    struct mode_ensemble_task *t = &e->task[task];
    struct scores s;
    float *by_task = NULL, *by_query = NULL;
    double *query_weight = NULL;
    bool retrieval = src->kind == MODE_TASK_RETRIEVAL;
    enum mode_status st = scores_open(&s, src, e->n_models, err);
    if (st) goto out;
    if (s.cols > INT32_MAX / 64 || (src->word && src->n_words != s.cols)) {
        st = MODE_FAIL(err, MODE_E_VALUE, "%d words, but scores for %lld", src->n_words, (long long)s.cols);
        goto out;
    }
    t->name = mode_xstrdup(src->name);
    t->kind = src->kind;
    t->n_images = s.rows;
    t->n_columns = s.cols;
    t->model_metrics = mode_xcalloc((size_t)e->n_models, sizeof(json_t *));
    if ((st = open_words(t, src, e, err))) goto out;
    enum mode_measure measure[MODE_MEASURES_MOST];
    int n_measures = mode_measures_of(measure, src->kind, src->name, s.cols);
    struct mode_ensemble_row *main = add_row(e, task, measure[0], &s),
                             *image = n_measures > 1 ? add_row(e, task, measure[1], &s) : NULL;
    for (int m = 0; m < e->n_models; m++) {
        if ((st = metrics_of(&t->model_metrics[m], src->kind, s.cosine[m], s.cosine[m], &s, err))) goto out;
        mode_outcome_make(&main->model[m], main->measure, s.cosine[m], s.truth, s.rows, s.cols);
        if (image) mode_outcome_make(&image->model[m], image->measure, s.cosine[m], s.truth, s.rows, s.cols);
    }
    size_t cells = (size_t)(s.rows * s.cols);
    by_task = malloc(cells * sizeof *by_task);
    by_query = malloc((retrieval ? cells : 1) * sizeof *by_query);
    query_weight = malloc((retrieval ? (size_t)s.cols * (size_t)e->n : 1) * sizeof *query_weight);
    if (!by_task || !by_query || !query_weight) {
        st = MODE_FAIL(err, MODE_E_MEMORY, "no memory for %lld x %lld scores", (long long)s.rows, (long long)s.cols);
        goto out;
    }
    for (int r = 0; r < MODE_ROUTER_COUNT; r++) {
        enum mode_router router = (enum mode_router)r;
        t->weight[r] = mode_xcalloc((size_t)e->n, sizeof(double));
        const int top = mode_router_top(router, e->top_experts);
        mode_router_weights(t->weight[r], &t->near, router, &e->params);
        if (top) mode_weights_keep_top(t->weight[r], e->n, top);
        t->entropy[r] = mode_weights_entropy(t->weight[r], e->n);
        mode_mix(by_task, s.cosine, t->weight[r], e->n, s.rows, s.cols);
        if (retrieval) {
            mode_router_query_weights(query_weight, &t->near, router, &e->params);
            for (int64_t q = 0; top && q < s.cols; q++) mode_weights_keep_top(query_weight + q * e->n, e->n, top);
            mode_mix_columns(by_query, s.cosine, query_weight, e->n, s.rows, s.cols);
        }
        if ((st = metrics_of(&t->router_metrics[r], src->kind, by_query, by_task, &s, err))) goto out;
        mode_outcome_make(&main->router[r], main->measure, by_task, s.truth, s.rows, s.cols);
        if (image) mode_outcome_make(&image->router[r], image->measure, by_query, s.truth, s.rows, s.cols);
    }
out:
    scores_close(&s);
    free(by_task);
    free(by_query);
    free(query_weight);
    return st ? mode_error_prefix(err, st, "task %s", src->name) : MODE_OK;
}

enum mode_status mode_ensemble_open(struct mode_ensemble *e, const struct mode_ensemble_spec *spec,
                                    struct mode_error *err)
{
    *e = (struct mode_ensemble){.n_models = spec->n_models,
                                .dense = -1,
                                .seed = -1,
                                .router = spec->router,
                                .params = spec->params,
                                .n_selected = spec->n_selected};
    enum mode_status st = mode_centres_load(&e->centres, spec->centres_path, err);
    if (st) return st;
    e->n = e->centres.n;
    e->top_experts = spec->top_experts < e->n ? spec->top_experts : 0;
    e->model = mode_xcalloc((size_t)spec->n_models + 1, sizeof *e->model);
    for (int m = 0; m < spec->n_models; m++) {
        char expect[32];
        snprintf(expect, sizeof expect, "expert-%d", m);
        if (m < e->n && strcmp(spec->model[m], expect) != 0)
            return MODE_FAIL(err, MODE_E_VALUE, "ensemble: model %d is %s, expected %s: the centres name %d experts", m,
                             spec->model[m], expect, e->n);
        e->model[m] = mode_xstrdup(spec->model[m]);
        if (strcmp(spec->model[m], "dense") == 0) e->dense = m;
        if (strcmp(spec->model[m], "seed") == 0) e->seed = m;
    }
    if (spec->n_models < e->n || spec->n_models != e->n + (e->dense >= 0) + (e->seed >= 0) + spec->n_selected)
        return MODE_FAIL(err, MODE_E_VALUE,
                         "ensemble: %d models; expected expert-0 to expert-%d, and perhaps dense and seed",
                         spec->n_models, e->n - 1);
    e->task = mode_xcalloc((size_t)spec->n_tasks + 1, sizeof *e->task);
    e->row = mode_xcalloc((size_t)spec->n_tasks * MODE_MEASURES_MOST + 1, sizeof *e->row);
    for (int t = 0; t < spec->n_tasks; t++) {
        e->n_tasks = t + 1;
        if ((st = run_task(e, t, &spec->task[t], err))) return st;
        if (spec->progress) spec->progress(spec->ctx, t + 1, spec->n_tasks);
    }
    return MODE_OK;
}

void mode_ensemble_close(struct mode_ensemble *e)
{
    for (int t = 0; t < e->n_tasks; t++) {
        struct mode_ensemble_task *x = &e->task[t];
        for (int i = 0; x->word && i < x->near.k; i++) free(x->word[i]);
        for (int m = 0; x->model_metrics && m < e->n_models; m++) json_decref(x->model_metrics[m]);
        for (int r = 0; r < MODE_ROUTER_COUNT; r++) {
            free(x->weight[r]);
            json_decref(x->router_metrics[r]);
        }
        mode_near_close(&x->near);
        free(x->model_metrics);
        free(x->word);
        free(x->name);
    }
    for (int i = 0; i < e->n_rows; i++) {
        for (int m = 0; m < e->n_models; m++) mode_outcome_clear(&e->row[i].model[m]);
        for (int r = 0; r < MODE_ROUTER_COUNT; r++) mode_outcome_clear(&e->row[i].router[r]);
        free(e->row[i].model);
        free(e->row[i].dataset);
    }
    for (int m = 0; e->model && m < e->n_models; m++) free(e->model[m]);
    free(e->model);
    free(e->task);
    free(e->row);
    mode_centres_clear(&e->centres);
    *e = (struct mode_ensemble){0};
}
