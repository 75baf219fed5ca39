#include "client.h"

#include "base/str.h"
#include "msg/address.h"
#include "msg/place.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

struct client {
    struct mode_net *net;
    struct mode_endpoint at;
    char *endpoint;
    const char *workspace;
    uint64_t id;
};

enum mode_status client_check(const struct client_options *o, struct mode_error *err)
{
    return o->admin && *o->admin && mode_endpoint_check(o->admin, false, err)
               ? mode_option_wrong(err, "coordinator-admin")
               : MODE_OK;
}

enum mode_status client_open(struct client **out, const struct client_options *o, struct mode_error *err)
{
    *out = NULL;
    enum mode_status st = client_check(o, err);
    if (st) return st;
    struct client *c = mode_xcalloc(1, sizeof *c);
    c->workspace = o->workspace;
    if (o->admin && *o->admin)
        c->endpoint = mode_xstrdup(o->admin);
    else
        st = mode_place_endpoint(&c->endpoint, o->workspace, "admin.sock", err);
    if (!st) {
        bool tcp = strncmp(c->endpoint, "tcp:", 4) == 0;
        c->at = (struct mode_endpoint){.endpoint = c->endpoint,
                                       .wire = MODE_WIRE_ADMIN,
                                       .key_dir = tcp ? o->key_dir : NULL,
                                       .key_name = o->key_name,
                                       .server_pub = tcp ? o->server_key : NULL};
        st = mode_net_open(&c->net, err);
    }
    if (st)
        client_close(&c);
    else
        *out = c;
    return st;
}

void client_close(struct client **cp)
{
    struct client *c = *cp;
    *cp = NULL;
    if (!c) return;
    mode_net_close(&c->net);
    free(c->endpoint);
    free(c);
}

const char *client_workspace(const struct client *c)
{
    return c->workspace;
}

char *client_where(const struct client_options *o)
{
    if (o->admin && *o->admin)
        return mode_xasprintf(" --coordinator-admin %s%s%s", o->admin, o->key_dir ? " --key-dir " : "",
                              o->key_dir ? o->key_dir : "");
    return strcmp(o->workspace, ".") == 0 ? mode_xstrdup("") : mode_xasprintf(" --workspace %s", o->workspace);
}

uint64_t *client_message_id(struct client *c)
{
    return &c->id;
}

enum mode_status client_told(bool told, uint32_t status)
{
    return told && status > MODE_OK && status <= MODE_E_GENERIC ? (enum mode_status)status : MODE_E_GENERIC;
}

/* Sends a request; a Reject counts as an answer. */
static enum mode_status ask(struct mode_envelope **answer, struct client *c, Mode__Envelope *e, int timeout_ms,
                            struct mode_error *err)
{
    enum mode_status st = mode_ask(answer, c->net, &c->at, e, timeout_ms, err);
    if (st == MODE_E_PEER && c->at.key_dir)
        return MODE_FAIL(err, MODE_E_PEER,
                         "no coordinator answers at %s. HINT: does it run, and is the key \"%s\" of %s in its "
                         "allow list as admin?",
                         c->endpoint, c->at.key_name, c->at.key_dir);
    if (st == MODE_E_PEER)
        return MODE_FAIL(err, MODE_E_PEER, "no coordinator answers at %s. HINT: `mode up --workspace %s` starts one",
                         c->endpoint, c->workspace);
    return st;
}

static enum mode_status check_answer(struct mode_envelope **answer, struct mode_error *err)
{
    if ((*answer)->msg->body_case != MODE__ENVELOPE__BODY_REJECT) return MODE_OK;
    const Mode__Reject *r = (*answer)->msg->reject;
    enum mode_status st = MODE_FAIL(err, client_told(r->has_status, r->status), "%s", r->text);
    mode_envelope_free(answer);
    return st;
}

enum mode_status client_ask(struct mode_envelope **answer, struct client *c, Mode__Envelope *e, int timeout_ms,
                            struct mode_error *err)
{
    enum mode_status st = ask(answer, c, e, timeout_ms, err);
    return st ? st : check_answer(answer, err);
}

enum mode_status client_ask_on(struct mode_envelope **answer, struct client *c, Mode__Envelope *e, int timeout_ms,
                               client_says_fn *says, void *ctx, struct mode_error *err)
{
    for (;;) {
        enum mode_status st = ask(answer, c, e, timeout_ms, err);
        if (st) return st;
        const Mode__Envelope *m = (*answer)->msg;
        if (m->body_case != MODE__ENVELOPE__BODY_REJECT || m->reject->code != MODE__REJECT_CODE__REJECT_STARTING)
            return check_answer(answer, err);
        bool on = says(ctx, m->reject->text);
        if (!on) return check_answer(answer, err);
        mode_envelope_free(answer);
        nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
        e->id = ++c->id;
    }
}

enum mode_status client_status(struct mode_envelope **answer, struct client *c, const char *run, bool workers,
                               uint32_t notes, int timeout_ms, struct mode_error *err)
{
    Mode__Envelope e;
    Mode__Status q = MODE__STATUS__INIT;
    mode_envelope_init(&e, &c->id, MODE__ENVELOPE__BODY_STATUS);
    q.run = (char *)run;
    q.has_workers = q.has_notes = 1;
    q.workers = workers;
    q.notes = notes;
    e.status = &q;
    enum mode_status st = client_ask(answer, c, &e, timeout_ms, err);
    if (!st && (*answer)->msg->body_case != MODE__ENVELOPE__BODY_STATUS_REPLY) {
        mode_envelope_free(answer);
        st = MODE_FAIL(err, MODE_E_FORMAT, "the coordinator answered STATUS with something else");
    }
    return st;
}
