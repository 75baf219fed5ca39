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

enum mode_status pooling_check_folder(const struct pooling_options *o, const char *dir, struct mode_error *err)
{
    struct mode_error why;
    if (o->max_tokens == 0 || mode_text_encoder_id_of(dir, o->name, 0, NULL, NULL, NULL, NULL)) return MODE_OK;
    if (!mode_text_encoder_id_of(dir, o->name, (int)o->max_tokens, NULL, NULL, NULL, &why)) return MODE_OK;
    return MODE_FAIL(err, MODE_E_USAGE, "--max-tokens: %s", why.text);
}
