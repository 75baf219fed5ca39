#include "base/log.h"

#include "base/str.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *log_tag = "mode";
static enum mode_log_level log_level = MODE_LOG_INFO;
static const char *const level_name[] = {"error", "warn", "info", "debug"};

void mode_log_open(const char *tag)
{
    const char *v = getenv("MODE_LOG_LEVEL");
    log_tag = tag;
    for (int i = 0; v && i < 4; i++)
        if (strcmp(v, level_name[i]) == 0) log_level = (enum mode_log_level)i;
}

void mode_log_set_level(enum mode_log_level level)
{
    log_level = level;
}

void mode_log_write(enum mode_log_level level, const char *event, const char *fmt, ...)
{
    if (level > log_level) return;
    struct timespec ts;
    struct tm tm;
    char line[4096];
    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    size_t n = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &tm);
    n += (size_t)snprintf(line + n, sizeof line - n, ".%03ldZ %s %s %s ", ts.tv_nsec / 1000000, level_name[level],
                          log_tag, event);
    va_list ap;
    va_start(ap, fmt);
    int m = vsnprintf(line + n, sizeof line - n - 1, fmt, ap);
    va_end(ap);
    if (m > 0) n += (size_t)m;
    if (n > sizeof line - 2) n = sizeof line - 2;
    for (size_t i = 0; i < n; i++) /* one event is one line, whatever a file name contains */
        if ((unsigned char)line[i] < 0x20) line[i] = ' ';
    line[n++] = '\n';
    ssize_t put = write(STDERR_FILENO, line, n);
    (void)put; /* a failed write to stderr cannot be reported */
}

void mode_log_failure(const char *event, const struct mode_error *err)
{
    mode_log_write(MODE_LOG_ERROR, event, "status=%s at=%s:%d %s", mode_status_name(err->status),
                   err->file ? err->file : "?", err->line, err->text);
}
