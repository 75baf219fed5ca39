#include "optim/adamw.h"

#include "nn/ops.h"

#include <math.h>

enum { SUM_AT_ONCE = 1024 };

double mode_adamw_update(struct mode_backend *be, struct mode_param *params, size_t n, const struct mode_adamw *options,
                         int64_t step)
{
    double norm = options->clip_norm > 0 ? mode_grad_norm(be, params, n) : 0;
    mode_adamw_apply(be, params, n, options, step, norm);
    return norm;
}

void mode_adamw_apply(struct mode_backend *be, struct mode_param *params, size_t n, const struct mode_adamw *options,
                      int64_t step, double norm)
{
    double factor = options->clip_norm / (norm + 1e-6);
    if (!isfinite(norm)) return;
    for (size_t i = 0; i < n; i++) {
        if (params[i].frozen) continue;
        struct mode_adamw_step s = {.lr = options->lr,
                                    .beta1 = options->beta1,
                                    .beta2 = options->beta2,
                                    .eps = options->eps,
                                    .weight_decay = params[i].decay ? options->weight_decay : 0,
                                    .step = step,
                                    .grad_factor = norm > 0 && factor < 1 ? (float)factor : 1};
        mode_adamw(be, &params[i].value, mode_param_copy(&params[i]), &params[i].m, &params[i].v, &params[i].grad, &s);
    }
}

double mode_grad_norm(struct mode_backend *be, const struct mode_param *params, size_t n)
{
    const struct mode_tensor *grads[SUM_AT_ONCE]; /* a device is waited for once for all of them */
    double sum = 0;
    for (size_t i = 0; i < n;) {
        size_t n_grads = 0;
        for (; i < n && n_grads < SUM_AT_ONCE; i++)
            if (!params[i].frozen) grads[n_grads++] = &params[i].grad;
        sum += mode_sum_squares_of(be, grads, n_grads);
    }
    return sqrt(sum);
}
