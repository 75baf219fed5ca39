#include "nn/ref/ref.h"

void mode__ref_scale(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *x,
                     const struct mode_tensor *g, const struct mode_tensor *add)
{
    int64_t m = x->dim[0], d = x->dim[1];
    (void)be;
    for (int64_t i = 0; i < m * d; i++)
        mode__ref_put(y, i, mode__ref_get(x, i) * mode_f32(g)[i % d] + mode__ref_get(add, i));
}

void mode__ref_scale_back(struct mode_backend *be, struct mode_tensor *dx, struct mode_tensor *dg,
                          const struct mode_tensor *dy, const struct mode_tensor *x, const struct mode_tensor *g)
{
    int64_t m = x->dim[0], d = x->dim[1];
    (void)be;
    for (int64_t j = 0; j < d; j++) {
        double s = 0;
        for (int64_t i = 0; i < m; i++) {
            s += mode__ref_get(dy, i * d + j) * mode__ref_get(x, i * d + j);
            mode__ref_put(dx, i * d + j, mode__ref_get(dy, i * d + j) * mode_f32(g)[j]);
        }
        mode__ref_add(dg, j, s);
    }
}

void mode__ref_mean_rows(struct mode_backend *be, struct mode_tensor *y, const struct mode_tensor *x,
                         const struct mode_tensor *offsets, int64_t skip)
{
    const int32_t *o = offsets->data;
    int64_t d = x->dim[1];
    (void)be;
    for (int64_t b = 0; b < y->dim[0]; b++)
        for (int64_t j = 0; j < d; j++) {
            double s = 0;
            for (int64_t i = o[b] + skip; i < o[b + 1]; i++) s += mode__ref_get(x, i * d + j);
            mode__ref_put(y, b * d + j, s / (double)(o[b + 1] - o[b] - skip));
        }
}

void mode__ref_mean_rows_back(struct mode_backend *be, struct mode_tensor *dx, const struct mode_tensor *dy,
                              const struct mode_tensor *offsets, int64_t skip)
{
    const int32_t *o = offsets->data;
    int64_t d = dx->dim[1];
    (void)be;
    for (int64_t b = 0; b < dy->dim[0]; b++)
        for (int64_t i = o[b]; i < o[b + 1]; i++)
            for (int64_t j = 0; j < d; j++)
                mode__ref_put(dx, i * d + j,
                              i < o[b] + skip ? 0 : mode__ref_get(dy, b * d + j) / (double)(o[b + 1] - o[b] - skip));
}
