#include "lines.h"

#include "base/file.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>

enum mode_status lines_read(struct lines *l, const char *path, struct mode_error *err)
{
    size_t size;
    *l = (struct lines){0};
    enum mode_status st = mode_file_read(path, 0, &l->text, &size, err);
    if (st) return st;
    const char *zero = memchr(l->text, '\0', size);
    if (zero)
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: byte %zu is NUL: not a text file", path, (size_t)(zero - l->text));
    for (char *at = l->text; *at;) {
        char *end = strchr(at, '\n'), *next = end ? end + 1 : at + strlen(at);
        if (end) *end = '\0';
        size_t len = strlen(at);
        if (len && at[len - 1] == '\r') at[len - 1] = '\0';
        l->line = mode_xrealloc(l->line, (size_t)(l->n + 1) * sizeof *l->line);
        l->line[l->n++] = at;
        at = next;
    }
    return MODE_OK;
}

enum mode_status lines_blame(const char *path, int64_t i, enum mode_status st, struct mode_error *err)
{
    return mode_error_prefix(err, st, "%s, line %lld", path, (long long)i + 1);
}

void lines_free(struct lines *l)
{
    free(l->line);
    free(l->text);
    *l = (struct lines){0};
}
