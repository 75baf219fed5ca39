/* run.h - the runs of a workspace: each a spec that was submitted, its plan, and how far it is.
 *
 * runs/<name>/spec.yaml and runs/<name>/run.json are written when a run is accepted and when it ends, so a restarted
 * coordinator goes on with what is unfinished; runs/<name>/plan.json, with the key of every task that is known, also
 * every few seconds in between. A name is one run: submitting the same spec again opens it again (a finished run is
 * found finished), submitting another spec under the name of a run that ended replaces it.
 *
 * Threads: one caller. */
#ifndef MODE_COORDINATOR_RUN_H
#define MODE_COORDINATOR_RUN_H

#include "core.h"
#include "peaks.h"
#include "plan.h"
#include "proto/envelope.pb-c.h"

struct run {
    char *name, *folder, *text, *idempotency;
    Mode__RunState state;
    int64_t created_ms, finished_ms; /* wall clock, for people */
    double started_s;                /* monotonic, since this coordinator runs it */
    char *message;
    enum mode_status failed;          /* why it is FAILED, where that is no task's doing; not kept over a restart */
    struct plan *plan;                /* NULL for runs that had ended when the coordinator started */
    uint32_t *core_task;              /* [plan->n_nodes]; CORE_NONE = not handed over */
    bool let_go;                      /* it has ended: its tasks are not wanted by it any more */
    bool retry;                       /* a person submitted it: quarantined tasks get another chance */
    double retry_at_s;                /* the store failed: not before */
    bool plan_news;                   /* tasks became known since plan.json was written */
    double plan_saved_s, plan_cost_s; /* when, and how long it took */
};

struct runs {
    struct run **run; /* in order of creation */
    size_t n;
    struct mode_store *store;
    struct core *core;
    const struct plan_world *world;
    struct peaks *peaks; /* for the report */
    bool stopping;       /* what is known now is all */
};

/* Called for every task that is handed to the core, so that the server may restore what Redis remembers. */
typedef void run_wanted_fn(void *ctx, uint32_t task);

/* Read the workspace's runs. Unfinished ones are planned anew; one that cannot be is FAILED with the reason. */
enum mode_status runs_load(struct runs *r, struct mode_store *store, struct core *core, const struct plan_world *world,
                           int64_t now_ms, struct mode_error *err);
/* Write the plans of unfinished runs. stopping: nothing becomes known any more, so `mode gc` may go by them. */
void runs_save_plans(struct runs *r, bool stopping);
void runs_clear(struct runs *r);
struct run *runs_find(const struct runs *r, const char *name);

/* Accept a spec. *created false: the same run is there already and goes on (or has ended well). MODE_E_TEMP: a run
 * of that name with another spec is unfinished. dry: check only; *out is then NULL and *tasks says how many. warnings:
 * what whoever submits should know; the caller clears. */
enum mode_status runs_submit(struct run **out, bool *created, uint32_t *tasks, struct mode_spec_list *warnings,
                             struct runs *r, const char *text, const char *folder, const char *idempotency, bool dry,
                             struct mode_error *err);
/* Hand over what became possible, close what is finished. A task that is handed over costs a synced file, and there may
 * be a hundred thousand of them: at until_s (mode_clock_s) it stops and returns true when there are more. */
bool runs_advance(struct runs *r, run_wanted_fn *wanted, void *ctx, int64_t now_ms, double until_s);
/* The core ended a task. */
void runs_ended(struct runs *r, uint32_t task, int64_t now_ms);
/* A worker could not use an input of that task. When its blob is damaged or gone indeed, whoever made it makes it again,
 * and the task waits for that; else nothing is done. The blob is read: for a large one that takes seconds. */
void runs_input_bad(struct runs *r, uint32_t task, const char *digest, int64_t now_ms);
void run_cancel(struct runs *r, struct run *run, int64_t now_ms);

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
