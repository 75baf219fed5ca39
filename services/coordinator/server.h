/* server.h - the coordinator process: sockets, Redis, store and clock around the pure core.
 *
 * One thread, one loop: messages in, core_handle, actions out; plans are made in the background (planner.h). Every
 * transition is recorded in Redis before a task is handed out; while Redis is away nothing is handed out, everything
 * else continues, and the state of all tasks is rewritten to it when it is back. */
#ifndef MODE_COORDINATOR_SERVER_H
#define MODE_COORDINATOR_SERVER_H

#include "core.h"
#include "msg/socket.h"
#include "peaks.h"
#include "redis.h"
#include "run.h"
#include "store/artifacts.h"

struct MHD_Daemon;
struct mode_str;

struct server_options {
    const char *workspace, *worker_endpoint, *admin_endpoint, *redis_url, *key_dir, *allow_list, *http;
    int64_t heartbeat_ms, lease_ms, keep_checkpoints_s;
    int64_t min_free_mib;                                                     /* negative: from the disk's size */
    const struct plan_world *world;                                           /* NULL = server_world */
    uint64_t (*look_at_disk)(const struct mode_store *store, uint64_t *size); /* NULL = mode_store_free_bytes */
};

#define SERVER_NOTES    64
#define SERVER_TURNED   8
#define SERVER_ASKERS   64
#define SERVER_SAY_MS   1000 /* when a plan takes longer, the submitter receives its progress */
#define SERVER_MAX_HELD 256  /* leases in a HELLO: four times the maximum of slots */

struct server_route {
    uint8_t bytes[256];
    size_t n;
};

struct server {
    struct core core;
    struct runs runs;
    struct peaks peaks;
    struct mode_store *store;
    struct mode_net *net;
    struct mode_socket *workers, *admins;
    struct redis *redis;
    struct MHD_Daemon *http;
    int http_fd; /* readable when HTTP has work; -1 = none */
    uint64_t epoch, message_id;
    bool redis_seen; /* was connected before: a changed run_id means that it may have lost data */
    bool starting;   /* until the unfinished runs have plans: the admin port is served, workers are not yet */
    double start_until_s;
    bool stop, stale;
    bool more;                                    /* more tasks to hand over than fitted into this turn */
    double turn_until_s;                          /* a turn hands tasks over until then */
    char *allow_list;                             /* NULL = no TCP port */
    bool keys_changed;                            /* the list was reread: a connected peer may no longer be in it */
    int64_t keep_checkpoints_s, sweep_ms, tmp_ms; /* when the next sweep of ckpt/, of tmp/ is due */
    int64_t redis_retry_ms, redis_pause_ms, redis_ping_ms, full_said_ms; /* full_said_ms: the next time to log that
                                                                            it is full */
    uint64_t n_left_out;                                                 /* redis_left_out at the last check */
    int64_t min_free_mib, disk_ms;                                       /* when the next check of the disk is due */
    uint64_t (*look_at_disk)(const struct mode_store *store, uint64_t *size);
    uint64_t free_bytes, floor_bytes; /* at the last check; below the floor nothing is handed out */
    double started_s;
    char redis_problem[400];    /* "" = none */
    struct server_route *route; /* of core.worker[i] */
    uint32_t n_routes;
    struct server_route current; /* sender of the message being handled */
    struct server_held {         /* for the WELCOME being built */
        char key[CORE_KEY];
        uint64_t fence;
        bool kept;
    } held[SERVER_MAX_HELD];
    size_t n_held;
    struct server_asker { /* sender of a SUBMIT whose plan is being made */
        struct server_route route;
        char *idempotency;
        uint64_t message; /* id of its message */
        int64_t since_ms;
    } asker[SERVER_ASKERS];
    size_t n_askers;
    struct server_note {
        int64_t unix_ms;
        const char *level, *event;
        char text[480];
    } note[SERVER_NOTES];
    uint64_t n_notes;
    struct server_turned { /* rejected workers: perhaps those that tasks wait for */
        int64_t at_ms;
        char service[32], name[128], why[320]; /* service "": not known */
    } turned[SERVER_TURNED];
    uint64_t n_turned, n_keys_refused;
    struct server_wait {           /* of core.pool[i] */
        int64_t since_ms, gone_ms; /* tasks have been waiting since; stopped waiting at. 0 = no */
        enum core_wait_cause said; /* in the log */
    } * wait;
    size_t n_waits;
    int64_t waits_ms;      /* when the next check is due */
    uint64_t most_files;   /* limit on open files; 0 = not known */
    int64_t files_said_ms; /* next time to log that they are too few */
    uint32_t n_last_words; /* number of files written */
    int64_t bad_told_ms;   /* when a bad message may be logged again */
    uint64_t n_messages[2], n_bad_messages, n_handouts, n_recorded, n_refused;
};

enum mode_status server_open(struct server *s, const struct server_options *o, struct mode_error *err);
/* Runs until SIGTERM or SIGINT. SIGHUP rereads the allow list. */
enum mode_status server_run(struct server *s, struct mode_error *err);
void server_close(struct server *s);

/* Internal to the files of this folder. */
void server_event(struct server *s, const struct core_event *e);
void server_settle(struct server *s); /* executes the core's actions until there are none */
void server_note(struct server *s, const char *level, const char *event, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
int64_t server_now_ms(void);
/* Counts a message that is malformed or not for that port, and logs some of them. key: the sender's name, or "". */
void server_bad_message(struct server *s, const char *port, const char *key, const char *why);
/* Whether the sender's key is still allowed. A revoked key may still be connected: its owner is notified, and its
 * leases expire. */
bool server_lets_in(const struct server *s, struct mode_socket *port, const struct mode_packet *p);
void server_worker_message(struct server *s, const struct mode_packet *p); /* worker_port.c */
bool server_send_assign(struct server *s, const struct core_action *a);
void server_send_action(struct server *s, const struct core_action *a);
void server_admin_message(struct server *s, const struct mode_packet *p); /* admin_port.c */
void server_planned(struct server *s);                                    /* likewise: plans that were made */
enum mode_status server_redis_tick(struct server *s, int64_t now_ms, struct mode_error *err); /* redis_link.c */
void server_redis_away(struct server *s, const struct mode_error *err);
void server_restore(void *server, uint32_t task);

/* waits.c. text: "train-seed: 1 task waits for a train worker ..."; needs (or NULL): the required capability. */
void server_turned_away(struct server *s, const char *service, const char *name, const char *why);
bool server_turned_lately(const struct server *s, const char *name); /* already logged */
void server_wait_text(struct mode_str *text, const struct server *s, const char *stage, const char *service,
                      const char *needs, uint64_t tasks, const struct core_wait *w);
double server_waits_since_s(const struct server *s, const char *service);
void server_watch_waits(struct server *s, int64_t now_ms);

/* disk.c. server_paused says why nothing is handed out; false: not because of the disk. */
void server_watch_disk(struct server *s, int64_t now_ms);
bool server_paused(const struct server *s, char *text, size_t size);

/* status.c: the answer to STATUS; free with status_free. */
struct status_memory;
Mode__StatusReply *status_build(struct status_memory **memory, const struct server *s, const char *run, bool workers,
                                uint32_t notes);
/* Adds a running task to the stage. A task that has not begun has no unit; the first unit becomes the stage's, and only
 * the progress of tasks with that unit is added up. */
void status_add_running(Mode__Stage *stage, const struct core_task *t);
/* Drops running tasks, then workers, from the end until it has at most `most` packed bytes. */
void status_fit(Mode__StatusReply *reply, size_t most);
void status_free(struct status_memory **memory);

/* http.c; address "host:port" or "" for none */
enum mode_status http_open(struct server *s, const char *address, struct mode_error *err);
void http_run(struct server *s);
void http_close(struct server *s);
/* The part of /metrics about running trainings: one series for each, none for ended ones. */
void http_train_metrics(struct mode_str *out, const struct core *c);
void http_score_metrics(struct mode_str *out, const struct core *c); /* of trainings that are evaluated meanwhile */
void http_failure_metrics(struct mode_str *out, const struct core *c);

/* The real implementation of the queries of plans. */
extern const struct plan_world server_world;

#endif
