/* verb.h - one verb of the mode command: `mode <name> ...`. Each lives in verb_<name>.c. */
#ifndef MODE_SERVICES_MODE_VERB_H
#define MODE_SERVICES_MODE_VERB_H

#include "base/error.h"

struct mode_verb {
    const char *name;
    const char *summary; /* one line for `mode --help` */
    /* argv[0] is the verb; returns the status that determines the exit code. The verb handles --help itself. */
    enum mode_status (*run)(int argc, char **argv, struct mode_error *err);
};

#endif
