#include "base/backend_name.h"

#include <string.h>

bool mode_is_backend_name(const char *name)
{
#define X(known, precision, ops, whom)                                                                                 \
    if (strcmp(name, known) == 0) return true;
    MODE_BACKENDS(X)
#undef X
    return false;
}

enum mode_status mode_check_backend_option(const char *name, struct mode_error *err)
{
    if (strcmp(name, "auto") == 0 || mode_is_backend_name(name)) return MODE_OK;
    return MODE_FAIL(err, MODE_E_USAGE, "--backend: \"%.40s\" is unknown; expected %s", name, MODE_BACKENDS_HELP);
}
