/* running.h - the options that the supervisor of a workspace was started with, so that a second `mode up` can compare
 * them.
 *
 * Lines of the pid file (private to the user: a URL of Redis may hold a password): the pid, then `workers=`, `redis=`
 * (empty: its own), `http=` (empty: none) and `gpus=`. */
#ifndef MODE_SERVICES_MODE_RUNNING_H
#define MODE_SERVICES_MODE_RUNNING_H

#include "supervisor.h"

struct running {
    char *workers, *redis, *http;
    int gpus;
};

/* Writes pid and options to the pid file. */
enum mode_status running_say(int fd, pid_t pid, const struct supervisor_options *o, const char *path,
                             struct mode_error *err);
/* MODE_E_TEMP: the file holds no options (yet; or another version wrote it). */
enum mode_status running_read(struct running *r, const char *workspace, struct mode_error *err);
void running_clear(struct running *r);
/* MODE_OK when it was started with these options; NULL or 0 = not given. Otherwise MODE_E_TEMP with the difference and
 * a hint. */
enum mode_status running_is_asked(const struct running *r, const char *workspace, const char *workers,
                                  const char *redis, const char *http, int gpus, struct mode_error *err);

#endif
