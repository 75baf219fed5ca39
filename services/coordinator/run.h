/* run.h - the runs of a workspace: each a spec that was submitted, its plan, and how far it is.
 *
 * runs/<name>/spec.yaml, inputs.json (what it was planned from) and run.json are written when a run is accepted, run.json
 * also when it ends, so a restarted coordinator goes on with what is unfinished; runs/<name>/plan.json, with the key of
 * every task that is known, also every few seconds in between. A name is one run: submitting the same spec again opens
 * it again (a finished run is found finished), submitting another spec under the name of a run that ended replaces it.
 *
 * Plans are made in another thread (planner.h): a submission ends when its plan is made, and a run of an earlier
 * coordinator has none for a while. It keeps waiting for inputs that are not there, which may be on the way.
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
    enum mode_status failed;          /* why it is FAILED, where that is no task's doing; not kept over a restart */
    struct planner_job *job;          /* its plan is being made; with a plan: its results are being written */
    struct plan *plan;                /* NULL: not made yet, or it had ended when the coordinator started */
    uint32_t *core_task;              /* [plan->n_nodes]; CORE_NONE = not handed over */
    bool let_go;                      /* it has ended: its tasks are not wanted by it any more */
    bool restore;                     /* of an earlier coordinator: what Redis remembers of its first tasks counts */
    bool registered;                  /* Redis was told of it */
    bool retry;                       /* a person submitted it: quarantined tasks get another chance */
    double retry_at_s;                /* the store failed, or an input is not there: not before */
    bool plan_news;                   /* tasks became known since plan.json was written */
    double plan_saved_s, plan_cost_s; /* when, and how long it took */
};

struct run_submission {
    char *text, *folder, *idempotency;
    bool dry, ended;
    struct planner_job *job; /* until it has ended; then: */
    double ended_s;
    enum mode_status st; /* MODE_E_TEMP: a run of that name with another spec is unfinished */
    struct mode_error err;
    char *run;                      /* its name; NULL of a dry one */
    bool created;                   /* false: the same run is there already and goes on (or has ended well) */
    uint32_t tasks;                 /* of a plan that was made for it */
    struct mode_spec_list warnings; /* what whoever submits should know */
};

struct run_check { /* of a blob that workers say is damaged */
    char digest[MODE_DIGEST_HEX];
    struct planner_job *job;
    uint32_t *task; /* the core's, [n], that are withheld until it is known */
    size_t n;
};

struct runs {
    struct run **run; /* in order of creation */
    size_t n;
    struct run_submission **submission;
    size_t n_submissions;
    struct run_check *check;
    size_t n_checks;
    struct planner *planner, *writer, *checker; /* of plans; of results; of blobs: none waits for what another reads */
    struct mode_store *store;
    struct core *core;
    struct peaks *peaks; /* for the report */
    bool stopping;       /* what is known now is all */
};

/* Called for every task of a run with `restore` that is handed to the core, so that the server may restore what Redis
 * remembers. */
typedef void run_wanted_fn(void *ctx, uint32_t task);

/* Read the workspace's runs. Unfinished ones are planned anew, in the planner's thread. */
enum mode_status runs_load(struct runs *r, struct mode_store *store, struct core *core, const struct plan_world *world,
                           struct mode_error *err);
/* Write the plans of unfinished runs. stopping: nothing becomes known any more, so `mode gc` may go by them. */
void runs_save_plans(struct runs *r, bool stopping);
/* false: the store must stay open (planner_close). */
bool runs_clear(struct runs *r);
struct run *runs_find(const struct runs *r, const char *name);

/* A spec is submitted; dry: check only. What comes back may have ended at once. The same one again (spec and idempotency
 * key) is the same submission, also for a minute after it has ended. It belongs to r. */
struct run_submission *runs_submit(struct runs *r, const char *text, const char *folder, const char *idempotency,
                                   bool dry);
struct run_submission *runs_submission(const struct runs *r, const char *idempotency); /* NULL: none, or long ago */
/* Takes what the planners made: submissions end, runs go on, or end with their results; damaged blobs are made again. A
 * run that cannot be planned is FAILED with the reason, but where an input is not there, or cannot be read at present, it
 * is looked for again every ten seconds. */
void runs_planned(struct runs *r, int64_t now_ms);
/* Some unfinished run has no plan; plans of such runs are being made. */
bool runs_unplanned(const struct runs *r);
bool runs_planning(const struct runs *r);
/* Hand over what became possible, close what is finished. A task that is handed over costs a synced file, and there may
 * be a hundred thousand of them: at until_s (mode_clock_s) it stops and returns true when there are more. */
bool runs_advance(struct runs *r, run_wanted_fn *wanted, void *ctx, int64_t now_ms, double until_s);
/* The core ended a task. */
void runs_ended(struct runs *r, uint32_t task, int64_t now_ms);
/* A worker could not use an input of that task, which failed for it. Its blob is looked at beside the loop, and until
 * then the task is not tried again. When it is damaged or gone indeed, whoever made it makes it again, and the task
 * waits for that; else it is tried as after any failure. */
void runs_input_bad(struct runs *r, uint32_t task, const char *digest, int64_t now_ms);
/* false: it has ended, or its results are being written. */
bool run_cancel(struct runs *r, struct run *run, int64_t now_ms);

/* materialise.c: <workspace>/report and <workspace>/experts from the commits of a finished plan; time and memory of its
 * tasks and of the processes around them are put into the report. */
enum mode_status materialise(struct plan *plan, const struct peaks *peaks, const char *workspace,
                             struct mode_error *err);
/* Of a plan whose models are all trained, whatever became of the rest: the experts alone. */
enum mode_status materialise_experts(struct plan *plan, const char *workspace, struct mode_error *err);
/* board.c: runs/<name>/tensorboard of a finished plan: every model's steps, those trained for another run too, and what
 * it scored. For people alone: what goes wrong is logged. */
void board_complete(struct plan *plan, const char *workspace);

#endif
