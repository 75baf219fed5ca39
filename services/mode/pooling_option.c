#include "pooling_option.h"

#include "models/bert.h"

enum mode_status pooling_check(const struct pooling_options *o, struct mode_error *err)
{
    if (o->name && !mode_text_encoder_knows_pooling(o->name))
        return MODE_FAIL(err, MODE_E_USAGE, "--pooling: \"%.40s\" is unknown, expected pooler, cls or mean", o->name);
    if (o->max_tokens != 0 && (o->max_tokens < MODE_ENCODER_FEWEST_TOKENS || o->max_tokens > 1 << 16))
        return MODE_FAIL(err, MODE_E_USAGE,
                         "--max-tokens: %lld is out of range, expected 0 (what the folder says) or %d to %d",
                         (long long)o->max_tokens, MODE_ENCODER_FEWEST_TOKENS, 1 << 16);
    return MODE_OK;
}
