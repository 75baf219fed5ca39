/* mode weights - shows how a task's words weight the experts, and why. */
#include "ask.h"
#include "backend_option.h"
#include "base/file.h"
#include "base/options.h"
#include "base/str.h"
#include "data/evalset.h"
#include "data/safetensors.h"
#include "data/utf8.h"
#include "ensemble/router.h"
#include "hub.h"
#include "msg/place.h"
#include "nn/backend.h"
#include "pipeline/defaults.h"
#include "pipeline/embed.h"
#include "ranges.h"
#include "router_option.h"
#include "verb.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct options {
    struct backend_options backend;
    struct router_options router;
    const char *workspace, *centres, *encoder, *words, *classes, *task, *pooling;
    int64_t max_tokens;
    bool per_word, json;
};

#define CENTRES "centres.safetensors"

static const struct mode_option table[] = {
    MODE_OPT_STR(struct options, workspace, "workspace", NULL, "DIR",
                 "the workspace whose experts/ give centres, encoder and router"),
    MODE_OPT_STR(struct options, centres, "centres", NULL, "FILE",
                 "or centres alone, of `mode cluster` (default, without --workspace: " CENTRES ")"),
    MODE_OPT_STR(struct options, classes, "classes", NULL, "FILE", "the task's words: one per line"),
    MODE_OPT_STR(struct options, task, "task", NULL, "DIR",
                 "or an evaluation task: class names with templates, or captions"),
    MODE_OPT_STR(struct options, encoder, "encoder", NULL, "DIR",
                 "the encoder the centres were made with, to embed the words; or its ORG/NAME[@REVISION] (default: "
                 "that of --workspace)"),
    MODE_OPT_STR(struct options, words, "words", NULL, "FILE",
                 "or the words' vectors (feat.safetensors of `mode embed`)"),
    ROUTER_OPTIONS(struct options, NULL,
                   "paper | reference | uniform | coarse-centre | share | all (default: the run's with --workspace, as "
                   "of the next two; else " MODE_DEFAULT_ROUTER ")"),
    MODE_OPT_FLAG(struct options, per_word, "per-word", "weights for every word on its own, as for a query"),
    MODE_OPT_STR(struct options, pooling, "pooling", NULL, "NAME",
                 "pooling of the encoder; default: as for the centres"),
    MODE_OPT_INT(struct options, max_tokens, "max-tokens", "0", "N", "tokens of the encoder; 0 = as for the centres"),
    BACKEND_OPTIONS(struct options),
    MODE_OPT_FLAG(struct options, json, "json", "print the result as JSON"),
    MODE_OPT_END};

static const struct option_range ranges[] = {RANGE("max-tokens", 0, 1 << 16), RANGE_END};

/* The words as text, for the table. Freed by free_names. */
struct names {
    char **text;
    int n;
};

static enum mode_status read_names(struct names *names, const struct options *o, struct mode_error *err)
{
    struct mode_evalset e = {0};
    char *data = NULL;
    size_t size;
    enum mode_status st = MODE_OK;
    if (o->task) {
        if ((st = mode_evalset_open(&e, o->task, err))) goto out;
        bool retrieval = e.kind == MODE_TASK_RETRIEVAL;
        names->n = retrieval ? e.n_texts : e.n_classes;
        names->text = mode_xcalloc((size_t)names->n + 1, sizeof *names->text);
        for (int i = 0; i < names->n; i++) names->text[i] = mode_xstrdup(retrieval ? e.texts[i] : e.classes[i]);
    } else if (o->classes) {
        if ((st = mode_file_read(o->classes, 0, &data, &size, err))) goto out;
        if (!mode_utf8_is_text(data, size)) st = MODE_FAIL(err, MODE_E_FORMAT, "%s: is not UTF-8 text", o->classes);
        for (char *rest = data, *line; !st && *rest && (line = strsep(&rest, "\n"));) {
            if (!line[strspn(line, " \t\r")])
                st = MODE_FAIL(err, MODE_E_FORMAT, "%s: line %d is blank; expected a word of the task on every line",
                               o->classes, names->n + 1);
            names->text = mode_xrealloc(names->text, ((size_t)names->n + 1) * sizeof *names->text);
            names->text[names->n++] = mode_xstrdup(line);
            if (!rest) break;
        }
        if (!st && names->n == 0)
            st = MODE_FAIL(err, MODE_E_FORMAT, "%s: is empty; expected the task's words, one per line", o->classes);
    }
out:
    mode_evalset_close(&e);
    free(data);
    return st;
}

static void free_names(struct names *names)
{
    for (int i = 0; i < names->n; i++) free(names->text[i]);
    free(names->text);
}

/* Embed the words to a temporary file as `mode embed` would; pooling and max_tokens default to the centres'. */
static enum mode_status embed(const char *out, const struct options *o, const struct mode_centres *c,
                              struct mode_error *err)
{
    struct mode_backend *be = NULL;
    struct mode_text_encoder *enc = NULL;
    char *dir = NULL;
    enum mode_status st;
    if ((st = backend_open(&be, &o->backend, err))) goto out;
    if ((st = mode_hub_encoder(&dir, o->encoder, err))) goto out;
    if ((o->pooling || o->max_tokens) &&
        mode_text_encoder_id_of(dir, o->pooling, (int)o->max_tokens, NULL, NULL, NULL, err) == MODE_E_VALUE) {
        st = MODE_E_USAGE;
        goto out;
    }
    if ((st = mode_text_encoder_open_as(&enc, be, dir, c->encoder_id, o->pooling, (int)o->max_tokens, err))) goto out;
    if (o->task)
        st = mode_embed_task(NULL, out, enc, o->task, NULL, NULL, NULL, err);
    else
        st = mode_embed_lines(NULL, out, enc, o->classes, NULL, NULL, err);
out:
    free(dir);
    mode_text_encoder_close(&enc);
    mode_backend_close(&be);
    return st;
}

static enum mode_status near_of(struct mode_near *near, const char *path, const struct mode_centres *c,
                                struct mode_error *err)
{
    struct mode_safetensors f;
    const struct mode_tensor *feat;
    int64_t dim[2] = {-1, c->d};
    enum mode_status st = mode_safetensors_open(&f, path, err);
    if (st) return st;
    if (!(st = mode_centres_check_encoder(c, mode_safetensors_meta(&f, "encoder_id"), path, err)) &&
        !(st = mode_safetensors_need(&f, "feat", MODE_DTYPE_F32, 2, dim, &feat, err)))
        st = mode_near_open(near, c, mode_f32(feat), (int)feat->dim[0], err);
    mode_safetensors_close(&f);
    return st;
}

/* One line of weights, and the same as JSON. */
static json_t *print_row(double *w, int n, int64_t top, const char *router, const char *word, bool json)
{
    json_t *list = json_array();
    if (top > 0) mode_weights_keep_top(w, n, top < n ? (int)top : n);
    double entropy = mode_weights_entropy(w, n);
    if (!json) printf("%-14s", router);
    for (int e = 0; e < n; e++) {
        if (!json) printf(" expert-%d %.4f ", e, w[e]);
        json_array_append_new(list, json_real(w[e]));
    }
    if (!json) printf(" entropy %.4f%s%s\n", entropy, word ? "  " : "", word ? word : "");
    return json_pack("{s:o, s:f}", "weights", list, "entropy", entropy);
}

static void print(const struct mode_near *near, const struct names *names, int router,
                  const struct mode_router_params *p, const struct options *o)
{
    const int n_rows = o->per_word ? near->k : 1;
    const bool json = o->json;
    double *w = mode_xcalloc((size_t)near->n * (size_t)n_rows, sizeof *w);
    json_t *all = json_object(), *routers = json_object(), *words = json_array();
    for (int r = 0; r < MODE_ROUTER_COUNT; r++) {
        const int64_t top = mode_router_top((enum mode_router)r, (int)o->router.top);
        const char *name = mode_router_name((enum mode_router)r);
        if (router >= 0 && r != router) continue;
        if (!o->per_word) {
            mode_router_weights(w, near, (enum mode_router)r, p);
            json_object_set_new(routers, name, print_row(w, near->n, top, name, NULL, json));
            continue;
        }
        json_t *rows = json_array();
        mode_router_query_weights(w, near, (enum mode_router)r, p);
        for (int i = 0; i < near->k; i++)
            json_array_append_new(rows, print_row(w + (int64_t)i * near->n, near->n, top, name,
                                                  i < names->n ? names->text[i] : "", json));
        json_object_set_new(routers, name, json_pack("{s:o}", "per_word", rows));
    }
    if (!json) printf("\n%8s  %8s  %9s  word\n", "fine", "expert", "distance");
    for (int i = 0; i < near->k; i++) {
        const char *word = i < names->n ? names->text[i] : "";
        if (!json) printf("%8d  %8d  %9.4f  %s\n", near->fine_id[i], near->expert[i], near->distance[i], word);
        json_t *j = json_pack("{s:i, s:i, s:f}", "fine", near->fine_id[i], "expert", near->expert[i], "distance",
                              (double)near->distance[i]);
        json_object_set_new(j, "word", json_string(word));
        json_array_append_new(words, j);
    }
    json_object_set_new(all, "routers", routers);
    json_object_set_new(all, "words", words);
    if (json) {
        json_dumpf(all, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
        printf("\n");
    }
    json_decref(all);
    free(w);
}

/* Fills options that are not given from the workspace's experts/, unless centres are given. Their values are valid as
 * long as ask. */
static enum mode_status complete(struct options *o, struct ask *ask, char **experts, char **centres,
                                 struct mode_error *err)
{
    enum mode_status st;
    if (o->centres || !o->workspace) {
        if (!o->centres) o->centres = CENTRES;
        if (!o->router.name) o->router.name = MODE_DEFAULT_ROUTER;
        return MODE_OK;
    }
    if ((st = mode_place_exists(o->workspace, err))) return st;
    *experts = mode_path_join(o->workspace, "experts");
    if ((st = ask_index(ask, *experts, err))) return st;
    o->router = ask_router(ask, &o->router);
    if (!o->router.name) o->router.name = MODE_DEFAULT_ROUTER;
    o->centres = *centres = mode_path_join(*experts, CENTRES);
    return o->words ? MODE_OK : ask_encoder(&o->encoder, ask, o->encoder, err);
}

/* Parses the router; *every: all routers. */
static enum mode_status check_router(const struct router_options *o, enum mode_router *router, bool *every,
                                     struct mode_router_params *params, struct mode_error *err)
{
    struct router_options checked = *o;
    *every = o->name && strcmp(o->name, "all") == 0;
    if (*every) checked.name = NULL;
    return router_check(&checked, router, params, err);
}

static enum mode_status check_options(const struct options *o, struct mode_error *err)
{
    if (o->words || ((o->encoder || (o->workspace && !o->centres)) && !o->task != !o->classes)) return MODE_OK;
    return MODE_FAIL(err, MODE_E_USAGE,
                     "give --workspace or --encoder with either --classes or --task, or --words with ready vectors");
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct options o = {0};
    struct ask ask = {0};
    struct mode_centres c = {0};
    struct mode_near near = {0};
    struct names names = {0};
    struct mode_router_params params;
    char *folder = NULL, *made = NULL, *experts = NULL, *centres = NULL;
    enum mode_router router = MODE_ROUTER_SHARE;
    bool every;
    int n_args;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(
            table, "MODE_",
            "mode weights (--workspace DIR | --centres FILE) (--classes FILE | --task DIR | --words FILE) [options]",
            "Prints the weight of every expert for a task, from the task's own words, and the fine centre that each "
            "word is nearest to.");
        return MODE_OK;
    }
    enum mode_status st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err);
    if (st || (st = arguments_check(n_args, 0, argv, NULL, err)) || (st = ranges_check(&o, table, ranges, err)) ||
        (st = check_router(&o.router, &router, &every, &params, err)) || (st = check_options(&o, err)))
        return st;
    if ((st = complete(&o, &ask, &experts, &centres, err)) ||
        (st = check_router(&o.router, &router, &every, &params, err)) || (st = mode_centres_load(&c, o.centres, err)) ||
        (st = read_names(&names, &o, err)))
        goto out;
    if (!o.words) {
        if ((st = mode_dir_temporary(&folder, err))) goto out;
        made = mode_path_join(folder, "words.safetensors");
        if ((st = embed(made, &o, &c, err))) goto out;
    }
    st = near_of(&near, o.words ? o.words : made, &c, err);
out:
    if (experts && ask.index) st = ask_end(&ask, experts, st, err);
    if (!st) print(&near, &names, every ? -1 : (int)router, &params, &o);
    if (st && folder) mode_error_rename(err, folder, "a temporary folder (TMPDIR)");
    if (folder) mode_dir_remove(folder, NULL);
    free(folder);
    free(made);
    free(experts);
    free(centres);
    free_names(&names);
    mode_near_close(&near);
    mode_centres_clear(&c);
    ask_close(&ask);
    return st;
}

const struct mode_verb mode_verb_weights = {"weights", "a task's words to expert weights, and why", run};
