#include "open_clip_names.h"

#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Options of open_clip_train 3.3.0 with another name or meaning here; docs/FROM_OPEN_CLIP.md has the reasons. * matches
 * any suffix. */
static const struct {
    const char *theirs, *here;
} names[] = {{"train-data", "--data"},
             {"train-num-samples", "left out: pairs are counted"},
             {"train-data-upsampling-factors", "not supported: a pair is seen once per epoch"},
             {"dataset-resampled", "left out: an epoch sees every pair once"},
             {"dataset-type", "left out; `mode pack --pairs` makes shards of a CSV"},
             {"csv-*", "an option of `mode pack --pairs`, which makes shards of a CSV"},
             {"val-*", "not supported; --tasks DIR, a retrieval task of held-out pairs (`mode pack --task`)"},
             {"imagenet-*", "--tasks DIR (`mode pack --task` makes one of class folders)"},
             {"zeroshot-frequency", "--evaluate-steps N"},
             {"model", "--config"},
             {"pretrained", "--init MODEL: a folder, hf-hub:ORG/NAME, or a file with --config"},
             {"force-quick-gelu", "--config NAME-quickgelu"},
             {"image-*", "preprocess_cfg in the JSON file of --config"},
             {"batch-size", "--batch, the global batch"},
             {"accum-freq", "--accumulate, pieces of the batch"},
             {"epochs", "--steps: epochs * pairs / batch"},
             {"wd", "--weight-decay"},
             {"precision", "--backend: cuda-bf16 for amp_bf16, cuda for fp32"},
             {"workers", "--threads"},
             {"aug-cfg", "--scale-min, --scale-max"},
             {"grad-checkpointing", "--checkpoint-activations, rarely needed"},
             {"save-*", "--checkpoint-steps N"},
             {"delete-previous-checkpoint", "left out: always on"},
             {"report-to", "--tensorboard DIR"},
             {"logs", "--out"},
             {"name", "--out"},
             {"log-every-n-steps", "left out: every step is in steps.jsonl"},
             {"log-local", "left out"},
             {"local-loss", "left out: always on"},
             {"gather-with-grad", "left out: always on"},
             {"dist-*", "left out: torchrun's variables, or --ranks, --rank, --rendezvous"},
             {"ddp-static-graph", "left out"},
             {"torchcompile", "left out: not needed"},
             {"torchscript", "left out: not needed"},
             {"trace", "left out: not needed"},
             {"cache-dir", "MODE_CACHE in the environment"},
             {"lr-scheduler", "--schedule: const is constant, const-cooldown is constant_cooldown"},
             {"skip-scheduler", "--schedule constant --warmup 0"},
             {"epochs-cooldown", "--cooldown-steps: epochs * pairs / batch"},
             {"lr-cooldown-power", "--cooldown-power"},
             {"lr-cooldown-end", "--cooldown-end"},
             {"opt", "left out: always AdamW"},
             {"momentum", "left out: always AdamW"}};

static const char *here(const char *name, size_t n)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *theirs = names[i].theirs;
        const size_t k = strlen(theirs);
        if (theirs[k - 1] == '*' ? n >= k - 1 && strncmp(name, theirs, k - 1) == 0
                                 : n == k && strncmp(name, theirs, n) == 0)
            return names[i].here;
    }
    return NULL;
}

/* The name, and its length, of an argument that is an open_clip option and not in the table; NULL otherwise. */
static const char *of_theirs(size_t *n, const struct mode_option *table, const char *arg)
{
    if (strncmp(arg, "--", 2) != 0) return NULL;
    *n = strcspn(arg + 2, "=");
    for (; table->type != MODE_OPTION_END; table++)
        if (strlen(table->name) == *n && strncmp(table->name, arg + 2, *n) == 0) return NULL;
    return here(arg + 2, *n) ? arg + 2 : NULL;
}

enum mode_status open_clip_names(enum mode_status st, const struct mode_option *table, int argc, char **argv,
                                 struct mode_error *err)
{
    static const char refusal[] = "unknown option --";
    size_t n;
    if (st != MODE_E_USAGE || strncmp(err->text, refusal, sizeof refusal - 1) != 0) return st;
    char *first = mode_xasprintf("%.*s", (int)strcspn(err->text + sizeof refusal - 1, "=;"),
                                 err->text + sizeof refusal - 1);
    if (here(first, strlen(first))) {
        for (int i = 1; i < argc; i++) {
            const char *name = of_theirs(&n, table, argv[i]);
            if (name) fprintf(stderr, "--%-*.*s %s\n", 29, (int)n, name, here(name, n));
        }
        MODE_FAIL(err, st, "--%s is open_clip's; the lines above say what it is here (all: docs/FROM_OPEN_CLIP.md)",
                  first);
    }
    free(first);
    return st;
}
