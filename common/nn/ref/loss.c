#include "nn/ref/ref.h"

#include <math.h>
#include <string.h>

static double logit_of(const struct mode_tensor *a, int64_t i, const struct mode_tensor *b, int64_t j, double scale)
{
    double dot = 0;
    for (int64_t c = 0, e = a->dim[1]; c < e; c++) dot += (double)mode_f32(a)[i * e + c] * mode_f32(b)[j * e + c];
    return scale * dot;
}

void mode__ref_contrastive(struct mode_backend *be, struct mode_tensor *row, struct mode_tensor *col,
                           struct mode_tensor *work, const struct mode_tensor *a, const struct mode_tensor *b,
                           const struct mode_tensor *logit_scale)
{
    int64_t m = a->dim[0], n = b->dim[0];
    double scale = exp(mode_f32(logit_scale)[0]), *lse_row = row->data, *lse_col = col->data;
    (void)be;
    (void)work;
    for (int64_t i = 0; i < m; i++) lse_row[i] = -INFINITY;
    for (int64_t j = 0; j < n; j++) lse_col[j] = -INFINITY;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double logit = logit_of(a, i, b, j, scale);
            lse_row[i] = mode_log_add(lse_row[i], logit);
            lse_col[j] = mode_log_add(lse_col[j], logit);
        }
}

void mode__ref_join_columns(struct mode_backend *be, struct mode_tensor *col, const struct mode_tensor *each)
{
    int64_t n = col->dim[0];
    double *to = col->data;
    (void)be;
    for (int64_t i = 0; i < each->dim[0]; i++)
        for (int64_t j = 0; j < n; j++) {
            double lse = ((const double *)each->data)[i * n + j];
            to[j] = i > 0 ? mode_log_add(to[j], lse) : lse;
        }
}

void mode__ref_contrastive_back(struct mode_backend *be, double *loss, struct mode_tensor *da, struct mode_tensor *db,
                                struct mode_tensor *dlogit_scale, struct mode_tensor *work, const struct mode_tensor *a,
                                const struct mode_tensor *b, const struct mode_tensor *logit_scale,
                                const struct mode_tensor *row, const struct mode_tensor *col, int64_t first)
{
    int64_t m = a->dim[0], n = b->dim[0], e = a->dim[1];
    const double *lse_row = row->data, *lse_col = col->data;
    double scale = exp(mode_f32(logit_scale)[0]), total = 0, dscale = 0;
    double *ga = mode__backend_work(be, (size_t)((m + n) * e) * sizeof *ga), *gb = ga + m * e;
    (void)work;
    memset(ga, 0, (size_t)((m + n) * e) * sizeof *ga);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            /* d loss / d logit = (row softmax + column softmax - 2 on the diagonal) / 2n */
            double logit = logit_of(a, i, b, j, scale);
            double g = exp(logit - lse_row[i]) + exp(logit - lse_col[j]);
            if (j == first + i) {
                total += lse_row[i] + lse_col[j] - 2 * logit;
                g -= 2;
            }
            g /= 2.0 * (double)n;
            dscale += g * logit; /* logit = exp(logit_scale) cos: its derivative by logit_scale is itself */
            for (int64_t c = 0; c < e; c++) {
                ga[i * e + c] += g * scale * mode_f32(b)[j * e + c];
                gb[j * e + c] += g * scale * mode_f32(a)[i * e + c];
            }
        }
    *loss = total / (2.0 * (double)n);
    mode_f32(dlogit_scale)[0] = (float)(mode_f32(dlogit_scale)[0] + dscale);
    for (int64_t k = 0; k < m * e; k++) mode_f32(da)[k] = (float)ga[k];
    for (int64_t k = 0; k < n * e; k++) mode_f32(db)[k] = (float)gb[k];
}
