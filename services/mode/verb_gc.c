/* mode gc - frees what no kept run needs. Only reports, unless --yes is given. */
#include "base/memory.h"
#include "base/options.h"
#include "base/str.h"
#include "marks.h"
#include "msg/place.h"
#include "msg/status_json.h"
#include "verb.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct gc_options {
    const char *workspace;
    bool drop, keep, optimizer, yes, json;
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct gc_options, workspace, "workspace", ".", "DIR", "the workspace"),
    MODE_OPT_BARE(struct gc_options, drop, "drop", "drop the named runs, and what only they need"),
    MODE_OPT_BARE(struct gc_options, keep, "keep", "keep the named runs, drop all others"),
    MODE_OPT_BARE(struct gc_options, optimizer, "optimizer",
                  "also free the AdamW moments of trained models; those of the seed, from which experts fork, stay"),
    MODE_OPT_BARE(struct gc_options, yes, "yes", "do it"),
    MODE_OPT_FLAG(struct gc_options, json, "json", "print JSON"),
    MODE_OPT_END};

static enum mode_status choose(struct marks *m, const struct gc_options *o, char **name, int n, struct mode_error *err)
{
    if (o->drop && o->keep) return MODE_FAIL(err, MODE_E_USAGE, "give either --drop or --keep, not both");
    if ((o->drop || o->keep) != (n > 0))
        return MODE_FAIL(err, MODE_E_USAGE, "%s; `mode gc --help`",
                         n ? "give --drop or --keep for the named runs" : "name one or more runs");
    for (size_t r = 0; r < m->n; r++) m->run[r].dropped = o->keep;
    for (int i = 0; i < n; i++) {
        size_t r = 0;
        while (r < m->n && strcmp(m->run[r].name, name[i]) != 0) r++;
        if (r == m->n) return MODE_FAIL(err, MODE_E_NOINPUT, "%s has no run \"%s\"", o->workspace, name[i]);
        m->run[r].dropped = o->drop;
    }
    for (size_t r = 0; r < m->n; r++)
        if (o->yes && !m->run[r].dropped && !m->run[r].settled)
            return MODE_FAIL(err, MODE_E_TEMP,
                             "what the run %s needs is not known for certain: its coordinator was not shut down "
                             "cleanly. HINT: `mode up`, `mode down`, and again; or name it with --drop",
                             m->run[r].name);
    return MODE_OK;
}

/* Moves the records of dropped runs to tmp/ in one step, to be removed with it. They go first: after a crash the rest
 * of such a run is unreferenced, and is freed by the next call. */
static enum mode_status drop_runs(struct mode_gc_sum *sum, const struct marks *m, struct mode_store *store, bool dry,
                                  struct mode_error *err)
{
    char *runs = mode_path_join(mode_store_root(store), "runs");
    enum mode_status st = MODE_OK;
    bool any = false;
    for (size_t r = 0; r < m->n && !st; r++) {
        if (!m->run[r].dropped) continue;
        char *dir = mode_path_join(runs, m->run[r].name),
             *aside = mode_xasprintf("%s/run-%s-%ld", mode_store_tmp(store), m->run[r].name, (long)getpid());
        struct mode_gc_sum one = {0};
        mode_gc_measure(&one, dir);
        if (!dry && rename(dir, aside) != 0)
            st = mode_output_fail(err, errno, dir, "be removed");
        else if (!dry)
            st = mode_dir_remove(aside, err);
        any = true;
        if (!st) *sum = (struct mode_gc_sum){sum->files + one.files, sum->bytes + one.bytes};
        free(dir);
        free(aside);
    }
    if (any && !dry && !st) st = mode_file_sync(runs, err);
    free(runs);
    return st;
}

static void print_text(const struct marks *m, const struct gc_options *o, const struct mode_gc *gc,
                       const struct mode_gc_sum *records, const struct mode_gc_sum *all)
{
    char size[MODE_SIZE_TEXT];
    printf("%s %" PRIu64 " file%s, %s\n", gc->dry ? "would free" : "freed", all->files, MODE_PLURAL(all->files),
           mode_size_text(size, all->bytes));
    printf("  %-12s %10" PRIu64 " %15" PRIu64 " bytes\n", "runs", records->files, records->bytes);
    for (int k = 0; k < MODE_GC_KINDS; k++)
        printf("  %-12s %10" PRIu64 " %15" PRIu64 " bytes\n", mode_gc_kind_name((enum mode_gc_kind)k), gc->sum[k].files,
               gc->sum[k].bytes);
    for (size_t r = 0; r < m->n; r++)
        if (m->run[r].dropped)
            printf("run %s (%s): %s\n", m->run[r].name, mode_run_state_name(m->run[r].state),
                   gc->dry ? "would go" : "gone");
        else
            printf("run %s (%s): stays; %s that no other run needs\n", m->run[r].name,
                   mode_run_state_name(m->run[r].state), mode_size_text(size, m->run[r].bytes));
    if (!o->optimizer && m->optimizer_bytes)
        printf("%s are optimizer moments of trained models (--optimizer)\n", mode_size_text(size, m->optimizer_bytes));
    if (gc->dry) printf("nothing was changed; --yes does it, once nothing runs in the workspace\n");
}

static json_t *sum_json(const struct mode_gc_sum *s)
{
    return json_pack("{s:I, s:I}", "files", (json_int_t)s->files, "bytes", (json_int_t)s->bytes);
}

static void print_json(const struct marks *m, const struct mode_gc *gc, const struct mode_gc_sum *records,
                       const struct mode_gc_sum *all)
{
    json_t *kinds = json_object(), *runs = json_array();
    json_object_set_new(kinds, "runs", sum_json(records));
    for (int k = 0; k < MODE_GC_KINDS; k++)
        json_object_set_new(kinds, mode_gc_kind_name((enum mode_gc_kind)k), sum_json(&gc->sum[k]));
    for (size_t r = 0; r < m->n; r++)
        json_array_append_new(runs, json_pack("{s:s, s:s, s:b, s:I}", "run", m->run[r].name, "state",
                                              mode_run_state_name(m->run[r].state), "dropped", m->run[r].dropped,
                                              "own_bytes", (json_int_t)m->run[r].bytes));
    json_t *o = json_pack("{s:b, s:I, s:I, s:o, s:o, s:I}", "done", !gc->dry, "files", (json_int_t)all->files, "bytes",
                          (json_int_t)all->bytes, "kinds", kinds, "runs", runs, "optimizer_bytes",
                          (json_int_t)m->optimizer_bytes);
    char *text = json_dumps(o, 0);
    puts(text);
    free(text);
    json_decref(o);
}

static enum mode_status gc(int argc, char **argv, struct mode_error *err)
{
    struct gc_options o = {0};
    struct marks m = {0};
    struct mode_store *store = NULL;
    struct mode_gc_sum records = {0};
    int n_args;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(
            table, "MODE_", "mode gc [--drop RUN ... | --keep RUN ...] [options]",
            "Frees what no kept run needs: records of dropped runs, then commits, tasks, checkpoints, blobs and "
            "leftovers that nothing refers to any more. Without --yes it only reports what would be freed, and how "
            "much each run alone takes. With --yes nothing may run in the workspace: `mode down` first. A dropped run "
            "can be submitted again: its work is done again, to the same bytes. experts/ and report/ stay.\n"
            "Exit: 66 no such run, 75 the workspace is in use.");
        return MODE_OK;
    }
    enum mode_status st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err);
    if (st) return st;
    if ((st = mode_place_exists(o.workspace, err))) return st;
    struct mode_gc gc = {.needs_task = marks_needs_task, .keeps_blob = marks_keeps_blob, .ctx = &m, .dry = !o.yes};
    m.optimizer = o.optimizer;
    /* from here on nothing can be created that the marks do not include */
    if ((st = (o.yes ? mode_store_open_alone : mode_store_open_to_read)(&store, o.workspace, err))) goto out;
    if ((st = marks_runs(&m, o.workspace, err))) goto out;
    if ((st = choose(&m, &o, argv + 1, n_args, err))) goto out;
    if ((st = marks_take(&m, store, err))) goto out;
    if ((st = drop_runs(&records, &m, store, gc.dry, err))) goto out;
    if ((st = mode_store_gc(store, &gc, err))) goto out;
    struct mode_gc_sum all = records;
    for (int k = 0; k < MODE_GC_KINDS; k++) {
        all.files += gc.sum[k].files;
        all.bytes += gc.sum[k].bytes;
    }
    if (o.json)
        print_json(&m, &gc, &records, &all);
    else
        print_text(&m, &o, &gc, &records, &all);
out:
    mode_store_close(&store);
    marks_clear(&m);
    return st;
}

const struct mode_verb mode_verb_gc = {"gc", "free what no kept run needs", gc};
