#include "nn/ref/ref.h"

#include <math.h>

/* log(sum(exp(s))) over n values a step apart */
static double log_sum_exp(const float *s, int64_t n, int64_t step)
{
    double max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) max = fmax(max, s[i * step]);
    for (int64_t i = 0; i < n; i++) sum += exp(s[i * step] - max);
    return max + log(sum);
}

void mode__ref_contrastive(struct mode_backend *be, double *loss, struct mode_tensor *da, struct mode_tensor *db,
                           struct mode_tensor *dlogit_scale, struct mode_tensor *work, const struct mode_tensor *a,
                           const struct mode_tensor *b, const struct mode_tensor *logit_scale)
{
    int64_t n = a->dim[0], e = a->dim[1];
    double scale = exp(mode_f32(logit_scale)[0]), total = 0, dscale = 0;
    float *s = mode_f32(work);
    double *row = mode__backend_work(be, 2 * (size_t)n * sizeof *row), *col = row + n;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            double dot = 0;
            for (int64_t c = 0; c < e; c++) dot += (double)mode_f32(a)[i * e + c] * mode_f32(b)[j * e + c];
            s[i * n + j] = (float)(scale * dot);
        }
    for (int64_t i = 0; i < n; i++) {
        row[i] = log_sum_exp(s + i * n, n, 1);
        col[i] = log_sum_exp(s + i, n, n);
        total += row[i] + col[i] - 2.0 * s[i * n + i];
    }
    *loss = total / (2.0 * (double)n);
    /* d loss / d logit = (row softmax + column softmax - 2 on the diagonal) / 2n */
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            double logit = s[i * n + j];
            double g = (exp(logit - row[i]) + exp(logit - col[j]) - (i == j ? 2 : 0)) / (2.0 * (double)n);
            dscale += g * logit; /* logit = exp(logit_scale) cos: its slope by logit_scale is itself */
            s[i * n + j] = (float)(g * scale);
        }
    mode_f32(dlogit_scale)[0] = (float)(mode_f32(dlogit_scale)[0] + dscale);
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < e; c++) {
            double ga = 0, gb = 0;
            for (int64_t j = 0; j < n; j++) {
                ga += (double)s[i * n + j] * mode_f32(b)[j * e + c];
                gb += (double)s[j * n + i] * mode_f32(a)[j * e + c];
            }
            mode_f32(da)[i * e + c] = (float)ga;
            mode_f32(db)[i * e + c] = (float)gb;
        }
}
