/* world.c - what the plans ask about the encoder, the tokenizer and the evaluation tasks. */
#include "server.h"

#include "base/str.h"
#include "data/evalset.h"
#include "data/tokenizer.h"
#include "models/bert.h"
#include "pipeline/given.h"

#include <stdlib.h>
#include <string.h>

static enum mode_status encoder_id(char **id, struct mode_spec *spec, struct mode_error *err)
{
    char text[MODE_ENCODER_ID];
    const char *pooling = strcmp(spec->encoder.pooling, "auto") == 0 ? NULL : spec->encoder.pooling;
    int max_tokens;
    struct mode_error why;
    enum mode_status st = mode_text_encoder_id_of(spec->encoder.dir, pooling, (int)spec->encoder.max_tokens, text,
                                                  &pooling, &max_tokens, &why);
    if (st == MODE_E_VALUE && spec->encoder.max_tokens) /* the encoder is well, the key does not fit it */
        return MODE_FAIL(err, MODE_E_CONFIG, "encoder.max_tokens: %s", why.text);
    if (st) return MODE_FAIL(err, st, "encoder: %s", why.text);
    *id = mode_xstrdup(text);
    free(spec->encoder.pooling);
    spec->encoder.pooling = mode_xstrdup(pooling);
    spec->encoder.max_tokens = (uint64_t)max_tokens;
    return MODE_OK;
}

static enum mode_status tokenizer_ids(int64_t *n, const char *merges, struct mode_error *err)
{
    struct mode_tokenizer *t = NULL;
    enum mode_status st = mode_tokenizer_open_clip(&t, merges, MODE_CLIP_CLEAN_OPENAI, err);
    if (st) return st;
    *n = mode_tokenizer_vocab_size(t);
    mode_tokenizer_close(&t);
    return MODE_OK;
}

static enum mode_status init(char hex[MODE_DIGEST_HEX], uint64_t *step, const struct mode_spec *spec,
                             struct mode_error *err)
{
    struct mode_given g;
    enum mode_status st = mode_given_find(&g, spec->train.init, err);
    if (!st) st = mode_given_agree(&g, spec->model_config, spec->preprocess_config, err);
    if (!st && ((st = mode_clip_files_check(&g.files, err)) == MODE_E_SHAPE || st == MODE_E_FORMAT)) {
        st = MODE_E_CONFIG; /* there is a model, but the spec must name another */
        err->status = st;
    }
    if (!st) st = mode_given_digest(&g, hex, err);
    *step = g.step;
    mode_given_clear(&g);
    return st;
}

const struct plan_world server_world = {
    .encoder_id = encoder_id,
    .task_digest = mode_evalset_digest,
    .words_digest = mode_evalset_words_digest,
    .tokenizer_ids = tokenizer_ids,
    .init = init,
};
