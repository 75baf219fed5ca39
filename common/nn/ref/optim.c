#include "nn/ref/ref.h"

#include <math.h>
#include <string.h>

void mode__ref_adamw(struct mode_backend *be, struct mode_tensor *w, struct mode_tensor *copy, struct mode_tensor *m,
                     struct mode_tensor *v, const struct mode_tensor *g, const struct mode_adamw_step *s)
{
    int64_t n = mode_tensor_count(w);
    double fix1 = 1 - pow(s->beta1, (double)s->step), fix2 = 1 - pow(s->beta2, (double)s->step);
    (void)be;
    for (int64_t i = 0; i < n; i++) {
        double gi = (double)(mode_f32(g)[i] * s->grad_factor);
        double mi = s->beta1 * mode_f32(m)[i] + (1 - s->beta1) * gi;
        double vi = s->beta2 * mode_f32(v)[i] + (1 - s->beta2) * gi * gi;
        double wi = mode_f32(w)[i] * (1 - s->lr * s->weight_decay);
        mode_f32(m)[i] = (float)mi;
        mode_f32(v)[i] = (float)vi;
        mode_f32(w)[i] = (float)(wi - s->lr * (mi / fix1) / (sqrt(vi / fix2) + s->eps));
        if (copy) mode__ref_put(copy, i, mode_f32(w)[i]);
    }
}

double mode__ref_sum_squares(struct mode_backend *be, const struct mode_tensor *const *x, size_t n)
{
    double s = 0;
    (void)be;
    for (size_t k = 0; k < n; k++)
        for (int64_t i = 0; i < mode_tensor_count(x[k]); i++) s += (double)mode_f32(x[k])[i] * mode_f32(x[k])[i];
    return s;
}

void mode__ref_zero(struct mode_backend *be, struct mode_tensor *x)
{
    (void)be;
    memset(x->data, 0, mode_tensor_bytes(x));
}
