/* mode bench embed - texts to sentence vectors, tokenizer included. */
#include "backend_option.h"
#include "base/str.h"
#include "bench.h"
#include "bench_inputs.h"
#include "models/bert.h"
#include "nn/backend.h"
#include "pooling_option.h"
#include "verb.h"

#include <stdlib.h>

struct options {
    struct backend_options backend;
    struct pooling_options pooling;
    const char *encoder, *texts;
    int64_t rounds;
    double seconds;
    bool turns;
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct options, encoder, "encoder", NULL, "DIR", "Hugging Face folder of a BERT-family encoder"),
    MODE_OPT_STR(struct options, texts, "texts", NULL, "FILE", "one text per line"),
    POOLING_OPTIONS(struct options),
    BENCH_ROUNDS_OPTION(struct options, rounds),
    BENCH_TURNS_OPTIONS(struct options),
    BACKEND_OPTIONS(struct options),
    MODE_OPT_END};

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct options o = {0};
    struct mode_backend *be = NULL;
    struct mode_text_encoder *enc = NULL;
    struct bench_lines lines = {0};
    float *out = NULL;
    int n_args;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_", "mode bench embed --encoder DIR --texts FILE [options]",
                          "Embeds all lines of FILE, --rounds times, with MODE_THREADS threads.");
        return MODE_OK;
    }
    enum mode_status st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err);
    if (!st) st = arguments_check(n_args, 0, argv, NULL, err);
    if (!st) st = option_needed(o.encoder, "--encoder DIR", err);
    if (!st) st = option_needed(o.texts, "--texts FILE", err);
    if (!st) st = ranges_check(&o, table, bench_turns_ranges, err);
    if (!st) st = pooling_check(&o.pooling, err);
    if (!st) st = pooling_check_folder(&o.pooling, o.encoder, err);
    if (!st) st = backend_open(&be, &o.backend, err);
    if (!st) st = mode_text_encoder_open(&enc, be, o.encoder, o.pooling.name, (int)o.pooling.max_tokens, err);
    if (!st) st = bench_lines_read(&lines, o.texts, err);
    if (st) goto out;
    out = mode_xmalloc(lines.n * (size_t)mode_text_encoder_dim(enc) * sizeof *out);
    for (int64_t round = 0; !st && round <= o.rounds && (round == 0 || bench_turn(o.turns)); round++) {
        struct bench_clock since = bench_now();
        int64_t items = 0;
        do {
            st = mode_text_encoder_encode(enc, out, (const char *const *)lines.line, lines.n, NULL, NULL, err);
            items += (int64_t)lines.n;
        } while (!st && round > 0 && bench_goes_on(since, o.seconds));
        if (!st && round > 0) bench_print("embed", "texts", items, since);
    }
out:
    free(out);
    bench_lines_clear(&lines);
    mode_text_encoder_close(&enc);
    mode_backend_close(&be);
    return st;
}

const struct mode_verb mode_bench_embed = {"embed", "texts to sentence vectors", run};
