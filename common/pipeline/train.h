/* train.h - train a CLIP on pairs: the seed model from nothing, a dense continuation, a data expert.
 *
 * A continuation takes the parent's weights, its AdamW moments and its step count and goes on with the same
 * schedule; a parent which is missing, of another shape or of another step is an error, never a start from
 * scratch. Every checkpoint_steps steps, and when asked to stop, everything needed to go on is written:
 * weights, moments, step, the rows of steps.jsonl. The data position follows from the step (pool.h) and
 * randomness is counter-based, so a resumed training ends with the same bytes as an uninterrupted one.
 *
 * steps.jsonl, one object per optimizer step:
 *     step           steps done, of the whole schedule
 *     epoch          passes over the model's pool
 *     loss           of this step's batch, before the update
 *     lr             of this step
 *     logit_scale    after the update (not its logarithm)
 *     grad_norm      where gradients are clipped: their length together before that
 *     samples_seen   by the whole lineage: step * batch
 * train.json: what was trained on what, and final_loss, the mean over the last 50 steps. Clock times are in
 * neither: both are the same bytes every time. They are in struct mode_train_result.
 * validation.jsonl: how the model did on tasks meanwhile (validation.h), if it was asked to. Nothing else shows it.
 *
 * Source:  MoDE (arXiv:2404.16030) section 3.2; recipe: docs/RUN.md, docs/decisions/0006.
 * Threads: one caller; uses the pool of threads. */
#ifndef MODE_PIPELINE_TRAIN_H
#define MODE_PIPELINE_TRAIN_H

#include "base/error.h"
#include "pipeline/board.h"
#include "pipeline/stream.h"
#include "pipeline/train_memory.h"
#include "pipeline/validation.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mode_backend;
struct mode_ranks;

enum {
    MODE_TRAIN_FINAL_STEPS = 50,         /* final_loss is the mean over this many */
    MODE_TRAIN_ALGORITHMS_MOST = 1 << 20 /* bytes of a file of them */
};

struct mode_train_parent { /* the files of the model to go on from */
    const char *config;    /* its model_cfg must be ours; NULL: weights alone, which do not say what they are */
    const char *weights;
    const char *optimizer; /* NULL: weights only, moments start at zero; then start_step must be 0 */
};

struct mode_train_spec {
    const char *name;              /* seed | dense | expert-<k> | of words, as they are called */
    const char *model_config;      /* open_clip model_cfg, JSON text      */
    const char *preprocess_config; /* open_clip preprocess_cfg, JSON text; NULL: OpenAI's */
    const char *tokenizer;         /* bpe_simple_vocab_16e6.txt.gz        */
    uint64_t seed;
    int64_t batch;
    double lr, beta1, beta2, eps, weight_decay;
    double grad_clip_norm;              /* 0: gradients are not clipped */
    int64_t accumulate;                 /* pieces of a step, clip_train.h; 0 is 1 */
    bool checkpoint_activations;        /* every block MODE_CLIP_CHECKPOINT; false: as the memory allows */
    size_t memory;                      /* bytes that the training may take; 0: what is free, train_memory.h */
    bool dense_tokens, full_last_block; /* clip_train.h: the exact savings off */
    bool no_streams;                    /* a device runs one op after another: the same bytes, later */
    bool no_graphs;                     /* a device runs every step op by op: the same bytes, later */
    bool measure;                       /* the first step chooses a device's algorithms by the clock: other bytes */
    const char *algorithms;             /* mode_backend_use_algorithms; NULL: by rule, or by the hook `chosen` */
    uint64_t warmup_steps, total_steps; /* of the whole schedule                     */
    uint64_t start_step, end_step;      /* this training's part, start < end <= total */
    /* Step i has the learning rate of schedule position start + (i - start) * stride: 1 as a rule; above 1
     * for an expert that has fewer steps than the schedule has left and is to end at 0 all the same. */
    double schedule_stride;
    uint64_t checkpoint_steps; /* 0 = only when stopped                     */
    int32_t expert;            /* coarse id, or MODE_POOL_ALL               */
    double out_ratio, scale_min, scale_max;
    uint32_t window_shards; /* order by windows of so many shards (shard_order.h); 0: one permutation of all */
    size_t n_shards;
    const struct mode_stream_shard *shards;
    const char *centres;                    /* NULL for MODE_POOL_ALL */
    const char *selection;                  /* as in mode_stream_options: the expert of some words; NULL: none */
    const struct mode_train_parent *parent; /* NULL: random init, start_step 0 */
    const char
        *init; /* digest of the weights that the run began with in the place of random ones, for train.json; NULL */
    const struct mode_validation
        *validation; /* NULL: only what the training itself tells. Of several processes the first
                                               * evaluates, and the others wait */
};

struct mode_train_outputs { /* paths to write */
    const char *config, *weights, *optimizer, *steps, *summary;
    const char *validation; /* written after every validation, if there is one; NULL: nowhere */
};

struct mode_train_progress {
    uint64_t step, start_step, end_step; /* step = steps done */
    double loss, lr, logit_scale, epoch;
    double samples_per_second;         /* of the last step  */
    double data_seconds, step_seconds; /* waiting for the batch; all of the step */
};

/* What a training needs from where it runs. Any function may be NULL; ctx is handed to all. */
struct mode_train_hooks {
    void *ctx;
    void (*memory)(void *ctx, const struct mode_train_memory *m);     /* before any of it is taken but the parameters */
    void (*progress)(void *ctx, const struct mode_train_progress *p); /* after every step */
    void (*notice)(void *ctx, const char *text);                      /* a sentence for the log */
    void (*validated)(void *ctx, const struct mode_validation_result *r); /* after every task of a validation */
    void (*validating)(void *ctx);                                        /* and every batch of it */
    bool (*stopping)(void *ctx);                                          /* asked after every step */
    /* While shards of other machines are fetched (stream.h); false: stop, which is a stop between two steps. */
    bool (*fetching)(void *ctx, uint64_t done, uint64_t total);
    /* Folder to make for the checkpoint called name, malloc'd; and: its files are written, keep it. Both or
     * none. Without them a stop loses the training. */
    char *(*checkpoint_dir)(void *ctx, const char *name);
    enum mode_status (*checkpoint_done)(void *ctx, const char *name, struct mode_error *err);
    const char *resume_from; /* folder of a complete checkpoint, or NULL */
    /* Where the curve is written for TensorBoard while it trains, by the first process; NULL: nowhere. When it cannot
     * be written any more a notice says so, and the training goes on. */
    const struct mode_board_place *board;
    /* Where set, and the spec names none, a device's algorithms of matrix products are chosen by the clock in the first
     * step and given to it: with them as its `algorithms` a training of this spec comes to the same bytes. */
    enum mode_status (*chosen)(void *ctx, const char *algorithms, struct mode_error *err);
    /* Processes that train this model together, each with its part of every batch; NULL: this one alone. All call
     * mode_train with the same spec, outputs and kinds of hooks; the first writes the files, which any number of
     * processes can go on from. Results are those of one process but for rounding. */
    struct mode_ranks *group;
};

struct mode_train_result {
    uint64_t rows, in_cluster, outside, out_of_cluster; /* out_of_cluster: of outside, per epoch */
    uint64_t samples_seen;                              /* by this training: (end - start) * batch */
    uint64_t resumed_at;                                /* step; start_step when not resumed */
    size_t parameters;
    double final_loss;
    double seconds, data_seconds; /* of this process's steps */
    double validation_seconds;    /* between them */
    uint64_t steps_run;
    bool device_pixels;    /* pictures were resized by the device */
    uint64_t host_resized; /* ... but for so many, which found no room there; batches read ahead included */
};

/* result may be NULL. MODE_E_STOPPED: asked to stop, and checkpointed when hooks allow. MODE_E_VALUE: also a
 * loss that is not finite (the step is named). MODE_E_PEER: another process of the group has ended. */
enum mode_status mode_train(struct mode_train_result *result, struct mode_backend *be,
                            const struct mode_train_spec *spec, const struct mode_train_outputs *outputs,
                            const struct mode_train_hooks *hooks, struct mode_error *err);

#endif
