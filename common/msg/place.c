#include "msg/place.h"

#include "base/file.h"
#include "base/str.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* sun_path minus the longest name and the suffix that ZeroMQ may append */
#define MAX_FOLDER 80

enum mode_status mode_place_exists(const char *workspace, struct mode_error *err)
{
    struct stat sb;
    if (stat(workspace, &sb) != 0 && errno == ENOENT)
        return MODE_FAIL(err, MODE_E_NOINPUT,
                         "the workspace %s does not exist. HINT: `mode up --workspace %s` creates one; for an existing "
                         "one give the --workspace DIR of its `mode up`",
                         workspace, workspace);
    enum mode_status st = mode_input_folder(workspace, err);
    return st ? mode_error_prefix(err, st, "the workspace") : MODE_OK;
}

static enum mode_status folder(char **out, const char *workspace, struct mode_error *err)
{
    char real[PATH_MAX];
    enum mode_status st = mode_place_exists(workspace, err);
    if (st) return st;
    if (!realpath(workspace, real)) return mode_input_fail(err, errno, workspace, "be opened");
    if (strlen(real) + strlen("/run") <= MAX_FOLDER) {
        *out = mode_path_join(real, "run");
        return MODE_OK;
    }
    char hex[MODE_DIGEST_HEX];
    mode_digest_bytes(real, strlen(real), hex);
    *out = mode_xasprintf("/tmp/mode-%u-%.16s", (unsigned)getuid(), hex);
    return MODE_OK;
}

enum mode_status mode_place_path(char **path, const char *workspace, const char *name, struct mode_error *err)
{
    char *dir;
    *path = NULL;
    enum mode_status st = folder(&dir, workspace, err);
    if (st) return st;
    *path = mode_path_join(dir, name);
    free(dir);
    return MODE_OK;
}

enum mode_status mode_place_endpoint(char **endpoint, const char *workspace, const char *name, struct mode_error *err)
{
    char *path;
    *endpoint = NULL;
    enum mode_status st = mode_place_path(&path, workspace, name, err);
    if (st) return st;
    *endpoint = mode_xasprintf("ipc://%s", path);
    free(path);
    return MODE_OK;
}

int64_t mode_place_workers(const char *list, const char *kind)
{
    size_t n = strlen(kind);
    int64_t sum = 0;
    for (const char *at = list; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, kind, n) != 0) continue;
        if (at[n] == '=')
            sum += atol(at + n + 1);
        else
            sum += at[n] == '\0' || at[n] == ',';
    }
    return sum;
}

enum mode_status mode_place_make(const char *workspace, struct mode_error *err)
{
    char *dir;
    struct stat s;
    enum mode_status st = folder(&dir, workspace, err);
    if (st) return st;
    if (mkdir(dir, 0700) != 0 && errno != EEXIST)
        st = MODE_FAIL(err, MODE_E_CREATE, "%s cannot be made: %s", dir, strerror(errno));
    else if (lstat(dir, &s) != 0 || !S_ISDIR(s.st_mode))
        st = MODE_FAIL(err, MODE_E_CREATE, "%s is not a folder", dir);
    else if (s.st_uid != getuid())
        st = MODE_FAIL(err, MODE_E_PERM, "%s belongs to another user", dir);
    else if (chmod(dir, 0700) != 0)
        st = MODE_FAIL(err, MODE_E_PERM, "%s: %s", dir, strerror(errno));
    free(dir);
    return st;
}
