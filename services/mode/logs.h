/* logs.h - logs that do not fill the disk. */
#ifndef MODE_SERVICES_MODE_LOGS_H
#define MODE_SERVICES_MODE_LOGS_H

#include <stdint.h>

/* Every <dir>/<name>.log of more than `most` bytes becomes <name>.log.1, in place of the one before, and begins anew.
 * Whoever writes to it keeps its descriptor (opened with O_APPEND): the text is copied and the file cut, and only a line
 * that is written between these two is lost. What cannot be copied stays as it is. */
void logs_rotate(const char *dir, uint64_t most);

#endif
