/* fresh.h - file names as the server of a network filesystem has them now, not as the client has cached them.
 *
 * An NFS client caches attributes and directory entries, negative ones too, for up to a minute (nfs(5), "acdirmax",
 * "lookupcache"), so a process that waits for another machine's file would not see it. These functions ask the server
 * before they report a name as missing, and list folders as they are. On a local disk this costs one more system call
 * for each missing name. */
#ifndef MODE_BASE_FRESH_H
#define MODE_BASE_FRESH_H

#include <dirent.h>
#include <stdbool.h>
#include <sys/stat.h>

/* Like open(2) for reading, stat(2), opendir(3), scandir(3); errno is set on failure. */
int mode_fresh_open(const char *path, int flags);
bool mode_fresh_stat(const char *path, struct stat *sb);
DIR *mode_fresh_opendir(const char *path);
int mode_fresh_scandir(const char *path, struct dirent ***list, int (*wanted)(const struct dirent *),
                       int (*order)(const struct dirent **, const struct dirent **));

#endif
