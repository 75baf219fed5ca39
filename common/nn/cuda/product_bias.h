/* product_bias.h - gradients of weights with those of biases, of the cuda backend: which way each pair takes, ours (a
 * product, then a pass over dy that adds up its columns) or cuBLASLt's alone, which adds them up while it multiplies
 * (CUBLASLT_EPILOGUE_BGRADB), so that dy is read once.
 *
 *   - by rule ours, until a GPU has shown that cuBLASLt's is right and faster;
 *   - by the clock while products are measured (mode_backend_measure_products): both are run, and what is faster is kept
 *     for all row counts that are alike, with the algorithms of products (winners.h), so a training that is given them
 *     takes the same way without the clock;
 *   - MODE_CUDA_BIASES=own or =fused in the environment overrules both.
 *
 * cuBLASLt writes these sums and cannot add them to what is there, as it does with the product: they go to scratch, and
 * a kernel of n numbers adds them to db. In which order it makes them NVIDIA does not say, but for its promise that the
 * same call gives the same bits on GPUs of one kind. **cuBLASLt's way has run on no GPU.** Threads: as the backend. */
#ifndef MODE_NN_CUDA_PRODUCT_BIAS_H
#define MODE_NN_CUDA_PRODUCT_BIAS_H

#include "nn/cuda/device.h"

#include <stdio.h>

/* x: the product that makes dw [n, k] of dy [rows, n], turned, and of what the layer was given. db [n] += the columns'
 * sums of dy. */
void mode__cuda_product_bias(struct mode_backend *be, float *db, const struct mode__product *x);

struct mode__bias_ways *mode__bias_ways_open(void);
void mode__bias_ways_close(struct mode__bias_ways **w);
/* Which way pairs took, measured or given; they are asked again. */
void mode__bias_ways_forget(struct mode__bias_ways *w);
/* How many pairs cuBLASLt made alone; and how many it was to make and refused. */
long mode__bias_ways_fused(const struct mode__bias_ways *w, long *refused);
/* For the profile: a line for every shape that was not ours by rule. */
void mode__bias_ways_note(const struct mode__bias_ways *w, FILE *out);

#endif
