#include "nn/ref/ref.h"

const struct mode_ops mode__ref_ops = {.name = "ref",
#define X(op) .op = mode__ref_##op,
                                       MODE__OP_LIST(X)
#undef X
};
