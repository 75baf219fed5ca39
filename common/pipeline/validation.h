/* validation.h - zero-shot evaluation of a model while it trains.
 *
 *     st = mode_validation_open(&v, &options, &err);                 // before a training: checks all tasks
 *     spec.validation = v;                                           // pipeline/train.h
 *
 * A training evaluates the model before its first step, every `every` steps, and optionally after the last one. It runs
 * mode_evaluate, with the same results, between two steps, in the memory of a step's activations. Weights, data order
 * and checkpoints are bit-identical without it.
 *
 * validation.jsonl, one object per step and task, in the order of the steps:
 *     step           steps done, of the whole schedule
 *     dataset, metrics, main_metrics    as in metrics.json (pipeline/result.h)
 * The rows of a step are written all or none, once. A checkpoint contains those of the steps before its own.
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
    const char *const *digest; /* [n] of their files when planned, to detect changes; NULL: not checked */
    uint64_t every;            /* interval in steps, >= 1 */
    bool last;                 /* also after the last step; false: a run's evaluate stage does that */
    int64_t batch;             /* pictures or texts at a time */
};

/* Checks the tasks, except for the pictures' pixels. MODE_E_VALUE: a task's files have changed; two tasks of one name.
 * Otherwise the errors of mode_evalset_open. */
enum mode_status mode_validation_open(struct mode_validation **v, const struct mode_validation_options *o,
                                      struct mode_error *err);
void mode_validation_close(struct mode_validation **v);
/* The options as a file, validation.json of a run's folder (docs/FORMATS.md). They are not part of a task's request,
 * since models do not depend on them. `last` is not saved (false when loaded). MODE_E_VALUE: a path is not UTF-8. */
enum mode_status mode_validation_save(const struct mode_validation_options *o, const char *path,
                                      struct mode_error *err);
/* mode_validation_open with saved options; *v is NULL if the file does not exist. look: check the digests, which reads
 * every file. MODE_E_FORMAT. */
enum mode_status mode_validation_open_saved(struct mode_validation **v, const char *path, bool look,
                                            struct mode_error *err);
/* Is a validation due after `step` steps done, in a training from start to end? */
bool mode_validation_due(const struct mode_validation *v, uint64_t step, uint64_t start, uint64_t end);
/* The interval, which must be the same in all processes of a group. */
uint64_t mode_validation_every(const struct mode_validation *v);
/* Bytes of host memory for features, scores and pixels of the largest task. */
size_t mode_validation_bytes(const struct mode_validation *v, const struct mode_clip *clip);

struct mode_validation_result { /* of a task */
    uint64_t step;
    const char *task, *measure; /* measure: the first of its main_metrics */
    double value, seconds;      /* value: a fraction */
};
struct mode_validation_hook { /* its functions may be NULL */
    void *ctx;
    bool (*more)(void *ctx);                                           /* after every batch; false: stop */
    void (*result)(void *ctx, const struct mode_validation_result *r); /* after every task */
};
/* Appends the rows of that step to rows; on failure nothing. MODE_E_STOPPED: by the hook. */
enum mode_status mode_validation_run(const struct mode_validation *v, struct mode_str *rows, struct mode_clip *clip,
                                     const struct mode_tokenizer *tokenizer, uint64_t step,
                                     const struct mode_validation_hook *hook, struct mode_error *err);
/* *step: of the last row; false: there is no row. */
bool mode_validation_last(uint64_t *step, const struct mode_str *rows);

/* A run's folder has such a file for each model, and beside it <model>.key: the key of the task that trained it.
 * begin: *path (the caller frees) is the file for that task; creates the folder and removes rows of another training of
 * this model. */
enum mode_status mode_validation_begin(char **path, const char *dir, const char *model, const char *key,
                                       struct mode_error *err);
/* Removes the rows of all trainings except model[i], key[i]. Failures are ignored: the rows are only for people. */
void mode_validation_keep(const char *dir, size_t n, char *const *model, const char *const *key);

#endif
