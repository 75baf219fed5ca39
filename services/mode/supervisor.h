/* supervisor.h - keeps Redis, the coordinator and the workers of one workspace running on this machine.
 *
 * One process in a session of its own. Every child has its own process group, its log in <workspace>/logs/<name>.log
 * and its pid in a file beside the sockets; one that dies is restarted, at first immediately, then with growing pauses.
 * When the supervisor itself is killed the kernel sends its children SIGTERM. Correctness does not depend on it: any
 * process may be killed at any time, the store is authoritative.
 *
 * It is running if <place>/supervisor.pid is locked; the file holds its pid and options (running.h). */
#ifndef MODE_SERVICES_MODE_SUPERVISOR_H
#define MODE_SERVICES_MODE_SUPERVISOR_H

#include "base/error.h"

#include <stdbool.h>
#include <sys/types.h>

struct supervisor_options {
    const char *workspace; /* absolute */
    const char *bin;       /* folder of the executables */
    const char *redis_url; /* NULL: a private Redis is started too */
    const char *http;      /* for the coordinator; "" = none */
    int gpus;              /* of each train worker */
    const char *workers;   /* "captions=1,embed=1,..." */
};

/* Run until SIGTERM or SIGINT; everything is stopped before it returns. MODE_E_TEMP: another one is already running;
 * MODE_E_CONFIG: the first start of a child ended with that (a port is taken, a key is missing), so a retry would,
 * too. */
enum mode_status supervisor_run(const struct supervisor_options *o, struct mode_error *err);
/* Pid of the workspace's supervisor, 0 when none runs. */
enum mode_status supervisor_find(pid_t *pid, const char *workspace, struct mode_error *err);
/* Kills processes left behind by a killed supervisor, and counts them. MODE_E_TEMP: a supervisor is running. */
enum mode_status supervisor_sweep(int *n_killed, const char *workspace, struct mode_error *err);
/* Last line of a log, for an error text; "" without one. */
void supervisor_last_line(char *out, size_t n, const char *workspace, const char *name);
/* The i-th kind of worker; NULL past the last. */
const char *supervisor_kind(int i);
/* Number of workers in the list; MODE_E_USAGE for unknown kinds and bad numbers. */
enum mode_status supervisor_count_workers(int *n, const char *workers, struct mode_error *err);

#endif
