/* clock.h - the profiler: GPU time of ops and of the GEMMs in them. While profiling, ops run serially on one stream
 * (streams.c) and are never captured (graphs.c). */
#ifndef MODE_NN_CUDA_CLOCK_H
#define MODE_NN_CUDA_CLOCK_H

#include "nn/backend_impl.h"

struct mode__clock;
void mode__clock_close(struct mode__clock **k);

/* struct mode__device: around an op; clock_read waits for the GPU and adds the times to be->time. */
void mode__cuda_clock_begin(struct mode_backend *be, enum mode__op op);
void mode__cuda_clock_end(struct mode_backend *be);
void mode__cuda_clock_read(struct mode_backend *be);

/* Around a GEMM; no-ops unless an op is timed. */
void mode__clock_product_begin(struct mode_backend *be);
void mode__clock_product_end(struct mode_backend *be);

#endif
