#include "base/error.h"

#include <execinfo.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *mode_status_name(enum mode_status st)
{
    switch (st) {
#define X(name, code, exit_code, text)                                                                                 \
    case MODE_##name: return #name;
        MODE_STATUS_MAP(X)
#undef X
    }
    return "?";
}

int mode_status_exit_code(enum mode_status st)
{
    switch (st) {
#define X(name, code, exit_code, text)                                                                                 \
    case MODE_##name: return exit_code;
        MODE_STATUS_MAP(X)
#undef X
    }
    return 1;
}

enum mode_status mode_error_set(struct mode_error *err, enum mode_status st, const char *file, int line,
                                const char *fmt, ...)
{
    if (err) {
        va_list ap;
        err->status = st;
        err->file = file;
        err->line = line;
        va_start(ap, fmt);
        vsnprintf(err->text, sizeof err->text, fmt, ap);
        va_end(ap);
    }
    return st;
}

enum mode_status mode_error_prefix(struct mode_error *err, enum mode_status st, const char *fmt, ...)
{
    if (!err) return st;
    char old[sizeof err->text];
    memcpy(old, err->text, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof err->text) snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", old);
    return err->status;
}

void mode_error_rename(struct mode_error *err, const char *temporary, const char *name)
{
    char old[sizeof err->text];
    const char *at = err ? strstr(err->text, temporary) : NULL;
    if (!at) return;
    memcpy(old, err->text, sizeof old);
    const size_t before = (size_t)(at - err->text);
    snprintf(err->text + before, sizeof err->text - before, "%s%s", name, old + before + strlen(temporary));
}

void mode_assert_failed(const char *expr, const char *file, int line)
{
    void *frames[64];
    fprintf(stderr, "%s:%d: bug: assertion failed: %s\n", file, line, expr);
    fflush(stderr);
    int n = backtrace(frames, 64);
    backtrace_symbols_fd(frames, n, STDERR_FILENO);
    abort();
}
