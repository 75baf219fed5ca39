/* board.h - a model's training curves as TensorBoard event files, written while it trains.
 *
 * A folder belongs to one model. The process that trains it writes one file there, a record per optimizer step, each
 * with one write(2), so that a reader sees whole records. Except for wall time and throughput a record follows from the
 * step's row of steps.jsonl. A resumed (or restarted) training writes a new file with the steps done so far, each once,
 * and truncates the older one: steps that are repeated after a checkpoint appear once, and steps never go back within a
 * file. (The older file is emptied, not removed: TensorBoard moves on to the next file only while it finds the current
 * one. The next attempt removes it.) Records of the older file that agree with the rows are copied; others are made
 * from the rows, without throughput. The file begins with a session_log START, which makes TensorBoard discard what it
 * has read of the older file.
 *
 *     events.out.tfevents.<seconds since 1970>.<host>.<fence, 16 hex>.train
 *     events.out.tfevents.<seconds since 1970>.<host>.<fence, 16 hex>.val      results of evaluations, those while it
 *                                                                              trains (validation.h) and the last one
 *
 * Names sort by creation, which is the order in which TensorBoard reads them. These files are not part of the model,
 * and a training does not fail because of them: the caller reports once that its curve ends.
 *
 * Tags are open_clip's: train/loss, train/lr, train/scale (exp, after the update), train/samples_per_second,
 * train/samples_per_second_per_gpu, train/data_time, train/batch_time (seconds); with gradient clipping also
 * train/grad_norm. Of results: val/<task>-zeroshot-val-top1 and -top5, and val/<task>-<metric> for metrics that
 * open_clip has no tag for.
 *
 * Source:  TensorBoard's event files (data/tfevents.h); open_clip's tags.
 * Threads: one caller per folder. */
#ifndef MODE_PIPELINE_BOARD_H
#define MODE_PIPELINE_BOARD_H

#include "base/error.h"
#include "data/tfevents.h"

#include <jansson.h>

struct mode_board_place {
    const char *dir; /* created if it does not exist */
    uint64_t fence;  /* of the attempt that trains; an attempt writes nothing once a later one has written */
};

struct mode_board_pace { /* throughput of a step */
    double samples_per_second, data_seconds, step_seconds;
    int processes; /* GPUs: one per process */
};

struct mode_board;

/* rows: lines of steps.jsonl of the steps done so far, NULL or "" for none; results: likewise of validation.jsonl;
 * start: the step that the training begins from, which its first results belong to. On failure *b is NULL.
 * MODE_E_TEMP: a later attempt writes there; MODE_E_CREATE, MODE_E_IO, MODE_E_PERM. */
enum mode_status mode_board_open(struct mode_board **b, const struct mode_board_place *place, uint64_t start,
                                 const char *rows, const char *results, struct mode_error *err);
/* row: the step's line of steps.jsonl. MODE_E_FORMAT: it is not JSON, because it holds a NaN or an infinity. */
enum mode_status mode_board_add(struct mode_board *b, const char *row, const struct mode_board_pace *pace,
                                struct mode_error *err);
/* results: the lines of validation.jsonl of one step, later than the previous ones. */
enum mode_status mode_board_validated(struct mode_board *b, const char *results, struct mode_error *err);
void mode_board_close(struct mode_board **b);

/* For a finished model: make the folder hold exactly these steps; nothing is written if it does. *last: the last step;
 * 0, and no folder, if rows is empty (a given model that was not trained). MODE_E_FORMAT: rows are not steps. */
enum mode_status mode_board_complete(uint64_t *last, const struct mode_board_place *place, const char *rows,
                                     struct mode_error *err);
/* Append the results of the final model, whose step this is, to those of earlier steps; nothing is written if the
 * folder holds them. */
enum mode_status mode_board_results(const struct mode_board_place *place, uint64_t step, const struct mode_scalar *s,
                                    size_t n, struct mode_error *err);

struct mode_board_scalars { /* owned, tags included */
    struct mode_scalar *s;
    size_t n;
};
/* Appends the metrics of a result (metrics.json, a row of validation.jsonl) as scalars. */
void mode_board_metrics(struct mode_board_scalars *all, const json_t *result);
void mode_board_scalars_clear(struct mode_board_scalars *all);

/* MODE_E_CREATE: the folder holds event files. For a training that starts, not one that resumes. */
enum mode_status mode_board_unused(const char *dir, struct mode_error *err);

#endif
