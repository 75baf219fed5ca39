/* mode probe - linear probe: a logistic regression from the image features of a CLIP, or of all experts of a run, to a
 * task's labels. */
#include "ask.h"
#include "backend_option.h"
#include "base/file.h"
#include "base/options.h"
#include "base/parallel.h"
#include "base/str.h"
#include "cluster/centres.h"
#include "hub.h"
#include "nn/backend.h"
#include "pipeline/defaults.h"
#include "pipeline/probe.h"
#include "ranges.h"
#include "scoring.h"
#include "verb.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct options {
    struct backend_options backend;
    const char *model, *experts, *train, *name;
    int64_t batch, threads, seed;
    double held_back, strength;
    bool json;
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct options, model, "model", NULL, "DIR",
                 "folder of open_clip or Hugging Face, or hf-hub:ORG/NAME"),
    MODE_OPT_STR(struct options, experts, "experts", NULL, "DIR",
                 "or all experts of a finished run together: WORKSPACE/experts"),
    MODE_OPT_STR(struct options, train, "train", NULL, "DIR",
                 "with one task: train on this task folder's train/ or, where it has none, its test/"),
    MODE_OPT_REAL(struct options, strength, "c", "0", "C", "scikit-learn's C; 0: chosen on held-out pictures"),
    MODE_OPT_REAL(struct options, held_back, "held-back", "0.2", "X",
                  "share of each class's training pictures that is held out"),
    MODE_OPT_INT(struct options, seed, "seed", "0", "N", "seed of the choice of these pictures"),
    MODE_OPT_STR(struct options, name, "name", NULL, "NAME",
                 "name of the model in the results (default: the folder's name)"),
    MODE_OPT_INT(struct options, batch, "batch", MODE_DEFAULT_EVALUATE_BATCH, "N", "pictures in a batch"),
    BACKEND_OPTIONS(struct options),
    MODE_OPT_INT(struct options, threads, "threads", NULL, "N", "threads (default: every processor)"),
    MODE_OPT_FLAG(struct options, json, "json", "one CLIP_benchmark result object per line, one per task"),
    MODE_OPT_END};

static const struct option_range ranges[] = {RANGE("batch", 1, 1 << 20),
                                             RANGE("c", 0, 1e12),
                                             {"held-back", 0, 1, true, true},
                                             RANGE_SEED,
                                             RANGE_THREADS,
                                             RANGE_END};

static const char prose[] =
    "A linear probe. A task is a classification folder with train/ beside test/, as CLIP_benchmark's data sets have it "
    "(docs/FORMATS.md); its words are not used. Features are L2-normalised; those of several experts are concatenated, "
    "each normalised on its own. C, the inverse of the regularisation strength, is chosen from 1e-6 to 1e6 on held-out "
    "training pictures; then all of them are trained on. The search goes to stderr, metrics to stdout: fractions, "
    "\"-\" (null with --json) where there is none.";

/* Whose features. */
struct models {
    char **dir;
    int n;
    struct ask ask; /* of experts */
};

static enum mode_status find_experts(struct models *m, const char *experts, struct mode_error *err)
{
    const struct ask_options nothing = {0};
    const struct router_options router = {.top = -1};
    struct mode_predict_spec unused = {0};
    struct mode_centres c = {0};
    char *path = mode_path_join(experts, "centres.safetensors");
    enum mode_status st = ask_open(&m->ask, &unused, experts, &nothing, &router, err);
    if (!st) st = mode_centres_load(&c, path, err);
    if (!st) m->dir = mode_xcalloc((size_t)c.n, sizeof *m->dir);
    for (; !st && m->n < c.n; m->n++) m->dir[m->n] = mode_xasprintf("%s/expert-%d", experts, m->n);
    mode_centres_clear(&c);
    free(path);
    return st;
}

static void free_models(struct models *m)
{
    for (int i = 0; i < m->n; i++) free(m->dir[i]);
    free(m->dir);
    ask_close(&m->ask);
}

static bool has_split(const char *dir, const char *split)
{
    char *path = mode_xasprintf("%s/%s/nshards.txt", dir, split);
    const bool is = mode_file_exists(path);
    free(path);
    return is;
}

static bool is_same_folder(const char *a, const char *b)
{
    char *x = realpath(a, NULL), *y = realpath(b, NULL);
    const bool same = x && y && strcmp(x, y) == 0;
    free(x);
    free(y);
    return same;
}

static enum mode_status open_tasks(struct mode_evalset *train, struct mode_evalset *test, const struct options *o,
                                   const char *dir, struct mode_error *err)
{
    const char *from = o->train ? o->train : dir, *split = has_split(from, "train") ? "train" : "test";
    enum mode_status st = mode_evalset_open(test, dir, err);
    if (!st) st = mode_probe_check_kind(test, err);
    if (st) return st;
    if (strcmp(split, "test") == 0 && is_same_folder(from, dir))
        return MODE_FAIL(
            err, MODE_E_NOINPUT,
            "%s: has no train/nshards.txt, labelled pictures to learn from. HINT: --train DIR names another "
            "task folder that has them, such as `mode pack --task` makes",
            from);
    return mode_evalset_open_split(train, from, split, err);
}

/* ---- what is said ---- */

static void say_try(void *ctx, const struct mode_probe *p)
{
    const struct mode_probe_try *t = &p->tries[p->n_tries - 1];
    if (p->n_tries == 1)
        fprintf(stderr,
                "%s: C is chosen by %lld of %lld training pictures, %lld classes, %lld features per picture\n"
                "           C    right  steps\n",
                (const char *)ctx, (long long)p->n_held_back, (long long)p->n_train, (long long)p->c,
                (long long)p->width);
    fprintf(stderr, "%12.4g   %6.4f  %5d%s\n", t->strength, t->accuracy, t->fit.iterations,
            t->fit.converged ? "" : "  (not at the minimum)");
}

static void say_end(const char *task, const struct mode_probe *p)
{
    fprintf(stderr, "%s: C = %.4g, all %lld training pictures: %d step%s%s\n", task, p->at.strength,
            (long long)p->n_train, p->at.fit.iterations, MODE_PLURAL(p->at.fit.iterations),
            p->at.fit.converged ? "" : " (not at the minimum)");
}

static json_t *json_of(const struct mode_probe_try *t)
{
    return json_pack("{s:f, s:o, s:f, s:f, s:i, s:b}", "C", t->strength, "held_back_acc1",
                     isnan(t->accuracy) ? json_null() : json_real(t->accuracy), "objective", t->fit.objective,
                     "gradient", t->fit.gradient, "steps", t->fit.iterations, "converged", (int)t->fit.converged);
}

/* CLIP_benchmark's result object, with details of the fit. */
static enum mode_status result_of(json_t **out, const struct mode_probe *p, const struct mode_evalset *test,
                                  const struct options *o, const struct models *m, struct mode_error *err)
{
    const struct mode_result r = mode_probe_result(p, test, o->name);
    enum mode_status st = mode_result_json(out, &r, err);
    if (st) return st;
    json_t *tries = json_array(), *how = json_of(&p->at);
    for (int i = 0; i < p->n_tries; i++) json_array_append_new(tries, json_of(&p->tries[i]));
    json_object_set_new(how, "train", json_integer(p->n_train));
    json_object_set_new(how, "held_back", json_integer(p->n_held_back));
    json_object_set_new(how, "seed", json_integer(o->seed));
    json_object_set_new(how, "test", json_integer(p->n_test));
    json_object_set_new(how, "classes", json_integer(p->c));
    json_object_set_new(how, "models", json_integer(m->n));
    json_object_set_new(how, "width", json_integer(p->width));
    json_object_set_new(how, "tries", tries);
    json_object_set_new(*out, "task", json_string("linear_probe"));
    json_object_set_new(*out, "probe", how);
    return MODE_OK;
}

static enum mode_status one_task(const struct options *o, const char *dir, const struct models *m,
                                 struct mode_backend *be, struct mode_error *err)
{
    struct mode_evalset train = {0}, test = {0};
    struct mode_probe p = {0};
    json_t *result = NULL;
    enum mode_status st = open_tasks(&train, &test, o, dir, err);
    const struct mode_encode_hook hook = {
        .ctx = test.name, .more = isatty(2) ? scoring_more : NULL, .notice = scoring_notice};
    const struct mode_probe_spec s = {.be = be,
                                      .models = m->dir,
                                      .n_models = m->n,
                                      .batch = o->batch,
                                      .seed = (uint64_t)o->seed,
                                      .held_back = o->held_back,
                                      .strength = o->strength,
                                      .hook = &hook,
                                      .tried = say_try,
                                      .ctx = test.name};
    if (!st) st = mode_probe(&p, &s, &train, &test, err);
    if (!st) st = result_of(&result, &p, &test, o, m, err);
    if (!st) {
        say_end(test.name, &p);
        scoring_print(test.name, result, o->json);
    }
    json_decref(result);
    mode_probe_clear(&p);
    mode_evalset_close(&train);
    mode_evalset_close(&test);
    return st;
}

static enum mode_status check(const struct options *o, int n, char **argv, struct mode_error *err)
{
    enum mode_status st;
    if (!o->model == !o->experts)
        return MODE_FAIL(err, MODE_E_USAGE, "whose features? Give --model DIR, or --experts DIR for all of a run's");
    if ((st = option_needed(n ? argv[1] : NULL, "a task's folder", err))) return st;
    if (o->train && n > 1) return MODE_FAIL(err, MODE_E_USAGE, "--train is for one task, %d are given", n);
    return MODE_OK;
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct options o = {0};
    struct mode_backend *be = NULL;
    struct models m = {0};
    char *name = NULL, *fetched = NULL;
    int n = 0;
    enum mode_status st;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_", "mode probe (--model DIR | --experts DIR) TASK... [--train DIR] [--json]",
                          prose);
        return MODE_OK;
    }
    if ((st = mode_options_parse(&o, table, "MODE_", argc, argv, &n, err))) return st;
    if ((st = check(&o, n, argv, err)) || (st = ranges_check(&o, table, ranges, err)) ||
        (st = backend_check(&o.backend, err)))
        return st;
    if (o.threads > 0) mode_parallel_set_threads((int)o.threads);
    if (o.model && (st = mode_hub_clip(&o.model, &fetched, err))) goto out;
    name = scoring_name(o.model ? o.model : o.experts);
    if (!o.name) o.name = name;
    if (o.experts)
        st = find_experts(&m, o.experts, err);
    else {
        m.dir = mode_xcalloc(1, sizeof *m.dir);
        m.dir[m.n++] = mode_xstrdup(o.model);
    }
    if (!st) st = backend_open(&be, &o.backend, err);
    for (int i = 0; !st && i < n; i++) st = one_task(&o, argv[1 + i], &m, be, err);
    if (o.experts && m.ask.index) st = ask_end(&m.ask, o.experts, st, err);
out:
    free_models(&m);
    mode_backend_close(&be);
    free(name);
    free(fetched);
    return st;
}

const struct mode_verb mode_verb_probe = {"probe", "linear probes on image features", run};
