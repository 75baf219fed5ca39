#include "redis.h"

#include "base/file.h"
#include "base/options.h"
#include "base/process.h"
#include "base/str.h"
#include "msg/redis_url.h"
#include "redis_functions.h"

#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define TIMEOUT_S 2

struct redis {
    redisContext *c;
    struct mode_redis_url at;
    char prefix[32];
    char run_id[64];
    size_t queued;
    uint64_t n_left_out;
};

static enum mode_status lost(struct redis *r, struct mode_error *err, const char *doing)
{
    enum mode_status st = MODE_FAIL(err, MODE_E_PEER, "Redis at %s: connection lost while %s: %s",
                                    r->at.path ? r->at.path : r->at.host, doing,
                                    r->c && r->c->err ? r->c->errstr : "closed");
    redisFree(r->c);
    r->c = NULL;
    r->queued = 0;
    return st;
}

enum mode_status redis_open(struct redis **out, const char *url, const char *store_id, struct mode_error *err)
{
    struct redis *r = mode_xcalloc(1, sizeof *r);
    *out = NULL;
    snprintf(r->prefix, sizeof r->prefix, "mode:%.12s:", store_id);
    const char *password_file = getenv("REDIS_PASSWORD_FILE");
    enum mode_status st = mode_redis_url_parse(&r->at, url, err);
    if (!st && password_file && *password_file) {
        char *text = NULL;
        size_t size;
        if (!(st = mode_file_read(password_file, 4096, &text, &size, err))) {
            text[strcspn(text, "\r\n")] = 0;
            free(r->at.password);
            r->at.password = mode_xstrdup(text);
        }
        free(text);
    }
    if (st)
        redis_close(&r);
    else
        *out = r;
    return st;
}

void redis_close(struct redis **rp)
{
    struct redis *r = *rp;
    *rp = NULL;
    if (!r) return;
    if (r->c) redisFree(r->c);
    mode_redis_url_clear(&r->at);
    free(r);
}

bool redis_is_up(const struct redis *r)
{
    return r->c != NULL;
}

uint64_t redis_left_out(const struct redis *r)
{
    return r->n_left_out;
}

size_t redis_queued(const struct redis *r)
{
    return r->queued;
}

static bool is_oom(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, "OOM", 3) == 0;
}

/* One command, one reply: NULL and err when the connection is lost or the server returns an error. */
static redisReply *command(struct redis *r, enum mode_status *st, const char *doing, struct mode_error *err, int argc,
                           const char **argv)
{
    MODE_ASSERT(r->c && !r->queued);
    redisReply *reply = redisCommandArgv(r->c, argc, argv, NULL);
    if (!reply) {
        *st = lost(r, err, doing);
        return NULL;
    }
    if (reply->type == REDIS_REPLY_ERROR) {
        bool full = is_oom(reply), later = full || strncmp(reply->str, "LOADING", 7) == 0;
        *st = MODE_FAIL(err, later ? MODE_E_PEER : MODE_E_CONFIG, "Redis at %s refused while %s: %s%s",
                        r->at.path ? r->at.path : r->at.host, doing, reply->str,
                        full ? " HINT: give it more memory (CONFIG SET maxmemory)" : "");
        if (strncmp(reply->str, "STALE_LEADER", 12) == 0) *st = err ? (err->status = MODE_E_TEMP) : MODE_E_TEMP;
        freeReplyObject(reply);
        return NULL;
    }
    *st = MODE_OK;
    return reply;
}

static enum mode_status simple(struct redis *r, const char *doing, struct mode_error *err, int argc, const char **argv)
{
    enum mode_status st;
    redisReply *reply = command(r, &st, doing, err, argc, argv);
    if (reply) freeReplyObject(reply);
    return st;
}

static void info_field(char *out, size_t n, const char *info, const char *name)
{
    const char *at = strstr(info, name);
    out[0] = 0;
    if (at) snprintf(out, n, "%.*s", (int)strcspn(at + strlen(name), "\r\n"), at + strlen(name));
}

/* A full Redis rejects new functions, but may already have ours. */
static enum mode_status load_functions(struct redis *r, struct mode_error *err)
{
    const char *load[] = {"FUNCTION", "LOAD", "REPLACE", REDIS_FUNCTIONS},
               *list[] = {"FUNCTION", "LIST", "LIBRARYNAME", REDIS_LIBRARY, "WITHCODE"};
    struct mode_error ignored = {0};
    enum mode_status st = simple(r, "loading the functions", err, 4, load), listed;
    if (st != MODE_E_PEER || !r->c) return st;
    redisReply *reply = command(r, &listed, "listing the functions", &ignored, 5, list);
    const redisReply *library = reply && reply->elements == 1 ? reply->element[0] : NULL;
    for (size_t i = 0; library && i + 1 < library->elements; i += 2)
        if (library->element[i]->type == REDIS_REPLY_STRING && library->element[i + 1]->type == REDIS_REPLY_STRING &&
            strcmp(library->element[i]->str, "library_code") == 0 &&
            strcmp(library->element[i + 1]->str, REDIS_FUNCTIONS) == 0)
            st = MODE_OK;
    if (reply) freeReplyObject(reply);
    return st;
}

enum mode_status redis_connect(struct redis *r, bool *fresh, struct mode_error *err)
{
    struct timeval timeout = {.tv_sec = TIMEOUT_S};
    enum mode_status st;
    if (r->c) redisFree(r->c);
    r->queued = 0;
    r->c = r->at.path ? redisConnectUnixWithTimeout(r->at.path, timeout)
                      : redisConnectWithTimeout(r->at.host, r->at.port, timeout);
    if (!r->c || r->c->err) {
        st = MODE_FAIL(err, MODE_E_PEER, "Redis at %s%s cannot be reached: %s", r->at.path ? r->at.path : r->at.host,
                       r->at.path ? "" : " (check host and port)", r->c ? r->c->errstr : "out of memory");
        if (r->c) redisFree(r->c);
        r->c = NULL;
        return st;
    }
    redisSetTimeout(r->c, timeout);
    if (r->at.password && *r->at.password) {
        const char *auth[] = {"AUTH", r->at.password};
        if ((st = simple(r, "authenticating", err, 2, auth))) goto out;
    }
    if (r->at.db) {
        char db[16];
        snprintf(db, sizeof db, "%d", r->at.db);
        const char *select[] = {"SELECT", db};
        if ((st = simple(r, "choosing the database", err, 2, select))) goto out;
    }
    const char *info[] = {"INFO", "server"};
    redisReply *reply = command(r, &st, "asking for its version", err, 2, info);
    if (!reply) goto out;
    char version[32], run_id[64];
    info_field(version, sizeof version, reply->str ? reply->str : "", "redis_version:");
    info_field(run_id, sizeof run_id, reply->str ? reply->str : "", "run_id:");
    freeReplyObject(reply);
    if (atoi(version) < 7) {
        st = MODE_FAIL(err, MODE_E_CONFIG, "Redis is version %s; 7.0 or newer is needed (Redis Functions)", version);
        goto out;
    }
    if ((st = load_functions(r, err))) goto out;
    *fresh = strcmp(run_id, r->run_id) != 0;
    snprintf(r->run_id, sizeof r->run_id, "%s", run_id);
out:
    if (st && r->c) {
        redisFree(r->c);
        r->c = NULL;
    }
    return st;
}

enum mode_status redis_remembers(struct redis *r, bool *yes, struct mode_error *err)
{
    char key[64];
    enum mode_status st;
    snprintf(key, sizeof key, "%sepoch", r->prefix);
    const char *argv[] = {"EXISTS", key};
    redisReply *reply = command(r, &st, "checking for its epoch", err, 2, argv);
    *yes = reply && reply->type == REDIS_REPLY_INTEGER && reply->integer > 0;
    if (reply) freeReplyObject(reply);
    return st;
}

enum mode_status redis_lead(struct redis *r, uint64_t epoch, struct mode_error *err)
{
    char key[64], value[32];
    snprintf(key, sizeof key, "%sepoch", r->prefix);
    snprintf(value, sizeof value, "%" PRIu64, epoch);
    const char *argv[] = {"FCALL", "mode_lead", "1", key, value};
    return simple(r, "taking leadership", err, 5, argv);
}

enum { N_KEYS = 6, N_ARGS = 11, N_ARGV = 3 + N_KEYS + N_ARGS };

void redis_move(struct redis *r, uint64_t epoch, const struct redis_move *m)
{
    if (!r->c) return;
    char text[N_KEYS + N_ARGS][160];
    bool fresh = m->state == CORE_READY && !m->task->attempt;
    const char *argv[N_ARGV] = {"FCALL", fresh ? "mode_admit" : "mode_move", "6"};
    snprintf(text[0], sizeof text[0], "%sepoch", r->prefix);
    snprintf(text[1], sizeof text[1], "%stask:%s", r->prefix, m->task->key);
    snprintf(text[2], sizeof text[2], "%sready:%.64s", r->prefix, m->task->service);
    snprintf(text[3], sizeof text[3], "%sinflight", r->prefix);
    snprintf(text[4], sizeof text[4], "%swait", r->prefix);
    snprintf(text[5], sizeof text[5], "%squarantined", r->prefix);
    snprintf(text[6], sizeof text[6], "%" PRIu64, epoch);
    snprintf(text[7], sizeof text[7], "%s", m->task->key);
    snprintf(text[8], sizeof text[8], "%s", core_state_name(m->state));
    snprintf(text[9], sizeof text[9], "%" PRIu64, m->task->fence);
    snprintf(text[10], sizeof text[10], "%u", m->task->attempt);
    snprintf(text[11], sizeof text[11], "%" PRIu64, m->task->order);
    snprintf(text[12], sizeof text[12], "%" PRId64, m->until_unix_ms);
    snprintf(text[13], sizeof text[13], "%s", m->session);
    size_t at = 0;
    for (int f = 0; f < CORE_FAIL_COUNT; f++)
        at += (size_t)snprintf(text[14] + at, sizeof text[14] - at, "%u ", m->task->failures[f]);
    snprintf(text[15], sizeof text[15], "%d", m->sync);
    snprintf(text[16], sizeof text[16], "%.64s", m->task->service);
    for (int i = 0; i < N_KEYS + N_ARGS; i++) argv[3 + i] = text[i];
    redisAppendCommandArgv(r->c, N_ARGV, argv, NULL);
    r->queued++;
}

enum mode_status redis_flush(struct redis *r, bool *ok, size_t *n_refused, bool *stale, struct mode_error *err)
{
    *n_refused = 0;
    *stale = false;
    if (!r->c) return MODE_FAIL(err, MODE_E_PEER, "Redis is not connected");
    for (size_t i = 0, n = r->queued; i < n; i++) {
        redisReply *reply = NULL;
        if (redisGetReply(r->c, (void **)&reply) != REDIS_OK || !reply) return lost(r, err, "recording transitions");
        r->queued--;
        bool left_out = is_oom(reply), accepted = reply->type != REDIS_REPLY_ERROR || left_out;
        r->n_left_out += left_out;
        if (ok) ok[i] = accepted;
        if (!accepted) {
            bool ours = strncmp(reply->str, "BAD_STATE", 9) == 0 || strncmp(reply->str, "STALE_FENCE", 11) == 0;
            if (strncmp(reply->str, "STALE_LEADER", 12) == 0) *stale = true;
            ++*n_refused;
            if (!ours && !*stale) { /* read-only, functions flushed: this server cannot be used now */
                enum mode_status st = MODE_FAIL(err, MODE_E_PEER, "Redis refuses transitions: %s", reply->str);
                freeReplyObject(reply);
                redisFree(r->c);
                r->c = NULL;
                r->queued = 0;
                return st;
            }
        }
        freeReplyObject(reply);
    }
    return MODE_OK;
}

enum mode_status redis_recall(struct redis *r, struct redis_memory *out, bool *found, const char *key,
                              struct mode_error *err)
{
    char name[160];
    snprintf(name, sizeof name, "%stask:%s", r->prefix, key);
    const char *argv[] = {"HMGET", name, "state", "attempt", "fence", "failures"};
    enum mode_status st;
    *found = false;
    *out = (struct redis_memory){0};
    redisReply *reply = command(r, &st, "recalling a task", err, 6, argv);
    if (!reply) return st;
    if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 4) {
        const char *field[4];
        for (int i = 0; i < 4; i++)
            field[i] = reply->element[i]->type == REDIS_REPLY_STRING ? reply->element[i]->str : NULL;
        for (int s = CORE_READY; field[0] && s <= CORE_QUARANTINED && !*found; s++) {
            if (strcmp(core_state_name((enum core_state)s), field[0]) != 0) continue;
            out->state = (enum core_state)s;
            *found = s != CORE_COMMITTED;
        }
        if (field[1]) out->attempt = (uint32_t)strtoul(field[1], NULL, 10);
        if (field[2]) out->fence = strtoull(field[2], NULL, 10);
        char *at = field[3] ? (char *)(uintptr_t)field[3] : NULL;
        for (int f = 0; at && *at && f < CORE_FAIL_COUNT; f++) out->failures[f] = (uint16_t)strtoul(at, &at, 10);
    }
    freeReplyObject(reply);
    return MODE_OK;
}

/* Removes a task as if it were cancelled. */
static enum mode_status forget(struct redis *r, uint64_t epoch, const char *name, const char *key,
                               struct mode_error *err)
{
    const char *argv[] = {"HGET", name, "service"};
    enum mode_status st;
    size_t n_refused;
    bool stale;
    redisReply *reply = command(r, &st, "forgetting a task", err, 3, argv);
    if (!reply) return st;
    const struct core_task task = {.key = (char *)(uintptr_t)key,
                                   .service = reply->type == REDIS_REPLY_STRING ? reply->str : ""};
    redis_move(r, epoch, &(struct redis_move){.task = &task, .state = CORE_CANCELLED, .session = "", .sync = true});
    st = redis_flush(r, NULL, &n_refused, &stale, err);
    freeReplyObject(reply);
    return st;
}

enum mode_status redis_forget(struct redis *r, uint64_t epoch, bool (*known)(void *ctx, const char *key), void *ctx,
                              uint64_t *n, struct mode_error *err)
{
    enum { MOST = 10000 };
    char cursor[32] = "0", match[96];
    enum mode_status st = MODE_OK;
    const int head = snprintf(match, sizeof match, "%stask:*", r->prefix) - 1;
    *n = 0;
    do {
        const char *argv[] = {"SCAN", cursor, "MATCH", match, "COUNT", "1000"};
        redisReply *reply = command(r, &st, "listing its tasks", err, 6, argv);
        if (!reply) return st;
        const bool good = reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 && reply->element[0]->str &&
                          reply->element[1]->type == REDIS_REPLY_ARRAY;
        snprintf(cursor, sizeof cursor, "%s", good ? reply->element[0]->str : "0");
        for (size_t i = 0; good && !st && i < reply->element[1]->elements; i++) {
            const char *name = reply->element[1]->element[i]->str;
            if (!name || strlen(name) <= (size_t)head || known(ctx, name + head)) continue;
            st = forget(r, epoch, name, name + head, err);
            *n += !st;
        }
        freeReplyObject(reply);
    } while (!st && strcmp(cursor, "0") != 0 && *n < MOST);
    return st;
}

enum mode_status redis_register(struct redis *r, const char *registry, const char *field, const char *value,
                                struct mode_error *err)
{
    char name[64];
    snprintf(name, sizeof name, "%s%s", r->prefix, registry);
    const char *set[] = {"HSET", name, field, value}, *del[] = {"HDEL", name, field};
    struct mode_error why;
    enum mode_status st = simple(r, "writing a registry", &why, value ? 4 : 3, value ? set : del);
    if (st == MODE_E_PEER && r->c) { /* full: skipped, since it is for people only */
        r->n_left_out++;
        return MODE_OK;
    }
    if (st) *err = why;
    return st;
}

enum mode_status redis_ping(struct redis *r, struct mode_error *err)
{
    const char *argv[] = {"PING"};
    return simple(r, "checking that it answers", err, 1, argv);
}

uint64_t redis_peak_memory(struct redis *r)
{
    struct ucred peer;
    socklen_t n = sizeof peer;
    struct mode_error ignored = {0};
    enum mode_status st;
    if (!r->c || r->queued) return 0;
    if (r->at.path && getsockopt(r->c->fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) == 0 && peer.pid > 0) {
        uint64_t peak = mode_process_peak_rss(peer.pid);
        if (peak) return peak;
    }
    const char *argv[] = {"INFO", "memory"};
    redisReply *reply = command(r, &st, "asking for its memory", &ignored, 2, argv);
    if (!reply) return 0;
    char resident[32], allocated[32];
    info_field(resident, sizeof resident, reply->str ? reply->str : "", "used_memory_rss:");
    info_field(allocated, sizeof allocated, reply->str ? reply->str : "", "used_memory_peak:");
    freeReplyObject(reply);
    uint64_t a = strtoull(resident, NULL, 10), b = strtoull(allocated, NULL, 10);
    return a > b ? a : b;
}
