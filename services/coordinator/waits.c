/* waits.c - reports what tasks wait for: in STATUS, and in the log after a while. */
#include "server.h"

#include "base/log.h"
#include "base/str.h"
#include "msg/place.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_MS   1000
#define LASTS_MS  3000   /* shorter waits are normal */
#define RECENT_MS 120000 /* rejections within this time may explain why no worker is connected */

/* ---------------------------------------------------------------------------------------------- the door */

void server_turned_away(struct server *s, const char *service, const char *name, const char *why)
{
    struct server_turned *t = &s->turned[s->n_turned++ % SERVER_TURNED];
    t->at_ms = server_now_ms();
    snprintf(t->service, sizeof t->service, "%s", service);
    snprintf(t->name, sizeof t->name, "%s", name);
    snprintf(t->why, sizeof t->why, "%s", why);
    mode_wire_text(t->service);
    mode_wire_text(t->name);
    mode_wire_text(t->why);
}

bool server_turned_lately(const struct server *s, const char *name)
{
    for (uint64_t i = 0; i < SERVER_TURNED && i < s->n_turned; i++) {
        const struct server_turned *t = &s->turned[(s->n_turned - 1 - i) % SERVER_TURNED];
        if (server_now_ms() - t->at_ms < RECENT_MS && strcmp(t->name, name) == 0) return true;
    }
    return false;
}

/* The last rejected worker; NULL: none recently. One of unknown service ("") may be of this service. */
static const struct server_turned *last_turned(const struct server *s, const char *service, int64_t now)
{
    for (uint64_t i = 0; i < SERVER_TURNED && i < s->n_turned; i++) {
        const struct server_turned *t = &s->turned[(s->n_turned - 1 - i) % SERVER_TURNED];
        if (now - t->at_ms < RECENT_MS && (!t->service[0] || strcmp(t->service, service) == 0)) return t;
    }
    return NULL;
}

/* Keys outside the list fail in the handshake, before any message: takes the counts from mode_net. */
static void watch_door(struct server *s)
{
    char address[64], why[300];
    uint64_t n = mode_net_refused(s->net, MODE_ROLE_WORKER, address);
    if (n == s->n_keys_refused) return;
    s->n_keys_refused = n;
    snprintf(why, sizeof why, "its key is not in %.200s as worker (after a change: SIGHUP)", s->allow_list);
    bool noted = last_turned(s, "", server_now_ms()) != NULL; /* it keeps retrying: logged once */
    server_turned_away(s, "", address, why);
    if (!noted) server_note(s, "warn", "refused", "a worker at %s was rejected: %s", address, why);
}

/* ---------------------------------------------------------------------------------------------- sentences */

static void add_start_hint(struct mode_str *out, const struct server *s, const char *service, const char *needs)
{
    const char *root = mode_store_root(s->store), *workers = getenv("MODE_SUPERVISED_WORKERS");
    if (needs)
        mode_str_printf(
            out,
            ". HINT: start mode-%s on a machine that has one (docs/OPERATIONS.md, \"Several machines\"), or set "
            "precision: f32 in the spec",
            service);
    else if (strncmp(mode_socket_endpoint(s->workers), "tcp:", 4) == 0)
        mode_str_printf(out,
                        ". HINT: start mode-%s where it sees the workspace (docs/OPERATIONS.md); with containers "
                        "`docker compose up -d --scale %s=1`, or, if it was drained, `docker compose restart %s`",
                        service, service, service);
    else if (workers && mode_place_workers(workers, service) > 0)
        mode_str_printf(out, ". HINT: `mode up` keeps one: %s/logs/%s.log tells why it is not here", root, service);
    else if (workers)
        mode_str_printf(out,
                        ". HINT: `mode-%s --workspace %s` adds one; or `mode down`, then `mode up` with %s=1 in its "
                        "--workers",
                        service, root, service);
    else
        mode_str_printf(out, ". HINT: `mode-%s --workspace %s` starts one", service, root);
}

static void add_no_worker(struct mode_str *out, const struct server *s, const char *service, const char *needs,
                          int64_t now)
{
    const struct server_turned *t = last_turned(s, service, now);
    mode_str_add_cstr(out, ", and none is connected");
    if (t)
        mode_str_printf(out, "; %s was rejected %lld s ago: %s", t->name, (long long)(now - t->at_ms) / 1000, t->why);
    else
        add_start_hint(out, s, service, needs);
}

static void add_held_back(struct mode_str *out, const struct server *s, const char *service, const char *needs,
                          const struct core_wait *w, int64_t now)
{
    const struct core_worker *first = &s->core.worker[w->first];
    long long rest_s = (long long)(w->until_ms - now + 999) / 1000;
    const char *why = first->cordon_why ? first->cordon_why : "";
    if (w->workers == 1)
        mode_str_printf(out, "; the only one, %s,", first->name);
    else
        mode_str_printf(out, "; all %u of them", w->workers);
    if (w->draining == w->workers)
        mode_str_add_cstr(out, w->workers == 1 ? " is being drained" : " are being drained");
    else if (w->workers == 1)
        mode_str_printf(out, " gets no work for another %lld s (cordoned), because a task failed there: %.400s", rest_s,
                        why);
    else
        mode_str_printf(out,
                        " get no work (%u cordoned, %u being drained); %s is next, in %lld s, after a task failed "
                        "there: %.400s",
                        w->cordoned, w->draining, first->name, rest_s, why);
    if (!strstr(why, "HINT:") && (needs || w->draining == w->workers)) add_start_hint(out, s, service, needs);
}

void server_wait_text(struct mode_str *out, const struct server *s, const char *stage, const char *service,
                      const char *needs, uint64_t tasks, const struct core_wait *w)
{
    int64_t now = server_now_ms();
    bool one = tasks == 1, vowel = strchr("aeio", service[0]) != NULL;
    mode_str_printf(out, "%s: %llu task%s wait%s for %s %s worker", stage, (unsigned long long)tasks, one ? "" : "s",
                    one ? "s" : "", vowel ? "an" : "a", service);
    if (needs) mode_str_printf(out, " with %s", needs);
    switch (w->cause) {
    case CORE_WAIT_NO_WORKER: add_no_worker(out, s, service, needs, now); break;
    case CORE_WAIT_HELD_BACK: add_held_back(out, s, service, needs, w, now); break;
    case CORE_WAIT_NOT_READY:
        mode_str_printf(out,
                        "; %u connected (%s [%s]), but none of their compute processes is ready, or a machine of a "
                        "team is missing. HINT: the log of the worker tells why",
                        w->workers, s->core.worker[w->first].name, s->core.worker[w->first].device);
        break;
    case CORE_WAIT_BREAKER:
        mode_str_printf(out, "; too many of these tasks failed recently, the next is handed out in %lld s",
                        (long long)(w->until_ms - now + 999) / 1000);
        break;
    case CORE_WAIT_NONE: break;
    }
}

/* ---------------------------------------------------------------------------------------------- watching */

double server_waits_since_s(const struct server *s, const char *service)
{
    for (size_t i = 0; i < s->n_waits && i < s->core.n_pools; i++)
        if (s->wait[i].since_ms && strcmp(s->core.pool[i].service, service) == 0)
            return (double)(server_now_ms() - s->wait[i].since_ms) / 1000;
    return 0;
}

static void watch_pool(struct server *s, size_t i, uint64_t tasks, int64_t now)
{
    struct server_wait *x = &s->wait[i];
    const char *service = s->core.pool[i].service;
    struct core_wait w = core_wait(&s->core, service, now);
    if (tasks && w.cause) {
        x->gone_ms = 0;
        if (!x->since_ms) x->since_ms = now;
        if (now - x->since_ms < LASTS_MS || x->said == w.cause) return;
        struct mode_str text = {0};
        server_wait_text(&text, s, service, service, NULL, tasks, &w);
        mode_log_warn("waiting", "%s", text.data);
        mode_str_clear(&text);
        x->said = w.cause;
    } else if (x->since_ms) { /* an attempt that fails now and then does not end the wait */
        if (!x->gone_ms) x->gone_ms = now;
        if (now - x->gone_ms < LASTS_MS) return;
        if (x->said) mode_log_info("goes_on", "nothing waits for a %s worker any more", service);
        *x = (struct server_wait){0};
    }
}

void server_watch_waits(struct server *s, int64_t now)
{
    const struct core *c = &s->core;
    if (now < s->waits_ms || !c->dispatch) return; /* while Redis is away nobody waits for workers */
    s->waits_ms = now + LOOK_MS;
    if (s->allow_list) watch_door(s);
    if (s->n_waits < c->n_pools) {
        s->wait = mode_xrealloc(s->wait, c->n_pools * sizeof *s->wait);
        while (s->n_waits < c->n_pools) s->wait[s->n_waits++] = (struct server_wait){0};
    }
    for (size_t i = 0; i < c->n_pools; i++) watch_pool(s, i, core_waiting(c, i), now);
}
