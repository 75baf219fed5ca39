/* half.h - sixteen-bit floats to and from f32; the tensors we compute with are f32. */
#ifndef MODE_TENSOR_HALF_H
#define MODE_TENSOR_HALF_H

#include "tensor/tensor.h"

float mode_f16_to_f32(uint16_t h);  /* exact                          */
uint16_t mode_f32_to_f16(float f);  /* nearest, ties to even; overflow is infinity */
float mode_bf16_to_f32(uint16_t h); /* exact                          */

/* n numbers of dtype F32, F16, BF16 (all exact) or F64 (rounded to nearest) at src (any alignment) to dst. False for
 * another dtype. */
bool mode_half_to_f32(float *dst, const void *src, enum mode_dtype dtype, size_t n);

#endif
