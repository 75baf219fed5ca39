/* mode bench tokenize - throughput from texts to ids. */
#include "base/file.h"
#include "base/options.h"
#include "base/parallel.h"
#include "base/str.h"
#include "bench.h"
#include "bench_inputs.h"
#include "data/tokenizer.h"
#include "merges.h"
#include "verb.h"

#include <stdlib.h>
#include <string.h>

enum { TEXTS_PER_ITEM = 256, MAX_CONTEXT = 1 << 14 };

struct options {
    const char *texts, *tokenizer, *merges, *clean;
    int64_t rounds, context;
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct options, texts, "texts", NULL, "FILE", "one text per line"),
    MODE_OPT_STR(struct options, tokenizer, "tokenizer", "clip", "clip|bert:DIR", "which tokenizer"),
    MERGES_OPTION(struct options, merges),
    MODE_OPT_STR(struct options, clean, "clean", "openai", "openai|hf", "clip only: the cleaning"),
    MODE_OPT_INT(struct options, context, "context", "77", "N", "longest result"),
    MODE_OPT_INT(struct options, rounds, "rounds", "5", "N",
                 "passes over all texts, after a warm-up that is not counted"),
    MODE_OPT_END};

static const struct option_range ranges[] = {RANGE("context", 2, MAX_CONTEXT), RANGE_END};

struct texts {
    const struct mode_tokenizer *t;
    const char *data;
    size_t *begin; /* [n + 1]: text i without its newline is data[begin[i] .. begin[i + 1] - 1) */
    size_t n;
    int context;
    int32_t *ids; /* [threads, context] */
};

static void encode_item(void *ctx, int64_t item, int thread)
{
    const struct texts *x = ctx;
    size_t last = ((size_t)item + 1) * TEXTS_PER_ITEM;
    for (size_t i = (size_t)item * TEXTS_PER_ITEM; i < last && i < x->n; i++)
        mode_tokenizer_encode(x->t, x->data + x->begin[i], x->begin[i + 1] - x->begin[i] - 1,
                              x->ids + (size_t)thread * (size_t)x->context, x->context);
}

static enum mode_status open_tokenizer(struct mode_tokenizer **t, struct options *o, struct mode_error *err)
{
    if (strncmp(o->tokenizer, "bert:", 5) == 0) return mode_tokenizer_open_bert(t, o->tokenizer + 5, err);
    bool hf = strcmp(o->clean, "hf") == 0;
    if (strcmp(o->tokenizer, "clip") != 0 || (!hf && strcmp(o->clean, "openai") != 0))
        return MODE_FAIL(err, MODE_E_USAGE,
                         "--tokenizer \"%s\" --clean \"%s\": expected clip or bert:DIR, and openai or hf", o->tokenizer,
                         o->clean);
    enum mode_status st = merges_find(&o->merges, err);
    if (st) return st;
    return mode_tokenizer_open_clip(t, o->merges, hf ? MODE_CLIP_CLEAN_HF : MODE_CLIP_CLEAN_OPENAI, err);
}

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct options o = {0};
    struct texts x = {0};
    struct mode_tokenizer *t = NULL;
    char *data = NULL;
    size_t size;
    int n_args;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_", "mode bench tokenize --texts FILE [options]",
                          "Tokenizes every line of FILE, --rounds times, with MODE_THREADS threads.");
        return MODE_OK;
    }
    enum mode_status st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err);
    if (!st) st = arguments_check(n_args, 0, argv, NULL, err);
    if (!st) st = option_needed(o.texts, "--texts FILE", err);
    if (!st) st = ranges_check(&o, table, bench_ranges, err);
    if (!st) st = ranges_check(&o, table, ranges, err);
    if (!st) st = open_tokenizer(&t, &o, err);
    if (!st) st = mode_file_read(o.texts, 0, &data, &size, err);
    if (st) goto out;
    x = (struct texts){.t = t, .data = data, .context = (int)o.context};
    for (size_t i = 0; i < size; i++) x.n += data[i] == '\n';
    x.n += size > 0 && data[size - 1] != '\n';
    if (x.n == 0) {
        st = MODE_FAIL(err, MODE_E_VALUE, "%s: holds no text", o.texts);
        goto out;
    }
    x.begin = mode_xmalloc((x.n + 1) * sizeof *x.begin);
    x.begin[0] = 0;
    for (size_t i = 0, k = 0; k < x.n; i++)
        if (i == size || data[i] == '\n') x.begin[++k] = i + 1;
    x.ids = mode_xmalloc((size_t)mode_parallel_threads() * (size_t)x.context * sizeof *x.ids);
    for (int64_t round = 0; round <= o.rounds; round++) {
        struct bench_clock since = bench_now();
        mode_parallel_for((int64_t)((x.n + TEXTS_PER_ITEM - 1) / TEXTS_PER_ITEM), encode_item, &x);
        if (round > 0) bench_print("tokenize", "texts", (int64_t)x.n, since);
    }
out:
    free(x.begin);
    free(x.ids);
    free(data);
    mode_tokenizer_close(&t);
    return st;
}

const struct mode_verb mode_bench_tokenize = {"tokenize", "texts to token ids", run};
