#include "peaks.h"

#include "base/process.h"
#include "base/str.h"
#include "redis.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void peaks_note(struct peaks *p, const char *name, uint64_t bytes)
{
    if (!bytes) return;
    int i = 0;
    while (i < p->n && strcmp(p->item[i].name, name) != 0) i++;
    if (i == p->n) {
        p->item = mode_xrealloc(p->item, (size_t)(p->n + 1) * sizeof *p->item);
        p->item[p->n++] = (struct mode_report_process){.name = mode_xstrdup(name)};
    }
    if (bytes > p->item[i].peak_rss_bytes) p->item[i].peak_rss_bytes = bytes;
}

void peaks_measure(struct peaks *p, struct redis *r)
{
    peaks_note(p, "coordinator", mode_process_peak_rss(getpid()));
    if (r) peaks_note(p, "redis", redis_peak_memory(r));
    if (getenv("MODE_SUPERVISED")) peaks_note(p, "supervisor", mode_process_peak_rss(getppid()));
}

void peaks_clear(struct peaks *p)
{
    for (int i = 0; i < p->n; i++) free((char *)(uintptr_t)p->item[i].name);
    free(p->item);
    *p = (struct peaks){0};
}
