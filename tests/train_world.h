/* train_world.h - trainings on the fixture of clip_world.h: their parameters, the places of their files and
 * checkpoints, and hooks that stop and count. A test that needs more has a struct that starts with a world_training. */
#ifndef MODE_TESTS_TRAIN_WORLD_H
#define MODE_TESTS_TRAIN_WORLD_H

#include "clip_world.h"
#include "pipeline/checkpoint.h"
#include "pipeline/train.h"

enum { WORLD_FILES = 5 };
static const char *const world_files[WORLD_FILES] = {MODE_FILE_CLIP_CONFIG, MODE_FILE_CLIP_WEIGHTS,
                                                     MODE_FILE_CLIP_OPTIMIZER, MODE_FILE_STEPS, MODE_FILE_TRAIN};

/* All of a schedule of that many steps, without checkpoints; tests change it as needed. */
static inline struct mode_train_spec world_train_spec(const struct world *w, int64_t batch, uint64_t steps)
{
    return (struct mode_train_spec){.name = "seed",
                                    .model_config = WORLD_MODEL,
                                    .preprocess_config = WORLD_PREPROCESS,
                                    .tokenizer = w->merges,
                                    .seed = 5,
                                    .batch = batch,
                                    .lr = 1e-3,
                                    .beta1 = 0.9,
                                    .beta2 = 0.98,
                                    .eps = 1e-6,
                                    .weight_decay = 0.2,
                                    .warmup_steps = 3,
                                    .total_steps = steps,
                                    .end_step = steps,
                                    .schedule_stride = 1,
                                    .expert = MODE_POOL_ALL,
                                    .out_ratio = 0.1,
                                    .scale_min = 0.8,
                                    .scale_max = 1,
                                    .n_shards = WORLD_SHARDS,
                                    .shards = w->shards,
                                    .centres = w->centres};
}

struct world_training {
    const struct world *world;
    const char *run;        /* folder in the world */
    uint64_t stop_at, seen; /* steps; 0: it is not told to stop */
    char *last;             /* folder of the newest complete checkpoint; the test frees it */
    int checkpoints, notices;
    char notice[256]; /* the last one */
};

static inline void world_on_progress(void *ctx, const struct mode_train_progress *p)
{
    ((struct world_training *)ctx)->seen = p->step;
}

static inline void world_on_notice(void *ctx, const char *text)
{
    struct world_training *t = ctx;
    t->notices++;
    snprintf(t->notice, sizeof t->notice, "%s", text);
}

static inline bool world_on_stopping(void *ctx)
{
    const struct world_training *t = ctx;
    return t->stop_at && t->seen >= t->stop_at;
}

static inline char *world_on_dir(void *ctx, const char *name)
{
    const struct world_training *t = ctx;
    return mode_xasprintf("%s/%s/ckpt/%s", t->world->dir, t->run, name);
}

static inline enum mode_status world_on_done(void *ctx, const char *name, struct mode_error *err)
{
    struct world_training *t = ctx;
    (void)err;
    free(t->last);
    t->last = world_on_dir(ctx, name);
    t->checkpoints++;
    return MODE_OK;
}

/* The context is t, or a struct that starts with it. */
static inline struct mode_train_hooks world_train_hooks(struct world_training *t)
{
    return (struct mode_train_hooks){.ctx = t,
                                     .progress = world_on_progress,
                                     .notice = world_on_notice,
                                     .stopping = world_on_stopping,
                                     .checkpoint_dir = world_on_dir,
                                     .checkpoint_done = world_on_done};
}

/* mode_train, with its files in folder dir. */
static inline enum mode_status world_train(struct mode_train_result *result, const char *dir, struct mode_backend *be,
                                           const struct mode_train_spec *spec, const struct mode_train_hooks *hooks,
                                           struct mode_error *err)
{
    char *path[WORLD_FILES];
    for (int i = 0; i < WORLD_FILES; i++) path[i] = mode_path_join(dir, world_files[i]);
    char *validation = mode_path_join(dir, MODE_FILE_VALIDATION);
    const struct mode_train_outputs outputs = {path[0], path[1], path[2], path[3], path[4], validation};
    enum mode_status st = mode_dir_make(dir, err);
    if (!st) st = mode_train(result, be, spec, &outputs, hooks, err);
    free(validation);
    for (int i = 0; i < WORLD_FILES; i++) free(path[i]);
    return st;
}

#endif
