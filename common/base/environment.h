/* environment.h - checks the environment variables that belong to no option before anything is done: a wrong value is
 * an error at once, never the default, never found hours later. docs/OPERATIONS.md lists them. */
#ifndef MODE_BASE_ENVIRONMENT_H
#define MODE_BASE_ENVIRONMENT_H

#include "base/error.h"

/* MODE_E_CONFIG names the first that is wrong. An empty variable counts as unset. */
enum mode_status mode_environment_check(struct mode_error *err);

#endif
