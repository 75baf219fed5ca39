/* open_clip_names.h - maps open_clip's options to those of `mode train`. */
#ifndef MODE_SERVICES_MODE_OPEN_CLIP_NAMES_H
#define MODE_SERVICES_MODE_OPEN_CLIP_NAMES_H

#include "base/options.h"

/* After mode_options_parse rejected an option of open_clip: prints every open_clip option of the command line with its
 * equivalent here, one per line, and makes err refer to them. Returns st. */
enum mode_status open_clip_names(enum mode_status st, const struct mode_option *table, int argc, char **argv,
                                 struct mode_error *err);

#endif
