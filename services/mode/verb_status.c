/* mode status, mode watch, mode cancel, mode drain - show the runs of a workspace, cancel one, drain workers. */
#include "base/memory.h"
#include "base/str.h"
#include "client.h"
#include "msg/status_json.h"
#include "progress.h"
#include "ranges.h"
#include "verb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct status_options {
    struct client_options client;
    bool json;
    int64_t grace_s;
};

static const struct mode_option status_table[] = {CLIENT_OPTIONS(struct status_options),
                                                  MODE_OPT_FLAG(struct status_options, json, "json", "print JSON"),
                                                  MODE_OPT_END};

static const struct mode_option plain_table[] = {CLIENT_OPTIONS(struct status_options), MODE_OPT_END};

static const struct mode_option drain_table[] = {
    CLIENT_OPTIONS(struct status_options),
    MODE_OPT_INT(struct status_options, grace_s, "grace-s", "0", "S",
                 "after this, give back tasks that still run (training at its last checkpoint); 0 = let them finish"),
    MODE_OPT_END};

static const struct option_range drain_ranges[] = {RANGE("grace-s", 0, 86400), RANGE_END};
static const struct option_range no_ranges[] = {RANGE_END};

static void when(char *out, size_t n, int64_t unix_ms)
{
    time_t t = (time_t)(unix_ms / 1000);
    struct tm tm;
    strftime(out, n, "%H:%M:%S", localtime_r(&t, &tm));
}

/* "colour top1 41.2 %": maps names of metrics.json to common ones. */
static void print_score(FILE *out, const Mode__Score *s)
{
    const char *metric = strcmp(s->metric, "acc1") == 0                     ? "top1"
                         : strcmp(s->metric, "acc5") == 0                   ? "top5"
                         : strcmp(s->metric, "mean_average_precision") == 0 ? "mAP"
                                                                            : s->metric;
    fprintf(out, "%s %s %.1f %%", s->task, metric, 100 * s->value);
}

/* The latest score of each task, on one line; during a validation some are of a later step than others. */
static void print_scores(FILE *out, const Mode__TaskRow *t)
{
    enum { SHOWN = 4 };
    if (t->n_scores) fprintf(out, "    ");
    for (size_t i = 0; i < t->n_scores && i < SHOWN; i++) {
        const bool last = i + 1 == t->n_scores || i + 1 == SHOWN;
        print_score(out, t->scores[i]);
        if (last || t->scores[i]->step != t->scores[i + 1]->step)
            fprintf(out, " at step %llu", (unsigned long long)t->scores[i]->step);
        if (!last) fprintf(out, ", ");
    }
    if (t->n_scores > SHOWN)
        fprintf(out, ", and %zu more task%s (--json)", t->n_scores - SHOWN, MODE_PLURAL(t->n_scores - SHOWN));
    if (t->n_scores) fputc('\n', out);
}

static void print_train_step(FILE *out, const Mode__TaskRow *t)
{
    if (!t->train) return;
    fprintf(out, "    %s of %s: step %llu of %llu, loss %.4f, lr %.3g, logit scale %.2f, %.1f pairs/s\n", t->label,
            t->run, (unsigned long long)t->done, (unsigned long long)t->total, t->train->loss, t->train->lr,
            t->train->logit_scale, t->train->samples_per_s);
}

static void print_status(FILE *out, const Mode__StatusReply *r)
{
    char text[32], room[MODE_SIZE_TEXT];
    progress_time(text, sizeof text, r->uptime_s);
    fprintf(out, "coordinator %s, up %s, epoch %llu, %s; %s free in %s\n", r->version, text,
            (unsigned long long)r->epoch, r->ready ? "ready" : "NOT READY (Redis does not answer)",
            mode_size_text(room, r->store_free_bytes), r->store ? r->store : "?");
    if (r->paused) fprintf(out, "PAUSED: %s\n", r->paused);
    for (size_t i = 0; i < r->n_runs; i++) {
        const Mode__Run *run = r->runs[i];
        const char *message = run->message && strcmp(run->message, mode_run_state_name(run->state)) ? run->message : "";
        progress_time(text, sizeof text, run->elapsed_s);
        fprintf(out, "\nrun %s: %s, %s%s%s\n", run->name, mode_run_state_name(run->state), text, *message ? ": " : "",
                message);
        for (size_t s = 0; s < run->n_stages; s++) {
            const Mode__Stage *x = run->stages[s];
            fprintf(out, "  %-14s %5llu of %-5llu done", x->name, (unsigned long long)x->done,
                    (unsigned long long)x->total);
            if (x->leased) fprintf(out, ", %llu running", (unsigned long long)x->leased);
            if (x->ready) fprintf(out, ", %llu ready", (unsigned long long)x->ready);
            if (x->quarantined) fprintf(out, ", %llu given up", (unsigned long long)x->quarantined);
            if (x->leased && x->live_total && x->unit && *x->unit)
                fprintf(out, "  %llu/%llu %s", (unsigned long long)x->live_done, (unsigned long long)x->live_total,
                        x->unit);
            if (x->has_eta_s) {
                progress_time(text, sizeof text, x->eta_s);
                fprintf(out, "  %s left", text);
            }
            if (!x->wait && x->message && *x->message && x->done < x->total) fprintf(out, "  %s", x->message);
            fputc('\n', out);
            if (x->wait) fprintf(out, "    WAITS %.0f s: %s\n", x->wait->seconds, x->wait->text);
        }
    }
    if (r->n_workers) fprintf(out, "\nworkers\n");
    for (size_t i = 0; i < r->n_workers; i++) {
        const Mode__Worker *w = r->workers[i];
        fprintf(out, "  %-28s %-9s %llu done, %llu failed", w->name, w->state, (unsigned long long)w->done,
                (unsigned long long)w->failed);
        for (size_t k = 0; k < w->n_labels; k++)
            if (strcmp(w->labels[k]->name, "device") == 0) fprintf(out, "  [%s]", w->labels[k]->value);
        if (w->build && strcmp(w->build, r->version) != 0) fprintf(out, "  version %s", w->build);
        for (size_t t = 0; t < w->n_tasks; t++)
            if (w->tasks[t]->total)
                fprintf(out, "  %s %llu/%llu %s", w->tasks[t]->label, (unsigned long long)w->tasks[t]->done,
                        (unsigned long long)w->tasks[t]->total, w->tasks[t]->unit);
            else
                fprintf(out, "  %s begins", w->tasks[t]->label);
        fputc('\n', out);
        for (size_t t = 0; t < w->n_tasks; t++) {
            print_train_step(out, w->tasks[t]);
            print_scores(out, w->tasks[t]);
        }
        if (w->why) fprintf(out, "    %s\n", w->why);
    }
    if (r->tasks_left_out || r->workers_left_out)
        fprintf(out, "  (and %llu more worker%s and %llu more running task%s: /status of --http lists them all)\n",
                (unsigned long long)r->workers_left_out, MODE_PLURAL(r->workers_left_out),
                (unsigned long long)r->tasks_left_out, MODE_PLURAL(r->tasks_left_out));
    if (r->n_notes) fprintf(out, "\n");
    for (size_t i = 0; i < r->n_notes; i++) {
        when(text, sizeof text, r->notes[i]->unix_ms);
        fprintf(out, "%s %s\n", text, r->notes[i]->text);
    }
}

/* needed: the required argument, or NULL if it is optional. */
static enum mode_status parse(struct status_options *o, const struct mode_option *table,
                              const struct option_range *ranges, const char *needed, int argc, char **argv, int *n_args,
                              struct client **c, struct mode_error *err)
{
    *o = (struct status_options){0};
    enum mode_status st = mode_options_parse(o, table, "MODE_", argc, argv, n_args, err);
    if (!st) st = arguments_check(*n_args, 1, argv, NULL, err);
    if (!st && needed) st = option_needed(*n_args ? argv[1] : NULL, needed, err);
    if (!st) st = ranges_check(o, table, ranges, err);
    return st ? st : client_open(c, &o->client, err);
}

static enum mode_status status(int argc, char **argv, struct mode_error *err)
{
    struct status_options o;
    struct client *c = NULL;
    struct mode_envelope *answer = NULL;
    int n_args;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(status_table, "MODE_", "mode status [RUN] [options]",
                          "Shows runs, workers and recent notes.");
        return MODE_OK;
    }
    enum mode_status st = parse(&o, status_table, no_ranges, NULL, argc, argv, &n_args, &c, err);
    if (!st) st = client_status(&answer, c, n_args ? argv[1] : "", true, 10, 5000, err);
    if (!st && o.json) {
        char *json = mode_status_json(answer->msg->status_reply);
        puts(json);
        free(json);
    } else if (!st) {
        print_status(stdout, answer->msg->status_reply);
    }
    mode_envelope_free(&answer);
    client_close(&c);
    return st;
}

static enum mode_status watch(int argc, char **argv, struct mode_error *err)
{
    struct status_options o;
    struct client *c = NULL;
    int n_args;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(plain_table, "MODE_", "mode watch [RUN] [options]",
                          "Shows what `mode status` shows, refreshed until Ctrl-C.");
        return MODE_OK;
    }
    enum mode_status st = parse(&o, plain_table, no_ranges, NULL, argc, argv, &n_args, &c, err);
    bool terminal = isatty(STDOUT_FILENO);
    while (!st) {
        struct mode_envelope *answer = NULL;
        st = client_status(&answer, c, n_args ? argv[1] : "", true, 10, 5000, err);
        if (terminal) printf("\033[H\033[2J");
        if (st == MODE_E_PEER && terminal) {
            printf("%s\n", err->text);
            st = MODE_OK;
        } else if (!st) {
            print_status(stdout, answer->msg->status_reply);
        }
        fflush(stdout);
        mode_envelope_free(&answer);
        if (st) break;
        nanosleep(&(struct timespec){.tv_sec = terminal ? 1 : 10}, NULL);
    }
    client_close(&c);
    return st;
}

/* *said: the coordinator's answer. */
static enum mode_status control(const char **said, struct mode_envelope **answer, struct client *c, Mode__Control *q,
                                struct mode_error *err)
{
    Mode__Envelope e;
    mode_envelope_init(&e, client_message_id(c), MODE__ENVELOPE__BODY_CONTROL);
    e.control = q;
    enum mode_status st = client_ask(answer, c, &e, 10000, err);
    if (st) return st;
    if ((*answer)->msg->body_case != MODE__ENVELOPE__BODY_CONTROL_REPLY)
        return MODE_FAIL(err, MODE_E_FORMAT, "the coordinator answered CONTROL with something else");
    *said = (*answer)->msg->control_reply->changed ? NULL : (*answer)->msg->control_reply->text;
    return MODE_OK;
}

static enum mode_status cancel(int argc, char **argv, struct mode_error *err)
{
    struct status_options o;
    struct client *c = NULL;
    struct mode_envelope *answer = NULL;
    Mode__Control q = MODE__CONTROL__INIT;
    const char *said = NULL;
    int n_args;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(plain_table, "MODE_", "mode cancel RUN [options]",
                          "Ends a run. What is done stays done: `mode run` with the same spec goes on from there.");
        return MODE_OK;
    }
    enum mode_status st = parse(&o, plain_table, no_ranges, "RUN (`mode status` lists them)", argc, argv, &n_args, &c,
                                err);
    if (!st) {
        q.verb = MODE__VERB__VERB_CANCEL;
        q.run = argv[1];
        st = control(&said, &answer, c, &q, err);
    }
    if (!st) printf("%s: %s\n", argv[1], said ? said : "cancelled");
    mode_envelope_free(&answer);
    client_close(&c);
    return st;
}

static enum mode_status drain(int argc, char **argv, struct mode_error *err)
{
    struct status_options o;
    struct client *c = NULL;
    struct mode_envelope *answer = NULL;
    Mode__Control q = MODE__CONTROL__INIT;
    const char *said = NULL;
    int n_args;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(
            drain_table, "MODE_", "mode drain WORKER|MACHINE [options]",
            "Takes a worker, or all of a machine, out of work: what runs there finishes, nothing new is handed out to "
            "it, and it exits. (`mode up` restarts its own workers; stop those with `mode down`.)\n"
            "Exit: 66 no worker or machine has that name.");
        return MODE_OK;
    }
    enum mode_status st = parse(&o, drain_table, drain_ranges, "WORKER or MACHINE (`mode status` lists them)", argc,
                                argv, &n_args, &c, err);
    if (!st) {
        q.verb = MODE__VERB__VERB_DRAIN;
        q.worker = argv[1];
        q.has_grace_ms = 1;
        q.grace_ms = (uint32_t)o.grace_s * 1000;
        st = control(&said, &answer, c, &q, err);
    }
    if (!st)
        printf("%s: %llu worker%s told to finish and exit\n", argv[1],
               (unsigned long long)answer->msg->control_reply->changed,
               MODE_PLURAL(answer->msg->control_reply->changed));
    mode_envelope_free(&answer);
    client_close(&c);
    return st;
}

const struct mode_verb mode_verb_status = {"status", "runs, workers and recent notes", status};
const struct mode_verb mode_verb_watch = {"watch", "runs and workers, refreshed until Ctrl-C", watch};
const struct mode_verb mode_verb_cancel = {"cancel", "end a run", cancel};
const struct mode_verb mode_verb_drain = {"drain", "take a worker or a machine out of work", drain};
