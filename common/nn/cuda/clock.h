/* clock.h - how long ops and the products in them take on the GPU, for a profile. Ops of a profile run one after
 * another on one stream (streams.c), and never in a capture (graphs.c). */
#ifndef MODE_NN_CUDA_CLOCK_H
#define MODE_NN_CUDA_CLOCK_H

#include "nn/backend_impl.h"

struct mode__clock;
void mode__clock_close(struct mode__clock **k);

/* struct mode__device: around an op; clock_read adds what was timed to be->time and waits for the GPU. */
void mode__cuda_clock_begin(struct mode_backend *be, enum mode__op op);
void mode__cuda_clock_end(struct mode_backend *be);
void mode__cuda_clock_read(struct mode_backend *be);

/* Around a product of matrices; does nothing unless an op is timed. */
void mode__clock_product_begin(struct mode_backend *be);
void mode__clock_product_end(struct mode_backend *be);

#endif
