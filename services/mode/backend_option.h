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

/* Checks that such a backend exists: E_USAGE. Whether it can be used here shows when it is opened. */
enum mode_status backend_check(const struct backend_options *o, struct mode_error *err);
enum mode_status backend_open(struct mode_backend **be, const struct backend_options *o, struct mode_error *err);

/* --memory of training verbs: auto, or bytes; *bytes is 0 for auto and for "0" (no limit, as in docker compose's
 * MODE_MEMORY). E_USAGE. */
enum mode_status memory_option(size_t *bytes, const char *text, struct mode_error *err);

#endif
