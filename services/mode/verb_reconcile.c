/* mode reconcile - proves that every input sample of a run has exactly one fate. */
#include "base/file.h"
#include "base/fresh.h"
#include "base/options.h"
#include "base/str.h"
#include "ledger.h"
#include "msg/place.h"
#include "msg/status_json.h"
#include "ranges.h"
#include "verb.h"

#include <dirent.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reconcile_options {
    const char *workspace;
    bool json, all;
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct reconcile_options, workspace, "workspace", ".", "DIR", "the workspace"),
    MODE_OPT_FLAG(struct reconcile_options, all, "all", "every run of the workspace"),
    MODE_OPT_FLAG(struct reconcile_options, json, "json", "print JSON, one line for each run"), MODE_OPT_END};

struct candidate {
    char *name;
    Mode__RunState state;
    int64_t created_ms;
};

static void print_json(const struct ledger *l, const struct candidate *run)
{
    printf("{\"run\": \"%s\", \"state\": \"%s\", \"balanced\": %s, \"shards\": %" PRIu64 ", \"samples\": %" PRIu64
           ", \"fates\": {",
           run->name, mode_run_state_name(run->state), l->n_problems ? "false" : "true", l->shards, l->samples);
    for (int f = 0; f < MODE_FATE_COUNT; f++)
        printf("%s\"%s\": %" PRIu64, f ? ", " : "", mode_fate_name((enum mode_fate)f), l->fate[f]);
    printf("}, \"cut_shards\": %" PRIu64 ", \"bad_shards\": %" PRIu64 ", \"embedded\": %" PRIu64
           ", \"assigned\": %" PRIu64 ", \"experts\": [",
           l->cut_shards, l->bad_shards, l->embedded, l->assigned);
    for (int k = 0; k < l->n_experts; k++) printf("%s%" PRIu64, k ? ", " : "", l->pool[k]);
    putchar(']');
    if (l->n_selected) { /* names need no escaping */
        printf(", \"selected\": {");
        for (size_t i = 0; i < l->n_selected; i++)
            printf("%s\"%s\": %" PRIu64, i ? ", " : "", l->selected[i].name, l->selected[i].pairs);
        putchar('}');
    }
    printf(", \"tasks\": %" PRIu64 ", \"done\": %" PRIu64 ", \"problems\": %zu}\n", l->n_tasks, l->n_done,
           l->n_problems);
}

static void print_text(const struct ledger *l, const struct candidate *run)
{
    printf("run %s (%s): %" PRIu64 " of %" PRIu64 " task%s done\n", run->name, mode_run_state_name(run->state),
           l->n_done, l->n_tasks, MODE_PLURAL(l->n_tasks));
    const uint64_t shards = l->shards - l->bad_shards;
    printf("  %-22s %12" PRIu64 "  in %" PRIu64 " shard%s\n", "samples", l->samples, shards, MODE_PLURAL(shards));
    for (int f = 0; f < MODE_FATE_COUNT; f++)
        if (l->fate[f] || f == MODE_FATE_KEPT)
            printf("    %-20s %12" PRIu64 "\n", mode_fate_name((enum mode_fate)f), l->fate[f]);
    if (l->cut_shards)
        printf("  %-22s %12" PRIu64 "  %s at byte %" PRIu64 "%s; the rest is not counted\n", "shards truncated",
               l->cut_shards, l->cut, l->cut_at, l->cut_shards == 1 ? "" : ", and others");
    if (l->bad_shards)
        printf("  %-22s %12" PRIu64 "  %s%s; none of %s samples is counted\n", "shards skipped", l->bad_shards, l->bad,
               l->bad_shards == 1 ? "" : ", and others", l->bad_shards == 1 ? "its" : "their");
    printf("  %-22s %12" PRIu64 "\n  %-22s %12" PRIu64 "\n", "embedded", l->embedded, "assigned", l->assigned);
    for (int k = 0; k < l->n_experts; k++) printf("    expert-%-13d %12" PRIu64 "\n", k, l->pool[k]);
    if (l->n_selected) printf("  used again\n");
    for (size_t i = 0; i < l->n_selected; i++)
        printf("    %-20s %12" PRIu64 "\n", l->selected[i].name, l->selected[i].pairs);
    for (size_t i = 0; i < l->n_problems && i < LEDGER_PROBLEMS; i++) printf("  PROBLEM: %s\n", l->problem[i]);
    if (l->n_problems > LEDGER_PROBLEMS)
        printf("  and %zu more problem%s\n", l->n_problems - LEDGER_PROBLEMS,
               MODE_PLURAL(l->n_problems - LEDGER_PROBLEMS));
    if (!l->n_problems) printf("  everything adds up%s\n", l->open && l->n_done < l->n_tasks ? " so far" : "");
}

static enum mode_status one(const struct reconcile_options *o, const struct candidate *run, size_t *n_problems,
                            struct mode_error *err)
{
    struct ledger l;
    enum mode_status st = ledger_read(&l, o->workspace, run->name, run->state == MODE__RUN_STATE__RUN_RUNNING, err);
    if (!st) {
        if (o->json)
            print_json(&l, run);
        else
            print_text(&l, run);
        *n_problems += l.n_problems;
    }
    ledger_clear(&l);
    return st;
}

/* Reads runs/<name>/run.json; false when there is no such run, or it was never planned. */
static bool look(struct candidate *c, const char *workspace, const char *name)
{
    char *file = mode_xasprintf("%s/runs/%s/run.json", workspace, name),
         *plan = mode_xasprintf("%s/runs/%s/plan.json", workspace, name);
    json_t *o = name[0] != '.' && mode_file_exists(plan) ? json_load_file(file, 0, NULL) : NULL;
    *c = (struct candidate){.state = (Mode__RunState)json_integer_value(json_object_get(o, "state")),
                            .created_ms = json_integer_value(json_object_get(o, "created_unix_ms"))};
    if (o) c->name = mode_xstrdup(name);
    json_decref(o);
    free(file);
    free(plan);
    return c->name != NULL;
}

/* Unfinished runs before ended ones, later ones before earlier ones. */
static int by_interest(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    bool rx = x->state == MODE__RUN_STATE__RUN_RUNNING, ry = y->state == MODE__RUN_STATE__RUN_RUNNING;
    if (rx != ry) return rx ? -1 : 1;
    return (x->created_ms < y->created_ms) - (x->created_ms > y->created_ms);
}

/* A folder without a store is not an empty workspace: perhaps --workspace is missing, or a run's name was given in its
 * place. */
static enum mode_status check_workspace(const char *workspace, const char *run, struct mode_error *err)
{
    char *id = mode_path_join(workspace, "store-id"), *id_of_run = run ? mode_path_join(run, "store-id") : NULL;
    enum mode_status st = MODE_OK;
    if (run && mode_file_exists(id_of_run))
        st = MODE_FAIL(err, MODE_E_USAGE, "%s is a workspace; expected the name of a run. HINT: --workspace %s", run,
                       run);
    else if (!(st = mode_place_exists(workspace, err)) && !mode_file_exists(id))
        st = MODE_FAIL(
            err, MODE_E_NOINPUT,
            "%s is not a workspace (it has no file store-id). HINT: --workspace DIR, the DIR that `mode up` was given",
            workspace);
    free(id);
    free(id_of_run);
    return st;
}

static struct candidate *list(int *n_runs, const char *workspace)
{
    char *dir = mode_path_join(workspace, "runs");
    struct dirent **entry = NULL;
    int n = mode_fresh_scandir(dir, &entry, NULL, alphasort);
    struct candidate *run = mode_xcalloc((size_t)(n > 0 ? n : 0) + 1, sizeof *run);
    *n_runs = 0;
    for (int i = 0; i < n; i++) {
        if (look(&run[*n_runs], workspace, entry[i]->d_name)) ++*n_runs;
        free(entry[i]);
    }
    free(entry);
    free(dir);
    if (*n_runs) qsort(run, (size_t)*n_runs, sizeof *run, by_interest);
    return run;
}

static enum mode_status reconcile(int argc, char **argv, struct mode_error *err)
{
    struct reconcile_options o = {0};
    struct candidate *run = NULL;
    int n_args, n_runs = 0;
    size_t n_problems = 0;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(
            table, "MODE_", "mode reconcile [RUN] [options]",
            "Reads the store alone and proves, for every shard of a run, that samples = kept + every fate, and kept = "
            "embedded = assigned = the sum over the experts' groups. Without RUN: the unfinished run, else the latest. "
            "Of an unfinished run, what is done so far is checked.\n"
            "Exit: 0 everything adds up, 65 it does not (also: the run ended before all was done), 66 no such run.");
        return MODE_OK;
    }
    enum mode_status st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err);
    if (st) return st;
    if ((st = arguments_check(n_args, o.all ? 0 : 1, argv, "one run, or --all", err)) ||
        (st = check_workspace(o.workspace, n_args ? argv[1] : NULL, err)))
        return st;
    if (n_args) {
        run = mode_xcalloc(1, sizeof *run);
        n_runs = look(run, o.workspace, argv[1]);
        if (!n_runs) st = MODE_FAIL(err, MODE_E_NOINPUT, "%s has no run \"%s\" that was planned", o.workspace, argv[1]);
    } else {
        run = list(&n_runs, o.workspace);
        if (!n_runs) st = MODE_FAIL(err, MODE_E_NOINPUT, "%s has no run", o.workspace);
    }
    int n = o.all || n_runs < 1 ? n_runs : 1;
    for (int i = 0; i < n && !st; i++) st = one(&o, &run[i], &n_problems, err);
    if (!st && n < n_runs && !o.json)
        printf("(%d other run%s: name one, or --all)\n", n_runs - n, MODE_PLURAL(n_runs - n));
    for (int i = 0; i < n_runs; i++) free(run[i].name);
    free(run);
    if (!st && n_problems) st = MODE_FAIL(err, MODE_E_VALUE, "%zu things do not add up", n_problems);
    return st;
}

const struct mode_verb mode_verb_reconcile = {"reconcile", "prove where every input pair went", reconcile};
