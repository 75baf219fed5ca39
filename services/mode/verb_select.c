/* mode select - shows the fine clusters that words choose, before anything is trained on them. */
#include "backend_option.h"
#include "base/file.h"
#include "base/options.h"
#include "base/output.h"
#include "base/str.h"
#include "data/evalset.h"
#include "encoding.h"
#include "hub.h"
#include "msg/place.h"
#include "pipeline/embed.h"
#include "pipeline/select.h"
#include "ranges.h"
#include "run_record.h"
#include "verb.h"

#include <glob.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
    struct backend_options backend;
    const char *workspace, *run, *centres, *assign, *encoder, *classes, *task, *out;
    int64_t nearest;
    bool json;
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct options, workspace, "workspace", NULL, "DIR",
                 "the clusters and pairs of a run of this workspace"),
    MODE_OPT_STR(struct options, run, "run", NULL, "NAME",
                 "with --workspace: which (default: the one that experts/ comes from)"),
    MODE_OPT_STR(struct options, centres, "centres", NULL, "FILE",
                 "or clusters alone: centres.safetensors of `mode cluster`"),
    MODE_OPT_STR(struct options, assign, "assign", NULL, "GLOB",
                 "with --centres: assign.safetensors files of `mode assign`, whose pairs are counted"),
    MODE_OPT_STR(struct options, classes, "classes", NULL, "FILE",
                 "the words: names, one per line (or several with tabs between)"),
    MODE_OPT_STR(struct options, task, "task", NULL, "DIR[,DIR...]",
                 "or evaluation tasks: class names with templates, or captions"),
    MODE_OPT_STR(struct options, encoder, "encoder", NULL, "DIR",
                 "the encoder the centres were made with, or its ORG/NAME[@REVISION] (default: that of --workspace)"),
    MODE_OPT_INT(struct options, nearest, "nearest", "1", "N", "number of fine centres that each word selects"),
    MODE_OPT_STR(struct options, out, "out", NULL, "FILE", "write the selection, for `mode train --selection`"),
    BACKEND_OPTIONS(struct options),
    MODE_OPT_FLAG(struct options, json, "json", "print the result as JSON"),
    MODE_OPT_END};

static const struct option_range ranges[] = {RANGE("nearest", 1, MODE_SELECTION_MOST_NEAREST), RANGE_END};

/* The words of one task, and their selection. */
struct part {
    const char *task; /* NULL: words without a task */
    char **name;      /* [n] */
    int n;
    struct mode_chosen chosen;
};

struct selecting {
    struct mode_select select;
    char *encoder;     /* folder */
    char *list;        /* --task, split into its folders */
    char *folder;      /* for vectors */
    struct part *part; /* [n_parts] */
    int n_parts;
    bool counted; /* pairs are known */
};

/* Clusters and pairs of the shards of data.train of a run, from which its experts_for would select. */
static enum mode_status open_run(struct selecting *s, const struct options *o, struct mode_error *err)
{
    struct run_record r = {0};
    Mode__Commit *commit = NULL;
    char *run = NULL, *encoder = NULL, *path = NULL;
    enum mode_status st = o->run ? MODE_OK : run_record_latest(&run, o->workspace, err);
    if (!st) st = run_record_open(&r, o->workspace, o->run ? o->run : run, err);
    if (!st) st = run_record_output(&r, &commit, &path, "cluster", "centres.safetensors", err);
    if (!st) st = mode_select_open(&s->select, path, NULL, err);
    const size_t n_shards = st ? 0 : (size_t)json_integer_value(json_array_get(r.shard_end, 0));
    for (size_t i = 0; i < n_shards && !st; i++) {
        char label[64];
        if (commit) mode__commit__free_unpacked(commit, NULL);
        free(path);
        snprintf(label, sizeof label, "assign/%04zu", i);
        st = run_record_output(&r, &commit, &path, label, "assign.safetensors", err);
        if (!st) st = mode_select_count(&s->select, path, err);
    }
    s->counted = true;
    if (!st && !o->encoder) st = run_record_encoder(&encoder, o->workspace, err);
    s->encoder = encoder;
    if (commit) mode__commit__free_unpacked(commit, NULL);
    free(path);
    free(run);
    run_record_close(&r);
    return st;
}

static enum mode_status open_files(struct selecting *s, const struct options *o, struct mode_error *err)
{
    glob_t found = {0};
    enum mode_status st = mode_select_open(&s->select, o->centres, NULL, err);
    if (st || !o->assign) return st;
    if (glob(o->assign, 0, NULL, &found) != 0)
        st = MODE_FAIL(err, MODE_E_NOINPUT, "--assign: no file matches \"%s\"", o->assign);
    for (size_t i = 0; i < found.gl_pathc && !st; i++) st = mode_select_count(&s->select, found.gl_pathv[i], err);
    globfree(&found);
    s->counted = true;
    return st;
}

static enum mode_status read_task(struct part *p, struct mode_error *err)
{
    struct mode_evalset e = {0};
    enum mode_status st = mode_evalset_open(&e, p->task, err);
    const bool retrieval = !st && e.kind == MODE_TASK_RETRIEVAL;
    p->n = st ? 0 : retrieval ? e.n_texts : e.n_classes;
    p->name = mode_xcalloc((size_t)p->n + 1, sizeof *p->name);
    for (int i = 0; i < p->n; i++) p->name[i] = mode_xstrdup(retrieval ? e.texts[i] : e.classes[i]);
    mode_evalset_close(&e);
    return st;
}

/* Reads all words before anything is embedded. */
static enum mode_status read_words(struct selecting *s, const struct options *o, struct mode_error *err)
{
    char *rest = s->list;
    size_t most = 1;
    enum mode_status st = MODE_OK;
    for (const char *c = s->list; c && *c; c++) most += *c == ',';
    s->part = mode_xcalloc(most, sizeof *s->part);
    if (s->list)
        while (!st && rest) {
            s->part[s->n_parts].task = strsep(&rest, ",");
            st = read_task(&s->part[s->n_parts++], err);
        }
    else
        st = mode_select_names_read(&s->part[s->n_parts++].name, &s->part[0].n, o->classes, err);
    return st;
}

static enum mode_status choose(struct selecting *s, struct part *p, struct mode_text_encoder *enc, int nearest,
                               struct mode_error *err)
{
    char *path = mode_path_join(s->folder, "words.safetensors");
    enum mode_status st = p->task ? mode_embed_task(NULL, path, enc, p->task, NULL, encoding_show, NULL, err)
                                  : mode_embed_texts(NULL, path, enc, (const char *const *)p->name, (size_t)p->n,
                                                     encoding_show, NULL, err);
    if (!st) st = mode_select_words(&s->select, &p->chosen, path, nearest, err);
    free(path);
    return st;
}

static enum mode_status choose_all(struct selecting *s, const struct options *o, struct mode_error *err)
{
    struct mode_backend *be = NULL;
    struct mode_text_encoder *enc = NULL;
    char *dir = NULL;
    enum mode_status st = backend_open(&be, &o->backend, err);
    if (!st) st = mode_hub_encoder(&dir, o->encoder ? o->encoder : s->encoder, err);
    if (!st) st = mode_text_encoder_open_as(&enc, be, dir, s->select.centres.encoder_id, NULL, 0, err);
    if (!st) st = mode_dir_temporary(&s->folder, err);
    for (int i = 0; i < s->n_parts && !st; i++) st = choose(s, &s->part[i], enc, (int)o->nearest, err);
    free(dir);
    mode_text_encoder_close(&enc);
    mode_backend_close(&be);
    return st;
}

struct choice { /* choice of a fine centre by a word */
    const char *word;
    float distance;
    int32_t fine;
    uint64_t order; /* of words */
};

static int by_fine_and_distance(const void *a, const void *b)
{
    const struct choice *x = a, *y = b;
    if (x->fine != y->fine) return x->fine < y->fine ? -1 : 1;
    if (x->distance != y->distance) return x->distance < y->distance ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

/* All choices, cluster by cluster, the nearest words first; the caller frees. */
static struct choice *choices_of(const struct selecting *s, size_t *n)
{
    size_t all = 0;
    *n = 0;
    for (int i = 0; i < s->n_parts; i++) all += (size_t)s->part[i].chosen.k * (size_t)s->part[i].chosen.nearest;
    struct choice *c = mode_xcalloc(all + 1, sizeof *c);
    for (int i = 0; i < s->n_parts; i++) {
        const struct mode_chosen *x = &s->part[i].chosen;
        for (size_t j = 0; j < (size_t)x->k * (size_t)x->nearest; j++, ++*n)
            c[*n] = (struct choice){s->part[i].name[j / (size_t)x->nearest], x->distance[j], x->fine_id[j], *n};
    }
    qsort(c, *n, sizeof *c, by_fine_and_distance);
    return c;
}

static void print_pairs(const struct selecting *s, int fine)
{
    if (s->counted)
        printf("  %10" PRIu64, s->select.pairs[fine]);
    else
        printf("  %10s", "-");
}

static void print_text(const struct selecting *s, const struct choice *c, size_t n)
{
    enum { SHOWN = 5 };
    printf("%8s  %9s  %10s  word\n", "fine", "distance", "pairs");
    for (int i = 0; i < s->n_parts; i++) {
        const struct mode_chosen *x = &s->part[i].chosen;
        for (int j = 0; j < x->k * x->nearest; j++) {
            printf("%8d  %9.4f", x->fine_id[j], (double)x->distance[j]);
            print_pairs(s, x->fine_id[j]);
            printf("  %s\n", s->part[i].name[j / x->nearest]);
        }
    }
    printf("\n%8s  %9s  %10s  nearest words\n", "fine", "expert", "pairs");
    for (size_t i = 0, k; i < n; i = k) {
        printf("%8d  %9d", c[i].fine, s->select.centres.fine_to_coarse[c[i].fine]);
        print_pairs(s, c[i].fine);
        for (k = i; k < n && c[k].fine == c[i].fine; k++)
            if (k - i < SHOWN) printf("%s%s", k > i ? ", " : "  ", c[k].word);
        printf(k - i > SHOWN ? ", and %zu more\n" : "\n", k - i - SHOWN);
    }
    printf("\n%" PRIu64 " word%s %d of %d fine cluster%s", s->select.words,
           s->select.words == 1 ? " selects" : "s select", s->select.selection.n_chosen, s->select.selection.m,
           MODE_PLURAL(s->select.selection.m));
    const uint64_t pairs = mode_select_pairs(&s->select), rows = s->select.rows;
    if (s->counted)
        printf(": %" PRIu64 " of %" PRIu64 " pair%s (%.1f %%)", pairs, rows, MODE_PLURAL(rows),
               rows ? 100.0 * (double)pairs / (double)rows : 0.0);
    printf("\n");
}

static void print_json(const struct selecting *s, const struct choice *c, size_t n)
{
    json_t *words = json_array(), *clusters = json_array();
    for (int i = 0; i < s->n_parts; i++) {
        const struct mode_chosen *x = &s->part[i].chosen;
        for (int j = 0; j < x->k; j++) {
            json_t *fine = json_array(), *distance = json_array(), *o = json_object();
            for (int k = 0; k < x->nearest; k++) {
                json_array_append_new(fine, json_integer(x->fine_id[j * x->nearest + k]));
                json_array_append_new(distance, json_real((double)x->distance[j * x->nearest + k]));
            }
            json_object_set_new(o, "word", json_string(s->part[i].name[j]));
            if (s->part[i].task) json_object_set_new(o, "task", json_string(mode_path_base(s->part[i].task)));
            json_object_set_new(o, "fine", fine);
            json_object_set_new(o, "distance", distance);
            json_array_append_new(words, o);
        }
    }
    for (size_t i = 0, k; i < n; i = k) {
        json_t *o = json_object(), *nearest = json_array();
        for (k = i; k < n && c[k].fine == c[i].fine; k++) json_array_append_new(nearest, json_string(c[k].word));
        json_object_set_new(o, "fine", json_integer(c[i].fine));
        json_object_set_new(o, "expert", json_integer(s->select.centres.fine_to_coarse[c[i].fine]));
        if (s->counted) json_object_set_new(o, "pairs", json_integer((json_int_t)s->select.pairs[c[i].fine]));
        json_object_set_new(o, "words", nearest);
        json_array_append_new(clusters, o);
    }
    json_t *o = json_pack("{s:o, s:o, s:i, s:i}", "words", words, "clusters", clusters, "chosen",
                          s->select.selection.n_chosen, "fine", s->select.selection.m);
    if (s->counted) {
        json_object_set_new(o, "pairs", json_integer((json_int_t)mode_select_pairs(&s->select)));
        json_object_set_new(o, "rows", json_integer((json_int_t)s->select.rows));
    }
    json_dumpf(o, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    printf("\n");
    json_decref(o);
}

static void selecting_close(struct selecting *s)
{
    for (int i = 0; i < s->n_parts; i++) {
        mode_evalset_words_free(s->part[i].name, s->part[i].n);
        mode_chosen_clear(&s->part[i].chosen);
    }
    if (s->folder) mode_dir_remove(s->folder, NULL);
    mode_select_close(&s->select);
    free(s->part);
    free(s->encoder);
    free(s->list);
    free(s->folder);
}

static enum mode_status check_options(const struct options *o, struct mode_error *err)
{
    enum mode_status st;
    if (!o->workspace && !o->centres)
        return MODE_FAIL(err, MODE_E_USAGE, "give either --workspace, of a run, or --centres FILE");
    if (o->workspace && o->assign) return MODE_FAIL(err, MODE_E_USAGE, "--assign goes with --centres");
    if (o->centres && o->run) return MODE_FAIL(err, MODE_E_USAGE, "--run goes with --workspace");
    if (!o->task == !o->classes)
        return MODE_FAIL(err, MODE_E_USAGE, "give either --classes FILE or --task DIR: whose words select");
    if (o->centres && (st = option_needed(o->encoder, "--encoder DIR", err))) return st;
    if ((st = ranges_check(o, table, ranges, err)) || (st = backend_check(&o->backend, err))) return st;
    if (o->workspace && (st = mode_place_exists(o->workspace, err))) return st;
    if (!o->out || (st = mode_output_file(o->out, err))) return o->out ? st : MODE_OK;
    return mode_output_apart(o->out, (const char *const[]){o->centres, o->classes, o->encoder, o->task}, 4, err);
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct options o = {0};
    struct selecting s = {0};
    int n_args;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(
            table, "MODE_",
            "mode select (--workspace DIR | --centres FILE --encoder DIR) (--classes FILE | --task DIR) [options]",
            "Prints the fine clusters that words select (each word its --nearest ones) and how many pairs these have: "
            "what an expert for these words would be trained on, by a run (experts_for) or by `mode train "
            "--selection`.");
        return MODE_OK;
    }
    enum mode_status st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err);
    if (o.centres) o.workspace = NULL; /* a workspace from the environment does not count */
    if (st || (st = arguments_check(n_args, 0, argv, "words are --classes FILE or --task DIR", err)) ||
        (st = check_options(&o, err)))
        return st;
    s.list = o.task ? mode_xstrdup(o.task) : NULL;
    st = read_words(&s, &o, err);
    if (!st) st = o.workspace ? open_run(&s, &o, err) : open_files(&s, &o, err);
    if (!st) st = choose_all(&s, &o, err);
    if (!st && o.out) st = mode_selection_save(&s.select.selection, o.out, err);
    if (!st) {
        size_t n;
        struct choice *c = choices_of(&s, &n);
        (o.json ? print_json : print_text)(&s, c, n);
        free(c);
    }
    if (st && s.folder) mode_error_rename(err, s.folder, "a temporary folder (TMPDIR)");
    selecting_close(&s);
    return st;
}

const struct mode_verb mode_verb_select = {"select", "the fine clusters that words select, and their pairs", run};
