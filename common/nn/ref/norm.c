#include "nn/ref/ref.h"

#include <math.h>

void mode__ref_layernorm(struct mode_backend *be, struct mode_tensor *y, struct mode_tensor *stats,
                         const struct mode_tensor *x, const struct mode_tensor *w, const struct mode_tensor *b,
                         float eps)
{
    int64_t m = x->dim[0], d = x->dim[1];
    (void)be;
    for (int64_t i = 0; i < m; i++) {
        const float *xi = mode_f32(x) + i * d;
        double mean = 0, var = 0;
        for (int64_t j = 0; j < d; j++) mean += xi[j];
        mean /= (double)d;
        for (int64_t j = 0; j < d; j++) var += (xi[j] - mean) * (xi[j] - mean);
        double rstd = 1 / sqrt(var / (double)d + eps);
        if (stats) {
            mode_f32(stats)[2 * i] = (float)mean;
            mode_f32(stats)[2 * i + 1] = (float)rstd;
        }
        for (int64_t j = 0; j < d; j++)
            mode_f32(y)[i * d + j] = (float)((xi[j] - mean) * rstd * mode_f32(w)[j] + mode_f32(b)[j]);
    }
}

void mode__ref_layernorm_back(struct mode_backend *be, struct mode_tensor *dx, struct mode_tensor *dw,
                              struct mode_tensor *db, const struct mode_tensor *dy, const struct mode_tensor *x,
                              const struct mode_tensor *stats, const struct mode_tensor *w,
                              const struct mode_tensor *add)
{
    int64_t m = x->dim[0], d = x->dim[1];
    (void)be;
    for (int64_t j = 0; j < d; j++) {
        double sw = 0, sb = 0;
        for (int64_t i = 0; i < m; i++) {
            double mean = mode_f32(stats)[2 * i], rstd = mode_f32(stats)[2 * i + 1];
            sw += mode_f32(dy)[i * d + j] * (mode_f32(x)[i * d + j] - mean) * rstd;
            sb += mode_f32(dy)[i * d + j];
        }
        mode_f32(dw)[j] = (float)(mode_f32(dw)[j] + sw);
        mode_f32(db)[j] = (float)(mode_f32(db)[j] + sb);
    }
    for (int64_t i = 0; i < m; i++) {
        const float *xi = mode_f32(x) + i * d, *gi = mode_f32(dy) + i * d;
        double mean = mode_f32(stats)[2 * i], rstd = mode_f32(stats)[2 * i + 1];
        double g = 0, gx = 0; /* means over the row of w dy and of w dy x^ */
        for (int64_t j = 0; j < d; j++) {
            g += (double)gi[j] * mode_f32(w)[j];
            gx += (double)gi[j] * mode_f32(w)[j] * (xi[j] - mean) * rstd;
        }
        g /= (double)d;
        gx /= (double)d;
        for (int64_t j = 0; j < d; j++) {
            double s = ((double)gi[j] * mode_f32(w)[j] - g - (xi[j] - mean) * rstd * gx) * rstd;
            if (add) s += mode_f32(add)[i * d + j];
            mode_f32(dx)[i * d + j] = (float)s;
        }
    }
}

void mode__ref_l2norm(struct mode_backend *be, struct mode_tensor *y, struct mode_tensor *norm,
                      const struct mode_tensor *x)
{
    int64_t m = x->dim[0], d = x->dim[1];
    (void)be;
    for (int64_t i = 0; i < m; i++) {
        double s = 0;
        for (int64_t j = 0; j < d; j++) s += (double)mode_f32(x)[i * d + j] * mode_f32(x)[i * d + j];
        s = sqrt(s) > 1e-12 ? sqrt(s) : 1e-12;
        mode_f32(norm)[i] = (float)s;
        for (int64_t j = 0; j < d; j++) mode_f32(y)[i * d + j] = (float)(mode_f32(x)[i * d + j] / s);
    }
}

void mode__ref_l2norm_back(struct mode_backend *be, struct mode_tensor *dx, const struct mode_tensor *dy,
                           const struct mode_tensor *y, const struct mode_tensor *norm)
{
    int64_t m = y->dim[0], d = y->dim[1];
    (void)be;
    for (int64_t i = 0; i < m; i++) {
        const float *gi = mode_f32(dy) + i * d, *yi = mode_f32(y) + i * d;
        double dot = 0;
        for (int64_t j = 0; j < d; j++) dot += (double)gi[j] * yi[j];
        for (int64_t j = 0; j < d; j++) mode_f32(dx)[i * d + j] = (float)((gi[j] - dot * yi[j]) / mode_f32(norm)[i]);
    }
}
