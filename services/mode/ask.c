#include "ask.h"

#include "base/file.h"
#include "base/str.h"
#include "hub.h"
#include "merges.h"
#include "ranges.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum mode_status ask_check(const struct ask_options *o, const struct router_options *router, struct mode_error *err)
{
    enum mode_router name;
    struct mode_router_params params;
    if (o->templates && !o->classes)
        return MODE_FAIL(err, MODE_E_USAGE, "--templates: only class names go into templates");
    return router_check(router, &name, &params, err);
}

enum mode_status ask_words(struct mode_evalset *e, const struct ask_options *o, struct mode_error *err)
{
    *e = (struct mode_evalset){0};
    if (!o->classes && !o->queries) return MODE_OK;
    e->name = mode_xstrdup(o->classes ? o->classes : o->queries);
    e->kind = o->classes ? MODE_TASK_CLASSIFICATION : MODE_TASK_RETRIEVAL;
    if (o->queries) return mode_evalset_words_read(&e->texts, &e->n_texts, o->queries, err);
    enum mode_status st = mode_evalset_classes_read(e, o->classes, err);
    if (st) return mode_error_prefix(err, st, "--classes, a file of names, one per line");
    if (o->templates) return mode_evalset_templates_read(&e->templates, &e->n_templates, o->templates, err);
    e->templates = mode_xmalloc(sizeof *e->templates);
    e->templates[0] = mode_xstrdup("{c}");
    e->n_templates = 1;
    return MODE_OK;
}

enum mode_status ask_index(struct ask *a, const char *experts, struct mode_error *err)
{
    json_error_t why;
    *a = (struct ask){0};
    char *path = mode_path_join(experts, "index.json");
    enum mode_status st = MODE_OK;
    if (!mode_file_exists(path))
        st = MODE_FAIL(err, MODE_E_NOINPUT,
                       "%s does not exist; expected the experts/ of a finished run. HINT: it is in the workspace",
                       path);
    else if (!(a->index = json_load_file(path, 0, &why)))
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s:%d: not JSON: %s", path, why.line, why.text);
    free(path);
    return st;
}

static const char *said(const struct ask *a, const char *key)
{
    return json_string_value(json_object_get(a->index, key));
}

struct router_options ask_router(const struct ask *a, const struct router_options *given)
{
    const json_t *top = json_object_get(a->index, "top_experts");
    return (struct router_options){.name = given->name ? given->name : said(a, "router"),
                                   .params = given->params ? given->params : said(a, "router_params"),
                                   .top = given->top >= 0        ? given->top
                                          : json_is_integer(top) ? json_integer_value(top)
                                                                 : 0};
}

enum mode_status ask_encoder(const char **encoder, const struct ask *a, const char *given, struct mode_error *err)
{
    *encoder = given ? given : said(a, "encoder");
    return option_needed(*encoder, "--encoder DIR, which index.json of the experts does not name,", err);
}

enum mode_status ask_open(struct ask *a, struct mode_predict_spec *s, const char *experts, const struct ask_options *o,
                          const struct router_options *router, struct mode_error *err)
{
    const char *encoder;
    enum mode_status st = ask_index(a, experts, err);
    if (st) return st;
    const struct router_options r = ask_router(a, router);
    s->experts = experts;
    s->merges = o->merges ? o->merges : said(a, "clip_merges");
    s->router = MODE_ROUTER_PAPER;
    if ((st = router_check(&r, &s->router, &s->params, err))) return st;
    s->top_experts = (int)r.top;
    if (!o->classes && !o->queries) return MODE_OK;
    if ((!s->merges && (st = merges_find(&s->merges, err))) || (st = ask_encoder(&encoder, a, o->encoder, err)) ||
        (st = ask_words(&a->words, o, err)) || (st = mode_hub_encoder(&a->encoder, encoder, err)))
        return st;
    s->encoder = a->encoder;
    s->words = &a->words;
    return MODE_OK;
}

/* The digest of that model's weights; NULL: no such model, or no index. */
static const char *digest_of(const json_t *index, const char *name)
{
    const json_t *x;
    size_t i;
    json_array_foreach(json_object_get(index, "models"), i, x)
    {
        const char *is = json_string_value(json_object_get(x, "name"));
        if (is && strcmp(is, name) == 0) return json_string_value(json_object_get(x, "digest"));
    }
    return NULL;
}

enum mode_status ask_end(const struct ask *a, const char *experts, enum mode_status st, struct mode_error *err)
{
    char *path = mode_path_join(experts, "index.json");
    json_t *now = json_load_file(path, 0, NULL);
    const json_t *x;
    size_t i;
    bool same = true;
    json_array_foreach(json_object_get(a->index, "models"), i, x)
    {
        const char *name = json_string_value(json_object_get(x, "name")),
                   *was = name ? digest_of(a->index, name) : NULL, *is = name ? digest_of(now, name) : NULL;
        same &= !was || (is && strcmp(is, was) == 0);
    }
    if (!same)
        st = MODE_FAIL(err, MODE_E_TEMP,
                       "%s: its models were replaced by those of another run meanwhile. HINT: run the command again",
                       experts);
    json_decref(now);
    free(path);
    return st;
}

void ask_close(struct ask *a)
{
    mode_evalset_close(&a->words);
    json_decref(a->index);
    free(a->encoder);
    *a = (struct ask){0};
}

void ask_print_weights(const double *weight, int n, const char *word)
{
    fprintf(stderr, "%s:", word ? word : "weights");
    for (int c = 0; c < n; c++)
        if (weight[c] > 0) fprintf(stderr, "  expert-%d %.4f", c, weight[c]);
    fprintf(stderr, "\n");
}
