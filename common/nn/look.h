/* look.h - what is there to compute with, and does it compute right? A process that is to do work asks before it takes
 * any: a GPU that is missing, broken or wrong is then known at once, and not after hours of work by others. */
#ifndef MODE_NN_LOOK_H
#define MODE_NN_LOOK_H

#include "nn/backend.h"

/* A small product (rows of 80 numbers) and a layer norm on backend "cuda", in f32, against the processor's: the
 * relative distances of the results (Euclidean length of the difference by that of the processor's) in *product and
 * *kernel, NaN where the GPU made NaN. Errors: MODE_E_DEVICE: no GPU that can be used; over MODE_LOOK_LIMIT, or NaN:
 * MODE_E_VALUE. */
#define MODE_LOOK_LIMIT 1e-5
enum mode_status mode_gpu_trial(double *product, double *kernel, struct mode_error *err);

/* What backend `name` (as in mode_backend_choose, without a precision) is on this machine, for people: "NVIDIA H200,
 * 140 GiB" after such a trial, "cpu-avx2" without one. Errors: those of mode_backend_choose; MODE_E_DEVICE where a GPU
 * computes wrong. */
enum mode_status mode_backend_look(char *text, size_t size, const char *name, struct mode_error *err);

#endif
