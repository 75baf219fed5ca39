/* cuda_runtime.h - what kernels see: the runtime, vector types, the threads of a block. For C++ files written by
 * ../rewrite.sh. */
#ifndef MODE_EMULATOR_CUDA_RUNTIME_H
#define MODE_EMULATOR_CUDA_RUNTIME_H

#include <cuda_runtime_api.h>
#ifdef __cplusplus
#include <block.h>
#include <vector_types.h>
#endif
#endif
