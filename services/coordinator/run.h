/* run.h - the runs of a workspace: each a submitted spec, its plan, and its progress.
 *
 * runs/<name>/spec.yaml, inputs.json (what it was planned from) and run.json are written when a run is accepted, run.json
 * also when it ends, so a restarted coordinator continues unfinished runs; runs/<name>/plan.json, with the keys of all
 * known tasks, is also written every few seconds in between. A name identifies one run: submitting the same spec again
 * reopens it (a finished run is found finished), submitting another spec under the name of an ended run replaces it.
 *
 * Plans are made in another thread (planner.h): a submission ends when its plan is made, and a run of an earlier
 * coordinator has no plan for a while. Such a run waits for missing inputs, which may still appear.
 *
 * Threads: one caller. */
#ifndef MODE_COORDINATOR_RUN_H
#define MODE_COORDINATOR_RUN_H

#include "core.h"
#include "peaks.h"
#include "plan.h"
#include "planner.h"
#include "proto/envelope.pb-c.h"

struct run {
    char *name, *folder, *text, *idempotency;
    Mode__RunState state;
    int64_t created_ms, finished_ms; /* wall clock, for people */
    double started_s;                /* monotonic, since this coordinator runs it */
    char *message;
    enum mode_status failed;          /* why it is FAILED, if not because of a task; not kept across a restart */
    struct planner_job *job;          /* making its plan; with a plan: writing its results */
    struct plan *plan;                /* NULL: not made yet, or it had ended when the coordinator started */
    uint32_t *core_task;              /* [plan->n_nodes]; CORE_NONE = not handed over */
    bool let_go;                      /* it has ended and no longer needs its tasks */
    bool restore;                     /* of an earlier coordinator: the state of its first tasks is restored from
                                         Redis */
    bool registered;                  /* recorded in Redis */
    bool retry;                       /* submitted by a person: quarantined tasks are retried */
    double retry_at_s;                /* earliest retry after a store failure or a missing input */
    bool plan_news;                   /* new tasks since plan.json was written */
    double plan_saved_s, plan_cost_s; /* when it was written, and how long that took */
};

struct run_submission {
    char *text, *folder, *idempotency;
    bool dry, ended;
    struct planner_job *job; /* until it has ended; then: */
    double ended_s;
    enum mode_status st; /* MODE_E_TEMP: a run of that name with another spec is unfinished */
    struct mode_error err;
    char *run;                      /* its name; NULL for a dry one */
    bool created;                   /* false: the same run exists and continues (or has ended successfully) */
    uint32_t tasks;                 /* of the plan made for it */
    struct mode_spec_list warnings; /* for the submitter */
};

struct run_check { /* check of a blob that workers reported as damaged */
    char digest[MODE_DIGEST_HEX];
    struct planner_job *job;
    uint32_t *task; /* indices in the core, [n], withheld until the result */
    size_t n;
};

struct runs {
    struct run **run; /* in order of creation */
    size_t n;
    struct run_submission **submission;
    size_t n_submissions;
    struct run_check *check;
    size_t n_checks;
    struct planner *planner, *writer, *checker; /* for plans, results and blobs: separate, so that none waits for
                                                   another */
    struct mode_store *store;
    struct core *core;
    struct peaks *peaks; /* for the report */
    bool stopping;       /* no new tasks any more */
};

/* Called for every task of a run with `restore` that is handed to the core, so that the server can restore its state
 * from Redis. */
typedef void run_wanted_fn(void *ctx, uint32_t task);

/* Reads the workspace's runs. Unfinished ones are planned again, in the planner's thread. */
enum mode_status runs_load(struct runs *r, struct mode_store *store, struct core *core, const struct plan_world *world,
                           struct mode_error *err);
/* Writes the plans of unfinished runs. stopping: no new tasks will follow, so `mode gc` may rely on them. */
void runs_save_plans(struct runs *r, bool stopping);
/* false: the store must stay open (planner_close). */
bool runs_clear(struct runs *r);
struct run *runs_find(const struct runs *r, const char *name);

/* Submits a spec; dry: check only. The returned submission may have ended already. Submitting the same spec with the
 * same idempotency key returns the same submission, until a minute after it has ended. Owned by r. */
struct run_submission *runs_submit(struct runs *r, const char *text, const char *folder, const char *idempotency,
                                   bool dry);
struct run_submission *runs_submission(const struct runs *r, const char *idempotency); /* NULL: none, or too long ago */
/* Takes the results of the planners: submissions end, runs continue, or end with their results; damaged blobs are
 * remade. A run that cannot be planned is FAILED with the reason, except when an input is missing or cannot be read at
 * present: that is retried every ten seconds. */
void runs_planned(struct runs *r, int64_t now_ms);
/* Whether some unfinished run has no plan; whether plans of such runs are being made. */
bool runs_unplanned(const struct runs *r);
bool runs_planning(const struct runs *r);
/* Hands over tasks that became ready and closes finished runs. Each hand-over writes and syncs a file, and there may be
 * a hundred thousand of them: at until_s (mode_clock_s) it stops and returns true when there are more. */
bool runs_advance(struct runs *r, run_wanted_fn *wanted, void *ctx, int64_t now_ms, double until_s);
/* The core ended a task. */
void runs_ended(struct runs *r, uint32_t task, int64_t now_ms);
/* That task failed because its worker could not use an input. The blob is checked in the background, and until then the
 * task is not retried. If it is damaged or missing, the task that made it is redone, and this one waits for it;
 * otherwise it is retried as after any failure. */
void runs_input_bad(struct runs *r, uint32_t task, const char *digest, int64_t now_ms);
/* false: it has ended, or its results are being written. */
bool run_cancel(struct runs *r, struct run *run, int64_t now_ms);

/* materialise.c: <workspace>/report and <workspace>/experts from the commits of a finished plan; the report includes
 * time and memory of its tasks and of the processes around them. */
enum mode_status materialise(struct plan *plan, const struct peaks *peaks, const char *workspace,
                             struct mode_error *err);
/* Only the experts, for a plan whose models are all trained, whatever became of the rest. */
enum mode_status materialise_experts(struct plan *plan, const char *workspace, struct mode_error *err);
/* board.c: runs/<name>/tensorboard of a finished plan: every model's steps and results, including models trained for
 * another run. For people only: errors are just logged. */
void board_complete(struct plan *plan, const char *workspace);

#endif
