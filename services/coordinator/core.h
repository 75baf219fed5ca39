/* core.h - the scheduling decisions of the coordinator, without side effects.
 *
 * A pure state machine: (state, event, now) -> (state, actions). It uses no socket, Redis, file or clock; the server
 * feeds it events and executes its actions, and a simulator in the tests does the same with simulated networks and
 * crashes. Time is monotonic, in milliseconds.
 *
 *     READY -> LEASED -> COMMITTED                  (WAITING tasks, whose inputs are not there, are the planner's)
 *       ^        |--> RETRY_WAIT -> READY           not_before, by failure class
 *       |        |--> READY at the queue's head     released: stopping, draining
 *       |        '--> QUARANTINED                   the retry budget of the class is used up
 *     any that has not ended -> CANCELLED           no run needs it any more
 *
 * A failure may be the machine's fault. Only the code that reads a request can say that the request itself is wrong
 * (INPUT): after any other failure a task is given up only when it has failed on two nodes, or when there is no second
 * one. A worker where one task after another fails while others of its kind succeed is cordoned: it gets no tasks for a
 * while, then one as a trial, which decides.
 *
 * Done means that a commit record exists: a RESULT, a lost lease and a late HELLO all lead to the action CHECK, and
 * only the answer to it (CORE_EV_CHECKED) ends a task. A fence is epoch << 32 | counter; the epoch comes from the
 * artifact store, so no fence is ever issued twice, whatever Redis loses.
 *
 * Threads: one caller. */
#ifndef MODE_COORDINATOR_CORE_H
#define MODE_COORDINATOR_CORE_H

#include "base/index.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum core_state {
    CORE_READY,
    CORE_LEASED,
    CORE_RETRY_WAIT,
    CORE_COMMITTED,
    CORE_QUARANTINED,
    CORE_CANCELLED,
};
const char *core_state_name(enum core_state s); /* "ready" */

/* Values as FailClass of proto/envelope.proto; LEASE_LOST is the coordinator's own. Redis stores counts in this
 * order. */
enum core_fail {
    CORE_FAIL_NONE,
    CORE_FAIL_CRASH,
    CORE_FAIL_STALL,
    CORE_FAIL_INPUT,
    CORE_FAIL_INTEGRITY,
    CORE_FAIL_OOM,
    CORE_FAIL_DEVICE,
    CORE_FAIL_STORE,
    CORE_FAIL_CODE,
    CORE_FAIL_OTHER,
    CORE_FAIL_LEASE_LOST,
    CORE_FAIL_ABSENT,
    CORE_FAIL_FULL,
    CORE_FAIL_COUNT
};
const char *core_fail_name(enum core_fail f); /* "crash" */

/* Values as Verdict of proto/envelope.proto. */
enum core_verdict { CORE_COMMITTED_NOW = 1, CORE_ALREADY, CORE_STALE, CORE_MISSING, CORE_NOTED };

struct core_options {
    uint32_t heartbeat_ms; /* how often a worker reports           */
    uint32_t lease_ms;     /* silence after which a lease is lost  */
    uint32_t grace_ms;     /* grace period of a CANCEL             */
    uint32_t settle_ms;    /* after a start: no dispatch before                     */
    uint32_t return_ms;    /* longest reconnection time of a worker; no lease expires meanwhile */
    /* mutations for the tests: each must be caught by the simulator */
    bool no_fence_check, no_epoch, no_check_on_expiry;
};
#define CORE_OPTIONS_DEFAULT                                                                                           \
    {                                                                                                                  \
        .heartbeat_ms = 3000, .lease_ms = 30000, .grace_ms = 5000, .settle_ms = 2000, .return_ms = 40000               \
    }

#define CORE_KEY     65
#define CORE_SESSION 33
#define CORE_NODES   4 /* remembered nodes where a task failed */
#define CORE_FAILING 3 /* different tasks that fail in a row before the worker is cordoned, if others succeed */
#define CORE_NONE    UINT32_MAX

struct core_train_step { /* the latest step of a running training */
    bool known;
    double loss, lr, logit_scale, samples_per_s;
};

#define CORE_SCORES 64
struct core_score { /* a result of a model in training, on a task */
    char task[64], metric[48];
    double value;
    uint64_t step;
};

struct core_task {
    char *key;           /* owned, as the next two                        */
    char *label, *run;   /* run: the first that needed it, for log lines  */
    const char *service; /* the pool's own                                */
    uint64_t order;      /* smaller first                                 */
    uint64_t stall_ms;   /* 0 = no stall timeout                          */
    enum core_state state;
    uint32_t wanted;  /* number of runs that need it                   */
    uint32_t attempt; /* hand-outs so far                              */
    uint16_t failures[CORE_FAIL_COUNT];
    struct core_guilt {
        uint64_t node;          /* its hash                             */
        uint32_t classes;       /* bits 1 << enum core_fail             */
    } guilt[CORE_NODES];        /* nodes where it failed, possibly by their fault */
    enum core_fail elsewhere;   /* not NONE: next on a node where it has not failed in this way, if there is one */
    uint64_t fence;             /* of the latest hand-out               */
    uint64_t over;              /* of the latest hand-out that its worker reported as ended without a result */
    uint32_t worker;            /* index while LEASED; CORE_NONE: no message since the restart */
    int64_t heard_ms, moved_ms; /* last heartbeat; last change of `done` or `changes` */
    int64_t not_before_ms;
    int64_t leased_ms;
    uint64_t done, total, changes;
    double rate, seconds;
    uint64_t rss_bytes;
    char unit[24];
    struct core_train_step train;
    struct core_score *score; /* owned, [n_scores] */
    size_t n_scores;
    enum core_fail last_fail;
    uint32_t last_status; /* enum mode_status of a failure that a worker told of; 0: it did not say */
    char *last_text;
    bool urgent;        /* released: head of the queue                   */
    bool checking;      /* lease lost, waits for CHECKED                 */
    bool withheld;      /* RETRY_WAIT: held until its input has been checked */
    bool queued;        /* in its pool's heap                            */
    uint32_t active_at; /* place in core.active, CORE_NONE = not in it   */
};

struct core_worker {
    char session[CORE_SESSION]; /* "" = free slot */
    char *service, *code, *name, *node, *build, *device;
    uint64_t node_hash;
    uint32_t slots, credit, held;
    uint64_t incarnation; /* 0 = not said */
    int64_t since_ms, heard_ms;
    int64_t offered_ms;             /* when it last requested tasks; at first: when it connected */
    int64_t cordon_until_ms;        /* no work before: its device or node failed */
    int n_cordons;                  /* in a row without a finished task, capped; above 0 it gets one task at a time */
    char *cordon_why;               /* owned; the error text of that failure */
    uint64_t failing[CORE_FAILING]; /* hashes of tasks that failed there since the last success */
    size_t n_failing;
    bool draining;
    uint64_t n_done, n_failed;
};

enum core_event_type {
    CORE_EV_TICK,
    CORE_EV_HELLO,      /* session, service, code, name, node, build, device, slots, incarnation, held[] */
    CORE_EV_CREDIT,     /* session, n                                              */
    CORE_EV_ASSIGN_ACK, /* session, key, fence, ok                                 */
    CORE_EV_PROGRESS,   /* session; key, fence, done, ... (key "" = only alive)    */
    CORE_EV_RESULT,     /* session, key, fence                                     */
    CORE_EV_FAIL,       /* session, key, fence, fail, text                         */
    CORE_EV_RELEASE,    /* session, key, fence                                     */
    CORE_EV_BYE,        /* session                                                 */
    CORE_EV_CHECKED,    /* key, fence, session ("" = lost lease), ok = a commit exists */
    CORE_EV_CLAIM_LOST, /* key, fence: the hand-out could not be recorded or sent  */
    CORE_EV_DRAIN,      /* session, n = ms until running tasks are given back, 0 = never */
};

struct core_lease {
    char key[CORE_KEY];
    uint64_t fence;
};

struct core_event {
    enum core_event_type type;
    const char *session, *key;
    uint64_t fence;
    const char *service, *code, *name, *node, *build, *device;
    uint32_t n; /* slots, credit, grace */
    uint64_t incarnation;
    const struct core_lease *held;
    size_t n_held;
    bool ok;
    uint64_t done, total, changes, rss_bytes;
    double rate, seconds;
    const char *unit;
    struct core_train_step train;
    const struct core_score *score;
    size_t n_scores;
    enum core_fail fail;
    uint32_t status; /* enum mode_status, or 0 */
    const char *text;
};

enum core_action_type {
    CORE_ACT_CLAIM,           /* record, then send ASSIGN: task, worker, fence                       */
    CORE_ACT_CANCEL,          /* session, task, fence                                                */
    CORE_ACT_ACK,             /* session, key, fence, verdict                                        */
    CORE_ACT_CHECK,           /* check whether commits/<key> exists; answer with CHECKED: key, fence, session */
    CORE_ACT_KEPT,            /* session, key, fence: part of the WELCOME that follows               */
    CORE_ACT_DROPPED,         /* session, key, fence: likewise                                       */
    CORE_ACT_WELCOME,         /* session                                                             */
    CORE_ACT_NAME_TAKEN,      /* session                                                     */
    CORE_ACT_UNKNOWN_SESSION, /* session                                                     */
    CORE_ACT_DRAIN,           /* session, grace_ms                                                   */
    CORE_ACT_RECORD,          /* task changed its state: tell Redis                                  */
    CORE_ACT_ENDED,           /* task is COMMITTED, QUARANTINED or CANCELLED: tell the planner       */
    CORE_ACT_NOTE,            /* task, text: a warning for people                                    */
};

struct core_action {
    enum core_action_type type;
    uint32_t task; /* index, or CORE_NONE */
    char session[CORE_SESSION];
    char key[CORE_KEY];
    uint64_t fence;
    enum core_state state; /* of the task when the action arose */
    enum core_verdict verdict;
    uint32_t grace_ms;
    char text[480];
};

/* Why tasks of a service that are ready are not taken, other than because all workers are busy. */
enum core_wait_cause {
    CORE_WAIT_NONE,
    CORE_WAIT_NO_WORKER, /* none is connected                                                    */
    CORE_WAIT_HELD_BACK, /* every one is cordoned or draining                                    */
    CORE_WAIT_NOT_READY, /* available workers have no credit and no task: no compute process */
    CORE_WAIT_BREAKER,   /* the service's circuit breaker is open                                */
};
const char *core_wait_name(enum core_wait_cause cause); /* "no_worker" */

struct core_wait {
    enum core_wait_cause cause;
    uint32_t workers, cordoned, draining; /* connected ones of that service; a drained one is not counted as cordoned */
    uint32_t first;                       /* a worker that the cause applies to, or CORE_NONE */
    int64_t until_ms;                     /* when the first cordon ends, or the breaker closes; else 0 */
};

struct core_heap {
    uint32_t *item;
    size_t n, cap;
};

struct core {
    struct core_options opt;
    uint32_t epoch, counter;
    int64_t settled_ms;   /* no dispatch before */
    int64_t returning_ms; /* no expiry before: holders of leases may be reconnecting */
    bool dispatch;        /* the server may switch hand-outs off (Redis away) */
    bool no_room;         /* likewise (the store's disk is nearly full, and every task writes) */
    struct core_task *task;
    uint32_t n_tasks, cap_tasks;
    struct mode_index by_key;
    uint32_t *active; /* tasks LEASED or in RETRY_WAIT: examined by every tick */
    uint32_t n_active, cap_active;
    int64_t ticked_ms;
    struct core_worker *worker;
    uint32_t n_workers;
    struct core_pool {
        char *service;
        struct core_heap ready;
        uint64_t attempts, failures; /* over the latest hand-outs: the stage's circuit breaker */
        int64_t broken_until_ms;
        uint64_t failed[CORE_FAIL_COUNT]; /* failed attempts by class; monotonic counters */
        int n_breaks;                     /* in a row without a finished task; above 0 one task at a time */
        uint32_t probe;                   /* that trial task; valid with its fence */
        uint64_t probe_fence;
    } * pool;
    size_t n_pools;
    struct core_action *action; /* pending actions; the server clears them with core_actions_clear */
    size_t n_actions, cap_actions;
    struct core_heap aside; /* scratch of a dispatch */
};

void core_init(struct core *c, const struct core_options *opt, uint32_t epoch, int64_t now_ms);
void core_clear(struct core *c);
void core_actions_clear(struct core *c);

/* Adds a task that a run needs, and returns its index; wanted is incremented. A CANCELLED task, a COMMITTED one without
 * a record (the caller has checked), and with retry also a QUARANTINED one becomes READY with fresh budgets. */
uint32_t core_task_want(struct core *c, const char *key, const char *service, const char *label, const char *run,
                        uint64_t order, uint64_t stall_ms, bool retry, int64_t now_ms);
/* Decrements wanted; at zero the task is CANCELLED unless it has ended. */
void core_task_unwant(struct core *c, uint32_t task, int64_t now_ms);
/* The same for a QUARANTINED task whose run continues without it: at zero it is CANCELLED, so that no alert fires. */
void core_task_pardon(struct core *c, uint32_t task);
/* Restores the state of a READY task from Redis after a restart. state LEASED: the lease is kept until its worker
 * reports or it expires. */
void core_task_restore(struct core *c, uint32_t task, enum core_state state, uint32_t attempt, uint64_t fence,
                       const uint16_t failures[CORE_FAIL_COUNT], int64_t now_ms);
/* A withheld task in RETRY_WAIT is not retried before its release, even after its wait: the cause of its failure is
 * being checked, and further attempts would count against it. Leaving RETRY_WAIT in any way also releases it. */
void core_task_withhold(struct core *c, uint32_t task);
void core_task_release(struct core *c, uint32_t task);
/* Adds a warning for people to the core's own notes. task: its subject, or CORE_NONE. */
void core_note(struct core *c, uint32_t task, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Call after the tasks were restored, if there was an earlier coordinator: workers may reconnect with leases it gave.
 * remembered: the tasks restored as LEASED are all of these, so the others may be handed out soon. Otherwise no task is
 * handed out before all workers had time to reconnect. */
void core_returning(struct core *c, bool remembered, int64_t now_ms);
/* A commit record exists. */
void core_task_commit(struct core *c, uint32_t task);
/* Changes the epoch; leases stay. */
void core_set_epoch(struct core *c, uint32_t epoch, int64_t now_ms);

/* Valid if a task of that service is READY or in RETRY_WAIT. NONE also while nothing is handed out at all (Redis is
 * away, the disk is nearly full, or lease holders may still reconnect after a start). */
struct core_wait core_wait(const struct core *c, const char *service, int64_t now_ms);
/* Tasks of a pool that are ready or wait for another try. */
uint64_t core_waiting(const struct core *c, size_t pool);

void core_handle(struct core *c, const struct core_event *e, int64_t now_ms);
/* When core_handle(TICK) is next needed. */
int64_t core_next_tick_ms(const struct core *c, int64_t now_ms);

uint32_t core_find_task(const struct core *c, const char *key);
uint32_t core_find_worker(const struct core *c, const char *session);

#endif
