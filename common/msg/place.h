/* place.h - where the processes of one workspace meet: sockets and lock files.
 *
 * <workspace>/run/<name>, or, since the path of a Unix socket is at most 107 bytes, /tmp/mode-<uid>-<hash>/<name>
 * for a workspace with a long path. Everybody who knows the workspace finds the same place. */
#ifndef MODE_MSG_PLACE_H
#define MODE_MSG_PLACE_H

#include "base/error.h"

#include <stdint.h>

/* MODE_OK when there is such a folder; otherwise a sentence that says how one comes to be. */
enum mode_status mode_place_exists(const char *workspace, struct mode_error *err);
/* Path of a name ("worker.sock", "admin.sock", "redis.sock", "supervisor.pid") for the workspace; malloc'd. The
 * workspace must exist. */
enum mode_status mode_place_path(char **path, const char *workspace, const char *name, struct mode_error *err);
/* The same as "ipc://<path>"; malloc'd. */
enum mode_status mode_place_endpoint(char **endpoint, const char *workspace, const char *name, struct mode_error *err);
/* Make the folder (0700) that the paths are in. MODE_E_PERM when it belongs to somebody else. */
enum mode_status mode_place_make(const char *workspace, struct mode_error *err);

/* How many workers of that kind a list like "captions=2,embed" (--workers of `mode up`) has. */
int64_t mode_place_workers(const char *list, const char *kind);

#endif
