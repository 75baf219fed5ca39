/* status.c - the contents of STATUS replies and HTTP pages. */
#include "server.h"

#include "base/clock.h"
#include "base/str.h"
#include "base/version.h"

#include <stdlib.h>
#include <string.h>

struct status_memory {
    void **part;
    size_t n, cap;
};

static void *keep(struct status_memory *m, void *p)
{
    if (m->n == m->cap) {
        m->cap = m->cap ? 2 * m->cap : 64;
        m->part = mode_xrealloc(m->part, m->cap * sizeof *m->part);
    }
    return m->part[m->n++] = p;
}

/* Keeps a text and replaces invalid UTF-8 (it may be truncated or contain file names). */
static char *keep_text(struct status_memory *m, char *text)
{
    mode_wire_text(text);
    return keep(m, text);
}

void status_free(struct status_memory **mp)
{
    struct status_memory *m = *mp;
    *mp = NULL;
    if (!m) return;
    for (size_t i = 0; i < m->n; i++) free(m->part[i]);
    free(m->part);
    free(m);
}

void status_add_running(Mode__Stage *s, const struct core_task *t)
{
    s->leased++;
    if (!t->unit[0]) return;
    if (!s->unit) s->unit = (char *)t->unit;
    if (strcmp(s->unit, t->unit) != 0) return;
    s->live_done += t->done;
    s->live_total += t->total;
    s->live_rate += t->rate;
    s->has_live_rate = 1;
}

/* A node that is not done. */
static void add_node(Mode__Stage *s, const struct server *sv, const struct run *run, uint32_t n, double *fractions,
                     double *spread)
{
    const struct plan_node *x = &run->plan->node[n];
    const struct core_task *t = run->core_task[n] == CORE_NONE ? NULL : &sv->core.task[run->core_task[n]];
    if (t && t->attempt > 1) s->retries += t->attempt - 1;
    if (t && t->last_text && t->last_text[0] && t->state != CORE_LEASED) s->message = t->last_text;
    if (t && t->state == CORE_QUARANTINED)
        s->quarantined++;
    else if (run->state == MODE__RUN_STATE__RUN_CANCELLED || (t && t->state == CORE_CANCELLED))
        s->cancelled++;
    else if (x->state == PLAN_LOST)
        s->failed++;
    else if (!t)
        s->waiting++;
    else if (t->state != CORE_LEASED)
        s->ready++;
    else {
        status_add_running(s, t);
        double f = t->total ? (double)t->done / (double)t->total : 0;
        *fractions += f;
        if (f > 0.01 && t->seconds > 1) *spread += t->seconds / f;
    }
}

/* Capabilities that workers need for this stage, besides the service. */
static const char *needs_of(struct status_memory *m, const struct run *run, enum plan_stage stage)
{
    const char *service = plan_stage_service(stage), *precision = run->plan->spec.precision;
    bool computes = strcmp(service, "embed") == 0 || strcmp(service, "train") == 0 || strcmp(service, "evaluate") == 0;
    if (!computes || strcmp(precision, "f32") == 0) return NULL;
    return keep(m, mode_xasprintf("a GPU (precision %s)", precision));
}

static Mode__Wait *build_wait(struct status_memory *m, const struct server *sv, const struct run *run,
                              enum plan_stage stage, uint64_t tasks)
{
    const char *service = plan_stage_service(stage), *needs = needs_of(m, run, stage);
    struct core_wait w = core_wait(&sv->core, service, server_now_ms());
    struct mode_str text = {0};
    if (!tasks || !w.cause || run->state != MODE__RUN_STATE__RUN_RUNNING) return NULL;
    Mode__Wait *wait = keep(m, mode_xmalloc(sizeof *wait));
    mode__wait__init(wait);
    server_wait_text(&text, sv, plan_stage_name(stage), service, needs, tasks, &w);
    wait->cause = (char *)core_wait_name(w.cause);
    wait->tasks = tasks;
    wait->workers = w.workers;
    wait->seconds = server_waits_since_s(sv, service);
    wait->text = keep_text(m, text.data);
    wait->needs = (char *)needs;
    return wait;
}

static Mode__Stage *build_stage(struct status_memory *m, const struct server *sv, const struct run *run,
                                enum plan_stage stage)
{
    Mode__Stage *s = keep(m, mode_xmalloc(sizeof *s));
    double fractions = 0, spread = 0;
    mode__stage__init(s);
    s->name = (char *)plan_stage_name(stage);
    s->service = (char *)plan_stage_service(stage);
    s->has_retries = s->has_rows_in = s->has_rows_out = s->has_rejects = s->has_done_units = 1;
    s->has_live_done = s->has_live_total = s->has_mean_task_s = 1;
    const struct plan *p = run->plan;
    const struct plan_sum *sum = &p->sum[stage];
    s->total = p->first[stage + 1] - p->first[stage];
    s->done = p->n_done[stage];
    s->cached = p->n_cached[stage];
    s->rows_in = sum->rows_in;
    s->rows_out = sum->rows_out;
    s->rejects = sum->rejects;
    s->retries = sum->retries;
    for (uint32_t n = p->first[stage], left = (uint32_t)(s->total - s->done); left; n++) {
        if (p->node[n].state == PLAN_DONE) continue;
        add_node(s, sv, run, n, &fractions, &spread);
        left--;
    }
    s->done_units = (double)s->done + fractions;
    if (s->done) s->mean_task_s = sum->seconds / (double)s->done;
    /* time per task: from running ones if they report a rate, else from finished ones */
    double per_task = spread > 0 && s->leased ? spread / (double)s->leased : s->mean_task_s;
    if (per_task > 0 && s->leased) {
        s->has_eta_s = 1;
        s->eta_s = per_task * ((double)s->total - s->done_units) / (double)s->leased;
    }
    s->wait = build_wait(m, sv, run, stage, s->ready);
    return s;
}

static Mode__Run *build_run(struct status_memory *m, const struct server *sv, const struct run *run)
{
    Mode__Run *r = keep(m, mode_xmalloc(sizeof *r));
    mode__run__init(r);
    r->id = r->name = run->name;
    r->state = run->state;
    r->created_unix_ms = run->created_ms;
    if (run->finished_ms) {
        r->has_finished_unix_ms = 1;
        r->finished_unix_ms = run->finished_ms;
    }
    r->has_elapsed_s = 1;
    r->elapsed_s = (double)((run->finished_ms ? run->finished_ms : mode_clock_wall_ms()) - run->created_ms) / 1000;
    r->message = keep_text(m, mode_xstrdup(run->message));
    r->has_status = run->failed != MODE_OK;
    r->status = (uint32_t)run->failed;
    if (run->plan) {
        r->stages = keep(m, mode_xmalloc(PLAN_STAGES * sizeof *r->stages));
        for (enum plan_stage s = 0; s < PLAN_STAGES; s++)
            if (run->plan->first[s + 1] > run->plan->first[s]) r->stages[r->n_stages++] = build_stage(m, sv, run, s);
    }
    return r;
}

static Mode__TaskRow *build_task(struct status_memory *m, const struct server *sv, uint32_t task)
{
    const struct core_task *t = &sv->core.task[task];
    Mode__TaskRow *row = keep(m, mode_xmalloc(sizeof *row));
    mode__task_row__init(row);
    row->key = t->key;
    row->run = t->run;
    row->service = (char *)t->service;
    row->label = t->label;
    row->attempt = t->attempt;
    row->done = t->done;
    row->total = t->total;
    row->unit = (char *)t->unit;
    row->rate = t->rate;
    row->seconds = t->seconds;
    row->fence = t->fence;
    if (t->train.known) {
        row->train = keep(m, mode_xmalloc(sizeof *row->train));
        mode__train_step__init(row->train);
        row->train->loss = t->train.loss;
        row->train->lr = t->train.lr;
        row->train->logit_scale = t->train.logit_scale;
        row->train->samples_per_s = t->train.samples_per_s;
    }
    if (t->n_scores) row->scores = keep(m, mode_xmalloc(t->n_scores * sizeof *row->scores));
    for (size_t i = 0; i < t->n_scores; i++) {
        Mode__Score *s = row->scores[row->n_scores++] = keep(m, mode_xmalloc(sizeof *s));
        mode__score__init(s);
        s->task = t->score[i].task;
        s->metric = t->score[i].metric;
        s->value = t->score[i].value;
        s->step = t->score[i].step;
    }
    return row;
}

/* Without its tasks. */
static Mode__Worker *build_worker(struct status_memory *m, const struct server *sv, uint32_t w, int64_t now)
{
    const struct core_worker *x = &sv->core.worker[w];
    Mode__Worker *r = keep(m, mode_xmalloc(sizeof *r));
    mode__worker__init(r);
    r->name = x->name;
    r->service = x->service;
    r->node = x->node;
    r->slots = x->slots;
    r->busy = x->held;
    r->heard_s = (double)(now - x->heard_ms) / 1000;
    r->state = x->draining ? "draining" : now < x->cordon_until_ms ? "cordoned" : x->held ? "busy" : "idle";
    if (!x->draining && now < x->cordon_until_ms)
        r->why = keep_text(m, mode_xasprintf("no task for another %lld s, then one is tried; restarting the worker "
                                             "resets this. Last failure: %.400s",
                                             (long long)(x->cordon_until_ms - now + 999) / 1000, x->cordon_why));
    r->has_done = r->has_failed = r->has_up_s = 1;
    r->done = x->n_done;
    r->failed = x->n_failed;
    r->build = x->build;
    if (x->device[0]) { /* only this much of its HELLO is kept */
        Mode__Label *device = keep(m, mode_xmalloc(sizeof *device));
        mode__label__init(device);
        device->name = "device";
        device->value = x->device;
        r->labels = keep(m, mode_xmalloc(sizeof *r->labels));
        r->labels[r->n_labels++] = device;
    }
    r->up_s = (double)(now - x->since_ms) / 1000;
    r->tasks = keep(m, mode_xmalloc((x->held + 1) * sizeof *r->tasks));
    return r;
}

static void build_workers(struct status_memory *m, Mode__StatusReply *r, const struct server *s)
{
    const struct core *c = &s->core;
    int64_t now = server_now_ms();
    Mode__Worker **of = mode_xcalloc(c->n_workers + 1, sizeof(Mode__Worker *));
    r->workers = keep(m, mode_xmalloc((c->n_workers + 1) * sizeof *r->workers));
    for (uint32_t w = 0; w < c->n_workers; w++)
        if (c->worker[w].session[0]) r->workers[r->n_workers++] = of[w] = build_worker(m, s, w, now);
    for (uint32_t i = 0; i < c->n_active; i++) {
        uint32_t w = c->task[c->active[i]].worker;
        if (w != CORE_NONE && of[w] && of[w]->n_tasks < c->worker[w].held)
            of[w]->tasks[of[w]->n_tasks++] = build_task(m, s, c->active[i]);
    }
    free(of);
}

void status_fit(Mode__StatusReply *r, size_t most)
{
    enum { LEAST = 2, COUNTS = 24 }; /* framing bytes of a nested message; of the two counts, at most */
    size_t size = mode__status_reply__get_packed_size(r) + COUNTS;
    for (size_t i = r->n_workers; i-- > 0 && size > most;) {
        Mode__Worker *w = r->workers[i];
        if (!w->n_tasks) continue;
        for (size_t t = 0; t < w->n_tasks; t++) size -= protobuf_c_message_get_packed_size(&w->tasks[t]->base) + LEAST;
        r->has_tasks_left_out = 1;
        r->tasks_left_out += w->n_tasks;
        w->n_tasks = 0;
    }
    while (r->n_workers && (size > most || r->n_workers > MODE_WIRE_MAX_REPEATED)) {
        size -= protobuf_c_message_get_packed_size(&r->workers[--r->n_workers]->base) + LEAST;
        r->has_workers_left_out = 1;
        r->workers_left_out++;
    }
    if (r->n_runs > MODE_WIRE_MAX_REPEATED) r->n_runs = MODE_WIRE_MAX_REPEATED; /* the newest */
}

Mode__StatusReply *status_build(struct status_memory **memory, const struct server *s, const char *run, bool workers,
                                uint32_t notes)
{
    struct status_memory *m = *memory = mode_xcalloc(1, sizeof *m);
    Mode__StatusReply *r = keep(m, mode_xmalloc(sizeof *r));
    mode__status_reply__init(r);
    r->version = (char *)(uintptr_t)mode_version;
    r->epoch = s->epoch;
    r->uptime_s = mode_clock_s() - s->started_s;
    r->ready = redis_is_up(s->redis);
    r->store = keep_text(m, mode_xstrdup(mode_store_root(s->store)));
    r->has_store_free_bytes = 1;
    r->store_free_bytes = mode_store_free_bytes(s->store, NULL);
    char paused[400];
    if (server_paused(s, paused, sizeof paused)) r->paused = keep(m, mode_xstrdup(paused));
    r->runs = keep(m, mode_xmalloc((s->runs.n + 1) * sizeof *r->runs));
    for (size_t i = s->runs.n; i-- > 0;)
        if (!run || !*run || strcmp(run, s->runs.run[i]->name) == 0)
            r->runs[r->n_runs++] = build_run(m, s, s->runs.run[i]);
    if (workers) build_workers(m, r, s);
    uint64_t have = s->n_notes < SERVER_NOTES ? s->n_notes : SERVER_NOTES;
    if (notes > have) notes = (uint32_t)have;
    r->notes = keep(m, mode_xmalloc((notes + 1) * sizeof *r->notes));
    for (uint64_t i = s->n_notes - notes; i < s->n_notes; i++) {
        const struct server_note *from = &s->note[i % SERVER_NOTES];
        Mode__Note *n = keep(m, mode_xmalloc(sizeof *n));
        mode__note__init(n);
        n->unix_ms = from->unix_ms;
        n->level = (char *)from->level;
        n->event = (char *)from->event;
        n->text = (char *)from->text;
        r->notes[r->n_notes++] = n;
    }
    return r;
}
