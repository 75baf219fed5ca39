/* clip_verify.h - checks a model's f32 forward and backward against an independent f64 implementation.
 *
 * The reference (clip_exact.c) computes every row of every text and image with plain loops and f64 BLAS. It shares no
 * code with the backends, so it also proves the exact savings (clip_train.h). Forward stages are compared end to end,
 * from the inputs. The reference's loss starts from our features, its tower gradients from our gradients of the
 * features, so that an error in one part is not charged to the next.
 *
 * Threads: one caller per model; uses the thread pool. */
#ifndef MODE_MODELS_CLIP_VERIFY_H
#define MODE_MODELS_CLIP_VERIFY_H

#include "base/error.h"

#include <stdint.h>

struct mode_clip;
struct mode_safetensors;

struct mode_verify_row { /* one tensor of one stage; strings are valid during the call */
    const char *stage;   /* "image tower", "text tower", "loss", "image gradients" ... */
    const char *tensor;  /* "visual.transformer.resblocks.3", a parameter's name ...   */
    double error;        /* |ours - exact| / |exact|, L2 norms over the tensor         */
    double tolerance;    /* upper limit of error                                       */
    int64_t worst;       /* index of the element with the largest absolute error       */
    double ours, exact;  /* the values there                                           */
};

typedef void mode_verify_fn(void *ctx, const struct mode_verify_row *row);

/* Inputs are as in mode_clip_train_step. Training must not have begun: mode_clip_train_begin is called here. Gradients
 * are left in the parameters. E_MEMORY, E_VALUE. */
enum mode_status mode_clip_verify(struct mode_clip *clip, const float *pixels, const int32_t *ids, const int32_t *n_ids,
                                  int64_t b, mode_verify_fn *each, void *ctx, struct mode_error *err);

/* The same against stages stored by another implementation: tensors <prefix>image.x, <prefix>text.block.0,
 * <prefix>grad.<parameter> ... f32, as tests/golden/make_verify_goldens.py writes them. These gradients are end to end.
 * E_FORMAT: a tensor is missing or of another size. */
enum mode_status mode_clip_verify_stored(struct mode_clip *clip, const struct mode_safetensors *f, const char *prefix,
                                         const float *pixels, const int32_t *ids, const int32_t *n_ids, int64_t b,
                                         mode_verify_fn *each, void *ctx, struct mode_error *err);

/* Relative tolerances. A block's grows with the number of blocks before it, as rounding errors accumulate. */
double mode_verify_limit_block(int64_t blocks_before);
double mode_verify_limit_gradient(int n_dims); /* 2e-5; 1e-4 for vectors and scalars */

#endif
