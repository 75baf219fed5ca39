#include "nn/ref/ref.h"

#include <math.h>

void mode__ref_nearest_rows(struct mode_backend *be, struct mode_tensor *id, struct mode_tensor *distance,
                            struct mode_tensor *work, const struct mode_tensor *x, const struct mode_tensor *ready,
                            const struct mode_tensor *c, bool cosine)
{
    int64_t d = x->dim[1];
    (void)be;
    (void)work;
    (void)ready;
    for (int64_t i = 0; i < x->dim[0]; i++) {
        double best = INFINITY;
        for (int64_t j = 0; j < c->dim[0]; j++) {
            double v = mode__exact_cost(mode_f32(x) + i * d, mode_f32(c) + j * d, d, cosine);
            if (v >= best) continue;
            best = v;
            ((int32_t *)id->data)[i] = (int32_t)j;
        }
        if (distance) mode_f32(distance)[i] = mode__exact_distance(best, cosine);
    }
}

void mode__ref_costs(struct mode_backend *be, struct mode_tensor *cost, const struct mode_tensor *x,
                     const struct mode_tensor *c, bool cosine)
{
    int64_t d = x->dim[1], k = c->dim[0];
    (void)be;
    for (int64_t i = 0; i < x->dim[0]; i++)
        for (int64_t j = 0; j < k; j++)
            mode_f32(cost)[i * k + j] = (float)fmax(
                0, mode__exact_cost(mode_f32(x) + i * d, mode_f32(c) + j * d, d, cosine));
}

void mode__ref_group_rows(struct mode_backend *be, struct mode_tensor *first, struct mode_tensor *members,
                          const struct mode_tensor *id)
{
    (void)be;
    mode__group_rows(first->data, members->data, id->data, id->dim[0], first->dim[0] - 1);
}

void mode__ref_group_means(struct mode_backend *be, struct mode_tensor *means, const struct mode_tensor *x,
                           const struct mode_tensor *first, const struct mode_tensor *members, bool unit)
{
    int64_t d = x->dim[1];
    const int32_t *at = first->data, *all = members->data;
    double *sum = mode__backend_work(be, 2 * (size_t)d * sizeof *sum);
    for (int64_t i = 0; i < means->dim[0]; i++)
        mode__exact_mean(mode_f32(means) + i * d, sum, mode_f32(x), all + at[i], at[i + 1] - at[i], d, unit);
}
