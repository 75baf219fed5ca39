/* clip_exact.h - forward and backward of both towers in f64, dense: the reference that clip_verify.c compares with.
 *
 * Every row is computed: images of 1 + P tokens, texts padded to the context length. Weights are read from the model's
 * parameters, which must be in host memory. Gradients are passed to a callback one parameter at a time, not stored.
 *
 * Letters: B pairs, T rows of a sequence, R = B T, D width, F MLP width, E joint embedding, p patch_size.
 * Threads: as clip_verify.h. */
#ifndef MODE_MODELS_CLIP_EXACT_H
#define MODE_MODELS_CLIP_EXACT_H

#include "models/clip_impl.h"

struct clip_exact_block { /* activations of one block, all [R, ...]; z: the MLP's pre-activation */
    double *x, *ln_1, *qkv, *attn, *out_1, *mid, *ln_2, *z, *hidden, *out_2;
};

struct clip_exact {
    struct mode_clip *clip;
    const struct clip_tower *t;
    bool text;
    int64_t b, rows, d, f, e; /* rows: T */
    int32_t *ids, *pool;      /* text: [R] padded; [B] position of the pooled token */
    double *cols, *tokens;    /* image: patches [B P, 3 p p], tokens before ln_pre [R, D] */
    struct clip_exact_block *blocks;
    double *x;                        /* [R, D] input of the first block */
    double *out;                      /* [R, D] output of the last block */
    double *pooled, *ln, *emb, *unit; /* [B, D] x 2, [B, E] x 2          */
};

/* grad: the gradient of p, in its shape; valid during the call. */
typedef void clip_exact_grad_fn(void *ctx, const struct mode_param *p, const double *grad);

/* Forward; inputs as in mode_clip_train_step. x is filled with activations that mode__clip_exact_clear frees. */
void mode__clip_exact_image(struct clip_exact *x, struct mode_clip *clip, const float *pixels, int64_t b);
void mode__clip_exact_text(struct clip_exact *x, struct mode_clip *clip, const int32_t *ids, const int32_t *n_ids,
                           int64_t b);
/* Backward from d_unit [B, E] f32; `each` is called once per trainable parameter of the tower. */
void mode__clip_exact_back(struct clip_exact *x, const float *d_unit, clip_exact_grad_fn *each, void *ctx);
void mode__clip_exact_clear(struct clip_exact *x);

/* The contrastive loss of unit rows a, b [n, e] f32, its gradients da, db [n, e] and that of logit_scale (the
 * logarithm). */
double mode__clip_exact_loss(double *da, double *db, double *d_scale, const float *a, const float *b, int64_t n,
                             int64_t e, double logit_scale);

#endif
