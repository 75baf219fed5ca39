#include "nn/ref/ref.h"

#include <math.h>

static const double SQRT_1_2 = 0.70710678118654752440, SQRT_2_PI = 0.79788456080286535588,
                    INV_SQRT_2PI = 0.39894228040143267794, GELU_CUBIC = 0.044715, QUICK = 1.702;

double mode__ref_act_value(double x, enum mode_act act)
{
    switch (act) {
    case MODE_ACT_NONE: return x;
    case MODE_ACT_GELU: return 0.5 * x * (1 + erf(x * SQRT_1_2));
    case MODE_ACT_GELU_TANH: return 0.5 * x * (1 + tanh(SQRT_2_PI * (x + GELU_CUBIC * x * x * x)));
    case MODE_ACT_QUICK_GELU: return x / (1 + exp(-QUICK * x));
    case MODE_ACT_TANH: return tanh(x);
    }
    return x;
}

double mode__ref_act_slope(double x, enum mode_act act)
{
    switch (act) {
    case MODE_ACT_NONE: return 1;
    case MODE_ACT_GELU: return 0.5 * (1 + erf(x * SQRT_1_2)) + x * INV_SQRT_2PI * exp(-0.5 * x * x);
    case MODE_ACT_GELU_TANH: {
        double t = tanh(SQRT_2_PI * (x + GELU_CUBIC * x * x * x));
        return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * SQRT_2_PI * (1 + 3 * GELU_CUBIC * x * x);
    }
    case MODE_ACT_QUICK_GELU: {
        double s = 1 / (1 + exp(-QUICK * x));
        return s + x * QUICK * s * (1 - s);
    }
    case MODE_ACT_TANH: {
        double t = tanh(x);
        return 1 - t * t;
    }
    }
    return 1;
}

void mode__ref_linear(struct mode_backend *be, struct mode_tensor *y, struct mode_tensor *z,
                      const struct mode_tensor *x, const struct mode_tensor *w, const struct mode_tensor *b,
                      const struct mode_tensor *add, enum mode_act act)
{
    int64_t m = x->dim[0], k = x->dim[1], n = w->dim[0];
    (void)be;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double s = b ? mode__ref_get(b, j) : 0;
            for (int64_t l = 0; l < k; l++) s += mode__ref_get(x, i * k + l) * mode__ref_get(w, j * k + l);
            if (act != MODE_ACT_NONE) s = mode__ref_stored(s, y);
            if (z) mode__ref_put(z, i * n + j, s);
            s = mode__ref_act_value(s, act);
            if (add) s += mode__ref_get(add, i * n + j);
            mode__ref_put(y, i * n + j, s);
        }
}

void mode__ref_activate(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *z, enum mode_act act)
{
    (void)be;
    for (int64_t i = 0; i < mode_tensor_count(z); i++)
        mode__ref_put(y, i, mode__ref_act_value(mode__ref_get(z, i), act));
}

void mode__ref_linear_back(struct mode_backend *be, struct mode_tensor *dx, struct mode_tensor *dw,
                           struct mode_tensor *db, const struct mode_tensor *dy, const struct mode_tensor *x,
                           const struct mode_tensor *w, const struct mode_tensor *z, enum mode_act act)
{
    int64_t m = x->dim[0], k = x->dim[1], n = w->dim[0];
    (void)be;
    for (int64_t j = 0; j < n; j++) {
        double bias = 0;
        for (int64_t i = 0; i < m; i++) bias += mode__ref_get(dy, i * n + j);
        if (db) mode__ref_add(db, j, bias);
        for (int64_t l = 0; l < k; l++) {
            double s = 0;
            for (int64_t i = 0; i < m; i++) s += mode__ref_get(dy, i * n + j) * mode__ref_get(x, i * k + l);
            mode__ref_add(dw, j * k + l, s);
        }
    }
    if (!dx) return;
    for (int64_t i = 0; i < m; i++)
        for (int64_t l = 0; l < k; l++) {
            double s = 0;
            for (int64_t j = 0; j < n; j++) s += mode__ref_get(dy, i * n + j) * mode__ref_get(w, j * k + l);
            if (z) s = mode__ref_stored(s, dx) * mode__ref_act_slope(mode__ref_get(z, i * k + l), act);
            mode__ref_put(dx, i * k + l, s);
        }
}

void mode__ref_project(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *x,
                       const struct mode_tensor *w)
{
    int64_t m = x->dim[0], k = x->dim[1], n = w->dim[1];
    (void)be;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double s = 0;
            for (int64_t l = 0; l < k; l++) s += mode__ref_get(x, i * k + l) * mode__ref_get(w, l * n + j);
            mode__ref_put(y, i * n + j, s);
        }
}

void mode__ref_project_back(struct mode_backend *be, struct mode_tensor *dx, struct mode_tensor *dw,
                            const struct mode_tensor *dy, const struct mode_tensor *x, const struct mode_tensor *w)
{
    int64_t m = x->dim[0], k = x->dim[1], n = w->dim[1];
    (void)be;
    for (int64_t l = 0; l < k; l++)
        for (int64_t j = 0; j < n; j++) {
            double s = 0;
            for (int64_t i = 0; i < m; i++) s += mode__ref_get(x, i * k + l) * mode__ref_get(dy, i * n + j);
            mode__ref_add(dw, l * n + j, s);
        }
    for (int64_t i = 0; i < m; i++)
        for (int64_t l = 0; l < k; l++) {
            double s = 0;
            for (int64_t j = 0; j < n; j++) s += mode__ref_get(dy, i * n + j) * mode__ref_get(w, l * n + j);
            mode__ref_put(dx, i * k + l, s);
        }
}
