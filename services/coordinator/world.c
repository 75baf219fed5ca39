/* world.c - the plans' queries about encoder, tokenizer and evaluation tasks. */
#include "server.h"

#include "base/str.h"
#include "data/evalset.h"
#include "data/tokenizer.h"
#include "models/bert.h"
#include "pipeline/given.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The identity depends on pooling and max_tokens as well as the files; these two are resolved without digesting
 * anything. */
static enum mode_status encoder_id(char **id, struct digests *d, struct mode_spec *spec, struct mode_error *err)
{
    char text[DIGESTS_VALUE], what[64];
    const char *dir = spec->encoder.dir,
               *pooling = strcmp(spec->encoder.pooling, "auto") == 0 ? NULL : spec->encoder.pooling;
    int max_tokens;
    struct digests_look look;
    struct mode_error why;
    _Static_assert((int)DIGESTS_VALUE >= (int)MODE_ENCODER_ID, "an identity is a value");
    enum mode_status st = mode_text_encoder_id_of(dir, pooling, (int)spec->encoder.max_tokens, NULL, &pooling,
                                                  &max_tokens, &why);
    if (!st) snprintf(what, sizeof what, "encoder %s %d", pooling, max_tokens);
    if (!st) digests_begin(d, "the encoder");
    if (!st) digests_expect(d, what, dir);
    if (!st && !digests_find(text, &look, d, what, dir)) {
        st = mode_text_encoder_id_of(dir, pooling, max_tokens, text, NULL, NULL, &why);
        if (!st) digests_keep(d, &look, text);
    }
    if (st == MODE_E_VALUE && spec->encoder.max_tokens) /* the encoder is valid, the key does not fit it */
        return MODE_FAIL(err, MODE_E_CONFIG, "encoder.max_tokens: %s", why.text);
    if (st) return MODE_FAIL(err, st, "encoder: %s", why.text);
    *id = mode_xstrdup(text);
    free(spec->encoder.pooling);
    spec->encoder.pooling = mode_xstrdup(pooling);
    spec->encoder.max_tokens = (uint64_t)max_tokens;
    return MODE_OK;
}

static enum mode_status task_digest(char hex[DIGESTS_VALUE], struct digests *d, const char *dir, struct mode_error *err)
{
    struct digests_look look;
    if (digests_find(hex, &look, d, PLAN_DIGEST_TASK, dir)) return MODE_OK;
    enum mode_status st = mode_evalset_digest(dir, hex, err);
    if (!st) digests_keep(d, &look, hex);
    return st;
}

static enum mode_status words_digest(char hex[DIGESTS_VALUE], struct digests *d, const char *dir,
                                     struct mode_error *err)
{
    struct digests_look look;
    if (digests_find(hex, &look, d, "words", dir)) return MODE_OK;
    enum mode_status st = mode_evalset_words_digest(dir, hex, err);
    if (!st) digests_keep(d, &look, hex);
    return st;
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

static enum mode_status init(char hex[DIGESTS_VALUE], uint64_t *step, struct digests *d, const struct mode_spec *spec,
                             struct mode_error *err)
{
    static const char given[] = "init";
    struct mode_given g;
    struct digests_look look;
    enum mode_status st = mode_given_find(&g, spec->train.init, err);
    if (!st) st = mode_given_agree(&g, spec->model_config, spec->preprocess_config, err);
    if (!st && ((st = mode_clip_files_check(&g.files, err)) == MODE_E_SHAPE || st == MODE_E_FORMAT)) {
        st = MODE_E_CONFIG; /* the model exists, but the spec must name another */
        err->status = st;
    }
    digests_begin(d, "the model to begin with");
    digests_expect(d, given, spec->train.init);
    if (!st && !digests_find(hex, &look, d, given, spec->train.init)) {
        st = mode_given_digest(&g, hex, err);
        if (!st) digests_keep(d, &look, hex);
    }
    *step = g.step;
    mode_given_clear(&g);
    return st;
}

const struct plan_world server_world = {
    .encoder_id = encoder_id,
    .task_digest = task_digest,
    .words_digest = words_digest,
    .tokenizer_ids = tokenizer_ids,
    .init = init,
};
