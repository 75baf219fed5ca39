/* clip_train.h - the part of CLIP that only training uses: initialisation, parameters, one step, saving.
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
 * Exact savings, on by default: texts are packed, so nothing after a text's end token is computed (the causal mask
 * hides those rows from it, and they receive no gradient); in the last block only keys and values are computed for all
 * rows, everything else for the pooled row alone. mode_clip_set_savings turns them off, to prove them.
 *
 * Dimensions: B pairs of a step, S image_size. Losses are natural logarithms (nats).
 *
 * Source:  Radford et al., "Learning transferable visual models from natural language supervision"; open_clip is
 *          the reference for numbers (parameter names, initialisation, loss). tests/golden compares gradients with it.
 * Threads: one caller per model. */
#ifndef MODE_MODELS_CLIP_TRAIN_H
#define MODE_MODELS_CLIP_TRAIN_H

#include "models/clip.h"
#include "nn/param.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A model with random weights, of open_clip's distributions; the values depend on seed alone. model_cfg_json:
 * open_clip's model_cfg. preprocess_cfg_json may be NULL: OpenAI's. be is borrowed. On failure *clip is NULL.
 * E_FORMAT, E_VALUE: the config; E_MEMORY. */
enum mode_status mode_clip_create(struct mode_clip **clip, struct mode_backend *be, const char *model_cfg_json,
                                  const char *preprocess_cfg_json, uint64_t seed, struct mode_error *err);
struct mode_clip_config;
/* The same from a parsed config, without JSON. Such a model has no config text and cannot be saved. E_MEMORY. */
enum mode_status mode_clip_create_plain(struct mode_clip **clip, struct mode_backend *be,
                                        const struct mode_clip_config *cfg, uint64_t seed, struct mode_error *err);
/* open_clip's model_cfg, JSON text as given or as found in the checkpoint. Borrowed. */
const char *mode_clip_model_cfg(const struct mode_clip *clip);

/* Every parameter, f32, in a fixed order, under open_clip's names; borrowed. grad, m, v: memory after train_begin. */
struct mode_param *mode_clip_params(struct mode_clip *clip, size_t *n);

/* Recompute the bf16 copies that GEMMs read on a bf16 backend, after values were changed by hand. Initialisation,
 * loading and mode_adamw_update do it themselves. Ops; a no-op on other backends. */
void mode_clip_refresh(struct mode_clip *clip);

/* Turn exact savings off, both or one; before train_begin. Results agree within rounding. dense_tokens: texts are
 * computed at their full context length, the last block included. full_last_block: it computes every row. */
void mode_clip_set_savings(struct mode_clip *clip, bool dense_tokens, bool full_last_block);
/* Less memory for more time; before train_begin.
 * accumulate: gradient caching (GradCache; open_clip's --accum-freq). A step is that many micro-batches: first the
 * features of all, then the loss over the whole batch, then forward again and backward of each. Loss and gradients
 * equal those of one batch, within rounding. checkpoint: activation checkpointing; every block is MODE_CLIP_CHECKPOINT,
 * otherwise MODE_CLIP_KEEP. */
void mode_clip_set_memory(struct mode_clip *clip, int64_t accumulate, bool checkpoint);
/* Pad packed texts to one of few row counts, so that steps repeat their shapes and a captured graph can be replayed
 * (mode_backend_repeat). Padding is whole texts whose gradients are zero. Results agree within rounding. Default: on
 * GPUs. Before train_begin; not applied with accumulate > 1 or in a group. */
void mode_clip_set_padding(struct mode_clip *clip, bool pad);
/* Run the two towers concurrently, and weight gradients beside them, where the backend has branches (nn/backend.h):
 * faster and bit-identical, for more memory. Default: on GPUs. Before train_begin. */
void mode_clip_set_branches(struct mode_clip *clip, bool on);

/* Steps get pictures that the backend resizes (mode_clip_train_load_pictures): scratch is reserved for resizing. Off by
 * default: scratch is reserved for copying pixels to a device. Before train_begin. */
void mode_clip_set_pictures(struct mode_clip *clip, bool on);

/* Patch dropout (FLIP; open_clip's --force-patch-dropout): in training every image keeps a random subset of its patches
 * (models/patch_dropout.h), and nothing of the others is computed. The class token is always kept; inference uses all
 * patches. The subsets are functions of the seed and of the pairs' places (mode_clip_train_place), so micro-batches,
 * policies, threads and groups do not change them. Default: 0, none. Before train_begin. */
void mode_clip_set_patch_dropout(struct mode_clip *clip, double probability, uint64_t seed);

/* Locked towers (LiT; open_clip's --lock-image, --lock-text and how many of a tower's last groups stay unlocked): a
 * tower's locked parameters are not trained. They have no gradients and no moments (no memory: their data is NULL),
 * activations before the first trained block are not saved, and backward passes end there. The groups of a tower are
 * open_clip's: what comes before the blocks; each block, the last one with the final LayerNorm; the projection, if there
 * is one. With as many unlocked as there are nothing is locked. Features, loss and the other gradients are those of a
 * training without locks, bit-identical on a CPU. Default: none. Before all other settings and train_begin; resets the
 * policies to MODE_CLIP_KEEP. Moves the parameters. E_MEMORY. */
enum { MODE_CLIP_MOST_UNLOCKED = 1000 }; /* of options and keys: more than any tower has */
struct mode_clip_lock {
    bool image, text;
    int64_t image_unlocked_groups, text_unlocked_layers; /* 0: the whole tower is locked */
};
enum mode_status mode_clip_set_lock(struct mode_clip *clip, const struct mode_clip_lock *lock, struct mode_error *err);
struct mode_clip_locked {
    size_t parameters, tensors, all, all_tensors; /* locked ones, and all of the model */
};
struct mode_clip_locked mode_clip_locked(const struct mode_clip *clip);

/* Which activations of a block are saved for the backward pass. The rest is recomputed by the same ops on the same
 * values, so loss and gradients are bit-identical under every policy. */
enum mode_clip_policy {
    MODE_CLIP_KEEP,       /* all */
    MODE_CLIP_LEAN,       /* all but the outputs of its LayerNorms and of the MLP's activation: a few per cent slower */
    MODE_CLIP_CHECKPOINT, /* activation checkpointing: only its input; most of its forward is run twice */
    MODE_CLIP_POLICIES
};
struct mode_clip_blocks { /* number of trained blocks under each policy; a tower's first ones save the most memory */
    int64_t image[MODE_CLIP_POLICIES], text[MODE_CLIP_POLICIES];
};
/* Use exactly these; each tower's must add up to its trained blocks. Before train_begin. */
void mode_clip_set_blocks(struct mode_clip *clip, const struct mode_clip_blocks *blocks);
/* Choose the fastest policies under which training with batches of up to `batch` pairs takes at most `bytes` in all
 * (mode_clip_memory's total); deterministic (clip_plan.c). False: nothing fits; all blocks are then
 * MODE_CLIP_CHECKPOINT, which takes the least. Before train_begin, after all other settings. */
bool mode_clip_fit(struct mode_clip *clip, int64_t batch, size_t bytes);

/* Data-parallel training in a group of processes, each with the same number of pairs of a step, ordered by rank; before
 * train_begin. A step then gives the loss over the global batch, and gradients whose sum over the processes is that of
 * one process with the global batch. optim/sharded.h reduces them and holds the moments: m and v of the parameters stay
 * without memory. group is borrowed. */
void mode_clip_set_group(struct mode_clip *clip, struct mode_ranks *group);
/* A hook for parameters whose gradients are complete, as DDP's gradient hooks: called once per mode_clip_train_compute
 * for each parameter, n from p on at a time, when all ops that accumulate into them have been issued, in the branch of
 * those ops (nn/backend.h). With accumulate > 1: in the final micro-batch's backward. made may be NULL. */
typedef void mode_clip_made(void *ctx, const struct mode_param *p, size_t n);
void mode_clip_set_made(struct mode_clip *clip, mode_clip_made *made, void *ctx);
/* The blocks of all parameters that are not locked and, after train_begin, their gradients. They are ordered by first
 * use in the forward pass: the backward pass completes the last gradients first. */
struct mode_flat mode_clip_flat(const struct mode_clip *clip);

struct mode_clip_memory { /* bytes; SIZE_MAX: not representable */
    size_t parameters, gradients, moments;
    size_t copies;      /* of parameters, in bf16: on a bf16 backend */
    size_t activations; /* saved for the backward of one micro-batch, texts at full length; features of the batch */
    size_t turns;       /* reused by phases of a step: a recomputed block, activation gradients, logits */
    size_t workspace;   /* upper bound of the scratch of concurrent ops: packed matrices, partial sums */
    size_t total;
    /* of the activations, and why they are as many */
    size_t kept[MODE_CLIP_POLICIES]; /* bytes of the blocks under each policy */
    struct mode_clip_blocks blocks;
    bool branches; /* both towers' backward passes hold their memory at the same time */
    double again;  /* FLOPs recomputed in the backward pass, as a fraction of the forward pass */
};
/* Memory of training with batches of up to `batch` pairs, parameters and their copies included. On a CPU, rows that
 * shorter texts leave untouched are never paged in. */
void mode_clip_memory(struct mode_clip_memory *m, const struct mode_clip *clip, int64_t batch);
/* Allocates all of that but the parameters and their copies; a step allocates nothing. Moments begin at zero. Called
 * once. batch: pairs of a step at most, of this process. E_MEMORY; E_VALUE: batch is out of range. */
enum mode_status mode_clip_train_begin(struct mode_clip *clip, int64_t batch, struct mode_error *err);
/* Inference between steps (mode_clip_encode_images, _texts) reuses the memory of a step's activations, in small
 * batches, so that it needs hardly any of its own. This allocates the rest before the first step; otherwise the first
 * inference does. On a device encode pixels then, not pictures: scratch for resizing them is not counted. E_MEMORY. */
enum mode_status mode_clip_train_infer(struct mode_clip *clip, struct mode_error *err);
/* Upper bound of the bytes it will allocate; batch: as for train_begin. */
size_t mode_clip_train_infer_bytes(const struct mode_clip *clip, int64_t batch);
/* The place in the training's order of the next step's first pair, in a group of this process's: step * global batch +
 * index in the batch; 0 until it is said. With patch dropout this draws its patches: on a device call it while the
 * previous step computes. */
void mode_clip_train_place(struct mode_clip *clip, uint64_t first);
/* Set the inputs of a step of b pairs (1 <= b <= batch) and do all host work for it; waits for the previous step.
 * pixels [b, 3, S, S] f32, unchanged until the next mode_backend_sync; ids: the texts' tokens concatenated, n_ids[i]
 * each, the end token last, no padding. Borrowed until the step is done. E_VALUE: an id, a length or b is out of range.
 */
enum mode_status mode_clip_train_load(struct mode_clip *clip, const float *pixels, const int32_t *ids,
                                      const int32_t *n_ids, int64_t b, struct mode_error *err);
/* The same with decoded pictures that the backend resizes (nn/pixels.h). They must not change until the step's last op
 * is done: with accumulate > 1 most are read twice. */
enum mode_status mode_clip_train_load_pictures(struct mode_clip *clip, const struct mode_pictures *pictures,
                                               const int32_t *ids, const int32_t *n_ids, int64_t b,
                                               struct mode_error *err);
/* Zero gradients, then forward, loss, backward of the loaded pairs: asynchronous ops. The result is in every
 * parameter's grad. E_PEER: a process of the group has ended. */
enum mode_status mode_clip_train_compute(struct mode_clip *clip, struct mode_error *err);
/* The contrastive loss of the last step: the mean of the image-to-text and text-to-image cross-entropies. Waits for all
 * ops. */
double mode_clip_train_loss(struct mode_clip *clip);
/* exp(logit_scale) as the last mode_clip_train_loss read it. */
float mode_clip_train_logit_scale(const struct mode_clip *clip);
/* load, compute and loss in one call. */
enum mode_status mode_clip_train_step(struct mode_clip *clip, double *loss, const float *pixels, const int32_t *ids,
                                      const int32_t *n_ids, int64_t b, struct mode_error *err);
/* The key of mode_clip_train_compute for mode_backend_repeat (graph capture), after load; shape[2] is free for the
 * caller. False: it cannot be captured, as the step has several micro-batches or processes. */
struct mode_sequence;
bool mode_clip_train_sequence(const struct mode_clip *clip, struct mode_sequence *key);
/* Clamp logit_scale to [0, ln 100], as open_clip does after every optimiser step. An op. */
void mode_clip_clamp(struct mode_clip *clip);

/* Replace the parameters by those of a weights file of any kind that models/clip_folder.h lists. On failure they are
 * unchanged. E_NOINPUT, E_IO, E_FORMAT, E_SHAPE. */
enum mode_status mode_clip_read_weights(struct mode_clip *clip, const char *path, struct mode_error *err);
/* Write open_clip_config.json and open_clip_model.safetensors to these paths, each atomically. In one folder under
 * those names, open_clip and mode_clip_load read them. E_CREATE, E_IO. */
enum mode_status mode_clip_save(const struct mode_clip *clip, const char *config_path, const char *weights_path,
                                struct mode_error *err);

#endif
