/* planner.h - what takes long and is no decision: plans are made, a run's results written, and blobs that are said to be
 * damaged digested, in threads of their own.
 *
 * To plan is to look at every input: hundred thousand shards on a file server, tens of GB to be digested, perhaps a
 * mount that does not answer. To write results is to digest every model once more, and a checkpoint alone may be many
 * GB. The coordinator's loop asks, goes on with everything else, and takes what was made when planner_fd says so.
 *
 *     job = planner_ask(planner, spec_text, folder, NULL);
 *     ...
 *     if (planner_made(planner, job)) { plan = job->plan; job->plan = NULL; st = job->st; }
 *     planner_forget(planner, &job);
 *
 * One after another, in the order of asking.
 *
 * Threads: one caller. */
#ifndef MODE_COORDINATOR_PLANNER_H
#define MODE_COORDINATOR_PLANNER_H

#include "peaks.h"
#include "plan.h"

struct planner;

struct planner_results { /* of a plan whose nodes are done, or whose models are; it is only read meanwhile */
    struct plan *plan;
    struct peaks peaks;
    char *why; /* the experts are all that there will be; NULL: all is there */
};

struct planner_job {
    char *text, *folder, *inputs;
    bool made, forgotten; /* the planner's, as all below is until it is made */
    enum mode_status st;
    struct mode_error err;
    struct plan *plan; /* NULL: st and err say why not */
    struct planner_results results;
    char digest[MODE_DIGEST_HEX]; /* of a blob to be looked at, else "" */
    uint64_t size;
    bool bad; /* it is damaged or gone; of results: the plan's `bad` is */
    struct planner_job *next;
};

enum mode_status planner_open(struct planner **out, struct mode_store *store, const struct plan_world *world,
                              struct mode_error *err);
/* A thread that hangs in a file system is left behind after two seconds, with what it holds: false, and the store must
 * stay open. */
bool planner_close(struct planner **p);
int planner_fd(const struct planner *p); /* readable after a plan was made, until planner_heard */
void planner_heard(struct planner *p);

/* text: of a spec that can be read. inputs: the file of an earlier planning (plan_open), or NULL. */
struct planner_job *planner_ask(struct planner *p, const char *text, const char *folder, const char *inputs);
/* why: NULL: materialise and board_complete; else the experts alone, and why, which it takes over. */
struct planner_job *planner_ask_results(struct planner *p, struct plan *plan, const struct peaks *peaks, char *why);
/* Is the blob what its name says? */
struct planner_job *planner_ask_blob(struct planner *p, const char *digest, uint64_t size);
bool planner_made(struct planner *p, struct planner_job *job);
/* The caller wants it no more, made or not; frees a plan that was not taken. true: results are being written, and the
 * plan they are of is the planner's now. */
bool planner_forget(struct planner *p, struct planner_job **job);
/* What it reads at present, as digests_reading. */
void planner_reading(char *text, size_t size, struct planner *p);

#endif
