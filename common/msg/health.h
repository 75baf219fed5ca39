/* health.h - the file that a worker, or a companion of one, keeps fresh while it lives: for `healthcheck`. */
#ifndef MODE_MSG_HEALTH_H
#define MODE_MSG_HEALTH_H

#include <stdbool.h>

#define MODE_HEALTH_S 2.0 /* between two times that it is written */

/* connected: to whom it waits for tasks from. Fails silently: a file that grows old says it. */
void mode_health_write(const char *path, bool connected, int busy);
/* The sub-command: says how it is; 0 or 1. */
int mode_health_check(const char *path);

#endif
