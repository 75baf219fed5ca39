/* mode predict - the ensemble of a workspace on pictures of one's own. */
#include "backend_option.h"
#include "base/file.h"
#include "base/options.h"
#include "base/parallel.h"
#include "base/str.h"
#include "data/utf8.h"
#include "hub.h"
#include "lines.h"
#include "merges.h"
#include "nn/backend.h"
#include "pipeline/predict.h"
#include "ranges.h"
#include "router_option.h"
#include "verb.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
    struct backend_options backend;
    struct router_options router;
    const char *workspace, *experts, *classes, *templates, *queries, *images, *encoder, *merges;
    int64_t top, batch, threads;
    bool json;
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct options, workspace, "workspace", ".", "DIR", "the workspace whose experts/ are used"),
    MODE_OPT_STR(struct options, experts, "experts", NULL, "DIR", "or such a folder, taken from a workspace"),
    MODE_OPT_STR(struct options, classes, "classes", NULL, "FILE",
                 "class names, one a line (tabs between several of one class): every picture is given one"),
    MODE_OPT_STR(struct options, templates, "templates", NULL, "FILE",
                 "with --classes: texts with {c} for the class, one a line (default: {c} alone)"),
    MODE_OPT_STR(struct options, queries, "queries", NULL, "FILE",
                 "or texts, one a line: for each the nearest pictures"),
    MODE_OPT_STR(struct options, images, "images", NULL, "FILE", "more pictures: paths, one a line"),
    MODE_OPT_INT(struct options, top, "top", "5", "N", "so many classes of a picture, or pictures of a query"),
    ROUTER_OPTIONS(struct options, NULL,
                   "paper | reference | uniform | coarse-centre | share (default: the run's, as of the next two)"),
    MODE_OPT_STR(struct options, encoder, "encoder", NULL, "DIR",
                 "the encoder the centres were made with (default: the run's)"),
    MODE_OPT_STR(struct options, merges, "clip-merges", NULL, "FILE",
                 "bpe_simple_vocab_16e6.txt.gz (default: the run's)"),
    MODE_OPT_INT(struct options, batch, "batch", "256", "N", "pictures or texts in a batch"),
    BACKEND_OPTIONS(struct options),
    MODE_OPT_INT(struct options, threads, "threads", NULL, "N", "threads (default: every processor)"),
    MODE_OPT_FLAG(struct options, json, "json", "one object a line: the weights, then every picture or query"),
    MODE_OPT_END};

static const struct option_range ranges[] = {RANGE("batch", 1, 1 << 20), RANGE_FROM("top", 1), RANGE_THREADS,
                                             RANGE_END};

static const char prose[] =
    "Scores pictures with the experts of a finished run, weighted by the words that are asked for. A score is\n"
    "the experts' weighted cosine. Prints, tab-separated, picture, score, class; or query, score, picture.\n"
    "The weights go to stderr. A picture that cannot be read or decoded is an error.";

/* What experts/index.json says of the run that made them. */
struct run {
    json_t *index;
    const char *encoder, *merges; /* NULL: not said */
    struct router_options router;
};

static enum mode_status read_run(struct run *r, const char *experts, struct mode_error *err)
{
    json_error_t why;
    char *path = mode_path_join(experts, "index.json");
    enum mode_status st = MODE_OK;
    if (!mode_file_exists(path))
        st = MODE_FAIL(err, MODE_E_NOINPUT, "%s is not there; expected the experts/ of a finished run", path);
    else if (!(r->index = json_load_file(path, 0, &why)))
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s:%d: not JSON: %s", path, why.line, why.text);
    const json_t *top = json_object_get(r->index, "top_experts");
    r->router.name = json_string_value(json_object_get(r->index, "router"));
    r->router.params = json_string_value(json_object_get(r->index, "router_params"));
    r->router.top = json_is_integer(top) ? json_integer_value(top) : 0;
    r->encoder = json_string_value(json_object_get(r->index, "encoder"));
    r->merges = json_string_value(json_object_get(r->index, "clip_merges"));
    free(path);
    return st;
}

/* The words, as a task without pictures. */
static enum mode_status read_words(struct mode_evalset *e, const struct options *o, struct mode_error *err)
{
    e->name = mode_xstrdup(o->classes ? o->classes : o->queries);
    e->kind = o->classes ? MODE_TASK_CLASSIFICATION : MODE_TASK_RETRIEVAL;
    if (o->queries) return mode_evalset_words_read(&e->texts, &e->n_texts, o->queries, err);
    enum mode_status st = mode_evalset_classes_read(e, o->classes, err);
    if (st) return st;
    if (o->templates) return mode_evalset_templates_read(&e->templates, &e->n_templates, o->templates, err);
    e->templates = mode_xmalloc(sizeof *e->templates);
    e->templates[0] = mode_xstrdup("{c}");
    e->n_templates = 1;
    return MODE_OK;
}

static void print_weights(const double *weight, int n, const char *word, bool json)
{
    json_t *list = json_array();
    if (!json) fprintf(stderr, "%s%s", word ? word : "weights:", word ? ":" : "");
    for (int c = 0; c < n; c++) {
        if (json)
            json_array_append_new(list, json_real(weight[c]));
        else if (weight[c] > 0)
            fprintf(stderr, "  expert-%d %.4f", c, weight[c]);
    }
    if (!json) fprintf(stderr, "\n");
    if (json) {
        json_t *o = word ? json_pack("{s:s, s:O}", "query", word, "weights", list)
                         : json_pack("{s:O}", "weights", list);
        json_dumpf(o, stdout, JSON_REAL_PRECISION(9));
        printf("\n");
        json_decref(o);
    }
    json_decref(list);
}

/* Paths may hold any byte, JSON may not. */
static json_t *json_text(const char *text)
{
    char *clean = mode_utf8_cleaned(text, strlen(text));
    json_t *s = json_string(clean);
    free(clean);
    return s;
}

/* The best of n scores, `stride` apart, the best first; of equal ones the first. */
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
    if (o->classes) {
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

static enum mode_status predict(const struct options *o, const char *experts, char **pictures, int64_t n,
                                struct mode_error *err)
{
    struct run r = {0};
    struct mode_evalset words = {0};
    struct mode_prediction p = {0};
    char *dir = NULL;
    const struct mode_encode_hook hook = {.notice = on_notice};
    struct mode_predict_spec s = {.experts = experts,
                                  .words = &words,
                                  .picture = pictures,
                                  .n_pictures = n,
                                  .router = MODE_ROUTER_PAPER,
                                  .batch = o->batch,
                                  .hook = &hook};
    enum mode_status st = read_run(&r, experts, err);
    if (st) goto out;
    s.merges = o->merges ? o->merges : r.merges;
    const char *encoder = o->encoder ? o->encoder : r.encoder;
    const struct router_options router = {.name = o->router.name ? o->router.name : r.router.name,
                                          .params = o->router.params ? o->router.params : r.router.params,
                                          .top = o->router.top >= 0 ? o->router.top : r.router.top};
    if ((!s.merges && (st = merges_find(&s.merges, err))) ||
        (st = option_needed(encoder, "--encoder DIR, which index.json of the experts does not name,", err)) ||
        (st = router_check(&router, &s.router, &s.params, err)) || (st = read_words(&words, o, err)) ||
        (st = mode_hub_encoder(&dir, encoder, err)) || (st = backend_open(&s.be, &o->backend, err)))
        goto out;
    s.encoder = dir;
    s.top_experts = (int)router.top;
    if (!(st = mode_predict(&p, &s, err))) print(&p, &s, o);
out:
    mode_prediction_clear(&p);
    mode_evalset_close(&words);
    mode_backend_close(&s.be);
    json_decref(r.index);
    free(dir);
    return st;
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct options o = {0};
    struct lines list = {0};
    enum mode_router router;
    struct mode_router_params params;
    int n_args;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_", "mode predict (--classes FILE | --queries FILE) [options] PICTURE...", prose);
        return MODE_OK;
    }
    enum mode_status st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err);
    if (st || (st = ranges_check(&o, table, ranges, err)) || (st = backend_check(&o.backend, err))) return st;
    if (!o.classes == !o.queries)
        return MODE_FAIL(err, MODE_E_USAGE, "give either --classes or --queries; `mode predict --help`");
    if (o.templates && !o.classes)
        return MODE_FAIL(err, MODE_E_USAGE, "--templates: only class names go into templates");
    if ((st = router_check(&o.router, &router, &params, err))) return st;
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
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: is empty; expected paths of pictures, one a line", o.images);
    else
        st = predict(&o, experts, pictures, n, err);
    free(experts);
    free(pictures);
out:
    lines_free(&list);
    return st;
}

const struct mode_verb mode_verb_predict = {"predict", "the experts of a workspace on pictures of your own", run};
