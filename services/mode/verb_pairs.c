/* mode pairs - lists the pairs of each expert. */
#include "assigned.h"
#include "base/options.h"
#include "base/str.h"
#include "ensemble/selection.h"
#include "msg/place.h"
#include "remote/address.h"
#include "run_record.h"
#include "verb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
    const char *workspace, *run, *expert;
    bool json;
};

enum { ALL = -1 };

/* Which pairs are listed. */
struct wanted {
    int expert;                      /* coarse group; ALL: all groups */
    struct mode_selection selection; /* pairs of this selection; chosen NULL: no selection */
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct options, workspace, "workspace", ".", "DIR", "the workspace"),
    MODE_OPT_STR(struct options, run, "run", NULL, "NAME", "the run (default: the one that experts/ comes from)"),
    MODE_OPT_STR(struct options, expert, "expert", NULL, "N",
                 "the pairs of expert-N alone, or of a model of experts_for, by its name (default: all pairs)"),
    MODE_OPT_FLAG(struct options, json, "json", "one JSON object per line, with the caption unchanged"), MODE_OPT_END};

static const char prose[] =
    "Lists the pairs of a run as they were assigned, shard by shard in the order of the shards: expert, path of the "
    "shard, key of the sample in it, fine centre, distance to it, caption (tab-separated; tabs and line breaks of a "
    "caption become spaces). The pairs of a model of experts_for are a subset of these: the first column is then still "
    "the expert of their group. The pairs outside its group that an expert also sees (train.out_ratio) change with "
    "every epoch and are not listed.";

/* Prints a caption without tabs and line breaks. */
static void print_blank(const char *text)
{
    for (const char *c = text; *c; c++) putchar(*c == '\t' || *c == '\n' || *c == '\r' ? ' ' : *c);
}

static void print_pair(int expert, const char *shard, const struct mode_sample *s, int32_t fine, float distance,
                       bool json)
{
    if (!json) {
        printf("expert-%d\t%s\t%s\t%d\t%.6g\t", expert, shard, s->key, fine, (double)distance);
        print_blank(s->caption);
        putchar('\n');
        return;
    }
    json_t *o = json_pack("{s:i, s:s, s:s, s:i, s:f, s:s}", "expert", expert, "shard", shard, "key", s->key, "fine",
                          (int)fine, "distance", (double)distance, "caption", s->caption);
    json_dumpf(o, stdout, JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(o);
}

static enum mode_status print_shard(const struct run_record *r, size_t shard, const struct mode_centres *centres,
                                    const struct wanted *w, bool json, struct mode_error *err)
{
    struct assigned a;
    enum mode_status st = assigned_open(&a, r, shard, centres, err);
    const char *path = run_record_shard(r, shard);
    char *tar = mode_xasprintf("%.*s", (int)mode_remote_pin_at(path), path);
    for (uint32_t i = 0; !st && i < a.captions.n_rows; i++) {
        const int32_t id = a.fine[i];
        const int expert = centres->fine_to_coarse[id];
        if (w->expert != ALL && expert != w->expert) continue;
        if (w->selection.chosen && !(id < w->selection.m && w->selection.chosen[id])) continue;
        const struct mode_sample s = mode_captions_row(&a.captions, i);
        print_pair(expert, tar, &s, id, a.distance[i], json);
    }
    assigned_close(&a);
    free(tar);
    return st;
}

/* --expert: 3, expert-3, or the name of a model of experts_for. */
static enum mode_status find_wanted(struct wanted *w, const struct run_record *r, const char *run, const char *expert,
                                    struct mode_error *err)
{
    const char *digits = expert && strncmp(expert, "expert-", 7) == 0 ? expert + 7 : expert, *name;
    struct mode_str names = {0};
    Mode__Commit *commit = NULL;
    char *path = NULL, *label = NULL;
    enum mode_status st = MODE_OK;
    size_t at = 0;
    *w = (struct wanted){.expert = ALL};
    if (!expert) return MODE_OK;
    if (*digits && strspn(digits, "0123456789") == strlen(digits) && strlen(digits) < 9 &&
        atoi(digits) < r->n_experts) {
        w->expert = atoi(digits);
        return MODE_OK;
    }
    while ((name = run_record_selected(r, &at)) && strcmp(name, expert) != 0) mode_str_printf(&names, ", %s", name);
    if (!name) {
        st = MODE_FAIL(err, MODE_E_USAGE, "--expert: %s is out of range: run %s has expert-0 to expert-%d%s", expert,
                       run, r->n_experts - 1, names.len ? names.data : "");
    } else {
        label = mode_xasprintf("select/%s", name);
        if (!(st = run_record_output(r, &commit, &path, label, "selection.safetensors", err)))
            st = mode_selection_load(&w->selection, path, err);
    }
    if (commit) mode__commit__free_unpacked(commit, NULL);
    mode_str_clear(&names);
    free(path);
    free(label);
    return st;
}

static enum mode_status print_run(const char *run, const struct options *o, struct mode_error *err)
{
    struct run_record r;
    struct mode_centres centres = {0};
    struct wanted wanted = {0};
    enum mode_status st = run_record_open(&r, o->workspace, run, err);
    if (st || (st = find_wanted(&wanted, &r, run, o->expert, err)) || (st = assigned_centres(&centres, &r, err)))
        goto out;
    for (size_t s = 0; !st && s < r.n_shards; s++) st = print_shard(&r, s, &centres, &wanted, o->json, err);
out:
    mode_selection_clear(&wanted.selection);
    mode_centres_clear(&centres);
    run_record_close(&r);
    return st;
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct options o = {0};
    int n_args;
    char *latest = NULL;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_", "mode pairs [--expert N] [options]", prose);
        return MODE_OK;
    }
    enum mode_status st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err);
    if (st) return st;
    if (n_args) return MODE_FAIL(err, MODE_E_USAGE, "unexpected argument \"%s\"", argv[1]);
    if ((st = mode_place_exists(o.workspace, err))) return st;
    if (!o.run) st = run_record_latest(&latest, o.workspace, err);
    if (!st) st = print_run(o.run ? o.run : latest, &o, err);
    free(latest);
    return st;
}

const struct mode_verb mode_verb_pairs = {"pairs", "list the pairs of the experts", run};
