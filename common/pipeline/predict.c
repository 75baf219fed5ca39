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

/* The rows of p->weight: one for all classes, one for each query. */
static int64_t tasks_of(const struct mode_predict_spec *s, const struct mode_prediction *p)
{
    return is_queries(s) ? p->columns : 1;
}

static enum mode_status weigh(struct mode_prediction *p, const struct mode_predict_spec *s, struct mode_error *err)
{
    struct mode_centres c = {0};
    struct mode_text_encoder *enc = NULL;
    struct mode_near near = {0};
    float *words = NULL;
    char *path = mode_path_join(s->experts, "centres.safetensors");
    enum mode_status st;
    if ((st = mode_centres_load(&c, path, err)) ||
        (st = mode_text_encoder_open_as(&enc, s->be, s->encoder, c.encoder_id, NULL, 0, err)) ||
        (st = mode_centres_check_encoder(&c, mode_text_encoder_id(enc), s->encoder, err)) ||
        (st = mode_embed_words(&words, enc, s->words, NULL, NULL, err)) ||
        (st = mode_near_open(&near, &c, words, (int)p->columns, err)))
        goto out;
    p->n = c.n;
    p->weight = mode_xcalloc((size_t)tasks_of(s, p) * (size_t)c.n, sizeof *p->weight);
    if (is_queries(s))
        mode_router_query_weights(p->weight, &near, s->router, &s->params);
    else
        mode_router_weights(p->weight, &near, s->router, &s->params);
    const int top = mode_router_top(s->router, s->top_experts);
    for (int64_t q = 0; top > 0 && q < tasks_of(s, p); q++) mode_weights_keep_top(p->weight + q * p->n, p->n, top);
out:
    mode_near_close(&near);
    free(words);
    mode_text_encoder_close(&enc);
    mode_centres_clear(&c);
    free(path);
    return st;
}

/* sum [n_pictures, columns] += the weights of expert c times its cosines */
static enum mode_status add_expert(double *sum, float *cosine, const struct mode_prediction *p,
                                   const struct mode_predict_spec *s, int c, const struct mode_tokenizer *tokenizer,
                                   struct mode_error *err)
{
    struct mode_clip *clip = NULL;
    float *pictures = NULL, *texts = NULL;
    char name[32];
    snprintf(name, sizeof name, "expert-%d", c);
    char *dir = mode_path_join(s->experts, name);
    const int64_t m = s->n_pictures, columns = p->columns;
    enum mode_status st = mode_clip_load(&clip, s->be, dir, err);
    if (st) goto out;
    const int64_t e = mode_clip_embed_dim(clip);
    pictures = malloc((size_t)m * (size_t)e * sizeof *pictures);
    texts = malloc((size_t)columns * (size_t)e * sizeof *texts);
    if (!pictures || !texts) {
        st = MODE_FAIL(err, MODE_E_MEMORY, "no memory for the features of %lld pictures and %lld texts", (long long)m,
                       (long long)columns);
        goto out;
    }
    if ((st = mode_evaluate_texts(texts, clip, tokenizer, s->words, s->batch, s->hook, err)) ||
        (st = mode_encode_picture_files(clip, pictures, s->picture, m, s->batch, false, s->hook, NULL, err)) ||
        (st = mode_evaluate_cosines(cosine, pictures, m, texts, columns, e, err)))
        goto out;
    for (int64_t i = 0; i < m; i++)
        for (int64_t q = 0; q < columns; q++)
            sum[i * columns + q] += p->weight[(is_queries(s) ? q * p->n : 0) + c] * cosine[i * columns + q];
out:
    free(pictures);
    free(texts);
    mode_clip_close(&clip);
    free(dir);
    return st;
}

static bool is_wanted(const struct mode_prediction *p, const struct mode_predict_spec *s, int c)
{
    for (int64_t q = 0; q < tasks_of(s, p); q++)
        if (p->weight[q * p->n + c] > 0) return true;
    return false;
}

enum mode_status mode_predict(struct mode_prediction *p, const struct mode_predict_spec *s, struct mode_error *err)
{
    struct mode_tokenizer *tokenizer = NULL;
    double *sum = NULL;
    float *cosine = NULL;
    size_t n, bytes;
    *p = (struct mode_prediction){.columns = mode_evaluate_columns(s->words)};
    enum mode_status st = weigh(p, s, err);
    if (st || (st = mode_tokenizer_open_clip(&tokenizer, s->merges, MODE_CLIP_CLEAN_OPENAI, err))) goto out;
    if (mode_mul_size((size_t)s->n_pictures, (size_t)p->columns, &n) && mode_mul_size(n, sizeof *sum, &bytes)) {
        sum = calloc(n + 1, sizeof *sum);
        cosine = calloc(n + 1, sizeof *cosine);
        p->score = calloc(n + 1, sizeof *p->score);
    }
    if (!sum || !cosine || !p->score) {
        st = MODE_FAIL(err, MODE_E_MEMORY, "no memory for the scores of %lld pictures and %lld words",
                       (long long)s->n_pictures, (long long)p->columns);
        goto out;
    }
    for (int c = 0; !st && c < p->n; c++)
        if (is_wanted(p, s, c)) st = add_expert(sum, cosine, p, s, c, tokenizer, err);
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
