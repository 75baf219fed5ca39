/* admin_port.c - requests of the mode command. */
#include "server.h"

#include "base/log.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ENVELOPE_BYTES = 1 << 10 }; /* more than an envelope takes beside its body */

static void reply(struct server *s, const struct mode_packet *p, const Mode__Envelope *to, Mode__Envelope *e)
{
    struct mode_error err = {0};
    e->has_reply_to = 1;
    e->reply_to = to->id;
    e->has_epoch = 1;
    e->epoch = s->epoch;
    if (mode_socket_send(s->admins, p->route, p->n_route, e, &err) && err.status != MODE_E_TEMP)
        mode_log_failure("send_admin", &err);
}

static void reject(struct server *s, const struct mode_packet *p, const Mode__Envelope *to, Mode__RejectCode code,
                   enum mode_status st, const char *text)
{
    Mode__Envelope e;
    Mode__Reject r = MODE__REJECT__INIT;
    mode_envelope_init(&e, &s->message_id, MODE__ENVELOPE__BODY_REJECT);
    r.code = code;
    r.text = mode_xstrdup(text);
    mode_wire_text(r.text);
    r.has_status = 1;
    r.status = (uint32_t)st;
    e.reject = &r;
    reply(s, p, to, &e);
    free(r.text);
}

/* Warns about kinds of workers that the run will need and that are not connected: now, not when a stage needs them,
 * which may be days later. */
static void add_missing_workers(struct mode_spec_list *warnings, const struct server *s, const Mode__Run *run)
{
    for (size_t i = 0; i < run->n_stages; i++) {
        const Mode__Stage *x = run->stages[i];
        bool here = x->done == x->total;
        for (uint32_t w = 0; w < s->core.n_workers && !here; w++)
            here = s->core.worker[w].session[0] && strcmp(s->core.worker[w].service, x->service) == 0;
        for (size_t j = 0; j < i && !here; j++) /* already listed for an earlier stage */
            here = strcmp(run->stages[j]->service, x->service) == 0 && run->stages[j]->done < run->stages[j]->total;
        if (here) continue;
        char *text = mode_xasprintf("no %s worker is connected yet: %s will wait for one", x->service, x->name);
        mode_spec_list_copy(warnings, &(struct mode_spec_list){.item = &text, .n = 1});
        free(text);
    }
}

/* The answer to a submission that has ended. */
static void answer_submit(struct server *s, const struct mode_packet *p, const Mode__Envelope *m,
                          const struct run_submission *x)
{
    Mode__Envelope e;
    Mode__SubmitReply r = MODE__SUBMIT_REPLY__INIT;
    struct status_memory *memory = NULL;
    struct mode_spec_list warnings = {0};
    const struct run *run = x->run ? runs_find(&s->runs, x->run) : NULL;
    if (x->st) {
        reject(s, p, m, x->st == MODE_E_TEMP ? MODE__REJECT_CODE__REJECT_STATE : MODE__REJECT_CODE__REJECT_SPEC, x->st,
               x->err.text);
        return;
    }
    mode_envelope_init(&e, &s->message_id, MODE__ENVELOPE__BODY_SUBMIT_REPLY);
    mode_spec_list_copy(&warnings, &x->warnings);
    r.run = x->run ? x->run : "";
    r.created = x->created;
    if (run) {
        Mode__StatusReply *status = status_build(&memory, s, run->name, false, 0);
        r.stages = status->runs[0]->stages;
        r.n_stages = status->runs[0]->n_stages;
        add_missing_workers(&warnings, s, status->runs[0]);
    }
    for (size_t i = 0; i < warnings.n; i++) mode_wire_text(warnings.item[i]);
    r.warnings = warnings.item;
    r.n_warnings = warnings.n;
    e.submit_reply = &r;
    reply(s, p, m, &e);
    status_free(&memory);
    mode_spec_list_clear(&warnings);
}

/* Tells the client to ask again, with the same idempotency key, and reports progress. */
static void say_how_far(struct server *s, const struct mode_packet *p, const Mode__Envelope *m)
{
    char text[200] = "the coordinator ";
    const size_t n = strlen(text);
    planner_reading(text + n, sizeof text - n, s->runs.planner);
    if (!text[n]) snprintf(text + n, sizeof text - n, "is inspecting the inputs");
    reject(s, p, m, MODE__REJECT_CODE__REJECT_STARTING, MODE_E_TEMP, text);
}

static void on_submit(struct server *s, const struct mode_packet *p, const Mode__Envelope *m)
{
    const Mode__Submit *q = m->submit;
    char *text = strndup((const char *)q->spec.data, q->spec.len);
    MODE_ASSERT(text);
    if (strlen(text) != q->spec.len) {
        reject(s, p, m, MODE__REJECT_CODE__REJECT_SPEC, MODE_E_CONFIG, "the spec is not text: it has a NUL byte");
        free(text);
        return;
    }
    const struct run_submission *x = runs_submit(&s->runs, text, q->base_dir ? q->base_dir : "/", q->idempotency,
                                                 q->has_dry_run && q->dry_run);
    free(text);
    if (x->ended) {
        answer_submit(s, p, m, x);
    } else if (s->n_askers == SERVER_ASKERS) {
        say_how_far(s, p, m);
    } else {
        struct server_asker *a = &s->asker[s->n_askers++];
        memcpy(a->route.bytes, p->route, p->n_route);
        a->route.n = p->n_route;
        a->idempotency = mode_xstrdup(q->idempotency);
        a->message = m->id;
        a->since_ms = server_now_ms();
    }
}

static bool answer_asker(struct server *s, const struct server_asker *a)
{
    const struct run_submission *x = runs_submission(&s->runs, a->idempotency);
    struct mode_packet p = {.n_route = a->route.n};
    Mode__Envelope m = MODE__ENVELOPE__INIT;
    memcpy(p.route, a->route.bytes, a->route.n);
    m.id = a->message;
    if (x && x->ended)
        answer_submit(s, &p, &m, x);
    else if (!x || server_now_ms() - a->since_ms >= SERVER_SAY_MS)
        say_how_far(s, &p, &m);
    else
        return false;
    return true;
}

void server_planned(struct server *s)
{
    struct mode_error err = {0};
    planner_heard(s->runs.planner);
    planner_heard(s->runs.writer);
    planner_heard(s->runs.checker);
    runs_planned(&s->runs, server_now_ms());
    for (size_t i = 0; i < s->runs.n; i++) {
        struct run *run = s->runs.run[i];
        if (run->registered) continue;
        run->registered = true; /* or, like all runs, when Redis is back */
        mode_log_info("run_accepted", "run=%s tasks=%u", run->name, run->plan->n_nodes);
        if (redis_is_up(s->redis) && redis_register(s->redis, "runs", run->name, run->folder, &err))
            server_redis_away(s, &err);
        server_settle(s);
    }
    size_t n = 0;
    for (size_t i = 0; i < s->n_askers; i++) {
        if (answer_asker(s, &s->asker[i]))
            free(s->asker[i].idempotency);
        else
            s->asker[n++] = s->asker[i];
    }
    s->n_askers = n;
}

static void on_status(struct server *s, const struct mode_packet *p, const Mode__Envelope *m)
{
    const Mode__Status *q = m->status;
    Mode__Envelope e;
    struct status_memory *memory;
    if (q->run && *q->run && !runs_find(&s->runs, q->run)) {
        char text[200];
        snprintf(text, sizeof text, "there is no run \"%.64s\" here; `mode status` lists the runs", q->run);
        reject(s, p, m, MODE__REJECT_CODE__REJECT_NOT_FOUND, MODE_E_NOINPUT, text);
        return;
    }
    mode_envelope_init(&e, &s->message_id, MODE__ENVELOPE__BODY_STATUS_REPLY);
    e.status_reply = status_build(&memory, s, q->run, q->has_workers && q->workers, q->has_notes ? q->notes : 0);
    status_fit(e.status_reply, MODE_WIRE_ADMIN_MAX - ENVELOPE_BYTES);
    reply(s, p, m, &e);
    status_free(&memory);
}

static uint64_t drain(struct server *s, const char *name, uint32_t grace_ms)
{
    uint64_t n = 0;
    for (uint32_t w = 0; w < s->core.n_workers; w++) {
        const struct core_worker *x = &s->core.worker[w];
        if (!x->session[0] || (strcmp(name, x->name) != 0 && strcmp(name, x->node) != 0)) continue;
        core_handle(&s->core, &(struct core_event){.type = CORE_EV_DRAIN, .session = x->session, .n = grace_ms},
                    server_now_ms());
        n++;
    }
    return n;
}

static void on_control(struct server *s, const struct mode_packet *p, const Mode__Envelope *m)
{
    const Mode__Control *q = m->control;
    struct run *run = q->run ? runs_find(&s->runs, q->run) : NULL;
    Mode__Envelope e;
    Mode__ControlReply r = MODE__CONTROL_REPLY__INIT;
    mode_envelope_init(&e, &s->message_id, MODE__ENVELOPE__BODY_CONTROL_REPLY);
    r.text = "done";
    r.changed = 1;
    switch (q->verb) {
    case MODE__VERB__VERB_CANCEL:
        if (!run) {
            reject(s, p, m, MODE__REJECT_CODE__REJECT_NOT_FOUND, MODE_E_NOINPUT,
                   "there is no such run; `mode status` lists the runs");
            return;
        }
        if (!run_cancel(&s->runs, run, server_now_ms())) {
            r.changed = 0;
            r.text = "the run had ended before";
        }
        break;
    case MODE__VERB__VERB_DRAIN:
        if (!(r.changed = drain(s, q->worker ? q->worker : "", q->has_grace_ms ? q->grace_ms : 0))) {
            reject(s, p, m, MODE__REJECT_CODE__REJECT_NOT_FOUND, MODE_E_NOINPUT,
                   "no worker and no machine has that name; `mode status` lists the workers");
            return;
        }
        break;
    default:
        reject(s, p, m, MODE__REJECT_CODE__REJECT_STATE, MODE_E_USAGE, "this coordinator does not know that verb");
        return;
    }
    server_settle(s);
    e.control_reply = &r;
    reply(s, p, m, &e);
}

void server_admin_message(struct server *s, const struct mode_packet *p)
{
    struct mode_envelope *in = NULL;
    struct mode_error err = {0};
    if (mode_envelope_unpack(&in, p->data, p->size, MODE_WIRE_ADMIN, &err)) {
        server_bad_message(s, "admin", p->user, err.text);
        if (err.status == MODE_E_CONFIG) { /* another protocol: any reply shows the sender which one this is */
            Mode__Envelope unread = MODE__ENVELOPE__INIT;
            reject(s, p, &unread, MODE__REJECT_CODE__REJECT_VERSION, err.status, err.text);
        }
        return;
    }
    if (!server_lets_in(s, s->admins, p)) {
        reject(s, p, in->msg, MODE__REJECT_CODE__REJECT_PERMISSION, MODE_E_PERM,
               "this key was taken out of the allow list");
        mode_envelope_free(&in);
        return;
    }
    switch (in->msg->body_case) {
    case MODE__ENVELOPE__BODY_SUBMIT: on_submit(s, p, in->msg); break;
    case MODE__ENVELOPE__BODY_STATUS: on_status(s, p, in->msg); break;
    case MODE__ENVELOPE__BODY_CONTROL: on_control(s, p, in->msg); break;
    default:
        server_bad_message(s, "admin", p->user, "an unknown request");
        reject(s, p, in->msg, MODE__REJECT_CODE__REJECT_BAD_MESSAGE, MODE_E_USAGE,
               "this coordinator does not answer that request");
    }
    mode_envelope_free(&in);
}
