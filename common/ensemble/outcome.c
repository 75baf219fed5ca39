#include "ensemble/outcome.h"

#include "base/error.h"
#include "base/str.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *mode_measure_name(enum mode_measure measure)
{
    static const char *const names[] = {"acc1", "mean_per_class_recall", "image_retrieval_recall@1",
                                        "text_retrieval_recall@1"};
    return names[measure];
}

static int64_t best_in_row(const float *row, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (row[i] > row[best]) best = i;
    return best;
}

void mode_outcome_make(struct mode_outcome *o, enum mode_measure measure, const float *scores, const int32_t *truth,
                       int64_t rows, int64_t cols)
{
    *o = (struct mode_outcome){.n = measure == MODE_MEASURE_IMAGE_RECALL_1 ? cols : rows, .n_strata = 1};
    o->hit = mode_xcalloc((size_t)o->n + 1, 1);
    if (measure == MODE_MEASURE_IMAGE_RECALL_1) {
        int64_t *best = mode_xcalloc((size_t)cols + 1, sizeof *best);
        for (int64_t r = 1; r < rows; r++)
            for (int64_t q = 0; q < cols; q++)
                if (scores[r * cols + q] > scores[best[q] * cols + q]) best[q] = r;
        for (int64_t q = 0; q < cols; q++) o->hit[q] = best[q] == truth[q];
        free(best);
        return;
    }
    for (int64_t r = 0; r < rows; r++) {
        int64_t best = best_in_row(scores + r * cols, cols);
        o->hit[r] = measure == MODE_MEASURE_TEXT_RECALL_1 ? truth[best] == r : truth[r] == best;
    }
    if (measure == MODE_MEASURE_MEAN_PER_CLASS) { /* strata: the classes that occur, numbered afresh */
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
    free(o->hit);
    free(o->stratum);
    *o = (struct mode_outcome){0};
}

/* Mean over strata of the strata's means of a - b (b may be NULL), with the error of a stratified sample. */
static double stratified(const struct mode_outcome *a, const struct mode_outcome *b, double *error)
{
    double *sum = mode_xcalloc((size_t)a->n_strata * 3 + 3, sizeof *sum), *square = sum + a->n_strata,
           *count = square + a->n_strata, mean = 0, var = 0;
    for (int64_t i = 0; i < a->n; i++) {
        double v = (double)a->hit[i] - (b ? b->hit[i] : 0);
        int s = a->stratum ? a->stratum[i] : 0;
        sum[s] += v;
        square[s] += v * v;
        count[s]++;
    }
    for (int s = 0; s < a->n_strata; s++) {
        if (count[s] <= 0) continue;
        double m = sum[s] / count[s], spread = square[s] / count[s] - m * m;
        mean += m / a->n_strata;
        /* n - 1 where there is more than one; a class of one sample says nothing of its spread: take the most
         */
        spread = count[s] > 1 ? spread * count[s] / (count[s] - 1) : b ? 1 : 0.25;
        var += (spread > 0 ? spread : 0) / count[s] / ((double)a->n_strata * a->n_strata);
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

double mode_measure_chance(enum mode_measure measure, const int32_t *truth, int64_t rows, int64_t cols)
{
    if (rows < 1 || cols < 1) return 0;
    if (measure == MODE_MEASURE_MEAN_PER_CLASS) return 1.0 / (double)cols;
    if (measure == MODE_MEASURE_IMAGE_RECALL_1) return 1.0 / (double)rows;
    if (measure == MODE_MEASURE_TEXT_RECALL_1) return 1.0 / (double)rows; /* mean over images of texts_i / cols */
    int64_t *count = mode_xcalloc((size_t)cols, sizeof *count), top = 0;
    for (int64_t r = 0; r < rows; r++) {
        count[truth[r]]++;
        top = count[truth[r]] > top ? count[truth[r]] : top;
    }
    free(count);
    return (double)top / (double)rows;
}
