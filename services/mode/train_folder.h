/* train_folder.h - the output folder of `mode train`: the finished model, and during training captions/ (extracted from
 * the shards) and checkpoints/ (`latest` names the complete one).
 *
 * After a failure or a signal the folder is as before, except for what --resume needs: captions/ and the newest
 * complete checkpoint, if there is one. */
#ifndef MODE_SERVICES_MODE_TRAIN_FOLDER_H
#define MODE_SERVICES_MODE_TRAIN_FOLDER_H

#include "base/output.h"
#include "pipeline/train.h"

struct train_folder {
    const char *path; /* --out, borrowed */
    char *newest;     /* name of the newest complete checkpoint, or NULL */
    struct mode_output_folder made;
    size_t n_captions; /* number of captions files written or planned */
    bool owned;        /* its contents may be removed after a failure */
    bool progressed;   /* a checkpoint was made by this process */
    bool before[6];    /* which of `outputs` existed before, and stay */
    char *config, *weights, *optimizer, *steps, *summary, *validation;
    struct mode_train_outputs outputs; /* these */
};

/* Of the processes that train together all set the path, and only the first opens the folder. */
void train_folder_name(struct train_folder *f, const char *path);
/* Makes the folder, or checks that it is writable. E_CREATE: it holds a finished model, or an interrupted training and
 * resume is false. */
enum mode_status train_folder_open(struct train_folder *f, bool resume, struct mode_error *err);
/* The folder of the checkpoint to resume from; the caller frees. */
enum mode_status train_folder_resume(struct train_folder *f, char **dir, struct mode_error *err);
char *train_folder_checkpoint(const struct train_folder *f, const char *name);
/* The checkpoint `name` is complete: removes the one before it. */
enum mode_status train_folder_checkpointed(struct train_folder *f, const char *name, struct mode_error *err);
char *train_folder_captions(const struct train_folder *f, size_t shard); /* file; the caller frees */
/* The model is complete: it stays whatever happens now, and the files for --resume are removed. */
enum mode_status train_folder_finish(struct train_folder *f, struct mode_error *err);
/* st: status of the training. */
void train_folder_close(struct train_folder *f, enum mode_status st, struct mode_error *err);

#endif
