/* clip_verify.h - a model's float32 arithmetic against a second, independent one in double, stage by stage.
 *
 * The second one (clip_exact.c) computes every row of every text and picture with plain loops and a double BLAS and
 * shares no code with the backends, so it also proves the exact savings. Forward stages are compared as they come out
 * of the whole way to them; the loss and its gradients from our features; the towers' gradients from our gradient of
 * the features: what one stage does wrong is not charged to the next part.
 *
 * Threads: one caller per model; uses the pool of threads. */
#ifndef MODE_MODELS_CLIP_VERIFY_H
#define MODE_MODELS_CLIP_VERIFY_H

#include "base/error.h"

#include <stdint.h>

struct mode_clip;
struct mode_safetensors;

struct mode_verify_row { /* one tensor of one stage; texts are valid during the call */
    const char *stage;   /* "image tower", "text tower", "loss", "image gradients" ... */
    const char *tensor;  /* "visual.transformer.resblocks.3", a parameter's name ...   */
    double error;        /* |ours - exact| / |exact|, over the tensor                  */
    double tolerance;    /* of error                                                   */
    int64_t worst;       /* index of the component that is furthest off                */
    double ours, exact;  /* the values there                                           */
};

typedef void mode_verify_fn(void *ctx, const struct mode_verify_row *row);

/* The pairs are as in mode_clip_train_step. The model must be fresh: train_begin is called here, gradients are left
 * in the parameters. E_MEMORY, E_VALUE. */
enum mode_status mode_clip_verify(struct mode_clip *clip, const float *pixels, const int32_t *ids, const int32_t *n_ids,
                                  int64_t b, mode_verify_fn *each, void *ctx, struct mode_error *err);

/* The same for a model and pairs whose stages were stored by another implementation: tensors <prefix>image.x,
 * <prefix>text.block.0, <prefix>grad.<parameter> ... f32, as tests/golden/make_verify_goldens.py writes them. Here the
 * gradients are of the whole way. E_FORMAT: one is missing or of another size. */
enum mode_status mode_clip_verify_stored(struct mode_clip *clip, const struct mode_safetensors *f, const char *prefix,
                                         const float *pixels, const int32_t *ids, const int32_t *n_ids, int64_t b,
                                         mode_verify_fn *each, void *ctx, struct mode_error *err);

/* Limits, as shares of the norm: a block's output grows with the blocks before it. */
double mode_verify_limit_block(int64_t blocks_before);
double mode_verify_limit_gradient(int n_dims); /* 2e-5; 1e-4 for vectors and numbers */

#endif
