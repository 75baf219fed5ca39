/* mode init - writes a run spec to begin with: for a data set, or from a command line of open_clip. */
#include "base/file.h"
#include "base/options.h"
#include "base/output.h"
#include "base/str.h"
#include "data_look.h"
#include "init_request.h"
#include "interrupt.h"
#include "open_clip_spec.h"
#include "pipeline/defaults.h"
#include "pipeline/model_config.h"
#include "pipeline/spec.h"
#include "ranges.h"
#include "verb.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct options {
    struct init_request r;
    bool from_open_clip, force;
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct options, r.data, "data", NULL, "SHARDS",
                 "training data: a folder of shards, a pattern or a range in quotes, @LIST, s3:// or https://"),
    MODE_OPT_BARE(struct options, from_open_clip, "from-open-clip",
                  "translate the command of open_clip that follows after `--`"),
    MODE_OPT_STR(struct options, r.out, "out", NULL, "FILE", "the spec (default: stdout)"),
    MODE_OPT_BARE(struct options, force, "force", "replace FILE if it exists"),
    MODE_OPT_STR(struct options, r.name, "name", NULL, "NAME", "of the run (default: that of the data's folder)"),
    MODE_OPT_STR(struct options, r.model, "model", NULL, "MODEL",
                 "open_clip's name of a ViT, or the path of a config, .json (default " INIT_MODEL ")"),
    MODE_OPT_STR(struct options, r.encoder, "encoder", NULL, "DIR|ORG/NAME",
                 "text encoder: a folder, or a model on the hub (default " INIT_ENCODER ")"),
    MODE_OPT_INT(struct options, r.experts, "experts", INIT_EXPERTS, "N", "number of experts"),
    MODE_OPT_STR(struct options, r.tasks, "tasks", NULL, "DIR", "evaluation tasks: CLIP_benchmark folders"),
    MODE_OPT_STR(struct options, r.precision, "precision", NULL, "P",
                 "f32, tf32 or bf16; below f32 workers need GPUs (default f32)"),
    MODE_OPT_END};

static const struct option_range ranges[] = {RANGE("experts", 1, 1024), RANGE_END};

static const char usage[] = "mode init --data SHARDS [--out run.yaml] [options]\n"
                            "mode init --from-open-clip [--out run.yaml] [options] -- COMMAND";
static const char prose[] =
    "Writes a run spec to begin with: the keys that one decides, each with a comment; all others have defaults "
    "(docs/RUN.md).\n"
    "With --data it looks into the first shard: where the captions are, and about how many pairs there are, which "
    "decides "
    "the batch and the number of fine centres.\n"
    "With --from-open-clip it translates a command line such as\n"
    "    mode init --from-open-clip --out run.yaml -- torchrun --nproc_per_node 8 -m open_clip_train.main --train-data "
    "...\n"
    "so that the run's dense model is the one that the command trains. Options of open_clip that are not needed or not "
    "supported are comments of the spec; the latter, and unknown ones, are also named here. The command's files are "
    "not "
    "read. --data, --name, --model, --tasks and --precision replace what the command says.\n"
    "Exit: 0 written, 2 wrong options, 65 no captions, 66 no data, 73 FILE exists, 78 unknown model.";

/* ---- for a data set ---- */

static uint64_t power_of_two_up_to(uint64_t n)
{
    uint64_t p = 1;
    while (2 * p <= n) p *= 2;
    return p;
}

/* The default, or fewer so that a centre has 32 different captions on average; of very few captions four centres for
 * each expert, as long as each has four captions. */
static uint64_t choose_fine(const struct data_look *look, const struct init_request *r)
{
    enum { CAPTIONS = 32, CAPTIONS_LEAST = 4, CENTRES_LEAST = 4 };
    const uint64_t usual = strtoull(MODE_DEFAULT_FINE, NULL, 10), experts = (uint64_t)r->experts;
    const uint64_t few = power_of_two_up_to(look->captions / CAPTIONS_LEAST);
    uint64_t fine = power_of_two_up_to(look->captions / CAPTIONS);
    if (fine < CENTRES_LEAST * experts) fine = few < CENTRES_LEAST * experts ? few : CENTRES_LEAST * experts;
    if (fine > usual) fine = usual;
    return fine < experts ? experts : fine;
}

/* At least 128 steps per epoch, and an expert of average size has four batches. */
static uint64_t choose_batch(const struct data_look *look, const struct init_request *r)
{
    enum { STEPS = 128, BATCHES = 4, LEAST = 32, MOST = 1024, MOST_ON_GPUS = 4096 };
    const uint64_t pool = look->pairs / (BATCHES * (uint64_t)r->experts);
    const uint64_t most = r->precision && strcmp(r->precision, "f32") != 0 ? MOST_ON_GPUS : MOST;
    uint64_t batch = power_of_two_up_to(look->pairs / STEPS);
    if (batch < LEAST) batch = LEAST;
    if (batch > most) batch = most;
    if (batch > pool) batch = power_of_two_up_to(pool);
    return batch < 2 ? 2 : batch;
}

/* An estimate has three digits. */
static unsigned long long rounded(const struct data_look *look, uint64_t n)
{
    uint64_t unit = 1;
    while (!look->counted && n / unit >= 1000) unit *= 10;
    return (n + unit / 2) / unit * unit;
}

static void say_what_was_seen(const struct data_look *look, uint64_t fine, const struct init_request *r)
{
    fprintf(stderr, "%s: %llu sample%s, %llu with a picture and a caption\n", look->first,
            (unsigned long long)look->samples, MODE_PLURAL(look->samples), (unsigned long long)look->kept);
    fprintf(stderr, "captions: ");
    for (size_t i = 0; i < look->n_keys; i++) fprintf(stderr, "%s%s", i ? ", " : "", look->key[i]);
    for (size_t i = 0; i < look->n_others; i++) fprintf(stderr, "%s%s", i ? ", " : "; not used: ", look->other[i]);
    fprintf(stderr, "\n%zu shard%s: %s%llu pair%s, %llu different caption%s%s\n", look->n_shards,
            MODE_PLURAL(look->n_shards), look->counted ? "" : "about ", rounded(look, look->pairs),
            MODE_PLURAL(look->pairs), rounded(look, look->captions), MODE_PLURAL(look->captions),
            look->counted ? "" : " (estimated from the first shard)");
    if (look->captions < fine)
        fprintf(stderr, "warning: %llu different caption%s %s too few for %lld experts\n",
                (unsigned long long)look->captions, MODE_PLURAL(look->captions), look->captions == 1 ? "is" : "are",
                (long long)r->experts);
    else if (fine < strtoull(MODE_DEFAULT_FINE, NULL, 10))
        fprintf(stderr, "cluster.fine is %llu: so few captions do not make %s fine centres\n", (unsigned long long)fine,
                MODE_DEFAULT_FINE);
}

static void write_top(struct spec_text *t, const struct init_request *r)
{
    char *name = r->name ? mode_xstrdup(r->name) : init_name_of(r->data), *text = spec_text_string(name);
    const char *model = r->model ? r->model : INIT_MODEL;
    const size_t n = strlen(model);
    char *path = n > 5 && strcmp(model + n - 5, ".json") == 0 ? init_path(r, model) : mode_xstrdup(model);
    char *model_text = spec_text_string(path);
    spec_text_key(t, "name", text, "one run per name in a workspace");
    spec_text_key(t, "model", model_text, "open_clip's name of a ViT, or the path of its config, .json");
    spec_text_key(t, "precision", r->precision ? r->precision : "f32", "%s",
                  r->precision && strcmp(r->precision, "f32") != 0 ? "needs NVIDIA GPUs"
                                                                   : "with NVIDIA GPUs: bf16 or tf32");
    free(model_text);
    free(path);
    free(text);
    free(name);
}

static void write_data(struct spec_text *t, const struct init_request *r, const struct data_look *look)
{
    struct mode_str keys = {0}, others = {0};
    char *source = init_source(r, r->data);
    for (size_t i = 0; i < look->n_keys; i++) {
        char *key = spec_text_string(look->key[i]);
        mode_str_printf(&keys, "%s%s", i ? ", " : "[", key);
        free(key);
    }
    mode_str_add_char(&keys, ']');
    for (size_t i = 0; i < look->n_others; i++)
        mode_str_printf(&others, "%s%s", i ? ", " : "; also there: ", look->other[i]);
    spec_text_section(t, "data", "");
    spec_text_key(t, "train", source, "%zu shard%s, %s%llu pair%s", look->n_shards, MODE_PLURAL(look->n_shards),
                  look->counted ? "" : "about ", rounded(look, look->pairs), MODE_PLURAL(look->pairs));
    spec_text_section(t, "captions", "");
    spec_text_key(t, "text_keys", keys.data, "where captions are, in order of preference%s",
                  others.data ? others.data : "");
    free(source);
    mode_str_clear(&keys);
    mode_str_clear(&others);
}

static void write_train(struct spec_text *t, uint64_t batch)
{
    char *text = mode_xasprintf("%llu", (unsigned long long)batch);
    spec_text_section(t, "train", "");
    spec_text_key(t, "batch", text, "pairs per step, over all GPUs");
    spec_text_key(t, "epochs", "32", "passes over the pairs, for the dense model and for each expert");
    spec_text_key(t, "seed_epochs", "27", "of these, shared: here the experts fork from the seed model");
    spec_text_key(t, "lr", MODE_DEFAULT_LR, "peak learning rate");
    spec_text_example(t, "init", "MODEL", "to start from a checkpoint: a folder, a file, hf-hub:ORG/NAME");
    spec_text_example(t, "evaluate_steps", "1000", "with tasks: steps between evaluations during training");
    free(text);
}

static enum mode_status from_data(struct spec_text *t, const struct init_request *r, struct mode_error *err)
{
    struct data_look look;
    struct mode_spec_list tasks = {0}, given = {0};
    interrupt_catch();
    enum mode_status st = data_look(&look, r->data, err);
    if (!st && r->tasks) {
        mode_spec_list_add(&given, mode_xstrdup(r->tasks));
        st = mode_spec_tasks(&given, "--tasks", &tasks, NULL, err);
        if (!st) fprintf(stderr, "%s: %zu task%s\n", r->tasks, tasks.n, MODE_PLURAL(tasks.n));
    }
    if (!st) {
        const uint64_t fine = choose_fine(&look, r);
        char *dir = r->tasks ? init_path(r, r->tasks) : NULL;
        say_what_was_seen(&look, fine, r);
        spec_text_comment(t, "A run spec, by `mode init`. docs/RUN.md explains every key; all others have defaults.");
        init_write_next(t, r, NULL, 1);
        spec_text_blank(t);
        write_top(t, r);
        write_data(t, r, &look);
        init_write_encoder(t, r);
        init_write_cluster(
            t, r, fine,
            fine < strtoull(MODE_DEFAULT_FINE, NULL, 10) ? "; fewer than " MODE_DEFAULT_FINE ", for few captions" : "");
        write_train(t, choose_batch(&look, r));
        init_write_tasks(t, dir, "zero-shot evaluation: CLIP_benchmark folders");
        free(dir);
    }
    mode_spec_list_clear(&tasks);
    mode_spec_list_clear(&given);
    data_look_clear(&look);
    return st;
}

/* ---- from a command of open_clip ---- */

static enum mode_status from_command(struct spec_text *t, struct mode_str *said, const struct init_request *r,
                                     char *const *words, size_t n, struct mode_error *err)
{
    struct open_clip_command c;
    enum mode_status st = open_clip_command_read(&c, words, n, err);
    if (!st) st = open_clip_spec(t, said, &c, r, err);
    open_clip_command_clear(&c);
    return st;
}

/* ---- both ---- */

/* Without the `--` the command's options would be taken for ours. */
static enum mode_status check_dashes(int argc, char **argv, struct mode_error *err)
{
    bool asked = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--") == 0) return MODE_OK;
        asked |= strcmp(argv[i], "--from-open-clip") == 0;
    }
    return asked ? MODE_FAIL(
                       err, MODE_E_USAGE,
                       "--from-open-clip: the command follows after `--`: mode init --from-open-clip -- torchrun ...")
                 : MODE_OK;
}

/* The folder that the spec's relative paths start from; r->here is set if it is not the current one. */
static enum mode_status find_folder(char **folder, struct init_request *r, struct mode_error *err)
{
    char here[PATH_MAX], there[PATH_MAX];
    char *dir = r->out ? mode_path_folder(r->out) : mode_xstrdup(".");
    if (!getcwd(here, sizeof here) || !realpath(dir, there)) {
        free(dir);
        return MODE_FAIL(err, MODE_E_IO, "the current folder cannot be found");
    }
    free(dir);
    if (strcmp(here, there) != 0) r->here = mode_xstrdup(here);
    *folder = mode_xstrdup(there);
    return MODE_OK;
}

static enum mode_status check_options(const struct options *o, int n_args, char **argv, struct mode_error *err)
{
    const struct init_request *r = &o->r;
    static const char *const precisions[] = {"f32", "tf32", "bf16"};
    char *model = NULL, *preprocess = NULL;
    bool known = !r->precision;
    enum mode_status st;
    if (!o->from_open_clip &&
        (st = arguments_check(n_args, 0, argv, "a pattern of shards is one argument, in quotes", err)))
        return st;
    if (!o->from_open_clip && !r->data) return option_needed(NULL, "--data SHARDS or --from-open-clip", err);
    if (r->name && !mode_spec_is_name(r->name))
        return MODE_FAIL(err, MODE_E_USAGE,
                         "--name: \"%s\", expected 1 to 64 letters, digits, '.', '_' or '-', not starting with '.'",
                         r->name);
    for (size_t i = 0; i < sizeof precisions / sizeof *precisions; i++)
        known |= r->precision && strcmp(r->precision, precisions[i]) == 0;
    if (!known)
        return MODE_FAIL(err, MODE_E_USAGE, "--precision: \"%s\" is unknown; expected f32, tf32 or bf16", r->precision);
    if (r->model && !o->from_open_clip) {
        if ((st = mode_model_config_named(&model, &preprocess, r->model, "--model", err))) return st;
        free(model);
        free(preprocess);
    }
    if (r->out && !o->force && mode_file_exists(r->out))
        return MODE_FAIL(err, MODE_E_CREATE, "%s: exists already; --force replaces it", r->out);
    return r->out ? mode_output_file(r->out, err) : MODE_OK;
}

/* With the parser of `mode run`, so that nothing is written that it refuses. A model that is not downloaded yet is no
 * error. */
static enum mode_status validate(const char *text, const char *folder, const char *what, struct mode_error *err)
{
    struct mode_spec spec;
    enum mode_status st = mode_spec_parse(&spec, text, folder, what, err);
    if (!st) mode_spec_clear(&spec);
    return st == MODE_E_NOINPUT ? MODE_OK : st;
}

static enum mode_status put(const char *text, const struct init_request *r, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    if (!r->out)
        fputs(text, stdout);
    else if (!(st = mode_file_write_atomic(r->out, text, strlen(text), err)))
        fprintf(stderr, "%s is written; next: mode doctor --spec %s\n", r->out, r->out);
    return st;
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct options o = {0};
    struct spec_text t = {0};
    struct mode_str said = {0};
    char *folder = NULL;
    int n_args;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_", usage, prose);
        return MODE_OK;
    }
    enum mode_status st = check_dashes(argc, argv, err);
    if (st || (st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err)) ||
        (st = ranges_check(&o, table, ranges, err)) || (st = check_options(&o, n_args, argv, err)) ||
        (st = find_folder(&folder, &o.r, err)))
        return st;
    st = o.from_open_clip ? from_command(&t, &said, &o.r, argv + 1, (size_t)n_args, err) : from_data(&t, &o.r, err);
    if (!st && said.data) fputs(said.data, stderr);
    if (!st) st = validate(spec_text_done(&t), folder, o.r.out ? o.r.out : "the spec", err);
    if (!st) st = put(spec_text_done(&t), &o.r, err);
    mode_str_clear(&said);
    spec_text_clear(&t);
    free(o.r.here);
    free(folder);
    return st;
}

const struct mode_verb mode_verb_init = {"init", "write a run spec to begin with", run};
