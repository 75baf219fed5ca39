/* mode pack - pictures and captions in, webdataset shards out; or labelled or captioned pictures in, an evaluation task
 * out. */
#include "base/options.h"
#include "base/output.h"
#include "pipeline/pack.h"
#include "ranges.h"
#include "verb.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct options {
    struct mode_pack_task task;
    const char *pairs, *out, *img_key, *caption_key, *separator;
    int64_t per_shard;
    bool skip_bad, json;
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct options, pairs, "pairs", NULL, "FILE|DIR",
                 "lines of picture, tab, caption [, tab, caption ...]; a CSV file with a header, as open_clip takes "
                 "it; or a folder of pictures with .txt or .json beside them"),
    MODE_OPT_STR(struct options, img_key, "csv-img-key", MODE_PAIRS_IMG_KEY, "NAME",
                 "the pictures' column in the header"),
    MODE_OPT_STR(struct options, caption_key, "csv-caption-key", MODE_PAIRS_CAPTION_KEY, "NAME",
                 "the captions' column in the header"),
    MODE_OPT_STR(struct options, separator, "csv-separator", "\\t", "C", "one character, or \\t"),
    MODE_OPT_STR(struct options, task.source, "task", NULL, "DIR|FILE",
                 "instead of --pairs, to make an evaluation task: a folder with one folder of pictures per class; or, "
                 "for retrieval, captions as COCO has them, JSON with `images` and `annotations`; or a list as --pairs "
                 "takes it, where lines with the same picture are captions of one"),
    MODE_OPT_STR(
        struct options, task.class_names, "class-names", NULL, "FILE",
        "with --task DIR: one name per line in the order of the folders (default: their names, \"_\" as a space)"),
    MODE_OPT_STR(struct options, task.templates, "templates", NULL, "FILE",
                 "with --task DIR: one per line, {c} for the class (default: " MODE_PACK_TEMPLATE ")"),
    MODE_OPT_STR(struct options, task.pictures, "pictures", NULL, "DIR",
                 "with --task FILE: folder of its pictures (default: the folder of FILE)"),
    MODE_OPT_STR(struct options, out, "out", NULL, "DIR",
                 "where to put 00000.tar, 00001.tar, ...; or the task, which is named after this folder"),
    MODE_OPT_INT(struct options, per_shard, "per-shard", "1000", "N", "pairs, or pictures of a task, per shard"),
    MODE_OPT_FLAG(struct options, skip_bad, "skip-bad",
                  "skip and count pairs without a readable picture or a caption, instead of stopping"),
    MODE_OPT_FLAG(struct options, json, "json", "print the counts as JSON"),
    MODE_OPT_END};

static const struct option_range ranges[] = {RANGE("per-shard", 1, MODE_PACK_MAX_PER_SHARD), RANGE_END};

static const char usage[] =
    "mode pack (--pairs list.tsv|folder | --task folder|captions.json|list.tsv) --out DIR [options]";
static const char prose[] =
    "Packs pictures, unchanged, with their captions into tar shards that MoDE, open_clip and webdataset read: one "
    "caption becomes key.txt, several become the list `texts` of key.json. The same pairs give the same bytes. A list "
    "whose first line names both columns is CSV (quotes as in RFC 4180; other columns are ignored); with a separator "
    "other than a tab, a list of two columns needs no header. A picture file that is cut short is a bad pair; pictures "
    "are not decoded, `mode captions` does that. The shards appear in DIR, which must not hold a tar yet, once all of "
    "them are written; after an error there are none.\n"
    "With --task, DIR becomes a task for `mode evaluate`, in CLIP_benchmark's layout. Classes are in the order of "
    "their folders' names (of the bytes, as `LC_ALL=C ls` has it), or of the numbers where all names are numbers.";

static enum mode_status separator_of(char *c, const char *text, struct mode_error *err)
{
    *c = strcmp(text, "\\t") == 0 ? '\t' : text[0];
    if ((*c == '\t' || !text[0] || !text[1]) && *c && !strchr("\"\r\n", *c) && *c > 0) return MODE_OK;
    return MODE_FAIL(err, MODE_E_USAGE,
                     "--csv-separator: \"%s\", expected one character, neither a quote nor a line end, or \\t", text);
}

/* Checks that one kind of input is given, without options of the other. Missing sources are reported by packing. */
static enum mode_status check_options(const struct options *o, struct mode_error *err)
{
    struct stat sb;
    const bool task = o->task.source, there = task && stat(o->task.source, &sb) == 0,
               folder = task && (!there || S_ISDIR(sb.st_mode)), file = task && (!there || !S_ISDIR(sb.st_mode));
    const struct {
        const char *option, *value, *with;
        bool fits;
    } only[] = {{"class-names", o->task.class_names, "--task DIR", folder},
                {"templates", o->task.templates, "--task DIR", folder},
                {"pictures", o->task.pictures, "--task FILE", file}};
    if (!o->pairs == !o->task.source)
        return o->pairs ? MODE_FAIL(err, MODE_E_USAGE, "--pairs and --task do not go together")
                        : option_needed(NULL, "--pairs DIR or --task DIR", err);
    if (!o->out) return option_needed(o->out, "--out DIR", err);
    for (size_t i = 0; i < sizeof only / sizeof *only; i++)
        if (only[i].value && !only[i].fits)
            return MODE_FAIL(err, MODE_E_USAGE, "--%s goes with %s only", only[i].option, only[i].with);
    return MODE_OK;
}

static enum mode_status pack(struct mode_pack_counts *n, const struct options *o, char separator,
                             struct mode_error *err)
{
    const char *in[] = {o->pairs ? o->pairs : o->task.source, o->task.class_names, o->task.templates, o->task.pictures};
    const struct mode_pairs_options list = {o->img_key, o->caption_key, separator};
    const struct mode_pack_options pairs = {.per_shard = (uint32_t)o->per_shard, .skip_bad = o->skip_bad, .list = list};
    struct mode_pack_task task = o->task;
    enum mode_status st = mode_output_apart(o->out, in, sizeof in / sizeof *in, err);
    if (st) return st;
    if (o->pairs) return mode_pack(n, o->pairs, o->out, &pairs, err);
    task.list = list;
    return mode_pack_task(n, &task, o->out, pairs.per_shard, o->skip_bad, err);
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
    if (st || (st = arguments_check(n_args, 0, argv, "pairs are named by --pairs, a task by --task", err)) ||
        (st = check_options(&o, err)) || (st = ranges_check(&o, table, ranges, err)) ||
        (st = separator_of(&separator, o.separator, err)) || (st = pack(&n, &o, separator, err)))
        return st;
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

const struct mode_verb mode_verb_pack = {"pack", "pack pictures and captions into shards, or a task", run};
