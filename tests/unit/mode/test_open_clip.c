/* Command lines of open_clip: the table of its options, how they are read, and what they become in a run spec. */
#include "open_clip_spec.h"

#include "base/file.h"
#include "base/str.h"
#include "pipeline/spec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Every option of open_clip_train/params.py, 3.3.0, in its order. */
static const char *const theirs[] = {"train-data",
                                     "train-data-upsampling-factors",
                                     "val-data",
                                     "train-num-samples",
                                     "val-num-samples",
                                     "dataset-type",
                                     "dataset-resampled",
                                     "csv-separator",
                                     "csv-img-key",
                                     "csv-caption-key",
                                     "imagenet-val",
                                     "imagenet-v2",
                                     "cache-dir",
                                     "logs",
                                     "log-local",
                                     "name",
                                     "workers",
                                     "batch-size",
                                     "epochs",
                                     "epochs-cooldown",
                                     "lr",
                                     "beta1",
                                     "beta2",
                                     "eps",
                                     "wd",
                                     "momentum",
                                     "warmup",
                                     "opt",
                                     "use-bn-sync",
                                     "skip-scheduler",
                                     "lr-scheduler",
                                     "lr-cooldown-end",
                                     "lr-cooldown-power",
                                     "save-frequency",
                                     "save-most-recent",
                                     "zeroshot-frequency",
                                     "val-frequency",
                                     "resume",
                                     "precision",
                                     "model",
                                     "pretrained",
                                     "pretrained-image",
                                     "lock-image",
                                     "lock-image-unlocked-groups",
                                     "lock-image-freeze-bn-stats",
                                     "image-mean",
                                     "image-std",
                                     "image-interpolation",
                                     "image-resize-mode",
                                     "aug-cfg",
                                     "grad-checkpointing",
                                     "local-loss",
                                     "gather-with-grad",
                                     "force-context-length",
                                     "force-image-size",
                                     "force-quick-gelu",
                                     "force-patch-dropout",
                                     "force-custom-text",
                                     "torchscript",
                                     "torchcompile",
                                     "trace",
                                     "accum-freq",
                                     "device",
                                     "dist-url",
                                     "dist-backend",
                                     "report-to",
                                     "wandb-notes",
                                     "wandb-project-name",
                                     "debug",
                                     "copy-codebase",
                                     "horovod",
                                     "ddp-static-graph",
                                     "no-set-device-rank",
                                     "seed",
                                     "grad-clip-norm",
                                     "lock-text",
                                     "lock-text-unlocked-layers",
                                     "lock-text-freeze-layer-norm",
                                     "log-every-n-steps",
                                     "coca-caption-loss-weight",
                                     "coca-contrastive-loss-weight",
                                     "remote-sync",
                                     "remote-sync-frequency",
                                     "remote-sync-protocol",
                                     "delete-previous-checkpoint",
                                     "distill-model",
                                     "distill-pretrained",
                                     "use-bnb-linear",
                                     "siglip",
                                     "loss-dist-impl"};
enum { N_THEIRS = sizeof theirs / sizeof *theirs, MOST_WORDS = 300 };

/* A command line, split at blanks. */
struct words {
    char *text, *word[MOST_WORDS];
    size_t n;
};

static struct words split(const char *command)
{
    struct words w = {.text = mode_xstrdup(command)};
    char *save = NULL;
    for (char *p = strtok_r(w.text, " ", &save); p; p = strtok_r(NULL, " ", &save)) w.word[w.n++] = p;
    return w;
}

/* The spec of a command line, which the caller clears; said: what the user is told. */
static struct spec_text spec_of(const char *command, struct mode_str *said)
{
    struct words w = split(command);
    struct open_clip_command c;
    struct init_request r = {.experts = 4};
    struct spec_text t = {0};
    struct mode_error err;
    struct mode_spec spec;
    if (open_clip_command_read(&c, w.word, w.n, &err) || open_clip_spec(&t, said, &c, &r, &err) ||
        mode_spec_parse(&spec, spec_text_done(&t), "/", "spec", &err))
        fail_msg("%s\n%s", err.text, spec_text_done(&t));
    mode_spec_clear(&spec);
    open_clip_command_clear(&c);
    free(w.text);
    return t;
}

static void expect(const char *command, const char *const *lines, size_t n)
{
    struct mode_str said = {0};
    struct spec_text t = spec_of(command, &said);
    for (size_t i = 0; i < n; i++)
        if (!strstr(spec_text_done(&t), lines[i]))
            fail_msg("%s: no \"%s\" in\n%s", command, lines[i], spec_text_done(&t));
    spec_text_clear(&t);
    mode_str_clear(&said);
}
#define EXPECT(command, ...)                                                                                           \
    expect(command, (const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))
#define DATA "--train-data x.tar --model ViT-B-32 "

static void test_the_table_has_every_option_of_open_clip(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_THEIRS; i++) {
        assert_non_null(open_clip_name(i));
        assert_string_equal(open_clip_name(i)->name, theirs[i]);
        if (open_clip_name(i)->in_spec != OPEN_CLIP_RULE) assert_non_null(open_clip_name(i)->spec);
    }
    assert_null(open_clip_name(N_THEIRS));
}

/* Is the option in the text, itself or as `--PREFIX*`? */
static bool is_named(const char *text, const char *name)
{
    bool yes = false;
    for (size_t n = strlen(name); n >= 2 && !yes; n--) {
        char *option = mode_xasprintf("--%.*s", (int)n, name);
        for (const char *at = text; !yes && (at = strstr(at, option)); at += strlen(option)) {
            const char next = at[strlen(option)];
            yes = next == '*' || (!name[n] && strchr("` =", next));
        }
        free(option);
    }
    return yes;
}

static void test_the_page_names_every_option(void **state)
{
    (void)state;
    char *text = NULL;
    assert_int_equal(mode_file_read(MODE_SOURCE_DIR "/docs/FROM_OPEN_CLIP.md", 1 << 20, &text, NULL, NULL), MODE_OK);
    for (size_t i = 0; i < N_THEIRS; i++)
        if (!is_named(text, theirs[i])) fail_msg("docs/FROM_OPEN_CLIP.md does not name --%s", theirs[i]);
    assert_false(is_named(text, "nonsense"));
    free(text);
}

/* A value that fits most options. */
static const char *value_of(const char *name)
{
    static const char *const values[][2] = {{"train-data", "x.tar"},
                                            {"val-data", "val.csv"},
                                            {"model", "ViT-B-32"},
                                            {"dataset-type", "auto"},
                                            {"precision", "fp32"},
                                            {"opt", "sgd"},
                                            {"force-patch-dropout", "0.5"},
                                            {"lr-scheduler", "const-cooldown"},
                                            {"image-mean", "0.5 0.5 0.5"},
                                            {"image-std", "0.5 0.5 0.5"},
                                            {"aug-cfg", "ratio=1"},
                                            {"resume", "latest"},
                                            {"force-image-size", "224"},
                                            {"image-interpolation", "bicubic"},
                                            {"image-resize-mode", "shortest"},
                                            {"beta1", "0.5"},
                                            {"beta2", "0.5"},
                                            {"train-num-samples", "1000"},
                                            {"force-context-length", "77"},
                                            {"accum-freq", "2"},
                                            {"epochs", "3"},
                                            {"lr-cooldown-end", "0"}};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        if (strcmp(values[i][0], name) == 0) return values[i][1];
    return "1";
}

static void test_every_option_is_accounted_for(void **state)
{
    (void)state;
    struct mode_str command = {0}, said = {0};
    for (size_t i = 0; i < N_THEIRS; i++)
        mode_str_printf(&command, "--%s %s ", theirs[i],
                        open_clip_name(i)->values == OPEN_CLIP_FLAG ? "" : value_of(theirs[i]));
    struct spec_text t = spec_of(command.data, &said);
    const char *text = spec_text_done(&t);
    for (size_t i = 0; i < N_THEIRS; i++) {
        char *option = mode_xasprintf("--%s", theirs[i]), *at = strstr(text, option);
        const size_t n = strlen(option);
        while (at && strchr("abcdefghijklmnopqrstuvwxyz-0123456789", at[n]) && at[n]) at = strstr(at + n, option);
        const bool pack = strcmp(theirs[i], "val-data") == 0 || strcmp(theirs[i], "imagenet-val") == 0 ||
                          strcmp(theirs[i], "imagenet-v2") == 0; /* they are commands of `mode pack --task` */
        if (!at && !pack) fail_msg("%s is not in\n%s", option, text);
        /* what is not supported is said, and nothing else */
        if (open_clip_name(i)->in_spec == OPEN_CLIP_UNSUPPORTED) {
            char *line = mode_xasprintf("not supported: %s", option);
            if (!strstr(text, line) || !strstr(said.data, line)) fail_msg("no \"%s\" in\n%s%s", line, text, said.data);
            free(line);
        }
        free(option);
    }
    assert_non_null(strstr(text, "mode pack --task val.csv"));
    assert_non_null(strstr(text, "--out tasks/imagenet1k"));
    assert_non_null(strstr(text, "--out tasks/imagenetv2"));
    assert_null(strstr(text, "(null)"));
    assert_null(strstr(said.data, "--local-loss"));
    spec_text_clear(&t);
    mode_str_clear(&command);
    mode_str_clear(&said);
}

static void test_options_are_read_as_by_argparse(void **state)
{
    (void)state;
    struct words w = split("open_clip_train.main --lr=-1 --batch 2 --batch-size 3 --image-mean 0.1 -0.2 .3 --eps -1e-6 "
                           "--lock --local-loss stray --foo a b --bar=1");
    struct open_clip_command c;
    struct mode_error err;
    assert_int_equal(open_clip_command_read(&c, w.word, w.n, &err), MODE_OK);
    assert_string_equal(open_clip_value(&c, "lr", ""), "-1");
    assert_string_equal(open_clip_value(&c, "batch-size", ""), "3"); /* a prefix of one name, and the last counts */
    assert_int_equal(open_clip_given(&c, "image-mean")->n, 3);
    assert_string_equal(open_clip_value(&c, "eps", ""), "-1e-6");
    assert_non_null(open_clip_given(&c, "local-loss"));
    assert_int_equal(c.n_unknown, 4);
    assert_string_equal(c.unknown[0], "--lock"); /* of several */
    assert_string_equal(c.unknown[1], "stray");
    assert_string_equal(c.unknown[2], "--foo a b");
    assert_string_equal(c.unknown[3], "--bar=1");
    open_clip_command_clear(&c);
    free(w.text);
}

static void test_a_whole_command_in_one_argument(void **state)
{
    (void)state;
    char command[] = "torchrun --nproc_per_node 2 \\\n  -m training.main \\\n --train-data \"/d/{0..9}.tar\" "
                     "--aug-cfg scale='(0.4, 1.0)' --csv-separator '' --name a\\ b",
         open[] = "main.py --name 'a", *one = command, *bad = open;
    struct open_clip_command c;
    struct mode_error err;
    assert_int_equal(open_clip_command_read(&c, &one, 1, &err), MODE_OK);
    assert_int_equal(c.processes, 2);
    assert_string_equal(c.launcher, "torchrun --nproc_per_node 2");
    assert_string_equal(open_clip_value(&c, "train-data", ""), "/d/{0..9}.tar");
    assert_string_equal(open_clip_value(&c, "aug-cfg", ""), "scale=(0.4, 1.0)");
    assert_string_equal(open_clip_value(&c, "csv-separator", "x"), "");
    assert_string_equal(open_clip_value(&c, "name", ""), "a b");
    assert_string_equal(open_clip_given(&c, "aug-cfg")->text, "--aug-cfg 'scale=(0.4, 1.0)'");
    open_clip_command_clear(&c);
    assert_int_equal(open_clip_command_read(&c, &bad, 1, &err), MODE_E_USAGE);
    open_clip_command_clear(&c);
    /* what a shell makes of a backslash with a blank behind it */
    struct words w = split("main.py --lr 1 --wd 2");
    char blank[] = "\\ ", *with[] = {w.word[0], blank, w.word[1], w.word[2], blank, w.word[3], w.word[4]};
    assert_int_equal(open_clip_command_read(&c, with, 7, &err), MODE_OK);
    assert_int_equal(c.n_unknown, 0);
    assert_string_equal(open_clip_value(&c, "wd", ""), "2");
    open_clip_command_clear(&c);
    free(w.text);
}

static void test_the_launcher_says_how_many_processes(void **state)
{
    (void)state;
    static const struct {
        const char *launcher;
        unsigned processes, nodes;
        bool sure;
    } cases[] = {
        {"python -m", 1, 1, true},
        {"torchrun --nproc_per_node 8 -m", 8, 1, true},
        {"torchrun --nproc-per-node=8 --nnodes=2 -m", 16, 2, true},
        {"srun -N 2 torchrun --nnodes 2 --nproc_per_node 4 -m", 8, 2, true},
        {"python -m torch.distributed.launch --nproc_per_node=4", 4, 1, true},
        {"torchrun --nproc_per_node gpu -m", 1, 1, false},
        {"srun --ntasks 12 python -u", 12, 1, true},
        {"srun -N 3 --ntasks-per-node 4 python -u", 12, 3, true},
        {"srun --cpu_bind=v python -u", 1, 1, false},
        {"mpirun -np 6 python -m", 6, 1, true},
        {"WORLD_SIZE=4 KEY=secret python -m", 4, 1, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *command = mode_xasprintf("%s training.main --lr 1", cases[i].launcher);
        struct words w = split(command);
        struct open_clip_command c;
        struct mode_error err;
        assert_int_equal(open_clip_command_read(&c, w.word, w.n, &err), MODE_OK);
        if (c.processes != cases[i].processes || c.nodes != cases[i].nodes || !c.doubt != cases[i].sure)
            fail_msg("%s: %u processes on %u nodes%s", command, (unsigned)c.processes, (unsigned)c.nodes,
                     c.doubt ? c.doubt : "");
        assert_null(strstr(c.launcher, "secret"));
        open_clip_command_clear(&c);
        free(w.text);
        free(command);
    }
}

static void test_the_batch_and_the_schedule(void **state)
{
    (void)state;
    EXPECT(DATA, "batch: 64 ", "epochs: 32 ", "seed_epochs: 27 ", "warmup_steps: 10000 ", "lr: 5e-4 ", "beta2: 0.98 ",
           "eps: 1e-6 ", "weight_decay: 0.2 ", "precision: bf16 ", "text_keys: [txt]");
    EXPECT("torchrun --nnodes 4 --nproc_per_node 8 main.py " DATA "--batch-size 256 --accum-freq 2", "  batch: 16384 ",
           "--batch-size 256 * --accum-freq 2 * 4 nodes * 8 GPUs", "accumulate: 2 ");
    /* 1339 batches, 1340 for 4 workers, 670 steps */
    EXPECT("torchrun --nnodes 4 --nproc_per_node 8 main.py " DATA "--batch-size 256 --accum-freq 2 --dataset-resampled "
           "--train-num-samples 10968539 --imagenet-val v",
           "total_steps: 21440 ", "seed_steps: 18090 ", "evaluate_steps: 1340 ");
    EXPECT(DATA "--lr-scheduler const", "schedule: constant ");
    EXPECT(DATA "--lr-scheduler const-cooldown --epochs-cooldown 2 --warmup 5 --train-num-samples 6400 --workers 1",
           "schedule: constant_cooldown ", "cooldown_steps: 200 ");
    EXPECT(DATA "--dataset-resampled", "epochs: 32 ", "not needed: --dataset-resampled");
    EXPECT(DATA "--epochs 10 --warmup 5 --train-num-samples 6400 --workers 1", "epochs: 10 ", "seed_epochs: 8 ",
           "warmup_steps: 5 ", "open_clip makes 1000 steps of it");
    /* a warm-up longer than the schedule is left to the default */
    EXPECT(DATA "--epochs 10 --train-num-samples 6400 --workers 1", "# warmup_steps: 10000 ",
           "longer than the 1000 steps");
}

static void test_models_and_where_they_begin(void **state)
{
    (void)state;
    EXPECT(DATA "--force-quick-gelu", "model: ViT-B-32-quickgelu ");
    EXPECT("--train-data x.tar --model ViT-L/14", "model: ViT-L/14 ");
    EXPECT(DATA "--force-image-size 256 --image-mean 0.5 0.5 0.5", "vision_cfg: {image_size: 256,",
           "mean: [0.5, 0.5, 0.5]");
    EXPECT(DATA "--force-image-size 256 128", "not supported: --force-image-size 256 128");
    EXPECT(DATA "--pretrained a/b.pt", "init: a/b.pt ");
    EXPECT(DATA "--pretrained openai", "not supported: --pretrained openai");
    EXPECT(DATA "--resume epoch_3.pt --pretrained x.bin", "init: epoch_3.pt ", "not needed: --pretrained x.bin");
    EXPECT(DATA "--precision fp32", "precision: tf32 ");
    EXPECT(DATA "--precision amp_bf16", "precision: bf16 ");
    EXPECT(DATA "--device cpu", "precision: f32 ");
}

static void test_locked_towers(void **state)
{
    (void)state;
    EXPECT(DATA "--pretrained a/b.pt --lock-image --lock-image-unlocked-groups 2 --lock-image-freeze-bn-stats",
           "  lock_image: true ", "  lock_image_unlocked_groups: 2 ", "not needed: --lock-image-freeze-bn-stats");
    EXPECT(DATA "--resume a/b.pt --lock-text --lock-text-freeze-layer-norm", "  lock_text: true ",
           "not needed: --lock-text-freeze-layer-norm (LayerNorms are locked with their layers)");
    EXPECT(DATA "--pretrained a/b.pt --lock-text-unlocked-layers 3",
           "not needed: --lock-text-unlocked-layers 3 (without --lock-text it has no effect)");
    /* a tag: no train.init, and without it the spec would be refused */
    EXPECT(DATA "--pretrained openai --lock-image --lock-image-unlocked-groups 2", "  # lock_image: true ",
           "  # lock_image_unlocked_groups: 2 ", "--lock-image, with train.init");
}

static void test_data_and_the_rest(void **state)
{
    (void)state;
    EXPECT("--train-data a/x.csv --csv-separator , --model ViT-B-32", "train: x-shards",
           "mode pack --pairs a/x.csv --csv-separator , --out x-shards");
    EXPECT(DATA "--csv-separator ,", "not needed: --csv-separator , (the data are shards)");
    EXPECT(DATA "--val-data v.tar", "not supported: --val-data v.tar", "# evaluate:");
    EXPECT(DATA "--aug-cfg scale=[0.4,1.0]", "scale_min: 0.4 ", "scale_max: 1.0");
    EXPECT(DATA "--force-patch-dropout 0. --opt adamw --lr-scheduler cosine", "patch_dropout: 0. ",
           "schedule: cosine ");
    EXPECT(DATA "--grad-checkpointing --grad-clip-norm 1 --seed 7", "checkpoint_activations: true ",
           "grad_clip_norm: 1 ", "seed: 7 ");
    EXPECT(DATA "--report-to wandb,tensorboard", "not supported: --report-to wandb,tensorboard");
    EXPECT(DATA "--nonsense 3", "# unknown: --nonsense 3");
    EXPECT(DATA "--name a/b", "name: a-b ");
    char *pipe = mode_xstrdup("main.py --model ViT-B-32 --train-data 'pipe:aws s3 cp s3://b/{0..9}.tar -::y.tar'");
    struct open_clip_command c;
    struct init_request r = {.experts = 4, .here = mode_xstrdup("/here")};
    struct spec_text t = {0};
    struct mode_str said = {0};
    assert_int_equal(open_clip_command_read(&c, &pipe, 1, NULL), MODE_OK);
    assert_int_equal(open_clip_spec(&t, &said, &c, &r, NULL), MODE_OK);
    assert_non_null(strstr(spec_text_done(&t), "train: \"s3://b/{0..9}.tar::/here/y.tar\""));
    open_clip_command_clear(&c);
    spec_text_clear(&t);
    mode_str_clear(&said);
    free(r.here);
    free(pipe);
}

static void refuse(const char *command, const char *words)
{
    struct words w = split(command);
    struct open_clip_command c;
    struct init_request r = {.experts = 4};
    struct spec_text t = {0};
    struct mode_str said = {0};
    struct mode_error err = {0};
    enum mode_status st = open_clip_command_read(&c, w.word, w.n, &err);
    if (!st) st = open_clip_spec(&t, &said, &c, &r, &err);
    if (st == MODE_OK || !strstr(err.text, words)) fail_msg("%s: \"%s\", expected \"%s\"", command, err.text, words);
    spec_text_clear(&t);
    mode_str_clear(&said);
    open_clip_command_clear(&c);
    free(w.text);
}

static void test_errors(void **state)
{
    (void)state;
    refuse("", "a command of open_clip is needed");
    refuse("python train.py --lr 1", "calls no trainer of open_clip: \"python ...\"");
    refuse("main.py --model ViT-B-32", "no --train-data");
    refuse("main.py --train-data x.tar", "no --model");
    refuse("main.py --train-data x.tar --model RN50", "--model: \"RN50\" is not known");
    refuse("main.py " DATA "--batch-size", "--batch-size needs a value");
    refuse("main.py " DATA "--batch-size --lr 1", "--batch-size needs a value");
    refuse("main.py " DATA "--batch-size many", "--batch-size: \"many\" is not a whole number");
    refuse("main.py " DATA "--local-loss=1", "--local-loss has no value, and \"1\" is given");
    refuse("main.py " DATA "--image-mean a b c", "--image-mean a b c: expected numbers");
    refuse("main.py " DATA "--dataset-type synthetic", "mode bench train");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_the_table_has_every_option_of_open_clip),
                                       cmocka_unit_test(test_the_page_names_every_option),
                                       cmocka_unit_test(test_every_option_is_accounted_for),
                                       cmocka_unit_test(test_options_are_read_as_by_argparse),
                                       cmocka_unit_test(test_a_whole_command_in_one_argument),
                                       cmocka_unit_test(test_the_launcher_says_how_many_processes),
                                       cmocka_unit_test(test_the_batch_and_the_schedule),
                                       cmocka_unit_test(test_models_and_where_they_begin),
                                       cmocka_unit_test(test_locked_towers),
                                       cmocka_unit_test(test_data_and_the_rest),
                                       cmocka_unit_test(test_errors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
