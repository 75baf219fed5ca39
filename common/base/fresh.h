/* fresh.h - names as the server of a network filesystem has them now.
 *
 * A client of NFS believes what it has seen: for up to a minute that a name which was not there still is not, and that
 * a folder holds what it held (nfs(5), "acdirmax", "lookupcache"). Whoever waits for another machine's file would not
 * see it. Here nothing is taken for missing before the server was asked, and folders are listed as they are. On a local
 * disk this costs a call of the system for each name that is not there. */
#ifndef MODE_BASE_FRESH_H
#define MODE_BASE_FRESH_H

#include <dirent.h>
#include <stdbool.h>
#include <sys/stat.h>

/* As open(2) to read, stat(2), opendir(3), scandir(3); errno says why not. */
int mode_fresh_open(const char *path, int flags);
bool mode_fresh_stat(const char *path, struct stat *sb);
DIR *mode_fresh_opendir(const char *path);
int mode_fresh_scandir(const char *path, struct dirent ***list, int (*wanted)(const struct dirent *),
                       int (*order)(const struct dirent **, const struct dirent **));

#endif
