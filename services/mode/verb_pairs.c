/* mode pairs - lists the pairs of each expert. */
#include "base/file.h"
#include "base/options.h"
#include "base/str.h"
#include "cluster/centres.h"
#include "data/captions.h"
#include "data/safetensors.h"
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
    struct mode_captions captions = {0};
    struct mode_safetensors f = {0};
    const struct mode_tensor *fine, *distance;
    Mode__Commit *commit = NULL, *also = NULL;
    char *path = NULL, *assigned = NULL, *tar = NULL, label[64];
    enum mode_status st;
    snprintf(label, sizeof label, "captions/%04zu", shard);
    if ((st = run_record_output(r, &commit, &path, label, "captions.bin", err)) ||
        (st = mode_captions_load(&captions, path, err)))
        goto out;
    snprintf(label, sizeof label, "assign/%04zu", shard);
    const int64_t dim[] = {captions.n_rows};
    if ((st = run_record_output(r, &also, &assigned, label, "assign.safetensors", err)) ||
        (st = mode_safetensors_open(&f, assigned, err)) ||
        (st = mode_safetensors_need(&f, "fine_id", MODE_DTYPE_I32, 1, dim, &fine, err)) ||
        (st = mode_safetensors_need(&f, "distance", MODE_DTYPE_F32, 1, dim, &distance, err)))
        goto out;
    tar = mode_xasprintf("%.*s", (int)mode_remote_pin_at(run_record_shard(r, shard)), run_record_shard(r, shard));
    for (uint32_t i = 0; i < captions.n_rows; i++) {
        const int32_t id = ((const int32_t *)fine->data)[i];
        if (id < 0 || id >= centres->m) {
            st = MODE_FAIL(err, MODE_E_FORMAT, "%s: row %u has fine id %d of %d", label, i, id, centres->m);
            break;
        }
        const int expert = centres->fine_to_coarse[id];
        if (w->expert != ALL && expert != w->expert) continue;
        if (w->selection.chosen && !(id < w->selection.m && w->selection.chosen[id])) continue;
        const struct mode_sample s = mode_captions_row(&captions, i);
        print_pair(expert, tar, &s, id, mode_f32(distance)[i], json);
    }
out:
    mode_safetensors_close(&f);
    mode_captions_clear(&captions);
    if (commit) mode__commit__free_unpacked(commit, NULL);
    if (also) mode__commit__free_unpacked(also, NULL);
    free(path);
    free(assigned);
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
    Mode__Commit *commit = NULL;
    char label[64], *path = NULL;
    enum mode_status st = run_record_open(&r, o->workspace, run, err);
    if (st || (st = find_wanted(&wanted, &r, run, o->expert, err))) goto out;
    run_record_centres_label(&r, label, sizeof label);
    if ((st = run_record_output(&r, &commit, &path, label, "centres.safetensors", err)) ||
        (st = mode_centres_load(&centres, path, err)))
        goto out;
    for (size_t s = 0; !st && s < r.n_shards; s++) st = print_shard(&r, s, &centres, &wanted, o->json, err);
out:
    mode_selection_clear(&wanted.selection);
    mode_centres_clear(&centres);
    if (commit) mode__commit__free_unpacked(commit, NULL);
    free(path);
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
