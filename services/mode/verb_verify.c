/* mode verify - checks this machine's results with a model. */
#include "backend_option.h"
#include "base/options.h"
#include "base/parallel.h"
#include "base/str.h"
#include "hub.h"
#include "merges.h"
#include "models/clip_folder.h"
#include "nn/backend.h"
#include "pipeline/verify.h"
#include "ranges.h"
#include "verb.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
    struct backend_options backend;
    const char *merges;
    int64_t pairs, threads;
    bool all;
};

static const struct mode_option table[] = {
    MERGES_OPTION(struct options, merges),
    MODE_OPT_INT(struct options, pairs, "pairs", "3", "N", "number of pictures and texts that the model is run on"),
    MODE_OPT_FLAG(struct options, all, "all", "a line for every tensor, not only the worst of each stage"),
    BACKEND_OPTIONS(struct options),
    MODE_OPT_INT(struct options, threads, "threads", NULL, "N", "threads (default: every processor)"),
    MODE_OPT_END};

static const struct option_range ranges[] = {RANGE("pairs", 2, 64), RANGE_THREADS, RANGE_END};

static const char prose[] =
    "Checks, without Python, network or data: CLIP's tokenizer and image preprocessing against stored results of "
    "open_clip and Pillow; tiny models of every kind against stored float64 results of PyTorch, stage by stage, with "
    "loss and gradients; then the weights in MODEL (a folder of open_clip or Hugging Face; none: the stored part "
    "alone) in float32 against a second, independent implementation in double. Prints the worst error of each stage, "
    "where it is, the tolerance, and the share of it that is used. Exit code 1 when anything exceeds its tolerance.";

struct stage { /* the worst error of one stage of one part */
    char *name, *tensor;
    double error, tolerance, ours, exact;
    int64_t worst, tensors, over;
};

struct report {
    bool all;
    struct stage now;
    int64_t tensors, over;
    double share; /* the largest */
    const char *model;
};

static double share_of(double error, double tolerance)
{
    return 100 * error / tolerance;
}

static void print_row(const char *stage, const struct stage *s)
{
    printf("  %-16s %5lld  %9.2e  %9.2e  %6.1f %%  %s[%lld]: %.9g for %.9g%s\n", stage, (long long)s->tensors, s->error,
           s->tolerance, share_of(s->error, s->tolerance), s->tensor, (long long)s->worst, s->ours, s->exact,
           s->over ? "  OVER" : "");
}

static void flush(struct report *r)
{
    if (r->now.name && !r->all) print_row(r->now.name, &r->now);
    free(r->now.name);
    free(r->now.tensor);
    r->now = (struct stage){0};
    fflush(stdout);
}

static void on_begin(void *ctx, const char *part)
{
    flush(ctx);
    printf("%s\n", part);
}

/* A text as a name in the table: short and on one line. */
static char *short_name(const char *s)
{
    struct mode_str out = {0};
    size_t n = 0;
    for (; s[n] && n < 48; n++) mode_str_printf(&out, "%c", (unsigned char)s[n] < 32 ? ' ' : s[n]);
    while (s[n] && out.len && ((unsigned char)s[n] & 0xC0) == 0x80) { /* not inside a character */
        out.len--;
        n--;
    }
    char *text = mode_xasprintf("%.*s%s", (int)out.len, out.len ? out.data : "", s[n] ? "..." : "");
    mode_str_clear(&out);
    return text;
}

static void on_row(void *ctx, const struct mode_verify_row *row)
{
    struct report *r = ctx;
    bool over = !(row->error <= row->tolerance);
    double share = share_of(row->error, row->tolerance);
    if (!r->now.name || strcmp(r->now.name, row->stage) != 0) {
        flush(r);
        r->now.name = mode_xstrdup(row->stage);
        r->now.error = -1;
        r->now.tolerance = 1;
    }
    r->tensors++;
    r->over += over;
    if (share > r->share) r->share = share;
    struct stage s = {NULL,       short_name(row->tensor), row->error,        row->tolerance, row->ours, row->exact,
                      row->worst, r->now.tensors + 1,      r->now.over + over};
    if (r->all) {
        struct stage one = s;
        one.tensors = 1;
        one.over = over;
        print_row(row->stage, &one);
    }
    r->now.tensors++;
    r->now.over += over;
    if (share > share_of(r->now.error, r->now.tolerance)) {
        s.name = r->now.name;
        free(r->now.tensor);
        r->now = s;
    } else {
        free(s.tensor);
    }
}

static void on_note(void *ctx, const char *text)
{
    flush(ctx);
    fprintf(stderr, "%s: %s\n", ((const struct report *)ctx)->model, text);
}

/* Checks that the model exists before the stored part runs. */
static enum mode_status check_model(const char *dir, struct mode_error *err)
{
    struct mode_clip_files f;
    enum mode_status st = mode_clip_files_find(&f, dir, err);
    mode_clip_files_clear(&f);
    return st;
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct options o = {0};
    struct report r = {0};
    struct mode_backend *be = NULL;
    struct mode_error no_merges = {0};
    char *fetched = NULL;
    int n = 0;
    enum mode_status st;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_", "mode verify [MODEL] [options]", prose);
        return MODE_OK;
    }
    if ((st = mode_options_parse(&o, table, "MODE_", argc, argv, &n, err))) return st;
    if ((st = arguments_check(n, 1, argv, "one model at a time", err)) || (st = ranges_check(&o, table, ranges, err)))
        return st;
    const char *model = n ? argv[1] : NULL;
    if ((st = mode_hub_clip(&model, &fetched, err)) || (model && (st = check_model(model, err)))) goto out;
    if (o.threads > 0) mode_parallel_set_threads((int)o.threads);
    if ((st = backend_open(&be, &o.backend, err))) goto out;
    const struct mode_verify_hooks hooks = {&r, on_begin, on_row, on_note};
    r.all = o.all;
    r.model = model;
    printf("backend %s, %d thread%s\n  %-16s %5s  %9s  %9s  %8s  worst\n", mode_backend_name(be),
           mode_parallel_threads(), MODE_PLURAL(mode_parallel_threads()), "stage", "count", "error", "tolerance",
           "used");
    const char *given = o.merges;
    if (merges_find(&o.merges, &no_merges) && !given)
        printf("tokenizer: NOT CHECKED: %s\n", no_merges.text);
    else
        st = mode_verify_tokenizer(o.merges, &hooks, err);
    if (!st) st = mode_verify_preprocessing(&hooks, err);
    if (!st) st = mode_verify_reference(be, &hooks, err);
    if (!st && model) st = mode_verify_model(be, model, o.pairs, &hooks, err);
    flush(&r);
    if (st) goto out;
    printf("%lld comparisons, %lld over their tolerance; the closest uses %.1f %%\n", (long long)r.tensors,
           (long long)r.over, r.share);
    if (r.over)
        st = MODE_FAIL(err, MODE_E_GENERIC, "%lld of %lld comparisons are over", (long long)r.over,
                       (long long)r.tensors);
out:
    mode_backend_close(&be);
    free(fetched);
    return st;
}

const struct mode_verb mode_verb_verify = {"verify", "check this machine's results, stage by stage", run};
