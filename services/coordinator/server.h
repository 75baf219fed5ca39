/* server.h - the coordinator process: sockets, Redis, store and clock around the pure core.
 *
 * One thread, one loop: messages in, core_handle, actions out; plans are made beside it (planner.h). Every transition is recorded in Redis before a task
 * is handed out; while Redis is away nothing is handed out, everything else goes on, and the tasks' state is written
 * to it anew when it is back. */
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
    int64_t min_free_mib;                                                     /* below 0: by the disk's size */
    const struct plan_world *world;                                           /* NULL = server_world */
    uint64_t (*look_at_disk)(const struct mode_store *store, uint64_t *size); /* NULL = mode_store_free_bytes */
};

#define SERVER_NOTES    64
#define SERVER_TURNED   8
#define SERVER_ASKERS   64
#define SERVER_SAY_MS   1000 /* a plan that takes longer: whoever submitted is told how far it is */
#define SERVER_MAX_HELD 256  /* leases in a HELLO: four times the most slots of a worker */

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
    bool redis_seen; /* was connected once: a changed run_id means that it may have forgotten */
    bool starting;   /* until the unfinished runs have their plans: people are answered, workers are not heard yet */
    double start_until_s;
    bool stop, stale;
    bool more;           /* the runs have tasks to hand over that this turn had no time for */
    double turn_until_s; /* so long does a turn hand tasks over */
    char *allow_list;    /* NULL = no TCP port */
    bool keys_changed;   /* the list was read again: a connected peer may not be in it any more */
    int64_t keep_checkpoints_s, sweep_ms, tmp_ms; /* when the next sweep of ckpt/, of tmp/ is due */
    int64_t redis_retry_ms, redis_pause_ms, redis_ping_ms, full_said_ms; /* the last: not said before that it is full */
    uint64_t n_left_out;                                                 /* of redis_left_out, at the last look */
    int64_t min_free_mib, disk_ms;                                       /* when the next look at the disk is due */
    uint64_t (*look_at_disk)(const struct mode_store *store, uint64_t *size);
    uint64_t free_bytes, floor_bytes; /* at the last look; with less than the floor nothing is handed out */
    double started_s;
    char redis_problem[400];    /* "" = none */
    struct server_route *route; /* of core.worker[i] */
    uint32_t n_routes;
    struct server_route current; /* sender of the message being handled */
    struct server_held {         /* for the WELCOME being put together */
        char key[CORE_KEY];
        uint64_t fence;
        bool kept;
    } held[SERVER_MAX_HELD];
    size_t n_held;
    struct server_asker { /* of a SUBMIT whose plan is being made */
        struct server_route route;
        char *idempotency;
        uint64_t message; /* that it sent */
        int64_t since_ms;
    } asker[SERVER_ASKERS];
    size_t n_askers;
    struct server_note {
        int64_t unix_ms;
        const char *level, *event;
        char text[480];
    } note[SERVER_NOTES];
    uint64_t n_notes;
    struct server_turned { /* workers that were not let in: perhaps the ones that tasks wait for */
        int64_t at_ms;
        char service[32], name[128], why[320]; /* service "": not known */
    } turned[SERVER_TURNED];
    uint64_t n_turned, n_keys_refused;
    struct server_wait {           /* of core.pool[i] */
        int64_t since_ms, gone_ms; /* tasks wait since; do not any more since. 0 = not */
        enum core_wait_cause said; /* in the log */
    } * wait;
    size_t n_waits;
    int64_t waits_ms;      /* when the next look at them is due */
    uint64_t most_files;   /* that this process may have open; 0 = not known */
    int64_t files_said_ms; /* not said before that they are too few */
    uint32_t n_last_words; /* files of them written */
    int64_t bad_told_ms;   /* when the log may speak of a bad message again */
    uint64_t n_messages[2], n_bad_messages, n_handouts, n_recorded, n_refused;
};

enum mode_status server_open(struct server *s, const struct server_options *o, struct mode_error *err);
/* Until SIGTERM or SIGINT. SIGHUP reads the allow list again. */
enum mode_status server_run(struct server *s, struct mode_error *err);
void server_close(struct server *s);

/* Internal to the files of this folder. */
void server_event(struct server *s, const struct core_event *e);
void server_settle(struct server *s); /* carry out the core's actions until there are none */
void server_note(struct server *s, const char *level, const char *event, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
int64_t server_now_ms(void);
/* A message that cannot be read, or is not for that port: counted, and now and then said. key: the sender's name, or "". */
void server_bad_message(struct server *s, const char *port, const char *key, const char *why);
/* A key that was taken back may still have its connection; its owner is told, its leases run out. */
bool server_lets_in(const struct server *s, struct mode_socket *port, const struct mode_packet *p);
void server_worker_message(struct server *s, const struct mode_packet *p); /* worker_port.c */
bool server_send_assign(struct server *s, const struct core_action *a);
void server_send_action(struct server *s, const struct core_action *a);
void server_admin_message(struct server *s, const struct mode_packet *p); /* admin_port.c */
void server_planned(struct server *s);                                    /* likewise: plans that were made */
enum mode_status server_redis_tick(struct server *s, int64_t now_ms, struct mode_error *err); /* redis_link.c */
void server_redis_away(struct server *s, const struct mode_error *err);
void server_restore(void *server, uint32_t task);

/* waits.c. text: "train-seed: 1 task waits for a train worker ..."; needs (or NULL): what it must have. */
void server_turned_away(struct server *s, const char *service, const char *name, const char *why);
bool server_turned_lately(const struct server *s, const char *name); /* it was said already */
void server_wait_text(struct mode_str *text, const struct server *s, const char *stage, const char *service,
                      const char *needs, uint64_t tasks, const struct core_wait *w);
double server_waits_since_s(const struct server *s, const char *service);
void server_watch_waits(struct server *s, int64_t now_ms);

/* disk.c. Says why nothing is handed out; false: the disk is no reason. */
void server_watch_disk(struct server *s, int64_t now_ms);
bool server_paused(const struct server *s, char *text, size_t size);

/* status.c: the answer to STATUS; free with status_free. */
struct status_memory;
Mode__StatusReply *status_build(struct status_memory **memory, const struct server *s, const char *run, bool workers,
                                uint32_t notes);
/* One more task of the stage runs. One that has not begun tells no unit; the first that does tells the stage's, and the
 * progress of those counts that have the same. */
void status_add_running(Mode__Stage *stage, const struct core_task *t);
/* Leaves out as many running tasks, then workers, from the end as keep it within `most` packed bytes. */
void status_fit(Mode__StatusReply *reply, size_t most);
void status_free(struct status_memory **memory);

/* http.c; address "host:port" or "" for none */
enum mode_status http_open(struct server *s, const char *address, struct mode_error *err);
void http_run(struct server *s);
void http_close(struct server *s);
/* The part of /metrics about trainings that go on: as many series of each as tasks train, none of those that ended. */
void http_train_metrics(struct mode_str *out, const struct core *c);
void http_score_metrics(struct mode_str *out, const struct core *c); /* of those that are evaluated meanwhile */
void http_failure_metrics(struct mode_str *out, const struct core *c);

/* What the plans ask about the world, for real. */
extern const struct plan_world server_world;

#endif
