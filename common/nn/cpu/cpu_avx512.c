/* The cpu backend compiled for AVX-512 (flags in cpu.cmake); usable if the processor has it. */
#if defined(__x86_64__)
#define MODE_NN_CPU_TABLE mode__cpu_avx512_ops
#define MODE_NN_CPU_NAME  "cpu-avx512"
#include "nn/cpu/table.h"
#endif
typedef int mode_nn_cpu_avx512_is_not_empty;
