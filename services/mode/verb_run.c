/* mode run - submits a run and follows it. */
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "client.h"
#include "hub.h"
#include "interrupt.h"
#include "msg/status_json.h"
#include "pipeline/spec.h"
#include "progress.h"
#include "ranges.h"
#include "results.h"
#include "verb.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define SAY_AGAIN_S  30 /* interval of messages that something does not answer */
#define NOTES        16
#define WAIT_LASTS_S 3.0 /* shorter waits are not reported */

struct run_options {
    struct client_options client;
    int64_t patience_s;
    bool detach, dry_run, no_progress, quiet, json;
};

static const struct mode_option table[] = {
    CLIENT_OPTIONS(struct run_options),
    MODE_OPT_FLAG(struct run_options, detach, "detach", "submit and return; `mode watch` shows it"),
    MODE_OPT_FLAG(struct run_options, dry_run, "dry-run",
                  "check the spec and its inputs, run nothing; without a coordinator `mode doctor --spec` does"),
    MODE_OPT_FLAG(struct run_options, no_progress, "no-progress", "plain lines instead of progress bars"),
    MODE_OPT_FLAG(struct run_options, quiet, "quiet", "no progress at all"),
    MODE_OPT_INT(struct run_options, patience_s, "patience-s", "120", "S",
                 "how long the coordinator, or Redis behind it, may be unreachable before this command gives up (69)"),
    MODE_OPT_FLAG(struct run_options, json, "json", "print the run's final state as JSON"),
    MODE_OPT_END};

static const struct option_range ranges[] = {RANGE_FROM("patience-s", 0), RANGE_END};

struct said { /* while the coordinator plans */
    FILE *to; /* NULL: nowhere */
    double at_s;
    bool line; /* an unfinished line on a terminal */
};

/* Progress of planning: on a terminal one line that is overwritten, else a line now and then. Ctrl-C ends the wait, not
 * the planning. */
static bool say_how_far(void *ctx, const char *text)
{
    struct said *s = ctx;
    const bool terminal = s->to && isatty(fileno(s->to));
    if (terminal) {
        fprintf(s->to, "\r  %s\x1b[K", text);
        s->line = true;
    } else if (s->to && mode_clock_s() - s->at_s > SAY_AGAIN_S) {
        fprintf(s->to, "  %s\n", text);
        s->at_s = mode_clock_s();
    }
    if (s->to) fflush(s->to);
    return !interrupt_signal();
}

/* Warnings of the coordinator go to `warn` (NULL: nowhere). */
static enum mode_status submit(char **run, struct client *c, const struct mode_spec *spec, bool dry, FILE *warn,
                               struct mode_error *err)
{
    Mode__Envelope e;
    Mode__Submit m = MODE__SUBMIT__INIT;
    struct mode_envelope *answer = NULL;
    uint8_t random[16];
    char key[33];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return MODE_FAIL(err, MODE_E_IO, "getrandom: %s", strerror(errno));
    for (int i = 0; i < 16; i++) snprintf(key + 2 * i, 3, "%02x", random[i]);
    mode_envelope_init(&e, client_message_id(c), MODE__ENVELOPE__BODY_SUBMIT);
    m.spec.data = (uint8_t *)spec->text;
    m.spec.len = strlen(spec->text);
    m.base_dir = spec->folder;
    m.idempotency = key;
    m.has_dry_run = 1;
    m.dry_run = dry;
    e.submit = &m;
    /* planning examines every input and digests the evaluation tasks, which may take long. Repeated requests with the
     * same key are one submission. */
    struct said said = {.to = warn, .at_s = -SAY_AGAIN_S};
    enum mode_status st = client_ask_on(&answer, c, &e, 120000, say_how_far, &said, err);
    if (said.line) fprintf(warn, "\r\x1b[K");
    if (st && interrupt_signal())
        return MODE_FAIL(err, MODE_E_STOPPED,
                         "interrupted while the coordinator checks the inputs; it continues, and takes the run %s when "
                         "that is done. `mode status` shows it then, `mode cancel %s` ends it",
                         spec->name, spec->name);
    if (st) return st;
    if (answer->msg->body_case != MODE__ENVELOPE__BODY_SUBMIT_REPLY) {
        st = MODE_FAIL(err, MODE_E_FORMAT, "the coordinator answered SUBMIT with something else");
    } else {
        const Mode__SubmitReply *r = answer->msg->submit_reply;
        *run = mode_xstrdup(r->run);
        for (size_t i = 0; warn && i < r->n_warnings; i++) fprintf(warn, "  %s\n", r->warnings[i]);
    }
    mode_envelope_free(&answer);
    return st;
}

static enum mode_status outcome(const Mode__Run *run, struct mode_error *err)
{
    uint64_t quarantined = 0;
    for (size_t i = 0; i < run->n_stages; i++) quarantined += run->stages[i]->quarantined;
    switch (run->state) {
    case MODE__RUN_STATE__RUN_DONE: return MODE_OK;
    case MODE__RUN_STATE__RUN_CANCELLED: return MODE_FAIL(err, MODE_E_GENERIC, "the run %s was cancelled", run->name);
    default:
        return MODE_FAIL(err, quarantined ? MODE_E_VALUE : client_told(run->has_status, run->status),
                         "the run %s failed: %s", run->name, run->message ? run->message : "");
    }
}

struct waiting {    /* a stage whose tasks wait for workers */
    char cause[32]; /* as last reported, "" = none */
    double gone_s;  /* since when it no longer waits; 0 = waiting */
};

struct watching {
    struct progress progress;
    struct waiting waiting[PROGRESS_STAGES];
    bool show;
    double heard_s, ready_s, said_s; /* last times: the coordinator answered, Redis was up, a message was printed */
    int64_t noted_ms;                /* time of the last note shown */
    char message[512];               /* of the run, when last shown */
};

/* Shows problems when they occur, not only at the end. */
static void show_news(struct watching *w, const Mode__StatusReply *r, const Mode__Run *run)
{
    char line[600];
    if (!w->noted_ms && r->paused)
        progress_say(&w->progress, r->paused); /* as a note, for problems before this
                                                                             command */
    if (!w->noted_ms) w->noted_ms = run->created_unix_ms - 1;
    for (size_t i = 0; i < r->n_notes; i++) {
        if (r->notes[i]->unix_ms <= w->noted_ms) continue;
        w->noted_ms = r->notes[i]->unix_ms;
        snprintf(line, sizeof line, "%.512s", r->notes[i]->text);
        progress_say(&w->progress, line);
    }
    const char *message = run->message ? run->message : "";
    if (strncmp(w->message, message, sizeof w->message - 1) == 0) return;
    snprintf(w->message, sizeof w->message, "%s", message);
    if (*message && run->state == MODE__RUN_STATE__RUN_RUNNING) {
        snprintf(line, sizeof line, "the run is waiting and will be tried again: %s", w->message);
        progress_say(&w->progress, line);
    }
}

/* Reports once when a stage begins to wait for workers, or its reason changes, and once when it continues. */
static void show_waits(struct watching *w, const Mode__Run *run)
{
    char line[100];
    for (size_t i = 0; i < run->n_stages && i < PROGRESS_STAGES; i++) {
        const Mode__Stage *s = run->stages[i];
        struct waiting *x = &w->waiting[i];
        if (s->wait) {
            x->gone_s = 0;
            if (s->wait->seconds < WAIT_LASTS_S || strcmp(x->cause, s->wait->cause) == 0) continue;
            snprintf(x->cause, sizeof x->cause, "%s", s->wait->cause);
            progress_say(&w->progress, s->wait->text);
        } else if (x->cause[0] && (s->leased || s->done == s->total)) {
            if (x->gone_s <= 0) x->gone_s = mode_clock_s();
            if (s->leased && mode_clock_s() - x->gone_s < WAIT_LASTS_S) continue; /* it may stop again at once */
            snprintf(line, sizeof line, "%.64s goes on", s->name);
            progress_say(&w->progress, line);
            *x = (struct waiting){0};
        }
    }
}

/* Something that everything depends on has not answered since then: reports that from time to time, and finally gives
 * up. */
static enum mode_status wait_on(struct watching *w, const char *what, double since_s, const struct run_options *o,
                                const char *name, struct mode_error *err)
{
    double now = mode_clock_s();
    char line[200];
    if (now - since_s > (double)o->patience_s)
        return MODE_FAIL(err, MODE_E_PEER,
                         "%s has not answered for %.0f s. What is done is kept, and the run %s continues by itself "
                         "when it is back; `mode run` with the same spec follows it again. HINT: %s/logs tells why",
                         what, now - since_s, name, o->client.workspace);
    if (w->show && now - since_s > 3 && now - w->said_s > SAY_AGAIN_S) {
        snprintf(line, sizeof line, "%s has not answered for %.0f s; waiting for it", what, now - since_s);
        progress_say(&w->progress, line);
        w->said_s = now;
    }
    return MODE_OK;
}

/* Follows the run until it has ended. Returns its outcome. */
static enum mode_status follow(struct client *c, const char *name, const struct run_options *o, struct mode_error *err)
{
    double now = mode_clock_s();
    struct watching w = {.show = !o->quiet, .heard_s = now, .ready_s = now, .said_s = -SAY_AGAIN_S};
    progress_open(&w.progress, stderr, o->no_progress);
    for (;;) {
        struct mode_envelope *answer = NULL;
        enum mode_status st = client_status(&answer, c, name, false, NOTES, 5000, err);
        if (interrupt_signal()) {
            mode_envelope_free(&answer);
            if (w.show) fprintf(stderr, "\n");
            char *where = client_where(&o->client);
            st = MODE_FAIL(
                err, MODE_E_STOPPED,
                "the run %s continues without this terminal; `mode watch%s` shows it, `mode cancel %s%s` ends it", name,
                where, name, where);
            free(where);
            return st;
        }
        if (st == MODE_E_PEER) {
            if ((st = wait_on(&w, "the coordinator", w.heard_s, o, name, err))) return st;
        } else if (st) {
            return st;
        } else {
            const Mode__StatusReply *reply = answer->msg->status_reply;
            now = w.heard_s = mode_clock_s();
            if (reply->ready) w.ready_s = now;
            if (reply->n_runs != 1) {
                mode_envelope_free(&answer);
                return MODE_FAIL(err, MODE_E_GENERIC, "the run %s is gone", name);
            }
            const Mode__Run *run = reply->runs[0];
            if (w.show) {
                progress_show(&w.progress, run);
                show_news(&w, reply, run);
                show_waits(&w, run);
            }
            bool ended = run->state != MODE__RUN_STATE__RUN_RUNNING;
            if (ended) {
                st = outcome(run, err);
                if (o->json) {
                    char *json = mode_status_json(reply);
                    puts(json);
                    free(json);
                }
            } else if (!reply->ready) {
                st = wait_on(&w, "Redis", w.ready_s, o, name, err);
            }
            mode_envelope_free(&answer);
            if (ended || st) return st;
        }
        nanosleep(&(struct timespec){.tv_nsec = w.progress.terminal ? 250000000 : 500000000}, NULL);
    }
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct run_options o = {0};
    struct mode_spec spec = {0};
    struct client *c = NULL;
    char *name = NULL;
    int n_args;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_", "mode run SPEC.yaml [options]",
                          "Submits a run to the coordinator of the workspace and follows it until it ends. What is "
                          "already done is not done again. Ctrl-C leaves it running. docs/RUN.md explains the spec.\n"
                          "Exit: 0 done, 1 cancelled, 65 some tasks were given up or an expert gets too few pairs, 66 "
                          "an input is missing, 69 no coordinator, 75 an unfinished run of that name has another spec, "
                          "78 wrong spec, 130 after Ctrl-C.");
        return MODE_OK;
    }
    enum mode_status st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err);
    if (st || (st = arguments_check(n_args, 1, argv, NULL, err)) ||
        (st = option_needed(n_args ? argv[1] : NULL, "SPEC.yaml", err)) ||
        (st = ranges_check(&o, table, ranges, err)) || (st = client_check(&o.client, err)))
        return st;
    if ((st = mode_spec_load(&spec, argv[1], mode_hub_fetch, err))) goto out;
    if ((st = client_open(&c, &o.client, err))) goto out;
    interrupt_catch();
    if ((st = submit(&name, c, &spec, o.dry_run, o.quiet ? NULL : stderr, err))) goto out;
    if (o.dry_run) {
        printf(o.json ? "{\"run\": \"%s\", \"submitted\": false}\n" : "%s: the spec and its inputs are fine\n",
               spec.name); /* names need no escaping */
        goto out;
    }
    if (o.detach) {
        printf(o.json ? "{\"run\": \"%s\", \"submitted\": true}\n" : "%s\n", name);
        goto out;
    }
    if ((st = follow(c, name, &o, err))) goto out;
    if (!o.json) st = results_print(client_workspace(c), err);
out:
    client_close(&c);
    mode_spec_clear(&spec);
    free(name);
    return st;
}

const struct mode_verb mode_verb_run = {"run", "submit a run and watch it", run};
