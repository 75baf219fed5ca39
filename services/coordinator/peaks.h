/* peaks.h - most memory of every process that has no commit record to say it: the coordinator itself, Redis, the
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

/* Remembers the highest value seen under a name; 0 = not known is left out. */
void peaks_note(struct peaks *p, const char *name, uint64_t bytes);
/* Looks at ourselves, at the supervisor where there is one, and at Redis (NULL: leave it out) where it is up. */
void peaks_measure(struct peaks *p, struct redis *r);
void peaks_clear(struct peaks *p);

#endif
