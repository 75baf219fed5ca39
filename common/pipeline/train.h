/* train.h - trains a CLIP on pairs: the seed model from scratch, a dense continuation, a data expert.
 *
 * A continuation takes the parent's weights, AdamW moments and step count and continues its schedule; a parent
 * that is missing, of another shape or of another step is an error, never a start from scratch. Every
 * checkpoint_steps steps, and when it is stopped, the resumable state is written: weights, moments, step, the
 * rows of steps.jsonl. The data position follows from the step (pool.h) and random numbers are counter-based, so
 * a resumed training is bit-identical to an uninterrupted one.
 *
 * steps.jsonl, one object per optimizer step:
 *     step           steps done, of the whole schedule
 *     epoch          passes over the model's pool
 *     loss           of this step's batch, before the update, in nats
 *     lr             of this step
 *     logit_scale    after the update (not its logarithm)
 *     grad_norm      with gradient clipping: the global norm before it
 *     samples_seen   including the parents' steps: step * batch
 * train.json: configuration and data of the training, and final_loss, the mean over the last 50 steps. Neither file
 * contains times, so that both are reproducible to the byte; times are in struct mode_train_result.
 * validation.jsonl: metrics during training (validation.h), if requested. They affect no other file.
 *
 * Source:  MoDE (arXiv:2404.16030) section 3.2; recipe: docs/RUN.md, docs/decisions/0006.
 * Threads: one caller; uses the thread pool. */
#ifndef MODE_PIPELINE_TRAIN_H
#define MODE_PIPELINE_TRAIN_H

#include "base/error.h"
#include "optim/schedule.h"
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
    MODE_TRAIN_ALGORITHMS_MOST = 1 << 20 /* size limit of an algorithms file, bytes */
};

struct mode_train_parent { /* files of the model to continue from */
    const char *config;    /* its model_cfg must equal ours; NULL: weights only, without a config to compare */
    const char *weights;
    const char *optimizer; /* NULL: moments start at zero; then start_step must be 0 */
};

struct mode_train_spec {
    const char *name;              /* seed | dense | expert-<k> | a name of experts_for */
    const char *model_config;      /* open_clip model_cfg, JSON text      */
    const char *preprocess_config; /* open_clip preprocess_cfg, JSON text; NULL: OpenAI's */
    const char *tokenizer;         /* bpe_simple_vocab_16e6.txt.gz        */
    uint64_t seed;
    int64_t batch;
    double lr, beta1, beta2, eps, weight_decay;
    double grad_clip_norm;              /* maximum global norm; 0: no clipping */
    int64_t accumulate;                 /* micro-batches of a step, clip_train.h; 0 is 1 */
    bool checkpoint_activations;        /* every block MODE_CLIP_CHECKPOINT; false: as the memory allows */
    size_t memory;                      /* limit in bytes; 0: what is free, train_memory.h */
    bool dense_tokens, full_last_block; /* clip_train.h: turn exact savings off */
    bool no_streams;                    /* a device runs ops serially: bit-identical, slower */
    bool no_graphs;                     /* a device does not capture steps as graphs: bit-identical, slower */
    bool measure;                       /* the first step autotunes a device's algorithms: results not reproducible */
    const char *algorithms;             /* mode_backend_use_algorithms; NULL: by rule, or by the hook `chosen` */
    enum mode_schedule_kind schedule;   /* of lr, schedule.h                         */
    uint64_t warmup_steps, total_steps; /* of the whole schedule                     */
    uint64_t cooldown_steps;            /* its last steps; this and the next with constant_cooldown only */
    double cooldown_power, cooldown_end;
    uint64_t start_step, end_step; /* this training's part, start < end <= total */
    /* Step i has the learning rate of schedule position start + (i - start) * stride. Usually 1; above 1 for an expert
     * with fewer steps than the schedule has left, so that it still ends where the schedule does. */
    double schedule_stride;
    uint64_t checkpoint_steps; /* interval; 0 = only when stopped           */
    int32_t expert;            /* coarse id, or MODE_POOL_ALL               */
    double out_ratio, scale_min, scale_max;
    double patch_dropout;       /* in [0, 1), models/patch_dropout.h; 0: none */
    struct mode_clip_lock lock; /* locked towers, models/clip_train.h; all 0: none */
    uint32_t window_shards;     /* as in mode_stream_options */
    size_t n_shards;
    const struct mode_stream_shard *shards;
    const char *centres;                      /* NULL for MODE_POOL_ALL */
    const char *selection;                    /* as in mode_stream_options; NULL: none */
    const struct mode_train_parent *parent;   /* NULL: random init, start_step 0 */
    const char *init;                         /* digest of the run's pretrained weights, for train.json; NULL: none */
    const struct mode_validation *validation; /* NULL: none. In a group rank 0 evaluates and the others wait */
};

struct mode_train_outputs { /* paths to write */
    const char *config, *weights, *optimizer, *steps, *summary;
    const char *validation; /* validation.jsonl, rewritten after every validation; NULL: none */
};

struct mode_train_progress {
    uint64_t step, start_step, end_step; /* step = steps done */
    double loss, lr, logit_scale, epoch;
    double samples_per_second;         /* of the last step  */
    double data_seconds, step_seconds; /* of the last step: waiting for its batch; in total */
};

/* Callbacks to the caller. Any function may be NULL; ctx is passed to all. */
struct mode_train_hooks {
    void *ctx;
    void (*memory)(void *ctx, const struct mode_train_memory *m); /* before anything but the parameters is allocated */
    void (*progress)(void *ctx, const struct mode_train_progress *p);     /* after every step */
    void (*notice)(void *ctx, const char *text);                          /* a sentence for the log */
    void (*validated)(void *ctx, const struct mode_validation_result *r); /* after every task of a validation */
    void (*validating)(void *ctx);                                        /* after every batch of a validation */
    bool (*stopping)(void *ctx);                                          /* polled after every step; true: stop */
    /* While remote shards are fetched (stream.h); false: stop, as between two steps. */
    bool (*fetching)(void *ctx, uint64_t done, uint64_t total);
    /* The folder to create for the checkpoint `name`, malloc'd; and: its files are complete, commit it. Both or none.
     * Without them a stop loses the training. */
    char *(*checkpoint_dir)(void *ctx, const char *name);
    enum mode_status (*checkpoint_done)(void *ctx, const char *name, struct mode_error *err);
    const char *resume_from; /* folder of a complete checkpoint, or NULL */
    /* TensorBoard's event files, written by rank 0; NULL: none. If writing fails a notice says so, and the training
     * continues. */
    const struct mode_board_place *board;
    /* If set, and the spec has no algorithms, a device's GEMM algorithms are autotuned in the first step and passed to
     * it: a training with the same spec and these `algorithms` is bit-identical. */
    enum mode_status (*chosen)(void *ctx, const char *algorithms, struct mode_error *err);
    /* Data-parallel processes, each with its part of every batch; NULL: one process. All call mode_train with the same
     * spec, outputs and kinds of hooks; rank 0 writes the files, which any number of processes can resume. Results are
     * those of one process, within rounding. */
    struct mode_ranks *group;
};

struct mode_train_result {
    uint64_t rows, in_cluster, outside, out_of_cluster; /* out_of_cluster: drawn of outside, per epoch */
    uint64_t samples_seen;                              /* by this training: (end - start) * batch */
    uint64_t resumed_at;                                /* step; start_step if not resumed */
    size_t parameters;
    double final_loss;
    double seconds, data_seconds; /* of this process's steps; of them, waiting for batches */
    double validation_seconds;    /* not in seconds */
    uint64_t steps_run;
    bool device_pixels;    /* pictures were resized by the device */
    uint64_t host_resized; /* with it: pictures that the host resized, prefetched batches included */
};

/* result may be NULL. MODE_E_STOPPED: stopped by a hook, and checkpointed if the hooks allow it. MODE_E_VALUE: also a
 * loss that is not finite (the error names the step). MODE_E_PEER: another process of the group has ended. */
enum mode_status mode_train(struct mode_train_result *result, struct mode_backend *be,
                            const struct mode_train_spec *spec, const struct mode_train_outputs *outputs,
                            const struct mode_train_hooks *hooks, struct mode_error *err);

#endif
