/* cudnn_attention.h - attention of the cuda backend: which way each shape takes, cuDNN or our own kernels.
 *
 * cuDNN takes self attention of bf16 rows whose longest sequence is known (struct mode_attention), of heads of a
 * multiple of 8 channels and more than one token; f32, one query to a sequence, and keys of their own stay with our
 * kernels, and so does everything where there is no cuDNN of at least 9.15.1. Which way a shape takes is fixed when it
 * is first met and stays as long as the backend is open:
 *
 *   - by rule, unless asked to measure: our kernels where no sequence has more than MODE__ATTENTION_SHORT rows; of longer
 *     ones cuDNN in training and for equal lengths; packed sequences in inference, whose number changes from batch to
 *     batch, our kernels (a plan takes seconds to make and holds for one number of sequences);
 *   - by the clock when measuring (mode_backend_measure): both are run and the faster one is kept; then two runs of a
 *     program may differ in their last bits;
 *   - MODE_CUDA_ATTENTION=own or =cudnn in the environment overrules both.
 *
 * Unless measuring, only plans are made that give the same bytes each time. **The way through cuDNN has run on no
 * GPU.** Threads: as the backend. */
#ifndef MODE_NN_CUDA_CUDNN_ATTENTION_H
#define MODE_NN_CUDA_CUDNN_ATTENTION_H

#include "nn/cuda/attention.h"
#include "nn/cuda/device.h"

#include <stdio.h>

struct mode__attention_ways;
struct mode__cudnn;

struct mode__attention_ways *mode__attention_ways_open(void); /* cuDNN is loaded when a shape asks for it */
void mode__attention_ways_close(struct mode__attention_ways **w);
void mode__attention_ways_measure(struct mode__attention_ways *w, bool on);
/* The same cuDNN for others (product_act.h): opened when it is first asked for; NULL: there is none. And its version, 0:
 * none. */
struct mode__cudnn *mode__attention_cudnn(struct mode__attention_ways *w);
size_t mode__attention_cudnn_version(struct mode__attention_ways *w);
/* For the profile: a line for every shape met, with the way it takes and why. */
void mode__attention_ways_note(const struct mode__attention_ways *w, FILE *out);

/* longest: no sequence has more rows, or 0 for not known. lse NULL: inference. */
void mode__attention_by_best(struct mode_backend *be, void *out, float *lse, const struct mode__cuda_attention *a,
                             int64_t longest);
void mode__attention_back_by_best(struct mode_backend *be, void *dq, void *dkv, const void *dout, const void *out,
                                  const float *lse, const struct mode__cuda_attention *a, int64_t longest);

#endif
