/* product_act.h - GEMMs followed by an activation or, backward, by its derivative: chooses between our implementation
 * (cuBLASLt, then a kernel) and cuDNN's fused one (product_graph.h).
 *
 * cuDNN supports bf16 with widths that are multiples of 8, GELU and QuickGELU. The choice for a GEMM:
 *
 *   - ours by default, until a GPU has shown that cuDNN's are correct and faster;
 *   - backward, by timing while GEMMs are autotuned (mode_backend_measure_products): ours and up to three candidates of
 *     cuDNN are run, and the fastest is kept for the whole bucket of row counts, with the GEMM algorithms (winners.h),
 *     so a training that is given these makes the same choice without timing;
 *   - MODE_CUDA_ACTIVATIONS=own or =cudnn in the environment overrides both. Only =cudnn sends forward GEMMs to cuDNN
 *     too: mode_activate is then not bit-identical to them (nn/ops.h), and a training's results depend on its
 *     activation checkpointing (decision 34).
 *
 * Only deterministic plans are used. **The cuDNN path has run on no GPU.** Threads: as the backend. */
#ifndef MODE_NN_CUDA_PRODUCT_ACT_H
#define MODE_NN_CUDA_PRODUCT_ACT_H

#include "nn/cuda/device.h"
#include "nn/ops.h"

#include <stdio.h>

struct mode__product_act {
    void *result;       /* y, or the gradient of z; [m, n], activation type */
    void *z;            /* [m, n]; forward an output, NULL: not needed */
    const void *factor; /* x or dy [m, k] */
    const void *weight; /* [n, k]; backward [k, n] */
    const void *bias;   /* [n], forward; NULL: none */
    int64_t m, n, k;
    enum mode_act act;
    bool back;
};

/* y = act(z), z = x w^T + b; or the gradient of z = (dy w) act'(z) */
void mode__cuda_product_act(struct mode_backend *be, const struct mode__product_act *x);

struct mode__product_ways;
struct mode__product_ways *mode__product_ways_open(void);
void mode__product_ways_close(struct mode_backend *be);
/* Drops all choices, timed or given; they are made again. Graphs captured before must not be launched any more. */
void mode__product_ways_forget(struct mode_backend *be);
/* How many GEMMs cuDNN ran; how many of its plans could not be created or run. */
long mode__product_ways_by_cudnn(const struct mode_backend *be, long *failed);
/* For the profile: a line for every shape that is not ours by default. */
void mode__product_ways_note(const struct mode_backend *be, FILE *out);

#endif
