/* Run specs: defaults, every kind of mistake with its error, the schedule, sources of shards, and docs/RUN.md. */
#include "pipeline/spec.h"

#include "base/file.h"
#include "base/str.h"
#include "pipeline/sources.h"
#include "pipeline/spec_keys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MINIMAL                                                                                                        \
    "name: demo\nseed: 7\ndata: {train: shards}\nencoder: {dir: enc}\nmodel: ViT-B-32-quickgelu\n"                     \
    "tokenizer: {merges: /m.gz}\n"

static enum mode_status parse(struct mode_spec *s, struct mode_error *err, const char *text)
{
    return mode_spec_parse(s, text, "/home/x", "run.yaml", err);
}

/* The text must be refused with an error that contains these parts. */
static void refused(const char *text, const char *part, const char *part2)
{
    struct mode_spec s;
    struct mode_error err = {0};
    assert_int_equal(parse(&s, &err, text), MODE_E_CONFIG);
    if (!strstr(err.text, part) || !strstr(err.text, part2))
        fail_msg("\"%s\" lacks \"%s\" or \"%s\"", err.text, part, part2);
}

static void test_defaults_and_paths(void **state)
{
    (void)state;
    struct mode_spec s;
    struct mode_error err = {0};
    if (parse(&s, &err, MINIMAL)) fail_msg("%s", err.text);
    assert_string_equal(s.encoder.dir, "/home/x/enc");
    assert_string_equal(s.tokenizer_merges, "/m.gz");
    assert_int_equal(s.cluster.fine, 1024);
    assert_int_equal(s.cluster.seed, 7); /* from `seed` */
    assert_false(s.skip_bad_shards);
    assert_int_equal(s.captions.text_keys.n, 3);
    assert_true(s.train.beta2 == 0.98 && s.train.out_ratio == 0.02 && !s.train.share_steps);
    assert_string_equal(s.router, "paper");
    assert_true(s.router_params[0] == 0 && s.top_experts == 0);
    assert_non_null(strstr(s.model_config, "\"quick_gelu\":true"));
    assert_non_null(strstr(s.preprocess_config, "0.48145466"));
    mode_spec_clear(&s);
}

static void test_what_may_be_left_out(void **state)
{
    (void)state;
    struct mode_spec s;
    struct mode_error err = {0};
    if (parse(&s, &err,
              "name: a\ndata: {train: [x]}\nencoder: {hub: org/name}\ntokenizer: {merges: m}\nmodel: ViT-B-32\n"
              "train: {algorithms: a.txt}\n"))
        fail_msg("%s", err.text);
    assert_non_null(strstr(s.encoder.dir, "org"));
    assert_string_equal(s.train.algorithms, "/home/x/a.txt");
    mode_spec_clear(&s);
    if (parse(&s, &err, MINIMAL)) fail_msg("%s", err.text);
    assert_string_equal(s.train.algorithms, "");
    mode_spec_clear(&s);
}

static void test_what_lies_in_the_cache(void **state)
{
    (void)state;
    struct mode_spec s;
    struct mode_error err = {0};
#define HUB "name: a\ndata: {train: [x]}\nmodel: ViT-B-32\nencoder: {hub: "
    setenv("MODE_CACHE", "/cache", 1);
    if (parse(&s, &err, HUB "org/name}\n")) fail_msg("%s", err.text);
    assert_string_equal(s.encoder.dir, "/cache/models/hub/org/name");
    assert_string_equal(s.tokenizer_merges, "/cache/models/bpe_simple_vocab_16e6.txt.gz");
    assert_int_equal(mode_spec_check(&s, true, &err), MODE_E_NOINPUT);
    assert_non_null(strstr(err.text, "encoder.hub: org/name is not where"));
    assert_non_null(strstr(err.text, "MODE_CACHE"));
    mode_spec_clear(&s);
    if (parse(&s, &err, HUB "org/name}\ntrain: {init: 'hf-hub:org/clip@v1'}\n")) fail_msg("%s", err.text);
    assert_string_equal(s.train.init, "/cache/models/hub-clip/org/clip@v1");
    assert_string_equal(s.train.init_hub, "org/clip@v1");
    mode_spec_clear(&s);
    static const char *const same[] = {"org/name@main", "org/name@v1.0", "org/name@refs/pr/1"},
                             *const place[] = {"org/name", "org/name@v1.0", "org/name@refs%2Fpr%2F1"};
    for (size_t i = 0; i < 3; i++) {
        char *text = mode_xasprintf(HUB "%s}\n", same[i]), *dir = mode_xasprintf("/cache/models/hub/%s", place[i]);
        if (parse(&s, &err, text)) fail_msg("%s", err.text);
        assert_string_equal(s.encoder.dir, dir);
        mode_spec_clear(&s);
        free(text);
        free(dir);
    }
    static const char *const bad[] = {"name",        "org/name@", "org/name@../x",   "org/name@a//b", "org/name@/a",
                                      "org/name@-x", "org/na me", "org/name@a/../b", "o@r/name",      "org/name@a?b"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char *text = mode_xasprintf(HUB "'%s'}\n", bad[i]);
        refused(text, bad[i], "expected ORG/NAME or ORG/NAME@REVISION");
        free(text);
    }
    unsetenv("MODE_CACHE");
    setenv("HOME", "/home/x", 1);
    char *dir = mode_xasprintf("/tmp/mode-spec-cache-XXXXXX"), *config = NULL;
    assert_non_null(mkdtemp(dir));
    config = mode_path_join(dir, "config.json");
    assert_int_equal(mode_file_write_atomic(config, "{}", 2, &err), MODE_OK);
    char *text = mode_xasprintf("name: a\ndata: {train: [x]}\nmodel: ViT-B-32\nencoder: {dir: %s}\n", dir);
    if (parse(&s, &err, text)) fail_msg("%s", err.text);
    assert_string_equal(s.tokenizer_merges, "/home/x/.cache/mode/models/bpe_simple_vocab_16e6.txt.gz");
    assert_int_equal(mode_spec_check(&s, true, &err), MODE_E_NOINPUT);
    assert_non_null(strstr(err.text, "the spec names none, and /home/x/.cache"));
    assert_non_null(strstr(err.text, "deploy/fetch-models.sh /home/x/.cache/mode/models"));
    mode_spec_clear(&s);
    assert_int_equal(mode_dir_remove(dir, &err), MODE_OK);
    free(text);
    free(config);
    free(dir);
}

static void test_inline_model_keeps_its_types(void **state)
{
    (void)state;
    struct mode_spec s;
    struct mode_error err = {0};
    if (parse(&s, &err,
              "name: a\ndata: {train: [x, y], bad_shards: skip}\nencoder: {dir: e}\ntokenizer: {merges: m}\n"
              "train: {betas: [0.8, 0.95], expert_steps: share}\n"
              "captions: {per_sample: all}\n"
              "model: {embed_dim: 16, vision_cfg: {image_size: 32, mlp_ratio: 4.0, pool_type: \"tok\"}, text_cfg: "
              "{width: "
              "8}}\n"))
        fail_msg("%s", err.text);
    assert_string_equal(s.model_config,
                        "{\"embed_dim\":16,\"vision_cfg\":{\"image_size\":32,\"mlp_ratio\":4.0,\"pool_type\":\"tok\"},"
                        "\"text_cfg\":{\"width\":8}}");
    assert_true(s.train.beta1 == 0.8 && s.train.beta2 == 0.95 && s.train.share_steps && s.captions.all);
    assert_true(s.skip_bad_shards);
    assert_int_equal(s.data_train.n, 2);
    mode_spec_clear(&s);
}

static void test_mistakes_name_key_line_and_neighbour(void **state)
{
    (void)state;
    refused(MINIMAL "train: {lrr: 1e-3}\n", "run.yaml:7", "train.lr");
    refused(MINIMAL "trian: {lr: 1e-3}\n", "trian", "\"train\"");
    refused(MINIMAL "train: {wd: 0.1}\n", "train.wd", "\"train.weight_decay\""); /* open_clip's options */
    refused(MINIMAL "train: {accum_freq: 2}\n", "train.accum_freq", "\"train.accumulate\"");
    refused(MINIMAL "train: {batch_size: 8}\n", "train.batch_size", "\"train.batch\"");
    refused(MINIMAL "train: {fine: 8}\n", "train.fine", "cluster.fine");
    refused(MINIMAL "name: again\n", "run.yaml:7", "line 1");
    refused(MINIMAL "train: {lr: fast}\n", "train.lr", "fast");
    refused(MINIMAL "train: {lr: -1}\n", "train.lr", "between");
    refused(MINIMAL "train: {batch: 1}\n", "train.batch", "out of range");
    refused(MINIMAL "train: 3\n", "train", "section");
    refused(MINIMAL "cluster: {metric: cosinus}\n", "cosinus", "euclidean|cosine");
    refused(MINIMAL "captions: {strict: maybe}\n", "maybe", "true or false");
    refused(MINIMAL "cluster: {fine: 4, coarse: 8}\n", "coarse", "groups");
    refused(MINIMAL "train: {seed_steps: 5, epochs: 3}\n", "steps", "epochs");
    refused(MINIMAL "train: {seed_steps: 9, total_steps: 9}\n", "fork", "9");
    refused(MINIMAL "train: {scale_min: 0.9, scale_max: 0.5}\n", "scale_min", "scale_max");
    refused(MINIMAL "train: {evaluate_steps: 5}\n", "train.evaluate_steps", "evaluate.tasks");
    refused("name: demo\n", "data.train", "missing");
    refused("name: ../x\ndata: {train: a}\nencoder: {dir: e}\ntokenizer: {merges: m}\nmodel: ViT-B-32\n", "../x",
            "letters");
    refused("name: a\ndata: {train: a}\nencoder: {dir: e}\ntokenizer: {merges: m}\nmodel: ViT-Z\n", "ViT-Z",
            "ViT-B-32");
    refused("name: a\ndata: {train: a, bad_shards: ignore}\nencoder: {dir: e}\ntokenizer: {merges: m}\n"
            "model: ViT-B-32\n",
            "data.bad_shards is \"ignore\"", "stop|skip");
    refused("name: [\n", "run.yaml:2", "YAML");
    refused(MINIMAL "---\nname: second\n", "run.yaml:8", "second document");
    refused(MINIMAL "train.lr: 1e-3\n", "run.yaml:7", "as \"lr\" below \"train\"");
    refused(MINIMAL "train: {betas: [0.9, 0.98], beta1: 0.5}\n", "train.beta1", "betas");
    refused(MINIMAL "train: {betas: [0.9]}\n", "train.betas", "[beta1, beta2]");
    refused(MINIMAL "train: {beta2: 1}\n", "train.beta2", "0.9999999");
    refused(MINIMAL "train: {order: sorted}\n", "train.order is \"sorted\"", "shuffle|windows");
    refused(MINIMAL "train: {window_shards: 4}\n", "train.window_shards", "order: windows");
    refused(MINIMAL "train: {patch_dropout: 1}\n", "train.patch_dropout is 1", "0.999999");
    refused(MINIMAL "train: {patch_dropout: -0.1}\n", "train.patch_dropout is -0.1", "0.999999");
    refused(MINIMAL "train: {lock_image: true}\n", "train.lock_image is true", "train.init");
    refused(MINIMAL "train: {lock_text: true, lock_text_unlocked_layers: 3}\n", "train.lock_text", "train.init");
    refused(MINIMAL "train: {init: m.pt, lock_image_unlocked_groups: 0}\n", "lock_image_unlocked_groups",
            "lock_image: true");
    refused(MINIMAL "train: {init: m.pt, lock_image: true, lock_text_unlocked_layers: 1}\n",
            "lock_text_unlocked_layers", "train.lock_text is false");
    refused(MINIMAL "train: {init: m.pt, lock_image: true, lock_image_unlocked_groups: -1}\n",
            "lock_image_unlocked_groups", "out of range");
    refused(MINIMAL "train: {order: windows, window_shards: 0}\n", "train.window_shards", "out of range");
    refused(MINIMAL "train: {batch: 32, accumulate: 33}\n", "train.accumulate", "32");
    refused(MINIMAL "captions: {text_keys: ['jsn:texts[]', 'foo bar']}\n", "captions.text_keys", "foo bar");
    refused(MINIMAL "captions: {text_keys: 'json:a,txt'}\n", "captions.text_keys", "\"json:a;txt\"");
    refused(MINIMAL "encoder: {hub: a/b, dir: e}\n", "run.yaml:7", "encoder");
    refused(MINIMAL "train: {init: 'hf-hub:clip'}\n", "train.init is \"hf-hub:clip\"", "hf-hub:ORG/NAME");
    refused("name: a\ndata: {train: a}\nencoder: {dir: 'hf-hub:a/b'}\nmodel: ViT-B-32\n", "encoder.dir is",
            "encoder.hub: a/b");
#define MODEL "name: a\ndata: {train: a}\nencoder: {dir: e}\ntokenizer: {merges: m}\nmodel: "
    refused("name: a\ndata: {train: a}\nencoder: {dir: e, hub: a/b}\ntokenizer: {merges: m}\nmodel: ViT-B-32\n",
            "both keys", "encoder.hub");
    refused(MODEL "{embed_dim: 16, vision_cfg: {pool: \"3\"}, text_cfg: {width: 8}}\n", "run.yaml:5", "\"3\"");
    refused(MODEL "{embed_dim: 16, vision_cfg: {image_size: 33, patch_size: 8}, text_cfg: {width: 8}}\n", "run.yaml:5",
            "33");
    refused(MODEL "{model_cfg: {embed_dim: 16, vision_cfg: {}, text_cfg: {}}, preproces_cfg: {}}\n", "run.yaml:5",
            "preproces_cfg");
    refused(MODEL "{model_cfg: {embed_dim: 16, vision_cfg: {}, text_cfg: {}}, preprocess_cfg: {meen: 1}}\n",
            "run.yaml:5", "meen");
    refused("- a\n", "run.yaml", "keys");
}

/* As in open_clip: the model config's, unless the key is given. */
static void test_patch_dropout_is_the_key_s_or_the_model_config_s(void **state)
{
    static const struct {
        const char *vision, *train;
        double want;
    } cases[] = {{"", "", 0},
                 {"", "train: {patch_dropout: 0.25}\n", 0.25},
                 {"patch_dropout: 0.5", "", 0.5},
                 {"patch_dropout: 0.5", "train: {patch_dropout: 0.75}\n", 0.75},
                 {"patch_dropout: 0.5", "train: {patch_dropout: 0}\n", 0}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mode_error err = {0};
        struct mode_spec s;
        char *text = mode_xasprintf("name: a\ndata: {train: a}\nencoder: {dir: e}\ntokenizer: {merges: m}\n"
                                    "model: {embed_dim: 16, vision_cfg: {%s}, text_cfg: {width: 64}}\n%s",
                                    cases[i].vision, cases[i].train);
        if (mode_spec_parse(&s, text, "/", "run.yaml", &err) != MODE_OK) fail_msg("%s", err.text);
        assert_true(s.train.patch_dropout == cases[i].want);
        mode_spec_clear(&s);
        free(text);
    }
}

static void test_locked_towers(void **state)
{
    struct mode_error err = {0};
    struct mode_spec s;
    (void)state;
    assert_int_equal(mode_spec_parse(&s, MINIMAL, "/", "run.yaml", &err), MODE_OK);
    assert_false(s.train.lock_image || s.train.lock_text);
    mode_spec_clear(&s);
    if (mode_spec_parse(
            &s, MINIMAL "train: {init: m.pt, lock_image: true, lock_text: true, lock_text_unlocked_layers: 3}\n", "/",
            "run.yaml", &err))
        fail_msg("%s", err.text);
    assert_true(s.train.lock_image && s.train.lock_text);
    assert_int_equal(s.train.lock_image_unlocked_groups, 0);
    assert_int_equal(s.train.lock_text_unlocked_layers, 3);
    mode_spec_clear(&s);
}

static void test_schedule_in_epochs_and_steps(void **state)
{
    (void)state;
    struct mode_spec s;
    struct mode_error err = {0};
    uint64_t seed, total;
    assert_int_equal(parse(&s, &err, MINIMAL "train: {batch: 100, seed_epochs: 3, epochs: 4}\n"), MODE_OK);
    assert_int_equal(mode_spec_steps(&s, 1050, 0, &seed, &total, &err), MODE_OK);
    assert_int_equal(seed, 32); /* 31.5 rounds away from zero */
    assert_int_equal(total, 42);
    assert_int_equal(mode_spec_steps(&s, 99, 0, &seed, &total, &err), MODE_E_CONFIG);
    mode_spec_clear(&s);
    assert_int_equal(parse(&s, &err, MINIMAL "train: {batch: 100, seed_steps: 3, total_steps: 5}\n"), MODE_OK);
    assert_int_equal(mode_spec_steps(&s, 1050, 0, &seed, &total, &err), MODE_OK);
    assert_true(seed == 3 && total == 5);
    mode_spec_clear(&s);
}

/* With train.init the fork point may be 0, if the spec says so; the steps of a given model must not exceed it. */
static void test_schedule_of_a_given_model(void **state)
{
    (void)state;
    struct mode_spec s;
    struct mode_error err = {0};
    uint64_t seed, total;
    if (parse(&s, &err, MINIMAL "train: {init: m.pt, batch: 100, seed_steps: 0, total_steps: 5}\n"))
        fail_msg("%s", err.text);
    assert_string_equal(s.train.init, "/home/x/m.pt");
    assert_int_equal(mode_spec_steps(&s, 1050, 0, &seed, &total, &err), MODE_OK);
    assert_true(seed == 0 && total == 5);
    assert_int_equal(mode_spec_steps(&s, 1050, 1, &seed, &total, &err), MODE_E_CONFIG);
    assert_non_null(strstr(err.text, "/home/x/m.pt is at step 1"));
    mode_spec_clear(&s);
    if (parse(&s, &err, MINIMAL "train: {init: m.pt, batch: 100, seed_epochs: 0, epochs: 2}\n"))
        fail_msg("%s", err.text);
    assert_int_equal(mode_spec_steps(&s, 1050, 0, &seed, &total, &err), MODE_OK);
    assert_true(seed == 0 && total == 21);
    mode_spec_clear(&s);
    assert_int_equal(parse(&s, &err, MINIMAL "train: {init: m.pt, batch: 100, seed_epochs: 0.01, epochs: 2}\n"),
                     MODE_OK);
    assert_int_equal(mode_spec_steps(&s, 1050, 0, &seed, &total, &err), MODE_E_CONFIG); /* rounded to 0, not given */
    mode_spec_clear(&s);
    refused(MINIMAL "train: {init: m.pt, total_steps: 5}\n", "train.seed_steps is 0", "both are needed");
    refused(MINIMAL "train: {seed_steps: 0, total_steps: 5}\n", "both are needed",
            "HINT: it may be 0 only with train.init");
    refused(MINIMAL "train: {seed_epochs: 0, epochs: 5}\n", "after the start",
            "HINT: it may be 0 only with train.init");
    refused(MINIMAL "train: {init: m.pt, seed_steps: 5, total_steps: 5}\n", "before the end", "5");
}

static void test_the_routers_constants_are_keys(void **state)
{
    (void)state;
    struct mode_spec s;
    struct mode_error err = {0};
    if (parse(&s, &err, MINIMAL "ensemble: {params: lambda=0.1 tau=0.5, top_experts: 2}\n")) fail_msg("%s", err.text);
    assert_string_equal(s.router_params, "lambda=0.1 tau=0.5");
    assert_int_equal(s.top_experts, 2);
    mode_spec_clear(&s);
    refused(MINIMAL "ensemble: {params: lambda=0}\n", "ensemble.params: lambda is 0", "it must be between");
    refused(MINIMAL "ensemble: {params: 0.1}\n", "ensemble.params: \"0.1\" is not a constant", "few many lambda");
    refused(MINIMAL "ensemble: {top_experts: -1}\n", "ensemble.top_experts", "-1");
}

static uint64_t warmup_of(const char *train, uint64_t total)
{
    struct mode_spec s;
    struct mode_error err = {0};
    uint64_t warmup = 0;
    char *text = mode_xasprintf(MINIMAL "train: {%s}\n", train);
    if (parse(&s, &err, text) || mode_spec_warmup(&s, total, &warmup, &err)) fail_msg("%s", err.text);
    mode_spec_clear(&s);
    free(text);
    return warmup;
}

static void test_a_warm_up_ends_before_the_schedule(void **state)
{
    (void)state;
    struct mode_spec s;
    struct mode_error err = {0};
    uint64_t warmup;
    assert_int_equal(warmup_of("batch: 2", 390624), 2000);
    assert_int_equal(warmup_of("batch: 2", 20000), 2000);
    assert_int_equal(warmup_of("batch: 2", 8000), 800); /* 2000 is only the default */
    assert_int_equal(warmup_of("batch: 2", 8), 0);
    assert_int_equal(warmup_of("warmup_steps: 2000", 2001), 2000);
    assert_int_equal(warmup_of("warmup_steps: 0", 1), 0);
    refused(MINIMAL "train: {warmup_steps: 50, seed_steps: 30, total_steps: 50}\n", "train.warmup_steps is 50",
            "50 steps");
    refused(MINIMAL "train: {warmup_steps: 2000, seed_steps: 30, total_steps: 50}\n", "train.warmup_steps is 2000",
            "HINT");
    assert_int_equal(parse(&s, &err, MINIMAL "train: {warmup_steps: 42, epochs: 33}\n"), MODE_OK);
    assert_int_equal(mode_spec_warmup(&s, 42, &warmup, &err), MODE_E_CONFIG); /* found when the pairs are counted */
    assert_int_equal(mode_spec_warmup(&s, 43, &warmup, &err), MODE_OK);
    mode_spec_clear(&s);
}

static void test_a_cooldown_fits_into_its_schedule(void **state)
{
    (void)state;
    struct mode_spec s;
    struct mode_error err = {0};
    uint64_t warmup;
#define COOLS MINIMAL "train: {seed_steps: 30, total_steps: 50, schedule: constant_cooldown, "
    if (parse(&s, &err, MINIMAL)) fail_msg("%s", err.text);
    assert_string_equal(s.train.schedule, "cosine");
    mode_spec_clear(&s);
    if (parse(&s, &err, MINIMAL "train: {seed_steps: 30, total_steps: 50, schedule: constant}\n"))
        fail_msg("%s", err.text);
    assert_string_equal(s.train.schedule, "constant");
    assert_true(s.train.cooldown_steps == 0);
    mode_spec_clear(&s);
    if (parse(&s, &err, COOLS "cooldown_steps: 45}\n")) fail_msg("%s", err.text); /* all but the warm-up */
    assert_true(s.train.cooldown_steps == 45 && s.train.cooldown_power == 1 && s.train.cooldown_end == 0);
    mode_spec_clear(&s);
    if (parse(&s, &err, COOLS "warmup_steps: 0, cooldown_steps: 50, cooldown_power: 0.5, cooldown_end: 5e-4}\n"))
        fail_msg("%s", err.text);
    assert_true(s.train.cooldown_power == 0.5 && s.train.cooldown_end == s.train.lr);
    mode_spec_clear(&s);
    refused(COOLS "cooldown_steps: 46}\n", "train.cooldown_steps is 46 and the warm-up has 5 steps", "at most the 50");
    refused(COOLS "cooldown_steps: 51, warmup_steps: 0}\n", "train.cooldown_steps is 51", "not epochs");
    refused(COOLS "warmup_steps: 1}\n", "train.cooldown_steps is missing", "the last of the schedule");
    refused(COOLS "cooldown_steps: 0}\n", "train.cooldown_steps is 0", "the last of the schedule");
    refused(COOLS "cooldown_steps: 5, cooldown_power: 0}\n", "train.cooldown_power", "between");
    refused(COOLS "cooldown_steps: 5, cooldown_end: -1}\n", "train.cooldown_end", "between");
    refused(COOLS "cooldown_steps: 5, cooldown_end: 6e-4}\n", "train.cooldown_end is 0.0006", "would rise");
#undef COOLS
    refused(MINIMAL "train: {cooldown_steps: 5}\n", "train.cooldown_steps is given, and train.schedule is cosine",
            "HINT: schedule: constant_cooldown");
    refused(MINIMAL "train: {schedule: constant, cooldown_end: 0}\n", "train.cooldown_end is given", "is constant,");
    refused(MINIMAL "train: {schedule: const-cooldown}\n", "\"const-cooldown\"", "cosine|constant|constant_cooldown");
    refused(MINIMAL "train: {lr_scheduler: const}\n", "train.lr_scheduler", "\"train.schedule\"");
    refused(MINIMAL "train: {epochs_cooldown: 2}\n", "train.epochs_cooldown", "\"train.cooldown_steps\"");
    /* by epochs it is found when the pairs are counted */
    assert_int_equal(parse(&s, &err, MINIMAL "train: {schedule: constant_cooldown, cooldown_steps: 100}\n"), MODE_OK);
    assert_int_equal(mode_spec_warmup(&s, 99, &warmup, &err), MODE_E_CONFIG);
    assert_int_equal(mode_spec_warmup(&s, 110, &warmup, &err), MODE_E_CONFIG);
    assert_int_equal(mode_spec_warmup(&s, 112, &warmup, &err), MODE_OK);
    assert_int_equal(warmup, 11);
    mode_spec_clear(&s);
}

static void test_experts_for_tasks(void **state)
{
    (void)state;
    struct mode_spec s;
    struct mode_error err = {0};
#define TASKS "evaluate: {tasks: eval}\nexperts_for:\n"
    if (parse(&s, &err,
              MINIMAL TASKS "  - {name: pets, tasks: [wds_pets, birds]}\n  - name: mine\n    classes: words.txt\n"
                            "    nearest: 3\n  - {name: every.thing, tasks: all}\n  - {name: one, tasks: birds}\n"))
        fail_msg("%s", err.text);
    assert_int_equal(s.n_experts_for, 4);
    assert_string_equal(s.experts_for[0].name, "pets");
    assert_int_equal(s.experts_for[0].tasks.n, 2);
    assert_string_equal(s.experts_for[0].tasks.item[1], "birds");
    assert_int_equal(s.experts_for[0].nearest, 1);
    assert_null(s.experts_for[0].classes);
    assert_string_equal(s.experts_for[1].classes, "/home/x/words.txt");
    assert_int_equal(s.experts_for[1].nearest, 3);
    assert_int_equal(s.experts_for[1].line, 10);
    assert_true(s.experts_for[2].all && s.experts_for[2].tasks.n == 0);
    assert_true(!s.experts_for[3].all && s.experts_for[3].tasks.n == 1);
    mode_spec_clear(&s);
    if (parse(&s, &err, MINIMAL "experts_for: [{name: mine, classes: /words.txt}]\n")) fail_msg("%s", err.text);
    assert_string_equal(s.experts_for[0].classes, "/words.txt"); /* needs no task */
    mode_spec_clear(&s);

    static const char *const taken[] = {"seed",    "dense",      "expert-0", "expert-max", "added",
                                        "init",    "all_unit",   "ensemble", "uniform",    "metric",
                                        "average", "index.json", "3"};
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) {
        char *text = mode_xasprintf(MINIMAL TASKS "  - {name: ok, tasks: a}\n  - {name: %s, tasks: a}\n", taken[i]);
        char *what = mode_xasprintf("run.yaml:10: \"%s\" is not a valid name", taken[i]);
        refused(text, what, "it is taken");
        free(what);
        free(text);
    }
    refused(MINIMAL TASKS "  - {name: ../x, tasks: a}\n", "run.yaml:9: \"../x\" is not a valid name",
            "1 to 64 letters");
    refused(MINIMAL TASKS "  - {name: .x, tasks: a}\n", "\".x\" is not a valid name", "not starting with");
    refused(MINIMAL TASKS "  - {name: x, tasks: a}\n  - {name: x, tasks: b}\n",
            "run.yaml:10: experts_for has the name x", "first in line 9");
    refused(MINIMAL TASKS "  - {tasks: a}\n", "run.yaml:9", "has no name");
    refused(MINIMAL TASKS "  - {name: x}\n", "run.yaml:9: x of experts_for names neither", "tasks, or classes");
    refused(MINIMAL TASKS "  - {name: x, tasks: a, classes: b}\n",
            "run.yaml:9: x of experts_for names tasks and classes", "one of the two");
    refused(MINIMAL TASKS "  - {name: x, tasks: []}\n", "run.yaml:9: tasks of experts_for is empty", "names of tasks");
    refused(MINIMAL TASKS "  - {name: x, tasks: [a, b, a]}\n", "run.yaml:9", "the task a twice");
    refused(MINIMAL TASKS "  - {name: x, tasks: a, nearest: 0}\n", "run.yaml:9: nearest of experts_for", "0");
    refused(MINIMAL TASKS "  - {name: x, taks: a}\n", "run.yaml:9: unknown key \"taks\" of experts_for",
            "tasks or classes");
    refused(MINIMAL TASKS "  - {name: x, tasks: a, name: y}\n", "run.yaml:9", "gives name of an entry twice");
    refused(MINIMAL TASKS "  - pets\n", "run.yaml:9", "must be a mapping");
    refused(MINIMAL "experts_for: {name: x, tasks: a}\n", "run.yaml:7: experts_for must be a list", "mapping");
    refused(MINIMAL "experts_for: [{name: x, tasks: a}]\n", "run.yaml:7: x of experts_for is for tasks",
            "evaluate.tasks");
    refused(MINIMAL "expert_for: []\n", "expert_for", "\"experts_for\"");
}

/* docs/RUN.md and the table of keys must say the same. */
static void test_every_key_is_documented_with_its_default(void **state)
{
    (void)state;
    struct mode_error err = {0};
    char *text, *row;
    size_t size;
    assert_int_equal(mode_file_read(MODE_SOURCE_DIR "/docs/RUN.md", 0, &text, &size, &err), MODE_OK);
    static const struct {
        const char *path, *value;
    } keys[] = {
#define X(path, type, field, value, min, max, help) {path, value},
        MODE_SPEC_KEYS(X)
#undef X
    };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const char *v = keys[i].value;
        char *head = mode_xasprintf("| `%s` | ", keys[i].path);
        row = strstr(text, head);
        if (!row) fail_msg("docs/RUN.md does not explain %s", keys[i].path);
        if (!v) v = "required";
        if (strcmp(v, "=seed") == 0) v = "`seed`";
        if (!*v) v = "none";
        if (!strchr(v, ';') && strncmp(row + strlen(head), v, strlen(v)) != 0)
            fail_msg("docs/RUN.md gives %s another default than %s", keys[i].path, v);
        free(head);
    }
    free(text);
}

/* ---------------------------------------------------------------------------------------------- sources */

static char folder[] = "/tmp/mode-spec-XXXXXX";

static int make_shards(void **state)
{
    (void)state;
    static const char *const names[] = {"a/2.tar",   "a/10.tar",  "a/b/1.tar", "00000.tar",
                                        "00001.tar", "00002.tar", "a/x.txt"};
    struct mode_error err = {0};
    strcpy(folder + sizeof folder - 7, "XXXXXX");
    if (!mkdtemp(folder)) return 1;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char *path = mode_path_join(folder, names[i]), *dir = mode_xstrdup(path);
        *strrchr(dir, '/') = 0;
        if (mode_dir_make(dir, &err) || mode_file_write_atomic(path, "x", 1, &err)) return 1;
        free(path);
        free(dir);
    }
    char *list = mode_path_join(folder, "list.txt");
    if (mode_file_write_atomic(list, "# some\na/10.tar\n00001.tar\n", 25, &err)) return 1;
    free(list);
    return 0;
}

static int remove_shards(void **state)
{
    (void)state;
    struct mode_error err = {0};
    return mode_dir_remove(folder, &err) != MODE_OK;
}

static void expand(const char *source, const char *names)
{
    struct mode_shards s;
    struct mode_error err = {0};
    struct mode_str got = {0};
    char *list[] = {(char *)(uintptr_t)source};
    if (mode_sources_expand(&s, list, 1, folder, &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < s.n; i++) mode_str_printf(&got, "%s ", s.shard[i].name);
    assert_string_equal(got.data, names);
    assert_int_equal(s.shard[0].size, 1);
    mode_str_clear(&got);
    mode_shards_clear(&s);
}

static void not_found(const char *source, enum mode_status want, const char *part)
{
    struct mode_shards s;
    struct mode_error err = {0};
    char *list[] = {(char *)(uintptr_t)source};
    assert_int_equal(mode_sources_expand(&s, list, 1, folder, &err), want);
    if (!strstr(err.text, part)) fail_msg("\"%s\" lacks \"%s\"", err.text, part);
}

static void test_sources(void **state)
{
    (void)state;
    expand("a", "2.tar 10.tar b/1.tar ");
    expand("{00000..00002}.tar", "00000.tar 00001.tar 00002.tar "); /* inclusive at both ends */
    expand("0000{0,2}.tar", "00000.tar 00002.tar ");
    expand("0000[12].tar", "00001.tar 00002.tar ");
    expand("00002.tar::a/2.tar", "00002.tar 2.tar ");
    expand("@list.txt", "10.tar 00001.tar ");
    not_found("{00000..00003}.tar", MODE_E_NOINPUT, "00003.tar");
    not_found("*.tgz", MODE_E_NOINPUT, "matches no file");
    not_found("a::a/2.tar", MODE_E_CONFIG, "twice");
    not_found("{1..", MODE_E_CONFIG, "closed");
    not_found("ftp://host/x.tar", MODE_E_CONFIG, "HINT: copy the shards");
    not_found("pipe:cat x.tar", MODE_E_CONFIG, "commands are not run");
    not_found("gs://bucket/x.tar", MODE_E_CONFIG, "https://storage.googleapis.com/");
    not_found("hf://datasets/x.tar", MODE_E_CONFIG, "https://huggingface.co/datasets/");
    not_found("@https://h/list.txt", MODE_E_CONFIG, "must be a local file");
}

/* Expanding remote sources: no server is contacted yet. */
static void test_sources_of_other_machines(void **state)
{
    (void)state;
    struct mode_shards s;
    struct mode_error err = {0};
    char *sources[] = {(char *)(uintptr_t) "HTTPS://h/d{1,2}/{08..10}.tar::s3://bucket/k/{a,b}.tar",
                       (char *)(uintptr_t) "@signed.txt"};
    char *list = mode_path_join(folder, "signed.txt"), *cache = mode_path_join(folder, "cache");
    static const char lines[] = "https://h/x/2.tar?KEY=1\nhttps://h/x/10.tar?KEY=2\n";
    setenv("MODE_CACHE", cache, 1);
    assert_int_equal(mode_file_write_atomic(list, lines, sizeof lines - 1, &err), MODE_OK);
    if (mode_sources_expand(&s, sources, 2, folder, &err)) fail_msg("%s", err.text);
    static const char *const want[][2] = {{"https://h/d1/08.tar", "d1/08.tar"}, {"https://h/d1/09.tar", "d1/09.tar"},
                                          {"https://h/d1/10.tar", "d1/10.tar"}, {"https://h/d2/08.tar", "d2/08.tar"},
                                          {"https://h/d2/09.tar", "d2/09.tar"}, {"https://h/d2/10.tar", "d2/10.tar"},
                                          {"s3://bucket/k/a.tar", "a.tar"},     {"s3://bucket/k/b.tar", "b.tar"},
                                          {"https://h/x/2.tar", "2.tar"},       {"https://h/x/10.tar", "10.tar"}};
    assert_int_equal(s.n, sizeof want / sizeof *want);
    for (size_t i = 0; i < s.n; i++) {
        assert_string_equal(s.shard[i].path, want[i][0]);
        assert_string_equal(s.shard[i].name, want[i][1]);
    }
    mode_shards_clear(&s);
    not_found("https://h/x.tar?KEY=1", MODE_E_CONFIG, "https://h/x.tar?...: what is after");
    not_found("https://h/{1..x.tar?KEY=1", MODE_E_CONFIG, "https://h/{1..x.tar: a brace is not closed");
    not_found("https://h/{3..1}.tar?KEY=1", MODE_E_CONFIG, "https://h/{3..1}.tar: its range");
    not_found("https://h/x.tar::https://h/x.tar", MODE_E_CONFIG, "twice");
    unsetenv("MODE_CACHE");
    free(list);
    free(cache);
}

static void expand_url(const char *scheme, const char *rest, const char *names)
{
    char *source = mode_xasprintf("%s%s%s", scheme, folder, rest);
    expand(source, names);
    free(source);
}

static void test_sources_as_addresses(void **state)
{
    (void)state;
    struct mode_error err;
    expand_url("file://", "/a", "2.tar 10.tar b/1.tar ");
    expand_url("file:", "/{00000..00002}.tar", "00000.tar 00001.tar 00002.tar ");
    expand_url("FILE://localhost", "/0000[12].tar", "00001.tar 00002.tar ");
    expand_url("file://", "/%61/%32%2etar", "2.tar ");
    expand_url("@file://", "/list.txt", "10.tar 00001.tar ");
    char *named = mode_path_join(folder, "a b,c%.tar"), *list = mode_path_join(folder, "of addresses.txt");
    char *lines = mode_xasprintf("file://%s/a%%20b%%2Cc%%25.tar\nfile:%s/a/{2,10}.tar::00000.tar\n", folder, folder);
    assert_int_equal(mode_file_write_atomic(named, "x", 1, &err), MODE_OK);
    assert_int_equal(mode_file_write_atomic(list, lines, strlen(lines), &err), MODE_OK);
    expand("@of addresses.txt", "a b,c%.tar 2.tar 10.tar 00000.tar ");
    expand_url("@file://", "/of%20addresses.txt", "a b,c%.tar 2.tar 10.tar 00000.tar ");
    not_found("file://elsewhere/x.tar", MODE_E_CONFIG, "expected file:///PATH");
    not_found("file:x.tar", MODE_E_CONFIG, "expected file:///PATH");
    not_found("file:///a%2", MODE_E_CONFIG, "\"%2\" is not an encoded byte");
    not_found("file:///a%zz", MODE_E_CONFIG, "two hex digits");
    not_found("file:///a%00", MODE_E_CONFIG, "%00 encodes");
    not_found("file:///a%2Fb", MODE_E_CONFIG, "%2F encodes");
    not_found("file:///%7B0..1}.tar", MODE_E_CONFIG, "%7B encodes");
    not_found("file:///nowhere/x.tar", MODE_E_NOINPUT, "/nowhere/x.tar");
    not_found("@hf://x/list.txt", MODE_E_CONFIG, "local");
    free(named);
    free(list);
    free(lines);
}

/* ---------------------------------------------------------------------------------------------- tasks */

static int make_tasks(void **state)
{
    (void)state;
    static const char *const names[] = {"eval/flags",     "eval/vtab/pets", "eval/vtab/birds", "eval/flags/inner",
                                        "eval/1/2/3/far", "eval/1/2/3/4/x", "twice/a/pets",    "twice/b/pets"};
    struct mode_error err = {0};
    strcpy(folder, "/tmp/mode-spec-XXXXXX");
    if (!mkdtemp(folder)) return 1;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char *dir = mode_xasprintf("%s/%s/test", folder, names[i]), *file = mode_path_join(dir, "nshards.txt");
        if (mode_dir_make(dir, &err) || mode_file_write_atomic(file, "1", 1, &err)) return 1;
        free(dir);
        free(file);
    }
    return 0;
}

static enum mode_status tasks_of(char **found, const char *entries, struct mode_error *err)
{
    struct mode_spec s;
    struct mode_spec_list list;
    struct mode_str names = {0};
    char *text = mode_xasprintf(MINIMAL "evaluate: {tasks: [%s]}\n", entries);
    if (mode_spec_parse(&s, text, folder, "run.yaml", err)) fail_msg("%s", err->text);
    enum mode_status st = mode_spec_tasks(&s.evaluate.tasks, "evaluate.tasks", &list, NULL, err);
    for (size_t i = 0; !st && i < list.n; i++) mode_str_printf(&names, "%s ", list.item[i] + strlen(folder) + 1);
    if (!st) mode_spec_list_clear(&list);
    mode_spec_clear(&s);
    free(text);
    *found = names.data;
    return st;
}

static void test_tasks_are_found_below_a_folder_that_holds_others(void **state)
{
    (void)state;
    struct mode_error err = {0};
    char *found;
    if (tasks_of(&found, "eval", &err)) fail_msg("%s", err.text);
    assert_string_equal(found, "eval/1/2/3/far eval/flags eval/vtab/birds eval/vtab/pets "); /* at most four down */
    free(found);
    if (tasks_of(&found, "eval/vtab, eval/flags", &err)) fail_msg("%s", err.text);
    assert_string_equal(found, "eval/vtab/birds eval/vtab/pets eval/flags ");
    free(found);
    assert_int_equal(tasks_of(&found, "twice", &err), MODE_E_CONFIG);
    assert_non_null(strstr(err.text, "same name"));
    assert_int_equal(tasks_of(&found, "eval/flags/test", &err), MODE_E_NOINPUT);
    assert_non_null(strstr(err.text, "contains none"));
    assert_int_equal(tasks_of(&found, "nowhere", &err), MODE_E_NOINPUT);
    assert_non_null(strstr(err.text, "evaluate.tasks"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_lies_in_the_cache),
        cmocka_unit_test(test_defaults_and_paths),
        cmocka_unit_test(test_what_may_be_left_out),
        cmocka_unit_test(test_inline_model_keeps_its_types),
        cmocka_unit_test(test_mistakes_name_key_line_and_neighbour),
        cmocka_unit_test(test_patch_dropout_is_the_key_s_or_the_model_config_s),
        cmocka_unit_test(test_locked_towers),
        cmocka_unit_test(test_schedule_in_epochs_and_steps),
        cmocka_unit_test(test_schedule_of_a_given_model),
        cmocka_unit_test(test_every_key_is_documented_with_its_default),
        cmocka_unit_test_setup_teardown(test_sources, make_shards, remove_shards),
        cmocka_unit_test_setup_teardown(test_sources_of_other_machines, make_shards, remove_shards),
        cmocka_unit_test_setup_teardown(test_sources_as_addresses, make_shards, remove_shards),
        cmocka_unit_test(test_the_routers_constants_are_keys),
        cmocka_unit_test(test_experts_for_tasks),
        cmocka_unit_test(test_a_warm_up_ends_before_the_schedule),
        cmocka_unit_test(test_a_cooldown_fits_into_its_schedule),
        cmocka_unit_test_setup_teardown(test_tasks_are_found_below_a_folder_that_holds_others, make_tasks,
                                        remove_shards),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
