/* nearest.h - the clustering ops of the cuda backend; contracts are those of nn/ops.h. Inside nn/cuda only. */
#ifndef MODE_NN_CUDA_NEAREST_H
#define MODE_NN_CUDA_NEAREST_H

#include "nn/ops.h"

void mode__cuda_op_nearest_rows(struct mode_backend *be, struct mode_tensor *id, struct mode_tensor *distance,
                                struct mode_tensor *work, const struct mode_tensor *x, const struct mode_tensor *c,
                                bool cosine);
void mode__cuda_op_costs(struct mode_backend *be, struct mode_tensor *cost, const struct mode_tensor *x,
                         const struct mode_tensor *c, bool cosine);
void mode__cuda_op_group_rows(struct mode_backend *be, struct mode_tensor *first, struct mode_tensor *members,
                              const struct mode_tensor *id);
void mode__cuda_op_group_means(struct mode_backend *be, struct mode_tensor *means, const struct mode_tensor *x,
                               const struct mode_tensor *first, const struct mode_tensor *members, bool unit);

#endif
