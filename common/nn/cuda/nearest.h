/* nearest.h - the clustering ops of the cuda backend; contracts are those of nn/ops.h. Inside nn/cuda only. */
#ifndef MODE_NN_CUDA_NEAREST_H
#define MODE_NN_CUDA_NEAREST_H

#include "nn/ops.h"

void mode__cuda_op_nearest_rows(struct mode_backend *be, struct mode_tensor *id, struct mode_tensor *distance,
                                struct mode_tensor *work, const struct mode_tensor *x, const struct mode_tensor *ready,
                                const struct mode_tensor *c, bool cosine);
size_t mode__cuda_nearest_ready_bytes(struct mode_backend *be, int64_t n, int64_t d);
void mode__cuda_nearest_ready(struct mode_backend *be, struct mode_tensor *ready, const struct mode_tensor *x);
/* nearest_proof.c: use nearest_hopper.cu for n rows? Only on compute capability 9.0, once it has solved a problem with
 * known answers, which the first call makes it do. MODE_CUDA_NEAREST: "own" then says yes for any n, "library" always
 * no. */
bool mode__cuda_nearest_by_tiles(struct mode_backend *be, int64_t n);
int mode__cuda_multiprocessors(void);
void mode__cuda_op_costs(struct mode_backend *be, struct mode_tensor *cost, const struct mode_tensor *x,
                         const struct mode_tensor *c, bool cosine);
void mode__cuda_op_group_rows(struct mode_backend *be, struct mode_tensor *first, struct mode_tensor *members,
                              const struct mode_tensor *id);
void mode__cuda_op_group_means(struct mode_backend *be, struct mode_tensor *means, const struct mode_tensor *x,
                               const struct mode_tensor *first, const struct mode_tensor *members, bool unit);

#endif
