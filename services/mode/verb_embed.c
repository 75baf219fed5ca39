/* mode embed - texts to unit vectors. */
#include "backend_option.h"
#include "base/options.h"
#include "base/output.h"
#include "encoding.h"
#include "hub.h"
#include "nn/backend.h"
#include "pipeline/embed.h"
#include "pooling_option.h"
#include "ranges.h"
#include "verb.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct options {
    struct backend_options backend;
    struct pooling_options pooling;
    const char *encoder, *texts, *captions, *task, *out;
    bool json;
};

static const struct mode_option table[] = {
    MODE_OPT_STR(struct options, encoder, "encoder", NULL, "DIR",
                 "Hugging Face folder of a BERT-family sentence encoder, or its ORG/NAME[@REVISION] on the hub "
                 "(fetched once from HF_ENDPOINT, else https://huggingface.co, with HF_TOKEN)"),
    MODE_OPT_STR(struct options, texts, "texts", NULL, "FILE", "one text per line"),
    MODE_OPT_STR(struct options, captions, "captions", NULL, "FILE", "captions.bin of `mode captions`"),
    MODE_OPT_STR(struct options, task, "task", NULL, "DIR", "evaluation task: a vector per class, or per caption"),
    POOLING_OPTIONS(struct options),
    MODE_OPT_STR(struct options, out, "out", "feat.safetensors", "FILE", "feat [N, d] f32 (.safetensors, or .npy)"),
    BACKEND_OPTIONS(struct options),
    MODE_OPT_FLAG(struct options, json, "json", "print the result as JSON"),
    MODE_OPT_END};

static enum mode_status run(int argc, char **argv, struct mode_error *err)
{
    struct options o = {0};
    struct mode_backend *be = NULL;
    struct mode_text_encoder *enc = NULL;
    char *dir = NULL;
    uint64_t rows = 0;
    int n_args;
    if (mode_options_wants_help(argc, argv)) {
        mode_options_help(table, "MODE_",
                          "mode embed --encoder DIR (--texts FILE | --captions FILE | --task DIR) [options]",
                          "Encodes texts to unit vectors, one row each, in order.");
        return MODE_OK;
    }
    enum mode_status st = mode_options_parse(&o, table, "MODE_", argc, argv, &n_args, err);
    if (st || (st = arguments_check(n_args, 0, argv, NULL, err)) ||
        (st = option_needed(o.encoder, "--encoder DIR (deploy/fetch-models.sh fetches one)", err)))
        return st;
    if (!!o.texts + !!o.captions + !!o.task != 1)
        return MODE_FAIL(err, MODE_E_USAGE, "give exactly one of --texts, --captions, --task");
    if ((st = pooling_check(&o.pooling, err)) || (st = backend_check(&o.backend, err)) ||
        (st = mode_output_file(o.out, err)))
        return st;
    const char *const inputs[] = {o.texts, o.captions, o.task, o.encoder};
    if ((st = mode_output_apart(o.out, inputs, 4, err)) || (st = mode_hub_encoder(&dir, o.encoder, err)) ||
        (st = pooling_check_folder(&o.pooling, dir, err)) || (st = backend_open(&be, &o.backend, err)) ||
        (st = mode_text_encoder_open(&enc, be, dir, o.pooling.name, (int)o.pooling.max_tokens, err)))
        goto out;
    if (o.texts)
        st = mode_embed_lines(&rows, o.out, enc, o.texts, encoding_show, NULL, err);
    else if (o.captions)
        st = mode_embed_captions(&rows, o.out, enc, o.captions, encoding_show, NULL, err);
    else
        st = mode_embed_task(&rows, o.out, enc, o.task, NULL, encoding_show, NULL, err);
    if (st) goto out;
    if (o.json)
        printf("{\"out\": \"%s\", \"rows\": %" PRIu64 ", \"dim\": %d, \"encoder_id\": \"%s\"}\n", o.out, rows,
               mode_text_encoder_dim(enc), mode_text_encoder_id(enc));
    else
        printf("%s: %" PRIu64 " vector%s of %d, encoder %s\n", o.out, rows, MODE_PLURAL(rows),
               mode_text_encoder_dim(enc), mode_text_encoder_id(enc));
out:
    free(dir);
    mode_text_encoder_close(&enc);
    mode_backend_close(&be);
    return st;
}

const struct mode_verb mode_verb_embed = {"embed", "texts to unit vectors with a sentence encoder", run};
