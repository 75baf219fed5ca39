/* The cpu backend compiled for the baseline instruction set. */
#define MODE_NN_CPU_TABLE mode__cpu_plain_ops
#define MODE_NN_CPU_NAME  "cpu-plain"
#include "nn/cpu/table.h"
