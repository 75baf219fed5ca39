#include "core.h"

#include "base/error.h"
#include "base/str.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAUSE_MS                                                                                                       \
    10000                 /* a longer gap between ticks means that this process was paused, not that workers were
                                silent */
#define BREAKER_MIN    50 /* outcomes before a stage's circuit breaker may open */
#define BREAKER_MS     60000
#define CORDON_MS      60000
#define IDLE_MS        60000 /* a worker without credit and tasks for this long has no compute process */
#define MOST_DOUBLINGS 4     /* of a cordon, of a breaker */

/* Policy for each class of failure: how often it may happen to one task (0: without limit), and how long to wait before
 * the next attempt (doubled each time, up to max). `guilt`: it indicates a fault of the task or the code, not of the
 * environment. `machine`: it may be the machine's fault, so another one is tried before a task is given up. `node`: it
 * is the machine's fault. */
static const struct policy {
    const char *name;
    uint16_t budget;
    int64_t wait_ms, max_wait_ms;
    bool guilt, machine, node;
} policy[CORE_FAIL_COUNT] = {
    [CORE_FAIL_NONE] = {"none", 0, 0, 0, false, false, false},
    [CORE_FAIL_CRASH] = {"crash", 3, 1000, 30000, true, true, false},
    [CORE_FAIL_STALL] = {"stall", 3, 1000, 30000, true, true, false},
    [CORE_FAIL_INPUT] = {"input", 1, 0, 0, true, false, false},
    [CORE_FAIL_INTEGRITY] = {"integrity", 3, 5000, 60000, false, true, false},
    [CORE_FAIL_OOM] = {"oom", 3, 5000, 60000, false, true, false},
    [CORE_FAIL_DEVICE] = {"device", 100, 1000, 60000, false, false, true},
    [CORE_FAIL_STORE] = {"store", 100, 2000, 60000, false, true, false},
    [CORE_FAIL_CODE] = {"code", 5, 10000, 60000, true, true, true},
    [CORE_FAIL_OTHER] = {"other", 3, 2000, 30000, true, true, false},
    [CORE_FAIL_LEASE_LOST] = {"lease_lost", 100, 0, 0, false, false, false},
    [CORE_FAIL_ABSENT] = {"absent", 1, 1000, 1000, true, true, false},
    [CORE_FAIL_FULL] = {"full", 0, 2000, 60000, false, false, false},
};

const char *core_fail_name(enum core_fail f)
{
    return f < CORE_FAIL_COUNT ? policy[f].name : "?";
}

const char *core_state_name(enum core_state s)
{
    static const char *const names[] = {"ready", "leased", "retry_wait", "committed", "quarantined", "cancelled"};
    return s <= CORE_CANCELLED ? names[s] : "?";
}

/* ---------------------------------------------------------------------------------------------- small containers */

static struct core_action *act(struct core *c, enum core_action_type type, uint32_t task)
{
    if (c->n_actions == c->cap_actions) {
        c->cap_actions = c->cap_actions ? 2 * c->cap_actions : 64;
        c->action = mode_xrealloc(c->action, c->cap_actions * sizeof *c->action);
    }
    struct core_action *a = &c->action[c->n_actions++];
    *a = (struct core_action){.type = type, .task = task};
    if (task != CORE_NONE) {
        snprintf(a->key, sizeof a->key, "%s", c->task[task].key);
        a->fence = c->task[task].fence;
        a->state = c->task[task].state;
    }
    return a;
}

static void act_session(struct core *c, enum core_action_type type, const char *session, const char *key,
                        uint64_t fence)
{
    struct core_action *a = act(c, type, CORE_NONE);
    snprintf(a->session, sizeof a->session, "%s", session);
    snprintf(a->key, sizeof a->key, "%s", key);
    a->fence = fence;
}

static void ack(struct core *c, const struct core_event *e, enum core_verdict verdict)
{
    act_session(c, CORE_ACT_ACK, e->session, e->key, e->fence);
    c->action[c->n_actions - 1].verdict = verdict;
}

void core_note(struct core *c, uint32_t task, const char *fmt, ...)
{
    struct core_action *a = act(c, CORE_ACT_NOTE, task);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(a->text, sizeof a->text, fmt, ap);
    va_end(ap);
}

static struct core_pool *pool_of(struct core *c, const char *service)
{
    for (size_t i = 0; i < c->n_pools; i++)
        if (strcmp(c->pool[i].service, service) == 0) return &c->pool[i];
    c->pool = mode_xrealloc(c->pool, (c->n_pools + 1) * sizeof *c->pool);
    c->pool[c->n_pools] = (struct core_pool){.service = mode_xstrdup(service)};
    return &c->pool[c->n_pools++];
}

static bool before(const struct core *c, uint32_t a, uint32_t b)
{
    const struct core_task *x = &c->task[a], *y = &c->task[b];
    if (x->urgent != y->urgent) return x->urgent;
    if (x->order != y->order) return x->order < y->order;
    return a < b;
}

static void heap_push(struct core *c, struct core_heap *h, uint32_t task)
{
    if (h->n == h->cap) {
        h->cap = h->cap ? 2 * h->cap : 64;
        h->item = mode_xrealloc(h->item, h->cap * sizeof *h->item);
    }
    size_t i = h->n++;
    for (; i && before(c, task, h->item[(i - 1) / 2]); i = (i - 1) / 2) h->item[i] = h->item[(i - 1) / 2];
    h->item[i] = task;
    c->task[task].queued = true;
}

static uint32_t heap_pop(struct core *c, struct core_heap *h)
{
    uint32_t top = h->item[0], last = h->item[--h->n];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < h->n; i = child) {
        if (child + 1 < h->n && before(c, h->item[child + 1], h->item[child])) child++;
        if (!before(c, h->item[child], last)) break;
        h->item[i] = h->item[child];
    }
    if (h->n) h->item[i] = last;
    c->task[top].queued = false;
    return top;
}

static void set_active(struct core *c, uint32_t t, bool active)
{
    struct core_task *task = &c->task[t];
    if (active == (task->active_at != CORE_NONE)) return;
    if (active) {
        if (c->n_active == c->cap_active) {
            c->cap_active = c->cap_active ? 2 * c->cap_active : 64;
            c->active = mode_xrealloc(c->active, c->cap_active * sizeof *c->active);
        }
        task->active_at = c->n_active;
        c->active[c->n_active++] = t;
    } else {
        uint32_t last = c->active[--c->n_active];
        c->active[task->active_at] = last;
        c->task[last].active_at = task->active_at;
        task->active_at = CORE_NONE;
    }
}

/* ---------------------------------------------------------------------------------------------- state changes */

static void set_state(struct core *c, uint32_t t, enum core_state state)
{
    struct core_task *task = &c->task[t];
    if (task->state == CORE_LEASED) {
        if (task->worker != CORE_NONE) c->worker[task->worker].held--;
        task->worker = CORE_NONE;
        task->checking = false;
        task->done = task->total = task->changes = 0;
        task->rate = 0;
        task->train.known = false;
        task->n_scores = 0;
    }
    task->state = state;
    task->withheld = false;
    set_active(c, t, state == CORE_LEASED || state == CORE_RETRY_WAIT);
    if (state == CORE_READY && !task->queued) heap_push(c, &pool_of(c, task->service)->ready, t);
}

static void record(struct core *c, uint32_t t)
{
    act(c, CORE_ACT_RECORD, t);
}

static void make_ready(struct core *c, uint32_t t, bool urgent)
{
    c->task[t].urgent = urgent;
    set_state(c, t, CORE_READY);
    record(c, t);
}

static void end(struct core *c, uint32_t t, enum core_state state)
{
    set_state(c, t, state);
    record(c, t);
    act(c, CORE_ACT_ENDED, t);
}

static void lease(struct core *c, uint32_t t, uint32_t w, uint64_t fence, int64_t now)
{
    struct core_task *task = &c->task[t];
    set_state(c, t, CORE_LEASED);
    task->fence = fence;
    task->worker = w;
    task->leased_ms = task->heard_ms = task->moved_ms = now;
    task->urgent = false;
    if (w != CORE_NONE) c->worker[w].held++;
}

/* Classes of failure of this task on that node, as bits. */
static uint32_t guilt_of(const struct core_task *task, uint64_t node)
{
    for (size_t i = 0; i < CORE_NODES && task->guilt[i].node; i++)
        if (task->guilt[i].node == node) return task->guilt[i].classes;
    return 0;
}

/* Returns the number of nodes where it failed in this way. */
static size_t add_guilt(struct core_task *task, uint64_t node, enum core_fail why)
{
    size_t n = 0;
    for (size_t i = 0; i < CORE_NODES; i++) {
        struct core_guilt *g = &task->guilt[i];
        if (g->node && g->node != node) continue;
        g->node = node;
        g->classes |= 1u << why;
        break;
    }
    for (size_t i = 0; i < CORE_NODES; i++) n += task->guilt[i].classes >> why & 1;
    return n;
}

static bool is_of(const struct core_worker *w, const char *service)
{
    return w->session[0] && !w->draining && strcmp(w->service, service) == 0;
}

/* Whether it takes tasks in principle, though perhaps not now. */
static bool takes_tasks(const struct core_worker *w, int64_t now)
{
    return w->held || now - w->offered_ms < IDLE_MS;
}

/* Whether a worker is connected on a node where this task has not failed in this way. */
static bool has_other_node(const struct core *c, const struct core_task *task, enum core_fail why, int64_t now)
{
    for (uint32_t w = 0; w < c->n_workers; w++) {
        const struct core_worker *x = &c->worker[w];
        if (is_of(x, task->service) && takes_tasks(x, now) && !(guilt_of(task, x->node_hash) >> why & 1)) return true;
    }
    return false;
}

static void open_breaker(struct core *c, struct core_pool *p, int64_t now)
{
    int64_t pause = (int64_t)BREAKER_MS << p->n_breaks;
    p->broken_until_ms = now + pause;
    if (p->n_breaks < MOST_DOUBLINGS) p->n_breaks++;
    core_note(c, CORE_NONE, "%s: %llu of the last %llu tasks failed; handing out no more of them for %lld s, then one",
              p->service, (unsigned long long)p->failures, (unsigned long long)p->attempts, (long long)pause / 1000);
    p->attempts = p->failures = 0;
}

static void count_outcome(struct core *c, uint32_t t, bool failed, int64_t now)
{
    struct core_pool *p = pool_of(c, c->task[t].service);
    p->attempts++;
    p->failures += failed;
    if (now < p->broken_until_ms) return;
    if (p->n_breaks) { /* the trial task after a pause decides */
        if (!failed)
            p->n_breaks = 0;
        else if (p->probe == t && p->probe_fence == c->task[t].fence)
            open_breaker(c, p, now);
    } else if (p->attempts >= BREAKER_MIN && 5 * p->failures > p->attempts) {
        open_breaker(c, p, now);
    } else if (p->attempts >= 4 * BREAKER_MIN) {
        p->attempts /= 2;
        p->failures /= 2;
    }
}

static void cordon(struct core *c, struct core_worker *w, const char *why, const char *text, int64_t now)
{
    if (now < w->cordon_until_ms) return; /* its other running tasks failed, too */
    int64_t pause = (int64_t)CORDON_MS << w->n_cordons;
    w->cordon_until_ms = now + pause;
    if (w->n_cordons < MOST_DOUBLINGS) w->n_cordons++;
    free(w->cordon_why);
    w->cordon_why = mode_xstrdup(text);
    core_note(c, CORE_NONE,
              "%.100s on %.60s gets no tasks for %lld s: %s. Then one is tried; restarting the worker resets this. "
              "Last: %.160s",
              w->name, w->node, (long long)pause / 1000, why, text);
}

/* One task after another fails on this worker: cordons it, unless no other worker of its kind does better. */
static void count_failing(struct core *c, uint32_t w, uint32_t t, int64_t now)
{
    struct core_worker *x = &c->worker[w];
    uint64_t h = mode_index_hash(c->task[t].key);
    size_t i = 0;
    while (i < x->n_failing && x->failing[i] != h) i++;
    if (i == x->n_failing && i < CORE_FAILING) x->failing[x->n_failing++] = h;
    if (x->n_failing < CORE_FAILING) return;
    for (uint32_t o = 0; o < c->n_workers; o++) {
        const struct core_worker *y = &c->worker[o];
        if (o == w || !is_of(y, x->service) || now < y->cordon_until_ms || y->n_failing == CORE_FAILING) continue;
        if (!takes_tasks(y, now)) continue;
        cordon(c, x, "one task after another fails there, not so elsewhere", c->task[t].last_text, now);
        return;
    }
}

static void fail(struct core *c, uint32_t t, enum core_fail why, const char *text, int64_t now)
{
    struct core_task *task = &c->task[t];
    const struct policy *p = &policy[why];
    uint32_t w = task->worker;
    bool known = w != CORE_NONE;
    size_t nodes = 0;
    if (task->failures[why] < UINT16_MAX) task->failures[why]++;
    pool_of(c, task->service)->failed[why]++;
    task->last_fail = why;
    free(task->last_text);
    task->last_text = mode_xstrdup(text ? text : "");
    count_outcome(c, t, p->guilt && why != CORE_FAIL_INPUT, now);
    if (known) {
        c->worker[w].n_failed++;
        if (p->machine) {
            nodes = add_guilt(task, c->worker[w].node_hash, why);
            count_failing(c, w, t, now);
        }
        if (p->node) /* or a permanently broken worker, which is always free, would take every task first */
            cordon(c, &c->worker[w], "it cannot do its tasks", task->last_text, now);
    }
    if (p->budget && task->failures[why] >= p->budget) {
        /* twice the budget bounds a task that fails in different ways on different nodes */
        if (p->machine && known && nodes < 2 && task->failures[why] < 2 * p->budget &&
            has_other_node(c, task, why, now)) {
            task->elsewhere = why;
        } else {
            char times[24] = "";
            if (task->failures[why] > 1) snprintf(times, sizeof times, " %u times", (unsigned)task->failures[why]);
            core_note(c, t, "%s failed%s (%s)%s and is not tried again: %.300s", task->label, times, p->name,
                      nodes > 1 ? " on different machines" : "", task->last_text);
            end(c, t, CORE_QUARANTINED);
            return;
        }
    }
    int64_t wait = p->wait_ms;
    for (int i = 1; i < task->failures[why] && wait < p->max_wait_ms; i++) wait *= 2;
    if (wait > p->max_wait_ms) wait = p->max_wait_ms;
    if (why != CORE_FAIL_LEASE_LOST)
        core_note(c, t, "%s failed (%s, attempt %u%s%.60s), next try in %lld s%s%s: %.280s", task->label, p->name,
                  task->attempt, known ? " on " : "", known ? c->worker[w].node : "", (long long)(wait + 999) / 1000,
                  task->elsewhere ? " on another machine" : "",
                  why == CORE_FAIL_FULL ? ", until there is room (`mode gc` says what takes it)" : "", task->last_text);
    if (wait == 0) {
        make_ready(c, t, false);
        return;
    }
    set_state(c, t, CORE_RETRY_WAIT);
    task->not_before_ms = now + wait;
    record(c, t);
}

static void remove_worker(struct core *c, uint32_t w)
{
    struct core_worker *worker = &c->worker[w];
    for (uint32_t i = 0; i < c->n_active; i++)
        if (c->task[c->active[i]].worker == w && c->task[c->active[i]].state == CORE_LEASED)
            c->task[c->active[i]].worker = CORE_NONE;
    free(worker->service);
    free(worker->code);
    free(worker->name);
    free(worker->node);
    free(worker->build);
    free(worker->device);
    free(worker->cordon_why);
    *worker = (struct core_worker){0};
}

/* ---------------------------------------------------------------------------------------------- handing out */

static uint32_t room_of(const struct core_worker *x, int64_t now)
{
    if (now < x->cordon_until_ms || (x->n_cordons && x->held)) return 0; /* after a cordon: one task as a trial */
    uint32_t room = x->held < x->slots ? x->slots - x->held : 0;
    return x->credit < room ? x->credit : room;
}

/* The worker with most credit, preferring nodes where the task has not failed. */
static uint32_t pick_worker(const struct core *c, const struct core_task *task, int64_t now)
{
    uint32_t best = CORE_NONE, best_room = 0;
    bool best_clean = false, bound = task->elsewhere && has_other_node(c, task, task->elsewhere, now);
    for (uint32_t w = 0; w < c->n_workers; w++) {
        const struct core_worker *x = &c->worker[w];
        if (!is_of(x, task->service)) continue;
        uint32_t room = room_of(x, now), guilt = room ? guilt_of(task, x->node_hash) : 0;
        if (!room || (bound && guilt >> task->elsewhere & 1)) continue;
        if (best != CORE_NONE && (best_clean > !guilt || (best_clean == !guilt && best_room >= room))) continue;
        best = w;
        best_room = room;
        best_clean = !guilt;
    }
    return best;
}

static bool anybody_has_room(const struct core *c, const char *service, int64_t now)
{
    for (uint32_t w = 0; w < c->n_workers; w++)
        if (is_of(&c->worker[w], service) && room_of(&c->worker[w], now)) return true;
    return false;
}

static void hand_out(struct core *c, uint32_t t, uint32_t w, int64_t now)
{
    uint64_t epoch = c->opt.no_epoch ? 0 : c->epoch;
    lease(c, t, w, epoch << 32 | ++c->counter, now);
    c->task[t].attempt++;
    c->worker[w].credit--;
    struct core_action *a = act(c, CORE_ACT_CLAIM, t);
    snprintf(a->session, sizeof a->session, "%s", c->worker[w].session);
}

static bool probe_is_out(const struct core *c, const struct core_pool *p)
{
    const struct core_task *probe = p->probe_fence ? &c->task[p->probe] : NULL;
    return probe && probe->state == CORE_LEASED && probe->fence == p->probe_fence;
}

static void dispatch_pool(struct core *c, struct core_pool *p, int64_t now)
{
    c->aside.n = 0;
    while (p->ready.n && now >= p->broken_until_ms && !(p->n_breaks && probe_is_out(c, p))) {
        uint32_t t = p->ready.item[0];
        if (c->task[t].state != CORE_READY) {
            heap_pop(c, &p->ready);
            continue;
        }
        uint32_t w = pick_worker(c, &c->task[t], now);
        if (w == CORE_NONE) { /* other tasks need not wait for a worker that suits this one */
            if (!c->task[t].elsewhere || !anybody_has_room(c, p->service, now)) break;
            heap_push(c, &c->aside, heap_pop(c, &p->ready));
            continue;
        }
        heap_pop(c, &p->ready);
        hand_out(c, t, w, now);
        if (p->n_breaks) {
            p->probe = t;
            p->probe_fence = c->task[t].fence;
        }
    }
    for (size_t i = 0; i < c->aside.n; i++) heap_push(c, &p->ready, c->aside.item[i]);
}

static void dispatch(struct core *c, int64_t now)
{
    if (!c->dispatch || c->no_room || now < c->settled_ms) return;
    for (size_t i = 0; i < c->n_pools; i++) dispatch_pool(c, &c->pool[i], now);
}

/* ---------------------------------------------------------------------------------------------- events */

static void on_tick(struct core *c, int64_t now)
{
    int64_t gap = now - c->ticked_ms;
    c->ticked_ms = now;
    if (gap > PAUSE_MS) { /* this process was paused: silence does not count */
        for (uint32_t i = 0; i < c->n_active; i++) {
            c->task[c->active[i]].heard_ms += gap;
            c->task[c->active[i]].moved_ms += gap;
        }
        for (uint32_t w = 0; w < c->n_workers; w++) c->worker[w].heard_ms += gap;
        c->returning_ms = now + c->opt.return_ms; /* and connections may have been lost meanwhile */
    }
    bool expires = now >= c->returning_ms;
    for (uint32_t i = c->n_active; i-- > 0;) { /* downwards: set_active fills gaps with the last entry */
        uint32_t t = c->active[i];
        struct core_task *task = &c->task[t];
        if (task->state == CORE_RETRY_WAIT) {
            if (now >= task->not_before_ms && !task->withheld) make_ready(c, t, false);
        } else if (expires && now - task->heard_ms > c->opt.lease_ms && !task->checking) {
            if (c->opt.no_check_on_expiry) {
                fail(c, t, CORE_FAIL_LEASE_LOST, "its worker stopped reporting", now);
                continue;
            }
            task->checking = true;
            act(c, CORE_ACT_CHECK, t);
        } else if (task->stall_ms && now - task->moved_ms > (int64_t)task->stall_ms + c->opt.lease_ms) {
            /* the worker's agent should have detected the stall; it did not, so the lease is revoked */
            if (task->worker != CORE_NONE) {
                struct core_action *a = act(c, CORE_ACT_CANCEL, t);
                snprintf(a->session, sizeof a->session, "%s", c->worker[task->worker].session);
            }
            fail(c, t, CORE_FAIL_STALL, "it made no progress", now);
        }
    }
    for (uint32_t w = 0; expires && w < c->n_workers; w++)
        if (c->worker[w].session[0] && now - c->worker[w].heard_ms > c->opt.lease_ms) remove_worker(c, w);
}

/* The restarted worker says that its predecessor is dead: leases need not expire first. The predecessor may have
 * committed before it died, so the store is checked first, as after any lost lease. */
static void replaced(struct core *c, uint32_t w)
{
    for (uint32_t i = 0; i < c->n_active; i++) {
        uint32_t t = c->active[i];
        if (c->task[t].state != CORE_LEASED || c->task[t].worker != w || c->task[t].checking) continue;
        c->task[t].checking = true;
        act(c, CORE_ACT_CHECK, t);
    }
    remove_worker(c, w);
}

static void on_hello(struct core *c, const struct core_event *e, int64_t now)
{
    uint32_t w = core_find_worker(c, e->session), slot = CORE_NONE;
    if (w == CORE_NONE) {
        for (uint32_t i = 0; i < c->n_workers; i++) {
            const struct core_worker *x = &c->worker[i];
            if (x->session[0] && strcmp(x->name, e->name) == 0) {
                if (!x->incarnation || e->incarnation <= x->incarnation) {
                    act_session(c, CORE_ACT_NAME_TAKEN, e->session, "", 0);
                    return;
                }
                replaced(c, i);
            }
            if (!x->session[0]) slot = i;
        }
        if (slot == CORE_NONE) {
            c->worker = mode_xrealloc(c->worker, (c->n_workers + 1) * sizeof *c->worker);
            slot = c->n_workers++;
        }
        w = slot;
        c->worker[w] = (struct core_worker){.service = mode_xstrdup(e->service),
                                            .code = mode_xstrdup(e->code),
                                            .name = mode_xstrdup(e->name),
                                            .node = mode_xstrdup(e->node),
                                            .build = mode_xstrdup(e->build),
                                            .device = mode_xstrdup(e->device ? e->device : ""),
                                            .node_hash = mode_index_hash(e->node) | 1, /* 0: none */
                                            .slots = e->n,
                                            .incarnation = e->incarnation,
                                            .since_ms = now,
                                            .offered_ms = now};
        snprintf(c->worker[w].session, sizeof c->worker[w].session, "%s", e->session);
    }
    if (strcmp(c->worker[w].device, e->device ? e->device : "") != 0) { /* a machine of its team joined or left */
        free(c->worker[w].device);
        c->worker[w].device = mode_xstrdup(e->device ? e->device : "");
    }
    c->worker[w].heard_ms = now;
    c->worker[w].credit = 0; /* it will be announced again */
    c->worker[w].draining = false;
    /* leases that it does not report were lost on their way to it */
    for (uint32_t i = c->n_active; i-- > 0;) {
        uint32_t t = c->active[i];
        if (c->task[t].state != CORE_LEASED || c->task[t].worker != w) continue;
        size_t h = 0;
        while (h < e->n_held && (e->held[h].fence != c->task[t].fence || strcmp(e->held[h].key, c->task[t].key) != 0))
            h++;
        if (h == e->n_held) make_ready(c, t, true);
    }
    for (size_t h = 0; h < e->n_held; h++) {
        uint32_t t = core_find_task(c, e->held[h].key);
        uint64_t fence = e->held[h].fence;
        struct core_task *task = t == CORE_NONE ? NULL : &c->task[t];
        bool kept = false;
        if (task && task->state == CORE_LEASED && task->fence == fence) {
            if (task->worker != w) {
                if (task->worker != CORE_NONE) c->worker[task->worker].held--;
                task->worker = w;
                c->worker[w].held++;
            }
            task->heard_ms = task->moved_ms = now;
            kept = true;
        } else if (task && (task->state == CORE_READY || task->state == CORE_RETRY_WAIT) && fence >= task->fence &&
                   fence > task->over) { /* a repeated report about an ended hand-out must not count again */
            lease(c, t, w, fence, now);  /* Redis has lost it, the worker has not */
            if (!task->attempt) task->attempt = 1;
            record(c, t);
            kept = true;
        }
        act_session(c, kept ? CORE_ACT_KEPT : CORE_ACT_DROPPED, e->session, e->held[h].key, fence);
    }
    act_session(c, CORE_ACT_WELCOME, e->session, "", 0);
}

static void on_progress(struct core *c, const struct core_event *e, int64_t now)
{
    if (!e->key || !e->key[0]) return;
    uint32_t t = core_find_task(c, e->key);
    struct core_task *task = t == CORE_NONE ? NULL : &c->task[t];
    if (!task || task->state != CORE_LEASED || (task->fence != e->fence && !c->opt.no_fence_check)) {
        act_session(c, CORE_ACT_CANCEL, e->session, e->key, e->fence); /* its work is useless */
        return;
    }
    task->heard_ms = now;
    task->checking = false;
    if (e->done != task->done || e->changes != task->changes) task->moved_ms = now;
    task->done = e->done;
    task->changes = e->changes;
    task->total = e->total;
    task->rate = e->rate;
    task->seconds = e->seconds;
    task->rss_bytes = e->rss_bytes;
    task->train = e->train;
    if (e->n_scores > task->n_scores) task->score = mode_xrealloc(task->score, e->n_scores * sizeof *task->score);
    if (e->n_scores) memcpy(task->score, e->score, e->n_scores * sizeof *task->score);
    task->n_scores = e->n_scores;
    snprintf(task->unit, sizeof task->unit, "%s", e->unit ? e->unit : "");
}

static void on_result(struct core *c, const struct core_event *e)
{
    uint32_t t = core_find_task(c, e->key);
    if (t == CORE_NONE || c->task[t].state == CORE_COMMITTED) {
        ack(c, e, t == CORE_NONE ? CORE_STALE : CORE_ALREADY);
        return;
    }
    struct core_action *a = act(c, CORE_ACT_CHECK, t);
    a->fence = e->fence;
    snprintf(a->session, sizeof a->session, "%s", e->session);
}

static void on_checked(struct core *c, const struct core_event *e, int64_t now)
{
    uint32_t t = core_find_task(c, e->key);
    if (t == CORE_NONE) return;
    struct core_task *task = &c->task[t];
    bool asked = e->session && e->session[0]; /* by a RESULT */
    if (e->ok) {
        if (asked) ack(c, e, task->state == CORE_COMMITTED ? CORE_ALREADY : CORE_COMMITTED_NOW);
        if (task->state == CORE_LEASED && task->worker != CORE_NONE) {
            c->worker[task->worker].n_done++;
            c->worker[task->worker].n_cordons = 0;
            c->worker[task->worker].n_failing = 0;
        }
        if (task->state == CORE_LEASED) count_outcome(c, t, false, now);
        core_task_commit(c, t);
        return;
    }
    if (asked) ack(c, e, CORE_MISSING);
    if (task->state != CORE_LEASED || task->fence != e->fence) return;
    if (asked)
        fail(c, t, CORE_FAIL_STORE, "its worker reported a result, but the store here has no commit record", now);
    else if (task->checking)
        fail(c, t, CORE_FAIL_LEASE_LOST, "its worker stopped reporting", now);
}

static bool holds(struct core *c, const struct core_event *e, uint32_t *t)
{
    *t = core_find_task(c, e->key);
    return *t != CORE_NONE && c->task[*t].state == CORE_LEASED &&
           (c->task[*t].fence == e->fence || c->opt.no_fence_check);
}

static void on_bye(struct core *c, uint32_t w)
{
    for (uint32_t i = c->n_active; i-- > 0;) {
        uint32_t t = c->active[i];
        if (c->task[t].state == CORE_LEASED && c->task[t].worker == w) make_ready(c, t, true);
    }
    remove_worker(c, w);
}

void core_handle(struct core *c, const struct core_event *e, int64_t now)
{
    uint32_t t, w = CORE_NONE;
    bool from_worker = e->type != CORE_EV_TICK && e->type != CORE_EV_CHECKED && e->type != CORE_EV_CLAIM_LOST &&
                       e->type != CORE_EV_HELLO;
    if (from_worker) {
        w = core_find_worker(c, e->session);
        if (w == CORE_NONE) {
            if (e->type != CORE_EV_BYE) act_session(c, CORE_ACT_UNKNOWN_SESSION, e->session, "", 0);
            return;
        }
        c->worker[w].heard_ms = now;
    }
    switch (e->type) {
    case CORE_EV_TICK: on_tick(c, now); break;
    case CORE_EV_HELLO: on_hello(c, e, now); break;
    case CORE_EV_CREDIT:
        c->worker[w].credit = e->n;
        if (e->n) c->worker[w].offered_ms = now;
        break;
    case CORE_EV_PROGRESS: on_progress(c, e, now); break;
    case CORE_EV_RESULT: on_result(c, e); break;
    case CORE_EV_CHECKED: on_checked(c, e, now); break;
    case CORE_EV_BYE: on_bye(c, w); break;
    case CORE_EV_ASSIGN_ACK:
        if (!holds(c, e, &t)) {
            act_session(c, CORE_ACT_CANCEL, e->session, e->key, e->fence);
        } else if (e->ok) {
            c->task[t].heard_ms = now;
        } else {
            c->worker[w].credit = 0;
            make_ready(c, t, true);
        }
        break;
    case CORE_EV_FAIL:
        if (holds(c, e, &t)) {
            ack(c, e, CORE_NOTED);
            c->task[t].over = e->fence;
            c->task[t].last_status = e->status;
            fail(c, t, e->fail == CORE_FAIL_NONE ? CORE_FAIL_OTHER : e->fail, e->text, now);
        } else {
            ack(c, e, CORE_STALE);
        }
        break;
    case CORE_EV_RELEASE:
        if (holds(c, e, &t)) {
            ack(c, e, CORE_NOTED);
            c->task[t].over = e->fence;
            make_ready(c, t, true);
        } else {
            ack(c, e, CORE_STALE);
        }
        break;
    case CORE_EV_CLAIM_LOST:
        if (holds(c, e, &t)) {
            c->task[t].attempt--;
            make_ready(c, t, true);
        }
        break;
    case CORE_EV_DRAIN:
        c->worker[w].draining = true;
        act_session(c, CORE_ACT_DRAIN, e->session, "", 0);
        c->action[c->n_actions - 1].grace_ms = e->n;
        break;
    }
    dispatch(c, now);
}

int64_t core_next_tick_ms(const struct core *c, int64_t now)
{
    int64_t next = now + 1000;
    for (uint32_t i = 0; i < c->n_active && i < 1000; i++) {
        const struct core_task *task = &c->task[c->active[i]];
        if (task->state == CORE_RETRY_WAIT && !task->withheld && task->not_before_ms < next) next = task->not_before_ms;
    }
    if (now < c->settled_ms && c->settled_ms < next) next = c->settled_ms;
    return next;
}

/* ---------------------------------------------------------------------------------------------- tasks */

static void reset_budgets(struct core_task *task)
{
    memset(task->failures, 0, sizeof task->failures);
    memset(task->guilt, 0, sizeof task->guilt);
    task->elsewhere = CORE_FAIL_NONE;
    task->last_fail = CORE_FAIL_NONE;
}

uint32_t core_task_want(struct core *c, const char *key, const char *service, const char *label, const char *run,
                        uint64_t order, uint64_t stall_ms, bool retry, int64_t now)
{
    uint32_t t = core_find_task(c, key);
    if (t == CORE_NONE) {
        if (c->n_tasks == c->cap_tasks) {
            c->cap_tasks = c->cap_tasks ? 2 * c->cap_tasks : 256;
            c->task = mode_xrealloc(c->task, c->cap_tasks * sizeof *c->task);
        }
        t = c->n_tasks++;
        c->task[t] = (struct core_task){.key = mode_xstrdup(key),
                                        .service = pool_of(c, service)->service,
                                        .label = mode_xstrdup(label),
                                        .run = mode_xstrdup(run),
                                        .order = order,
                                        .stall_ms = stall_ms,
                                        .worker = CORE_NONE,
                                        .active_at = CORE_NONE,
                                        .state = CORE_CANCELLED};
        mode_index_put(&c->by_key, c->task[t].key, t);
        make_ready(c, t, false);
    } else if (c->task[t].state == CORE_CANCELLED || c->task[t].state == CORE_COMMITTED ||
               (retry && c->task[t].state == CORE_QUARANTINED)) {
        reset_budgets(&c->task[t]);
        make_ready(c, t, false);
    }
    c->task[t].wanted++;
    dispatch(c, now);
    return t;
}

void core_task_unwant(struct core *c, uint32_t t, int64_t now)
{
    struct core_task *task = &c->task[t];
    MODE_ASSERT(task->wanted > 0);
    if (--task->wanted || task->state >= CORE_COMMITTED) return;
    if (task->state == CORE_LEASED && task->worker != CORE_NONE) {
        struct core_action *a = act(c, CORE_ACT_CANCEL, t);
        snprintf(a->session, sizeof a->session, "%s", c->worker[task->worker].session);
    }
    end(c, t, CORE_CANCELLED);
    dispatch(c, now);
}

void core_task_pardon(struct core *c, uint32_t t)
{
    struct core_task *task = &c->task[t];
    MODE_ASSERT(task->wanted > 0 && task->state == CORE_QUARANTINED);
    if (!--task->wanted) end(c, t, CORE_CANCELLED);
}

void core_task_restore(struct core *c, uint32_t t, enum core_state state, uint32_t attempt, uint64_t fence,
                       const uint16_t failures[CORE_FAIL_COUNT], int64_t now)
{
    struct core_task *task = &c->task[t];
    MODE_ASSERT(task->state == CORE_READY);
    task->attempt = attempt;
    task->fence = fence;
    memcpy(task->failures, failures, sizeof task->failures);
    for (int f = 0; f < CORE_FAIL_COUNT; f++) /* the text is lost, the most severe class is not */
        if (failures[f] > failures[task->last_fail]) task->last_fail = (enum core_fail)f;
    if (c->opt.no_epoch && fence > c->counter) c->counter = (uint32_t)fence;
    if (state == CORE_LEASED) {
        lease(c, t, CORE_NONE, fence, now);
    } else if (state == CORE_RETRY_WAIT) {
        set_state(c, t, CORE_RETRY_WAIT);
        task->over = fence;
        task->not_before_ms = now + 1000;
    } else if (state == CORE_QUARANTINED) {
        end(c, t, CORE_QUARANTINED);
    }
}

void core_task_withhold(struct core *c, uint32_t t)
{
    if (c->task[t].state == CORE_RETRY_WAIT) c->task[t].withheld = true;
}

void core_task_release(struct core *c, uint32_t t)
{
    c->task[t].withheld = false;
}

void core_returning(struct core *c, bool remembered, int64_t now)
{
    c->returning_ms = now + c->opt.return_ms;
    c->settled_ms = now + (remembered ? c->opt.settle_ms : c->opt.return_ms);
}

void core_task_commit(struct core *c, uint32_t t)
{
    if (c->task[t].state == CORE_COMMITTED) return;
    end(c, t, CORE_COMMITTED);
}

void core_set_epoch(struct core *c, uint32_t epoch, int64_t now)
{
    c->epoch = epoch;
    c->counter = 0;
    dispatch(c, now);
}

uint32_t core_find_task(const struct core *c, const char *key)
{
    return mode_index_get(&c->by_key, key);
}

uint32_t core_find_worker(const struct core *c, const char *session)
{
    for (uint32_t w = 0; w < c->n_workers; w++)
        if (c->worker[w].session[0] && strcmp(c->worker[w].session, session) == 0) return w;
    return CORE_NONE;
}

void core_init(struct core *c, const struct core_options *opt, uint32_t epoch, int64_t now)
{
    *c = (struct core){.opt = *opt, .epoch = epoch, .ticked_ms = now, .dispatch = true};
}

void core_actions_clear(struct core *c)
{
    c->n_actions = 0;
}

void core_clear(struct core *c)
{
    for (uint32_t i = 0; i < c->n_tasks; i++) {
        free(c->task[i].key);
        free(c->task[i].label);
        free(c->task[i].run);
        free(c->task[i].last_text);
        free(c->task[i].score);
    }
    for (uint32_t w = 0; w < c->n_workers; w++)
        if (c->worker[w].session[0]) remove_worker(c, w);
    for (size_t i = 0; i < c->n_pools; i++) {
        free(c->pool[i].service);
        free(c->pool[i].ready.item);
    }
    free(c->task);
    free(c->active);
    free(c->worker);
    free(c->pool);
    free(c->action);
    free(c->aside.item);
    mode_index_clear(&c->by_key);
    *c = (struct core){0};
}
