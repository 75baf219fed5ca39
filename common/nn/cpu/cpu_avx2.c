/* The cpu backend compiled for AVX2 and FMA (flags in cpu.cmake); usable if the processor has them. */
#if defined(__x86_64__)
#define MODE_NN_CPU_TABLE mode__cpu_avx2_ops
#define MODE_NN_CPU_NAME  "cpu-avx2"
#include "nn/cpu/table.h"
#endif
typedef int mode_nn_cpu_avx2_is_not_empty;
