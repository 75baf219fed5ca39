#include "base/fresh.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

static bool ask_server(const char *folder)
{
    struct statx x;
    return statx(AT_FDCWD, folder, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &x) == 0;
}

/* The parent folder of path may itself only seem to be missing. False: it is missing. */
static bool ask_about(const char *path)
{
    char *folder = mode_path_folder(path);
    const bool asked = ask_server(folder) ||
                       (errno == ENOENT && strcmp(folder, path) != 0 && ask_about(folder) && ask_server(folder));
    free(folder);
    return asked;
}

/* Whether a second attempt may succeed; keeps errno. */
static bool may_be_there(const char *path)
{
    const int e = errno;
    const bool yes = e == ENOENT && ask_about(path);
    errno = e;
    return yes;
}

int mode_fresh_open(const char *path, int flags)
{
    const int fd = open(path, flags);
    return fd < 0 && may_be_there(path) ? open(path, flags) : fd;
}

bool mode_fresh_stat(const char *path, struct stat *sb)
{
    return stat(path, sb) == 0 || (may_be_there(path) && stat(path, sb) == 0);
}

static void ask_for_list(const char *path)
{
    if (!ask_server(path) && may_be_there(path)) (void)ask_server(path);
}

DIR *mode_fresh_opendir(const char *path)
{
    ask_for_list(path);
    return opendir(path);
}

int mode_fresh_scandir(const char *path, struct dirent ***list, int (*wanted)(const struct dirent *),
                       int (*order)(const struct dirent **, const struct dirent **))
{
    ask_for_list(path);
    return scandir(path, list, wanted, order);
}
