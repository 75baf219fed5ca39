#include "open_clip_names.h"

#include "base/str.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* clang-format off */
#define LEFT_OUT "left out: not needed"
#define NO       "not supported"
static const struct open_clip_name names[] = {
    {"train-data", OPEN_CLIP_ONE, OPEN_CLIP_RULE, NULL, NULL, "--data"},
    {"train-data-upsampling-factors", OPEN_CLIP_ONE, OPEN_CLIP_UNSUPPORTED, "every pair is seen once per epoch", NULL, "not supported: a pair is seen once per epoch"},
    {"val-data", OPEN_CLIP_ONE, OPEN_CLIP_RULE, NULL, NULL, "not supported; --tasks DIR, a retrieval task of held-out pairs (`mode pack --task`)"},
    {"train-num-samples", OPEN_CLIP_ONE, OPEN_CLIP_RULE, "pairs are counted", NULL, "left out: pairs are counted"},
    {"val-num-samples", OPEN_CLIP_ONE, OPEN_CLIP_NOT_NEEDED, "a task counts its images", NULL, LEFT_OUT},
    {"dataset-type", OPEN_CLIP_ONE, OPEN_CLIP_RULE, "see data.train", NULL, "left out; `mode pack --pairs` makes shards of a CSV"},
    {"dataset-resampled", OPEN_CLIP_FLAG, OPEN_CLIP_RULE, NULL, NULL, "left out: an epoch sees every pair once"},
    {"csv-separator", OPEN_CLIP_ONE, OPEN_CLIP_RULE, "the data are shards", NULL, "an option of `mode pack --pairs`, which makes shards of a CSV"},
    {"csv-img-key", OPEN_CLIP_ONE, OPEN_CLIP_RULE, "the data are shards", NULL, "an option of `mode pack --pairs`, which makes shards of a CSV"},
    {"csv-caption-key", OPEN_CLIP_ONE, OPEN_CLIP_RULE, "the data are shards", NULL, "an option of `mode pack --pairs`, which makes shards of a CSV"},
    {"imagenet-val", OPEN_CLIP_ONE, OPEN_CLIP_RULE, NULL, NULL, "--tasks DIR (`mode pack --task` makes one of class folders)"},
    {"imagenet-v2", OPEN_CLIP_ONE, OPEN_CLIP_RULE, NULL, NULL, "--tasks DIR (`mode pack --task` makes one of class folders)"},
    {"cache-dir", OPEN_CLIP_ONE, OPEN_CLIP_NOT_NEEDED, "downloads are kept in $MODE_CACHE", NULL, "MODE_CACHE in the environment"},
    {"logs", OPEN_CLIP_ONE, OPEN_CLIP_NOT_NEEDED, "everything is in the workspace", NULL, "--out"},
    {"log-local", OPEN_CLIP_FLAG, OPEN_CLIP_NOT_NEEDED, "every process has a log", NULL, "left out"},
    {"name", OPEN_CLIP_ONE, OPEN_CLIP_RULE, NULL, NULL, "--out"},
    {"workers", OPEN_CLIP_ONE, OPEN_CLIP_NOT_NEEDED, "decoding uses all processors", NULL, "--threads"},
    {"batch-size", OPEN_CLIP_ONE, OPEN_CLIP_RULE, NULL, NULL, "--batch, the global batch"},
    {"epochs", OPEN_CLIP_ONE, OPEN_CLIP_RULE, NULL, NULL, "--steps: epochs * pairs / batch"},
    {"epochs-cooldown", OPEN_CLIP_ONE, OPEN_CLIP_EPOCHS, "train.cooldown_steps", NULL, "--cooldown-steps: epochs * pairs / batch"},
    {"lr", OPEN_CLIP_ONE, OPEN_CLIP_KEY, "train.lr", "5e-4", NULL},
    {"beta1", OPEN_CLIP_ONE, OPEN_CLIP_KEY, "train.beta1", "0.9", NULL},
    {"beta2", OPEN_CLIP_ONE, OPEN_CLIP_KEY, "train.beta2", "0.98", NULL},
    {"eps", OPEN_CLIP_ONE, OPEN_CLIP_KEY, "train.eps", "1e-6", NULL},
    {"wd", OPEN_CLIP_ONE, OPEN_CLIP_KEY, "train.weight_decay", "0.2", "--weight-decay"},
    {"momentum", OPEN_CLIP_ONE, OPEN_CLIP_UNSUPPORTED, "the optimizer is AdamW", NULL, "left out: always AdamW"},
    {"warmup", OPEN_CLIP_ONE, OPEN_CLIP_RULE, NULL, NULL, NULL},
    {"opt", OPEN_CLIP_ONE, OPEN_CLIP_UNSUPPORTED, "the optimizer is AdamW", "adamw", "left out: always AdamW"},
    {"use-bn-sync", OPEN_CLIP_FLAG, OPEN_CLIP_NOT_NEEDED, "ViTs have no batch norm", NULL, LEFT_OUT},
    {"skip-scheduler", OPEN_CLIP_FLAG, OPEN_CLIP_UNSUPPORTED, "the same: train.schedule: constant, train.warmup_steps: 0", NULL, "--schedule constant --warmup 0"},
    {"lr-scheduler", OPEN_CLIP_ONE, OPEN_CLIP_KEY, "train.schedule", NULL, "--schedule: const is constant, const-cooldown is constant_cooldown"},
    {"lr-cooldown-end", OPEN_CLIP_ONE, OPEN_CLIP_KEY, "train.cooldown_end", NULL, "--cooldown-end"},
    {"lr-cooldown-power", OPEN_CLIP_ONE, OPEN_CLIP_KEY, "train.cooldown_power", NULL, "--cooldown-power"},
    {"save-frequency", OPEN_CLIP_ONE, OPEN_CLIP_NOT_NEEDED, "train.checkpoint_steps: by default every 200 steps", NULL, "--checkpoint-steps N"},
    {"save-most-recent", OPEN_CLIP_FLAG, OPEN_CLIP_NOT_NEEDED, "always on", NULL, "left out: always on"},
    {"zeroshot-frequency", OPEN_CLIP_ONE, OPEN_CLIP_RULE, NULL, NULL, "--evaluate-steps N"},
    {"val-frequency", OPEN_CLIP_ONE, OPEN_CLIP_RULE, NULL, NULL, "--evaluate-steps N"},
    {"resume", OPEN_CLIP_ONE, OPEN_CLIP_RULE, NULL, NULL, "--resume, or --init FILE"},
    {"precision", OPEN_CLIP_ONE, OPEN_CLIP_RULE, NULL, NULL, "--backend: cuda-bf16 for amp_bf16, cuda for fp32"},
    {"model", OPEN_CLIP_ONE, OPEN_CLIP_RULE, NULL, NULL, "--config"},
    {"pretrained", OPEN_CLIP_ONE, OPEN_CLIP_RULE, NULL, NULL, "--init MODEL: a folder, hf-hub:ORG/NAME, or a file with --config"},
    {"pretrained-image", OPEN_CLIP_FLAG, OPEN_CLIP_UNSUPPORTED, "there are no timm towers", NULL, NO},
    {"lock-image", OPEN_CLIP_FLAG, OPEN_CLIP_RULE, NULL, NULL, NULL},
    {"lock-image-unlocked-groups", OPEN_CLIP_ONE, OPEN_CLIP_RULE, NULL, NULL, NULL},
    {"lock-image-freeze-bn-stats", OPEN_CLIP_FLAG, OPEN_CLIP_NOT_NEEDED, "ViTs have no batch norm", NULL, LEFT_OUT},
    {"image-mean", OPEN_CLIP_MANY, OPEN_CLIP_RULE, NULL, NULL, "preprocess_cfg in the JSON file of --config"},
    {"image-std", OPEN_CLIP_MANY, OPEN_CLIP_RULE, NULL, NULL, "preprocess_cfg in the JSON file of --config"},
    {"image-interpolation", OPEN_CLIP_ONE, OPEN_CLIP_RULE, NULL, NULL, "preprocess_cfg in the JSON file of --config"},
    {"image-resize-mode", OPEN_CLIP_ONE, OPEN_CLIP_RULE, NULL, NULL, "preprocess_cfg in the JSON file of --config"},
    {"aug-cfg", OPEN_CLIP_MANY, OPEN_CLIP_RULE, NULL, NULL, "--scale-min, --scale-max"},
    {"grad-checkpointing", OPEN_CLIP_FLAG, OPEN_CLIP_KEY, "train.checkpoint_activations", "true", "--checkpoint-activations, rarely needed"},
    {"local-loss", OPEN_CLIP_FLAG, OPEN_CLIP_NOT_NEEDED, "always on", NULL, "left out: always on"},
    {"gather-with-grad", OPEN_CLIP_FLAG, OPEN_CLIP_NOT_NEEDED, "always on", NULL, "left out: always on"},
    {"force-context-length", OPEN_CLIP_ONE, OPEN_CLIP_RULE, NULL, NULL, "text_cfg in the JSON file of --config"},
    {"force-image-size", OPEN_CLIP_MANY, OPEN_CLIP_RULE, NULL, NULL, "vision_cfg in the JSON file of --config"},
    {"force-quick-gelu", OPEN_CLIP_FLAG, OPEN_CLIP_RULE, NULL, NULL, "--config NAME-quickgelu"},
    {"force-patch-dropout", OPEN_CLIP_ONE, OPEN_CLIP_KEY, "train.patch_dropout", NULL, "--patch-dropout"},
    {"force-custom-text", OPEN_CLIP_FLAG, OPEN_CLIP_NOT_NEEDED, "it changes the parameters' names only", NULL, LEFT_OUT},
    {"torchscript", OPEN_CLIP_FLAG, OPEN_CLIP_NOT_NEEDED, "there is nothing to compile", NULL, LEFT_OUT},
    {"torchcompile", OPEN_CLIP_FLAG, OPEN_CLIP_NOT_NEEDED, "there is nothing to compile", NULL, LEFT_OUT},
    {"trace", OPEN_CLIP_FLAG, OPEN_CLIP_NOT_NEEDED, "there is nothing to compile", NULL, LEFT_OUT},
    {"accum-freq", OPEN_CLIP_ONE, OPEN_CLIP_RULE, NULL, NULL, "--accumulate, pieces of the batch"},
    {"device", OPEN_CLIP_ONE, OPEN_CLIP_RULE, "workers use a GPU if there is one", NULL, NULL},
    {"dist-url", OPEN_CLIP_ONE, OPEN_CLIP_NOT_NEEDED, "`mode up` starts the processes", NULL, "left out: torchrun's variables, or --ranks, --rank, --rendezvous"},
    {"dist-backend", OPEN_CLIP_ONE, OPEN_CLIP_NOT_NEEDED, "`mode up` starts the processes", NULL, "left out: torchrun's variables, or --ranks, --rank, --rendezvous"},
    {"report-to", OPEN_CLIP_ONE, OPEN_CLIP_RULE, "TensorBoard's files are always written", NULL, "--tensorboard DIR"},
    {"wandb-notes", OPEN_CLIP_ONE, OPEN_CLIP_UNSUPPORTED, "curves: TensorBoard", NULL, NO},
    {"wandb-project-name", OPEN_CLIP_ONE, OPEN_CLIP_UNSUPPORTED, "curves: TensorBoard", NULL, NO},
    {"debug", OPEN_CLIP_FLAG, OPEN_CLIP_NOT_NEEDED, "MODE_LOG_LEVEL=debug", NULL, "MODE_LOG_LEVEL=debug in the environment"},
    {"copy-codebase", OPEN_CLIP_FLAG, OPEN_CLIP_NOT_NEEDED, "keys contain the services' versions", NULL, LEFT_OUT},
    {"horovod", OPEN_CLIP_FLAG, OPEN_CLIP_NOT_NEEDED, "`mode up` starts the processes", NULL, LEFT_OUT},
    {"ddp-static-graph", OPEN_CLIP_FLAG, OPEN_CLIP_NOT_NEEDED, "there is no DDP", NULL, "left out"},
    {"no-set-device-rank", OPEN_CLIP_FLAG, OPEN_CLIP_NOT_NEEDED, "`mode up` starts the processes", NULL, LEFT_OUT},
    {"seed", OPEN_CLIP_ONE, OPEN_CLIP_KEY, "seed", NULL, NULL},
    {"grad-clip-norm", OPEN_CLIP_ONE, OPEN_CLIP_KEY, "train.grad_clip_norm", NULL, NULL},
    {"lock-text", OPEN_CLIP_FLAG, OPEN_CLIP_RULE, NULL, NULL, NULL},
    {"lock-text-unlocked-layers", OPEN_CLIP_ONE, OPEN_CLIP_RULE, NULL, NULL, NULL},
    {"lock-text-freeze-layer-norm", OPEN_CLIP_FLAG, OPEN_CLIP_NOT_NEEDED, "LayerNorms are locked with their layers", NULL, "left out: LayerNorms are locked with their layers"},
    {"log-every-n-steps", OPEN_CLIP_ONE, OPEN_CLIP_NOT_NEEDED, "every step is recorded", NULL, "left out: every step is in steps.jsonl"},
    {"coca-caption-loss-weight", OPEN_CLIP_ONE, OPEN_CLIP_UNSUPPORTED, "there is no CoCa", NULL, NO},
    {"coca-contrastive-loss-weight", OPEN_CLIP_ONE, OPEN_CLIP_UNSUPPORTED, "there is no CoCa", NULL, NO},
    {"remote-sync", OPEN_CLIP_ONE, OPEN_CLIP_UNSUPPORTED, "copy the workspace: its committed files never change", NULL, NO},
    {"remote-sync-frequency", OPEN_CLIP_ONE, OPEN_CLIP_UNSUPPORTED, "copy the workspace: its committed files never change", NULL, NO},
    {"remote-sync-protocol", OPEN_CLIP_ONE, OPEN_CLIP_UNSUPPORTED, "copy the workspace: its committed files never change", NULL, NO},
    {"delete-previous-checkpoint", OPEN_CLIP_FLAG, OPEN_CLIP_NOT_NEEDED, "always on", NULL, "left out: always on"},
    {"distill-model", OPEN_CLIP_ONE, OPEN_CLIP_UNSUPPORTED, "there is no distillation", NULL, NO},
    {"distill-pretrained", OPEN_CLIP_ONE, OPEN_CLIP_UNSUPPORTED, "there is no distillation", NULL, NO},
    {"use-bnb-linear", OPEN_CLIP_ONE, OPEN_CLIP_UNSUPPORTED, "there is no int8", NULL, NO},
    {"siglip", OPEN_CLIP_FLAG, OPEN_CLIP_UNSUPPORTED, "the loss is CLIP's", NULL, NO},
    {"loss-dist-impl", OPEN_CLIP_ONE, OPEN_CLIP_UNSUPPORTED, "it is for SigLIP's loss", NULL, NO}};
/* clang-format on */
enum { N_NAMES = sizeof names / sizeof *names };

const struct open_clip_name *open_clip_name(size_t i)
{
    return i < N_NAMES ? &names[i] : NULL;
}

const struct open_clip_name *open_clip_name_find(const char *name, size_t n)
{
    const struct open_clip_name *found = NULL;
    bool several = false;
    for (size_t i = 0; i < N_NAMES; i++) {
        if (strncmp(names[i].name, name, n) != 0) continue;
        if (!names[i].name[n]) return &names[i];
        several = found != NULL;
        found = &names[i];
    }
    return n && !several ? found : NULL;
}

/* What an option of open_clip is in `mode train`; NULL: it is none, or the same. */
static const char *here(const char *name, size_t n)
{
    const struct open_clip_name *row = open_clip_name_find(name, n);
    return row && strlen(row->name) == n ? row->train : NULL;
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
