/* mode reconcile - prove that every input sample of a run ended in exactly one place. */
#include "base/file.h"
#include "base/options.h"
#include "base/str.h"
#include "ledger.h"
#include "verb.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reconcile_options {
    const char *workspace;
    bool json;
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct reconcile_options, workspace, "workspace", ".", "DIR", "the workspace"),
    MODE_OPT_FLAG(struct reconcile_options, json, "json", "for machines"), MODE_OPT_END};

static void print_json(const struct ledger *l, const char *run)
{
    printf("{\"run\": \"%s\", \"balanced\": %s, \"shards\": %" PRIu64 ", \"samples\": %" PRIu64 ", \"fates\": {", run,
           l->n_problems ? "false" : "true", l->shards, l->samples);
    for (int f = 0; f < MODE_FATE_COUNT; f++)
        printf("%s\"%s\": %" PRIu64, f ? ", " : "", mode_fate_name((enum mode_fate)f), l->fate[f]);
    printf("}, \"embedded\": %" PRIu64 ", \"assigned\": %" PRIu64 ", \"experts\": [", l->embedded, l->assigned);
    for (int k = 0; k < l->n_experts; k++) printf("%s%" PRIu64, k ? ", " : "", l->pool[k]);
    printf("], \"tasks\": %" PRIu64 ", \"done\": %" PRIu64 ", \"problems\": %zu}\n", l->n_tasks, l->n_done,
           l->n_problems);
}

static void print_text(const struct ledger *l, const char *run)
{
    printf("run %s: %" PRIu64 " of %" PRIu64 " tasks done\n", run, l->n_done, l->n_tasks);
    printf("  %-22s %12" PRIu64 "  in %" PRIu64 " shards\n", "samples", l->samples, l->shards);
    for (int f = 0; f < MODE_FATE_COUNT; f++)
        if (l->fate[f] || f == MODE_FATE_KEPT)
            printf("    %-20s %12" PRIu64 "\n", mode_fate_name((enum mode_fate)f), l->fate[f]);
    printf("  %-22s %12" PRIu64 "\n  %-22s %12" PRIu64 "\n", "embedded", l->embedded, "assigned", l->assigned);
    for (int k = 0; k < l->n_experts; k++) printf("    expert-%-13d %12" PRIu64 "\n", k, l->pool[k]);
    for (size_t i = 0; i < l->n_problems && i < LEDGER_PROBLEMS; i++) printf("  PROBLEM: %s\n", l->problem[i]);
    if (l->n_problems > LEDGER_PROBLEMS) printf("  and %zu more problems\n", l->n_problems - LEDGER_PROBLEMS);
    if (!l->n_problems) printf("  everything adds up\n");
}

static enum mode_status one(const struct reconcile_options *o, const char *run, size_t *n_problems,
                            struct mode_error *err)
{
    struct ledger l;
    enum mode_status st = ledger_read(&l, o->workspace, run, err);
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

static enum mode_status reconcile(int argc, char **argv, struct mode_error *err)
{
    struct reconcile_options o = {0};
    int n_args;
    size_t n_problems = 0, n_runs = 0;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(
            table, "MODE_", "mode reconcile [RUN] [options]",
            "Reads the store alone and proves, for every shard of a finished run (default: of all), that\n"
            "samples = kept + every fate, and kept = embedded = assigned = the sum over the experts' groups.\n"
            "Exit: 0 everything adds up, 65 it does not, 66 no such finished run.");
        return MODE_OK;
    }
    enum mode_status st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err);
    if (st) return st;
    if (n_args > 1) return MODE_FAIL(err, MODE_E_USAGE, "at most one run is wanted; `mode reconcile --help`");
    if (n_args) {
        if ((st = one(&o, argv[1], &n_problems, err))) return st;
    } else {
        char *dir = mode_path_join(o.workspace, "runs");
        struct dirent **entry = NULL;
        int n = scandir(dir, &entry, NULL, alphasort);
        free(dir);
        for (int i = 0; i < n; i++) {
            char *plan = mode_xasprintf("%s/runs/%s/plan.json", o.workspace, entry[i]->d_name);
            if (!st && entry[i]->d_name[0] != '.' && mode_file_exists(plan)) {
                st = one(&o, entry[i]->d_name, &n_problems, err);
                n_runs++;
            }
            free(plan);
            free(entry[i]);
        }
        free(entry);
        if (!st && !n_runs) st = MODE_FAIL(err, MODE_E_NOINPUT, "%s has no finished run", o.workspace);
        if (st) return st;
    }
    if (n_problems) return MODE_FAIL(err, MODE_E_VALUE, "%zu things do not add up", n_problems);
    return MODE_OK;
}

const struct mode_verb mode_verb_reconcile = {"reconcile", "prove where every input pair went", reconcile};
