/* The core under faults: messages lost, delayed and duplicated, workers killed and paused, coordinators restarted, a
 * Redis that loses some or all of its data. One seed is one schedule; MODE_SIM_SEEDS is their number. */
#include "core.h"

#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { TASKS = 4, WORKERS = 3, NET = 64, GIVEN = 4096 };

struct message {
    bool used, to_worker;
    int64_t at_ms;
    int worker;
    char session[CORE_SESSION]; /* a new process on the same slot has another session */
    enum core_event_type event;
    enum core_action_type action;
    uint32_t task;
    uint64_t fence;
    uint32_t n;
};

struct sim_worker {
    char session[CORE_SESSION], name[16];
    bool alive, welcomed;
    int64_t paused_until_ms, beat_ms;
    uint64_t fence[TASKS]; /* 0 = does not hold it */
    bool result[TASKS];    /* committed, RESULT not acknowledged */
    int64_t done_at_ms[TASKS];
};

struct redis_copy {
    bool known;
    enum core_state state;
    uint32_t attempt;
    uint64_t fence;
    uint16_t failures[CORE_FAIL_COUNT];
};

struct sim {
    struct mode_rng rng;
    struct core core;
    struct core_options opt;
    uint32_t epoch;
    int64_t now;
    bool faulty;
    struct message net[NET];
    struct sim_worker worker[WORKERS];
    unsigned n_sessions;
    uint64_t committed_by[TASKS]; /* the store: a commit appears once */
    struct redis_copy redis[TASKS], older[TASKS];
    struct {
        uint32_t task;
        uint64_t fence;
    } given[GIVEN]; /* all leases ever granted */
    size_t n_given;
    const char *broken;
    unsigned n_work, n_restarts, n_rollbacks, n_adopted, n_expired; /* how often each happened */
};

static uint32_t below(struct sim *s, uint32_t n)
{
    return (uint32_t)mode_rng_below(&s->rng, n);
}

static bool chance(struct sim *s, uint32_t percent)
{
    return s->faulty && below(s, 100) < percent;
}

static void task_key(char key[CORE_KEY], uint32_t t)
{
    snprintf(key, CORE_KEY, "%064x", t + 1);
}

static void post(struct sim *s, struct message m)
{
    if (chance(s, 10)) return; /* lost */
    int copies = chance(s, 5) ? 2 : 1;
    snprintf(m.session, sizeof m.session, "%s", s->worker[m.worker].session);
    for (int i = 0; i < NET && copies; i++) {
        if (s->net[i].used) continue;
        s->net[i] = m;
        s->net[i].used = true;
        s->net[i].at_ms = s->now + 1 + below(s, chance(s, 5) ? 40000 : 50);
        copies--;
    }
}

static void boot(struct sim *s)
{
    char key[CORE_KEY];
    core_clear(&s->core);
    core_init(&s->core, &s->opt, ++s->epoch, s->now);
    for (uint32_t t = 0; t < TASKS; t++) {
        task_key(key, t);
        uint32_t index = core_task_want(&s->core, key, "embed", key, "run", t, 0, false, s->now);
        const struct redis_copy *r = &s->redis[t];
        if (s->committed_by[t])
            core_task_commit(&s->core, index);
        else if (r->known && r->state != CORE_COMMITTED)
            core_task_restore(&s->core, index, r->state, r->attempt, r->fence, r->failures, s->now);
    }
    core_returning(&s->core, true, s->now);
    core_actions_clear(&s->core);
    memset(s->net, 0, sizeof s->net); /* the connections are gone */
    for (int w = 0; w < WORKERS; w++) s->worker[w].welcomed = false;
}

static void carry_out(struct sim *s, const struct core_action *a)
{
    if (a->type == CORE_ACT_RECORD || a->type == CORE_ACT_CLAIM) {
        const struct core_task *t = &s->core.task[a->task];
        s->redis[a->task] = (struct redis_copy){
            .known = true, .state = a->state, .attempt = t->attempt, .fence = t->fence};
        memcpy(s->redis[a->task].failures, t->failures, sizeof t->failures);
    }
    if (a->type == CORE_ACT_CLAIM) {
        for (size_t g = 0; g < s->n_given; g++)
            if (s->given[g].task == a->task && s->given[g].fence == a->fence) s->broken = "a fence was given twice";
        if (s->n_given < GIVEN) {
            s->given[s->n_given].task = a->task;
            s->given[s->n_given++].fence = a->fence;
        }
    }
    if (a->type == CORE_ACT_KEPT) s->n_adopted++;
    int w = 0;
    while (w < WORKERS && strcmp(s->worker[w].session, a->session) != 0) w++;
    if (w == WORKERS || a->type == CORE_ACT_CHECK || a->type == CORE_ACT_KEPT) return;
    post(s, (struct message){.worker = w,
                             .to_worker = true,
                             .action = a->type,
                             .fence = a->fence,
                             .task = a->key[0] ? core_find_task(&s->core, a->key) : CORE_NONE});
}

static void settle(struct sim *s)
{
    struct core *c = &s->core;
    while (c->n_actions) {
        for (size_t i = 0; i < c->n_actions; i++) {
            struct core_action a = c->action[i];
            if (a.type != CORE_ACT_CHECK) continue;
            s->n_expired += !a.session[0];
            core_handle(c,
                        &(struct core_event){.type = CORE_EV_CHECKED,
                                             .key = a.key,
                                             .fence = a.fence,
                                             .session = a.session,
                                             .ok = s->committed_by[core_find_task(c, a.key)] != 0},
                        s->now);
        }
        size_t n = c->n_actions;
        struct core_action *action = c->action;
        c->action = NULL;
        c->n_actions = c->cap_actions = 0;
        for (size_t i = 0; i < n; i++) carry_out(s, &action[i]);
        free(action);
    }
}

static void new_process(struct sim *s, int w)
{
    struct sim_worker *x = &s->worker[w];
    memset(x, 0, sizeof *x);
    snprintf(x->session, sizeof x->session, "%032x", ++s->n_sessions);
    snprintf(x->name, sizeof x->name, "w%u", s->n_sessions);
    x->alive = true;
}

static void say(struct sim *s, int w, enum core_event_type event, uint32_t task, uint64_t fence, uint32_t n)
{
    post(s, (struct message){.worker = w, .event = event, .task = task, .fence = fence, .n = n});
}

static void worker_turn(struct sim *s, int w)
{
    struct sim_worker *x = &s->worker[w];
    if (!x->alive || s->now < x->paused_until_ms) return;
    uint32_t held = 0;
    for (uint32_t t = 0; t < TASKS; t++) {
        if (!x->fence[t]) continue;
        held++;
        if (x->result[t] || s->now < x->done_at_ms[t]) continue;
        s->n_work++;
        if (!s->committed_by[t]) s->committed_by[t] = x->fence[t]; /* create-once */
        x->result[t] = true;
        if (chance(s, 10)) { /* killed between commit and RESULT */
            x->alive = false;
            return;
        }
        say(s, w, CORE_EV_RESULT, t, x->fence[t], 0);
    }
    if (s->now < x->beat_ms) return;
    x->beat_ms = s->now + 3000;
    if (!x->welcomed) {
        say(s, w, CORE_EV_HELLO, CORE_NONE, 0, 2);
        return;
    }
    for (uint32_t t = 0; t < TASKS; t++)
        if (x->fence[t]) say(s, w, x->result[t] ? CORE_EV_RESULT : CORE_EV_PROGRESS, t, x->fence[t], 0);
    if (!held) say(s, w, CORE_EV_PROGRESS, CORE_NONE, 0, 0);
    say(s, w, CORE_EV_CREDIT, CORE_NONE, 0, held < 2 ? 2 - held : 0);
}

static void to_worker(struct sim *s, const struct message *m)
{
    struct sim_worker *x = &s->worker[m->worker];
    uint32_t t = m->task;
    if (!x->alive || s->now < x->paused_until_ms) return;
    switch (m->action) {
    case CORE_ACT_WELCOME: x->welcomed = true; break;
    case CORE_ACT_UNKNOWN_SESSION: x->welcomed = false; break;
    case CORE_ACT_CLAIM:
        if (x->fence[t] >= m->fence) break;
        x->fence[t] = m->fence;
        x->result[t] = false;
        x->done_at_ms[t] = s->now + 1 + below(s, 20000);
        say(s, m->worker, CORE_EV_ASSIGN_ACK, t, m->fence, 1);
        break;
    case CORE_ACT_CANCEL:
    case CORE_ACT_DROPPED:
        if (t != CORE_NONE && x->fence[t] == m->fence && !x->result[t]) x->fence[t] = 0;
        break;
    case CORE_ACT_ACK:
        if (x->fence[t] == m->fence && x->result[t]) x->fence[t] = 0;
        break;
    default: break;
    }
}

static void to_core(struct sim *s, const struct message *m)
{
    const struct sim_worker *x = &s->worker[m->worker];
    char key[CORE_KEY] = "";
    struct core_lease held[TASKS];
    struct core_event e = {
        .type = m->event, .session = m->session, .key = key, .fence = m->fence, .n = m->n, .ok = m->n};
    if (m->task != CORE_NONE) task_key(key, m->task);
    if (m->event == CORE_EV_HELLO) {
        if (strcmp(m->session, x->session) != 0) return; /* of a process that is gone */
        e.service = "embed";
        e.code = e.build = "v";
        e.name = e.node = x->name;
        e.held = held;
        for (uint32_t t = 0; t < TASKS; t++)
            if (x->fence[t]) {
                task_key(held[e.n_held].key, t);
                held[e.n_held++].fence = x->fence[t];
            }
    }
    if (m->event == CORE_EV_PROGRESS) e.done = (uint64_t)s->now;
    core_handle(&s->core, &e, s->now);
}

static void faults(struct sim *s)
{
    int w = (int)below(s, WORKERS);
    if (chance(s, 2)) s->worker[w].alive = false;
    if (!s->worker[w].alive && chance(s, 40)) new_process(s, w);
    if (chance(s, 2)) s->worker[w].paused_until_ms = s->now + 35000 + below(s, 100000); /* beyond its lease */
    if (chance(s, 5)) memcpy(s->older, s->redis, sizeof s->older);
    if (chance(s, 1)) {
        s->n_rollbacks++;
        memcpy(s->redis, s->older, sizeof s->redis);                /* its tail is lost */
        if (below(s, 3) == 0) memset(s->redis, 0, sizeof s->redis); /* all of it */
        s->n_restarts++;
        boot(s);
    } else if (chance(s, 1)) {
        s->n_restarts++;
        boot(s);
    }
}

static void step(struct sim *s)
{
    s->now += 1 + below(s, 400);
    if (s->faulty) faults(s);
    for (int w = 0; w < WORKERS; w++) {
        if (!s->faulty && !s->worker[w].alive) new_process(s, w);
        worker_turn(s, w);
    }
    for (int i = 0; i < NET; i++) {
        if (!s->net[i].used || s->net[i].at_ms > s->now) continue;
        struct message m = s->net[i];
        s->net[i].used = false;
        if (m.to_worker)
            to_worker(s, &m);
        else
            to_core(s, &m);
        settle(s);
    }
    core_handle(&s->core, &(struct core_event){.type = CORE_EV_TICK}, s->now);
    settle(s);
    for (uint32_t t = 0; t < s->core.n_tasks; t++) {
        const struct core_task *x = &s->core.task[t];
        if (x->state == CORE_COMMITTED && !s->committed_by[t]) s->broken = "done without a commit record";
        if (x->state == CORE_LEASED && s->now > s->core.returning_ms + 2000 &&
            s->now - x->heard_ms > s->opt.lease_ms + 2000)
            s->broken = "leased to the silent";
        if (x->state == CORE_QUARANTINED) s->broken = "given up without a failure of its own";
    }
}

/* Runs one seed; returns what broke, or NULL. */
static const char *simulate(uint64_t seed, struct core_options opt, struct sim *s)
{
    memset(s, 0, sizeof *s);
    s->rng = mode_rng_for(seed, MODE_RNG_TEST, 0, 0);
    s->opt = opt;
    s->now = 1000;
    for (int w = 0; w < WORKERS; w++) new_process(s, w);
    s->faulty = true;
    boot(s);
    for (int i = 0; i < 600 && !s->broken; i++) step(s);
    s->faulty = false; /* no more faults: everything must finish */
    for (int i = 0; i < 3000 && !s->broken; i++) {
        uint32_t n = 0;
        step(s);
        for (uint32_t t = 0; t < TASKS; t++) n += s->core.task[t].state == CORE_COMMITTED;
        if (n == TASKS) break;
    }
    for (uint32_t t = 0; t < TASKS && !s->broken; t++)
        if (s->core.task[t].state != CORE_COMMITTED) s->broken = "a task was lost";
    core_clear(&s->core);
    return s->broken;
}

static unsigned n_seeds(void)
{
    const char *n = getenv("MODE_SIM_SEEDS");
    return n ? (unsigned)atoi(n) : 1000;
}

static void test_no_task_is_lost_and_no_fence_repeats(void **state)
{
    (void)state;
    struct sim *s = calloc(1, sizeof *s);
    struct sim sum = {0};
    for (unsigned seed = 1; seed <= n_seeds(); seed++) {
        const char *broken = simulate(seed, (struct core_options)CORE_OPTIONS_DEFAULT, s);
        if (broken) fail_msg("seed %u: %s", seed, broken);
        sum.n_work += s->n_work;
        sum.n_restarts += s->n_restarts;
        sum.n_rollbacks += s->n_rollbacks;
        sum.n_adopted += s->n_adopted;
        sum.n_expired += s->n_expired;
    }
    printf("%u seeds: %u attempts, %u restarts, %u rollbacks, %u leases taken over, %u leases expired\n", n_seeds(),
           sum.n_work, sum.n_restarts, sum.n_rollbacks, sum.n_adopted, sum.n_expired);
    assert_true(sum.n_restarts && sum.n_rollbacks && sum.n_adopted && sum.n_expired);
    free(s);
}

static void test_without_epochs_a_fence_repeats(void **state)
{
    (void)state;
    struct core_options mutant = CORE_OPTIONS_DEFAULT;
    struct sim *s = calloc(1, sizeof *s);
    bool caught = false;
    mutant.no_epoch = true;
    for (unsigned seed = 1; seed <= 300 && !caught; seed++) {
        const char *broken = simulate(seed, mutant, s);
        caught = broken && strcmp(broken, "a fence was given twice") == 0;
    }
    free(s);
    assert_true(caught);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_task_is_lost_and_no_fence_repeats),
        cmocka_unit_test(test_without_epochs_a_fence_repeats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
