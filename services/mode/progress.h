/* progress.h - displays a run: progress bars on a terminal, plain lines elsewhere. */
#ifndef MODE_SERVICES_MODE_PROGRESS_H
#define MODE_SERVICES_MODE_PROGRESS_H

#include "proto/envelope.pb-c.h"

#include <stdbool.h>
#include <stdio.h>

#define PROGRESS_STAGES 16

struct progress {
    FILE *out;
    bool terminal, colour;
    int lines; /* drawn so far, to be overwritten */
    bool begun[PROGRESS_STAGES], ended[PROGRESS_STAGES];
    double spoke_s; /* when the last regular line was written */
};

/* A terminal gets bars unless TERM=dumb or no_bars. */
void progress_open(struct progress *p, FILE *out, bool no_bars);
void progress_show(struct progress *p, const Mode__Run *run);
/* A line of its own between the bars. */
void progress_say(struct progress *p, const char *text);
/* "1:02:03" / "2:05" */
void progress_time(char *out, size_t n, double seconds);

#endif
