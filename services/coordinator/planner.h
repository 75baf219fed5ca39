/* planner.h - slow work in background threads: making plans, writing a run's results, and digesting blobs that were
 * reported as damaged.
 *
 * Planning examines every input: a hundred thousand shards on a file server, tens of GB to digest, perhaps a mount that
 * hangs. Writing results digests every model once more, and a checkpoint may have many GB. The coordinator's loop
 * enqueues a job, continues, and takes the result when planner_fd becomes readable.
 *
 *     job = planner_ask(planner, spec_text, folder, NULL);
 *     ...
 *     if (planner_made(planner, job)) { plan = job->plan; job->plan = NULL; st = job->st; }
 *     planner_forget(planner, &job);
 *
 * Jobs run serially, in the order of the requests.
 *
 * Threads: one caller. */
#ifndef MODE_COORDINATOR_PLANNER_H
#define MODE_COORDINATOR_PLANNER_H

#include "peaks.h"
#include "plan.h"

struct planner;

struct planner_results { /* of a plan whose nodes, or at least whose models, are done; the plan is read-only
                            meanwhile */
    struct plan *plan;
    struct peaks peaks;
    char *why; /* why there will be only experts; NULL: everything is done */
};

struct planner_job {
    char *text, *folder, *inputs;
    bool made, forgotten; /* owned by the planner, like everything below, until made */
    enum mode_status st;
    struct mode_error err;
    struct plan *plan; /* NULL on failure: see st and err */
    struct planner_results results;
    char digest[MODE_DIGEST_HEX]; /* of the blob to check, else "" */
    uint64_t size;
    bool bad; /* it is damaged or missing; for results: the plan's `bad` is set */
    struct planner_job *next;
};

enum mode_status planner_open(struct planner **out, struct mode_store *store, const struct plan_world *world,
                              struct mode_error *err);
/* A thread that hangs in a file system is abandoned after two seconds, with what it holds: returns false, and the store
 * must stay open. */
bool planner_close(struct planner **p);
int planner_fd(const struct planner *p); /* readable when a job is done, until planner_heard */
void planner_heard(struct planner *p);

/* text: of a valid spec. inputs: the file of an earlier planning (plan_open), or NULL. */
struct planner_job *planner_ask(struct planner *p, const char *text, const char *folder, const char *inputs);
/* why: NULL: materialise and board_complete; else the experts alone, and why, which it takes over. */
struct planner_job *planner_ask_results(struct planner *p, struct plan *plan, const struct peaks *peaks, char *why);
/* Checks that the blob matches its digest. */
struct planner_job *planner_ask_blob(struct planner *p, const char *digest, uint64_t size);
bool planner_made(struct planner *p, struct planner_job *job);
/* Discards a job, done or not; frees a plan that was not taken. true: its results are being written, and their plan now
 * belongs to the planner. */
bool planner_forget(struct planner *p, struct planner_job **job);
/* What it is reading, like digests_reading. */
void planner_reading(char *text, size_t size, struct planner *p);

#endif
