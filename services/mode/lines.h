/* lines.h - a text file, split into lines. */
#ifndef MODE_SERVICES_MODE_LINES_H
#define MODE_SERVICES_MODE_LINES_H

#include "base/error.h"

#include <stdint.h>

struct lines {
    char *text, **line; /* line[i] points into text */
    int64_t n;
};

/* The last newline is optional; "\r\n" also ends a line. MODE_E_FORMAT: a zero byte. Free also after a failure. */
enum mode_status lines_read(struct lines *l, const char *path, struct mode_error *err);
/* Prefixes an error about line i (from 0) of that file with its place. */
enum mode_status lines_blame(const char *path, int64_t i, enum mode_status st, struct mode_error *err);
void lines_free(struct lines *l);

#endif
