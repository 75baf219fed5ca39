/* redis.h - Redis as the coordinator uses it: an index that may be lost.
 *
 * It holds, under mode:<store>:, the ready queues, the table of leases, attempts and failures of every live task,
 * and the list of runs. The truth is in the artifact store; what is here saves work after a restart. All changes
 * go through Redis Functions (redis_functions.h) that check the epoch and the old state before they write.
 *
 * A connection that failed in any way is thrown away, never used again: a late reply would answer another command.
 * redis_connect is called again, with growing pauses, by the caller; after it succeeded the caller takes over
 * leadership (redis_lead) and writes every live task anew (redis_move with sync).
 *
 * This is the only file that knows hiredis. Threads: one caller. */
#ifndef MODE_COORDINATOR_REDIS_H
#define MODE_COORDINATOR_REDIS_H

#include "base/error.h"
#include "core.h"

struct redis;

/* url: redis://[:password@]host[:port][/db] or unix:///path/to/socket. The password may also be in the file that
 * REDIS_PASSWORD_FILE names. Does not connect. MODE_E_CONFIG: not such a URL. */
enum mode_status redis_open(struct redis **out, const char *url, const char *store_id, struct mode_error *err);
void redis_close(struct redis **r);
bool redis_is_up(const struct redis *r);

/* Connect, look at the server and load the functions. *fresh: its run_id is another than at the last time (or this
 * is the first), so it may have forgotten. MODE_E_PEER: not reachable; MODE_E_CONFIG: too old, or refuses.
 * One that is full and has not these very functions is not reachable, until it has room. */
enum mode_status redis_connect(struct redis *r, bool *fresh, struct mode_error *err);
/* Did any coordinator of this store lead it since it was last empty? */
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
/* ok[i] (may be NULL): the i-th queued transition was accepted. *stale: the epoch is not the leader's any more.
 * A task that nobody ever had is left out when Redis is full, which counts as accepted: see redis_left_out.
 * n_refused counts BAD_STATE and STALE_FENCE. MODE_E_PEER: the connection is gone. */
enum mode_status redis_flush(struct redis *r, bool *ok, size_t *n_refused, bool *stale, struct mode_error *err);
uint64_t redis_left_out(const struct redis *r); /* so much was, because it was full */
size_t redis_queued(const struct redis *r);

/* What is remembered of a task: false in *found when nothing is. */
struct redis_memory {
    enum core_state state;
    uint32_t attempt;
    uint64_t fence;
    uint16_t failures[CORE_FAIL_COUNT];
};
enum mode_status redis_recall(struct redis *r, struct redis_memory *out, bool *found, const char *key,
                              struct mode_error *err);

/* Forgets tasks that known(ctx, key) does not know, some ten thousand at most; *n of them. Nothing may be queued. */
enum mode_status redis_forget(struct redis *r, uint64_t epoch, bool (*known)(void *ctx, const char *key), void *ctx,
                              uint64_t *n, struct mode_error *err);

/* Set a field of one of the registries ("runs", "experts"); value NULL removes it. */
enum mode_status redis_register(struct redis *r, const char *registry, const char *field, const char *value,
                                struct mode_error *err);
/* Most memory it ever had, bytes: of its process when that is on this machine, else what it says of itself; 0 = not
 * known. */
uint64_t redis_peak_memory(struct redis *r);
/* Is it there at all? For a periodic look. */
enum mode_status redis_ping(struct redis *r, struct mode_error *err);

#endif
