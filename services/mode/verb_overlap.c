/* mode overlap - which training images are duplicates of evaluation images. */
#include "assigned.h"
#include "base/file.h"
#include "base/options.h"
#include "base/output.h"
#include "base/parallel.h"
#include "base/str.h"
#include "data/decoder.h"
#include "fates.h"
#include "fetching.h"
#include "interrupt.h"
#include "msg/place.h"
#include "pipeline/defaults.h"
#include "pipeline/overlap.h"
#include "pipeline/sources.h"
#include "ranges.h"
#include "remote/address.h"
#include "verb.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct options {
    const char *shards, *workspace, *run, *out;
    int64_t distance, max_pixels, threads;
    double correlation;
    bool skip_bad, verbose, json;
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct options, shards, "shards", NULL, "SHARDS",
                 "the training shards: a folder, a pattern, a::b, @list.txt, an address; may be given several times"),
    MODE_OPT_STR(struct options, workspace, "workspace", NULL, "DIR",
                 "or the shards of a workspace's run; also its tasks, if none are named"),
    MODE_OPT_STR(struct options, run, "run", NULL, "NAME",
                 "with --workspace: the run (default: the one that experts/ is of)"),
    MODE_OPT_STR(struct options, out, "out", NULL, "FILE", "every match, tab-separated"),
    MODE_OPT_INT(struct options, distance, "distance", MODE_DEFAULT_OVERLAP_DISTANCE, "N",
                 "near-duplicates: maximum number of hash bits, of 64, that differ"),
    MODE_OPT_REAL(struct options, correlation, "correlation", MODE_DEFAULT_OVERLAP_CORRELATION, "X",
                  "near-duplicates: minimum correlation of the thumbnails"),
    MODE_OPT_INT(struct options, max_pixels, "max-image-pixels", MODE_DEFAULT_MAX_IMAGE_PIXELS, "N",
                 "images with more pixels are not decoded"),
    MODE_OPT_INT(struct options, threads, "threads", NULL, "N", "threads (default: every processor)"),
    MODE_OPT_FLAG(struct options, skip_bad, SKIP_BAD_SHARDS, SKIP_BAD_SHARDS_HELP),
    MODE_OPT_FLAG(struct options, verbose, "verbose", "report why each unreadable image cannot be decoded"),
    MODE_OPT_FLAG(struct options, json, "json", "print the counts as JSON"),
    MODE_OPT_END};

static const struct option_range ranges[] = {RANGE("distance", 0, 64), RANGE("correlation", 0, 1),
                                             RANGE_FROM("max-image-pixels", 1), RANGE_THREADS, RANGE_END};

static const char usage[] = "mode overlap [TASK...] (--shards SHARDS | --workspace DIR) [options]";
static const char prose[] =
    "Data overlap analysis: which evaluation images are in the training data? exact: byte-identical files. near: "
    "resized, recompressed, converted, slightly cropped; a perceptual hash finds them, the correlation of small colour "
    "thumbnails confirms them (docs/RUN.md).\n"
    "Per task: images, those with exact duplicates, those with near-duplicates only, the share of both, and the "
    "training "
    "images that match. For a workspace's run also how many of these are pairs of each expert.";

/* Shards, and whose pairs the matches are. */
struct training {
    struct mode_shards found; /* of --shards */
    struct run_record record; /* of a run, else empty */
    struct mode_centres centres;
    size_t n;                 /* shards */
    struct assigned assigned; /* of the shard that is read, once it has a match */
    bool has_assigned;
};

struct job {
    const struct options *o;
    struct training t;
    struct mode_overlap *overlap;
    int n_tasks;
    size_t shard;            /* the one being read */
    bool is_reading_shards;  /* else tasks are being read */
    uint64_t n_bad;          /* shards that are corrupt */
    uint64_t n_skipped;      /* shards that were not read: those, and those that the run skipped */
    char *path;              /* its name, without a pin */
    FILE *out;               /* NULL: nowhere */
    int64_t *pairs;          /* [n_tasks, n_experts] of a run */
    struct mode_str experts; /* of the match that is written */
};

/* ---- whose pairs ---- */

static bool has_run(const struct job *j)
{
    return j->t.record.store != NULL;
}

/* The first row whose image is at that byte or after it: rows are in the order of the tar. */
static uint32_t first_row(const struct mode_captions *c, uint64_t offset)
{
    uint32_t low = 0, high = c->n_rows;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (mode_captions_row(c, middle).image_offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* An image is one pair or, where every caption makes one, several, or none: then it was not trained on. */
static enum mode_status find_experts(struct job *j, const struct mode_overlap_found *f, struct mode_error *err)
{
    struct training *t = &j->t;
    struct assigned *a = &t->assigned;
    enum mode_status st = MODE_OK;
    if (!t->has_assigned && (st = assigned_open(a, &t->record, j->shard, &t->centres, err))) return st;
    t->has_assigned = true;
    mode_str_reset(&j->experts);
    for (uint32_t i = first_row(&a->captions, f->offset); i < a->captions.n_rows; i++) {
        const struct mode_sample s = mode_captions_row(&a->captions, i);
        if (s.image_offset != f->offset || strcmp(s.key, f->key) != 0) break;
        const int expert = t->centres.fine_to_coarse[a->fine[i]];
        mode_str_printf(&j->experts, "%sexpert-%d", j->experts.len ? "," : "", expert);
        for (size_t k = 0; k < f->n; k++)
            if (k == 0 || f->match[k].task != f->match[k - 1].task)
                j->pairs[f->match[k].task * t->record.n_experts + expert]++;
    }
    return MODE_OK;
}

/* ---- the list ---- */

/* A key may hold what ends a column or a line. */
static void put_text(FILE *f, const char *text)
{
    for (const char *c = text; *c; c++) putc(*c == '\t' || *c == '\n' || *c == '\r' ? ' ' : *c, f);
    putc('\t', f);
}

static enum mode_status on_found(void *ctx, const struct mode_overlap_found *f, struct mode_error *err)
{
    struct job *j = ctx;
    enum mode_status st = has_run(j) ? find_experts(j, f, err) : MODE_OK;
    for (size_t k = 0; !st && j->out && k < f->n; k++) {
        const struct mode_overlap_match *m = &f->match[k];
        put_text(j->out, mode_overlap_task(j->overlap, m->task)->name);
        fprintf(j->out, "%d\t", m->image);
        put_text(j->out, m->image_key);
        put_text(j->out, j->path);
        put_text(j->out, f->key);
        fprintf(j->out, "%s\t%d\t%.4f\t%s\n", m->kind == MODE_OVERLAP_EXACT ? "exact" : "near", m->distance,
                m->correlation, j->experts.len ? j->experts.data : "-");
    }
    return st;
}

/* ---- on the way ---- */

static bool on_going(void *ctx, uint64_t done, uint64_t total)
{
    const struct job *j = ctx;
    if (isatty(STDERR_FILENO) && j->is_reading_shards)
        fprintf(stderr, "\rshard %zu of %zu: sample %llu of %llu\033[K", j->shard + 1, j->t.n, (unsigned long long)done,
                (unsigned long long)total);
    else if (isatty(STDERR_FILENO))
        fprintf(stderr, "\revaluation image %llu of %llu\033[K", (unsigned long long)done, (unsigned long long)total);
    return !interrupt_signal();
}

static bool on_fetching(void *ctx, uint64_t done, uint64_t total)
{
    char what[64];
    const struct job *j = ctx;
    snprintf(what, sizeof what, "shard %zu of %zu", j->shard + 1, j->t.n);
    return fetching_show(what, done, total);
}

static void on_unreadable(void *ctx, const char *where, const char *key, const char *why)
{
    const struct job *j = ctx;
    if (j->o->verbose || mode_decoder_failed(why))
        fprintf(stderr, "%s, sample %s: %s\n", j->is_reading_shards ? j->path : where, key, why);
}

/* ---- the counts ---- */

static double share(const struct mode_overlap_task *t)
{
    return (double)(t->exact + t->near) / (double)t->n_images;
}

static json_t *task_json(const struct job *j, int task)
{
    const struct mode_overlap_task *t = mode_overlap_task(j->overlap, task);
    json_t *o = json_pack("{s:s, s:I, s:I, s:I, s:I, s:f, s:I}", "task", t->name, "images", (json_int_t)t->n_images,
                          "unreadable", (json_int_t)t->unreadable, "exact", (json_int_t)t->exact, "near",
                          (json_int_t)t->near, "share", share(t), "training_images", (json_int_t)t->training);
    const int n = j->t.record.n_experts;
    json_t *pairs = json_array();
    for (int e = 0; e < n; e++) json_array_append_new(pairs, json_integer((json_int_t)j->pairs[task * n + e]));
    if (has_run(j)) json_object_set(o, "pairs", pairs);
    json_decref(pairs);
    return o;
}

static void print_json(const struct job *j)
{
    const struct mode_overlap_training *t = mode_overlap_training(j->overlap);
    json_t *tasks = json_array();
    for (int i = 0; i < j->n_tasks; i++) json_array_append_new(tasks, task_json(j, i));
    json_t *o = json_pack("{s:o, s:{s:I, s:I, s:I, s:I, s:I, s:I, s:I}, s:I, s:f}", "tasks", tasks, "training",
                          "shards", (json_int_t)t->shards, "images", (json_int_t)t->images, "unreadable",
                          (json_int_t)t->unreadable, "no_image", (json_int_t)t->no_image, "truncated",
                          (json_int_t)t->truncated, "truncated_shards", (json_int_t)t->cut, "skipped_shards",
                          (json_int_t)j->n_skipped, "distance", (json_int_t)j->o->distance, "correlation",
                          j->o->correlation);
    char *text = json_dumps(o, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    puts(text);
    free(text);
    json_decref(o);
}

static void print_training(const struct job *j)
{
    const struct mode_overlap_training *t = mode_overlap_training(j->overlap);
    printf("training: %lld image%s in %lld shard%s", (long long)t->images, MODE_PLURAL(t->images), (long long)t->shards,
           MODE_PLURAL(t->shards));
    if (t->unreadable) printf("; unreadable: %lld", (long long)t->unreadable);
    if (t->no_image) printf("; samples without an image: %lld", (long long)t->no_image);
    if (t->truncated) printf("; truncated images: %lld", (long long)t->truncated);
    if (t->cut) printf("; truncated shards: %lld", (long long)t->cut);
    if (j->n_skipped) printf("; skipped shards: %llu", (unsigned long long)j->n_skipped);
    printf("\n");
}

static void print_table(const struct job *j)
{
    int width = 4;
    const int n = j->t.record.n_experts;
    for (int i = 0; i < j->n_tasks; i++) {
        const int w = (int)strlen(mode_overlap_task(j->overlap, i)->name);
        if (w > width) width = w;
    }
    printf("%-*s  %9s %10s %7s %7s %9s  %15s\n", width, "task", "images", "unreadable", "exact", "near", "share",
           "training images");
    for (int i = 0; i < j->n_tasks; i++) {
        const struct mode_overlap_task *t = mode_overlap_task(j->overlap, i);
        printf("%-*s  %9lld %10lld %7lld %7lld %8.2f%%  %15lld\n", width, t->name, (long long)t->n_images,
               (long long)t->unreadable, (long long)t->exact, (long long)t->near, 100 * share(t),
               (long long)t->training);
    }
    print_training(j);
    if (!has_run(j)) return;
    printf("\n%-*s  %-11s %6s\n", width, "task", "expert", "pairs");
    for (int i = 0; i < j->n_tasks; i++)
        for (int e = 0; e < n; e++)
            if (j->pairs[i * n + e])
                printf("%-*s  expert-%-4d %6lld\n", width, mode_overlap_task(j->overlap, i)->name, e,
                       (long long)j->pairs[i * n + e]);
}

/* ---- inputs ---- */

static const char *shard_path(const struct training *t, size_t i)
{
    return t->record.store ? run_record_shard(&t->record, i) : t->found.shard[i].path;
}

/* Each --shards of the command line, in order; else what the environment says. */
static enum mode_status expand(struct mode_shards *shards, const struct options *o, int argc, char **argv, int n_args,
                               struct mode_error *err)
{
    static const char name[] = "--shards", with[] = "--shards=";
    char **sources = mode_xcalloc((size_t)argc + 1, sizeof *sources), *cwd = getcwd(NULL, 0);
    size_t n = 0;
    for (int i = n_args + 1; i < argc; i++) {
        if (strncmp(argv[i], with, sizeof with - 1) == 0) sources[n++] = argv[i] + sizeof with - 1;
        if (strcmp(argv[i], name) == 0 && i + 1 < argc) sources[n++] = argv[++i];
    }
    if (!n) sources[n++] = (char *)(uintptr_t)o->shards;
    enum mode_status st = cwd ? mode_sources_expand(shards, sources, n, cwd, err)
                              : MODE_FAIL(err, MODE_E_IO, "the current folder cannot be named");
    if (st == MODE_E_CONFIG) st = err->status = MODE_E_USAGE;
    if (!st) st = mode_shards_look(shards, err);
    free(cwd);
    free(sources);
    return st;
}

static enum mode_status open_run(struct training *t, json_t **tasks, const struct options *o, bool only_tasks,
                                 struct mode_error *err)
{
    char *latest = NULL;
    enum mode_status st = mode_place_exists(o->workspace, err);
    if (!st && !o->run) st = run_record_latest(&latest, o->workspace, err);
    const char *run = o->run ? o->run : latest;
    if (!st) st = run_record_open(&t->record, o->workspace, run, err);
    if (!st) st = run_record_tasks(tasks, o->workspace, run, err);
    if (!st && !only_tasks) st = assigned_centres(&t->centres, &t->record, err);
    if (!st && only_tasks) run_record_close(&t->record); /* its shards are not read, so no match is a pair of it */
    t->n = t->record.n_shards;
    free(latest);
    return st;
}

/* Dirs: the tasks that are named, else those of the run. Borrowed from argv or tasks. */
static enum mode_status find_tasks(char ***dirs, int *n, char **argv, int n_args, const json_t *tasks,
                                   struct mode_error *err)
{
    const size_t n_run = n_args ? 0 : json_array_size(tasks);
    *n = n_args ? n_args : (int)n_run;
    if (!*n) return MODE_FAIL(err, MODE_E_USAGE, "the run has no evaluation tasks; name their folders");
    *dirs = mode_xcalloc((size_t)*n, sizeof **dirs);
    for (int i = 0; i < *n; i++)
        (*dirs)[i] = n_args ? argv[1 + i] : (char *)(uintptr_t)json_string_value(json_array_get(tasks, (size_t)i));
    return MODE_OK;
}

static enum mode_status check_out(const struct options *o, const struct training *t, char *const *dirs, int n_dirs,
                                  struct mode_error *err)
{
    const size_t n = (size_t)n_dirs + t->n;
    const char **inputs = mode_xcalloc(n, sizeof *inputs);
    for (int i = 0; i < n_dirs; i++) inputs[i] = dirs[i];
    for (size_t i = 0; i < t->n; i++) inputs[(size_t)n_dirs + i] = shard_path(t, i);
    enum mode_status st = mode_output_apart(o->out, inputs, n, err);
    free(inputs);
    return st;
}

/* ---- the work ---- */

/* A shard that the run skipped has no training images. */
static enum mode_status read_shard(struct job *j, const char *path, struct mode_error *err)
{
    bool bad = false;
    char *skipped = NULL;
    enum mode_status st = has_run(j) ? assigned_skipped(&skipped, &j->t.record, j->shard, err) : MODE_OK;
    if (skipped)
        fprintf(stderr, "%s was skipped by the run: %s\n", j->path, skipped);
    else if (!st)
        st = mode_overlap_shard(j->overlap, path, &bad, err);
    if (bad) st = fates_bad_shard(path, j->o->skip_bad, &j->n_bad, j->t.n, err);
    j->n_skipped += skipped || (bad && !st);
    free(skipped);
    return st;
}

static enum mode_status read_shards(struct job *j, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    j->is_reading_shards = true;
    j->pairs = mode_xcalloc((size_t)(j->n_tasks * j->t.record.n_experts) + 1, sizeof *j->pairs);
    for (; !st && j->shard < j->t.n; j->shard++) {
        const char *path = shard_path(&j->t, j->shard);
        j->path = mode_xasprintf("%.*s", (int)mode_remote_pin_at(path), path);
        st = read_shard(j, path, err);
        if (j->t.has_assigned) assigned_close(&j->t.assigned);
        j->t.has_assigned = false;
        free(j->path);
        j->path = NULL;
    }
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\n");
    return st;
}

static enum mode_status work(struct job *j, char *const *dirs, struct mode_error *err)
{
    struct mode_overlap_options o = {.distance = (int)j->o->distance,
                                     .correlation = j->o->correlation,
                                     .limits = MODE_IMAGE_LIMITS_DEFAULT,
                                     .found = on_found,
                                     .going = on_going,
                                     .fetching = on_fetching,
                                     .unreadable = on_unreadable,
                                     .ctx = j};
    o.limits.max_pixels = (uint64_t)j->o->max_pixels;
    enum mode_status st = mode_overlap_open(&j->overlap, &o, dirs, j->n_tasks, err);
    return st ? st : read_shards(j, err);
}

static enum mode_status write_list(struct job *j, char *const *dirs, struct mode_error *err)
{
    struct mode_output_set set;
    enum mode_status st = mode_output_set_open(&set, &j->o->out, 1, err);
    if (st) return st;
    j->out = fopen(set.aside[0], "we");
    if (!j->out) st = mode_output_fail(err, errno, set.aside[0], "be opened");
    if (!st) {
        fputs("task\timage\timage_key\tshard\tkey\tkind\tdistance\tcorrelation\texperts\n", j->out);
        st = work(j, dirs, err);
    }
    if (j->out && !st && (fflush(j->out) != 0 || ferror(j->out)))
        st = mode_output_fail(err, errno, set.aside[0], "be written");
    if (j->out) fclose(j->out);
    j->out = NULL;
    return mode_output_set_close(&set, st, err);
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct options o = {0};
    struct job j = {.o = &o};
    json_t *tasks = NULL;
    char **dirs = NULL;
    int n_args;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_", usage, prose);
        return MODE_OK;
    }
    enum mode_status st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err);
    if (st || (st = ranges_check(&o, table, ranges, err))) return st;
    if (!o.shards && !o.workspace)
        return MODE_FAIL(err, MODE_E_USAGE,
                         "which training images? Give --shards SHARDS, or --workspace DIR for a run's");
    if (!o.workspace && (st = option_needed(n_args ? argv[1] : NULL, "a task's folder", err))) return st;
    if (o.threads > 0) mode_parallel_set_threads((int)o.threads);
    if ((o.shards && (st = expand(&j.t.found, &o, argc, argv, n_args, err))) ||
        ((!o.shards || !n_args) && (st = open_run(&j.t, &tasks, &o, o.shards != NULL, err))) ||
        (st = find_tasks(&dirs, &j.n_tasks, argv, n_args, tasks, err)))
        goto out;
    if (o.shards) j.t.n = j.t.found.n;
    if (o.out && ((st = mode_output_file(o.out, err)) || (st = check_out(&o, &j.t, dirs, j.n_tasks, err)))) goto out;
    interrupt_catch();
    st = o.out ? write_list(&j, dirs, err) : work(&j, dirs, err);
    if (st) goto out;
    if (o.json)
        print_json(&j);
    else
        print_table(&j);
out:
    mode_overlap_close(&j.overlap);
    mode_centres_clear(&j.t.centres);
    run_record_close(&j.t.record);
    mode_shards_clear(&j.t.found);
    mode_str_clear(&j.experts);
    json_decref(tasks);
    free(j.pairs);
    free(dirs);
    return st;
}

const struct mode_verb mode_verb_overlap = {"overlap", "which training images are duplicates of evaluation images",
                                            run};
