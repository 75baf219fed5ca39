/* code_version.h - the output version of each service, as in TaskSpec.code_version: "embed-1".
 *
 * The number is part of every task's key. Raise it when a service's outputs change for the same request and inputs: its
 * tasks, and all that depend on their outputs, are then redone after an upgrade. Do not raise it for changes that leave
 * outputs alone (speed, messages, a new option that is off): a needlessly changed key throws away a training.
 * tests/held_outputs.h checks every service against its number. The package version is not part of any key. */
#ifndef MODE_MSG_CODE_VERSION_H
#define MODE_MSG_CODE_VERSION_H

#include <stddef.h>

/* 0: unknown service. */
unsigned mode_code_number(const char *service);
/* "embed-1" */
void mode_code_version(char *text, size_t n, const char *service);

#endif
