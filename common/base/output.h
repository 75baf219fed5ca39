/* output.h - checks that the outputs of a command can be written before its work begins, and cleans up when the work
 * fails.
 *
 *     struct mode_output_folder folder;
 *     struct mode_output_set set;
 *     if ((st = mode_output_folder_make(&folder, dir, err))) return st;
 *     if (!(st = mode_output_set_open(&set, paths, 2, err))) {
 *         st = work(set.aside[0], set.aside[1], err);         // writes both
 *         st = mode_output_set_close(&set, st, err);          // both appear under their names, or neither does
 *     }
 *     mode_output_folder_close(&folder, st != MODE_OK);       // after a failure: removed
 *
 * Errors: E_CREATE: the folder of an output does not exist, or its place is taken; E_PERM. Both name the output. */
#ifndef MODE_BASE_OUTPUT_H
#define MODE_BASE_OUTPUT_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

/* Checks that a file can be created or replaced at path: its folder exists and is writable, and path is not a folder, a
 * device or a pipe. Links are followed. */
enum mode_status mode_output_file(const char *path, struct mode_error *err);

/* Checks that out is not one of the command's inputs (paths of files or folders, NULL: none), even by another path or a
 * link, nor a file inside an input folder. Paths that do not exist are ignored. E_CREATE otherwise. */
enum mode_status mode_output_apart(const char *out, const char *const *inputs, size_t n, struct mode_error *err);

struct mode_output_folder {
    char *path;
    size_t there; /* length of the part of path that existed before */
};
/* mkdir -p, and checks that a file can be created in it. On failure the folders that were made are removed. */
enum mode_status mode_output_folder_make(struct mode_output_folder *f, const char *path, struct mode_error *err);
/* remove: removes the folders that were made if they are empty. A zeroed struct is fine. */
void mode_output_folder_close(struct mode_output_folder *f, bool remove);

/* A set of files that appear together or not at all: written under temporary names, then renamed, in order. */
struct mode_output_set {
    size_t n;
    char **aside;  /* [n] where to write */
    char **path;   /* [n] */
    char mark[32]; /* suffix that makes aside[i] from path[i]; never shown in an error */
};
/* Like mode_output_file, for each of them. */
enum mode_status mode_output_set_open(struct mode_output_set *set, const char *const *paths, size_t n,
                                      struct mode_error *err);
/* st: the status of the writing; returned unless renaming fails. Errors then name the final paths. */
enum mode_status mode_output_set_close(struct mode_output_set *set, enum mode_status st, struct mode_error *err);

#endif
