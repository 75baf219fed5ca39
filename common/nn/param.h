/* param.h - one trainable tensor of a model: what checkpoints, the optimiser and the tests walk over. */
#ifndef MODE_NN_PARAM_H
#define MODE_NN_PARAM_H

#include "dist/ranks.h"
#include "tensor/tensor.h"

#include <stdbool.h>

struct mode_param {
    char *name; /* as in the checkpoint; owned by the model          */
    struct mode_tensor value;
    struct mode_tensor operand;    /* what products read: value, or on a bf16 backend its rounded copy */
    struct mode_tensor grad, m, v; /* same shape; data NULL until training is begun     */
    bool decay;                    /* weight decay applies                              */
    bool frozen;                   /* never trained: its grad stays zero                */
};

/* All parameters of a model in one block and their gradients in another, at the same places. */
struct mode_flat {
    float *values, *grads;
    size_t n;    /* floats, what fills gaps included; a multiple of 16 */
    size_t room; /* floats that there is memory for, so that the blocks can be cut into equal shares */
};
enum { MODE_FLAT_ROOM = 16 * MODE_RANKS_MAX };

/* The rounded copy, or NULL where value itself is read. */
static inline struct mode_tensor *mode_param_copy(struct mode_param *p)
{
    return p->operand.data && p->operand.data != p->value.data ? &p->operand : NULL;
}

#endif
