/* clip_exact.h - both towers in double, dense, forward and back: the truth clip_verify.c measures against.
 *
 * Everything is computed for all rows: pictures of 1 + P tokens, texts padded to the context. Weights are read from
 * the model's parameters where they are needed, gradients are handed out one by one and not kept.
 *
 * Letters: B pairs, T rows of a sequence, R = B T, D width, E joint embedding. Threads: as clip_verify.h. */
#ifndef MODE_MODELS_CLIP_EXACT_H
#define MODE_MODELS_CLIP_EXACT_H

#include "models/clip_impl.h"

struct clip_exact_block { /* of one block, all [R, ...] */
    double *x, *ln_1, *qkv, *attn, *out_1, *mid, *ln_2, *z, *hidden, *out_2;
};

struct clip_exact {
    struct mode_clip *clip;
    const struct clip_tower *t;
    bool text;
    int64_t b, rows, d, f, e; /* rows: T */
    int32_t *ids, *pool;      /* text: [R] padded, [B] place in the sequence */
    double *cols, *tokens;    /* image: patches [B P, 3 p p], tokens before ln_pre [R, D] */
    struct clip_exact_block *blocks;
    double *x;                        /* [R, D] into the first block */
    double *out;                      /* [R, D] of the last block    */
    double *pooled, *ln, *emb, *unit; /* [B, D] x 2, [B, E] x 2     */
};

typedef void clip_exact_grad_fn(void *ctx, const struct mode_param *p, const double *grad);

/* Forward. image: pixels; text: ids and n_ids. */
void mode__clip_exact_image(struct clip_exact *x, struct mode_clip *clip, const float *pixels, int64_t b);
void mode__clip_exact_text(struct clip_exact *x, struct mode_clip *clip, const int32_t *ids, const int32_t *n_ids,
                           int64_t b);
/* Back from d_unit [B, E]; each gradient once. */
void mode__clip_exact_back(struct clip_exact *x, const float *d_unit, clip_exact_grad_fn *each, void *ctx);
void mode__clip_exact_clear(struct clip_exact *x);

/* The loss of unit rows a, b [B, E] f32 and its gradients [B, E], and that of the logit scale. */
double mode__clip_exact_loss(double *da, double *db, double *d_scale, const float *a, const float *b, int64_t n,
                             int64_t e, double logit_scale);

#endif
