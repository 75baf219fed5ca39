/* product_act.h - matrix products before an activation and behind one, of the cuda backend: which way each takes, ours
 * (cuBLASLt and a kernel after it) or cuDNN's products that end with the activation or its slope (product_graph.h).
 *
 * cuDNN takes bf16 whose widths are multiples of 8, GELU and QuickGELU. Which way a product takes:
 *
 *   - by rule ours, until a GPU has shown that cuDNN's are right and faster;
 *   - back, by the clock while products are measured (mode_backend_measure_products): both are run, cuDNN's by up to
 *     three candidates, and the fastest is kept for all row counts that are alike, with the algorithms of products
 *     (winners.h), so a training that is given them takes the same way without the clock;
 *   - MODE_CUDA_ACTIVATIONS=own or =cudnn in the environment overrules both. By cudnn alone products before an
 *     activation go there, too: mode_activate then makes other bytes from z than they did (nn/ops.h), and a training's
 *     bytes depend on what it keeps (decision 34).
 *
 * Only plans are made that give the same bytes each time. **The way through cuDNN has run on no GPU.** Threads: as the
 * backend. */
#ifndef MODE_NN_CUDA_PRODUCT_ACT_H
#define MODE_NN_CUDA_PRODUCT_ACT_H

#include "nn/cuda/device.h"
#include "nn/ops.h"

#include <stdio.h>

struct mode__product_act {
    void *result;       /* y, or the gradient of z; [m, n] as an activation is stored */
    void *z;            /* [m, n]; forward it is written, NULL: not wanted */
    const void *factor; /* x or dy [m, k] */
    const void *weight; /* [n, k]; back [k, n] */
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
/* Which way products took, measured or given; they are asked again. No graph that was recorded may be run then. */
void mode__product_ways_forget(struct mode_backend *be);
/* How many were made by cuDNN; of plans, how many could not be made or run. */
long mode__product_ways_by_cudnn(const struct mode_backend *be, long *failed);
/* For the profile: a line for every shape that was not ours by rule. */
void mode__product_ways_note(const struct mode_backend *be, FILE *out);

#endif
