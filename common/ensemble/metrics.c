#include "ensemble/metrics.h"

#include "base/parallel.h"
#include "base/str.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

const int mode_recall_k[MODE_RECALL_COUNT] = {1, 5, 10};

static enum mode_status check_scores(const float *scores, int64_t n, int64_t c, struct mode_error *err)
{
    if (n < 1 || c < 1)
        return MODE_FAIL(err, MODE_E_VALUE, "scores are [%lld, %lld], at least one row and one column are needed",
                         (long long)n, (long long)c);
    for (int64_t i = 0; i < n * c; i++)
        if (!isfinite(scores[i]))
            return MODE_FAIL(err, MODE_E_VALUE, "score of row %lld, column %lld is %f, a finite number is needed",
                             (long long)(i / c), (long long)(i % c), (double)scores[i]);
    return MODE_OK;
}

static enum mode_status check_ids(const int32_t *id, int64_t n, int64_t end, const char *what, struct mode_error *err)
{
    for (int64_t i = 0; i < n; i++)
        if (id[i] < 0 || id[i] >= end)
            return MODE_FAIL(err, MODE_E_VALUE, "%s of row %lld is %d, expected 0 to %lld", what, (long long)i, id[i],
                             (long long)end - 1);
    return MODE_OK;
}

int64_t mode_score_rank(const float *v, int64_t n, int64_t stride, int64_t of)
{
    float x = v[of * stride];
    int64_t before = 0;
    for (int64_t i = 0; i < n; i++) {
        float y = v[i * stride];
        before += y > x || (y == x && i < of);
    }
    return before;
}

struct margin {
    double score; /* score[1] - score[0] */
    int64_t image;
    bool positive;
};

static int compare_margin(const void *a, const void *b)
{
    double x = ((const struct margin *)a)->score, y = ((const struct margin *)b)->score;
    return (x > y) - (x < y);
}

bool mode_auc_placements(double *placement, const float *scores, const int32_t *target, int64_t n)
{
    struct margin *m = mode_xmalloc((size_t)n * sizeof *m);
    int64_t count[2] = {0}, below[2] = {0};
    for (int64_t i = 0; i < n; i++) {
        m[i] = (struct margin){(double)scores[2 * i + 1] - (double)scores[2 * i], i, target[i] == 1};
        count[m[i].positive]++;
    }
    const bool both = count[0] > 0 && count[1] > 0;
    qsort(m, (size_t)n, sizeof *m, compare_margin);
    for (int64_t i = 0, end; both && i < n; i = end) {
        int64_t alike[2] = {0};
        for (end = i; end < n && m[end].score == m[i].score; end++) alike[m[end].positive]++;
        const double beaten = ((double)below[0] + 0.5 * (double)alike[0]) / (double)count[0],
                     beats = ((double)(count[1] - below[1]) - 0.5 * (double)alike[1]) / (double)count[1];
        for (int64_t k = i; k < end; k++) placement[m[k].image] = m[k].positive ? beaten : beats;
        for (int k = 0; k < 2; k++) below[k] += alike[k];
    }
    free(m);
    return both;
}

/* The probability that a positive's margin exceeds a negative's, ties counting half. */
static double roc_auc(const float *scores, const int32_t *target, int64_t n)
{
    double *placement = mode_xmalloc((size_t)n * sizeof *placement), sum = 0;
    int64_t positives = 0;
    const bool both = mode_auc_placements(placement, scores, target, n);
    for (int64_t i = 0; both && i < n; i++) {
        if (target[i] != 1) continue;
        sum += placement[i];
        positives++;
    }
    free(placement);
    return both ? sum / (double)positives : NAN;
}

enum mode_status mode_classification_measure(struct mode_classification_metrics *out, const float *scores,
                                             const int32_t *target, int64_t n, int64_t c, struct mode_error *err)
{
    enum mode_status st;
    int64_t top1 = 0, top5 = 0, present = 0;
    if ((st = check_scores(scores, n, c, err))) return st;
    if ((st = check_ids(target, n, c, "target", err))) return st;
    int64_t *seen = mode_xcalloc((size_t)c, sizeof *seen), *hit = mode_xcalloc((size_t)c, sizeof *hit);
    for (int64_t i = 0; i < n; i++) {
        int64_t rank = mode_score_rank(scores + i * c, c, 1, target[i]);
        seen[target[i]]++;
        hit[target[i]] += rank == 0;
        top1 += rank == 0;
        top5 += rank < 5;
    }
    double recall = 0;
    for (int64_t k = 0; k < c; k++) {
        if (!seen[k]) continue;
        present++;
        recall += (double)hit[k] / (double)seen[k];
    }
    out->acc1 = (double)top1 / (double)n;
    out->acc5 = c < 5 ? NAN : (double)top5 / (double)n;
    out->mean_per_class_recall = recall / (double)present;
    out->mean_top1_top5 = (out->acc1 + out->acc5) / 2;
    out->roc_auc = c == 2 ? roc_auc(scores, target, n) : NAN;
    free(seen);
    free(hit);
    return MODE_OK;
}

struct ranked {
    float score;
    int64_t image;
};

static int compare_ranked(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    return (x->image > y->image) - (x->image < y->image);
}

void mode_class_precisions(double *precision, const float *scores, const int32_t *target, int64_t n, int64_t c,
                           int64_t k)
{
    struct ranked *r = mode_xmalloc((size_t)n * sizeof *r);
    int64_t positives = 0;
    for (int64_t i = 0; i < n; i++) r[i] = (struct ranked){scores[i * c + k], i};
    qsort(r, (size_t)n, sizeof *r, compare_ranked);
    for (int64_t i = 0; i < n; i++) {
        bool positive = target[r[i].image * c + k] == 1;
        positives += positive;
        precision[r[i].image] = positive ? (double)positives / (double)(i + 1) : 0;
    }
    free(r);
}

enum mode_status mode_mean_average_precision(double *out, const float *scores, const int32_t *target, int64_t n,
                                             int64_t c, struct mode_error *err)
{
    enum mode_status st;
    if ((st = check_scores(scores, n, c, err))) return st;
    for (int64_t i = 0; i < n * c; i++)
        if (target[i] != 0 && target[i] != 1)
            return MODE_FAIL(err, MODE_E_VALUE, "target of row %lld, column %lld is %d, expected 0 or 1",
                             (long long)(i / c), (long long)(i % c), target[i]);
    double *precision = mode_xmalloc((size_t)n * sizeof *precision);
    *out = 0;
    for (int64_t k = 0; k < c; k++) {
        double sum = 0, positives = 0;
        mode_class_precisions(precision, scores, target, n, c, k);
        for (int64_t i = 0; i < n; i++) {
            sum += precision[i];
            positives += target[i * c + k];
        }
        if (positives > 0) *out += sum / positives / (double)c;
    }
    free(precision);
    return MODE_OK;
}

struct recall_job {
    const float *scores;
    const int32_t *image_of_text;
    int64_t n, c;
    int64_t *best; /* per query: rank of its best positive; -1: none */
};

static void rank_image(void *ctx, int64_t text, int thread)
{
    struct recall_job *j = ctx;
    (void)thread;
    j->best[text] = mode_score_rank(j->scores + text, j->n, j->c, j->image_of_text[text]);
}

static void rank_text(void *ctx, int64_t image, int thread)
{
    struct recall_job *j = ctx;
    const float *row = j->scores + image * j->c;
    int64_t best = -1;
    (void)thread;
    for (int64_t t = 0; t < j->c; t++) /* the best positive, ties to the first */
        if (j->image_of_text[t] == image && (best < 0 || row[t] > row[best])) best = t;
    j->best[image] = best < 0 ? -1 : mode_score_rank(row, j->c, 1, best);
}

static enum mode_status recall(double out[MODE_RECALL_COUNT], const float *scores, const int32_t *image_of_text,
                               int64_t n, int64_t c, int64_t queries, mode_item_fn *rank, struct mode_error *err)
{
    enum mode_status st;
    if ((st = check_scores(scores, n, c, err))) return st;
    if ((st = check_ids(image_of_text, c, n, "image", err))) return st;
    struct recall_job j = {scores, image_of_text, n, c, mode_xmalloc((size_t)queries * sizeof *j.best)};
    mode_parallel_for(queries, rank, &j);
    for (int r = 0; r < MODE_RECALL_COUNT; r++) {
        int64_t hits = 0;
        for (int64_t q = 0; q < queries; q++) hits += j.best[q] >= 0 && j.best[q] < mode_recall_k[r];
        out[r] = (double)hits / (double)queries;
    }
    free(j.best);
    return MODE_OK;
}

enum mode_status mode_image_recall(double out[MODE_RECALL_COUNT], const float *scores, const int32_t *image_of_text,
                                   int64_t n, int64_t c, struct mode_error *err)
{
    return recall(out, scores, image_of_text, n, c, c, rank_image, err);
}

enum mode_status mode_text_recall(double out[MODE_RECALL_COUNT], const float *scores, const int32_t *image_of_text,
                                  int64_t n, int64_t c, struct mode_error *err)
{
    return recall(out, scores, image_of_text, n, c, n, rank_text, err);
}

enum mode_status mode_retrieval_measure(struct mode_retrieval_metrics *out, const float *scores,
                                        const int32_t *image_of_text, int64_t n, int64_t c, struct mode_error *err)
{
    enum mode_status st = mode_image_recall(out->image_recall, scores, image_of_text, n, c, err);
    return st ? st : mode_text_recall(out->text_recall, scores, image_of_text, n, c, err);
}
