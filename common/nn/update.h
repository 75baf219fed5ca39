/* update.h - what an update of parameters needs to know beyond the parameters themselves. It lies in memory that both
 * sides have: the host writes it before a step, the ops of the step read and add to it, and nobody waits for anybody.
 * Plain C, which kernels include too. */
#ifndef MODE_NN_UPDATE_H
#define MODE_NN_UPDATE_H

struct mode_adamw_step {
    double lr, beta1, beta2, eps, weight_decay;
    double fix1, fix2; /* 1 - beta^step, step 1 being the first: corrects the moments' bias to zero */
    double clip_norm;  /* gradients together are no longer than this; 0: they are taken as they are */
    double squares;    /* with clip_norm: the sum of their squares, mode_grad_squares */
};

#endif
