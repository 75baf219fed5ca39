/* train_folder.h - the folder that `mode train` writes: the finished model, and while it trains captions/ (what the
 * shards hold) and checkpoints/ (`latest` names the one that is complete).
 *
 * After a failure or a signal the folder is as it was before, but for what --resume goes on from: captions/ and the
 * newest complete checkpoint, where there is one. */
#ifndef MODE_SERVICES_MODE_TRAIN_FOLDER_H
#define MODE_SERVICES_MODE_TRAIN_FOLDER_H

#include "base/output.h"
#include "pipeline/train.h"

struct train_folder {
    const char *path; /* --out, borrowed */
    char *newest;     /* name of the newest complete checkpoint, or NULL */
    struct mode_output_folder made;
    size_t n_captions; /* files of captions that are, or were to be, there */
    bool owned;        /* what is in it after a failure is ours to remove */
    bool progressed;   /* a checkpoint was made by this process */
    bool before[6];    /* these of `outputs` were there, and stay */
    char *config, *weights, *optimizer, *steps, *summary, *validation;
    struct mode_train_outputs outputs; /* these */
};

/* Of processes that train together all say where it is, and the first one opens it. */
void train_folder_name(struct train_folder *f, const char *path);
/* Make the folder, or see that it can be written. E_CREATE: there is a finished model in it, or a training that was
 * interrupted and resume was not asked for. */
enum mode_status train_folder_open(struct train_folder *f, bool resume, struct mode_error *err);
/* The folder of the checkpoint to resume from; the caller frees. */
enum mode_status train_folder_resume(struct train_folder *f, char **dir, struct mode_error *err);
char *train_folder_checkpoint(const struct train_folder *f, const char *name);
/* The checkpoint called name is complete: the one before it is removed. */
enum mode_status train_folder_checkpointed(struct train_folder *f, const char *name, struct mode_error *err);
char *train_folder_captions(const struct train_folder *f, size_t shard); /* file; the caller frees */
/* The model is complete: it stays whatever happens now, and there is nothing to go on with any more. */
enum mode_status train_folder_finish(struct train_folder *f, struct mode_error *err);
/* st: how the training ended. */
void train_folder_close(struct train_folder *f, enum mode_status st, struct mode_error *err);

#endif
