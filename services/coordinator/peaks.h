/* peaks.h - peak memory of the processes that have no commit record for it: the coordinator itself, Redis, the
 * supervisor that started us, and the agents of workers (which report it with their heartbeats).
 *
 * Threads: one caller. */
#ifndef MODE_COORDINATOR_PEAKS_H
#define MODE_COORDINATOR_PEAKS_H

#include "pipeline/report.h"

struct redis;

struct peaks {
    struct mode_report_process *item; /* names owned */
    int n;
};

/* Records the maximum under a name; 0 (not known) is ignored. */
void peaks_note(struct peaks *p, const char *name, uint64_t bytes);
/* Measures this process, the supervisor if there is one, and Redis (NULL: skip it) if it is up. */
void peaks_measure(struct peaks *p, struct redis *r);
void peaks_clear(struct peaks *p);

#endif
