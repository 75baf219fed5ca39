/* backend_option.h - the options --backend and --device, the same in every verb that computes. */
#ifndef MODE_SERVICES_MODE_BACKEND_OPTION_H
#define MODE_SERVICES_MODE_BACKEND_OPTION_H

#include "base/options.h"
#include "nn/choice.h"

struct backend_options {
    const char *name;
    int64_t device;
};

/* type has a struct backend_options named backend */
#define BACKEND_OPTIONS(type) MODE_OPT_BACKEND(type, backend.name, backend.device)

enum mode_status backend_open(struct mode_backend **be, const struct backend_options *o, struct mode_error *err);

#endif
