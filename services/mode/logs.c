#include "logs.h"

#include "base/file.h"
#include "base/log.h"
#include "base/str.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Copies all data, including what is written meanwhile. */
static bool copy(int from, int to)
{
    char part[1 << 16];
    ssize_t n;
    while ((n = read(from, part, sizeof part)) > 0)
        for (ssize_t at = 0, w; at < n; at += w)
            if ((w = write(to, part + at, (size_t)(n - at))) <= 0) return false;
    return n == 0;
}

static void rotate(const char *path)
{
    char *old = mode_xasprintf("%s.1", path), *fresh = mode_xasprintf("%s.new", old);
    int from = open(path, O_RDWR | O_CLOEXEC), to = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (from < 0 || to < 0 || !copy(from, to) || rename(fresh, old) != 0 || ftruncate(from, 0) != 0) {
        mode_log_warn("log_not_cut", "%s is large and cannot be moved aside: %s", path, strerror(errno));
        unlink(fresh);
    }
    if (from >= 0) close(from);
    if (to >= 0) close(to);
    free(fresh);
    free(old);
}

void logs_rotate(const char *dir, uint64_t most)
{
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
        struct stat sb;
        size_t n = strlen(e->d_name);
        char *path = mode_path_join(dir, e->d_name);
        if (n > 4 && strcmp(e->d_name + n - 4, ".log") == 0 && lstat(path, &sb) == 0 && S_ISREG(sb.st_mode) &&
            (uint64_t)sb.st_size > most)
            rotate(path);
        free(path);
    }
    if (d) closedir(d);
}
