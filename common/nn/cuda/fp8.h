/* fp8.h - products of 8-bit numbers (docs/decisions/0022-products-in-fp8.md). Inside nn/cuda only.
 *
 * x [m, k] w [n, k]^T and dy [m, n] w [n, k]: operands are scaled by a power of two and rounded on the device, x and w
 * to E4M3, dy to E5M2. cuBLASLt wants the dimension that is summed over innermost in both, so of the second product w
 * is turned while it is rounded. */
#ifndef MODE_NN_CUDA_FP8_H
#define MODE_NN_CUDA_FP8_H

#include "nn/cuda/device.h"

/* product_fp8.c: false: not made, and counted: the sizes do not allow it, or cuBLASLt does not. */
bool mode__cuda_product_fp8(struct mode_backend *be, const struct mode__product *x);
/* MODE_E_DEVICE: this GPU, or this machine without cuBLASLt, makes none. */
enum mode_status mode__cuda_fp8_usable(const struct mode_backend *be, struct mode_error *err);
void mode__cuda_fp8_note(const struct mode_backend *be, FILE *out);

#endif
