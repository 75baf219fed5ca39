/* backend_name.h - the names of backends (nn/backend.h), also for who only passes them on. */
#ifndef MODE_BASE_BACKEND_NAME_H
#define MODE_BASE_BACKEND_NAME_H

#include "base/error.h"

#include <stdbool.h>

/* Is there a backend of that name, in this build and on this machine or another? */
bool mode_is_backend_name(const char *name);
/* What --backend is given: such a name or "auto". MODE_E_USAGE. */
enum mode_status mode_check_backend_option(const char *name, struct mode_error *err);

#endif
