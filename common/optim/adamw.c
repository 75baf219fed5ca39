#include "optim/adamw.h"

#include "nn/ops.h"

#include <math.h>

enum mode_status mode_adamw_begin(struct mode_adamw_step **now, struct mode_backend *be, struct mode_error *err)
{
    void *data;
    enum mode_status st = mode_backend_share(be, &data, sizeof **now, err);
    *now = data;
    return st;
}

void mode_adamw_tell(struct mode_adamw_step *now, const struct mode_adamw *options, int64_t step)
{
    MODE_ASSERT(step >= 1);
    *now = (struct mode_adamw_step){.lr = options->lr,
                                    .beta1 = options->beta1,
                                    .beta2 = options->beta2,
                                    .eps = options->eps,
                                    .weight_decay = options->weight_decay,
                                    .fix1 = 1 - pow(options->beta1, (double)step),
                                    .fix2 = 1 - pow(options->beta2, (double)step),
                                    .clip_norm = options->clip_norm};
}

void mode_adamw_update(struct mode_backend *be, struct mode_param *params, size_t n, struct mode_adamw_step *now)
{
    mode_backend_written(be, now, sizeof *now);
    if (now->clip_norm > 0) mode_grad_squares(be, &now->squares, params, n);
    mode_adamw(be, params, n, now);
    if (now->clip_norm > 0) mode_backend_show(be, &now->squares, sizeof now->squares);
}

double mode_adamw_norm(const struct mode_adamw_step *now)
{
    return now->clip_norm > 0 ? sqrt(now->squares) : 0;
}
