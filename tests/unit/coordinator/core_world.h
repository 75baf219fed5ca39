/* core_world.h - events that tests of the pure core send it, and checks of the actions that it returns. */
#ifndef MODE_TESTS_CORE_WORLD_H
#define MODE_TESTS_CORE_WORLD_H

#include "core.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const char key_a[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
static const char key_b[] = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
static const char session_1[] = "11111111111111111111111111111111";
static const char session_2[] = "22222222222222222222222222222222";

static inline void begin(struct core *c, bool no_fence_check, bool no_check_on_expiry)
{
    struct core_options o = CORE_OPTIONS_DEFAULT;
    o.no_fence_check = no_fence_check;
    o.no_check_on_expiry = no_check_on_expiry;
    core_init(c, &o, 1, 0);
}

static inline uint32_t want(struct core *c, const char *key, uint64_t order, bool retry, int64_t now)
{
    return core_task_want(c, key, "embed", "label", "run", order, 0, retry, now);
}

static inline void say(struct core *c, enum core_event_type type, const char *session, uint32_t n, int64_t now)
{
    core_handle(c, &(struct core_event){.type = type, .session = session, .n = n, .key = ""}, now);
}

/* A worker of this service connects; e: which. */
static inline void comes(struct core *c, struct core_event e, int64_t now)
{
    e.type = CORE_EV_HELLO;
    e.service = "embed";
    e.code = e.build = "v";
    core_handle(c, &e, now);
}

static inline void hello_as(struct core *c, const char *session, const char *name, uint64_t incarnation, int64_t now)
{
    comes(c, (struct core_event){.session = session, .name = name, .node = "n", .incarnation = incarnation, .n = 1},
          now);
}

/* w1 of session_1 connects (again) and reports what it holds. */
static inline void hello_holding(struct core *c, const char *node, const struct core_lease *held, int64_t now)
{
    comes(c, (struct core_event){.session = session_1, .name = "w1", .node = node, .n = 1, .held = held, .n_held = 1},
          now);
}

static inline void hello(struct core *c, const char *session, const char *name, uint32_t slots, int64_t now)
{
    comes(c, (struct core_event){.session = session, .name = name, .node = name, .n = slots}, now);
    say(c, CORE_EV_CREDIT, session, slots, now);
}

static inline const struct core_action *find(const struct core *c, enum core_action_type type)
{
    for (size_t i = 0; i < c->n_actions; i++)
        if (c->action[i].type == type) return &c->action[i];
    return NULL;
}

static inline void about(struct core *c, enum core_event_type type, const char *session, const char *key,
                         uint64_t fence, bool ok, enum core_fail why, int64_t now)
{
    core_handle(
        c,
        &(struct core_event){
            .type = type, .session = session, .key = key, .fence = fence, .ok = ok, .fail = why, .text = "because"},
        now);
}

static inline void beat_of(struct core *c, uint64_t done, uint64_t changes, int64_t now)
{
    core_handle(c,
                &(struct core_event){.type = CORE_EV_PROGRESS,
                                     .session = session_1,
                                     .key = key_a,
                                     .fence = c->task[0].fence,
                                     .done = done,
                                     .total = 100,
                                     .changes = changes},
                now);
}

static inline void beat(struct core *c, uint64_t done, int64_t now)
{
    beat_of(c, done, 0, now);
}

static inline void tick(struct core *c, int64_t now)
{
    core_handle(c, &(struct core_event){.type = CORE_EV_TICK}, now);
}

/* Time passes; both workers are alive, and w1 accepts every task. */
static inline void pass(struct core *c, int64_t *now, int64_t ms)
{
    for (int64_t until = *now + ms; *now < until;) {
        *now += 1000;
        tick(c, *now);
        if (core_find_worker(c, session_2) != CORE_NONE) say(c, CORE_EV_PROGRESS, session_2, 0, *now);
        if (core_find_worker(c, session_1) != CORE_NONE) say(c, CORE_EV_CREDIT, session_1, 1, *now);
    }
}

#endif
