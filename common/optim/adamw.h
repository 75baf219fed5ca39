/* adamw.h - AdamW over a model's parameters, with decoupled weight decay where a parameter says so.
 *
 *     struct mode_adamw opt = MODE_ADAMW_DEFAULT;
 *     opt.lr = mode_schedule_lr(5e-4, step, 2000, total);
 *     mode_adamw_update(be, params, n, &opt, step + 1);
 *
 * Source: Loshchilov and Hutter, "Decoupled weight decay regularization"; PyTorch's AdamW is the numerical truth
 * (CLIP's constants: betas 0.9 and 0.98, eps 1e-6, decay 0.2). */
#ifndef MODE_OPTIM_ADAMW_H
#define MODE_OPTIM_ADAMW_H

#include "nn/backend.h"
#include "nn/param.h"

#include <stddef.h>
#include <stdint.h>

struct mode_adamw {
    double lr, beta1, beta2, eps, weight_decay;
    double clip_norm; /* gradients are scaled down to this length together; 0: taken as they are */
};
#define MODE_ADAMW_DEFAULT                                                                                             \
    {                                                                                                                  \
        .lr = 5e-4, .beta1 = 0.9, .beta2 = 0.98, .eps = 1e-6, .weight_decay = 0.2                                      \
    }

/* One update of every parameter that is not frozen from its grad. step: 1 for the first (bias correction). Gradients
 * are not changed. With clip_norm the length of all gradients before clipping is returned, else 0; a length that is
 * not finite updates nothing. Clipping multiplies by clip_norm / (length + 1e-6) where that is below 1, as PyTorch's
 * clip_grad_norm_ does. */
double mode_adamw_update(struct mode_backend *be, struct mode_param *params, size_t n, const struct mode_adamw *options,
                         int64_t step);
/* The same where the length is known already; 0: do not clip. */
void mode_adamw_apply(struct mode_backend *be, struct mode_param *params, size_t n, const struct mode_adamw *options,
                      int64_t step, double norm);
/* Euclidean norm of all gradients together. */
double mode_grad_norm(struct mode_backend *be, const struct mode_param *params, size_t n);

#endif
