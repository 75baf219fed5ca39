#include "ensemble/outcome.h"

#include "base/error.h"
#include "base/str.h"
#include "ensemble/metrics.h"

#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { TOP = 5 };

const char *mode_measure_name(enum mode_measure measure)
{
    static const char *const names[] = {"acc1",
                                        "mean_per_class_recall",
                                        "image_retrieval_recall@1",
                                        "text_retrieval_recall@1",
                                        "mean_average_precision",
                                        "mean_top1_top5",
                                        "roc_auc"};
    return names[measure];
}

/* A task's name normalised: letters and digits in lower case, without collection ("wds", "vtab") and split ("test").
 * buf holds 64 bytes; longer names are truncated, as no known name is that long. */
static const char *bare_name(char *buf, const char *task)
{
    static const char *const before[] = {"wds", "vtab"};
    const char *base = strrchr(task, '/') ? strrchr(task, '/') + 1 : task;
    size_t n = 0;
    for (const char *p = base; *p && n < 63; p++)
        if (isalnum((unsigned char)*p)) buf[n++] = (char)tolower((unsigned char)*p);
    buf[n] = '\0';
    if (n > 4 && strcmp(buf + n - 4, "test") == 0) buf[n - 4] = '\0';
    for (size_t i = 0; i < sizeof before / sizeof *before; i++)
        if (strncmp(buf, before[i], strlen(before[i])) == 0) buf += strlen(before[i]);
    return buf;
}

static enum mode_measure customary(const char *task)
{
    static const struct {
        const char *name;
        enum mode_measure measure;
    } known[] = {{"fgvcaircraft", MODE_MEASURE_MEAN_PER_CLASS},
                 {"aircraft", MODE_MEASURE_MEAN_PER_CLASS},
                 {"pets", MODE_MEASURE_MEAN_PER_CLASS},
                 {"oxfordpets", MODE_MEASURE_MEAN_PER_CLASS},
                 {"oxfordiiitpet", MODE_MEASURE_MEAN_PER_CLASS},
                 {"oxfordiiitpets", MODE_MEASURE_MEAN_PER_CLASS},
                 {"caltech101", MODE_MEASURE_MEAN_PER_CLASS},
                 {"flowers", MODE_MEASURE_MEAN_PER_CLASS},
                 {"flowers102", MODE_MEASURE_MEAN_PER_CLASS},
                 {"oxfordflowers", MODE_MEASURE_MEAN_PER_CLASS},
                 {"oxfordflowers102", MODE_MEASURE_MEAN_PER_CLASS},
                 {"kinetics700", MODE_MEASURE_TOP1_TOP5},
                 {"kinetics7002020", MODE_MEASURE_TOP1_TOP5},
                 {"kinetics700frames", MODE_MEASURE_TOP1_TOP5},
                 {"k700", MODE_MEASURE_TOP1_TOP5},
                 {"hatefulmemes", MODE_MEASURE_ROC_AUC},
                 {"hatefulmeme", MODE_MEASURE_ROC_AUC}};
    char buf[64];
    const char *name = bare_name(buf, task);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(name, known[i].name) == 0) return known[i].measure;
    return MODE_MEASURE_ACC1;
}

int mode_measures_of(enum mode_measure out[MODE_MEASURES_MOST], enum mode_task_kind kind, const char *task,
                     int64_t n_classes)
{
    switch (kind) {
    case MODE_TASK_RETRIEVAL:
        out[0] = MODE_MEASURE_TEXT_RECALL_1;
        out[1] = MODE_MEASURE_IMAGE_RECALL_1;
        return 2;
    case MODE_TASK_MULTILABEL: out[0] = MODE_MEASURE_MEAN_AVERAGE_PRECISION; return 1;
    case MODE_TASK_CLASSIFICATION:
    case MODE_TASK_OTHER: break;
    }
    out[0] = customary(task);
    if ((out[0] == MODE_MEASURE_ROC_AUC && n_classes != 2) || (out[0] == MODE_MEASURE_TOP1_TOP5 && n_classes < TOP))
        out[0] = MODE_MEASURE_ACC1;
    return 1;
}

static int64_t best_in_row(const float *row, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (row[i] > row[best]) best = i;
    return best;
}

/* Samples are the positives, class by class; classes are the strata. */
static void make_precisions(struct mode_outcome *o, const float *scores, const int32_t *target, int64_t rows,
                            int64_t cols)
{
    *o = (struct mode_outcome){.n_strata = (int)cols};
    for (int64_t i = 0; i < rows * cols; i++) o->n += target[i] == 1;
    o->value = mode_xmalloc(((size_t)o->n + 1) * sizeof *o->value);
    o->stratum = mode_xmalloc(((size_t)o->n + 1) * sizeof *o->stratum);
    double *precision = mode_xmalloc(((size_t)rows + 1) * sizeof *precision);
    for (int64_t k = 0, at = 0; k < cols; k++) {
        mode_class_precisions(precision, scores, target, rows, cols, k);
        for (int64_t r = 0; r < rows; r++) {
            if (target[r * cols + k] != 1) continue;
            o->value[at] = precision[r];
            o->stratum[at++] = (int32_t)k;
        }
    }
    free(precision);
}

/* Strata are the positives and the negatives. */
static void make_placements(struct mode_outcome *o, const float *scores, const int32_t *target, int64_t rows)
{
    *o = (struct mode_outcome){.n = rows, .n_strata = 2, .is_area = true};
    o->value = mode_xmalloc(((size_t)rows + 1) * sizeof *o->value);
    o->stratum = mode_xcalloc((size_t)rows + 1, sizeof *o->stratum);
    if (mode_auc_placements(o->value, scores, target, rows)) {
        for (int64_t i = 0; i < rows; i++) o->stratum[i] = target[i] == 1;
        return;
    }
    o->n_strata = 1;
    for (int64_t i = 0; i < rows; i++) o->value[i] = 0.5;
}

void mode_outcome_make(struct mode_outcome *o, enum mode_measure measure, const float *scores, const int32_t *truth,
                       int64_t rows, int64_t cols)
{
    if (measure == MODE_MEASURE_MEAN_AVERAGE_PRECISION) {
        make_precisions(o, scores, truth, rows, cols);
        return;
    }
    if (measure == MODE_MEASURE_ROC_AUC) {
        make_placements(o, scores, truth, rows);
        return;
    }
    *o = (struct mode_outcome){.n = measure == MODE_MEASURE_IMAGE_RECALL_1 ? cols : rows, .n_strata = 1};
    o->value = mode_xcalloc((size_t)o->n + 1, sizeof *o->value);
    if (measure == MODE_MEASURE_IMAGE_RECALL_1) {
        int64_t *best = mode_xcalloc((size_t)cols + 1, sizeof *best);
        for (int64_t r = 1; r < rows; r++)
            for (int64_t q = 0; q < cols; q++)
                if (scores[r * cols + q] > scores[best[q] * cols + q]) best[q] = r;
        for (int64_t q = 0; q < cols; q++) o->value[q] = best[q] == truth[q];
        free(best);
        return;
    }
    for (int64_t r = 0; r < rows; r++) {
        if (measure == MODE_MEASURE_TOP1_TOP5) {
            int64_t rank = mode_score_rank(scores + r * cols, cols, 1, truth[r]);
            o->value[r] = rank == 0 ? 1 : rank < TOP ? 0.5 : 0;
            continue;
        }
        int64_t best = best_in_row(scores + r * cols, cols);
        o->value[r] = measure == MODE_MEASURE_TEXT_RECALL_1 ? truth[best] == r : truth[r] == best;
    }
    if (measure == MODE_MEASURE_MEAN_PER_CLASS) { /* strata: the classes that occur, renumbered */
        int32_t *number = mode_xmalloc((size_t)cols * sizeof *number);
        o->stratum = mode_xmalloc(((size_t)rows + 1) * sizeof *o->stratum);
        for (int64_t c = 0; c < cols; c++) number[c] = -1;
        o->n_strata = 0;
        for (int64_t r = 0; r < rows; r++) {
            if (number[truth[r]] < 0) number[truth[r]] = o->n_strata++;
            o->stratum[r] = number[truth[r]];
        }
        free(number);
    }
}

void mode_outcome_clear(struct mode_outcome *o)
{
    free(o->value);
    free(o->stratum);
    *o = (struct mode_outcome){0};
}

/* Mean over strata of the strata's means of a - b (b may be NULL), with the standard error of a stratified sample. */
static double stratified(const struct mode_outcome *a, const struct mode_outcome *b, double *error)
{
    double *sum = mode_xcalloc((size_t)a->n_strata * 3 + 3, sizeof *sum), *square = sum + a->n_strata,
           *count = square + a->n_strata, mean = 0, var = 0,
           share = a->is_area ? 1 : 1.0 / a->n_strata; /* weight of a stratum's error in that of the mean */
    for (int64_t i = 0; i < a->n; i++) {
        double v = a->value[i] - (b ? b->value[i] : 0);
        int s = a->stratum ? a->stratum[i] : 0;
        sum[s] += v;
        square[s] += v * v;
        count[s]++;
    }
    for (int s = 0; s < a->n_strata; s++) {
        if (count[s] <= 0) continue;
        double m = sum[s] / count[s], spread = square[s] / count[s] - m * m;
        mean += m / a->n_strata;
        /* unbiased variance; for a stratum of one sample, the largest possible one */
        spread = count[s] > 1 ? spread * count[s] / (count[s] - 1) : b ? 1 : 0.25;
        var += (spread > 0 ? spread : 0) / count[s] * share * share;
    }
    free(sum);
    if (error) *error = sqrt(var);
    return mean;
}

double mode_outcome_mean(const struct mode_outcome *o, double *error)
{
    return stratified(o, NULL, error);
}

double mode_outcome_difference(const struct mode_outcome *a, const struct mode_outcome *b, double *error)
{
    MODE_ASSERT(a->n == b->n && a->n_strata == b->n_strata);
    return stratified(a, b, error);
}

/* Expected average precision of a random ranking of n images, p of them positive. A positive at rank i has i - 1 images
 * before it, of which (p - 1) / (n - 1) are positive on average: the mean over i of (1 + (i - 1)(p - 1)/(n - 1)) / i.
 */
static double random_precision(double p, int64_t n)
{
    double h = 0;
    if (p < 1) return 0;
    for (int64_t i = n; i > 0; i--) h += 1 / (double)i;
    return n == 1 ? 1 : ((p - 1) / (double)(n - 1) * ((double)n - h) + h) / (double)n;
}

double mode_measure_chance(enum mode_measure measure, const int32_t *truth, int64_t rows, int64_t cols)
{
    if (rows < 1 || cols < 1) return 0;
    if (measure == MODE_MEASURE_MEAN_AVERAGE_PRECISION) {
        double sum = 0;
        for (int64_t k = 0; k < cols; k++) {
            double positives = 0;
            for (int64_t r = 0; r < rows; r++) positives += truth[r * cols + k];
            sum += random_precision(positives, rows);
        }
        return sum / (double)cols;
    }
    if (measure == MODE_MEASURE_MEAN_PER_CLASS) return 1.0 / (double)cols;
    if (measure == MODE_MEASURE_IMAGE_RECALL_1) return 1.0 / (double)rows;
    if (measure == MODE_MEASURE_TEXT_RECALL_1) return 1.0 / (double)rows; /* mean over images of texts_i / cols */
    if (measure == MODE_MEASURE_ROC_AUC) return 0.5;
    int64_t *count = mode_xcalloc((size_t)cols, sizeof *count), first = 0, five = 0;
    for (int64_t r = 0; r < rows; r++) count[truth[r]]++;
    for (int64_t k = 0; k < cols && k < TOP; k++) {
        int64_t best = 0;
        for (int64_t c = 1; c < cols; c++)
            if (count[c] > count[best]) best = c;
        if (k == 0) first = count[best];
        five += count[best];
        count[best] = 0;
    }
    free(count);
    return (double)(measure == MODE_MEASURE_TOP1_TOP5 ? first + five : 2 * first) / (double)rows / 2;
}
