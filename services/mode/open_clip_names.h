/* open_clip_names.h - the options of open_clip_train 3.3.0 and what they are here, in `mode train` and in a run spec.
 *
 * docs/FROM_OPEN_CLIP.md has the reasons. The rows are in the order of open_clip's own parser, params.py. */
#ifndef MODE_SERVICES_MODE_OPEN_CLIP_NAMES_H
#define MODE_SERVICES_MODE_OPEN_CLIP_NAMES_H

#include "base/options.h"

enum open_clip_values { OPEN_CLIP_FLAG, OPEN_CLIP_ONE, OPEN_CLIP_MANY }; /* argparse's nargs: none, one, + or * */

enum open_clip_in_spec {
    /* its value is that of the key `spec`. value: the key's if the option is not given; of a flag if it is given */
    OPEN_CLIP_KEY,
    OPEN_CLIP_EPOCHS,      /* it is a number of epochs; the key `spec` is the same in steps */
    OPEN_CLIP_RULE,        /* open_clip_spec.c translates it, or says why not */
    OPEN_CLIP_NOT_NEEDED,  /* spec: why */
    OPEN_CLIP_UNSUPPORTED, /* spec: why; value: the one value with which nothing is lost */
};

struct open_clip_name {
    const char *name; /* without the dashes */
    enum open_clip_values values;
    enum open_clip_in_spec in_spec;
    const char *spec, *value; /* as above; NULL: none */
    const char *train;        /* what it is in `mode train`; NULL: an option of the same name */
};

/* The i-th row; NULL past the last. */
const struct open_clip_name *open_clip_name(size_t i);
/* The row of a name of n bytes, as argparse finds it: a prefix of one name only will do. NULL: unknown, or the prefix
 * of several. */
const struct open_clip_name *open_clip_name_find(const char *name, size_t n);

/* After mode_options_parse rejected an option of open_clip: prints every open_clip option of the command line with its
 * equivalent here, one per line, and makes err refer to them. Returns st. */
enum mode_status open_clip_names(enum mode_status st, const struct mode_option *table, int argc, char **argv,
                                 struct mode_error *err);

#endif
