/* path.h - operations on path strings; the filesystem is not accessed.
 *
 * Threads: pure. */
#ifndef MODE_BASE_PATH_H
#define MODE_BASE_PATH_H

/* "dir/name"; the caller frees. */
char *mode_path_join(const char *dir, const char *name);
/* The folder that path lies in, "." where it names none; the caller frees. */
char *mode_path_folder(const char *path);
/* The part after the last '/'; borrowed from path. */
const char *mode_path_base(const char *path);

#endif
