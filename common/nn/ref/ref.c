#include "nn/ref/ref.h"

#define X(op) .op = mode__ref_##op,
const struct mode_ops mode__ref_ops = {.name = "ref", .activations = MODE_DTYPE_F32, MODE__OP_LIST(X)},
                      mode__ref_bf16_ops = {.name = "ref-bf16", .activations = MODE_DTYPE_BF16, MODE__OP_LIST(X)};
#undef X
