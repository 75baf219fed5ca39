/* redis.h - the coordinator's use of Redis: an index that may be lost.
 *
 * It holds, under mode:<store>:, the ready queues, the table of leases, attempts and failures of every live task,
 * and the list of runs. The artifact store is authoritative; the index saves work after a restart. All changes go
 * through Redis Functions (redis_functions.h) that check the epoch and the old state before they write.
 *
 * A connection that failed in any way is closed, never reused: a late reply would be taken for that of another command.
 * redis_connect is called again, with growing pauses, by the caller; after it succeeded the caller takes over
 * leadership (redis_lead) and writes every live task anew (redis_move with sync).
 *
 * This is the only file that uses hiredis. Threads: one caller. */
#ifndef MODE_COORDINATOR_REDIS_H
#define MODE_COORDINATOR_REDIS_H

#include "base/error.h"
#include "core.h"

struct redis;

/* url: redis://[:password@]host[:port][/db] or unix:///path/to/socket. The password may also be in the file that
 * REDIS_PASSWORD_FILE names. Does not connect. MODE_E_CONFIG: malformed URL. */
enum mode_status redis_open(struct redis **out, const char *url, const char *store_id, struct mode_error *err);
void redis_close(struct redis **r);
bool redis_is_up(const struct redis *r);

/* Connect, check the server and load the functions. *fresh: its run_id differs from the last one (or this is the
 * first), so it may have lost data. MODE_E_PEER: not reachable; MODE_E_CONFIG: too old, or access denied. A full server
 * without exactly these functions counts as unreachable until it has room. */
enum mode_status redis_connect(struct redis *r, bool *fresh, struct mode_error *err);
/* Whether a coordinator of this store has led it since it was last empty. */
enum mode_status redis_remembers(struct redis *r, bool *yes, struct mode_error *err);
/* Take leadership with this epoch. MODE_E_TEMP: another coordinator has a higher one. */
enum mode_status redis_lead(struct redis *r, uint64_t epoch, struct mode_error *err);

/* Queue one transition; redis_flush sends all queued ones and reads the replies in order. */
struct redis_move {
    const struct core_task *task;
    enum core_state state;
    const char *session;   /* "" = none */
    int64_t until_unix_ms; /* leased: when the lease ends; retry_wait: when the wait ends; for people */
    bool sync;
};
void redis_move(struct redis *r, uint64_t epoch, const struct redis_move *move);
/* ok[i] (may be NULL): the i-th queued transition was accepted. *stale: the epoch is no longer the leader's. A task
 * that was never handed out is skipped when Redis is full, which counts as accepted: see redis_left_out. n_refused
 * counts BAD_STATE and STALE_FENCE. MODE_E_PEER: the connection was lost. */
enum mode_status redis_flush(struct redis *r, bool *ok, size_t *n_refused, bool *stale, struct mode_error *err);
uint64_t redis_left_out(const struct redis *r); /* number of transitions skipped because Redis was full */
size_t redis_queued(const struct redis *r);

/* The recorded state of a task; *found false when there is none. */
struct redis_memory {
    enum core_state state;
    uint32_t attempt;
    uint64_t fence;
    uint16_t failures[CORE_FAIL_COUNT];
};
enum mode_status redis_recall(struct redis *r, struct redis_memory *out, bool *found, const char *key,
                              struct mode_error *err);

/* Removes tasks for which known(ctx, key) is false, about ten thousand at most; *n is their number. Nothing may be
 * queued. */
enum mode_status redis_forget(struct redis *r, uint64_t epoch, bool (*known)(void *ctx, const char *key), void *ctx,
                              uint64_t *n, struct mode_error *err);

/* Set a field of one of the registries ("runs", "experts"); value NULL removes it. */
enum mode_status redis_register(struct redis *r, const char *registry, const char *field, const char *value,
                                struct mode_error *err);
/* Its peak memory in bytes: of its process if that is on this machine, else as it reports; 0 = not known. */
uint64_t redis_peak_memory(struct redis *r);
/* Checks that it answers, periodically. */
enum mode_status redis_ping(struct redis *r, struct mode_error *err);

#endif
