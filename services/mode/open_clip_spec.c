#include "open_clip_spec.h"

#include "base/path.h"
#include "models/clip_config.h"
#include "pipeline/cache.h"
#include "pipeline/model_config.h"

#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* the paper's fork point: 27 of 32 epochs */
#define FORK (27.0 / 32.0)

struct translation {
    struct spec_text *t;
    struct mode_str *said;
    const struct open_clip_command *c;
    const struct init_request *r;
    bool *done;                                                  /* [c->n_given] */
    struct mode_str not_needed, unsupported;                     /* comment lines */
    struct mode_str before;                                      /* commands to call before the run, a line each */
    int64_t batch, accumulate, epochs, workers, warmup, samples; /* samples: 0 if it is not given */
    int64_t epoch_steps;                                         /* as open_clip counts them; 0: unknown */
    char *shards;
    bool csv; /* the training data are a CSV file */
    struct mode_error *err;
};

static void not_needed(struct translation *x, const char *what, const char *why)
{
    mode_str_printf(&x->not_needed, "not needed: %s (%s)\n", what, why);
}

/* A line in the spec and one for the user. */
static void unsupported(struct translation *x, const char *what, const char *why)
{
    mode_str_printf(&x->unsupported, "not supported: %s (%s)\n", what, why);
    mode_str_printf(x->said, "not supported: %s (%s)\n", what, why);
}

/* The option if it is given; it is then accounted for. */
static const struct open_clip_given *take(struct translation *x, const char *name)
{
    const struct open_clip_given *g = open_clip_given(x->c, name);
    if (g) x->done[g - x->c->given] = true;
    return g;
}

static const char *take_value(struct translation *x, const char *name, const char *otherwise)
{
    take(x, name);
    return open_clip_value(x->c, name, otherwise);
}

static enum mode_status count(struct translation *x, const char *name, const char *otherwise, int64_t min, int64_t max,
                              int64_t *n)
{
    char *what = mode_xasprintf("--%s", name);
    enum mode_status st = mode_parse_int(open_clip_value(x->c, name, otherwise), what, min, max, n, x->err);
    free(what);
    if (st && x->err) x->err->status = MODE_E_USAGE;
    return st ? MODE_E_USAGE : MODE_OK;
}

/* open_clip's own number of steps per epoch: batches are rounded up, and up again to a multiple of the workers (per
 * GPU), and a step takes accum-freq of them. */
static int64_t steps_of_epoch(const struct translation *x)
{
    const int64_t global = x->batch * (int64_t)x->c->processes, workers = x->workers > 1 ? x->workers : 1;
    int64_t batches = (x->samples + global - 1) / global;
    batches = (batches + workers - 1) / workers * workers;
    return batches / x->accumulate;
}

static bool ends_in(const char *text, const char *end)
{
    const size_t n = strlen(text), k = strlen(end);
    return n >= k && strcasecmp(text + n - k, end) == 0;
}

/* Is it read as CSV? As get_dataset_fn of open_clip decides. */
static bool is_csv(const struct translation *x, const char *data)
{
    const char *type = open_clip_value(x->c, "dataset-type", "auto");
    return strcmp(type, "csv") == 0 || (strcmp(type, "auto") == 0 && (ends_in(data, ".csv") || ends_in(data, ".tsv")));
}

/* ---- the command lines of `mode pack` ---- */

static void add_csv_options(struct translation *x, struct mode_str *s)
{
    static const char *const names[] = {"csv-separator", "csv-img-key", "csv-caption-key"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct open_clip_given *g = take(x, names[i]);
        if (g) mode_str_printf(s, " %s", strchr(g->value[0], '\t') ? "--csv-separator '\\t'" : g->text);
    }
}

/* how: pairs or task; csv: from is a list of pairs, otherwise a folder of classes. */
static void pack(struct translation *x, const char *how, const char *from, const char *to, bool csv)
{
    char *in = spec_text_shell(from), *out = spec_text_shell(to);
    mode_str_printf(&x->before, "mode pack --%s %s", how, in);
    if (csv)
        add_csv_options(x, &x->before);
    else
        mode_str_add_cstr(&x->before, " --class-names names.txt --templates templates.txt");
    mode_str_printf(&x->before, " --out %s\n", out);
    free(in);
    free(out);
}

/* ---- data ---- */

/* What a `pipe:` command reads, if that is an address; else NULL. */
static char *read_by_pipe(const char *part)
{
    static const char *const schemes[] = {"s3://", "https://", "http://"};
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        const char *at = strstr(part, schemes[i]);
        if (at) return mode_xasprintf("%.*s", (int)strcspn(at, " \t'\""), at);
    }
    return NULL;
}

static char *without_pipes(struct translation *x, const char *data)
{
    struct mode_str s = {0};
    for (;;) {
        const char *join = strstr(data, "::");
        char *part = mode_xasprintf("%.*s", join ? (int)(join - data) : (int)strlen(data), data);
        char *read = strncmp(part, "pipe:", 5) == 0 ? read_by_pipe(part) : NULL;
        if (!read && strncmp(part, "pipe:", 5) == 0)
            unsupported(x, part, "commands are not run; name what it reads as https:// or s3://");
        mode_str_printf(&s, "%s%s", s.len ? "::" : "", read ? read : part);
        free(read);
        free(part);
        if (!join) return s.data;
        data = join + 2;
    }
}

/* The sources, which for a CSV file `mode pack` makes. */
static enum mode_status find_data(struct translation *x)
{
    const char *data = take_value(x, "train-data", NULL);
    if (x->r->data) data = x->r->data;
    if (strcmp(open_clip_value(x->c, "dataset-type", "auto"), "synthetic") == 0)
        return MODE_FAIL(x->err, MODE_E_USAGE,
                         "--dataset-type synthetic has no captions to cluster; `mode bench train` measures a training");
    if (!data || !*data)
        return MODE_FAIL(x->err, MODE_E_USAGE, "the command has no --train-data. HINT: --data SHARDS, before the `--`");
    x->csv = is_csv(x, data);
    if (!x->csv) {
        x->shards = without_pipes(x, data);
        return MODE_OK;
    }
    char *name = mode_xstrdup(mode_path_base(data)), *dot = strrchr(name, '.');
    if (dot) *dot = '\0';
    x->shards = mode_xasprintf("%s-shards", name);
    pack(x, "pairs", data, x->shards, true);
    free(name);
    return MODE_OK;
}

static void write_data(struct translation *x)
{
    char *text = init_source(x->r, x->shards);
    spec_text_section(x->t, "data", "");
    spec_text_key(x->t, "train", text, "%s", x->csv ? "made from the CSV file by `mode pack`, above" : "--train-data");
    spec_text_section(x->t, "captions", "");
    spec_text_key(x->t, "text_keys", "[txt]", "open_clip reads KEY.txt only");
    free(text);
}

/* ---- name, seed, precision ---- */

/* A model of the hub or a folder is train.init, which has its own config. */
static const char *model_folder(const char *model)
{
    if (mode_hub_name(model)) return model;
    return strncmp(model, "local-dir:", 10) == 0 ? model + 10 : NULL;
}

static void write_name(struct translation *x)
{
    const struct open_clip_given *g = take(x, "name");
    const char *model = open_clip_value(x->c, "model", INIT_MODEL);
    const char *from = g ? g->value[0] : model_folder(model) ? mode_path_base(model) : model;
    char *name = init_name(x->r->name ? x->r->name : from), *text = spec_text_string(name);
    spec_text_key(x->t, "name", text, g ? "--name" : "one run per name in a workspace");
    free(text);
    free(name);
}

static void write_precision(struct translation *x)
{
    const struct open_clip_given *g = take(x, "precision");
    const char *of = g ? g->value[0] : "amp", *is = "bf16";
    const bool cpu = strcmp(open_clip_value(x->c, "device", "cuda"), "cpu") == 0;
    char *why = g ? mode_xasprintf("--precision %s", of)
                  : mode_xstrdup("in place of open_clip's default, amp (float16)");
    if (x->r->precision) {
        is = x->r->precision;
        free(why);
        why = mode_xstrdup("--precision");
    } else if (cpu) {
        is = "f32";
        free(why);
        why = mode_xstrdup("--device cpu");
    } else if (strcmp(of, "fp32") == 0) {
        is = "tf32"; /* main.py: allow_tf32 = True */
        free(why);
        why = mode_xstrdup("--precision fp32, with which open_clip turns TF32 on");
    } else if (strncmp(of, "amp_bf", 6) != 0) {
        unsupported(x, g ? g->text : "--precision amp, open_clip's default",
                    "bf16 in its place; weights and moments are float32");
    }
    spec_text_key(x->t, "precision", is, "%s%s", why, strcmp(is, "f32") == 0 ? "" : "; needs NVIDIA GPUs");
    free(why);
}

/* ---- model ---- */

/* JSON as YAML's flow style: keys without quotes. */
static void add_flow(struct mode_str *s, json_t *v)
{
    const char *key;
    json_t *item;
    size_t i;
    bool first = true;
    if (json_is_object(v)) {
        mode_str_add_char(s, '{');
        json_object_foreach(v, key, item)
        {
            mode_str_printf(s, "%s%s: ", first ? "" : ", ", key);
            add_flow(s, item);
            first = false;
        }
        mode_str_add_char(s, '}');
    } else if (json_is_array(v)) {
        mode_str_add_char(s, '[');
        json_array_foreach(v, i, item)
        {
            mode_str_add_cstr(s, i ? ", " : "");
            add_flow(s, item);
        }
        mode_str_add_char(s, ']');
    } else if (json_is_string(v)) {
        char *text = spec_text_string(json_string_value(v));
        mode_str_add_cstr(s, text);
        free(text);
    } else {
        char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
        mode_str_add_cstr(s, text);
        free(text);
    }
}

static void write_flow(struct spec_text *t, const char *key, json_t *v)
{
    struct mode_str s = {0};
    add_flow(&s, v);
    spec_text_key(t, key, s.data, "%s", "");
    mode_str_clear(&s);
}

/* The values of an option as numbers: a number for one value, a list for several. */
static enum mode_status numbers(json_t **out, const struct open_clip_given *g, struct mode_error *err)
{
    char *what = mode_xasprintf("--%s", g->option->name);
    enum mode_status st = MODE_OK;
    double v;
    json_t *list = json_array();
    for (size_t i = 0; i < g->n && !st; i++)
        if (!(st = mode_parse_real(g->value[i], what, &v, err)))
            json_array_append_new(list, v == floor(v) && fabs(v) < 1e9 ? json_integer((json_int_t)v) : json_real(v));
    free(what);
    if (st) {
        json_decref(list);
        return MODE_FAIL(err, MODE_E_USAGE, "%s: expected numbers", g->text);
    }
    *out = json_incref(g->n == 1 ? json_array_get(list, 0) : list);
    json_decref(list);
    return MODE_OK;
}

/* The options that change a named model's config. section NULL: preprocess_cfg. */
static const struct {
    const char *option, *section, *key;
    bool word;
} changes[] = {{"force-image-size", "vision_cfg", "image_size", false},
               {"force-context-length", "text_cfg", "context_length", false},
               {"image-mean", NULL, "mean", false},
               {"image-std", NULL, "std", false},
               {"image-interpolation", NULL, "interpolation", true},
               {"image-resize-mode", NULL, "resize_mode", true}};
enum { N_CHANGES = sizeof changes / sizeof *changes };

static enum mode_status config_is_valid(json_t *model, json_t *pre, struct mode_error *err)
{
    struct mode_clip_config c;
    struct mode_preprocess p;
    char *cfg = json_dumps(model, 0), *preprocess = json_dumps(pre, 0);
    enum mode_status st = mode_clip_config_parse(&c, cfg, "model_cfg", err);
    if (!st) st = mode_clip_preprocess_parse(&p, preprocess, c.image_size, "preprocess_cfg", err);
    free(cfg);
    free(preprocess);
    return st;
}

/* A change that makes no valid config is not supported. text: the options taken are added. */
static enum mode_status change_config(struct translation *x, json_t *model, json_t *pre, struct mode_str *text)
{
    for (size_t i = 0; i < N_CHANGES; i++) {
        const struct open_clip_given *g = take(x, changes[i].option);
        json_t *to = changes[i].section ? json_object_get(model, changes[i].section) : pre, *v = NULL, *before;
        struct mode_error why;
        enum mode_status st = MODE_OK;
        if (!g) continue;
        if (changes[i].word)
            v = json_string(g->value[0]);
        else if ((st = numbers(&v, g, x->err)))
            return st;
        before = json_incref(json_object_get(to, changes[i].key));
        json_object_set_new(to, changes[i].key, v);
        if (config_is_valid(model, pre, &why)) {
            json_object_set(to, changes[i].key, before);
            unsupported(x, g->text, why.text);
        } else
            mode_str_printf(text, ", %s", g->text);
        json_decref(before);
    }
    return MODE_OK;
}

static void write_config(struct translation *x, json_t *model, json_t *pre, const char *comment)
{
    const char *key;
    json_t *v;
    spec_text_section(x->t, "model", comment);
    spec_text_key(x->t, "model_cfg", "", "%s", "");
    json_object_foreach(model, key, v)
    {
        char *deeper = mode_xasprintf("  %s", key);
        write_flow(x->t, deeper, v);
        free(deeper);
    }
    write_flow(x->t, "preprocess_cfg", pre);
}

static bool changes_config(const struct translation *x)
{
    for (size_t i = 0; i < N_CHANGES; i++)
        if (open_clip_given(x->c, changes[i].option)) return true;
    return false;
}

/* name with -quickgelu, if it has none and is a known model; the caller frees. */
static char *quick_name(const char *name)
{
    char *quick = ends_in(name, "-quickgelu") ? mode_xstrdup(name) : mode_xasprintf("%s-quickgelu", name);
    char *known = mode_clip_config_by_name(quick);
    if (!known) {
        free(quick);
        return mode_xstrdup(name);
    }
    free(known);
    return quick;
}

static enum mode_status write_model(struct translation *x)
{
    const char *given = take_value(x, "model", NULL), *model = x->r->model ? x->r->model : given;
    const struct open_clip_given *quick = take(x, "force-quick-gelu");
    if (!model)
        return MODE_FAIL(
            x->err, MODE_E_USAGE,
            "the command has no --model, and open_clip's default, RN50, is not supported. HINT: --model " INIT_MODEL
            ", before the `--`");
    if (model_folder(model)) {
        const struct open_clip_given *g;
        if (quick) not_needed(x, quick->text, "the model's own config says it");
        for (size_t i = 0; i < N_CHANGES; i++)
            if ((g = take(x, changes[i].option))) unsupported(x, g->text, "the model's own config counts");
        return MODE_OK;
    }
    char *name = quick ? quick_name(model) : mode_xstrdup(model), *cfg = NULL, *pre = NULL;
    struct mode_str comment = {0};
    mode_str_printf(&comment, "--model%s%s", quick ? " with " : "", quick ? quick->text : "");
    enum mode_status st = mode_model_config_named(&cfg, &pre, name, "--model", x->err);
    if (!st && changes_config(x)) {
        json_t *m = json_loads(cfg, 0, NULL), *p = json_loads(pre, 0, NULL);
        mode_str_reset(&comment);
        mode_str_printf(&comment, "--model %s%s%s", model, quick ? ", " : "", quick ? quick->text : "");
        if (!(st = change_config(x, m, p, &comment))) write_config(x, m, p, comment.data);
        json_decref(m);
        json_decref(p);
    } else if (!st) {
        char *path = ends_in(name, ".json") ? init_path(x->r, name) : mode_xstrdup(name),
             *text = spec_text_string(path);
        spec_text_key(x->t, "model", text, "%s", comment.data);
        free(text);
        free(path);
    }
    mode_str_clear(&comment);
    free(cfg);
    free(pre);
    free(name);
    return st;
}

/* ---- train ---- */

/* An option's value as YAML: a number or a word stays as it is. Some words are others here. The caller frees. */
static char *value_here(const char *value)
{
    static const char *const words[][2] = {{"const", "constant"}, {"const-cooldown", "constant_cooldown"}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(value, words[i][0]) == 0) return mode_xstrdup(words[i][1]);
    const bool plain = *value &&
                       !value[strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+-")];
    return plain ? mode_xstrdup(value) : spec_text_string(value);
}

/* A key in steps of what open_clip counts in epochs. Where their length is unknown it stays an example. */
static void write_steps(struct translation *x, const char *key, const char *option, long long epochs)
{
    char *steps = mode_xasprintf("%.0f", (double)epochs * (double)x->epoch_steps);
    if (x->epoch_steps)
        spec_text_key(x->t, key, steps, "--%s: %lld epoch%s", option, epochs, MODE_PLURAL(epochs));
    else
        spec_text_example(x->t, key, "STEPS", "--%s: %lld epoch%s of pairs / batch steps", option, epochs,
                          MODE_PLURAL(epochs));
    free(steps);
}

static void write_key(struct translation *x, const struct open_clip_name *o, const char *key)
{
    const struct open_clip_given *g = take(x, o->name);
    const char *model = open_clip_value(x->c, "model", INIT_MODEL), *usual = o->value;
    const bool flag = o->values == OPEN_CLIP_FLAG;
    char *value = value_here(g && g->n ? g->value[0] : flag ? o->value : "");
    if (!strcasestr(model, "vit") && strcmp(o->name, "beta2") == 0) usual = "0.999"; /* params.py */
    if (!strcasestr(model, "vit") && strcmp(o->name, "eps") == 0) usual = "1e-8";
    if (g && o->in_spec == OPEN_CLIP_EPOCHS) {
        write_steps(x, key, o->name, strtoll(g->value[0], NULL, 10));
        if (!x->epoch_steps)
            mode_str_printf(x->said, "%s: in steps here, which --train-num-samples would determine\n", g->text);
    } else if (g)
        spec_text_key(x->t, key, value, "--%s", o->name);
    else if (usual && !flag)
        spec_text_key(x->t, key, usual, "open_clip's default");
    free(value);
}

/* The keys of a section, "train.", or "" for those in none. */
static void write_keys(struct translation *x, const char *section)
{
    const size_t n = strlen(section);
    for (size_t i = 0; open_clip_name(i); i++) {
        const struct open_clip_name *o = open_clip_name(i);
        const bool key = o->in_spec == OPEN_CLIP_KEY || o->in_spec == OPEN_CLIP_EPOCHS;
        if (key && strncmp(o->spec, section, n) == 0 && !strchr(o->spec + n, '.')) write_key(x, o, o->spec + n);
    }
}

static void write_batch(struct translation *x)
{
    struct mode_str why = {0};
    const int64_t accumulate = x->accumulate;
    char *batch = mode_xasprintf("%lld", (long long)(x->batch * accumulate * (int64_t)x->c->processes));
    mode_str_printf(&why, "%s %lld", open_clip_given(x->c, "batch-size") ? "--batch-size" : "open_clip's default,",
                    (long long)x->batch);
    if (accumulate > 1) mode_str_printf(&why, " * --accum-freq %lld", (long long)accumulate);
    if (*x->c->processes_text) mode_str_printf(&why, " * %s", x->c->processes_text);
    spec_text_key(x->t, "batch", batch, "%s; over all GPUs", why.data);
    if (accumulate > 1) {
        char *pieces = mode_xasprintf("%lld", (long long)accumulate);
        spec_text_key(x->t, "accumulate", pieces, "--accum-freq: the batch is computed in as many pieces");
        free(pieces);
    }
    if (x->c->doubt)
        mode_str_printf(x->said, "train.batch is for %llu process%s: %s; multiply it by the number of GPUs\n",
                        (unsigned long long)x->c->processes, x->c->processes == 1 ? "" : "es", x->c->doubt);
    free(batch);
    mode_str_clear(&why);
}

/* The fork point of a schedule of so many epochs: whole ones if there are many. */
static char *fork_of(int64_t epochs)
{
    const double fork = FORK * (double)epochs;
    return epochs >= 8 ? mode_xasprintf("%.0f", fork) : mode_xasprintf("%.2g", fork);
}

static void write_schedule(struct translation *x)
{
    const struct open_clip_given *resampled = take(x, "dataset-resampled"), *samples = take(x, "train-num-samples");
    if (resampled && x->epoch_steps) {
        const int64_t total = x->epoch_steps * x->epochs;
        char *end = mode_xasprintf("%lld", (long long)total), *fork = mode_xasprintf("%.0f", FORK * (double)total);
        spec_text_key(x->t, "total_steps", end, "--epochs %lld of %s: %lld step%s each, as open_clip rounds",
                      (long long)x->epochs, samples->text, (long long)x->epoch_steps, MODE_PLURAL(x->epoch_steps));
        spec_text_key(x->t, "seed_steps", fork, "where the experts fork from the seed model: 27/32, as in the paper");
        not_needed(x, resampled->text, "every pair is seen once per epoch");
        free(fork);
        free(end);
        return;
    }
    char *epochs = mode_xasprintf("%lld", (long long)x->epochs), *fork = fork_of(x->epochs);
    spec_text_key(x->t, "epochs", epochs, "%s: passes over the pairs",
                  open_clip_given(x->c, "epochs") ? "--epochs" : "open_clip's default");
    spec_text_key(x->t, "seed_epochs", fork, "where the experts fork from the seed model: 27/32, as in the paper");
    char *why = x->epoch_steps ? mode_xasprintf("pairs are counted; open_clip makes %lld steps of it",
                                                (long long)(x->epoch_steps * x->epochs))
                               : mode_xstrdup("pairs are counted");
    if (samples) not_needed(x, samples->text, why);
    if (resampled) not_needed(x, resampled->text, "every pair is seen once per epoch");
    free(why);
    free(fork);
    free(epochs);
}

/* A spec is invalid if its warm-up does not end before the schedule. Where the steps are unknown, the run says it. */
static void write_warmup(struct translation *x)
{
    const struct open_clip_given *g = open_clip_given(x->c, "warmup");
    const char *whose = g ? "--warmup" : "open_clip's default";
    const int64_t total = x->epoch_steps * x->epochs;
    char *steps = mode_xasprintf("%lld", (long long)x->warmup);
    if (total && x->warmup >= total) {
        spec_text_example(x->t, "warmup_steps", steps, "%s, longer than the %lld steps: a tenth of them instead", whose,
                          (long long)total);
        mode_str_printf(
            x->said,
            "warm-up: %s is %lld steps, longer than the schedule of %lld; train.warmup_steps is left to its "
            "default, a tenth\n",
            whose, (long long)x->warmup, (long long)total);
    } else {
        spec_text_key(x->t, "warmup_steps", steps, "%s%s", whose, total ? "" : "; must be less than the steps in all");
    }
    free(steps);
}

static bool is_file_of_weights(const char *text)
{
    static const char *const ends[] = {".pt", ".pth", ".bin", ".safetensors"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (ends_in(text, ends[i])) return true;
    return strchr(text, '/') != NULL;
}

/* train.init: of --resume, else --pretrained, else of a model that is a folder. False: there is none. */
static bool write_init(struct translation *x)
{
    const struct open_clip_given *resume = take(x, "resume"), *pretrained = take(x, "pretrained");
    const char *model = x->r->model ? x->r->model : open_clip_value(x->c, "model", ""), *from = model_folder(model);
    const char *option = "--model";
    if (resume && strcmp(resume->value[0], "latest") == 0) {
        not_needed(x, resume->text, "a run resumes by itself");
        resume = NULL;
    }
    if (pretrained && !is_file_of_weights(pretrained->value[0])) {
        if (*pretrained->value[0])
            unsupported(x, pretrained->text, "tags are not known; train.init is a file, a folder or hf-hub:ORG/NAME");
        pretrained = NULL;
    }
    if (pretrained) {
        from = pretrained->value[0];
        option = "--pretrained";
    }
    if (resume) {
        from = resume->value[0];
        option = "--resume: the weights; moments and step begin anew";
        if (pretrained) not_needed(x, pretrained->text, "--resume replaces it");
        mode_str_printf(x->said, "%s: only its weights are used; the schedule begins at step 0 with new moments\n",
                        resume->text);
    }
    if (!from) return false;
    char *path = mode_hub_name(from) ? mode_xstrdup(from) : init_path(x->r, from), *text = spec_text_string(path);
    spec_text_key(x->t, "init", text, "%s", option);
    free(text);
    free(path);
    return true;
}

/* A locked tower needs train.init: without it the keys stay examples. */
static void write_lock(struct translation *x, const char *lock, const char *number, bool init)
{
    const struct open_clip_given *on = take(x, lock), *n = take(x, number);
    const struct open_clip_given *const given[] = {on, on ? n : NULL};
    char *why = mode_xasprintf("without --%s it has no effect", lock);
    if (n && !on) not_needed(x, n->text, why);
    for (int i = 0; i < 2 && given[i]; i++) {
        const char *name = given[i]->option->name;
        char *key = mode_xstrdup(name), *value = i ? value_here(n->value[0]) : mode_xstrdup("true");
        for (char *c = key; *c; c++) *c = *c == '-' ? '_' : *c;
        if (init)
            spec_text_key(x->t, key, value, "--%s", name);
        else
            spec_text_example(x->t, key, value, "--%s, with train.init", name);
        free(key);
        free(value);
    }
    if (on && !init)
        mode_str_printf(x->said, "--%s: left out, as there is no train.init: random weights would be locked\n", lock);
    free(why);
}

/* --aug-cfg scale='(0.4, 1.0)' and others. */
static void write_augmentation(struct translation *x)
{
    const struct open_clip_given *g = take(x, "aug-cfg");
    char min[32], max[32];
    for (size_t i = 0; g && i < g->n; i++) {
        if (sscanf(g->value[i], "scale=%*1[([] %31[0-9.eE+-] , %31[0-9.eE+-]", min, max) == 2) {
            spec_text_key(x->t, "scale_min", min, "--aug-cfg scale: random resized crop, share of the area");
            spec_text_key(x->t, "scale_max", max, "%s", "");
            continue;
        }
        char *quoted = spec_text_shell(g->value[i]), *text = mode_xasprintf("--aug-cfg %s", quoted);
        unsupported(x, text, "the only augmentation is the random resized crop");
        free(text);
        free(quoted);
    }
}

static void write_frequency(struct translation *x, const char *option, const char *usual, bool used)
{
    const struct open_clip_given *g = take(x, option);
    const long long every = strtoll(g ? g->value[0] : usual, NULL, 10);
    if (used && every > 0)
        write_steps(x, "evaluate_steps", option, every);
    else if (g)
        not_needed(x, g->text, used ? "the default: evaluation at the end only" : "it has no data");
}

static void write_train(struct translation *x, bool imagenet, bool val)
{
    spec_text_section(x->t, "train", "");
    const bool init = write_init(x);
    write_lock(x, "lock-image", "lock-image-unlocked-groups", init);
    write_lock(x, "lock-text", "lock-text-unlocked-layers", init);
    write_batch(x);
    write_schedule(x);
    write_warmup(x);
    write_keys(x, "train.");
    write_augmentation(x);
    write_frequency(x, "zeroshot-frequency", "2", imagenet);
    write_frequency(x, "val-frequency", "1", val && !imagenet);
}

/* ---- evaluation ---- */

static void take_tasks(struct translation *x, bool *imagenet, bool *val)
{
    const char *tasks = x->r->tasks ? x->r->tasks : "tasks";
    static const char *const sets[][2] = {{"imagenet-val", "imagenet1k"}, {"imagenet-v2", "imagenetv2"}};
    *imagenet = *val = false;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        const struct open_clip_given *g = take(x, sets[i][0]);
        if (!g) continue;
        char *to = mode_path_join(tasks, sets[i][1]);
        pack(x, "task", g->value[0], to, false);
        free(to);
        *imagenet = true;
    }
    const struct open_clip_given *g = take(x, "val-data");
    if (!g) return;
    if (is_csv(x, g->value[0])) {
        char *to = mode_path_join(tasks, "val");
        pack(x, "task", g->value[0], to, true);
        free(to);
        *val = true;
    } else
        unsupported(x, g->text,
                    "no loss on held-out pairs; a list of pairs becomes a retrieval task: mode pack --task");
}

static void write_evaluation(struct translation *x, bool imagenet, bool val)
{
    const bool any = imagenet || val;
    char *tasks = any || x->r->tasks ? init_path(x->r, x->r->tasks ? x->r->tasks : "tasks") : NULL;
    init_write_tasks(x->t, tasks,
                     imagenet ? "made by `mode pack`, above; names and templates: docs/FROM_OPEN_CLIP.md, \"ImageNet\""
                     : val    ? "made by `mode pack`, above"
                              : "CLIP_benchmark folders");
    free(tasks);
}

/* ---- what is not in a key ---- */

static bool is_harmless(const struct open_clip_name *o, const struct open_clip_given *g)
{
    char *end;
    if (!o->value || !g->n) return false;
    if (strcmp(o->value, g->value[0]) == 0) return true;
    const double is = strtod(g->value[0], &end);
    return !*end && strcmp(o->value, "0") == 0 && !(is < 0 || is > 0);
}

/* Every option that no key has taken. */
static void account(struct translation *x)
{
    if (x->c->processes > 1)
        not_needed(x, x->c->launcher,
                   x->c->nodes > 1 ? "`mode up` starts the workers; on several machines: docs/OPERATIONS.md"
                                   : "`mode up` starts the workers");
    for (size_t i = 0; i < x->c->n_given; i++) {
        const struct open_clip_given *g = &x->c->given[i];
        const struct open_clip_name *o = g->option;
        const bool wandb = strcmp(o->name, "report-to") == 0 &&
                           (strstr(g->value[0], "wandb") || strstr(g->value[0], "all"));
        if (x->done[i]) continue;
        if (wandb || (o->in_spec == OPEN_CLIP_UNSUPPORTED && !is_harmless(o, g)))
            unsupported(x, g->text, o->spec);
        else
            not_needed(x, g->text, o->spec);
    }
    for (size_t i = 0; i < x->c->n_unknown; i++) {
        mode_str_printf(&x->unsupported, "unknown: %s\n", x->c->unknown[i]);
        mode_str_printf(x->said, "unknown: %s is not an option of open_clip 3.3.0\n", x->c->unknown[i]);
    }
}

static void write_lines(struct spec_text *t, struct mode_str *lines, const char *indent)
{
    char *save = NULL;
    for (char *line = lines->data ? strtok_r(lines->data, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save))
        spec_text_comment(t, "%s%s", indent, line);
    mode_str_clear(lines);
}

static void write_head(struct translation *x)
{
    spec_text_comment(x->t, "A run spec, by `mode init` from a command of open_clip. docs/RUN.md explains every key,");
    spec_text_comment(x->t,
                      "docs/FROM_OPEN_CLIP.md what differs. The model that the command trains will be experts/dense.");
    if (x->before.len) mode_str_printf(x->said, "before the run:\n%s", x->before.data);
    init_write_next(x->t, x->r, x->before.data, x->c->nodes > 1 ? 1 : x->c->processes);
    spec_text_blank(x->t);
}

static enum mode_status read_counts(struct translation *x)
{
    enum { MOST = 1000000000, MOST_EPOCHS = 1000000 };
    static const char *const taken[] = {"batch-size", "accum-freq", "epochs", "warmup"};
    enum mode_status st;
    if ((st = count(x, "batch-size", "64", 1, MOST, &x->batch)) ||
        (st = count(x, "accum-freq", "1", 1, MOST, &x->accumulate)) ||
        (st = count(x, "epochs", "32", 1, MOST_EPOCHS, &x->epochs)) ||
        (st = count(x, "warmup", "10000", 0, MOST, &x->warmup)) ||
        (st = count(x, "workers", "4", 0, MOST, &x->workers)) ||
        (st = count(x, "train-num-samples", "0", 0, 1000 * (int64_t)MOST, &x->samples)))
        return st;
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) take(x, taken[i]);
    if ((double)x->batch * (double)x->accumulate * (double)x->c->processes > MOST)
        return MODE_FAIL(x->err, MODE_E_USAGE,
                         "--batch-size * --accum-freq * processes is out of range: a batch of more than %d pairs",
                         MOST);
    return MODE_OK;
}

static enum mode_status translate(struct translation *x)
{
    bool imagenet, val;
    enum mode_status st;
    if ((st = read_counts(x)) || (st = find_data(x))) return st;
    if (!x->csv) x->epoch_steps = steps_of_epoch(x);
    take_tasks(x, &imagenet, &val);
    write_head(x);
    write_name(x);
    write_keys(x, "");
    write_precision(x);
    if ((st = write_model(x))) return st;
    write_data(x);
    init_write_encoder(x->t, x->r);
    init_write_cluster(x->t, x->r, 0, "");
    write_train(x, imagenet, val);
    write_evaluation(x, imagenet, val);
    account(x);
    if (x->not_needed.len || x->unsupported.len) spec_text_blank(x->t);
    write_lines(x->t, &x->unsupported, "");
    write_lines(x->t, &x->not_needed, "");
    return MODE_OK;
}

enum mode_status open_clip_spec(struct spec_text *t, struct mode_str *said, const struct open_clip_command *c,
                                const struct init_request *r, struct mode_error *err)
{
    struct translation x = {.t = t, .said = said, .c = c, .r = r, .err = err};
    x.done = mode_xcalloc(c->n_given + 1, sizeof *x.done);
    enum mode_status st = translate(&x);
    mode_str_clear(&x.not_needed);
    mode_str_clear(&x.unsupported);
    mode_str_clear(&x.before);
    free(x.shards);
    free(x.done);
    return st;
}
