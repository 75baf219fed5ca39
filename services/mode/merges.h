/* merges.h - the default place of CLIP's merges file. */
#ifndef MODE_SERVICES_MODE_MERGES_H
#define MODE_SERVICES_MODE_MERGES_H

#include "base/error.h"

/* The --clip-merges option of every verb that tokenizes for CLIP. */
#define MERGES_OPTION(type, field)                                                                                     \
    MODE_OPT_STR(type, field, "clip-merges", NULL, "FILE",                                                             \
                 "bpe_simple_vocab_16e6.txt.gz; default: the one that deploy/fetch-models.sh fetched "                 \
                 "into models/ of MODE_CACHE (else ~/.cache/mode)")

/* Fill *path, when it is NULL, with what deploy/fetch-models.sh left: $MODE_CACHE/models/..., else
 * ~/.cache/mode/models/... (static storage). MODE_E_NOINPUT when there is none. */
enum mode_status merges_find(const char **path, struct mode_error *err);

#endif
