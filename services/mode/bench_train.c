/* mode bench train - whole training steps: forward, loss, backward, AdamW. */
#include "backend_option.h"
#include "base/process.h"
#include "bench.h"
#include "bench_inputs.h"
#include "lock_option.h"
#include "merges.h"
#include "models/clip_train.h"
#include "nn/backend.h"
#include "optim/adamw.h"
#include "pipeline/defaults.h"
#include "pipeline/train.h"
#include "ranges.h"
#include "verb.h"

#include <stdio.h>
#include <unistd.h>

struct options {
    struct backend_options backend;
    struct lock_options lock;
    const char *model, *config, *pixels, *texts, *merges, *memory;
    int64_t rounds;
    double seconds, patch_dropout;
    bool turns, profile, no_savings, checkpoint_activations, measure, measure_products;
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct options, model, "model", NULL, "DIR", "folder of open_clip or Hugging Face"),
    MODE_OPT_STR(struct options, config, "config", NULL, "NAME", "instead: ViT-B-32, ... with random weights"),
    MODE_OPT_STR(struct options, pixels, "pixels", NULL, "FILE", "float32 [N, 3, S, S], raw: the batch's pictures"),
    MODE_OPT_STR(struct options, texts, "texts", NULL, "FILE", "one text per line, as many as pictures"),
    MERGES_OPTION(struct options, merges),
    BENCH_ROUNDS_OPTION(struct options, rounds),
    BENCH_TURNS_OPTIONS(struct options),
    MODE_OPT_FLAG(struct options, no_savings, "no-savings", "compute padding and whole last blocks, too"),
    MODE_OPT_FLAG(
        struct options, measure_products, "measure-products",
        "on a GPU, choose GEMM algorithms by timing, as trainings with --algorithms and runs with train.algorithms do"),
    MODE_OPT_FLAG(struct options, measure, "measure", "attention algorithms, too: as in mode train"),
    MODE_OPT_REAL(struct options, patch_dropout, "patch-dropout", MODE_DEFAULT_PATCH_DROPOUT, "X", "as in mode train"),
    LOCK_OPTIONS(struct options),
    MODE_OPT_STR(struct options, memory, "memory", "auto", "BYTES", "as in mode train"),
    MODE_OPT_FLAG(struct options, checkpoint_activations, "checkpoint-activations", "as in mode train"),
    MODE_OPT_FLAG(struct options, profile, "profile", "print the time of every op to stderr"),
    BACKEND_OPTIONS(struct options),
    MODE_OPT_END};

static const struct option_range ranges[] = {RANGE_BELOW("patch-dropout", 0, 1), RANGE_END};

/* Plans the memory of the batch, which is loaded already, and prints it. */
static enum mode_status plan(struct mode_clip *clip, struct mode_backend *be, const struct options *o, size_t memory,
                             int64_t batch, struct mode_error *err)
{
    const struct mode_train_spec spec = {
        .name = "bench", .checkpoint_activations = o->checkpoint_activations, .memory = memory};
    struct mode_train_memory m;
    enum mode_status st = mode_train_memory_plan(&m, clip, be, &spec, batch, 0, 0, err);
    if (!st) mode_train_memory_print(&m, stderr);
    return st;
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct options o = {0};
    struct mode_backend *be = NULL;
    struct mode_clip *clip = NULL;
    struct bench_floats px = {0};
    struct bench_texts texts = {0};
    struct mode_adamw opt = MODE_ADAMW_DEFAULT;
    struct mode_adamw_step *now = NULL;
    struct mode_clip_lock lock;
    size_t n_params = 0, memory = 0;
    int64_t step = 0;
    int n_args;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(
            table, "MODE_", "mode bench train (--model DIR | --config NAME) --pixels FILE --texts FILE",
            "Trains on one batch, all of the two files, --rounds times: forward, loss, backward, AdamW, with "
            "MODE_THREADS threads. The loss, the memory plan and the peak memory of the process go to stderr.");
        return MODE_OK;
    }
    enum mode_status st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err);
    if (!st) st = arguments_check(n_args, 0, argv, NULL, err);
    if (!st) st = option_needed(o.pixels, "--pixels FILE", err);
    if (!st) st = option_needed(o.texts, "--texts FILE", err);
    if (!st) st = ranges_check(&o, table, bench_turns_ranges, err);
    if (!st) st = ranges_check(&o, table, ranges, err);
    if (!st) st = lock_find(&lock, &o.lock, err);
    if (!st) st = memory_option(&memory, o.memory, err);
    if (!st) st = bench_model_check(o.model, o.config, err);
    if (!st) st = backend_open(&be, &o.backend, err);
    if (!st) st = bench_clip_open(&clip, be, o.model, o.config, err);
    if (!st) st = bench_floats_read(&px, o.pixels, bench_picture_floats(clip), err);
    if (!st) st = bench_texts_read(&texts, o.texts, o.merges, mode_clip_context(clip), err);
    if (!st && px.n != texts.n)
        st = MODE_FAIL(err, MODE_E_VALUE, "%lld pictures, %lld texts: not the same number", (long long)px.n,
                       (long long)texts.n);
    if (!st) st = mode_clip_set_lock(clip, &lock, err);
    if (st) goto out;
    mode_clip_set_savings(clip, o.no_savings, o.no_savings);
    mode_clip_set_patch_dropout(clip, o.patch_dropout, 0);
    if ((st = plan(clip, be, &o, memory, px.n, err)) || (st = mode_clip_train_begin(clip, px.n, err))) goto out;
    if ((st = mode_adamw_begin(&now, be, err))) goto out;
    fprintf(stderr, "%lld pairs, %.1f tokens per text\n", (long long)px.n, (double)texts.tokens / (double)texts.n);
    struct mode_param *params = mode_clip_params(clip, &n_params);
    for (int64_t round = 0; round <= o.rounds && (round == 0 || bench_turn(o.turns)); round++) {
        struct bench_clock since = bench_now();
        int64_t items = 0;
        double loss;
        if (round == 1) mode_backend_profile(be, o.profile);
        if (o.measure_products) mode_backend_measure_products(be, round == 0);
        if (o.measure) mode_backend_measure(be, round == 0);
        do {
            mode_clip_train_place(clip, (uint64_t)(step * px.n));
            if ((st = mode_clip_train_step(clip, &loss, px.data, texts.ids, texts.n_ids, px.n, err))) goto out;
            mode_adamw_tell(now, &opt, ++step);
            mode_adamw_update(be, params, n_params, now);
            mode_clip_clamp(clip);
            items += px.n;
        } while (round > 0 && bench_goes_on(since, o.seconds));
        if (round > 0) bench_print("train", "pairs", items, since);
        fprintf(stderr, "loss %.6f\n", loss);
    }
    if (o.profile) mode_backend_profile_print(be, stderr);
    fprintf(stderr, "peak %.1f MiB\n", (double)mode_process_peak_rss(getpid()) / 1048576);
out:
    bench_texts_clear(&texts);
    bench_floats_clear(&px);
    mode_clip_close(&clip);
    if (be) mode_backend_free(be, now);
    mode_backend_close(&be);
    return st;
}

const struct mode_verb mode_bench_train = {"train", "training steps of a CLIP", run};
