/* redis_link.c - reacts when Redis connects, disconnects, and comes back empty. */
#include "server.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>

#define PAUSE_MIN_MS 100
#define PAUSE_MAX_MS 5000
#define PING_MS      2000
#define BATCH        256
#define FULL_SAID_MS 600000

void server_redis_away(struct server *s, const struct mode_error *err)
{
    s->core.dispatch = false;
    if (!s->redis_problem[0])
        server_note(s, "warn", "redis_away", "%s; nothing new is handed out until it is back", err->text);
    snprintf(s->redis_problem, sizeof s->redis_problem, "%.399s", err->text);
    s->redis_pause_ms = s->redis_pause_ms ? 2 * s->redis_pause_ms : PAUSE_MIN_MS;
    if (s->redis_pause_ms > PAUSE_MAX_MS) s->redis_pause_ms = PAUSE_MAX_MS;
    s->redis_retry_ms = server_now_ms() + s->redis_pause_ms;
}

/* Writes the current state of every live task. */
static enum mode_status write_all(struct server *s, struct mode_error *err)
{
    bool stale;
    size_t n_refused;
    enum mode_status st = MODE_OK;
    int64_t wall = mode_clock_wall_ms(), now = server_now_ms();
    for (uint32_t t = 0; t < s->core.n_tasks && !st; t++) {
        const struct core_task *task = &s->core.task[t];
        if (task->state == CORE_COMMITTED || task->state == CORE_CANCELLED) continue;
        struct redis_move move = {.task = task, .state = task->state, .session = "", .sync = true};
        if (task->state == CORE_LEASED) {
            move.until_unix_ms = wall + task->heard_ms + s->core.opt.lease_ms - now;
            if (task->worker != CORE_NONE) move.session = s->core.worker[task->worker].session;
        } else if (task->state == CORE_RETRY_WAIT) {
            move.until_unix_ms = wall + task->not_before_ms - now;
        }
        redis_move(s->redis, s->epoch, &move);
        if (redis_queued(s->redis) == BATCH) st = redis_flush(s->redis, NULL, &n_refused, &stale, err);
    }
    for (size_t i = 0; i < s->runs.n && !st; i++) {
        if (redis_queued(s->redis)) st = redis_flush(s->redis, NULL, &n_refused, &stale, err);
        if (!st) st = redis_register(s->redis, "runs", s->runs.run[i]->name, s->runs.run[i]->folder, err);
    }
    if (!st && redis_queued(s->redis)) st = redis_flush(s->redis, NULL, &n_refused, &stale, err);
    return st;
}

static void watch_memory(struct server *s, int64_t now_ms)
{
    uint64_t n = redis_left_out(s->redis);
    if (n == s->n_left_out) return;
    s->n_left_out = n;
    if (now_ms >= s->full_said_ms)
        server_note(s, "warn", "redis_full",
                    "Redis is full: new tasks are not written to it until there is room. Work goes on, and is found in "
                    "the workspace after a restart. HINT: give it more memory (CONFIG SET maxmemory)");
    s->full_said_ms = now_ms + FULL_SAID_MS;
}

enum mode_status server_redis_tick(struct server *s, int64_t now_ms, struct mode_error *err)
{
    struct mode_error problem = {0};
    if (redis_is_up(s->redis) && s->core.dispatch) {
        if (now_ms < s->redis_ping_ms) return MODE_OK;
        s->redis_ping_ms = now_ms + PING_MS;
        if (redis_ping(s->redis, &problem)) server_redis_away(s, &problem);
        watch_memory(s, now_ms);
        peaks_measure(&s->peaks, s->redis);
        return MODE_OK;
    }
    if (now_ms < s->redis_retry_ms) return MODE_OK;
    bool fresh;
    enum mode_status st = redis_is_up(s->redis) ? MODE_OK : redis_connect(s->redis, &fresh, &problem);
    if (!st && !redis_is_up(s->redis)) st = MODE_E_PEER;
    if (!st && s->redis_seen && s->redis_problem[0]) {
        /* it may have lost recent or all data: fences of a new epoch cannot repeat lost ones */
        if ((st = mode_store_epoch_take(s->store, &s->epoch, &problem)) == MODE_OK)
            core_set_epoch(&s->core, (uint32_t)s->epoch, now_ms);
    }
    if (!st) st = redis_lead(s->redis, s->epoch, &problem);
    if (st == MODE_E_TEMP) {
        s->stale = true;
        return MODE_FAIL(err, MODE_E_TEMP, "another coordinator has taken over this workspace (%s)", problem.text);
    }
    if (!st) st = write_all(s, &problem);
    if (st) {
        server_redis_away(s, &problem);
        return MODE_OK;
    }
    if (s->redis_problem[0])
        server_note(s, "info", "redis_back", "Redis is back; %u task%s written to it anew, epoch %llu", s->core.n_tasks,
                    s->core.n_tasks == 1 ? " was" : "s were", (unsigned long long)s->epoch);
    s->redis_problem[0] = 0;
    s->redis_seen = true;
    s->redis_pause_ms = 0;
    s->redis_ping_ms = now_ms + PING_MS;
    s->core.dispatch = true;
    peaks_measure(&s->peaks, s->redis);
    core_handle(&s->core, &(struct core_event){.type = CORE_EV_TICK}, now_ms);
    return MODE_OK;
}

/* Removes pending record actions for a task that Redis already has. */
static void drop_records(struct core *c, uint32_t task)
{
    size_t n = 0;
    for (size_t i = 0; i < c->n_actions; i++)
        if (c->action[i].type != CORE_ACT_RECORD || c->action[i].task != task) c->action[n++] = c->action[i];
    c->n_actions = n;
}

/* Restores from Redis a task of an earlier coordinator's run when it is added. */
void server_restore(void *server, uint32_t task)
{
    struct server *s = server;
    struct redis_memory memory;
    struct mode_error err = {0};
    bool found;
    if (!redis_is_up(s->redis) || s->core.task[task].state != CORE_READY) return;
    if (redis_recall(s->redis, &memory, &found, s->core.task[task].key, &err)) {
        mode_log_failure("redis_recall", &err);
        return;
    }
    if (!found || (memory.state == CORE_READY && !memory.attempt)) return;
    core_task_restore(&s->core, task, memory.state, memory.attempt, memory.fence, memory.failures, server_now_ms());
    drop_records(&s->core, task);
}
