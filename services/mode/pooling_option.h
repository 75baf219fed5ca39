/* pooling_option.h - the options --pooling and --max-tokens, the same in every verb that embeds texts. */
#ifndef MODE_SERVICES_MODE_POOLING_OPTION_H
#define MODE_SERVICES_MODE_POOLING_OPTION_H

#include "base/options.h"

struct pooling_options {
    const char *name; /* NULL: what the folder says */
    int64_t max_tokens;
};

/* type has a struct pooling_options named pooling */
#define POOLING_OPTIONS(type)                                                                                          \
    MODE_OPT_STR(type, pooling.name, "pooling", NULL, "pooler|cls|mean",                                               \
                 "default: what the folder says, else pooler"),                                                        \
        MODE_OPT_INT(type, pooling.max_tokens, "max-tokens", "0", "N",                                                 \
                     "longer texts are truncated; 0 = what the folder says")

/* Checks values that no encoder accepts. E_USAGE. */
enum mode_status pooling_check(const struct pooling_options *o, struct mode_error *err);
/* Checks against the encoder in dir: texts longer than its positions are E_USAGE; other faults of the folder are found
 * when it is opened. */
enum mode_status pooling_check_folder(const struct pooling_options *o, const char *dir, struct mode_error *err);

#endif
