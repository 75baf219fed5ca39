/* mode bench encode - pixels and texts to CLIP features. */
#include "backend_option.h"
#include "base/str.h"
#include "bench.h"
#include "bench_inputs.h"
#include "merges.h"
#include "models/clip.h"
#include "nn/backend.h"
#include "verb.h"

#include <stdlib.h>

struct options {
    struct backend_options backend;
    const char *model, *config, *pixels, *texts, *merges;
    int64_t rounds;
    double seconds;
    bool turns;
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct options, model, "model", NULL, "DIR", "folder of open_clip or Hugging Face"),
    MODE_OPT_STR(struct options, config, "config", NULL, "NAME", "instead: ViT-B-32, ... with random weights"),
    MODE_OPT_STR(struct options, pixels, "pixels", NULL, "FILE", "float32 [N, 3, S, S], raw: pictures, preprocessed"),
    MODE_OPT_STR(struct options, texts, "texts", NULL, "FILE", "instead: one text per line"),
    MERGES_OPTION(struct options, merges),
    BENCH_ROUNDS_OPTION(struct options, rounds),
    BENCH_TURNS_OPTIONS(struct options),
    BACKEND_OPTIONS(struct options),
    MODE_OPT_END};

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct options o = {0};
    struct mode_backend *be = NULL;
    struct mode_clip *clip = NULL;
    struct bench_floats px = {0};
    struct bench_texts texts = {0};
    float *out = NULL;
    int n_args;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_",
                          "mode bench encode (--model DIR | --config NAME) (--pixels FILE | --texts FILE)",
                          "Encodes all of FILE, --rounds times, with MODE_THREADS threads.");
        return MODE_OK;
    }
    enum mode_status st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err);
    if (!st) st = arguments_check(n_args, 0, argv, NULL, err);
    if (!st) st = option_needed(o.pixels ? o.pixels : o.texts, "--pixels FILE or --texts FILE", err);
    if (!st && o.pixels && o.texts) st = MODE_FAIL(err, MODE_E_USAGE, "--pixels and --texts do not go together");
    if (!st) st = ranges_check(&o, table, bench_turns_ranges, err);
    if (!st) st = bench_model_check(o.model, o.config, err);
    if (!st) st = backend_open(&be, &o.backend, err);
    if (!st) st = bench_clip_open(&clip, be, o.model, o.config, err);
    if (!st && o.pixels) st = bench_floats_read(&px, o.pixels, bench_picture_floats(clip), err);
    if (!st && o.texts) st = bench_texts_read(&texts, o.texts, o.merges, mode_clip_context(clip), err);
    if (st) goto out;
    int64_t n = o.pixels ? px.n : texts.n;
    out = mode_xmalloc((size_t)n * (size_t)mode_clip_embed_dim(clip) * sizeof *out);
    for (int64_t round = 0; !st && round <= o.rounds && (round == 0 || bench_turn(o.turns)); round++) {
        struct bench_clock since = bench_now();
        int64_t items = 0;
        do {
            st = o.pixels ? mode_clip_encode_images(clip, out, px.data, n, 0, err)
                          : mode_clip_encode_texts(clip, out, texts.ids, texts.n_ids, n, 0, err);
            items += n;
        } while (!st && round > 0 && bench_goes_on(since, o.seconds));
        if (!st && round > 0) bench_print("encode", o.pixels ? "pictures" : "texts", items, since);
    }
out:
    free(out);
    bench_texts_clear(&texts);
    bench_floats_clear(&px);
    mode_clip_close(&clip);
    mode_backend_close(&be);
    return st;
}

const struct mode_verb mode_bench_encode = {"encode", "pixels or texts to CLIP features", run};
