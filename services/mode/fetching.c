#include "fetching.h"

#include "interrupt.h"

#include <stdio.h>
#include <unistd.h>

bool fetching_show(const char *what, uint64_t done, uint64_t total)
{
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "fetching %s: %.1f of %.1f MB%s", what, (double)done / 1e6, (double)total / 1e6,
                done == total ? "\n" : "\r");
    return !interrupt_signal();
}
