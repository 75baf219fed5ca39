/* mode captions - shards in, one captions.bin each out, every sample accounted for. */
#include "base/options.h"
#include "base/output.h"
#include "base/str.h"
#include "data/dali_index.h"
#include "data/decoder.h"
#include "fates.h"
#include "fetching.h"
#include "pipeline/captions.h"
#include "pipeline/defaults.h"
#include "pipeline/sources.h"
#include "ranges.h"
#include "remote/shards.h"
#include "verb.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct options {
    const char *out, *text_keys, *blur_faces;
    int64_t seed, max_pixels;
    bool all, strict, skip_bad, idx, json, verbose;
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct options, out, "out", NULL, "DIR", "where to put 00000.captions.bin ... and captions.json"),
    MODE_OPT_STR(struct options, text_keys, "text-keys", MODE_TEXT_KEYS_DEFAULT, "LIST",
                 "where captions are, in order of preference, separated by \";\""),
    MODE_OPT_STR(struct options, blur_faces, "blur-faces", NULL, "json:FIELD",
                 "where the boxes of faces to blur in training are: json:face_bbox"),
    MODE_OPT_FLAG(struct options, all, "all", "every usable caption becomes a pair of its own, none is drawn"),
    MODE_OPT_INT(struct options, seed, "seed", "0", "N", "seed of the choice among several captions"),
    MODE_OPT_INT(struct options, max_pixels, "max-image-pixels", MODE_DEFAULT_MAX_IMAGE_PIXELS, "N",
                 "pictures with more pixels are rejected"),
    MODE_OPT_FLAG(struct options, strict, "strict", "repeated extensions and non-contiguous keys are errors"),
    MODE_OPT_FLAG(struct options, skip_bad, SKIP_BAD_SHARDS, SKIP_BAD_SHARDS_HELP),
    MODE_OPT_FLAG(struct options, idx, "idx", "write 00000.idx ... as well: DALI's index of all samples of a shard"),
    MODE_OPT_FLAG(struct options, verbose, "verbose", "print why each rejected sample was rejected"),
    MODE_OPT_FLAG(struct options, json, "json", "print the counts as JSON"),
    MODE_OPT_END};

static const struct option_range ranges[] = {RANGE_SEED, RANGE_FROM("max-image-pixels", 1), RANGE_END};

static const char usage[] = "mode captions SHARDS... --out DIR [options]";
static const char prose[] =
    "Reads every sample of the shards, draws one caption for each, decodes its picture once, and writes what was "
    "kept.\n"
    "SHARDS: folders, tars, patterns, '{000..999}.tar', https:// and s3:// addresses, a::b, @list.txt. Counts per "
    "fate: docs/FORMATS.md.\n"
    "captions.json is written last: a folder without it is incomplete, and the same command completes it.";

struct totals {
    uint64_t samples, rows, fate[MODE_FATE_COUNT], duplicate_ext, ignored, n_cut, n_bad, blurred;
};

struct shard_report {
    bool verbose, to_terminal;
    const char *name;
    size_t shard, n_shards;
};

static bool progress(void *ctx, uint64_t done, uint64_t total)
{
    struct shard_report *r = ctx;
    if (r->to_terminal)
        fprintf(stderr, "\rshard %zu of %zu: sample %llu of %llu ", r->shard + 1, r->n_shards, (unsigned long long)done,
                (unsigned long long)total);
    return true;
}

static bool fetching(void *ctx, uint64_t done, uint64_t total)
{
    char what[64];
    const struct shard_report *r = ctx;
    snprintf(what, sizeof what, "shard %zu of %zu", r->shard + 1, r->n_shards);
    return fetching_show(what, done, total);
}

static void reject(void *ctx, uint32_t sample, enum mode_fate fate, const char *why)
{
    struct shard_report *r = ctx;
    if (r->verbose || mode_decoder_failed(why))
        fprintf(stderr, "%s sample %u: %s: %s\n", r->name, sample, mode_fate_name(fate), why);
}

static void add_totals(struct totals *t, const struct mode_captions *c)
{
    t->samples += c->n_samples;
    t->rows += c->n_rows;
    for (int f = 0; f < MODE_FATE_COUNT; f++) t->fate[f] += c->fate_count[f];
    t->duplicate_ext += c->warn_duplicate_ext;
    t->ignored += c->warn_ignored_members;
    t->n_cut += c->cut_at != 0;
    t->blurred += c->n_blurred;
}

static json_t *fates_json(const uint64_t *fate)
{
    json_t *o = json_object();
    for (int f = 0; f < MODE_FATE_COUNT; f++)
        json_object_set_new(o, mode_fate_name((enum mode_fate)f), json_integer((json_int_t)fate[f]));
    return o;
}

static json_t *shard_json(const char *file, const struct mode_captions *c)
{
    json_t *o = json_pack("{s:s, s:s, s:I, s:I, s:o, s:I, s:I, s:I, s:I}", "shard", c->shard_name, "captions", file,
                          "samples", (json_int_t)c->n_samples, "rows", (json_int_t)c->n_rows, "fates",
                          fates_json(c->fate_count), "duplicate_ext", (json_int_t)c->warn_duplicate_ext,
                          "ignored_members", (json_int_t)c->warn_ignored_members, "cut_at", (json_int_t)c->cut_at,
                          "blurred", (json_int_t)c->n_blurred);
    if (c->bad) json_object_set_new(o, "bad", json_string(c->bad));
    return o;
}

static enum mode_status write_dali_index(const char *out, size_t shard, const char *tar, struct mode_error *err)
{
    struct mode_tar_data d = {0};
    struct mode_sample_list s = {0};
    char *path = mode_xasprintf("%s/%05zu.idx", out, shard);
    struct mode_shard_file file;
    enum mode_status st = mode_shard_hold(&file, tar, NULL, err);
    if (!st) st = mode_tar_data_open(&d, file.path, err);
    if (!st && d.compressed) st = MODE_FAIL(err, MODE_E_VALUE, "%s: DALI reads no compressed tars", tar);
    if (!st) st = mode_samples_list(&s, &d, tar, err);
    if (!st) st = mode_dali_index_write(path, &s, err);
    mode_sample_list_clear(&s);
    mode_tar_data_close(&d);
    mode_shard_release(&file);
    free(path);
    return st;
}

static void print_totals(const struct totals *t, size_t n_shards)
{
    printf("shards   %zu\nsamples  %llu\nrows     %llu\n", n_shards, (unsigned long long)t->samples,
           (unsigned long long)t->rows);
    for (int f = MODE_FATE_KEPT + 1; f < MODE_FATE_COUNT; f++)
        if (t->fate[f]) printf("  %-16s %llu\n", mode_fate_name((enum mode_fate)f), (unsigned long long)t->fate[f]);
    if (t->duplicate_ext) printf("repeated extensions  %llu\n", (unsigned long long)t->duplicate_ext);
    if (t->ignored) printf("members ignored      %llu\n", (unsigned long long)t->ignored);
    if (t->blurred) printf("rows with faces blurred  %llu\n", (unsigned long long)t->blurred);
    if (t->n_cut) printf("truncated shards     %llu\n", (unsigned long long)t->n_cut);
    if (t->n_bad) printf("shards skipped      %llu\n", (unsigned long long)t->n_bad);
}

/* Reports wrong sources as errors of this command line, not of a run spec. */
static enum mode_status expand(struct mode_shards *shards, char *const *sources, size_t n, const char *cwd,
                               struct mode_error *err)
{
    enum mode_status st = mode_sources_expand(shards, sources, n, cwd, err);
    if (st == MODE_E_CONFIG) st = err->status = MODE_E_USAGE;
    return st;
}

/* Files of an earlier call with more shards would be mistaken for this one's. */
static enum mode_status check_out(const char *out, size_t n_shards, struct mode_error *err)
{
    char *path = mode_xasprintf("%s/%05zu.captions.bin", out, n_shards);
    enum mode_status st = MODE_OK;
    if (mode_file_exists(path))
        st = MODE_FAIL(err, MODE_E_CREATE,
                       "%s: exists already, from a call with more shards than now (%zu); give another folder", path,
                       n_shards);
    free(path);
    return st;
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct options o = {0};
    struct mode_shards shards = {0};
    struct totals t = {0};
    struct mode_captions_options co = {
        .limits = MODE_IMAGE_LIMITS_DEFAULT, .progress = progress, .reject = reject, .fetching = fetching};
    json_t *list = NULL, *root = NULL;
    char *text = NULL, *summary = NULL, *cwd = NULL;
    struct mode_output_folder folder = {0};
    int n_args;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_", usage, prose);
        return MODE_OK;
    }
    struct mode_error why;
    enum mode_status st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err);
    if (st) return st;
    if ((st = option_needed(n_args ? argv[1] : NULL, "SHARDS", err)) || (st = option_needed(o.out, "--out DIR", err)) ||
        (st = ranges_check(&o, table, ranges, err)))
        return st;
    cwd = getcwd(NULL, 0);
    if (!cwd) return MODE_FAIL(err, MODE_E_IO, "the current folder cannot be named");
    if (mode_text_keys_parse(&co.keys, &o.text_keys, 1, &why))
        st = MODE_FAIL(err, MODE_E_USAGE, "--text-keys: %s", why.text);
    else if (o.blur_faces && mode_face_key_parse(&co.blur, o.blur_faces, &why))
        st = MODE_FAIL(err, MODE_E_USAGE, "--blur-faces: %s", why.text);
    if (st || (st = expand(&shards, argv + 1, (size_t)n_args, cwd, err)) || (st = mode_shards_look(&shards, err)) ||
        (st = mode_output_apart(o.out, (const char *const *)argv + 1, (size_t)n_args, err)) ||
        (st = mode_output_folder_make(&folder, o.out, err)) || (st = check_out(o.out, shards.n, err)))
        goto out;
    summary = mode_path_join(o.out, "captions.json");
    unlink(summary); /* of an earlier call; from here on the folder is incomplete until the end */
    struct shard_report r = {.verbose = o.verbose, .to_terminal = isatty(STDERR_FILENO), .n_shards = shards.n};
    co.ctx = &r;
    co.seed = (uint64_t)o.seed;
    co.all = o.all;
    co.strict = o.strict;
    co.skip_bad = o.skip_bad;
    co.limits.max_pixels = (uint64_t)o.max_pixels;
    list = json_array();
    for (size_t i = 0; !st && i < shards.n; i++) {
        struct mode_captions c = {0};
        char *file = mode_xasprintf("%s/%05zu.captions.bin", o.out, i);
        r.shard = i;
        r.name = shards.shard[i].name;
        co.shard_path = shards.shard[i].path;
        co.shard_name = shards.shard[i].name;
        co.shard_size = shards.shard[i].size;
        co.shard_mtime_ns = shards.shard[i].mtime_ns;
        co.shard_index = (uint32_t)i;
        st = fates_extract(&c, file, &co, &t.n_bad, shards.n, err);
        if (!st) {
            add_totals(&t, &c);
            json_array_append_new(list, shard_json(mode_path_base(file), &c));
        }
        if (!st && o.idx && !c.bad) st = write_dali_index(o.out, i, shards.shard[i].path, err);
        mode_captions_clear(&c);
        free(file);
    }
    if (r.to_terminal) fprintf(stderr, "\n");
    if (st) goto out;
    root = json_pack("{s:I, s:I, s:o, s:O}", "samples", (json_int_t)t.samples, "rows", (json_int_t)t.rows, "fates",
                     fates_json(t.fate), "shards", list);
    text = json_dumps(root, JSON_INDENT(1));
    if ((st = mode_file_write_atomic(summary, text, strlen(text), err))) goto out;
    if (o.json)
        puts(text);
    else
        print_totals(&t, shards.n);
    if (t.samples && !t.rows)
        fprintf(stderr, "no sample is a pair (--text-keys %s).%s\n", o.text_keys, fates_hint(t.fate));
out:
    mode_output_folder_close(&folder, st != MODE_OK);
    free(text);
    free(summary);
    free(cwd);
    json_decref(root);
    json_decref(list);
    mode_shards_clear(&shards);
    return st;
}

const struct mode_verb mode_verb_captions = {
    "captions", "draw captions and index the samples of shards; count what is rejected", run};
