/* update.h - what an optimiser step needs besides the parameters. It is in memory of mode_backend_share: the host
 * writes it before a step, the ops of the step read and update it, and nobody synchronises. Plain C, because kernels
 * include it too. */
#ifndef MODE_NN_UPDATE_H
#define MODE_NN_UPDATE_H

struct mode_adamw_step {
    double lr, beta1, beta2, eps, weight_decay;
    double fix1, fix2; /* 1 - beta^step, from step 1 on: the moments' bias correction */
    double clip_norm;  /* the global norm of gradients is clipped to this; 0: no clipping */
    double squares;    /* with clip_norm: the sum of their squares, mode_grad_squares */
};

#endif
