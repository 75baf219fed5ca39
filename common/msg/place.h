/* place.h - paths of the sockets and lock files of a workspace.
 *
 * <workspace>/run/<name>, or, since the path of a Unix socket is at most 107 bytes, /tmp/mode-<uid>-<hash>/<name>
 * for a workspace with a long path. The path depends on the workspace alone, so all processes find the same one. */
#ifndef MODE_MSG_PLACE_H
#define MODE_MSG_PLACE_H

#include "base/error.h"

#include <stdint.h>

/* MODE_OK when the workspace exists; otherwise the error says how to create one. */
enum mode_status mode_place_exists(const char *workspace, struct mode_error *err);
/* Path of a name ("worker.sock", "admin.sock", "redis.sock", "supervisor.pid") for the workspace; malloc'd. The
 * workspace must exist. */
enum mode_status mode_place_path(char **path, const char *workspace, const char *name, struct mode_error *err);
/* The same as "ipc://<path>"; malloc'd. */
enum mode_status mode_place_endpoint(char **endpoint, const char *workspace, const char *name, struct mode_error *err);
/* Makes the folder (0700) of these paths. MODE_E_PERM when it belongs to another user. */
enum mode_status mode_place_make(const char *workspace, struct mode_error *err);

/* Number of workers of that kind in a list like "captions=2,embed" (--workers of `mode up`). */
int64_t mode_place_workers(const char *list, const char *kind);

#endif
