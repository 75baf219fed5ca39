/* mode train - trains a CLIP on shards, without services. */
#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/options.h"
#include "base/output.h"
#include "base/parallel.h"
#include "base/str.h"
#include "data/tokenizer.h"
#include "dist/ranks.h"
#include "ensemble/selection.h"
#include "fetching.h"
#include "hub.h"
#include "interrupt.h"
#include "lock_option.h"
#include "merges.h"
#include "nn/backend.h"
#include "open_clip_names.h"
#include "optim/schedule.h"
#include "pipeline/checkpoint.h"
#include "pipeline/defaults.h"
#include "pipeline/given.h"
#include "pipeline/model_config.h"
#include "pipeline/spec.h"
#include "pipeline/train.h"
#include "pipeline/validation.h"
#include "ranges.h"
#include "ranks_option.h"
#include "train_captions.h"
#include "verb.h"

#include <errno.h>
#include <glob.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct options {
    struct backend_options backend;
    struct ranks_options ranks;
    struct train_captions_options captions;
    struct lock_options lock;
    const char *init, *config, *data, *merges, *log, *tensorboard, *out, *memory, *algorithms, *steps, *warmup, *tasks,
        *order, *window, *selection, *assign, *out_ratio, *schedule, *cooldown_steps, *cooldown_power, *cooldown_end,
        *patch_dropout;
    int64_t batch, total_steps, seed, checkpoint_steps, evaluate_steps, threads;
    int64_t accumulate;
    double lr, beta1, beta2, eps, weight_decay, scale_min, scale_max, grad_clip_norm;
    bool resume, fresh_optimizer, checkpoint_activations, dense_tokens, full_last_block, no_graphs, no_streams, measure,
        json;
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct options, config, "config", NULL, "MODEL", "new model: ViT-B-32, ... or an open_clip JSON file"),
    MODE_OPT_STR(struct options, init, "init", NULL, "MODEL",
                 "start from this folder (open_clip's or Hugging Face's), with its optimizer state and step if it has "
                 "them; from hf-hub:ORG/NAME; or, with --config, from a file of weights (.pt, .bin, .safetensors)"),
    MODE_OPT_FLAG(struct options, fresh_optimizer, "fresh-optimizer", "with --init: weights only, from step 0"),
    MODE_OPT_STR(struct options, data, "data", NULL, "SHARDS",
                 "folder, {000..041}.tar, https://, s3://, a::b, @list.txt"),
    TRAIN_CAPTIONS_OPTIONS(struct options),
    MODE_OPT_STR(struct options, selection, "selection", NULL, "FILE",
                 "train on the pairs of the fine clusters that `mode select` wrote to FILE, as an expert is"),
    MODE_OPT_STR(struct options, assign, "assign", NULL, "GLOB",
                 "with --selection: assign.safetensors files of `mode assign`, one for each shard, in their order"),
    MODE_OPT_STR(struct options, out_ratio, "out-ratio", NULL, "X",
                 "with --selection: share of the other pairs that an epoch also sees (default: " MODE_DEFAULT_OUT_RATIO
                 ")"),
    MERGES_OPTION(struct options, merges),
    MODE_OPT_STR(struct options, out, "out", NULL, "DIR", "the trained model: an open_clip folder"),
    MODE_OPT_STR(struct options, log, "log", NULL, "FILE", "a copy of steps.jsonl"),
    MODE_OPT_STR(struct options, tensorboard, "tensorboard", NULL, "DIR",
                 "write the curve there during training, for TensorBoard; a folder for this training alone"),
    MODE_OPT_INT(struct options, batch, "batch", MODE_DEFAULT_BATCH, "N", "pairs in a step"),
    MODE_OPT_STR(struct options, steps, "steps", NULL, "N", "steps to train now"),
    MODE_OPT_INT(struct options, total_steps, "total-steps", NULL, "N",
                 "steps of the whole schedule (default: to where this training ends)"),
    MODE_OPT_REAL(struct options, lr, "lr", MODE_DEFAULT_LR, "X", "peak learning rate"),
    MODE_OPT_STR(struct options, warmup, "warmup", NULL, "N",
                 "steps of linear warm-up, fewer than the schedule has (default: " MODE_DEFAULT_WARMUP_STEPS
                 ", at most a tenth of it)"),
    MODE_OPT_STR(struct options, schedule, "schedule", MODE_DEFAULT_SCHEDULE, "NAME",
                 "learning rate after the warm-up: cosine (falls to 0 at the end of the schedule) | constant | "
                 "constant_cooldown (constant, then falls in the last steps of the schedule)"),
    MODE_OPT_STR(struct options, cooldown_steps, "cooldown-steps", NULL, "N",
                 "with --schedule constant_cooldown: the last N steps of the schedule"),
    MODE_OPT_STR(struct options, cooldown_power, "cooldown-power", NULL, "X",
                 "with constant_cooldown: power of the decay (default: " MODE_DEFAULT_COOLDOWN_POWER ", linear)"),
    MODE_OPT_STR(struct options, cooldown_end, "cooldown-end", NULL, "X",
                 "with constant_cooldown: learning rate at the end of the schedule (default: " MODE_DEFAULT_COOLDOWN_END
                 ")"),
    MODE_OPT_REAL(struct options, beta1, "beta1", MODE_DEFAULT_BETA1, "X", "AdamW"),
    MODE_OPT_REAL(struct options, beta2, "beta2", MODE_DEFAULT_BETA2, "X", "AdamW"),
    MODE_OPT_REAL(struct options, eps, "eps", MODE_DEFAULT_EPS, "X", "AdamW"),
    MODE_OPT_REAL(struct options, weight_decay, "weight-decay", MODE_DEFAULT_WEIGHT_DECAY, "X",
                  "AdamW, on tensors of 2 dimensions and more"),
    MODE_OPT_REAL(struct options, grad_clip_norm, "grad-clip-norm", MODE_DEFAULT_GRAD_CLIP_NORM, "X",
                  "clip the global gradient norm to this; 0: never"),
    MODE_OPT_INT(
        struct options, accumulate, "accumulate", MODE_DEFAULT_ACCUMULATE, "N",
        "compute a step in N pieces (gradient caching): less memory, the same contrastive loss over the whole batch"),
    MODE_OPT_STR(struct options, memory, "memory", "auto", "BYTES",
                 "memory limit of the training, such as 12g; auto: what is free. Activations are stored or recomputed, "
                 "block by block, so that it fits: the results are bit-identical"),
    MODE_OPT_FLAG(
        struct options, checkpoint_activations, "checkpoint-activations",
        "store only the input of every block and recompute the rest: the least memory, bit-identical results"),
    MODE_OPT_FLAG(struct options, dense_tokens, "dense-tokens",
                  "compute texts up to their padded length, to verify results"),
    MODE_OPT_FLAG(struct options, full_last_block, "full-last-block",
                  "compute the last blocks for every token, not only the pooled one, to verify results"),
    MODE_OPT_FLAG(struct options, no_graphs, "no-graphs",
                  "on a GPU, launch every op of a step, instead of a captured CUDA graph: the same bytes"),
    MODE_OPT_FLAG(struct options, no_streams, "no-streams",
                  "on a GPU, use one stream, instead of running the two towers and weight gradients concurrently: the "
                  "same bytes, and less memory"),
    MODE_OPT_FLAG(struct options, measure, "measure",
                  "on a GPU, choose algorithms by timing them in the first step (autotuning): faster, but not the same "
                  "bytes from run to run"),
    MODE_OPT_STR(struct options, algorithms, "algorithms", NULL, "FILE",
                 "on a GPU, use the GEMM algorithms in FILE, or, if it does not exist yet, choose them by timing in "
                 "the first step and write it: the same FILE gives the same bytes"),
    MODE_OPT_REAL(struct options, scale_min, "scale-min", MODE_DEFAULT_SCALE_MIN, "X",
                  "random resized crop: smallest share of the area"),
    MODE_OPT_REAL(struct options, scale_max, "scale-max", MODE_DEFAULT_SCALE_MAX, "X",
                  "random resized crop: largest share of the area"),
    MODE_OPT_STR(
        struct options, patch_dropout, "patch-dropout", NULL, "X",
        "drop this share of every picture's patches in each step, at random, and compute only the others; "
        "evaluation uses all (default: vision_cfg.patch_dropout of the model, mostly " MODE_DEFAULT_PATCH_DROPOUT ")"),
    LOCK_OPTIONS(struct options),
    MODE_OPT_STR(struct options, order, "order", MODE_DEFAULT_ORDER, "NAME",
                 "order of an epoch's pairs, shuffle | windows: windows keeps to a few shards at a time, for shards "
                 "that are remote or on slow disks"),
    MODE_OPT_STR(struct options, window, "window-shards", NULL, "N",
                 "with --order windows: number of shards that are mixed (default: " MODE_DEFAULT_WINDOW_SHARDS ")"),
    MODE_OPT_INT(struct options, seed, "seed", "0", "N",
                 "seed of initial weights, order, crops and choice of captions"),
    MODE_OPT_INT(struct options, checkpoint_steps, "checkpoint-steps", MODE_DEFAULT_CHECKPOINT_STEPS, "N",
                 "resumable checkpoint every N steps; 0: only when stopped"),
    MODE_OPT_STR(struct options, tasks, "tasks", NULL, "DIR[,DIR...]",
                 "with --evaluate-steps: tasks as `mode evaluate` takes them, or folders of tasks"),
    MODE_OPT_INT(struct options, evaluate_steps, "evaluate-steps", MODE_DEFAULT_EVALUATE_STEPS, "N",
                 "evaluate the model on --tasks before the first step, every N steps and at the end; 0: never"),
    MODE_OPT_FLAG(struct options, resume, "resume", "continue the training that was interrupted in --out"),
    BACKEND_OPTIONS(struct options),
    RANKS_OPTIONS(struct options),
    MODE_OPT_FLAG(struct options, json, "json", "print the result and the memory plan as JSON"),
    MODE_OPT_INT(struct options, threads, "threads", NULL, "N", "threads (default: every processor)"),
    MODE_OPT_END};

static const struct option_range ranges[] = {RANGE("batch", 2, 1 << 24),
                                             RANGE_FROM("total-steps", 0),
                                             RANGE_ABOVE("lr", 0),
                                             RANGE_BELOW("beta1", 0, 1),
                                             RANGE_BELOW("beta2", 0, 1),
                                             RANGE_ABOVE("eps", 0),
                                             RANGE_FROM("weight-decay", 0),
                                             RANGE_FROM("grad-clip-norm", 0),
                                             RANGE_FROM("accumulate", 1),
                                             RANGE_ABOVE_TO("scale-min", 0, 1),
                                             RANGE_ABOVE_TO("scale-max", 0, 1),
                                             RANGE_SEED,
                                             RANGE_FROM("checkpoint-steps", 0),
                                             RANGE_FROM("evaluate-steps", 0),
                                             RANGES_RANKS,
                                             RANGE_THREADS,
                                             RANGE_END};

static const char prose[] =
    "Trains a CLIP on all pairs of the shards. Captions are extracted first. The same options, data and seed give the "
    "same bytes; SIGINT and SIGTERM write a checkpoint (exit 130, 143), and --resume continues from it. Experts are "
    "trained by `mode run`, which knows the clusters; a model for a selection of clusters is trained here, with "
    "--selection and --assign, for instance from the seed of a run (--init).\n\n"
    "Before the first step a table shows the memory that it takes at most. Activations are stored, block by block, as "
    "far as --memory allows, and recomputed otherwise; a training that cannot fit is refused, and the message names an "
    "--accumulate or --memory that would do.\n\n"
    "After a failure --out holds nothing new except the latest checkpoint and what --resume needs with it. The curve "
    "of --tensorboard stays; --resume continues it, and steps that are repeated appear once.\n\n"
    "With --tasks and --evaluate-steps the log, validation.jsonl in --out and the curve of --tensorboard report the "
    "model's results on these tasks during training: the metrics of `mode evaluate`. The model is the same, byte for "
    "byte, without them.\n\n"
    "With --ranks N, N processes with the same options, told apart by --rank, train one model: --batch is the global "
    "batch, the result is that of one process up to rounding, and any number of processes can --resume. All of them "
    "use the same folders; process 0 writes. WORLD_SIZE, RANK, LOCAL_RANK, MASTER_ADDR and MASTER_PORT are understood "
    "in place of the options. One GPU each, over NCCL.";

struct hook {
    struct train_folder folder;
    struct mode_output_folder tensorboard;
    const char *algorithms;
    double last_line;
    struct mode_train_memory memory;
};

static void on_progress(void *ctx, const struct mode_train_progress *p)
{
    struct hook *h = ctx;
    double now = mode_clock_s();
    if (p->step != p->end_step && now - h->last_line < (isatty(2) ? 1 : 30)) return;
    h->last_line = now;
    fprintf(stderr,
            "step %llu of %llu, epoch %.3f, loss %.4f, lr %.3g, logit scale %.2f, %.1f pairs/s (data %.0f %%)\n",
            (unsigned long long)p->step, (unsigned long long)p->end_step, p->epoch, p->loss, p->lr, p->logit_scale,
            p->samples_per_second, 100 * p->data_seconds / p->step_seconds);
}

static void on_memory(void *ctx, const struct mode_train_memory *m)
{
    ((struct hook *)ctx)->memory = *m;
    mode_train_memory_print(m, stderr);
}

static void on_validated(void *ctx, const struct mode_validation_result *r)
{
    (void)ctx;
    fprintf(stderr, "step %llu: %s %s %.4f (%.1f s)\n", (unsigned long long)r->step, r->task, r->measure, r->value,
            r->seconds);
}

static void on_notice(void *ctx, const char *text)
{
    (void)ctx;
    fprintf(stderr, "%s\n", text);
}

static enum mode_status on_chosen(void *ctx, const char *algorithms, struct mode_error *err)
{
    const struct hook *h = ctx;
    return mode_file_write_atomic(h->algorithms, algorithms, strlen(algorithms), err);
}

static enum mode_status on_chosen_elsewhere(void *ctx, const char *algorithms, struct mode_error *err)
{
    (void)ctx;
    (void)algorithms;
    (void)err;
    return MODE_OK; /* the first process writes its checkpoints */
}

static bool on_stopping(void *ctx)
{
    (void)ctx;
    return interrupt_signal() != 0;
}

static bool on_fetching(void *ctx, uint64_t done, uint64_t total)
{
    (void)ctx;
    return fetching_show("the shards", done, total);
}

static bool on_fetching_elsewhere(void *ctx, uint64_t done, uint64_t total)
{
    (void)ctx;
    (void)done;
    (void)total;
    return !interrupt_signal();
}

static char *on_checkpoint_dir(void *ctx, const char *name)
{
    return train_folder_checkpoint(&((struct hook *)ctx)->folder, name);
}

static enum mode_status on_checkpoint_done(void *ctx, const char *name, struct mode_error *err)
{
    return train_folder_checkpointed(&((struct hook *)ctx)->folder, name, err);
}

/* An unknown name is a usage error, a file with a wrong model a configuration error. */
static enum mode_status take_config(char **model, char **preprocess, const char *name, struct mode_error *err)
{
    const size_t n = strlen(name);
    const bool is_file = n > 5 && strcmp(name + n - 5, ".json") == 0;
    enum mode_status st = mode_model_config_named(model, preprocess, name, "--config", err);
    if (st == MODE_E_CONFIG && !is_file && err) err->status = MODE_E_USAGE;
    return st == MODE_E_CONFIG && !is_file ? MODE_E_USAGE : st;
}

static enum mode_status check_shares(const struct options *o, int ranks, struct mode_error *err)
{
    if (o->batch % ranks == 0 && o->accumulate <= o->batch / ranks) return MODE_OK;
    return MODE_FAIL(err, MODE_E_USAGE,
                     "--batch %lld cannot be shared by %d processes (--ranks) in %lld pieces each (--accumulate): it "
                     "must be a multiple of --ranks, and no piece empty",
                     (long long)o->batch, ranks, (long long)o->accumulate);
}

enum { MOST_STEPS = 1000000000 };

/* --warmup, in a schedule of that many steps. */
static enum mode_status find_warmup(int64_t *warmup, const struct options *o, uint64_t total, struct mode_error *err)
{
    const int64_t most = (int64_t)mode_warmup_most(total);
    *warmup = strtoll(MODE_DEFAULT_WARMUP_STEPS, NULL, 10);
    if (most < *warmup) *warmup = most;
    enum mode_status st = o->warmup ? option_count(warmup, o->warmup, "--warmup", 0, MOST_STEPS, err) : MODE_OK;
    if (st || *warmup == 0 || (uint64_t)*warmup < total) return st;
    return MODE_FAIL(err, MODE_E_USAGE,
                     "--warmup %lld: the schedule has %llu step%s, so the learning rate would rise to the end. HINT: "
                     "leave it out (" MODE_DEFAULT_WARMUP_STEPS ", at most a tenth of the schedule), or give less",
                     (long long)*warmup, (unsigned long long)total, MODE_PLURAL(total));
}

/* A number from least to most; otherwise: if it is not given. */
static enum mode_status find_real(double *value, const char *given, const char *otherwise, const char *option,
                                  double least, double most, struct mode_error *err)
{
    enum mode_status st = mode_parse_real(given ? given : otherwise, option, value, err);
    if (st && err) err->status = MODE_E_USAGE;
    if (st) return MODE_E_USAGE;
    return *value >= least && *value <= most
               ? MODE_OK
               : MODE_FAIL(err, MODE_E_USAGE, "%s: %s is out of range, expected %g to %g", option, given, least, most);
}

/* --schedule, and whether the options of the cooldown go with it. */
static enum mode_status check_schedule(enum mode_schedule_kind *kind, const struct options *o, struct mode_error *err)
{
    const char *option = o->cooldown_steps   ? "--cooldown-steps"
                         : o->cooldown_power ? "--cooldown-power"
                         : o->cooldown_end   ? "--cooldown-end"
                                             : NULL;
    if (!mode_schedule_named(kind, o->schedule))
        return MODE_FAIL(err, MODE_E_USAGE, "--schedule %s: must be cosine, constant or constant_cooldown",
                         o->schedule);
    if (*kind != MODE_SCHEDULE_CONSTANT_COOLDOWN && option)
        return MODE_FAIL(err, MODE_E_USAGE, "%s goes with --schedule constant_cooldown", option);
    if (*kind == MODE_SCHEDULE_CONSTANT_COOLDOWN && !o->cooldown_steps)
        return MODE_FAIL(err, MODE_E_USAGE,
                         "--schedule constant_cooldown needs --cooldown-steps N: in how many steps, the last of the "
                         "schedule, the learning rate falls");
    return MODE_OK;
}

/* The options of the cooldown, in a schedule of s->total steps. */
static enum mode_status find_cooldown(struct mode_schedule *s, const struct options *o, struct mode_error *err)
{
    int64_t steps;
    enum mode_status st;
    if (s->kind != MODE_SCHEDULE_CONSTANT_COOLDOWN) return MODE_OK;
    if ((st = option_count(&steps, o->cooldown_steps, "--cooldown-steps", 1, MOST_STEPS, err)) ||
        (st = find_real(&s->power, o->cooldown_power, MODE_DEFAULT_COOLDOWN_POWER, "--cooldown-power", 0.01, 100,
                        err)) ||
        (st = find_real(&s->end, o->cooldown_end, MODE_DEFAULT_COOLDOWN_END, "--cooldown-end", 0, o->lr, err)))
        return st;
    s->cooldown = (uint64_t)steps;
    if (s->cooldown + s->warmup <= s->total) return MODE_OK;
    return MODE_FAIL(err, MODE_E_USAGE,
                     "--cooldown-steps %llu: the schedule has %llu step%s, %llu of them warm-up; expected at most the "
                     "rest",
                     (unsigned long long)s->cooldown, (unsigned long long)s->total, MODE_PLURAL(s->total),
                     (unsigned long long)s->warmup);
}

/* --schedule and what belongs to it, in a schedule of that many steps. */
static enum mode_status find_schedule(struct mode_schedule *s, const struct options *o, uint64_t total,
                                      struct mode_error *err)
{
    int64_t warmup;
    *s = (struct mode_schedule){.lr = o->lr, .total = total};
    enum mode_status st = check_schedule(&s->kind, o, err);
    if (st || (st = find_warmup(&warmup, o, total, err))) return st;
    s->warmup = (uint64_t)warmup;
    return find_cooldown(s, o, err);
}

static void print_schedule(const struct mode_train_spec *s)
{
    fprintf(stderr, "learning rate: ");
    if (s->warmup_steps)
        fprintf(stderr, "warm-up in %llu step%s to ", (unsigned long long)s->warmup_steps,
                MODE_PLURAL(s->warmup_steps));
    fprintf(stderr, "%g, ", s->lr);
    if (s->schedule == MODE_SCHEDULE_CONSTANT)
        fprintf(stderr, "constant");
    else if (s->schedule == MODE_SCHEDULE_COSINE)
        fprintf(stderr, "cosine decay to 0 at step %llu", (unsigned long long)s->total_steps);
    else
        fprintf(stderr, "constant to step %llu, cooldown to %g at step %llu",
                (unsigned long long)(s->total_steps - s->cooldown_steps), s->cooldown_end,
                (unsigned long long)s->total_steps);
    fprintf(stderr, "; this training: steps %llu to %llu\n", (unsigned long long)s->start_step,
            (unsigned long long)s->end_step);
}

/* shards: of a window; 0: one permutation. */
static enum mode_status find_order(int64_t *shards, const struct options *o, struct mode_error *err)
{
    const bool windows = strcmp(o->order, "windows") == 0;
    *shards = windows ? strtoll(MODE_DEFAULT_WINDOW_SHARDS, NULL, 10) : 0;
    if (!windows && strcmp(o->order, "shuffle") != 0)
        return MODE_FAIL(err, MODE_E_USAGE, "--order %s: must be shuffle or windows", o->order);
    if (!windows && o->window) return MODE_FAIL(err, MODE_E_USAGE, "--window-shards goes with --order windows");
    return o->window ? option_count(shards, o->window, "--window-shards", 1, MODE_MOST_WINDOW_SHARDS, err) : MODE_OK;
}

static enum mode_status check_options(int64_t *steps, size_t *memory, const struct options *o, struct mode_error *err)
{
    enum mode_status st;
    if ((st = option_needed(o->data, "--data SHARDS", err)) || (st = option_needed(o->out, "--out DIR", err)) ||
        (st = option_needed(o->steps, "--steps N", err)))
        return st;
    if ((st = option_count(steps, o->steps, "--steps", 1, MOST_STEPS, err))) return st;
    if (!o->init && !o->config)
        return MODE_FAIL(
            err, MODE_E_USAGE,
            "--config MODEL (a new model) or --init MODEL (one to continue from) is needed; --help lists all "
            "options");
    if (o->measure && o->algorithms)
        return MODE_FAIL(err, MODE_E_USAGE, "--measure does not save its choices, --algorithms does: give one of them");
    if (!o->tasks != !o->evaluate_steps)
        return MODE_FAIL(
            err, MODE_E_USAGE,
            "--tasks DIR says on what the model is evaluated while it trains, --evaluate-steps N how often: "
            "both are needed");
    if (!o->selection != !o->assign)
        return MODE_FAIL(
            err, MODE_E_USAGE,
            "--selection FILE says which fine clusters, --assign GLOB which cluster every pair is in: both "
            "are needed");
    if (o->out_ratio && !o->selection) return MODE_FAIL(err, MODE_E_USAGE, "--out-ratio goes with --selection");
    if ((st = check_schedule(&(enum mode_schedule_kind){0}, o, err))) return st;
    if (o->fresh_optimizer && !o->init) return MODE_FAIL(err, MODE_E_USAGE, "--fresh-optimizer goes with --init");
    if ((st = ranges_check(o, table, ranges, err)) || (st = backend_check(&o->backend, err)) ||
        (st = memory_option(memory, o->memory, err)) ||
        (st = train_captions_selectors(&(struct mode_text_keys){0}, &(struct mode_text_key){0}, &o->captions, err)))
        return st;
    if (o->total_steps && o->total_steps < *steps)
        return MODE_FAIL(err, MODE_E_USAGE, "--total-steps %lld: is less than --steps %lld", (long long)o->total_steps,
                         (long long)*steps);
    if (o->scale_min > o->scale_max)
        return MODE_FAIL(err, MODE_E_USAGE, "--scale-min %g: is above --scale-max %g", o->scale_min, o->scale_max);
    return check_shares(o, o->ranks.n > 0 ? (int)o->ranks.n : 1, err);
}

/* Checks the merges file before captions are extracted. */
static enum mode_status check_merges(struct options *o, struct mode_error *err)
{
    struct mode_tokenizer *tokenizer = NULL;
    enum mode_status st = merges_find(&o->merges, err);
    if (!st) st = mode_tokenizer_open_clip(&tokenizer, o->merges, MODE_CLIP_CLEAN_OPENAI, err);
    mode_tokenizer_close(&tokenizer);
    return st;
}

/* Opens --init's model and finds the step where its schedule ended, which is where this one begins. model, preprocess:
 * of --config, or NULL. */
static enum mode_status find_parent(struct mode_given *g, const char *model, const char *preprocess,
                                    const struct options *o, struct mode_error *err)
{
    struct stat s;
    enum mode_status st;
    if (stat(o->init, &s) != 0) return mode_error_prefix(err, mode_given_fail(errno, o->init, err), "--init");
    if (S_ISREG(s.st_mode)) {
        if (!model)
            return MODE_FAIL(err, MODE_E_USAGE,
                             "--init %s is a file of weights, which does not say what model it is: --config MODEL must",
                             o->init);
        st = mode_given_find(g, o->init, err);
        return st ? st : mode_given_agree(g, model, preprocess, err);
    }
    if (model)
        return MODE_FAIL(err, MODE_E_USAGE,
                         "--config and --init %s: a folder says itself what model it is; leave --config out, or name "
                         "the file of weights in it",
                         o->init);
    st = mode_given_find_folder(g, o->init, o->fresh_optimizer, err);
    if (!st && !g->optimizer && !o->fresh_optimizer)
        fprintf(stderr,
                "--init %s: holds no " MODE_FILE_CLIP_OPTIMIZER ": begins at step 0 with fresh optimizer state\n",
                o->init);
    return st;
}

/* Checked before anything is done. */
static enum mode_status find_tasks(struct mode_validation **v, const struct options *o, struct mode_error *err)
{
    struct mode_spec_list dirs = {0}, tasks = {0};
    char *list = mode_xstrdup(o->tasks), *rest = list;
    for (char *dir; (dir = strsep(&rest, ","));) mode_spec_list_add(&dirs, mode_xstrdup(dir));
    enum mode_status st = mode_spec_tasks(&dirs, "--tasks", &tasks, NULL, err);
    const struct mode_validation_options options = {.n = tasks.n,
                                                    .dir = tasks.item,
                                                    .every = (uint64_t)o->evaluate_steps,
                                                    .last = true,
                                                    .batch = strtoll(MODE_DEFAULT_EVALUATE_BATCH, NULL, 10)};
    if (!st) st = mode_validation_open(v, &options, err);
    mode_spec_list_clear(&dirs);
    mode_spec_list_clear(&tasks);
    free(list);
    return st;
}

static enum mode_status find_out_ratio(double *ratio, const struct options *o, struct mode_error *err)
{
    *ratio = 0;
    return o->selection ? find_real(ratio, o->out_ratio, MODE_DEFAULT_OUT_RATIO, "--out-ratio", 0, 1, err) : MODE_OK;
}

/* model: its config. */
static enum mode_status find_patch_dropout(double *share, const char *model, const struct options *o,
                                           struct mode_error *err)
{
    *share = mode_model_config_patch_dropout(model);
    if (!o->patch_dropout) return MODE_OK;
    if (mode_parse_real(o->patch_dropout, "--patch-dropout", share, err)) {
        if (err) err->status = MODE_E_USAGE;
        return MODE_E_USAGE;
    }
    return *share >= 0 && *share < 1
               ? MODE_OK
               : MODE_FAIL(err, MODE_E_USAGE, "--patch-dropout: %s is out of range, expected 0 or more and less than 1",
                           o->patch_dropout);
}

static enum mode_status find_lock(struct mode_clip_lock *lock, const struct options *o, struct mode_error *err)
{
    enum mode_status st = lock_find(lock, &o->lock, err);
    if (st || o->init || (!lock->image && !lock->text)) return st;
    return MODE_FAIL(err, MODE_E_USAGE,
                     "%s locks random weights, as the model is new. HINT: --init MODEL, a pretrained one",
                     lock->image ? "--lock-image" : "--lock-text");
}

/* The selected clusters, and every shard's assignment. */
static enum mode_status find_selection(glob_t *found, size_t n_shards, const struct options *o, struct mode_error *err)
{
    struct mode_selection s;
    const char *pattern = o->assign;
    enum mode_status st = mode_selection_load(&s, o->selection, err);
    mode_selection_clear(&s);
    if (st) return st;
    if (glob(pattern, 0, NULL, found) != 0)
        return MODE_FAIL(err, MODE_E_NOINPUT, "--assign: no file matches \"%s\"", pattern);
    if (found->gl_pathc != n_shards)
        return MODE_FAIL(err, MODE_E_USAGE, "--assign names %zu file%s, --data %zu shard%s: expected as many of each",
                         found->gl_pathc, MODE_PLURAL(found->gl_pathc), n_shards, MODE_PLURAL(n_shards));
    return MODE_OK;
}

static void print_json(const struct options *o, const struct mode_train_spec *spec, const struct hook *hook,
                       const struct mode_train_result *r)
{
    char *memory = mode_train_memory_json(&hook->memory);
    json_t *j = json_pack("{s:s, s:I, s:f, s:I, s:f, s:f, s:f, s:o}", "out", o->out, "step", (json_int_t)spec->end_step,
                          "final_loss", r->final_loss, "pairs", (json_int_t)r->rows, "pairs_per_second",
                          (double)r->steps_run * (double)spec->batch / r->seconds, "data_share",
                          r->data_seconds / r->seconds, "validation_seconds", r->validation_seconds, "memory",
                          json_loads(memory, 0, NULL));
    MODE_ASSERT(j);
    json_dumpf(j, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(j);
    free(memory);
}

/* meeting: with the other processes, taken over; NULL: single process. */
static enum mode_status train(const struct options *o, const struct mode_train_spec *spec, struct hook *hook,
                              const char *resume_from, struct mode_backend *be, struct mode_meeting **meeting,
                              struct mode_error *err)
{
    struct mode_ranks *group = NULL;
    enum mode_status st = *meeting ? mode_backend_ranks(&group, be, meeting, err) : MODE_OK;
    const bool first = !group || group->rank == 0;
    if (st) return st;
    const struct mode_train_outputs *outputs = &hook->folder.outputs;
    const struct mode_board_place board = {.dir = o->tensorboard};
    const struct mode_train_hooks hooks = {.ctx = hook,
                                           .memory = first ? on_memory : NULL,
                                           .progress = first ? on_progress : NULL,
                                           .notice = first ? on_notice : NULL,
                                           .validated = first ? on_validated : NULL,
                                           .stopping = on_stopping,
                                           .fetching = first ? on_fetching : on_fetching_elsewhere,
                                           .checkpoint_dir = on_checkpoint_dir,
                                           .checkpoint_done = on_checkpoint_done,
                                           .resume_from = resume_from,
                                           .board = o->tensorboard ? &board : NULL,
                                           .chosen = !o->algorithms ? NULL
                                                     : first        ? on_chosen
                                                                    : on_chosen_elsewhere,
                                           .group = group};
    struct mode_train_result r;
    st = mode_train(&r, be, spec, outputs, &hooks, err);
    mode_ranks_close(&group, st == MODE_OK || st == MODE_E_STOPPED);
    if (!st && first) st = train_folder_finish(&hook->folder, err);
    if (!st && first && o->log && (st = mode_file_copy(outputs->steps, o->log, false, err)))
        mode_error_prefix(err, st, "the model in %s is complete, --log is not", o->out);
    if (!st && first && o->json) print_json(o, spec, hook, &r);
    if (!st && first && !o->json)
        printf("%s: step %llu, final loss %.4f, %llu pairs in the pool, %.1f pairs/s (%.1f %% of the time "
               "waiting for "
               "data)\n",
               o->out, (unsigned long long)spec->end_step, r.final_loss, (unsigned long long)r.rows,
               (double)r.steps_run * (double)spec->batch / r.seconds, 100 * r.data_seconds / r.seconds);
    if (!st && first && spec->validation)
        fprintf(stderr, "evaluating took %.1f s between the steps, which pairs/s does not count\n",
                r.validation_seconds);
    if (!st && first && r.device_pixels)
        fprintf(stderr, "pictures were resized by the device, %llu that did not fit there by the host\n",
                (unsigned long long)r.host_resized);
    return st;
}

/* Checks and opens the outputs, which only the first process writes. */
static enum mode_status open_outputs(struct hook *hook, const struct options *o, const char *algorithms,
                                     struct mode_error *err)
{
    const char *const inputs[] = {o->init,   o->config,    o->data,  algorithms ? o->algorithms : NULL,
                                  o->merges, o->selection, o->assign};
    const size_t n = sizeof inputs / sizeof *inputs;
    enum mode_status st = mode_output_apart(o->out, inputs, n, err);
    if (!st && o->log) st = mode_output_apart(o->log, inputs, n, err);
    if (!st && o->tensorboard) st = mode_output_apart(o->tensorboard, inputs, n, err);
    if (!st && o->tensorboard && !o->resume) st = mode_board_unused(o->tensorboard, err);
    if (!st) st = train_folder_open(&hook->folder, o->resume, err);
    if (!st && o->log) st = mode_output_file(o->log, err);
    if (!st && o->tensorboard) st = mode_output_folder_make(&hook->tensorboard, o->tensorboard, err);
    if (!st && o->algorithms && !algorithms) st = mode_output_file(o->algorithms, err);
    return st;
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct options o = {0};
    struct mode_shards shards = {0};
    struct mode_stream_shard *stream = NULL;
    struct mode_given given = {0};
    struct hook hook = {0};
    struct ranks ranks = {.size = 1};
    struct mode_meeting *meeting = NULL;
    struct mode_backend *be = NULL;
    struct mode_validation *validation = NULL;
    char *model = NULL, *preprocess = NULL, *resume_from = NULL, *algorithms = NULL, *fetched = NULL;
    glob_t assign = {0};
    int64_t steps = 0, window;
    struct mode_schedule schedule;
    struct mode_clip_lock lock;
    double out_ratio, patch_dropout;
    size_t memory = 0;
    int n = 0;
    enum mode_status st;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_", "mode train --config MODEL|--init MODEL --data SHARDS --steps N --out DIR",
                          prose);
        return MODE_OK;
    }
    /* first check the command line and its inputs, then open the GPU and meet the other processes, then open the
     * outputs */
    if ((st = open_clip_names(mode_options_parse(&o, table, "MODE_", argc, argv, &n, err), table, argc, argv, err)) ||
        (st = arguments_check(n, 0, argv, "shards are named by --data", err)) ||
        (st = check_options(&steps, &memory, &o, err)) || (st = find_order(&window, &o, err)) ||
        (st = find_out_ratio(&out_ratio, &o, err)) || (st = find_lock(&lock, &o, err)) ||
        (st = ranks_find(&ranks, &o.backend, &o.ranks, err)))
        return st;
    char *source = (char *)o.data;
    train_folder_name(&hook.folder, o.out);
    hook.algorithms = o.algorithms;
    if ((st = check_shares(&o, ranks.size, err)) || /* WORLD_SIZE's, too */
        (st = check_merges(&o, err)) || (o.tasks && (st = find_tasks(&validation, &o, err))) ||
        (st = mode_hub_clip(&o.init, &fetched, err)))
        goto out;
    if ((o.config && (st = take_config(&model, &preprocess, o.config, err))) ||
        (o.init && (st = find_parent(&given, model, preprocess, &o, err))) ||
        (st = find_patch_dropout(&patch_dropout, o.init ? given.files.model_cfg : model, &o, err)))
        goto out;
    const uint64_t start = given.step, end = start + (uint64_t)steps;
    if (o.total_steps && (uint64_t)o.total_steps < end) {
        st = MODE_FAIL(err, MODE_E_USAGE, "--total-steps %lld: --init %s is at step %llu, %lld more end at %llu",
                       (long long)o.total_steps, o.init, (unsigned long long)start, (long long)steps,
                       (unsigned long long)end);
        goto out;
    }
    const uint64_t total = o.total_steps ? (uint64_t)o.total_steps : end;
    if ((st = find_schedule(&schedule, &o, total, err)) || (st = mode_sources_expand(&shards, &source, 1, ".", err)) ||
        (st = mode_shards_look(&shards, err)) || (o.assign && (st = find_selection(&assign, shards.n, &o, err))))
        goto out;
    if (o.algorithms && mode_file_exists(o.algorithms) &&
        (st = mode_file_read(o.algorithms, MODE_TRAIN_ALGORITHMS_MOST, &algorithms, NULL, err)))
        goto out;
    if (o.threads > 0) mode_parallel_set_threads((int)o.threads);
    interrupt_catch();
    if ((st = ranks_meet(&meeting, &be, &ranks, &o.backend, err))) goto out;
    const bool first = ranks.rank == 0;
    if (first && (st = open_outputs(&hook, &o, algorithms, err))) goto out;
    if (meeting && (st = mode_meeting_barrier(meeting, err))) goto out; /* all processes are ready */
    if (o.resume && (st = train_folder_resume(&hook.folder, &resume_from, err))) goto out;
    stream = mode_xcalloc(shards.n, sizeof *stream);
    if ((st = train_captions_extract(stream, &hook.folder, &shards, &o.captions, (uint64_t)o.seed, o.resume, first,
                                     err)))
        goto out;
    if (meeting && (st = mode_meeting_barrier(meeting, err))) goto out;
    for (size_t i = 0; o.assign && i < shards.n; i++) stream[i].assign = assign.gl_pathv[i];

    const struct mode_train_parent parent = {given.folder ? given.files.config : NULL, given.files.weights,
                                             given.optimizer};
    const struct mode_train_spec spec = {.name = "train",
                                         .model_config = o.init ? given.files.model_cfg : model,
                                         .preprocess_config = o.init ? given.files.preprocess_cfg : preprocess,
                                         .tokenizer = o.merges,
                                         .seed = (uint64_t)o.seed,
                                         .batch = o.batch,
                                         .lr = schedule.lr,
                                         .beta1 = o.beta1,
                                         .beta2 = o.beta2,
                                         .eps = o.eps,
                                         .weight_decay = o.weight_decay,
                                         .grad_clip_norm = o.grad_clip_norm,
                                         .accumulate = o.accumulate,
                                         .checkpoint_activations = o.checkpoint_activations,
                                         .memory = memory,
                                         .dense_tokens = o.dense_tokens,
                                         .full_last_block = o.full_last_block,
                                         .no_graphs = o.no_graphs,
                                         .no_streams = o.no_streams,
                                         .measure = o.measure,
                                         .algorithms = algorithms,
                                         .schedule = schedule.kind,
                                         .warmup_steps = schedule.warmup,
                                         .total_steps = schedule.total,
                                         .cooldown_steps = schedule.cooldown,
                                         .cooldown_power = schedule.power,
                                         .cooldown_end = schedule.end,
                                         .start_step = start,
                                         .end_step = end,
                                         .schedule_stride = 1,
                                         .checkpoint_steps = (uint64_t)o.checkpoint_steps,
                                         .expert = MODE_POOL_ALL,
                                         .selection = o.selection,
                                         .out_ratio = out_ratio,
                                         .scale_min = o.scale_min,
                                         .scale_max = o.scale_max,
                                         .patch_dropout = patch_dropout,
                                         .lock = lock,
                                         .window_shards = (uint32_t)window,
                                         .n_shards = shards.n,
                                         .shards = stream,
                                         .validation = validation,
                                         .parent = o.init ? &parent : NULL};
    if (first) print_schedule(&spec);
    st = train(&o, &spec, &hook, resume_from, be, &meeting, err);
    if (st) mode_error_rename(err, "training train: ", ""); /* this is the only training */
out:
    train_folder_close(&hook.folder, st, err);
    mode_output_folder_close(&hook.tensorboard, st != MODE_OK);
    ranks_clear(&ranks);
    mode_meeting_close(&meeting);
    mode_backend_close(&be);
    for (size_t i = 0; stream && i < shards.n; i++) free((char *)stream[i].captions);
    free(stream);
    globfree(&assign);
    mode_shards_clear(&shards);
    mode_given_clear(&given);
    mode_validation_close(&validation);
    free(resume_from);
    free(algorithms);
    free(model);
    free(preprocess);
    free(fetched);
    return st;
}

const struct mode_verb mode_verb_train = {"train", "train a CLIP on shards", run};
