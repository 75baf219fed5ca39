/* logs.h - log rotation. */
#ifndef MODE_SERVICES_MODE_LOGS_H
#define MODE_SERVICES_MODE_LOGS_H

#include <stdint.h>

/* Every <dir>/<name>.log of more than `most` bytes is copied to <name>.log.1, replacing the previous one, and
 * truncated. Writers keep their descriptors (opened with O_APPEND); only a line that is written between copying and
 * truncating is lost. A log that cannot be copied stays as it is. */
void logs_rotate(const char *dir, uint64_t most);

#endif
