/* validation.h - how a model does on its tasks while it trains.
 *
 *     st = mode_validation_open(&v, &options, &err);                 // before a training: all tasks are looked at
 *     spec.validation = v;                                           // pipeline/train.h
 *
 * A training evaluates the model as it is before its first step, after every so many, and where it is wanted after the
 * last one: the code and the numbers of mode_evaluate, between two steps, in the memory of a step's activations. Weights,
 * order and checkpoints are the same bytes without it.
 *
 * validation.jsonl, one object per step and task, in the order of the steps:
 *     step           steps done, of the whole schedule
 *     dataset, metrics, main_metrics    as in metrics.json (pipeline/result.h)
 * The rows of a step are there all or none, once. A checkpoint holds those of the steps before its own.
 *
 * Threads: one caller. */
#ifndef MODE_PIPELINE_VALIDATION_H
#define MODE_PIPELINE_VALIDATION_H

#include "base/error.h"
#include "base/str.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mode_clip;
struct mode_tokenizer;
struct mode_validation;

#define MODE_FILE_VALIDATION "validation.jsonl"

struct mode_validation_options {
    size_t n;
    char *const *dir;          /* [n] tasks (data/evalset.h) */
    const char *const *digest; /* [n] of their files when they were planned with; NULL: they are what they are */
    uint64_t every;            /* steps, 1 or more */
    bool last;                 /* and after the last step; otherwise never there: somebody else does it */
    int64_t batch;             /* pictures or texts at a time */
};

/* Everything but the pictures' pixels is looked at. MODE_E_VALUE: a task's files have changed; two tasks of one name.
 * Otherwise what mode_evalset_open says. */
enum mode_status mode_validation_open(struct mode_validation **v, const struct mode_validation_options *o,
                                      struct mode_error *err);
void mode_validation_close(struct mode_validation **v);
/* The options as a file, validation.json of a run's folder (docs/FORMATS.md): no task's request holds them, since no
 * model depends on them. `last` is not kept, and false. MODE_E_VALUE: a path is not UTF-8. */
enum mode_status mode_validation_save(const struct mode_validation_options *o, const char *path,
                                      struct mode_error *err);
/* mode_validation_open with them; NULL where there is no such file. look: at the digests, too, which reads every file.
 * MODE_E_FORMAT. */
enum mode_status mode_validation_open_saved(struct mode_validation **v, const char *path, bool look,
                                            struct mode_error *err);
/* After so many steps of a training from start to end? */
bool mode_validation_due(const struct mode_validation *v, uint64_t step, uint64_t start, uint64_t end);
/* One number: processes that train together have the same. */
uint64_t mode_validation_every(const struct mode_validation *v);
/* Of the host's memory, for features, scores and pixels of the largest task. */
size_t mode_validation_bytes(const struct mode_validation *v, const struct mode_clip *clip);

struct mode_validation_result { /* of a task */
    uint64_t step;
    const char *task, *measure; /* the first of its main metrics */
    double value, seconds;
};
struct mode_validation_hook { /* its functions may be NULL */
    void *ctx;
    bool (*more)(void *ctx); /* after every batch; false: stop */
    void (*result)(void *ctx, const struct mode_validation_result *r);
};
/* Adds the rows of that step to rows. Nothing is added after a failure; MODE_E_STOPPED: the hook said so. */
enum mode_status mode_validation_run(const struct mode_validation *v, struct mode_str *rows, struct mode_clip *clip,
                                     const struct mode_tokenizer *tokenizer, uint64_t step,
                                     const struct mode_validation_hook *hook, struct mode_error *err);
/* The step of the last row, in *step; false where there is none. */
bool mode_validation_last(uint64_t *step, const struct mode_str *rows);

/* A run's folder of such files, one for each model, and beside it <model>.key: the key of the task that trained it.
 * begin: where that task puts its rows, in *path (the caller frees); the folder is made, rows of another training of
 * this model are removed. */
enum mode_status mode_validation_begin(char **path, const char *dir, const char *model, const char *key,
                                       struct mode_error *err);
/* Removes the rows of all trainings but those of model[i], key[i]. What cannot be removed stays: they are for people. */
void mode_validation_keep(const char *dir, size_t n, char *const *model, const char *const *key);

#endif
