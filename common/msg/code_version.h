/* code_version.h - TaskSpec.code_version of a service: this build's version and the service's own format version.
 *
 * It is part of every task's key: raise a service's number when its outputs change for the same request and
 * inputs, and everything that depends on them is done anew. */
#ifndef MODE_MSG_CODE_VERSION_H
#define MODE_MSG_CODE_VERSION_H

#include "base/version.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* "0.1.0/embed-1" */
static inline void mode_code_version(char *text, size_t n, const char *service)
{
    int format = strcmp(service, "cluster") == 0 ? 3 : 1; /* 3: frequent captions fill one centre, no group is bare */
    snprintf(text, n, "%s/%s-%d", MODE_VERSION, service, format);
}

#endif
