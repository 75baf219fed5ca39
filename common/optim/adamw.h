/* adamw.h - AdamW over a model's parameters, with gradient clipping; weight decay applies to those with `decay`.
 *
 *     struct mode_adamw opt = MODE_ADAMW_DEFAULT;
 *     struct mode_adamw_step *now;                      // visible to host and device
 *     st = mode_adamw_begin(&now, be, &err);
 *     opt.lr = mode_schedule_lr(&schedule, step);
 *     mode_adamw_tell(now, &opt, step + 1);             // on the host, before the step's ops are issued
 *     mode_adamw_update(be, params, n, now);            // asynchronous ops
 *
 * Source:  Loshchilov and Hutter, "Decoupled weight decay regularization"; PyTorch's AdamW is the reference for numbers
 *          (CLIP's constants: betas 0.9 and 0.98, eps 1e-6, decay 0.2).
 * Threads: the backend's caller. */
#ifndef MODE_OPTIM_ADAMW_H
#define MODE_OPTIM_ADAMW_H

#include "nn/backend.h"
#include "nn/param.h"
#include "nn/update.h"

#include <stddef.h>
#include <stdint.h>

struct mode_adamw {
    double lr, beta1, beta2, eps, weight_decay;
    double clip_norm; /* maximum global L2 norm of the gradients; 0: no clipping */
};
#define MODE_ADAMW_DEFAULT                                                                                             \
    {                                                                                                                  \
        .lr = 5e-4, .beta1 = 0.9, .beta2 = 0.98, .eps = 1e-6, .weight_decay = 0.2                                      \
    }

/* Allocates the arguments and results of an update; freed with mode_backend_free. E_MEMORY. */
enum mode_status mode_adamw_begin(struct mode_adamw_step **now, struct mode_backend *be, struct mode_error *err);
/* Set the arguments of the next update. step counts from 1 (bias correction). No update may be in flight: the device
 * reads these values when the update runs. */
void mode_adamw_tell(struct mode_adamw_step *now, const struct mode_adamw *options, int64_t step);
/* One update of every parameter that is not frozen; gradients are not changed. Clipping scales gradients by
 * clip_norm / (norm + 1e-6) if that is below 1, as PyTorch's clip_grad_norm_ does; with clipping, a norm that is not
 * finite skips the update. Asynchronous ops: the next mode_backend_sync waits for them. */
void mode_adamw_update(struct mode_backend *be, struct mode_param *params, size_t n, struct mode_adamw_step *now);
/* The global norm of the gradients before clipping, or 0 without clip_norm; after a mode_backend_sync. */
double mode_adamw_norm(const struct mode_adamw_step *now);

#endif
