/* table.h - the whole cpu backend, compiled once per instruction set by cpu_plain.c, cpu_avx2.c, cpu_avx512.c and
 * cpu_amx.c. */
#include "nn/cpu/gemm.h"

#include "nn/cpu/attention.h"
#include "nn/cpu/embed.h"
#include "nn/cpu/linear.h"
#include "nn/cpu/loss.h"
#include "nn/cpu/nearest.h"
#include "nn/cpu/norm.h"
#include "nn/cpu/optim.h"
#include "nn/cpu/rows.h"

const struct mode_ops MODE_NN_CPU_TABLE = {.name = MODE_NN_CPU_NAME,
                                           .activations = MODE_DTYPE_F32,
#define X(op) .op = cpu_##op,
                                           MODE__OP_LIST(X)
#undef X
};
