/* adamw.h - AdamW over a model's parameters, with decoupled weight decay where a parameter says so.
 *
 *     struct mode_adamw opt = MODE_ADAMW_DEFAULT;
 *     struct mode_adamw_step *now;                      // in memory that both sides have
 *     st = mode_adamw_begin(&now, be, &err);
 *     opt.lr = mode_schedule_lr(5e-4, step, 2000, total);
 *     mode_adamw_tell(now, &opt, step + 1);             // the host, before the ops of the step
 *     mode_adamw_update(be, params, n, now);            // ops; nothing is waited for
 *
 * Source: Loshchilov and Hutter, "Decoupled weight decay regularization"; PyTorch's AdamW is the numerical truth
 * (CLIP's constants: betas 0.9 and 0.98, eps 1e-6, decay 0.2). */
#ifndef MODE_OPTIM_ADAMW_H
#define MODE_OPTIM_ADAMW_H

#include "nn/backend.h"
#include "nn/param.h"
#include "nn/update.h"

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

/* What an update reads and leaves. Given back by mode_backend_free. E_MEMORY. */
enum mode_status mode_adamw_begin(struct mode_adamw_step **now, struct mode_backend *be, struct mode_error *err);
/* The next update is that of this step, 1 being the first (bias correction). No update may be under way: the host's
 * numbers go to the device when the update comes to its turn. */
void mode_adamw_tell(struct mode_adamw_step *now, const struct mode_adamw *options, int64_t step);
/* One update of every parameter that is not frozen from its grad; gradients are not changed. Clipping multiplies by
 * clip_norm / (length + 1e-6) where that is below 1, as PyTorch's clip_grad_norm_ does; a length that is not finite
 * updates nothing. Ops only: the next mode_backend_sync waits for it. */
void mode_adamw_update(struct mode_backend *be, struct mode_param *params, size_t n, struct mode_adamw_step *now);
/* With clip_norm, the length of all gradients before clipping, else 0; after a mode_backend_sync. */
double mode_adamw_norm(const struct mode_adamw_step *now);

#endif
