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

/* Does such a backend exist? E_USAGE; whether it is here, opening it says. */
enum mode_status backend_check(const struct backend_options *o, struct mode_error *err);
enum mode_status backend_open(struct mode_backend **be, const struct backend_options *o, struct mode_error *err);

/* --memory of what trains: auto, or bytes; *bytes is 0 for auto and "0", no limit, as docker compose's MODE_MEMORY says
 * it. E_USAGE. */
enum mode_status memory_option(size_t *bytes, const char *text, struct mode_error *err);

#endif
