/* mode predict - applies the ensemble of a workspace to any pictures. */
#include "ask.h"
#include "backend_option.h"
#include "base/options.h"
#include "base/parallel.h"
#include "base/str.h"
#include "data/utf8.h"
#include "lines.h"
#include "nn/backend.h"
#include "ranges.h"
#include "verb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
    struct backend_options backend;
    struct router_options router;
    struct ask_options ask;
    const char *workspace, *experts, *images;
    int64_t top, batch, threads;
    bool json;
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct options, workspace, "workspace", ".", "DIR", "the workspace whose experts/ are used"),
    MODE_OPT_STR(struct options, experts, "experts", NULL, "DIR", "or an experts/ folder copied from a workspace"),
    ASK_OPTIONS(struct options),
    MODE_OPT_STR(struct options, ask.queries, "queries", NULL, "FILE",
                 "or texts, one per line: the nearest pictures of each"),
    MODE_OPT_STR(struct options, images, "images", NULL, "FILE", "more pictures: paths, one per line"),
    MODE_OPT_INT(struct options, top, "top", "5", "N", "number of classes of a picture, or pictures of a query"),
    ASK_ROUTER_OPTIONS(struct options),
    ASK_ENCODER_OPTION(struct options),
    MODE_OPT_STR(struct options, ask.merges, "clip-merges", NULL, "FILE",
                 "bpe_simple_vocab_16e6.txt.gz (default: the run's)"),
    MODE_OPT_INT(struct options, batch, "batch", "256", "N", "pictures or texts in a batch"),
    BACKEND_OPTIONS(struct options),
    MODE_OPT_INT(struct options, threads, "threads", NULL, "N", "threads (default: every processor)"),
    MODE_OPT_FLAG(struct options, json, "json", "one JSON object per line: the weights, then every picture or query"),
    MODE_OPT_END};

static const struct option_range ranges[] = {RANGE("batch", 1, 1 << 20), RANGE_FROM("top", 1), RANGE_THREADS,
                                             RANGE_END};

static const char prose[] =
    "Scores pictures with the experts of a finished run, weighted by the words of the classes or queries: every "
    "picture gets a class, or every query its nearest pictures. A score is the weighted sum of the experts' cosines.\n"
    "Prints, tab-separated, picture, score, class; or query, score, picture. The weights go to stderr. A picture that "
    "cannot be read or decoded is an error.";

static void print_weights(const double *weight, int n, const char *word, bool json)
{
    if (!json) {
        ask_print_weights(weight, n, word);
        return;
    }
    json_t *list = json_array();
    for (int c = 0; c < n; c++) json_array_append_new(list, json_real(weight[c]));
    json_t *o = word ? json_pack("{s:s, s:o}", "query", word, "weights", list) : json_pack("{s:o}", "weights", list);
    json_dumpf(o, stdout, JSON_REAL_PRECISION(9));
    printf("\n");
    json_decref(o);
}

/* Paths may hold any byte, JSON may not. */
static json_t *json_text(const char *text)
{
    char *clean = mode_utf8_cleaned(text, strlen(text));
    json_t *s = json_string(clean);
    free(clean);
    return s;
}

/* The top of n scores, `stride` apart, in descending order, ties by index. */
struct best {
    int64_t i;
    float score;
};

static int by_score(const void *a, const void *b)
{
    const struct best *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    return x->i < y->i ? -1 : x->i > y->i;
}

static void print_best(const char *subject, const char *what, const float *score, int64_t n, int64_t stride,
                       int64_t top, char *const *names, const char *names_what, bool json)
{
    struct best *best = mode_xcalloc((size_t)n + 1, sizeof *best);
    json_t *list = json_array();
    for (int64_t i = 0; i < n; i++) best[i] = (struct best){i, score[i * stride]};
    qsort(best, (size_t)n, sizeof *best, by_score);
    for (int64_t i = 0; i < n && i < top; i++) {
        if (json)
            json_array_append_new(
                list, json_pack("{s:o, s:f}", names_what, json_text(names[best[i].i]), "score", (double)best[i].score));
        else
            printf("%s\t%.4f\t%s\n", subject, (double)best[i].score, names[best[i].i]);
    }
    if (json) {
        json_t *o = json_pack("{s:o, s:O}", what, json_text(subject), "best", list);
        json_dumpf(o, stdout, JSON_REAL_PRECISION(9));
        printf("\n");
        json_decref(o);
    }
    json_decref(list);
    free(best);
}

static void print(const struct mode_prediction *p, const struct mode_predict_spec *s, const struct options *o)
{
    const struct mode_evalset *e = s->words;
    const int64_t columns = p->columns;
    if (o->ask.classes) {
        print_weights(p->weight, p->n, NULL, o->json);
        for (int64_t i = 0; i < s->n_pictures; i++)
            print_best(s->picture[i], "picture", p->score + i * columns, columns, 1, o->top, e->classes, "class",
                       o->json);
        return;
    }
    for (int64_t q = 0; q < columns; q++) {
        print_weights(p->weight + q * p->n, p->n, e->texts[q], o->json);
        print_best(e->texts[q], "query", p->score + q, s->n_pictures, columns, o->top, s->picture, "picture", o->json);
    }
}

static void on_notice(void *ctx, const char *text)
{
    (void)ctx;
    fprintf(stderr, "%s\n", text);
}

/* The first n_named pictures are arguments, the others lines of --images. */
static enum mode_status predict(const struct options *o, const char *experts, char **pictures, int64_t n_named,
                                int64_t n, struct mode_error *err)
{
    struct ask ask = {0};
    struct mode_prediction p = {0};
    const struct mode_encode_hook hook = {.notice = on_notice};
    int64_t failed = n;
    struct mode_predict_spec s = {
        .picture = pictures, .n_pictures = n, .failed = &failed, .batch = o->batch, .hook = &hook};
    enum mode_status st = ask_open(&ask, &s, experts, &o->ask, &o->router, err);
    if (!st) st = backend_open(&s.be, &o->backend, err);
    if (!st) {
        st = mode_predict(&p, &s, err);
        if (st && failed >= n_named && failed < n) lines_blame(o->images, failed - n_named, st, err);
        if (!(st = ask_end(&ask, experts, st, err))) print(&p, &s, o);
    }
    mode_prediction_clear(&p);
    mode_backend_close(&s.be);
    ask_close(&ask);
    return st;
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct options o = {0};
    struct lines list = {0};
    int n_args;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_", "mode predict (--classes FILE | --queries FILE) [options] PICTURE...", prose);
        return MODE_OK;
    }
    enum mode_status st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err);
    if (st || (st = ranges_check(&o, table, ranges, err)) || (st = backend_check(&o.backend, err))) return st;
    if (!o.ask.classes == !o.ask.queries)
        return MODE_FAIL(err, MODE_E_USAGE, "give either --classes or --queries; `mode predict --help`");
    if ((st = ask_check(&o.ask, &o.router, err))) return st;
    if (n_args == 0 && !o.images)
        return MODE_FAIL(err, MODE_E_USAGE, "no picture: name some, or a list of them with --images FILE");
    if (o.threads > 0) mode_parallel_set_threads((int)o.threads);
    if (o.images && (st = lines_read(&list, o.images, err))) goto out;
    const int64_t n = n_args + list.n;
    char **pictures = mode_xcalloc((size_t)n + 1, sizeof *pictures);
    memcpy(pictures, argv + 1, (size_t)n_args * sizeof *pictures);
    for (int64_t i = 0; i < list.n; i++) pictures[n_args + i] = list.line[i];
    char *experts = o.experts ? mode_xstrdup(o.experts) : mode_path_join(o.workspace, "experts");
    if (n == 0)
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: is empty; expected paths of pictures, one per line", o.images);
    else
        st = predict(&o, experts, pictures, n_args, n, err);
    free(experts);
    free(pictures);
out:
    lines_free(&list);
    return st;
}

const struct mode_verb mode_verb_predict = {"predict", "the experts of a workspace on pictures of your own", run};
