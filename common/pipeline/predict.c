#include "pipeline/predict.h"

#include "base/str.h"
#include "data/tokenizer.h"
#include "models/clip.h"
#include "pipeline/embed.h"
#include "pipeline/evaluate.h"
#include "tensor/tensor.h"

#include <stdio.h>
#include <stdlib.h>

static bool is_queries(const struct mode_predict_spec *s)
{
    return s->words->kind == MODE_TASK_RETRIEVAL;
}

/* Rows of the weights: 1 for a classification, 1 per query for retrieval. */
static int64_t tasks_of(const struct mode_predict_spec *s)
{
    return is_queries(s) ? mode_evaluate_columns(s->words) : 1;
}

/* Weight of expert c for a column. weight [tasks, n] */
static double weight_of(const double *weight, int n, const struct mode_predict_spec *s, int64_t column, int c)
{
    return weight[(is_queries(s) ? column * n : 0) + c];
}

static bool is_wanted(const double *weight, int n, const struct mode_predict_spec *s, int c)
{
    for (int64_t q = 0; q < tasks_of(s); q++)
        if (weight[q * n + c] > 0) return true;
    return false;
}

/* weight [tasks, n]: the router's weights of the n experts; *weight stays NULL without words. The caller frees it. */
static enum mode_status weigh(double **weight, int *n, const struct mode_predict_spec *s, struct mode_error *err)
{
    struct mode_centres c = {0};
    struct mode_text_encoder *enc = NULL;
    struct mode_near near = {0};
    float *words = NULL;
    char *path = mode_path_join(s->experts, "centres.safetensors");
    enum mode_status st = mode_centres_load(&c, path, err);
    *n = c.n;
    if (st || !s->words) goto out;
    if ((st = mode_text_encoder_open_as(&enc, s->be, s->encoder, c.encoder_id, NULL, 0, err)) ||
        (st = mode_centres_check_encoder(&c, mode_text_encoder_id(enc), s->encoder, err)) ||
        (st = mode_embed_words(&words, enc, s->words, NULL, NULL, err)) ||
        (st = mode_near_open(&near, &c, words, (int)mode_evaluate_columns(s->words), err)))
        goto out;
    double *w = *weight = mode_xcalloc((size_t)tasks_of(s) * (size_t)c.n, sizeof *w);
    if (is_queries(s))
        mode_router_query_weights(w, &near, s->router, &s->params);
    else
        mode_router_weights(w, &near, s->router, &s->params);
    const int top = mode_router_top(s->router, s->top_experts);
    for (int64_t q = 0; top > 0 && q < tasks_of(s); q++) mode_weights_keep_top(w + q * c.n, c.n, top);
out:
    mode_near_close(&near);
    free(words);
    mode_text_encoder_close(&enc);
    mode_centres_clear(&c);
    free(path);
    return st;
}

/* Features of the pictures and the words by one expert. */
struct features {
    int64_t e;
    float *pictures, *words; /* [n_pictures, e], [columns, e]; unit rows */
};

static void features_clear(struct features *f)
{
    free(f->pictures);
    free(f->words);
    *f = (struct features){0};
}

static enum mode_status features_of(struct features *f, const struct mode_predict_spec *s, int c,
                                    const struct mode_tokenizer *tokenizer, struct mode_error *err)
{
    struct mode_clip *clip = NULL;
    char name[32];
    snprintf(name, sizeof name, "expert-%d", c);
    char *dir = mode_path_join(s->experts, name);
    const int64_t m = s->n_pictures, columns = s->words ? mode_evaluate_columns(s->words) : 0;
    enum mode_status st = mode_clip_load(&clip, s->be, dir, err);
    if (st) goto out;
    f->e = mode_clip_embed_dim(clip);
    f->pictures = malloc((size_t)m * (size_t)f->e * sizeof *f->pictures + 1);
    f->words = malloc((size_t)columns * (size_t)f->e * sizeof *f->words + 1);
    if (!f->pictures || !f->words)
        st = MODE_FAIL(err, MODE_E_MEMORY, "no memory for the features of %lld pictures and %lld texts", (long long)m,
                       (long long)columns);
    if (!st && columns) st = mode_evaluate_texts(f->words, clip, tokenizer, s->words, s->batch, s->hook, err);
    if (!st && m)
        st = mode_encode_picture_files(clip, f->pictures, s->picture, m, s->batch, false, s->hook, s->failed, err);
out:
    mode_clip_close(&clip);
    free(dir);
    return st;
}

static enum mode_status open_tokenizer(struct mode_tokenizer **tokenizer, const struct mode_predict_spec *s,
                                       struct mode_error *err)
{
    return s->words ? mode_tokenizer_open_clip(tokenizer, s->merges, MODE_CLIP_CLEAN_OPENAI, err) : MODE_OK;
}

enum mode_status mode_predict(struct mode_prediction *p, const struct mode_predict_spec *s, struct mode_error *err)
{
    struct mode_tokenizer *tokenizer = NULL;
    double *sum = NULL;
    float *cosine = NULL;
    size_t n, bytes;
    const int64_t m = s->n_pictures, columns = mode_evaluate_columns(s->words);
    *p = (struct mode_prediction){.columns = columns};
    if (s->failed) *s->failed = m;
    enum mode_status st = weigh(&p->weight, &p->n, s, err);
    if (st || (st = open_tokenizer(&tokenizer, s, err))) goto out;
    if (mode_mul_size((size_t)m, (size_t)columns, &n) && mode_mul_size(n, sizeof *sum, &bytes)) {
        sum = calloc(n + 1, sizeof *sum);
        cosine = calloc(n + 1, sizeof *cosine);
        p->score = calloc(n + 1, sizeof *p->score);
    }
    if (!sum || !cosine || !p->score) {
        st = MODE_FAIL(err, MODE_E_MEMORY, "no memory for the scores of %lld pictures and %lld words", (long long)m,
                       (long long)columns);
        goto out;
    }
    for (int c = 0; !st && c < p->n; c++) {
        struct features f = {0};
        if (!is_wanted(p->weight, p->n, s, c)) continue;
        st = features_of(&f, s, c, tokenizer, err);
        if (!st) st = mode_evaluate_cosines(cosine, f.pictures, m, f.words, columns, f.e, err);
        for (int64_t i = 0; !st && i < m; i++)
            for (int64_t q = 0; q < columns; q++)
                sum[i * columns + q] += weight_of(p->weight, p->n, s, q, c) * cosine[i * columns + q];
        features_clear(&f);
    }
    for (size_t i = 0; !st && i < n; i++) p->score[i] = (float)sum[i];
out:
    free(sum);
    free(cosine);
    mode_tokenizer_close(&tokenizer);
    return st;
}

void mode_prediction_clear(struct mode_prediction *p)
{
    free(p->weight);
    free(p->score);
    *p = (struct mode_prediction){0};
}

static void scale_row(float *to, const float *from, int64_t e, double times)
{
    for (int64_t i = 0; i < e; i++) to[i] = (float)(times * from[i]);
}

static enum mode_status make_rows(float **to, int64_t rows, int64_t width, const char *what, struct mode_error *err)
{
    size_t n;
    if (mode_mul_size((size_t)rows, (size_t)width, &n)) *to = calloc(n + 1, sizeof **to);
    return *to ? MODE_OK
               : MODE_FAIL(err, MODE_E_MEMORY, "no memory for %lld vectors of %lld numbers, of %s", (long long)rows,
                           (long long)width, what);
}

/* Write the features of expert c into its columns. The first expert sets the width of all. */
static enum mode_status place(struct mode_ensemble_vectors *v, const struct features *f,
                              const struct mode_predict_spec *s, int c, struct mode_error *err)
{
    if (v->width == 0) {
        enum mode_status st = MODE_OK;
        v->width = v->n * f->e;
        if (s->n_pictures) st = make_rows(&v->pictures, s->n_pictures, v->width, "pictures", err);
        if (!st && s->words) st = make_rows(&v->words, v->columns, v->width, "words", err);
        if (st) return st;
    }
    if (f->e * v->n != v->width)
        return MODE_FAIL(err, MODE_E_SHAPE, "%s/expert-%d has vectors of %lld numbers, those before it of %lld",
                         s->experts, c, (long long)f->e, (long long)(v->width / v->n));
    for (int64_t i = 0; i < s->n_pictures; i++)
        scale_row(v->pictures + i * v->width + c * f->e, f->pictures + i * f->e, f->e, 1);
    for (int64_t q = 0; q < v->columns; q++)
        scale_row(v->words + q * v->width + c * f->e, f->words + q * f->e, f->e, weight_of(v->weight, v->n, s, q, c));
    return MODE_OK;
}

enum mode_status mode_predict_vectors(struct mode_ensemble_vectors *v, const struct mode_predict_spec *s,
                                      struct mode_error *err)
{
    struct mode_tokenizer *tokenizer = NULL;
    *v = (struct mode_ensemble_vectors){.columns = s->words ? mode_evaluate_columns(s->words) : 0};
    if (s->failed) *s->failed = s->n_pictures;
    enum mode_status st = weigh(&v->weight, &v->n, s, err);
    if (!st) st = open_tokenizer(&tokenizer, s, err);
    for (int c = 0; !st && c < v->n; c++) {
        struct features f = {0};
        if (!s->n_pictures && !is_wanted(v->weight, v->n, s, c)) continue; /* its columns are 0 */
        st = features_of(&f, s, c, tokenizer, err);
        if (!st) st = place(v, &f, s, c, err);
        features_clear(&f);
    }
    mode_tokenizer_close(&tokenizer);
    return st;
}

void mode_ensemble_vectors_clear(struct mode_ensemble_vectors *v)
{
    free(v->weight);
    free(v->pictures);
    free(v->words);
    *v = (struct mode_ensemble_vectors){0};
}
