/* job.h - one task, as seen by the code that executes it.
 *
 * A service's work function gets a job: the packed request, its inputs as local files whose digests were
 * verified, paths for its outputs, functions to report progress, and a way to learn that it should stop. It has no
 * access to sockets, Redis or the store. It runs in the worker's compute process, one job at a time.
 *
 *     enum mode_status embed_work(struct mode_job *job, struct mode_error *err)
 *     {
 *         Mode__EmbedRequest *request = mode_job_unpack(job, &mode__embed_request__descriptor, err);
 *         const char *captions = mode_job_input(job, "captions");      // path, or NULL
 *         const char *out = mode_job_output(job, "feat.safetensors");  // write here
 *         ...
 *         mode_job_progress(job, done, total, "captions");             // at least every few seconds
 *         if (mode_job_stopping(job)) return MODE_FAIL(err, MODE_E_STOPPED, "stopped");
 *     }
 *
 * On MODE_OK every output that exists is published by digest and the commit record is created; otherwise
 * nothing is. Outputs must be deterministic: the same request and inputs give the same bytes. */
#ifndef MODE_MSG_JOB_H
#define MODE_MSG_JOB_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mode_job;

const uint8_t *mode_job_request(const struct mode_job *job, size_t *size);
/* The same, unpacked as a message of that type; free with its free_unpacked. NULL: malformed (MODE_E_FORMAT), or it has
 * a field that this build does not know (MODE_E_VALUE): a newer coordinator requests something that this build would
 * not do, and the outputs would be stored under the key of that request. */
struct ProtobufCMessageDescriptor;
void *mode_job_unpack(struct mode_job *job, const struct ProtobufCMessageDescriptor *type, struct mode_error *err);
/* Local path of the input of that name, NULL when the task has none; borrowed, valid for the job. It ends in the
 * name, so inputs "parent/a" and "parent/b" are files a and b of one folder. Read-only. */
const char *mode_job_input(const struct mode_job *job, const char *name);
/* Inputs in order: name and path of the i-th; false past the end. */
bool mode_job_input_at(const struct mode_job *job, size_t i, const char **name, const char **path);
/* Path to write the output of that name to; borrowed. Names hold no '/'. */
const char *mode_job_output(struct mode_job *job, const char *name);
/* A folder that outlives a crash of this attempt: <ckpt>/<task key>/. `latest` has the newest complete checkpoint of an
 * earlier attempt, or is NULL; it stays until a checkpoint of this attempt is done; `mine` is this attempt's own (fence-scoped: an old attempt cannot
 * touch a newer one's). Write a checkpoint as a sub-folder of `mine` and call mode_job_checkpoint_done. */
const char *mode_job_checkpoint_latest(struct mode_job *job);
const char *mode_job_checkpoint_mine(struct mode_job *job);
/* Declare `name` (a sub-folder of `mine`, all files closed) complete: files and folder are fsynced, then the
 * manifest is created. Older complete checkpoints but the last two are removed. */
enum mode_status mode_job_checkpoint_done(struct mode_job *job, const char *name, struct mode_error *err);

/* Progress: done of total `unit`s, at least every few seconds where there is so much to tell. It feeds the lease's stall
 * clock, as every item does that mode_parallel_for has done. */
void mode_job_progress(struct mode_job *job, uint64_t done, uint64_t total, const char *unit);
/* Resets the stall timer where work continues without countable progress. */
void mode_job_goes_on(struct mode_job *job);
bool mode_job_stopping(const struct mode_job *job);
/* The latest step of a training, for people. Call before mode_job_progress of that step. */
struct mode_job_train_step {
    double loss, lr, logit_scale, samples_per_s;
};
void mode_job_train_step(struct mode_job *job, const struct mode_job_train_step *s);
/* A result of the model on a task at a step: the latest of each task is kept, for a limited number of tasks. */
struct mode_job_score {
    const char *task, *metric;
    double value;
    uint64_t step;
};
void mode_job_score(struct mode_job *job, const struct mode_job_score *s);
/* Folder of the run that first requested the task, <workspace>/runs/<name>, for files that people look at during the
 * run and that no output depends on; NULL in a local run or when unknown. The task's key (NULL in a local run). The
 * fence of this attempt, higher than that of every earlier one. */
const char *mode_job_run_dir(const struct mode_job *job);
const char *mode_job_key(const struct mode_job *job);
uint64_t mode_job_fence(const struct mode_job *job);
/* Counts for the commit record. */
void mode_job_count_rows(struct mode_job *job, uint64_t rows_in, uint64_t rows_out);
void mode_job_count_reject(struct mode_job *job, const char *reason, uint64_t n);
/* JSON object text stored with the commit. */
void mode_job_note(struct mode_job *job, const char *json);

/* The backend this worker was started with: "auto" or a backend's name (nn/choice.h); "cpu" in a local run. */
const char *mode_job_backend(const struct mode_job *job);
/* Records the backend that computed the outputs, for the commit record: mode_backend_name. */
void mode_job_made_on(struct mode_job *job, const char *backend);

/* Several processes, each with its own GPU, may do a task together: up to mode_job_gpus (1 or more), the worker's
 * --gpus plus the GPUs of the other machines of its team (--machines). Rank 0 receives the job from the agent and
 * starts the others, which run the same work function with the same request and inputs; their counts, notes and
 * progress are discarded, and they write no outputs.
 *
 *     if (t->rank == 0 && !(st = mode_job_team_start(job, n, backend, err))) ...   // t = mode_job_team(job)
 *     ... rendezvous at t->place with t->secret (dist/meeting.h), work ...
 *     return mode_job_team_end(job, st, err); */
enum { MODE_TEAM_SECRET = 32 };

struct mode_job_team {
    int rank, size; /* 0 and 1 until a team is started */
    char *place;
    uint8_t secret[MODE_TEAM_SECRET];
    int *pid;        /* rank 0: [size], 0 = not running, -1 = on another machine */
    int fallen, how; /* rank 0: first rank that failed, 0 = none; its wait status */
    bool gone;       /* rank 0: the machine of `fallen` was lost: no status */
};
int mode_job_gpus(const struct mode_job *job);
const struct mode_job_team *mode_job_team(const struct mode_job *job);
/* Rank 0 alone. backend: the others' mode_job_backend. */
enum mode_status mode_job_team_start(struct mode_job *job, int size, const char *backend, struct mode_error *err);
/* A callback whose context is the job: true when a rank has failed, so that waiting for the others is pointless. */
bool mode_job_team_broken(void *job);
/* st: status of this process; returns the status of the team. When a rank has failed, err describes the first
 * failure. */
enum mode_status mode_job_team_end(struct mode_job *job, enum mode_status st, struct mode_error *err);

/* State that the work function keeps for the next task of this process, such as a loaded model; NULL at first. It must
 * not affect any output, since it depends on which tasks ran here before. `drop` is called when it is replaced, and at
 * process exit. */
void *mode_job_kept(const struct mode_job *job);
void mode_job_keep(struct mode_job *job, void *kept, void (*drop)(void *kept));

typedef enum mode_status mode_work_fn(struct mode_job *job, struct mode_error *err);

#endif
