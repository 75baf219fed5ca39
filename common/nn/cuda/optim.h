/* optim.h - the optimiser's ops of the cuda backend; contracts are those of nn/ops.h. Inside nn/cuda only. */
#ifndef MODE_NN_CUDA_OPTIM_H
#define MODE_NN_CUDA_OPTIM_H

#include "nn/ops.h"

void mode__cuda_op_adamw(struct mode_backend *be, struct mode_param *p, size_t n, const struct mode_adamw_step *s);
void mode__cuda_op_grad_squares(struct mode_backend *be, double *sum, const struct mode_param *p, size_t n);
void mode__cuda_op_rounded(struct mode_backend *be, struct mode_tensor *copy, const struct mode_tensor *x);
void mode__cuda_op_clamp(struct mode_backend *be, struct mode_tensor *x, float low, float high);

#endif
