#include "base/file.h"
#include "base/fresh.h"
#include "base/str.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum mode_status mode_input_folder(const char *path, struct mode_error *err)
{
    struct stat sb;
    if (stat(path, &sb) != 0) return mode_input_fail(err, errno, path, "be opened");
    if (!S_ISDIR(sb.st_mode)) return MODE_FAIL(err, MODE_E_NOINPUT, "%s: is a file, a folder is needed", path);
    if (access(path, R_OK | X_OK) != 0) return mode_input_fail(err, errno, path, "be read");
    return MODE_OK;
}

enum mode_status mode_dir_make(const char *path, struct mode_error *err)
{
    char *p = mode_xstrdup(path);
    enum mode_status st = MODE_OK;
    for (char *s = p + (*p != '\0');; s++) {
        if (*s != '/' && *s != '\0') continue;
        char keep = *s;
        *s = '\0';
        if (mkdir(p, 0777) != 0 && errno != EEXIST) {
            st = mode_output_fail(err, errno, path, "be made");
            break;
        }
        *s = keep;
        if (keep == '\0') break;
    }
    struct stat sb;
    if (!st && (stat(path, &sb) != 0 || !S_ISDIR(sb.st_mode)))
        st = MODE_FAIL(err, MODE_E_CREATE, "%s: is not a folder", path);
    free(p);
    return st;
}

char *mode_cache_folder(void)
{
    const char *cache = getenv("MODE_CACHE"), *home = getenv("HOME");
    return cache && *cache ? mode_xstrdup(cache) : mode_xasprintf("%s/.cache/mode", home ? home : "");
}

enum mode_status mode_dir_temporary(char **path, struct mode_error *err)
{
    const char *parent = getenv("TMPDIR");
    if (!parent || !*parent) parent = "/tmp";
    *path = mode_path_join(parent, "mode-XXXXXX");
    if (mkdtemp(*path)) return MODE_OK;
    const int e = errno;
    free(*path);
    *path = NULL;
    return mode_output_fail(err, e, parent, "hold a temporary folder (TMPDIR)");
}

enum mode_status mode_dir_remove(const char *path, struct mode_error *err)
{
    struct stat sb;
    enum mode_status st = MODE_OK;
    if (lstat(path, &sb) != 0) {
        if (errno == ENOENT) return MODE_OK;
        return MODE_FAIL(err, MODE_E_IO, "%s: cannot be examined: %s", path, strerror(errno));
    }
    if (!S_ISDIR(sb.st_mode)) {
        if (unlink(path) != 0 && errno != ENOENT)
            return MODE_FAIL(err, MODE_E_IO, "%s: cannot be removed: %s", path, strerror(errno));
        return MODE_OK;
    }
    DIR *d = mode_fresh_opendir(path);
    if (!d) return MODE_FAIL(err, MODE_E_IO, "%s: folder cannot be read: %s", path, strerror(errno));
    for (struct dirent *e; !st && (e = readdir(d)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        char *child = mode_path_join(path, e->d_name);
        st = mode_dir_remove(child, err);
        free(child);
    }
    closedir(d);
    if (!st && rmdir(path) != 0 && errno != ENOENT)
        st = MODE_FAIL(err, MODE_E_IO, "%s: folder cannot be removed: %s", path, strerror(errno));
    return st;
}
