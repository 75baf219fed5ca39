/* look.h - what can this machine compute with, and does it compute correctly? A process checks before it takes work: a
 * missing, broken or miscomputing GPU is then known at once, and not after hours of work by others. */
#ifndef MODE_NN_LOOK_H
#define MODE_NN_LOOK_H

#include "nn/backend.h"

/* A small GEMM (k = 80) and a layer norm on backend "cuda", in f32, against the CPU's: the relative errors (L2 norm of
 * the difference over that of the CPU's result) in *product and *kernel, NaN where the GPU computed NaN. Errors:
 * MODE_E_DEVICE: no usable GPU; over MODE_LOOK_LIMIT, or NaN: MODE_E_VALUE. */
#define MODE_LOOK_LIMIT 1e-5
enum mode_status mode_gpu_trial(double *product, double *kernel, struct mode_error *err);

/* What backend `name` (as in mode_backend_choose, without a precision) is on this machine, human-readable: "NVIDIA
 * H200, 140 GiB" after such a trial, "cpu-avx2" without one. Errors: those of mode_backend_choose; MODE_E_DEVICE where
 * a GPU computes incorrectly. */
enum mode_status mode_backend_look(char *text, size_t size, const char *name, struct mode_error *err);

#endif
