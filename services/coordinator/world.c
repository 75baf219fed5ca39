/* world.c - what the plans ask about the encoder and the evaluation tasks. */
#include "server.h"

#include "base/str.h"
#include "data/evalset.h"
#include "models/bert.h"

#include <stdlib.h>
#include <string.h>

static enum mode_status encoder_id(char **id, struct mode_spec *spec, struct mode_error *err)
{
    char text[MODE_ENCODER_ID];
    const char *pooling = strcmp(spec->encoder.pooling, "auto") == 0 ? NULL : spec->encoder.pooling;
    int max_tokens;
    enum mode_status st = mode_text_encoder_id_of(spec->encoder.dir, pooling, (int)spec->encoder.max_tokens, text,
                                                  &pooling, &max_tokens, err);
    if (st) return st;
    *id = mode_xstrdup(text);
    free(spec->encoder.pooling);
    spec->encoder.pooling = mode_xstrdup(pooling);
    spec->encoder.max_tokens = (uint64_t)max_tokens;
    return MODE_OK;
}

const struct plan_world server_world = {
    .encoder_id = encoder_id,
    .task_digest = mode_evalset_digest,
    .words_digest = mode_evalset_words_digest,
};
