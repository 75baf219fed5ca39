#include "remote/queries.h"

#include "base/file.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_QUERY = 1 << 16 };

static char *folder(void)
{
    char *cache = mode_cache_folder(), *dir = mode_path_join(cache, "queries");
    free(cache);
    return dir;
}

static char *place(const char *dir, const char *address)
{
    char name[MODE_DIGEST_HEX];
    mode_digest_bytes(address, strlen(address), name);
    return mode_path_join(dir, name);
}

enum mode_status mode_remote_query_put(const char *address, const char *query, struct mode_error *err)
{
    char *dir = folder(), *path = place(dir, address), *temporary = mode_xasprintf("%s-XXXXXX", path);
    const size_t n = query ? strlen(query) : 0;
    enum mode_status st = MODE_OK;
    int fd = -1;
    if (!query) unlink(path);
    if (!query || (st = mode_dir_make(dir, err))) goto out;
    (void)chmod(dir, 0700);              /* fails for another user's folder; the files are private anyway */
    fd = mkostemp(temporary, O_CLOEXEC); /* 0600 */
    if (fd < 0)
        st = mode_output_fail(err, errno, path, "be created");
    else if (write(fd, query, n) != (ssize_t)n || fsync(fd) != 0 || rename(temporary, path) != 0) {
        st = mode_output_fail(err, errno, path, "be written");
        unlink(temporary);
    }
    if (fd >= 0) close(fd);
out:
    free(dir);
    free(path);
    free(temporary);
    return st;
}

enum mode_status mode_remote_query_get(char **query, const char *address, struct mode_error *err)
{
    char *dir = folder(), *path = place(dir, address);
    *query = NULL;
    enum mode_status st = mode_file_exists(path) ? mode_file_read(path, MOST_QUERY, query, NULL, err) : MODE_OK;
    free(dir);
    free(path);
    return st;
}
