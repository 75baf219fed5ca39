/* mode pack - pictures and captions in, webdataset shards out. */
#include "base/options.h"
#include "base/output.h"
#include "pipeline/pack.h"
#include "ranges.h"
#include "verb.h"

#include <stdio.h>
#include <string.h>

struct options {
    const char *pairs, *out, *img_key, *caption_key, *separator;
    int64_t per_shard;
    bool skip_bad, json;
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct options, pairs, "pairs", NULL, "FILE|DIR",
                 "lines of picture, tab, caption [, tab, caption ...]; a CSV file with a header, as open_clip takes\n"
                 "it; or a folder of pictures with .txt or .json beside them"),
    MODE_OPT_STR(struct options, img_key, "csv-img-key", MODE_PAIRS_IMG_KEY, "NAME",
                 "the pictures' column in the header"),
    MODE_OPT_STR(struct options, caption_key, "csv-caption-key", MODE_PAIRS_CAPTION_KEY, "NAME",
                 "the captions' column in the header"),
    MODE_OPT_STR(struct options, separator, "csv-separator", "\\t", "C", "one character, or \\t"),
    MODE_OPT_STR(struct options, out, "out", NULL, "DIR", "where to put 00000.tar, 00001.tar, ..."),
    MODE_OPT_INT(struct options, per_shard, "per-shard", "1000", "N", "pairs in a shard"),
    MODE_OPT_FLAG(struct options, skip_bad, "skip-bad",
                  "count pairs that lack a readable picture or a caption, instead of stopping"),
    MODE_OPT_FLAG(struct options, json, "json", "print the counts as JSON"),
    MODE_OPT_END};

static const struct option_range ranges[] = {RANGE("per-shard", 1, MODE_PACK_MAX_PER_SHARD), RANGE_END};

static const char usage[] = "mode pack --pairs list.tsv|folder --out DIR [options]";
static const char prose[] =
    "Packs pictures, unchanged, with their captions into tar shards that MoDE, open_clip and webdataset read: one\n"
    "caption becomes key.txt, several become the list `texts` of key.json. The same pairs give the same bytes.\n"
    "A list whose first line names both columns is CSV (quotes as in RFC 4180; other columns are left aside); with\n"
    "another separator than a tab and two columns it needs no such line. A picture file that is cut short is a bad\n"
    "pair; pictures are not decoded, `mode captions` does that. The shards appear in DIR, which may hold no tar yet,\n"
    "when all of them are done; after an error there are none.";

static enum mode_status separator_of(char *c, const char *text, struct mode_error *err)
{
    *c = strcmp(text, "\\t") == 0 ? '\t' : text[0];
    if ((*c == '\t' || !text[0] || !text[1]) && *c && !strchr("\"\r\n", *c) && *c > 0) return MODE_OK;
    return MODE_FAIL(err, MODE_E_USAGE,
                     "--csv-separator: \"%s\", expected one character, neither a quote nor a line end, or \\t", text);
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct options o = {0};
    struct mode_pack_counts n;
    char separator;
    int n_args;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_", usage, prose);
        return MODE_OK;
    }
    enum mode_status st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err);
    if (st) return st;
    if (n_args || !o.pairs || !o.out)
        return n_args ? MODE_FAIL(err, MODE_E_USAGE, "unexpected argument \"%s\"; usage: %s", argv[1], usage)
                      : MODE_FAIL(err, MODE_E_USAGE, "%s is missing; usage: %s", o.pairs ? "--out" : "--pairs", usage);
    if ((st = ranges_check(&o, table, ranges, err)) || (st = mode_output_apart(o.out, &o.pairs, 1, err)) ||
        (st = separator_of(&separator, o.separator, err)))
        return st;
    const struct mode_pack_options pack = {
        .per_shard = (uint32_t)o.per_shard, .skip_bad = o.skip_bad, .list = {o.img_key, o.caption_key, separator}};
    if ((st = mode_pack(&n, o.pairs, o.out, &pack, err))) return st;
    const struct {
        const char *name;
        uint64_t n;
    } counts[] = {{"pairs", n.pairs},
                  {"packed", n.packed},
                  {"shards", n.shards},
                  {"no_file", n.no_file},
                  {"not_an_image", n.not_an_image},
                  {"cut_image", n.cut_image},
                  {"no_caption", n.no_caption},
                  {"bad_text", n.bad_text}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        printf(o.json ? "%s\"%s\": %llu" : "%s%-12s  %llu\n",
               !o.json ? ""
               : i     ? ", "
                       : "{",
               counts[i].name, (unsigned long long)counts[i].n);
    if (o.json) printf("}\n");
    return MODE_OK;
}

const struct mode_verb mode_verb_pack = {"pack", "pack pictures and captions into shards", run};
