#include "nn/ref/ref.h"

#include <math.h>
#include <string.h>

static void update(struct mode_param *p, const struct mode_adamw_step *s, float factor)
{
    float *w = mode_f32(&p->value), *m = mode_f32(&p->m), *v = mode_f32(&p->v);
    struct mode_tensor *copy = mode_param_copy(p);
    double decay = p->decay ? s->weight_decay : 0;
    for (int64_t i = 0; i < mode_tensor_count(&p->value); i++) {
        double gi = (double)(mode_f32(&p->grad)[i] * factor);
        double mi = s->beta1 * m[i] + (1 - s->beta1) * gi;
        double vi = s->beta2 * v[i] + (1 - s->beta2) * gi * gi;
        double wi = w[i] * (1 - s->lr * decay);
        m[i] = (float)mi;
        v[i] = (float)vi;
        w[i] = (float)(wi - s->lr * (mi / s->fix1) / (sqrt(vi / s->fix2) + s->eps));
        if (copy) mode__ref_put(copy, i, w[i]);
    }
}

void mode__ref_adamw(struct mode_backend *be, struct mode_param *p, size_t n, const struct mode_adamw_step *s)
{
    float factor;
    (void)be;
    if (!mode__adamw_factor(&factor, s)) return;
    for (size_t i = 0; i < n; i++)
        if (!p[i].frozen) update(&p[i], s, factor);
}

void mode__ref_grad_squares(struct mode_backend *be, double *sum, const struct mode_param *p, size_t n)
{
    double s = 0;
    (void)be;
    for (size_t k = 0; k < n; k++) {
        const float *g = mode_f32(&p[k].grad);
        for (int64_t i = 0; !p[k].frozen && i < mode_tensor_count(&p[k].grad); i++) s += (double)g[i] * g[i];
    }
    *sum = s;
}

void mode__ref_rounded(struct mode_backend *be, struct mode_tensor *copy, const struct mode_tensor *x)
{
    (void)be;
    for (int64_t i = 0; i < mode_tensor_count(x); i++) mode__ref_put(copy, i, mode_f32(x)[i]);
}

void mode__ref_clamp(struct mode_backend *be, struct mode_tensor *x, float low, float high)
{
    float *v = mode_f32(x);
    (void)be;
    for (int64_t i = 0; i < mode_tensor_count(x); i++) v[i] = v[i] < low ? low : v[i] > high ? high : v[i];
}

void mode__ref_zero(struct mode_backend *be, struct mode_tensor *x)
{
    (void)be;
    memset(x->data, 0, mode_tensor_bytes(x));
}
