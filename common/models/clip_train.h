/* clip_train.h - the part of CLIP that only training uses: a fresh model, its parameters, one step, saving.
 *
 *     st = mode_clip_create(&clip, be, model_cfg, NULL, seed, &err);
 *     st = mode_clip_train_begin(clip, 256, &err);                   // all memory is taken here
 *     struct mode_param *p = mode_clip_params(clip, &n);
 *     for (step = 0; step < total; step++) {
 *         st = mode_clip_train_step(clip, &loss, pixels, ids, n_ids, b, &err);
 *         mode_adamw_tell(now, &options, step + 1);                  // optim/adamw.h
 *         mode_adamw_update(be, p, n, now);
 *         mode_clip_clamp(clip);
 *     }
 *     st = mode_clip_save(clip, config_path, weights_path, &err);
 *
 * Exact savings, on by default: texts are packed, so nothing after a text's end token is computed (causality hides
 * those rows from it, and they receive no gradient); in the last block only keys and values are made for all rows,
 * everything else for the pooled row alone. mode_clip_set_savings turns them off, for proof.
 *
 * Source:  Radford et al., "Learning transferable visual models from natural language supervision"; open_clip is
 *          the numerical truth (parameter names, initialisation, loss). tests/golden compares gradients with it.
 * Threads: one caller per model. */
#ifndef MODE_MODELS_CLIP_TRAIN_H
#define MODE_MODELS_CLIP_TRAIN_H

#include "models/clip.h"
#include "nn/param.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A model with random weights as open_clip draws them (same distributions; the numbers depend on seed alone).
 * model_cfg_json: open_clip's model_cfg. preprocess_cfg_json may be NULL: OpenAI's. be is borrowed.
 * E_FORMAT, E_VALUE: the config; E_MEMORY. */
enum mode_status mode_clip_create(struct mode_clip **clip, struct mode_backend *be, const char *model_cfg_json,
                                  const char *preprocess_cfg_json, uint64_t seed, struct mode_error *err);
struct mode_clip_config;
/* The same from numbers: a model that has no texts, so that it cannot be saved. Needs neither JSON nor files. */
enum mode_status mode_clip_create_plain(struct mode_clip **clip, struct mode_backend *be,
                                        const struct mode_clip_config *cfg, uint64_t seed, struct mode_error *err);
/* The JSON text as given (or as found in the checkpoint). Borrowed. */
const char *mode_clip_model_cfg(const struct mode_clip *clip);

/* Every parameter, in a fixed order, under open_clip's names. grad, m, v have memory after train_begin. */
struct mode_param *mode_clip_params(struct mode_clip *clip, size_t *n);

/* The rounded copies that products read on a bf16 backend, made anew: after values were changed by hand. Drawing,
 * loading and mode_adamw_update do it themselves. Ops; nothing to do on the other backends. */
void mode_clip_refresh(struct mode_clip *clip);

/* The exact savings off, both or one; before train_begin. Results agree within rounding. dense_tokens: texts are
 * computed at their full context; their last block then is, too. */
void mode_clip_set_savings(struct mode_clip *clip, bool dense_tokens, bool full_last_block);
/* Less memory for more time; before train_begin.
 * accumulate: a step is done in that many pieces, one after another: first the features of all, then the loss over
 * the whole batch, then every piece's forward again and its way back. The same loss and gradients as in one piece, but
 * for rounding. checkpoint: every block is MODE_CLIP_CHECKPOINT; otherwise MODE_CLIP_KEEP. */
void mode_clip_set_memory(struct mode_clip *clip, int64_t accumulate, bool checkpoint);
/* Fill up packed texts to few different numbers of rows, so that few steps differ in their shapes
 * (mode_backend_repeat): by texts that nobody sees, whose gradients are zero. Results agree within rounding. Default:
 * on a device. Before train_begin; steps in pieces and those of a group are not filled up. */
void mode_clip_set_padding(struct mode_clip *clip, bool pad);
/* The two towers side by side, and gradients of weights beside them, where the backend has branches (nn/backend.h): the
 * same bytes sooner, for more memory. By default on GPUs alone; before train_begin. */
void mode_clip_set_branches(struct mode_clip *clip, bool on);

/* Steps get pictures that the backend resizes (mode_clip_train_load_pictures), so that scratch is counted and taken for
 * these; off by default: for pixels that are copied to a device. Before train_begin. */
void mode_clip_set_pictures(struct mode_clip *clip, bool on);

/* What is kept of a block for the way back. Loss and gradients are the same bytes under each: what is not kept is made
 * again by the same ops from the same numbers. */
enum mode_clip_policy {
    MODE_CLIP_KEEP,       /* everything */
    MODE_CLIP_LEAN,       /* not the outputs of its layer norms and of its activation: a few per cent of its time */
    MODE_CLIP_CHECKPOINT, /* its input alone: most of its way in once more */
    MODE_CLIP_POLICIES
};
struct mode_clip_blocks { /* how many blocks of each tower are under each policy; the first ones save the most */
    int64_t image[MODE_CLIP_POLICIES], text[MODE_CLIP_POLICIES];
};
/* Exactly these; their sums are the towers' layers. Before train_begin. */
void mode_clip_set_blocks(struct mode_clip *clip, const struct mode_clip_blocks *blocks);
/* Choose them so that training with batches of up to `batch` takes at most `bytes` in all (mode_clip_memory's total),
 * in the least time; the same choice for the same numbers (clip_plan.c). False: it takes more in every
 * way; then all are MODE_CLIP_CHECKPOINT, which takes the least. Before train_begin, after all other settings. */
bool mode_clip_fit(struct mode_clip *clip, int64_t batch, size_t bytes);

/* Train with the other processes of the group, each on batch pairs of a step's size * batch (the same number
 * everywhere, the pairs in the order of ranks); before train_begin. A step then gives the loss over all of them, and
 * gradients that, added up over the processes, are those of one process with the whole batch. Moments are not taken
 * here but by optim/sharded.h, which adds up and updates: m and v of the parameters stay without memory. */
void mode_clip_set_group(struct mode_clip *clip, struct mode_ranks *group);
/* Be told of parameters whose gradients are final, as soon as all ops that add to them were called, and in the branch
 * that they are in (nn/backend.h): once per mode_clip_train_compute of each parameter, n from p on at a time; steps in
 * pieces tell on their last piece's way back. made may be NULL. */
typedef void mode_clip_made(void *ctx, const struct mode_param *p, size_t n);
void mode_clip_set_made(struct mode_clip *clip, mode_clip_made *made, void *ctx);
/* The blocks of all parameters and, after train_begin, their gradients. What the way back makes first lies last, what
 * the way in reads first lies first. */
struct mode_flat mode_clip_flat(const struct mode_clip *clip);

struct mode_clip_memory { /* bytes; SIZE_MAX: not representable */
    size_t parameters, gradients, moments;
    size_t copies;      /* of parameters, rounded: on a bf16 backend */
    size_t activations; /* kept of one piece, texts at full length; features kept over the pieces */
    size_t turns;       /* one thing after another: a block made again, gradients under way, logits */
    size_t workspace;   /* at most, of the running op, or of several side by side: packed matrices, partial sums */
    size_t total;
    /* of the activations, and why they are as many */
    size_t kept[MODE_CLIP_POLICIES];
    struct mode_clip_blocks blocks;
    bool branches; /* the towers' ways back take their memory at a time */
    double again;  /* what is made again on the way back, as a share of the way in */
};
/* What training with batches of up to `batch` pairs will take, parameters and their copies included. Untouched memory
 * of shorter texts is never paged in. */
void mode_clip_memory(struct mode_clip_memory *m, const struct mode_clip *clip, int64_t batch);
/* Takes all of that but the parameters and their copies; nothing is allocated in a step. Moments begin at zero.
 * Called once. E_MEMORY. */
enum mode_status mode_clip_train_begin(struct mode_clip *clip, int64_t batch, struct mode_error *err);
/* Inference between the steps (mode_clip_encode_images, _texts) is done in the memory of a step's activations, a few
 * pictures or texts at a time, so that it needs hardly any of its own; this takes that, before the first step. Without
 * it the first call does. A device's pixels come from the host: it has no room for pictures to resize. */
enum mode_status mode_clip_train_infer(struct mode_clip *clip, struct mode_error *err);
/* What it will take, at most, of a training with batches of up to `batch`. */
size_t mode_clip_train_infer_bytes(const struct mode_clip *clip, int64_t batch);
/* The inputs of a step of b pairs (1 <= b <= batch) to their places, and everything the host has to do for it; waits
 * for the step before. pixels [b, 3, S, S] f32, to stay as they are until the next mode_backend_sync; ids: texts one
 * after another, n_ids[i] tokens each, the end token last, no padding. E_VALUE: an id, a length or b is out of range.
 */
enum mode_status mode_clip_train_load(struct mode_clip *clip, const float *pixels, const int32_t *ids,
                                      const int32_t *n_ids, int64_t b, struct mode_error *err);
/* The same with decoded pictures that the backend resizes (nn/pixels.h); they stay as they are until the step's last op
 * is done: a step in pieces reads them several times. */
enum mode_status mode_clip_train_load_pictures(struct mode_clip *clip, const struct mode_pictures *pictures,
                                               const int32_t *ids, const int32_t *n_ids, int64_t b,
                                               struct mode_error *err);
/* Zero gradients, then forward, loss, backward for what was loaded: ops, nothing is waited for. The result is in every
 * parameter's grad. E_PEER: a process of the group has ended. */
enum mode_status mode_clip_train_compute(struct mode_clip *clip, struct mode_error *err);
/* The mean of the two cross-entropies of the last step; waits. */
double mode_clip_train_loss(struct mode_clip *clip);
/* exp(logit_scale) as it was then. */
float mode_clip_train_logit_scale(const struct mode_clip *clip);
/* All of these. */
enum mode_status mode_clip_train_step(struct mode_clip *clip, double *loss, const float *pixels, const int32_t *ids,
                                      const int32_t *n_ids, int64_t b, struct mode_error *err);
/* The key under which mode_clip_train_compute is a sequence for mode_backend_repeat, after load; shape[2] is the
 * caller's. False: it is none, being done in several pieces or by several processes. */
struct mode_sequence;
bool mode_clip_train_sequence(const struct mode_clip *clip, struct mode_sequence *key);
/* logit_scale into [0, ln 100]; after every optimiser step. An op. */
void mode_clip_clamp(struct mode_clip *clip);

/* Replace the parameters by those of a weights file, of any of the kinds of models/clip_folder.h. On failure they may
 * be partly replaced. */
enum mode_status mode_clip_read_weights(struct mode_clip *clip, const char *path, struct mode_error *err);
/* Write open_clip_config.json and open_clip_model.safetensors to these paths, each complete or not at all. Put side
 * by side under those names they are a folder that open_clip and mode_clip_load read. */
enum mode_status mode_clip_save(const struct mode_clip *clip, const char *config_path, const char *weights_path,
                                struct mode_error *err);

#endif
