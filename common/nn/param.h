/* param.h - one trainable tensor of a model: what checkpoints, the optimiser and the tests iterate over. */
#ifndef MODE_NN_PARAM_H
#define MODE_NN_PARAM_H

#include "dist/ranks.h"
#include "tensor/tensor.h"

#include <stdbool.h>

struct mode_param {
    char *name; /* as in the checkpoint; owned by the model          */
    struct mode_tensor value;
    struct mode_tensor operand;    /* what GEMMs read: value, or on a bf16 backend its rounded copy */
    struct mode_tensor grad, m, v; /* same shape; data NULL until training begins, and in a locked tower */
    bool decay;                    /* weight decay applies                              */
    bool frozen;                   /* not trained: its grad, if it has one, stays zero  */
};

/* All parameters of a model but the locked ones in one buffer and their gradients in another, at the same offsets. */
struct mode_flat {
    float *values, *grads;
    size_t n;      /* floats, padding included; a multiple of 16 */
    size_t room;   /* floats allocated, so that the buffers can be cut into equal shards */
    size_t locked; /* floats of the locked parameters, which end where values begins */
};
enum { MODE_FLAT_ROOM = 16 * MODE_RANKS_MAX };

/* The rounded copy, or NULL where value itself is read. */
static inline struct mode_tensor *mode_param_copy(struct mode_param *p)
{
    return p->operand.data && p->operand.data != p->value.data ? &p->operand : NULL;
}

#endif
