/* cudnn_attention.h - attention of the cuda backend: chooses cuDNN or our own kernels for each shape.
 *
 * cuDNN can take bf16 self-attention with a known bound on sequence length (struct mode_attention), heads of a multiple
 * of 8 channels and more than one token; f32, one query per sequence, and cross-attention stay with our kernels, and so
 * does everything without cuDNN 9.15.1 or newer. The choice for a shape is made on first use and kept as long as the
 * backend is open:
 *
 *   - by rule, unless autotuning: our kernels where no sequence has more than MODE__ATTENTION_SHORT rows; for longer
 *     ones cuDNN in training and for equal lengths; our kernels for packed sequences in inference, whose number changes
 *     from batch to batch (a plan takes seconds to create and is valid for one number of sequences);
 *   - by timing when autotuning (mode_backend_measure): both are run and the faster one is kept; two runs of a program
 *     may then differ in their last bits;
 *   - MODE_CUDA_ATTENTION=own or =cudnn in the environment overrides both.
 *
 * Unless autotuning, only deterministic plans are used. **The cuDNN path has run on no GPU.** Threads: as the backend.
 */
#ifndef MODE_NN_CUDA_CUDNN_ATTENTION_H
#define MODE_NN_CUDA_CUDNN_ATTENTION_H

#include "nn/cuda/attention.h"
#include "nn/cuda/device.h"

#include <stdio.h>

struct mode__attention_ways;
struct mode__cudnn;

struct mode__attention_ways *mode__attention_ways_open(void); /* cuDNN is loaded when a shape needs it */
void mode__attention_ways_close(struct mode__attention_ways **w);
void mode__attention_ways_measure(struct mode__attention_ways *w, bool on);
/* The cuDNN handle, also for product_act.h: opened on first use; NULL: there is none. And its version, 0: none. */
struct mode__cudnn *mode__attention_cudnn(struct mode__attention_ways *w);
size_t mode__attention_cudnn_version(struct mode__attention_ways *w);
/* For the profile: a line for every known shape, with its implementation and why. */
void mode__attention_ways_note(const struct mode__attention_ways *w, FILE *out);

/* longest: upper bound of a sequence's rows, or 0: unknown. lse NULL: inference. */
void mode__attention_by_best(struct mode_backend *be, void *out, float *lse, const struct mode__cuda_attention *a,
                             int64_t longest);
void mode__attention_back_by_best(struct mode_backend *be, void *dq, void *dkv, const void *dout, const void *out,
                                  const float *lse, const struct mode__cuda_attention *a, int64_t longest);

#endif
