/* open_clip_names.h - who knows open_clip's options finds those of `mode train`. */
#ifndef MODE_SERVICES_MODE_OPEN_CLIP_NAMES_H
#define MODE_SERVICES_MODE_OPEN_CLIP_NAMES_H

#include "base/options.h"

/* After mode_options_parse refused an option: where it is one of open_clip's, every such option of the command line is
 * said, one a line, with what it is here, and err points to all of them. Returns st. */
enum mode_status open_clip_names(enum mode_status st, const struct mode_option *table, int argc, char **argv,
                                 struct mode_error *err);

#endif
