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
                     "longer texts are cut; 0 = what the folder says")

/* What no encoder could take. E_USAGE. */
enum mode_status pooling_check(const struct pooling_options *o, struct mode_error *err);
/* What the encoder in dir does not take: texts longer than it has positions for. E_USAGE; other faults of the folder
 * are found where it is opened. */
enum mode_status pooling_check_folder(const struct pooling_options *o, const char *dir, struct mode_error *err);

#endif
