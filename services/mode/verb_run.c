/* mode run - submit a run and watch it. */
#include "base/file.h"
#include "base/log.h"
#include "base/str.h"
#include "client.h"
#include "msg/status_json.h"
#include "pipeline/spec.h"
#include "progress.h"
#include "results.h"
#include "verb.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define AWAY_S 120 /* how long the coordinator may be away before we stop waiting */

struct run_options {
    struct client_options client;
    bool detach, dry_run, no_progress, quiet, json;
};

static const struct mode_option table[] = {
    CLIENT_OPTIONS(struct run_options),
    MODE_OPT_FLAG(struct run_options, detach, "detach", "submit and return; `mode watch` shows it"),
    MODE_OPT_FLAG(struct run_options, dry_run, "dry-run", "check the spec and its inputs, run nothing"),
    MODE_OPT_FLAG(struct run_options, no_progress, "no-progress", "no bars, single lines"),
    MODE_OPT_FLAG(struct run_options, quiet, "quiet", "no progress at all"),
    MODE_OPT_FLAG(struct run_options, json, "json", "print the run's final state as JSON"),
    MODE_OPT_END};

static volatile sig_atomic_t interrupted; /* set by SIGINT and SIGTERM */

static void on_signal(int sig)
{
    interrupted = sig;
}

static void catch_signals(void)
{
    struct sigaction a = {.sa_handler = on_signal};
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
}

static enum mode_status submit(char **run, bool *created, struct client *c, const struct mode_spec *spec, bool dry,
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
    /* planning looks at every input and digests the evaluation tasks: give it time. The same key asked twice is one
     * submission, so a lost answer does no harm. */
    enum mode_status st = client_ask(&answer, c, &e, 120000, err);
    if (st) return st;
    if (answer->msg->body_case != MODE__ENVELOPE__BODY_SUBMIT_REPLY) {
        st = MODE_FAIL(err, MODE_E_FORMAT, "the coordinator answered SUBMIT with something else");
    } else {
        *run = mode_xstrdup(answer->msg->submit_reply->run);
        *created = answer->msg->submit_reply->created;
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
        return MODE_FAIL(err, quarantined ? MODE_E_VALUE : MODE_E_GENERIC, "the run %s failed: %s", run->name,
                         run->message ? run->message : "");
    }
}

/* Until the run has ended. Returns its outcome. */
static enum mode_status follow(struct client *c, const char *name, const struct run_options *o, struct mode_error *err)
{
    struct progress p;
    bool show = !o->quiet;
    double heard = mode_clock_s();
    progress_open(&p, stderr, o->no_progress);
    for (;;) {
        struct mode_envelope *answer = NULL;
        enum mode_status st = client_status(&answer, c, name, false, 0, 5000, err);
        if (interrupted) {
            mode_envelope_free(&answer);
            if (show) fprintf(stderr, "\n");
            return MODE_FAIL(err, interrupted == SIGINT ? MODE_E_GENERIC : MODE_E_STOPPED,
                             "the run %s goes on without this terminal; `mode watch` shows it, `mode cancel %s` ends it",
                             name, name);
        }
        if (st == MODE_E_PEER) {
            if (mode_clock_s() - heard > AWAY_S) return st;
            if (show && mode_clock_s() - heard > 5) progress_say(&p, "the coordinator is away; waiting for it");
        } else if (st) {
            return st;
        } else {
            heard = mode_clock_s();
            if (answer->msg->status_reply->n_runs != 1) {
                mode_envelope_free(&answer);
                return MODE_FAIL(err, MODE_E_GENERIC, "the run %s is gone", name);
            }
            const Mode__Run *run = answer->msg->status_reply->runs[0];
            if (show) progress_show(&p, run);
            if (run->state != MODE__RUN_STATE__RUN_RUNNING && run->state != MODE__RUN_STATE__RUN_PAUSED) {
                st = outcome(run, err);
                if (o->json) {
                    char *json = mode_status_json(answer->msg->status_reply);
                    puts(json);
                    free(json);
                }
                mode_envelope_free(&answer);
                return st;
            }
            mode_envelope_free(&answer);
        }
        nanosleep(&(struct timespec){.tv_nsec = p.terminal ? 250000000 : 500000000}, NULL);
    }
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct run_options o = {0};
    struct mode_spec spec = {0};
    struct client *c = NULL;
    char *name = NULL;
    bool created = false;
    int n_args;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_", "mode run SPEC.yaml [options]",
                          "Submits a run to the coordinator of the workspace and shows it until it ends. What is done\n"
                          "already is not done again. Ctrl-C leaves it running. docs/RUN.md explains the spec.\n"
                          "Exit: 0 done, 65 some tasks were given up, 66 an input is missing, 69 no coordinator, 78 wrong spec.");
        return MODE_OK;
    }
    enum mode_status st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err);
    if (st) return st;
    if (n_args != 1) return MODE_FAIL(err, MODE_E_USAGE, "one spec file is wanted; `mode run --help`");
    if ((st = mode_spec_load(&spec, argv[1], err))) goto out;
    if ((st = client_open(&c, &o.client, err))) goto out;
    catch_signals();
    if ((st = submit(&name, &created, c, &spec, o.dry_run, err))) goto out;
    if (o.dry_run) {
        printf("%s: the spec and its inputs are fine\n", spec.name);
        goto out;
    }
    if (o.detach) {
        printf("%s\n", name);
        goto out;
    }
    if ((st = follow(c, name, &o, err))) goto out;
    if (!o.json) st = results_print(client_workspace(c), err);
out:
    client_close(&c);
    mode_spec_clear(&spec);
    free(name);
    if (interrupted == SIGINT && st) { /* the shell shall see what ended us: 130 */
        fprintf(stderr, "mode run: %s\n", err->text);
        signal(SIGINT, SIG_DFL);
        raise(SIGINT);
    }
    return st;
}

const struct mode_verb mode_verb_run = {"run", "submit a run and watch it", run};
