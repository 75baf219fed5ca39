/* verify.h - is what this machine computes right? Without Python, network or data.
 *
 * Four parts, each a sequence of mode_verify_row (clip_verify.h):
 *   tokenizer      texts through CLIP's tokenizer; ids as open_clip's
 *   preprocessing  small pictures in several formats; pixels as Pillow's and open_clip's
 *   reference      tiny CLIPs of every kind of tower; each stage, the loss and all gradients as PyTorch's in float64
 *   model          the given model's own weights; each stage, the loss and all gradients in float32 against our
 *                  second implementation in double
 * The vectors of the first three come with the program: verify_goldens.safetensors, made by
 * tests/golden/make_verify_goldens.py, is part of this library.
 *
 * Threads: one caller; uses the pool of threads. */
#ifndef MODE_PIPELINE_VERIFY_H
#define MODE_PIPELINE_VERIFY_H

#include "base/error.h"
#include "models/clip_verify.h"

#include <stdint.h>

struct mode_backend;

struct mode_verify_hooks {
    void *ctx;
    void (*begin)(void *ctx, const char *part); /* "preprocessing", "reference: class token, QuickGELU" ...     */
    mode_verify_fn *row;
    void (*note)(void *ctx, const char *text); /* mode_clip_note of the model, where there is one; may be NULL */
};

/* merges: bpe_simple_vocab_16e6.txt.gz. An id that differs has error 1. */
enum mode_status mode_verify_tokenizer(const char *merges, const struct mode_verify_hooks *hooks,
                                       struct mode_error *err);
/* error: the largest difference of a normalised pixel; two levels of 255 where JPEG was decoded. */
enum mode_status mode_verify_preprocessing(const struct mode_verify_hooks *hooks, struct mode_error *err);
enum mode_status mode_verify_reference(struct mode_backend *be, const struct mode_verify_hooks *hooks,
                                       struct mode_error *err);
/* dir: a CLIP's folder. pairs: noise pictures and random texts, at least 2. */
enum mode_status mode_verify_model(struct mode_backend *be, const char *dir, int64_t pairs,
                                   const struct mode_verify_hooks *hooks, struct mode_error *err);

#endif
