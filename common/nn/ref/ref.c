#include "nn/ref/ref.h"

#define X(op) .op = mode__ref_##op,
const struct mode_ops mode__ref_ops = {.name = "ref", .activations = MODE_DTYPE_F32, MODE__OP_LIST(X)},
                      mode__ref_bf16_ops = {.name = "ref-bf16", .activations = MODE_DTYPE_BF16, MODE__OP_LIST(X)};
#undef X

/* The same with other linear layers: the names that X makes are macros here. */
#define mode__ref_linear      mode__ref_fp8_linear
#define mode__ref_linear_back mode__ref_fp8_linear_back
#define X(op)                 .op = mode__ref_##op,
const struct mode_ops mode__ref_fp8_ops = {.name = "ref-fp8", .activations = MODE_DTYPE_BF16, MODE__OP_LIST(X)};
#undef X
