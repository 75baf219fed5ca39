/* core_wait.c - why ready tasks wait: the counterpart of pick_worker in core.c. */
#include "core.h"

#include <string.h>

const char *core_wait_name(enum core_wait_cause cause)
{
    static const char *const names[] = {"none", "no_worker", "held_back", "not_ready", "breaker"};
    return cause <= CORE_WAIT_BREAKER ? names[cause] : "?";
}

struct core_wait core_wait(const struct core *c, const char *service, int64_t now)
{
    struct core_wait wait = {.first = CORE_NONE};
    uint32_t able = CORE_NONE, held_back = CORE_NONE;
    bool any_works = false; /* some worker has a task or would take one: the rest just waits its turn */
    if (!c->dispatch || c->no_room || now < c->settled_ms) return wait;
    for (uint32_t w = 0; w < c->n_workers; w++) {
        const struct core_worker *x = &c->worker[w];
        if (!x->session[0] || strcmp(x->service, service) != 0) continue;
        wait.workers++;
        if (x->draining) {
            wait.draining++;
            if (held_back == CORE_NONE) held_back = w;
        } else if (now < x->cordon_until_ms) {
            if (!wait.cordoned++ || x->cordon_until_ms < wait.until_ms) {
                wait.until_ms = x->cordon_until_ms;
                held_back = w; /* the next one to become available explains why it is not yet */
            }
        } else {
            able = w;
            any_works |= x->held || x->credit;
        }
    }
    for (size_t i = 0; i < c->n_pools; i++)
        if (strcmp(c->pool[i].service, service) == 0 && now < c->pool[i].broken_until_ms) {
            wait.cause = CORE_WAIT_BREAKER;
            wait.until_ms = c->pool[i].broken_until_ms;
            return wait;
        }
    if (any_works) return wait;
    if (able != CORE_NONE) {
        wait.cause = CORE_WAIT_NOT_READY;
        wait.first = able;
    } else {
        wait.cause = wait.workers ? CORE_WAIT_HELD_BACK : CORE_WAIT_NO_WORKER;
        wait.first = held_back;
    }
    return wait;
}

uint64_t core_waiting(const struct core *c, size_t pool)
{
    const struct core_pool *p = &c->pool[pool];
    uint64_t n = p->ready.n;
    for (uint32_t i = 0; i < c->n_active; i++) {
        const struct core_task *t = &c->task[c->active[i]];
        n += t->state == CORE_RETRY_WAIT && strcmp(t->service, p->service) == 0;
    }
    return n;
}
