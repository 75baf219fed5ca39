/* verify.h - numerical self-test of this machine, without Python, network or data.
 *
 * Four parts, each a sequence of mode_verify_row (clip_verify.h):
 *   tokenizer      texts through CLIP's tokenizer; ids compared with open_clip's
 *   preprocessing  small pictures in several formats; pixels compared with Pillow's and open_clip's
 *   reference      tiny CLIPs of every kind of tower; each stage, the loss and all gradients compared with PyTorch's in
 *                  f64
 *   model          the given model's own weights; each stage, the loss and all gradients in f32 compared with our
 *                  second implementation in f64
 * The reference values of the first three are linked into this library: verify_goldens.safetensors, made by
 * tests/golden/make_verify_goldens.py.
 *
 * Threads: one caller; uses the thread pool. */
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
    void (*note)(void *ctx, const char *text); /* mode_clip_note of the model, if it is not ""; may be NULL */
};

/* merges: bpe_simple_vocab_16e6.txt.gz. error: 1 if any id differs, else 0. MODE_OK means that the check ran: verdicts
 * are the rows'. */
enum mode_status mode_verify_tokenizer(const char *merges, const struct mode_verify_hooks *hooks,
                                       struct mode_error *err);
/* error: the largest absolute difference of a normalised pixel; for JPEG the tolerance is two levels of 255. */
enum mode_status mode_verify_preprocessing(const struct mode_verify_hooks *hooks, struct mode_error *err);
enum mode_status mode_verify_reference(struct mode_backend *be, const struct mode_verify_hooks *hooks,
                                       struct mode_error *err);
/* dir: a CLIP's folder. pairs >= 2: of noise images and random texts. */
enum mode_status mode_verify_model(struct mode_backend *be, const char *dir, int64_t pairs,
                                   const struct mode_verify_hooks *hooks, struct mode_error *err);

#endif
