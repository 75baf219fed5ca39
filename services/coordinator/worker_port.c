/* worker_port.c - translates between worker messages and the core's events and actions. */
#include "server.h"

#include "base/file.h"
#include "base/log.h"
#include "base/process.h"
#include "base/str.h"
#include "base/version.h"
#include "msg/code_version.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------------------------------------- sending */

static bool send_route(struct server *s, const struct server_route *to, Mode__Envelope *e)
{
    struct mode_error err = {0};
    e->has_epoch = 1;
    e->epoch = s->epoch;
    if (!to->n) return false;
    enum mode_status st = mode_socket_send(s->workers, to->bytes, to->n, e, &err);
    if (st && st != MODE_E_TEMP) mode_log_failure("send", &err);
    return st == MODE_OK;
}

static const struct server_route *route_of(const struct server *s, const char *session)
{
    uint32_t w = core_find_worker(&s->core, session);
    return w == CORE_NONE || w >= s->n_routes ? &s->current : &s->route[w];
}

static void reject(struct server *s, Mode__RejectCode code, const char *text)
{
    Mode__Envelope e;
    Mode__Reject r = MODE__REJECT__INIT;
    mode_envelope_init(&e, &s->message_id, MODE__ENVELOPE__BODY_REJECT);
    r.code = code;
    r.text = mode_xstrdup(text);
    mode_wire_text(r.text);
    e.reject = &r;
    send_route(s, &s->current, &e);
    free(r.text);
}

bool server_send_assign(struct server *s, const struct core_action *a)
{
    Mode__Envelope e;
    Mode__Assign m = MODE__ASSIGN__INIT;
    const struct core_task *t = &s->core.task[a->task];
    mode_envelope_init(&e, &s->message_id, MODE__ENVELOPE__BODY_ASSIGN);
    m.key = t->key;
    m.fence = a->fence;
    m.attempt = t->attempt;
    m.stall_ms = t->stall_ms;
    m.run = t->run;
    m.label = t->label;
    e.assign = &m;
    return send_route(s, route_of(s, a->session), &e);
}

/* Collects KEPT and DROPPED actions for the WELCOME that follows them. */
static void keep_lease(struct server *s, const struct core_action *a)
{
    if (s->n_held == SERVER_MAX_HELD) return; /* the envelope's own limit is lower */
    struct server_held *h = &s->held[s->n_held++];
    snprintf(h->key, sizeof h->key, "%s", a->key);
    h->fence = a->fence;
    h->kept = a->type == CORE_ACT_KEPT;
}

static void send_welcome(struct server *s, const struct core_action *a)
{
    Mode__Envelope e;
    Mode__Welcome m = MODE__WELCOME__INIT;
    Mode__Lease lease[SERVER_MAX_HELD], *kept[SERVER_MAX_HELD], *dropped[SERVER_MAX_HELD];
    mode_envelope_init(&e, &s->message_id, MODE__ENVELOPE__BODY_WELCOME);
    for (size_t i = 0; i < s->n_held; i++) {
        mode__lease__init(&lease[i]);
        lease[i].key = s->held[i].key;
        lease[i].fence = s->held[i].fence;
        if (s->held[i].kept)
            kept[m.n_kept++] = &lease[i];
        else
            dropped[m.n_dropped++] = &lease[i];
    }
    m.heartbeat_ms = s->core.opt.heartbeat_ms;
    m.lease_ms = s->core.opt.lease_ms;
    m.kept = kept;
    m.dropped = dropped;
    e.welcome = &m;
    e.session = (char *)a->session;
    send_route(s, route_of(s, a->session), &e);
    s->n_held = 0;
}

void server_send_action(struct server *s, const struct core_action *a)
{
    Mode__Envelope e;
    switch (a->type) {
    case CORE_ACT_CANCEL: {
        Mode__Cancel m = MODE__CANCEL__INIT;
        mode_envelope_init(&e, &s->message_id, MODE__ENVELOPE__BODY_CANCEL);
        m.key = (char *)a->key;
        m.fence = a->fence;
        m.grace_ms = s->core.opt.grace_ms;
        e.cancel = &m;
        send_route(s, route_of(s, a->session), &e);
        break;
    }
    case CORE_ACT_ACK: {
        Mode__ResultAck m = MODE__RESULT_ACK__INIT;
        mode_envelope_init(&e, &s->message_id, MODE__ENVELOPE__BODY_RESULT_ACK);
        m.key = (char *)a->key;
        m.fence = a->fence;
        m.verdict = (Mode__Verdict)a->verdict;
        e.result_ack = &m;
        send_route(s, route_of(s, a->session), &e);
        break;
    }
    case CORE_ACT_DRAIN: {
        Mode__Drain m = MODE__DRAIN__INIT;
        mode_envelope_init(&e, &s->message_id, MODE__ENVELOPE__BODY_DRAIN);
        m.grace_ms = a->grace_ms;
        m.reason = "`mode drain` takes it out of work";
        e.drain = &m;
        send_route(s, route_of(s, a->session), &e);
        break;
    }
    case CORE_ACT_KEPT:
    case CORE_ACT_DROPPED: keep_lease(s, a); break;
    case CORE_ACT_WELCOME: send_welcome(s, a); break;
    case CORE_ACT_NAME_TAKEN:
        reject(s, MODE__REJECT_CODE__REJECT_NAME_TAKEN, "another worker with this name is alive");
        break;
    case CORE_ACT_UNKNOWN_SESSION:
        reject(s, MODE__REJECT_CODE__REJECT_UNKNOWN_SESSION, "this connection is not known here (any more); say HELLO");
        break;
    default: MODE_ASSERT(!"an action that is sent");
    }
}

/* ---------------------------------------------------------------------------------------------- receiving */

static void remember_route(struct server *s, uint32_t w)
{
    if (w >= s->n_routes) {
        s->route = mode_xrealloc(s->route, (w + 1) * sizeof *s->route);
        for (; s->n_routes <= w; s->n_routes++) s->route[s->n_routes].n = 0;
    }
    s->route[w] = s->current;
}

/* Rejects a worker; `mode status` then shows the reason why tasks wait. */
static void turn_away(struct server *s, const Mode__Hello *h, Mode__RejectCode code, const char *why)
{
    reject(s, code, why);
    server_turned_away(s, h->service, h->name, why);
}

/* Another protocol: its HELLO cannot be read. */
static void turn_away_unread(struct server *s, const char *user, const char *why)
{
    const char *name = user[0] ? user : "a worker";
    if (!server_turned_lately(s, name)) server_note(s, "warn", "refused", "%s was rejected: %s", name, why);
    server_turned_away(s, "", name, why);
}

/* Every worker takes a file descriptor. Some must stay free for reading commit records and serving people. */
static bool have_room(const struct server *s, char *why, size_t size)
{
    enum { SPARE = 64 };
    uint64_t open = mode_process_open_files();
    if (!s->most_files || open + SPARE <= s->most_files) return true;
    snprintf(why, size,
             "%llu of the %llu files that the coordinator may have open are open. HINT: raise its limit (ulimit -Hn, "
             "LimitNOFILE=, docker's --ulimit nofile) and start it again, or start fewer workers with more --slots",
             (unsigned long long)open, (unsigned long long)s->most_files);
    return false;
}

/* Independent of package versions: a worker must make the outputs that the task keys here stand for. */
static bool is_of_its_code(const Mode__Hello *h, char *why, size_t size)
{
    char wanted[128];
    const bool known = mode_code_number(h->service) > 0;
    mode_code_version(wanted, sizeof wanted, h->service);
    if (known && strcmp(h->code_version, wanted) == 0) return true;
    if (!known) {
        snprintf(why, size, "there are no tasks for \"%.32s\" here. HINT: is the coordinator, version %s, too old?",
                 h->service, mode_version);
        return false;
    }
    snprintf(
        why, size,
        "your version %.32s makes outputs %.64s; the tasks here need %.64s, of version %s. HINT: update the older one",
        h->build, h->code_version, wanted, mode_version);
    return false;
}

static void on_hello(struct server *s, const Mode__Hello *h)
{
    char text[300];
    struct core_lease *lease;
    const char *device = "";
    for (size_t i = 0; i < h->n_labels; i++)
        if (strcmp(h->labels[i]->name, "device") == 0) device = h->labels[i]->value;
    if (strcmp(h->store_id, mode_store_id(s->store)) != 0) {
        snprintf(text, sizeof text, "your workspace is another store (%.12s...) than the coordinator's (%.12s...)",
                 h->store_id, mode_store_id(s->store));
        turn_away(s, h, MODE__REJECT_CODE__REJECT_STORE, text);
        return;
    }
    if (!is_of_its_code(h, text, sizeof text)) {
        if (!server_turned_lately(s, h->name)) server_note(s, "warn", "refused", "%s was rejected: %s", h->name, text);
        turn_away(s, h, MODE__REJECT_CODE__REJECT_CODE, text);
        return;
    }
    if (strlen(h->session) != CORE_SESSION - 1) {
        reject(s, MODE__REJECT_CODE__REJECT_BAD_MESSAGE, "a session is 32 hex digits");
        return;
    }
    bool known = core_find_worker(&s->core, h->session) != CORE_NONE;
    if (!known && !have_room(s, text, sizeof text)) {
        turn_away(s, h, MODE__REJECT_CODE__REJECT_LIMIT, text);
        if (server_now_ms() >= s->files_said_ms) server_note(s, "warn", "refused", "%s: %s", h->name, text);
        s->files_said_ms = server_now_ms() + 60000; /* rate limit: they keep retrying */
        return;
    }
    lease = mode_xcalloc(h->n_held + 1, sizeof *lease);
    for (size_t i = 0; i < h->n_held && i < SERVER_MAX_HELD; i++) {
        snprintf(lease[i].key, sizeof lease[i].key, "%s", h->held[i]->key);
        lease[i].fence = h->held[i]->fence;
    }
    struct core_event e = {.type = CORE_EV_HELLO,
                           .session = h->session,
                           .service = h->service,
                           .code = h->code_version,
                           .name = h->name,
                           .node = h->node,
                           .build = h->build,
                           .device = device,
                           .n = h->slots,
                           .incarnation = h->has_incarnation ? h->incarnation : 0,
                           .held = lease,
                           .n_held = h->n_held < SERVER_MAX_HELD ? h->n_held : SERVER_MAX_HELD};
    core_handle(&s->core, &e, server_now_ms());
    free(lease);
    uint32_t w = core_find_worker(&s->core, h->session);
    if (w != CORE_NONE) {
        remember_route(s, w);
        if (!known) mode_log_info("worker", "name=%s service=%s slots=%u", h->name, h->service, h->slots);
    } else {
        server_turned_away(s, h->service, h->name, "another worker with its name is alive");
    }
    server_settle(s);
}

/* When a task is given up, keeps the tail of the worker's log beside the run's record, for people. */
static void keep_last_words(struct server *s, const Mode__Fail *m)
{
    enum { MOST_FILES = 100, LINE = 200 };
    uint32_t t = core_find_task(&s->core, m->key);
    if (!m->has_log_tail || !m->log_tail.len) return;
    const struct run *run = runs_find(&s->runs, s->core.task[t].run);
    if (!run || s->n_last_words >= MOST_FILES) return; /* the first ones are enough */
    struct mode_error err = {0};
    char *dir = mode_xasprintf("%s/runs/%s/failed", mode_store_root(s->store), run->name),
         *path = mode_xasprintf("%s/%.16s.log", dir, m->key), line[LINE + 1];
    const uint8_t *at = m->log_tail.data, *end = at + m->log_tail.len;
    if (mode_dir_make(dir, &err) || mode_file_write_atomic(path, (const char *)at, m->log_tail.len, &err)) {
        mode_log_failure("last_words", &err);
    } else {
        s->n_last_words++;
        while (end > at && end[-1] == '\n') end--;
        size_t n = 0;
        while (n < LINE && end - n > at && end[-1 - (ptrdiff_t)n] != '\n') n++;
        for (size_t i = 0; i < n; i++) line[i] = isprint(end[i - n]) ? (char)end[i - n] : '?'; /* whatever it wrote */
        line[n] = '\0';
        server_note(s, "warn", "last_words", "%s: the worker's last lines are in %s; the last one: %s",
                    s->core.task[t].label, path, line);
    }
    free(dir);
    free(path);
}

static bool is_given_up(const struct server *s, const char *key)
{
    uint32_t t = core_find_task(&s->core, key);
    return t != CORE_NONE && s->core.task[t].state == CORE_QUARANTINED;
}

static void on_fail(struct server *s, const char *session, const Mode__Fail *m)
{
    bool was = is_given_up(s, m->key); /* it is resent until acknowledged */
    uint32_t t = core_find_task(&s->core, m->key);
    bool held = t != CORE_NONE && s->core.task[t].state == CORE_LEASED && s->core.task[t].fence == m->fence;
    server_event(s, &(struct core_event){.type = CORE_EV_FAIL,
                                         .session = session,
                                         .key = m->key,
                                         .fence = m->fence,
                                         .fail = (enum core_fail)m->class_, /* the envelope check allows no other
                                                                                value */
                                         .status = m->status,
                                         .text = m->text});
    if (!was && is_given_up(s, m->key)) keep_last_words(s, m);
    if (held && m->class_ == MODE__FAIL_CLASS__FAIL_INTEGRITY && m->digest) {
        runs_input_bad(&s->runs, t, m->digest, server_now_ms());
        server_settle(s);
    }
}

static size_t take_scores(struct core_score score[CORE_SCORES], const Mode__TaskProgress *t)
{
    size_t n = t->n_scores < CORE_SCORES ? t->n_scores : CORE_SCORES;
    for (size_t i = 0; i < n; i++) {
        const Mode__Score *from = t->scores[i];
        score[i] = (struct core_score){.value = from->value, .step = from->step};
        snprintf(score[i].task, sizeof score[i].task, "%s", from->task);
        snprintf(score[i].metric, sizeof score[i].metric, "%s", from->metric);
        mode_wire_text(score[i].task);
        mode_wire_text(score[i].metric);
    }
    return n;
}

static void on_progress(struct server *s, const char *session, uint64_t id, const Mode__Progress *m)
{
    struct core_event e = {.type = CORE_EV_PROGRESS, .session = session, .key = ""};
    char unit[sizeof s->core.task->unit];
    struct core_score score[CORE_SCORES];
    if (!m->n_tasks) core_handle(&s->core, &e, server_now_ms());
    for (size_t i = 0; i < m->n_tasks; i++) {
        const Mode__TaskProgress *t = m->tasks[i];
        e.key = t->key;
        e.fence = t->fence;
        e.done = t->done;
        e.total = t->total;
        e.changes = t->changes;
        snprintf(unit, sizeof unit, "%s", t->unit ? t->unit : "");
        mode_wire_text(unit);
        e.unit = unit;
        e.rate = t->rate;
        e.seconds = t->seconds;
        e.rss_bytes = t->rss_bytes;
        e.train = (struct core_train_step){0};
        if (t->train)
            e.train = (struct core_train_step){true, t->train->loss, t->train->lr, t->train->logit_scale,
                                               t->train->samples_per_s};
        e.score = score;
        e.n_scores = take_scores(score, t);
        core_handle(&s->core, &e, server_now_ms());
    }
    server_settle(s);
    uint32_t w = core_find_worker(&s->core, session);
    if (w == CORE_NONE) return;
    if (m->has_agent_peak_rss_bytes) {
        char name[80];
        snprintf(name, sizeof name, "agent of %.64s", s->core.worker[w].service);
        peaks_note(&s->peaks, name, m->agent_peak_rss_bytes);
    }
    Mode__Envelope ping;
    Mode__Ping body = MODE__PING__INIT;
    mode_envelope_init(&ping, &s->message_id, MODE__ENVELOPE__BODY_PING);
    ping.ping = &body;
    ping.has_reply_to = 1; /* the worker's lease runs from when it sent the heartbeat that this acknowledges */
    ping.reply_to = id;
    send_route(s, route_of(s, session), &ping);
}

static void dispatch_message(struct server *s, const Mode__Envelope *m)
{
    const char *session = m->session ? m->session : "";
    struct core_event e = {.session = session};
    if (m->body_case == MODE__ENVELOPE__BODY_HELLO) {
        on_hello(s, m->hello);
        return;
    }
    uint32_t w = core_find_worker(&s->core, session);
    if (w != CORE_NONE) remember_route(s, w);
    switch (m->body_case) {
    case MODE__ENVELOPE__BODY_PROGRESS: on_progress(s, session, m->id, m->progress); return;
    case MODE__ENVELOPE__BODY_CREDIT:
        e.type = CORE_EV_CREDIT;
        e.n = m->credit->n;
        break;
    case MODE__ENVELOPE__BODY_ASSIGN_ACK:
        e.type = CORE_EV_ASSIGN_ACK;
        e.key = m->assign_ack->key;
        e.fence = m->assign_ack->fence;
        e.ok = m->assign_ack->accepted;
        break;
    case MODE__ENVELOPE__BODY_RESULT:
        e.type = CORE_EV_RESULT;
        e.key = m->result->key;
        e.fence = m->result->fence;
        break;
    case MODE__ENVELOPE__BODY_FAIL: on_fail(s, session, m->fail); return;
    case MODE__ENVELOPE__BODY_RELEASE:
        e.type = CORE_EV_RELEASE;
        e.key = m->release->key;
        e.fence = m->release->fence;
        break;
    case MODE__ENVELOPE__BODY_BYE: e.type = CORE_EV_BYE; break;
    default: server_bad_message(s, "worker", "", "not a message that workers send"); return;
    }
    server_event(s, &e);
}

void server_worker_message(struct server *s, const struct mode_packet *p)
{
    struct mode_envelope *in = NULL;
    struct mode_error err = {0};
    memcpy(s->current.bytes, p->route, p->n_route);
    s->current.n = p->n_route;
    if (!server_lets_in(s, s->workers, p)) {
        static const char why[] = "its key was taken out of the allow list";
        reject(s, MODE__REJECT_CODE__REJECT_PERMISSION, why);
        server_turned_away(s, "", p->user, why);
        return;
    }
    if (mode_envelope_unpack(&in, p->data, p->size, MODE_WIRE_WORKER, &err)) {
        server_bad_message(s, "worker", p->user, err.text);
        bool protocol = err.status == MODE_E_CONFIG;
        reject(s, protocol ? MODE__REJECT_CODE__REJECT_VERSION : MODE__REJECT_CODE__REJECT_BAD_MESSAGE, err.text);
        if (protocol) turn_away_unread(s, p->user, err.text);
        return;
    }
    dispatch_message(s, in->msg);
    mode_envelope_free(&in);
}
