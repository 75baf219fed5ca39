/* log.h - one line per event on stderr, key=value.
 *
 *     mode_log_info("shard_done", "shard=%s rows=%zu", name, n);
 *  -> 2026-01-02T03:04:05.678Z info embed shard_done shard=3.tar rows=998
 *
 * `event` is a constant word, so that it can be counted; prose goes last. error = a person must act, warn = something
 * was lost but the work continues, info = milestones, few enough to be read, debug = off by default. Only services and
 * the command line log; libraries in common/ return errors and fill statistics. Captions and secret keys are never
 * logged.
 *
 * Threads: any. A line is written with one write(2). */
#ifndef MODE_BASE_LOG_H
#define MODE_BASE_LOG_H

#include "base/error.h"

enum mode_log_level { MODE_LOG_ERROR, MODE_LOG_WARN, MODE_LOG_INFO, MODE_LOG_DEBUG };

/* tag: the service's word. Level from MODE_LOG_LEVEL (error|warn|info|debug), else info; mode_environment_check rejects
 * other values. */
void mode_log_open(const char *tag);
void mode_log_set_level(enum mode_log_level level);
void mode_log_write(enum mode_log_level level, const char *event, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
#define mode_log_error(event, ...) mode_log_write(MODE_LOG_ERROR, event, __VA_ARGS__)
#define mode_log_warn(event, ...)  mode_log_write(MODE_LOG_WARN, event, __VA_ARGS__)
#define mode_log_info(event, ...)  mode_log_write(MODE_LOG_INFO, event, __VA_ARGS__)
#define mode_log_debug(event, ...) mode_log_write(MODE_LOG_DEBUG, event, __VA_ARGS__)
/* error line with status, place and text of err */
void mode_log_failure(const char *event, const struct mode_error *err);

#endif
