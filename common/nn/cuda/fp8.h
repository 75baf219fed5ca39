/* fp8.h - fp8 GEMMs (docs/decisions/0022-products-in-fp8.md). Inside nn/cuda only.
 *
 * x [m, k] w [n, k]^T and dy [m, n] w [n, k]: operands are scaled by a power of two and quantised on the device, x and
 * w to E4M3, dy to E5M2. cuBLASLt requires the reduced dimension to be contiguous in both operands (TN), so for the
 * second GEMM w is transposed while it is quantised. */
#ifndef MODE_NN_CUDA_FP8_H
#define MODE_NN_CUDA_FP8_H

#include "nn/cuda/device.h"

/* product_fp8.c: false: not run, and counted: the sizes or cuBLASLt do not allow it. */
bool mode__cuda_product_fp8(struct mode_backend *be, const struct mode__product *x);
/* MODE_E_DEVICE: this GPU does not support fp8, or there is no cuBLASLt. */
enum mode_status mode__cuda_fp8_usable(const struct mode_backend *be, struct mode_error *err);
void mode__cuda_fp8_note(const struct mode_backend *be, FILE *out);

#endif
