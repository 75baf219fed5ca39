/* environment.h - the variables that are no option's, looked at before anything is done: a wrong value is an error, never
 * the default, and never found out after hours. docs/OPERATIONS.md lists them. */
#ifndef MODE_BASE_ENVIRONMENT_H
#define MODE_BASE_ENVIRONMENT_H

#include "base/error.h"

/* MODE_E_CONFIG names the first that is wrong. One that is empty is not set. */
enum mode_status mode_environment_check(struct mode_error *err);

#endif
