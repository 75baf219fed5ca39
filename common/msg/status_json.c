#include "msg/status_json.h"

#include "base/error.h"

#include <jansson.h>

const char *mode_run_state_name(Mode__RunState state)
{
    switch (state) {
    case MODE__RUN_STATE__RUN_RUNNING: return "running";
    case MODE__RUN_STATE__RUN_DONE: return "done";
    case MODE__RUN_STATE__RUN_FAILED: return "failed";
    case MODE__RUN_STATE__RUN_CANCELLED: return "cancelled";
    default: return "unknown";
    }
}

static void put(json_t *object, const char *key, json_t *value)
{
    MODE_ASSERT(value && json_object_set_new(object, key, value) == 0);
}

/* A text from a peer: invalid UTF-8 must not discard the whole reply. */
static json_t *text(const char *s)
{
    json_t *t = json_string(s ? s : "");
    return t ? t : json_string("(not UTF-8)");
}

static json_t *wait_json(const Mode__Wait *w)
{
    json_t *o = json_object();
    put(o, "cause", text(w->cause));
    put(o, "tasks", json_integer((json_int_t)w->tasks));
    put(o, "workers", json_integer((json_int_t)w->workers));
    put(o, "seconds", json_real(w->seconds));
    put(o, "text", text(w->text));
    if (w->needs) put(o, "needs", text(w->needs));
    return o;
}

static json_t *stage_json(const Mode__Stage *s)
{
    json_t *o = json_object();
    put(o, "name", text(s->name));
    put(o, "service", text(s->service));
#define N(field) put(o, #field, json_integer((json_int_t)s->field))
    N(total);
    N(waiting);
    N(ready);
    N(leased);
    N(done);
    N(failed);
    N(quarantined);
    N(cancelled);
    N(cached);
    N(retries);
    N(rows_in);
    N(rows_out);
    N(rejects);
    N(live_done);
    N(live_total);
#undef N
    put(o, "done_units", json_real(s->done_units));
    put(o, "mean_task_s", json_real(s->mean_task_s));
    if (s->unit) put(o, "unit", text(s->unit));
    if (s->has_live_rate) put(o, "live_rate", json_real(s->live_rate));
    if (s->has_eta_s) put(o, "eta_s", json_real(s->eta_s));
    if (s->message) put(o, "message", text(s->message));
    if (s->wait) put(o, "wait", wait_json(s->wait));
    return o;
}

/* Before the first step there are scores but no loss. */
static json_t *train_json(const Mode__TrainStep *s, Mode__Score *const *scores, size_t n_scores)
{
    json_t *o = json_object(), *list = n_scores ? json_array() : NULL;
    for (size_t i = 0; i < n_scores; i++) {
        json_t *x = json_object();
        put(x, "task", text(scores[i]->task));
        put(x, "metric", text(scores[i]->metric));
        put(x, "value", json_real(scores[i]->value));
        put(x, "step", json_integer((json_int_t)scores[i]->step));
        json_array_append_new(list, x);
    }
    if (list) put(o, "validation", list);
    if (!s) return o;
    put(o, "loss", json_real(s->loss));
    put(o, "lr", json_real(s->lr));
    put(o, "logit_scale", json_real(s->logit_scale));
    put(o, "samples_per_s", json_real(s->samples_per_s));
    return o;
}

static json_t *task_json(const Mode__TaskRow *t)
{
    json_t *o = json_object();
    put(o, "key", text(t->key));
    put(o, "run", text(t->run));
    put(o, "label", text(t->label));
    put(o, "attempt", json_integer(t->attempt));
    put(o, "done", json_integer((json_int_t)t->done));
    put(o, "total", json_integer((json_int_t)t->total));
    put(o, "unit", text(t->unit));
    put(o, "rate", json_real(t->rate));
    put(o, "seconds", json_real(t->seconds));
    if (t->train || t->n_scores) put(o, "train", train_json(t->train, t->scores, t->n_scores));
    return o;
}

char *mode_status_json(const Mode__StatusReply *r)
{
    json_t *root = json_object(), *runs = json_array(), *workers = json_array(), *notes = json_array();
    put(root, "version", text(r->version));
    put(root, "epoch", json_integer((json_int_t)r->epoch));
    put(root, "uptime_s", json_real(r->uptime_s));
    put(root, "ready", json_boolean(r->ready));
    put(root, "store", text(r->store));
    put(root, "store_free_bytes", json_integer((json_int_t)r->store_free_bytes));
    if (r->paused) put(root, "paused", text(r->paused));
    for (size_t i = 0; i < r->n_runs; i++) {
        const Mode__Run *run = r->runs[i];
        json_t *o = json_object(), *stages = json_array();
        put(o, "name", text(run->name));
        put(o, "state", text(mode_run_state_name(run->state)));
        put(o, "created_unix_ms", json_integer(run->created_unix_ms));
        if (run->has_finished_unix_ms) put(o, "finished_unix_ms", json_integer(run->finished_unix_ms));
        put(o, "elapsed_s", json_real(run->elapsed_s));
        put(o, "message", text(run->message));
        for (size_t s = 0; s < run->n_stages; s++) json_array_append_new(stages, stage_json(run->stages[s]));
        put(o, "stages", stages);
        json_array_append_new(runs, o);
    }
    for (size_t i = 0; i < r->n_workers; i++) {
        const Mode__Worker *w = r->workers[i];
        json_t *o = json_object(), *tasks = json_array();
        put(o, "name", text(w->name));
        put(o, "service", text(w->service));
        put(o, "node", text(w->node));
        put(o, "state", text(w->state));
        if (w->why) put(o, "why", text(w->why));
        put(o, "slots", json_integer(w->slots));
        put(o, "busy", json_integer(w->busy));
        put(o, "heard_s", json_real(w->heard_s));
        put(o, "done", json_integer((json_int_t)w->done));
        put(o, "failed", json_integer((json_int_t)w->failed));
        for (size_t k = 0; k < w->n_labels; k++) put(o, w->labels[k]->name, text(w->labels[k]->value));
        for (size_t t = 0; t < w->n_tasks; t++) json_array_append_new(tasks, task_json(w->tasks[t]));
        put(o, "tasks", tasks);
        json_array_append_new(workers, o);
    }
    for (size_t i = 0; i < r->n_notes; i++) {
        json_t *o = json_object();
        put(o, "unix_ms", json_integer(r->notes[i]->unix_ms));
        put(o, "level", text(r->notes[i]->level));
        put(o, "event", text(r->notes[i]->event));
        put(o, "text", text(r->notes[i]->text));
        json_array_append_new(notes, o);
    }
    put(root, "runs", runs);
    put(root, "workers", workers);
    if (r->has_workers_left_out) put(root, "workers_left_out", json_integer((json_int_t)r->workers_left_out));
    if (r->has_tasks_left_out) put(root, "tasks_left_out", json_integer((json_int_t)r->tasks_left_out));
    put(root, "notes", notes);
    char *out = json_dumps(root, JSON_INDENT(2));
    MODE_ASSERT(out);
    json_decref(root);
    return out;
}
