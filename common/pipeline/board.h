/* board.h - the curve of a model in TensorBoard's event files, to be looked at while it trains.
 *
 * A folder belongs to one model. The process that trains it writes one file there, a record per optimizer step, each
 * with one write(2), so that a reader sees whole steps. What a record says of a step but its wall time and its pace
 * follows from the step's row of steps.jsonl. Whoever goes on with a training (or begins it anew) makes a new file with
 * the steps done so far, each once, and empties the older one: what was done after the checkpoint and is done again is
 * there once, and steps never go back within a file. (Empty, and not gone: TensorBoard goes on from a file to the next
 * one only while it finds it. The next attempt removes it.) Records of the older file that say what the rows say are
 * kept as they are; others are made from the rows, without a pace. The file begins with a session_log START, at which a
 * TensorBoard that has the older file in its memory forgets it.
 *
 *     events.out.tfevents.<seconds since 1970>.<host>.<fence, 16 hex>.train
 *     events.out.tfevents.<seconds since 1970>.<host>.<fence, 16 hex>.val      results of evaluations, those while it
 *                                                                              trains (validation.h) and the last one
 *
 * Names sort in the order of their making, which is the order in which TensorBoard reads them. Nothing here is part of
 * a model's own files, and a training does not fail for it: the caller says once that its curve ends.
 *
 * Tags are open_clip's: train/loss, train/lr, train/scale (exp, after the update), train/samples_per_second,
 * train/samples_per_second_per_gpu, train/data_time, train/batch_time (seconds); where gradients are clipped also
 * train/grad_norm. Of results: val/<task>-zeroshot-val-top1 and -top5, and val/<task>-<metric> of those it has no name
 * for.
 *
 * Threads: one caller per folder. */
#ifndef MODE_PIPELINE_BOARD_H
#define MODE_PIPELINE_BOARD_H

#include "base/error.h"
#include "data/tfevents.h"

#include <jansson.h>

struct mode_board_place {
    const char *dir; /* made when it is not there */
    uint64_t fence;  /* of the attempt that trains; where a later one has been, an earlier one writes nothing */
};

struct mode_board_pace { /* of a step */
    double samples_per_second, data_seconds, step_seconds;
    int processes;
};

struct mode_board;

/* rows: lines of steps.jsonl of the steps that are done, NULL or "" for none; results: lines of validation.jsonl, as
 * well; start: the step that the training begins from, at which its first results are. MODE_E_TEMP: a later attempt writes
 * there. */
enum mode_status mode_board_open(struct mode_board **b, const struct mode_board_place *place, uint64_t start,
                                 const char *rows, const char *results, struct mode_error *err);
/* row: the step's line of steps.jsonl. MODE_E_FORMAT: it is not JSON, because a number in it is none. */
enum mode_status mode_board_add(struct mode_board *b, const char *row, const struct mode_board_pace *pace,
                                struct mode_error *err);
/* results: the lines of validation.jsonl of one step, later than those before. */
enum mode_status mode_board_validated(struct mode_board *b, const char *results, struct mode_error *err);
void mode_board_close(struct mode_board **b); /* what was written stays */

/* Of a finished model: the folder holds these steps, and nothing is touched when it does already. *last: the last of
 * them; 0 and no folder where a model was given and not trained. MODE_E_FORMAT: rows that are no steps. */
enum mode_status mode_board_complete(uint64_t *last, const struct mode_board_place *place, const char *rows,
                                     struct mode_error *err);
/* Results of the model of this step, which is the last one, behind those of earlier steps; nothing is touched when the
 * folder says the same. */
enum mode_status mode_board_results(const struct mode_board_place *place, uint64_t step, const struct mode_scalar *s,
                                    size_t n, struct mode_error *err);

struct mode_board_scalars { /* grows; clear frees the tags, too */
    struct mode_scalar *s;
    size_t n;
};
/* What a result says (metrics.json, a row of validation.jsonl), as scalars. */
void mode_board_metrics(struct mode_board_scalars *all, const json_t *result);
void mode_board_scalars_clear(struct mode_board_scalars *all);

/* MODE_E_CREATE: event files are in that folder; for a training that begins, not one that goes on. */
enum mode_status mode_board_unused(const char *dir, struct mode_error *err);

#endif
