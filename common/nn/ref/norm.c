#include "nn/ref/ref.h"

#include <math.h>

void mode__ref_layernorm(struct mode_backend *be, struct mode_tensor *y, struct mode_tensor *stats,
                         const struct mode_tensor *x, const struct mode_tensor *w, const struct mode_tensor *b,
                         float eps)
{
    int64_t m = x->dim[0], d = x->dim[1];
    (void)be;
    for (int64_t i = 0; i < m; i++) {
        double mean = 0, var = 0;
        for (int64_t j = 0; j < d; j++) mean += mode__ref_get(x, i * d + j);
        mean /= (double)d;
        for (int64_t j = 0; j < d; j++) var += pow(mode__ref_get(x, i * d + j) - mean, 2);
        double rstd = 1 / sqrt(var / (double)d + eps);
        if (stats) {
            mode_f32(stats)[2 * i] = (float)mean;
            mode_f32(stats)[2 * i + 1] = (float)rstd;
        }
        for (int64_t j = 0; j < d; j++)
            mode__ref_put(y, i * d + j, (mode__ref_get(x, i * d + j) - mean) * rstd * mode_f32(w)[j] + mode_f32(b)[j]);
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
            sw += mode__ref_get(dy, i * d + j) * (mode__ref_get(x, i * d + j) - mean) * rstd;
            sb += mode__ref_get(dy, i * d + j);
        }
        mode__ref_add(dw, j, sw);
        mode__ref_add(db, j, sb);
    }
    for (int64_t i = 0; i < m; i++) {
        double mean = mode_f32(stats)[2 * i], rstd = mode_f32(stats)[2 * i + 1];
        double g = 0, gx = 0; /* means over the row of w dy and of w dy x^ */
        for (int64_t j = 0; j < d; j++) {
            double gw = mode__ref_get(dy, i * d + j) * mode_f32(w)[j];
            g += gw;
            gx += gw * (mode__ref_get(x, i * d + j) - mean) * rstd;
        }
        g /= (double)d;
        gx /= (double)d;
        for (int64_t j = 0; j < d; j++) {
            double x_hat = (mode__ref_get(x, i * d + j) - mean) * rstd;
            double s = (mode__ref_get(dy, i * d + j) * mode_f32(w)[j] - g - x_hat * gx) * rstd;
            if (add) s += mode__ref_get(add, i * d + j);
            mode__ref_put(dx, i * d + j, s);
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
        for (int64_t j = 0; j < d; j++) s += pow(mode__ref_get(x, i * d + j), 2);
        s = sqrt(s) > 1e-12 ? sqrt(s) : 1e-12;
        mode_f32(norm)[i] = (float)s;
        for (int64_t j = 0; j < d; j++) mode_f32(y)[i * d + j] = (float)(mode__ref_get(x, i * d + j) / s);
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
        for (int64_t j = 0; j < d; j++) mode__ref_put(dx, i * d + j, (gi[j] - dot * yi[j]) / mode_f32(norm)[i]);
    }
}
