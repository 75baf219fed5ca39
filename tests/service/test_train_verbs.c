/* mode train, encode and evaluate on the command line: exit codes, files, interruption. */
#include "clip_world.h"
#include "nn/backend.h"
#include "tfevents_reader.h"

#include <jansson.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

static struct world world;
static const char mode[] = MODE_BUILD_DIR "/bin/mode";

static int setup(void **state)
{
    (void)state;
    world_open(&world);
    char *path = mode_path_join(world.dir, "model.json");
    struct mode_error err = {0};
    world_ok(mode_file_write_atomic(path, WORLD_MODEL, strlen(WORLD_MODEL), &err), &err);
    free(path);
    if (!mode_file_exists(mode)) fprintf(stderr, "%s does not exist: build the target `mode` first\n", mode);
    return !mode_file_exists(mode);
}

static int teardown(void **state)
{
    (void)state;
    world_close(&world);
    return 0;
}

/* Exit code of a shell line in the world's folder; $M is the mode command with its merges file set. */
static int sh(const char *line)
{
    char *command = mode_xasprintf("cd %s || exit 99; M='env MODE_CLIP_MERGES=%s MODE_THREADS=2 %s'; %s", world.dir,
                                   world.merges, mode, line);
    int rc = system(command);
    free(command);
    return WIFEXITED(rc) ? WEXITSTATUS(rc) : 128 + WTERMSIG(rc);
}

#define TRAIN "$M train --config model.json --data '{0..2}.tar' --batch 10 --warmup 3 --seed 5 "

/* A training into a folder that gets a signal as soon as its log, <folder>.txt, has a line that starts with those
 * words; repeated if it had finished before this shell was scheduled. Its exit code. */
static int signalled(const char *folder, const char *options, const char *words, const char *sig)
{
    char *line = mode_xasprintf("for try in 1 2 3 4 5 6 7 8; do rm -rf %s; : >%s.txt; " TRAIN
                                "--out %s %s >/dev/null 2>%s.txt & p=$!;"
                                "for i in $(seq 6000); do grep -q '^%s' %s.txt && break; sleep 0.01; done;"
                                "kill -%s $p; wait $p; code=$?; test $code = 0 || break; done; exit $code",
                                folder, folder, folder, options, folder, words, folder, sig);
    int code = sh(line);
    free(line);
    return code;
}

static void test_train_encode_evaluate(void **state)
{
    (void)state;
    assert_int_equal(sh(TRAIN "--steps 8 --log log.jsonl --out model >out.txt 2>err.txt"), 0);
    assert_int_equal(sh("cmp log.jsonl model/steps.jsonl && test $(wc -l <log.jsonl) = 8"), 0);
    assert_int_equal(sh("test ! -e model/checkpoints && grep -q 'captions: 93 pairs' err.txt"), 0);
    assert_int_equal(sh(TRAIN "--steps 8 --out model 2>err.txt"), 73); /* never overwritten */
    assert_int_equal(sh("grep -q 'exists already' err.txt"), 0);

    assert_int_equal(sh("printf 'a red square\\na blue square\\n' >texts && $M encode --model model --texts "
                        "texts --out vectors"
                        " >/dev/null && test -s vectors/text_features.npy"),
                     0);
    char *dir = world_write_task(&world, false);
    assert_int_equal(sh("$M evaluate --model model --task colours --json --out scores >result.json"), 0);
    assert_int_equal(sh("test -s scores/colours/logits.safetensors && test -s scores/colours/metrics.json"), 0);
    char *path = mode_path_join(world.dir, "result.json");
    json_t *o = json_load_file(path, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(o, "model")), "model");
    assert_true(json_is_number(json_object_get(json_object_get(o, "metrics"), "acc1")));
    json_decref(o);
    free(path);
    free(dir);
}

/* What a probe needs in addition: training pictures; and a folder of experts as a run leaves it. */
static void test_probe(void **state)
{
    (void)state;
    assert_int_equal(sh("test -d model || " TRAIN "--steps 8 --out model >/dev/null 2>&1"), 0);
    char *dir = world_write_task(&world, false);
    free(dir);
    assert_int_equal(sh("$M probe --model model colours 2>err.txt"), 66);
    assert_int_equal(sh("grep -q 'has no train/nshards.txt.*HINT: --train DIR' err.txt"), 0);
    assert_int_equal(sh("$M probe --model model colours --train ./colours/ 2>/dev/null"), 66);
    assert_int_equal(sh("cp -r colours other && $M probe --model model colours --train other >line.txt 2>err.txt"), 0);
    assert_int_equal(sh("grep -q '^colours\tacc1=[01]\\.' line.txt && test $(wc -l <line.txt) = 1"), 0);
    assert_int_equal(sh("grep -q '^colours: C is chosen by 4 of 12 training pictures, 4 classes, 16 features' err.txt"),
                     0);
    assert_int_equal(sh("mkdir -p both/train && cp -r colours/* both && cp colours/test/* both/train &&"
                        "$M probe --model model both --json --threads 1 >one.json 2>err.txt && "
                        "$M probe --model model both --json --threads 3 2>/dev/null | cmp - one.json"),
                     0); /* the same bytes */
    assert_int_equal(sh("mkdir experts && cp -r model experts/expert-0 && cp -r model experts/expert-1 &&"
                        "cp centres.safetensors experts && echo '{\"models\": []}' >experts/index.json &&"
                        "$M probe --experts experts/ both both --c 2 --json 2>err.txt >two.json"),
                     0);
    assert_int_equal(sh("test $(wc -l <two.json) = 2 && test $(uniq <two.json | wc -l) = 1"), 0);
    char *path = mode_path_join(world.dir, "one.json");
    json_t *o = json_load_file(path, 0, NULL), *how = json_object_get(o, "probe");
    assert_string_equal(json_string_value(json_object_get(o, "task")), "linear_probe");
    assert_string_equal(json_string_value(json_object_get(o, "model")), "model");
    assert_true(json_is_number(json_object_get(json_object_get(o, "metrics"), "acc1")));
    assert_int_equal(json_integer_value(json_object_get(how, "held_back")), 4);
    assert_in_range(json_array_size(json_object_get(how, "tries")), 11, 15);
    json_decref(o);
    free(path);
    path = mode_path_join(world.dir, "two.json");
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    o = json_loadf(f, JSON_DISABLE_EOF_CHECK, NULL), how = json_object_get(o, "probe");
    fclose(f);
    assert_string_equal(json_string_value(json_object_get(o, "model")), "experts");
    assert_int_equal(json_integer_value(json_object_get(how, "models")), 2);
    assert_int_equal(json_integer_value(json_object_get(how, "width")), 32);
    assert_int_equal(json_integer_value(json_object_get(how, "held_back")), 0);
    assert_true(json_is_null(json_object_get(how, "held_back_acc1")));
    assert_true(json_number_value(json_object_get(how, "C")) == 2);
    json_decref(o);
    free(path);
    static const struct {
        const char *args, *words;
        int code;
    } wrong[] = {
        {"both", "whose features. Give --model DIR, or --experts DIR", 2},
        {"--model model --experts experts both", "whose features", 2},
        {"--model model", "a task.s folder is needed", 2},
        {"--model model both both --train both", "--train is for one task, 2 are given", 2},
        {"--model model both --held-back 1", "--held-back: 1 is out of range", 2},
        {"--model model both --c -1", "--c: -1 is out of range", 2},
        {"--experts model both", "index.json does not exist; expected the experts", 66},
        {"--model model none", "none", 66},
        {"--model none both", "none", 66},
        {"--model model both --train none", "none", 66},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char *line = mode_xasprintf(
            "$M probe %s 2>err.txt; code=$?; grep -q -e '%s' err.txt || { cat err.txt; exit 98; }; "
            "exit $code",
            wrong[i].args, wrong[i].words);
        const int code = sh(line);
        if (code != wrong[i].code) fail_msg("%s: exit %d, expected %d", wrong[i].args, code, wrong[i].code);
        free(line);
    }
}

static void test_going_on_from_a_trained_model(void **state)
{
    (void)state;
    /* 8 steps and then 4 more are the 12 of one schedule */
    assert_int_equal(sh(TRAIN "--steps 12 --out whole >/dev/null 2>&1"), 0);
    assert_int_equal(sh(TRAIN "--steps 8 --total-steps 12 --out part >/dev/null 2>&1"), 0);
    assert_int_equal(sh("$M train --init part --data '{0..2}.tar' --batch 10 --warmup 3 --seed 5 --steps 4 --out rest"
                        " >/dev/null 2>&1"),
                     0);
    assert_int_equal(sh("cmp whole/open_clip_model.safetensors rest/open_clip_model.safetensors"), 0);
    assert_int_equal(sh("cmp whole/optimizer.safetensors rest/optimizer.safetensors"), 0);
    /* a folder without optimizer moments starts at step 0, whoever wrote it */
    assert_int_equal(sh("$M train --init part --fresh-optimizer --data 0.tar --batch 10 --steps 2 --out tuned"
                        " >/dev/null 2>&1"),
                     0);
    assert_int_equal(sh("rm part/optimizer.safetensors; $M convert part hf --to hf >/dev/null 2>&1"), 0);
    for (const char **from = (const char *[]){"part", "hf", NULL}; *from; from++) {
        setenv("FROM", *from, 1);
        assert_int_equal(sh("$M train --init $FROM --data 0.tar --batch 10 --steps 2 --out from-$FROM >/dev/null"
                            " 2>err.txt"),
                         0);
        assert_int_equal(sh("grep -q 'begins at step 0 with fresh optimizer state' err.txt"), 0);
        assert_int_equal(sh("cmp tuned/open_clip_model.safetensors from-$FROM/open_clip_model.safetensors"), 0);
    }
}

#define LR "sed 's/.*\"lr\": //; s/,.*//' "
/* A constant rate goes on without a total fixed in advance, and ends with a cooldown. */
static void test_schedules(void **state)
{
    (void)state;
    assert_int_equal(sh(TRAIN "--steps 12 --schedule constant --out flat >/dev/null 2>err.txt"), 0);
    assert_int_equal(sh("grep -q '^learning rate: warm-up in 3 steps to 0.0005, constant; this training: steps 0 to "
                        "12$' err.txt"),
                     0);
    assert_int_equal(sh(TRAIN "--steps 8 --schedule constant --out flat8 >/dev/null 2>&1"), 0);
#define ON "$M train --init flat8 --data '{0..2}.tar' --batch 10 --warmup 3 --seed 5 --steps 4 "
    assert_int_equal(sh(ON "--schedule constant --out flat-on >/dev/null 2>&1"), 0);
    assert_int_equal(sh("cmp flat/open_clip_model.safetensors flat-on/open_clip_model.safetensors &&"
                        "cmp flat/optimizer.safetensors flat-on/optimizer.safetensors"),
                     0);
    assert_int_equal(sh(ON "--schedule constant_cooldown --cooldown-steps 4 --cooldown-end 1e-4 --out cool >/dev/null "
                           "2>err.txt"),
                     0);
    assert_int_equal(sh("grep -q ' constant to step 8, cooldown to 0.0001 at step 12; this training: steps 8 to 12$' "
                        "err.txt && grep -q '\"schedule\": \"constant_cooldown\"' cool/train.json"),
                     0);
    assert_int_equal(sh("test \"$(" LR "cool/steps.jsonl | tr '\\n' ' ')\" = '0.0005 0.0004 0.0003 0.0002 '"), 0);
#undef ON
    /* the whole at once: the same model */
    assert_int_equal(sh(TRAIN "--steps 12 --schedule constant_cooldown --cooldown-steps 4 --cooldown-end 1e-4 --out "
                              "cooled >/dev/null 2>&1 && cmp cool/open_clip_model.safetensors "
                              "cooled/open_clip_model.safetensors"),
                     0);
    /* killed, and resumed with the same schedule only */
#define COOLS "--steps 400 --schedule constant_cooldown --cooldown-steps 390 --cooldown-power 2 --checkpoint-steps 20 "
    assert_int_equal(sh(TRAIN COOLS "--out cools >/dev/null 2>&1"), 0);
    assert_int_equal(signalled("cools-hit", COOLS, "step ", "TERM"), 143);
    assert_int_equal(sh(TRAIN "--steps 400 --out cools-hit --resume 2>err.txt"), 65);
    assert_int_equal(sh("grep -q 'with other parameters' err.txt"), 0);
    assert_int_equal(sh(TRAIN COOLS "--out cools-hit --resume >/dev/null 2>&1"), 0);
    assert_int_equal(sh("for f in open_clip_model.safetensors optimizer.safetensors steps.jsonl train.json; do cmp "
                        "cools/$f cools-hit/$f || exit 1; done"),
                     0);
#undef COOLS
    static const struct {
        const char *args, *words;
    } wrong[] = {
        {"--schedule const", "--schedule const: must be cosine, constant or constant_cooldown"},
        {"--schedule constant_cooldown", "constant_cooldown needs --cooldown-steps N"},
        {"--cooldown-steps 4", "--cooldown-steps goes with --schedule constant_cooldown"},
        {"--schedule constant --cooldown-end 0", "--cooldown-end goes with"},
        {"--schedule constant_cooldown --cooldown-steps 10",
         "--cooldown-steps 10: the schedule has 12 steps, 3 of them warm-up"},
        {"--schedule constant_cooldown --cooldown-steps 0", "--cooldown-steps: 0 is out of range"},
        {"--schedule constant_cooldown --cooldown-steps 4 --cooldown-power 0", "--cooldown-power: 0 is out of range"},
        {"--schedule constant_cooldown --cooldown-steps 4 --cooldown-end 1e-3",
         "--cooldown-end: 1e-3 is out of range, expected 0 to 0.0005"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char *line = mode_xasprintf(TRAIN "--steps 12 --out x %s 2>err.txt; code=$?; grep -q -e '%s' err.txt || { cat "
                                          "err.txt; exit 98; }; test ! -e x || exit 97; exit $code",
                                    wrong[i].args, wrong[i].words);
        const int code = sh(line);
        if (code != 2) fail_msg("%s: exit %d, expected 2", wrong[i].args, code);
        free(line);
    }
}

static void test_a_terminated_training_resumes_to_the_same_bytes(void **state)
{
    (void)state;
    assert_int_equal(sh(TRAIN "--steps 400 --out straight >/dev/null 2>&1"), 0);
    /* terminated as soon as it says that it trains, with enough steps left if this shell is scheduled late */
    assert_int_equal(signalled("broken", "--steps 400", "step ", "TERM"), 143);
    assert_int_equal(signalled("cut", "--steps 400", "step ", "INT"), 130);
    assert_int_equal(sh("grep -q 'stopped after step' cut.txt && test -s cut/checkpoints/latest"), 0);
    assert_int_equal(sh("grep -q 'stopped after step' broken.txt && test ! -e broken/open_clip_model.safetensors"), 0);
    assert_int_equal(sh(TRAIN "--steps 400 --out broken 2>/dev/null"), 73);
    assert_int_equal(sh(TRAIN "--steps 400 --out broken --lr 1e-4 --resume 2>err.txt"), 65);
    assert_int_equal(sh("grep -q '^mode train: checkpoint .* with other parameters.*HINT: .*--init' err.txt"), 0);
    assert_int_equal(sh(TRAIN "--steps 400 --out broken --resume >/dev/null 2>&1"), 0);
    assert_int_equal(sh("for f in open_clip_config.json open_clip_model.safetensors optimizer.safetensors steps.jsonl "
                        "train.json; do cmp straight/$f broken/$f || exit 1; done"),
                     0);
}

/* In two trainings what it is in one; --patch-dropout decides over the model's own; it is part of what is resumed. */
static void test_patch_dropout(void **state)
{
    (void)state;
    assert_int_equal(sh(TRAIN "--steps 12 --patch-dropout 0.5 --out drops >/dev/null 2>err.txt"), 0);
    assert_int_equal(sh("grep -q '^patch dropout 0.5: a step computes 2 of the 4 patches of every picture$' err.txt && "
                        "grep -q '\"patch_dropout\": 0.5' drops/train.json"),
                     0);
    assert_int_equal(sh(TRAIN "--steps 12 --out all >/dev/null 2>err.txt && ! grep -q 'patch dropout' err.txt && "
                              "! grep -q patch_dropout all/train.json && "
                              "! cmp -s all/open_clip_model.safetensors drops/open_clip_model.safetensors"),
                     0);
    /* in two parts, on one thread and on three */
    assert_int_equal(sh(TRAIN "--steps 8 --total-steps 12 --patch-dropout 0.5 --threads 1 --out drops-part >/dev/null "
                              "2>&1"),
                     0);
    assert_int_equal(sh("$M train --init drops-part --data '{0..2}.tar' --batch 10 --warmup 3 --seed 5 --steps 4 "
                        "--patch-dropout 0.5 --threads 3 --out drops-rest >/dev/null 2>&1 && "
                        "cmp drops/open_clip_model.safetensors drops-rest/open_clip_model.safetensors"),
                     0);
    /* the model config's own, and the option over it */
    assert_int_equal(
        sh("sed 's/\"patch_size\"/\"patch_dropout\": 0.5, &/' model.json >dropping.json; "
           "D=\"$M train --config dropping.json --data {0..2}.tar --batch 10 --warmup 3 --seed 5 --steps 12\";"
           "$D --out own >/dev/null 2>&1 && $D --patch-dropout 0 --out own-off >/dev/null 2>&1 && "
           "cmp drops/open_clip_model.safetensors own/open_clip_model.safetensors && "
           "cmp all/open_clip_model.safetensors own-off/open_clip_model.safetensors && "
           "grep -q '\"patch_dropout\": 0.5' own-off/open_clip_config.json"),
        0);
    /* evaluation uses every patch, whatever the config says: the same weights, the same results */
    free(world_write_task(&world, false));
    assert_int_equal(sh("for m in all own-off; do $M evaluate --model $m --task colours --json --out scores-$m "
                        "2>/dev/null | sed 's/.*\"metrics\"://' >$m.txt; test -s $m.txt || exit 1; done; "
                        "cmp all.txt own-off.txt"),
                     0);
    assert_int_equal(signalled("drops-hit", "--steps 400 --patch-dropout 0.5 --checkpoint-steps 20", "step ", "TERM"),
                     143);
    assert_int_equal(sh(TRAIN "--steps 400 --out drops-hit --resume 2>err.txt"), 65);
    assert_int_equal(sh("grep -q 'with other parameters' err.txt"), 0);
    assert_int_equal(sh(TRAIN "--steps 400 --patch-dropout 0.5 --out drops-hit --resume >/dev/null 2>&1 && " TRAIN
                              "--steps 400 --patch-dropout 0.5 --out drops-whole >/dev/null 2>&1 && "
                              "cmp drops-hit/open_clip_model.safetensors drops-whole/open_clip_model.safetensors"),
                     0);
    static const char *const wrong[] = {"1", "-0.1", "half"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char *line = mode_xasprintf(TRAIN
                                    "--steps 12 --patch-dropout %s --out x 2>err.txt; code=$?; "
                                    "grep -q -e '--patch-dropout: ' err.txt && test ! -e x || exit 98; exit $code",
                                    wrong[i]);
        assert_int_equal(sh(line), 2);
        free(line);
    }
    assert_int_equal(sh("$M train --force-patch-dropout 0.5 --out x 2>err.txt; grep -q '^--force-patch-dropout  "
                        "*--patch-dropout$' err.txt"),
                     0);
}

/* A locked tower needs a model to start from, keeps its weights, and is part of what is resumed. */
static void test_locked_towers(void **state)
{
    (void)state;
    static const char *const wrong[][2] = {
        {"--config model.json --lock-image", "HINT: --init MODEL"},
        {"--config model.json --lock-text", "HINT: --init MODEL"},
        {"--init to-lock --lock-image-unlocked-groups 1", "--lock-image-unlocked-groups goes with --lock-image"},
        {"--init to-lock --lock-image --lock-text-unlocked-layers 1",
         "--lock-text-unlocked-layers goes with --lock-text"},
        {"--init to-lock --lock-image --lock-image-unlocked-groups -1", "--lock-image-unlocked-groups"},
        {"--init to-lock --lock-text-freeze-layer-norm", "--lock-text-freeze-layer-norm is open_clip"}};
    assert_int_equal(sh(TRAIN "--steps 4 --out to-lock >/dev/null 2>&1"), 0);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char *line = mode_xasprintf("$M train --data '{0..2}.tar' --batch 10 --steps 4 %s --out x 2>err.txt; code=$?; "
                                    "grep -q -e '%s' err.txt && test ! -e x || exit 98; exit $code",
                                    wrong[i][0], wrong[i][1]);
        if (sh(line) != 2) fail_msg("%s", line);
        free(line);
    }
    assert_int_equal(
        sh("L=\"$M train --init to-lock --fresh-optimizer --data {0..2}.tar --batch 10 --seed 5\"; "
           "$L --steps 6 --lock-image --out locked-image >/dev/null 2>err.txt && "
           "grep -q '^locked: image tower: [0-9]* of [0-9]* tensors, [0-9.]* . of the parameters$' err.txt && "
           "grep -q '\"lock_image\": true' locked-image/train.json && "
           "$L --steps 6 --lock-text --lock-text-unlocked-layers 1 --out locked-part >/dev/null 2>err.txt && "
           "grep -q '^locked: text tower but its last layer: ' err.txt && "
           "grep -q '\"lock_text_unlocked_layers\": 1' locked-part/train.json"),
        0);
    /* features of a locked image tower are those of the given model */
    assert_int_equal(
        sh("tar -xf 0.tar -C $(mkdir -p pictures && echo pictures) && "
           "find $PWD/pictures -type f ! -name '*.txt' ! -name '*.json' | sort | head -3 >pictures.txt && "
           "for m in to-lock locked-image locked-part; do $M encode --model $m --images pictures.txt --out $m-features "
           ">/dev/null 2>&1 || exit 1; done; "
           "cmp to-lock-features/image_features.npy locked-image-features/image_features.npy && "
           "! cmp -s to-lock-features/image_features.npy locked-part-features/image_features.npy"),
        0);
    /* from the moments of a locked training only a locked one goes on */
    assert_int_equal(
        sh("$M train --init locked-image --data '{0..2}.tar' --batch 10 --seed 5 --steps 2 --out locked-more "
           "2>err.txt; "
           "code=$?; grep -q 'HINT: lock it here, too' err.txt && test ! -e locked-more || exit 98; exit $code"),
        65);
    assert_int_equal(sh("$M train --init locked-image --data '{0..2}.tar' --batch 10 --seed 5 --steps 2 --lock-image "
                        "--out locked-more "
                        ">/dev/null 2>&1"),
                     0);
}

/* Evaluated during training: the results of `mode evaluate`, and a model of the same bytes. */
static void test_a_training_is_evaluated_on_the_way(void **state)
{
    (void)state;
    free(world_write_task(&world, false));
    free(world_write_task(&world, true));
#define EVALUATED "--tasks colours,pairs --evaluate-steps 3 --tensorboard points "
    assert_int_equal(sh(TRAIN "--steps 8 --out bare >/dev/null 2>&1"), 0);
    assert_int_equal(sh(TRAIN "--steps 8 --out seen " EVALUATED ">out.txt 2>err.txt"), 0);
    assert_int_equal(sh("for f in open_clip_config.json open_clip_model.safetensors optimizer.safetensors steps.jsonl "
                        "train.json; do cmp bare/$f seen/$f || exit 1; done; test ! -e bare/validation.jsonl"),
                     0);
    assert_int_equal(sh("grep -q '^  validation  *[0-9]' err.txt && grep -q '^step 6: colours acc1 0' err.txt &&"
                        "grep -q '^evaluating took .* pairs/s does not count' err.txt"),
                     0);
    assert_int_equal(sh("test \"$(sed 's/.*\"step\": //; s/,.*//' seen/validation.jsonl | tr '\\n' ' ')\" = "
                        "'0 0 3 3 6 6 8 8 '"),
                     0);
    /* of both tasks what `mode evaluate` says of the model, to the last digit */
    assert_int_equal(sh("$M evaluate --model seen colours pairs --json 2>/dev/null | sed 's/.*\"metrics\"://;"
                        "s/,\"language.*//; s/ //g' >said.txt;"
                        "tail -n 2 seen/validation.jsonl | sed 's/.*\"metrics\"://; s/}$//; s/ //g' | cmp - said.txt"),
                     0);
    /* stopped and resumed, it keeps its points */
    assert_int_equal(
        signalled("seen-broken", "--steps 240 --tasks colours,pairs --evaluate-steps 3", "step 6: pairs", "TERM"), 143);
    assert_int_equal(sh("test ! -e seen-broken/validation.jsonl"), 0);
    assert_int_equal(sh(TRAIN "--steps 240 --out seen-broken --tasks colours,pairs --evaluate-steps 3 --resume "
                              ">/dev/null 2>&1"),
                     0);
    assert_int_equal(sh(TRAIN "--steps 240 --out seen-long --tasks colours,pairs --evaluate-steps 3 >/dev/null 2>&1"),
                     0);
    assert_int_equal(sh("cmp seen-long/validation.jsonl seen-broken/validation.jsonl && "
                        "test $(wc -l <seen-long/validation.jsonl) = 162"),
                     0);
    /* a bad task is reported before anything is done */
    assert_int_equal(sh(TRAIN "--steps 8 --out x --tasks colours 2>err.txt"), 2);
    assert_int_equal(sh("grep -q 'both are needed' err.txt"), 0);
    assert_int_equal(sh(TRAIN "--steps 8 --out x --tasks nowhere --evaluate-steps 3 2>err.txt"), 66);
    assert_int_equal(sh("mkdir half && cp -r colours half && : >half/colours/classnames.txt;" TRAIN
                        "--steps 8 --out x --tasks half --evaluate-steps 3 2>err.txt"),
                     65);
    assert_int_equal(sh("grep -q 'half/colours/classnames.txt' err.txt && ! grep -q captions err.txt && test ! -e x"),
                     0);
}

/* Two folders of curves are the same for every step up to `last`, except times and throughput. */
static void expect_same_curve(const char *a, const char *b, uint64_t last)
{
    char *dir[2] = {mode_path_join(world.dir, a), mode_path_join(world.dir, b)};
    struct read_event *e[2];
    size_t n[2];
    for (int i = 0; i < 2; i++) e[i] = reader_load(&n[i], dir[i], ".train");
    assert_int_equal(n[0], last + 2);
    assert_int_equal(n[1], last + 2);
    for (uint64_t s = 1; s <= last; s++) {
        const struct read_event *x = &e[0][s + 1], *y = &e[1][s + 1];
        assert_int_equal(x->step, s);
        assert_int_equal(y->step, s);
        for (const char **tag = (const char *[]){"train/loss", "train/lr", "train/scale", NULL}; *tag; tag++)
            assert_true(*reader_value_of(x, *tag) == *reader_value_of(y, *tag));
        assert_true(*reader_value_of(y, "train/samples_per_second") > 0);
    }
    for (int i = 0; i < 2; i++) {
        free(dir[i]);
        free(e[i]);
    }
}

static void test_a_killed_training_s_curve_goes_on(void **state)
{
    (void)state;
    assert_int_equal(sh(TRAIN "--steps 200 --out even --tensorboard curves/even >/dev/null 2>&1"), 0);
    /* a folder is for one training; an error says so before anything is done */
    assert_int_equal(sh(TRAIN "--steps 200 --out late --tensorboard curves/even 2>err.txt"), 73);
    assert_int_equal(sh("test ! -e late && grep -q 'curves/even: holds event files already' err.txt"), 0);
    /* killed between two checkpoints, repeatedly: steps are repeated; all of it again if it had finished before the
     * kill */
    int code = 0, kills = 0;
    for (int tries = 0; tries < 8 && code == 0; tries++)
        for (kills = 0; kills < 3 && (!kills || code == 137); kills++) {
            setenv("RESUME", kills ? "--resume" : "", 1);
            if (!kills) sh("rm -rf hit curves/hit");
            code = sh("rm -f mark; test -e hit/checkpoints/latest && cp hit/checkpoints/latest mark;" TRAIN
                      "--steps 200 --checkpoint-steps 30 --out hit --tensorboard curves/hit $RESUME >/dev/null"
                      " 2>&1 & p=$!;"
                      "for i in $(seq 6000); do test -e hit/checkpoints/latest &&"
                      " ! cmp -s hit/checkpoints/latest mark && break;"
                      "test -e hit/open_clip_model.safetensors && break; sleep 0.005; done;"
                      "sleep 0.03; kill -KILL $p; wait $p");
        }
    assert_int_equal(code, 137);
    assert_int_equal(kills, 3);
    assert_int_equal(sh(TRAIN "--steps 200 --out hit --tensorboard curves/hit --resume >/dev/null 2>err.txt"), 0);
    expect_same_curve("curves/even", "curves/hit", 200);
    assert_int_equal(sh("cmp even/open_clip_model.safetensors hit/open_clip_model.safetensors && cmp even/steps.jsonl "
                        "hit/steps.jsonl"),
                     0);
}

static void test_wrong_command_lines(void **state)
{
    (void)state;
    assert_int_equal(sh("$M train --steps 1 2>/dev/null"), 2);
    assert_int_equal(sh("$M train --help >help.txt && grep -q MODE_CLIP_MERGES help.txt"), 0);
    assert_int_equal(sh("$M encode --help >/dev/null && $M evaluate --help >/dev/null"), 0);
    assert_int_equal(sh("$M encode --model nowhere --texts x --out y 2>/dev/null"), 66);
    assert_int_equal(sh("$M evaluate --model model --task nowhere 2>/dev/null"), 66);
    assert_int_equal(sh(TRAIN "--steps 1 --out x --bogus 2>/dev/null"), 2);
    assert_int_equal(sh(TRAIN "--steps 3 --out x 2>err.txt"), 2); /* it would be warming up to the end */
    assert_int_equal(sh("grep -q -- '--warmup 3: the schedule has 3 steps' err.txt"), 0);
    assert_int_equal(sh("MODE_WARMUP=9 $M train --config model.json --data 0.tar --steps 9 --out x 2>err.txt"), 78);
    assert_int_equal(sh("$M train --config ViT-Z-99 --data 0.tar --steps 1 --out x 2>/dev/null"), 2);
    assert_int_equal(sh("test ! -e x && test ! -e y"), 0);
}

/* If samples are missing, the message says what became of them. */
static void test_samples_that_are_not_taken_are_named(void **state)
{
    (void)state;
    assert_int_equal(sh(TRAIN "--steps 4 --out none --text-keys json:nothing 2>err.txt"), 65);
    assert_int_equal(
        sh("grep -q 'no pair to train on: [0-9]* samples, .*no_caption.*--text-keys json:nothing.*HINT: captions "
           "are looked for .*separated by .;.* JSON fields' err.txt && test ! -e none"),
        0);
    assert_int_equal(sh("head -c 20000 0.tar >cut.tar; $M train --config model.json --data cut.tar --batch 2 --steps 1 "
                        "--out cut-model 2>err.txt >out.txt && grep -q 'captions: .* pairs of .* samples; not taken: "
                        ".*1 truncated' err.txt"),
                     0);
    assert_int_equal(sh("$M captions 0.tar --out cap --text-keys json:nothing >out.txt 2>err.txt && grep -q 'no "
                        "sample is a pair' err.txt"),
                     0);
}

/* For open_clip's options the error names ours, all at once. */
static void test_open_clips_options_are_translated(void **state)
{
    (void)state;
    assert_int_equal(sh("$M train --train-data 0.tar --model ViT-B-32 --batch-size=64 --lr 1e-3 --local-loss --out x "
                        "2>err.txt"),
                     2);
    assert_int_equal(sh("grep -q '^--train-data  *--data$' err.txt && grep -q '^--model  *--config$' err.txt && "
                        "grep -q '^--batch-size  *--batch, the global batch$' err.txt && "
                        "grep -q '^--local-loss  *left out' err.txt && ! grep -q '^--lr' err.txt && "
                        "grep -q -- '--train-data is open_clip.s;.*docs/FROM_OPEN_CLIP.md' err.txt"),
                     0);
    assert_int_equal(sh("$M train --lr-scheduler const-cooldown --epochs-cooldown 4 --lr-cooldown-end 1e-6 --out x "
                        "2>err.txt"),
                     2);
    assert_int_equal(sh("grep -q '^--lr-scheduler  *--schedule: ' err.txt && grep -q '^--epochs-cooldown  "
                        "*--cooldown-steps: ' err.txt && grep -q '^--lr-cooldown-end  *--cooldown-end$' err.txt"),
                     0);
    assert_int_equal(sh("$M train --datta 0.tar 2>err.txt"), 2);
    assert_int_equal(sh("grep -q 'is --data meant' err.txt && test $(wc -l <err.txt) = 1"), 0);
    assert_int_equal(sh("$M trian 2>err.txt"), 2);
    assert_int_equal(sh("grep -q 'is \"train\" meant' err.txt"), 0);
}

/* A file of weights works like the folder that contains it, if --config gives its architecture. */
static void test_a_training_begins_from_a_file_of_weights(void **state)
{
    (void)state;
    assert_int_equal(sh(TRAIN "--steps 4 --out source >/dev/null 2>&1"), 0);
    assert_int_equal(sh("cp source/open_clip_model.safetensors w.safetensors"), 0);
#define FROM "$M train --data '{0..2}.tar' --batch 10 --warmup 3 --seed 5 --steps 8 "
    assert_int_equal(sh(FROM "--init source --fresh-optimizer --out of-folder >/dev/null 2>&1"), 0);
    assert_int_equal(sh(FROM "--init w.safetensors --config model.json --out of-file >/dev/null 2>err.txt"), 0);
    assert_int_equal(sh("cmp of-folder/open_clip_model.safetensors of-file/open_clip_model.safetensors && "
                        "cmp of-folder/steps.jsonl of-file/steps.jsonl"),
                     0);
    assert_int_equal(sh(FROM "--init w.safetensors --out x 2>err.txt"), 2);
    assert_int_equal(sh("grep -q 'w.safetensors is a file of weights.*--config MODEL' err.txt"), 0);
    assert_int_equal(sh(FROM "--init source --config model.json --out x 2>err.txt"), 2);
    assert_int_equal(sh("grep -q 'a folder says itself what model it is' err.txt"), 0);
    assert_int_equal(sh(FROM "--init laion2b_s34b_b79k --config model.json --out x 2>err.txt"), 66);
    assert_int_equal(sh("grep -q 'open_clip.s tags.*hf-hub:' err.txt && test ! -e x"), 0);
    assert_int_equal(sh("$M evaluate --model w.safetensors --task nowhere 2>err.txt"), 66);
#undef FROM
}

/* The most common mistakes each get a hint. */
static void test_refusals_say_the_way_out(void **state)
{
    (void)state;
    assert_int_equal(sh("mkdir gz && gzip -c 0.tar >gz/0.tar.gz; printf '<!DOCTYPE html>' >page.tar; printf 'version "
                        "https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n' >lfs.tar"),
                     0);
#define ON(data) "$M train --config model.json --steps 1 --batch 10 --out x --data " data " 2>err.txt"
    assert_int_equal(sh(ON("gz")), 66);
    assert_int_equal(
        sh("grep -q 'gz: contains no shard .*HINT: for compressed ones give a pattern, gz/\\*.tar.gz' err.txt"), 0);
    assert_int_equal(sh(ON("'gz/*.tar.gz'") " >out.txt && rm -r x"), 0);
    assert_int_equal(sh("mkdir mixed && cp 0.tar gz/0.tar.gz mixed/"), 0);
    assert_int_equal(sh(ON("mixed")), 78);
    assert_int_equal(sh("grep -q 'mixed: holds plain tars and compressed ones (mixed/\\*.tar.gz).*HINT: ' err.txt"), 0);
    assert_int_equal(sh(ON("'mixed/*.tar'") " >out.txt && rm -r x"), 0);
    assert_int_equal(sh(ON("page.tar")), 65);
    assert_int_equal(sh("grep -q 'page.tar: is not a tar.*HINT: a web page' err.txt"), 0);
    assert_int_equal(sh(ON("lfs.tar")), 65);
    assert_int_equal(sh("grep -q 'lfs.tar: is a Git LFS pointer.*git lfs pull' err.txt"), 0);
    assert_int_equal(sh(ON("nowhere")), 66);
    assert_int_equal(sh("grep -q '^mode train: nowhere: cannot be opened' err.txt"), 0);
#undef ON
    assert_int_equal(sh("$M train --config ViT-B-23 --data 0.tar --steps 1 --out x 2>err.txt"), 2);
    assert_int_equal(sh("grep -q 'is ViT-B-32 meant' err.txt"), 0);
    assert_int_equal(sh("$M train --config ViT-B/32-quickgelu --data nowhere --steps 1 --out x 2>err.txt"), 66);
    assert_int_equal(sh("mkdir -p many/a/test many/b/test && echo 1 | tee many/a/test/nshards.txt "
                        ">many/b/test/nshards.txt; $M evaluate --model . --task many 2>err.txt"),
                     66);
    assert_int_equal(sh("grep -q 'many: is not a task, but a folder of 2 tasks. HINT: name them, many/' err.txt"), 0);
    assert_int_equal(sh("mkdir -p lists && : >here.jpg && printf 'here.jpg\ta\n' >lists/l.tsv && printf "
                        "'image,caption\nhere.jpg,a\n' >l.csv; $M pack --pairs lists/l.tsv --out x 2>err.txt"),
                     66);
    assert_int_equal(sh("grep -q 'l.tsv, line 1, which is not a header' err.txt"), 0);
    assert_int_equal(sh("printf 'filepath\ttitle\nhere.jpg\ta\n' >lists/l.tsv; $M pack --pairs lists/l.tsv --out x "
                        "2>err.txt"),
                     66);
    assert_int_equal(sh("grep -q 'l.tsv, line 2, whose paths start at the list.s folder' err.txt"), 0);
    assert_int_equal(sh("$M pack --pairs l.csv --csv-separator , --out x 2>err.txt"), 66);
    assert_int_equal(sh("grep -q 'l.csv, line 1, which is not a header' err.txt && test ! -e x"), 0);
}

/* A failure leaves the output folder as it was; an unusable output is found before any work. */
static void test_failures_leave_nothing(void **state)
{
    (void)state;
    assert_int_equal(sh(TRAIN "--steps 4 --out new/a --batch 200 >/dev/null 2>err.txt"), 65); /* after the captions */
    assert_int_equal(sh("grep -q 'needs as many pairs' err.txt && test ! -e new"), 0);
    assert_int_equal(
        sh("mkdir mine && echo x >mine/steps.jsonl; " TRAIN "--steps 4 --out mine --batch 200 >/dev/null 2>&1"), 65);
    assert_int_equal(sh("test \"$(ls mine)\" = steps.jsonl"), 0);
    assert_int_equal(sh(TRAIN "--steps 4 --out new --log no/log >out.txt 2>err.txt"), 73);
    assert_int_equal(sh("grep -q 'no/log: cannot be created' err.txt && ! grep -q captions err.txt && test ! -e new"),
                     0);
    assert_int_equal(sh(TRAIN "--steps 4 --out new --resume 2>err.txt"), 66);
    assert_int_equal(sh("grep -q -- '--resume: new' err.txt && test ! -e new"), 0);
    /* killed during caption extraction, it starts over */
    assert_int_equal(
        sh("mkdir -p killed/captions killed/checkpoints/step-0000000001 && echo x >killed/captions/0000.bin; " TRAIN
           "--steps 4 --out killed >/dev/null 2>&1 && test ! -e killed/checkpoints"),
        0);
}

static bool gpu_is_here(void)
{
    struct mode_backend *be = NULL;
    const bool here = mode_backend_open(&be, "cuda", NULL) == MODE_OK;
    mode_backend_close(&be);
    return here;
}

/* Several processes, as far as testable without a GPU: which are refused, and that none hangs. */
static void test_several_processes(void **state)
{
    (void)state;
    assert_int_equal(sh(TRAIN "--steps 4 --out r --ranks 2 2>err.txt"), 2);
    assert_int_equal(sh("grep -q 'needs --rank from 0 to 1' err.txt"), 0);
    assert_int_equal(sh(TRAIN "--steps 4 --out r --rank 0 2>err.txt"), 2);
    assert_int_equal(sh(TRAIN "--steps 4 --out r --ranks 2 --rank 0 --rendezvous ./m --backend cpu 2>err.txt"), 2);
    assert_int_equal(sh("grep -q 'on GPUs only' err.txt"), 0);
    assert_int_equal(sh("export WORLD_SIZE=2 RANK=1; " TRAIN "--steps 4 --out r 2>err.txt"), 78);
    assert_int_equal(sh("grep -q 'MASTER_PORT is not set' err.txt"), 0);
    assert_int_equal(sh(TRAIN "--steps 4 --out r --ranks 2 --rank 0 --rendezvous m 2>err.txt"), 2);
    assert_int_equal(sh("grep -q 'neither a socket file' err.txt"), 0);
    assert_int_equal(sh(TRAIN "--steps 4 --out r --ranks 257 --rank 0 --rendezvous ./m 2>err.txt"), 2);
    assert_int_equal(sh("grep -q '257 is out of range, expected 0 to 256' err.txt"), 0);
    /* without a GPU it fails at once, also for those that wait for this process (tests/cuda/train_ranks.sh) */
    for (const char **env =
             (const char *[]){"true", "export WORLD_SIZE=2 RANK=1 MASTER_ADDR=127.0.0.1 MASTER_PORT=9", NULL};
         *env; env++) {
        if (gpu_is_here()) continue;
        char *line = mode_xasprintf("%s; " TRAIN "--steps 4 --out r %s 2>err.txt", *env,
                                    **env == 't' ? "--ranks 2 --rank 0 --rendezvous ./m" : "");
        time_t began = time(NULL);
        assert_int_equal(sh(line), 70);
        assert_true(time(NULL) - began < 200); /* others are waited for longer */
        assert_int_equal(sh("grep -q 'backend \"cuda\"' err.txt && test ! -e r"), 0);
        free(line);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_train_encode_evaluate),
        cmocka_unit_test(test_probe),
        cmocka_unit_test(test_going_on_from_a_trained_model),
        cmocka_unit_test(test_schedules),
        cmocka_unit_test(test_a_terminated_training_resumes_to_the_same_bytes),
        cmocka_unit_test(test_samples_that_are_not_taken_are_named),
        cmocka_unit_test(test_open_clips_options_are_translated),
        cmocka_unit_test(test_a_training_begins_from_a_file_of_weights),
        cmocka_unit_test(test_refusals_say_the_way_out),
        cmocka_unit_test(test_a_killed_training_s_curve_goes_on),
        cmocka_unit_test(test_a_training_is_evaluated_on_the_way),
        cmocka_unit_test(test_patch_dropout),
        cmocka_unit_test(test_locked_towers),
        cmocka_unit_test(test_wrong_command_lines),
        cmocka_unit_test(test_failures_leave_nothing),
        cmocka_unit_test(test_several_processes),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
