/* output.h - can what a command is to write be written? Asked before its work, not after it; and what is left when the
 * work fails.
 *
 *     struct mode_output_folder folder;
 *     struct mode_output_set set;
 *     if ((st = mode_output_folder_make(&folder, dir, err))) return st;
 *     if (!(st = mode_output_set_open(&set, paths, 2, err))) {
 *         st = work(set.aside[0], set.aside[1], err);         // writes both
 *         st = mode_output_set_close(&set, st, err);          // both have their names, or neither is there
 *     }
 *     mode_output_folder_close(&folder, st != MODE_OK);       // made for nothing: removed
 *
 * Errors: E_CREATE: the folder of an output does not exist, or its place is taken; E_PERM. Both name the output. */
#ifndef MODE_BASE_OUTPUT_H
#define MODE_BASE_OUTPUT_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

/* A file can be made at path, or replaced where one is there: its folder exists and lets us, and the place is not a
 * folder's, a device's or a pipe's. A link means what it leads to. */
enum mode_status mode_output_file(const char *path, struct mode_error *err);

/* out is none of the command's inputs (paths of files or folders, NULL: none), also by another path or a link, and no
 * file that lies in a folder of them. What is not there is no matter. E_CREATE. */
enum mode_status mode_output_apart(const char *out, const char *const *inputs, size_t n, struct mode_error *err);

struct mode_output_folder {
    char *path;
    size_t there; /* so many bytes of path name what was there before */
};
/* mkdir -p, and a file can be made in it. What was made is removed again when this fails. */
enum mode_status mode_output_folder_make(struct mode_output_folder *f, const char *path, struct mode_error *err);
/* remove: folders that were made and are empty go. A folder all zero is fine. */
void mode_output_folder_close(struct mode_output_folder *f, bool remove);

/* Files that are there all or not at all: written aside, then renamed, in their order. */
struct mode_output_set {
    size_t n;
    char **aside;  /* [n] where to write */
    char **path;   /* [n] */
    char mark[32]; /* what tells aside[i] from path[i]; in no sentence */
};
/* As mode_output_file, of all of them. */
enum mode_status mode_output_set_open(struct mode_output_set *set, const char *const *paths, size_t n,
                                      struct mode_error *err);
/* st: how the writing ended; returned, unless the renaming fails. err then speaks of the files by their names. */
enum mode_status mode_output_set_close(struct mode_output_set *set, enum mode_status st, struct mode_error *err);

#endif
