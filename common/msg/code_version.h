/* code_version.h - the numbers of the services' outputs: TaskSpec.code_version is "embed-1".
 *
 * Such a number is part of every task's key. Raise it when a service's outputs change for the same request and inputs:
 * its tasks, and all that depends on their outputs, are then done anew by whoever upgrades. What does not change an
 * output (speed, words, a new option that is off) leaves it alone: a key without need for a new one is a training that
 * is thrown away. tests/held_outputs.h holds every service to its number. The version of the package is in no key. */
#ifndef MODE_MSG_CODE_VERSION_H
#define MODE_MSG_CODE_VERSION_H

#include <stddef.h>

/* 0: a service of which nothing is known here. */
unsigned mode_code_number(const char *service);
/* "embed-1" */
void mode_code_version(char *text, size_t n, const char *service);

#endif
