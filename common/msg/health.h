/* health.h - the file that a worker or companion updates while it is alive, for `healthcheck`. */
#ifndef MODE_MSG_HEALTH_H
#define MODE_MSG_HEALTH_H

#include <stdbool.h>

#define MODE_HEALTH_S 2.0 /* interval between writes */

/* connected: to its coordinator or leader. Fails silently: the file then grows stale. */
void mode_health_write(const char *path, bool connected, int busy);
/* The sub-command: prints the health; returns 0 or 1. */
int mode_health_check(const char *path);

#endif
