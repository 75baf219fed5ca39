#include "base/output.h"

#include "base/file.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Another user's file in a sticky folder (/tmp), which this process cannot replace. */
static bool is_kept_from_us(const struct stat *file, const struct stat *dir)
{
    return (dir->st_mode & S_ISVTX) && geteuid() != 0 && file->st_uid != geteuid() && dir->st_uid != geteuid();
}

static enum mode_status check_folder(struct stat *at, const char *dir, const char *path, struct mode_error *err)
{
    if (stat(dir, at) != 0) return mode_output_fail(err, errno, path, "be created");
    if (!S_ISDIR(at->st_mode))
        return MODE_FAIL(err, MODE_E_CREATE, "%s: cannot be created: %s is not a folder", path, dir);
    if (faccessat(AT_FDCWD, dir, W_OK | X_OK, AT_EACCESS) != 0) return mode_output_fail(err, errno, path, "be created");
    return MODE_OK;
}

/* *target: path with links resolved; the caller frees. */
static enum mode_status check_file(char **target, const char *path, struct mode_error *err)
{
    struct stat file, folder;
    const size_t n = strlen(path);
    *target = NULL;
    if (n == 0) return MODE_FAIL(err, MODE_E_CREATE, "an output's name is empty; expected a file's path");
    enum mode_status st = mode_output_target(target, path, err);
    if (st) return st;
    const bool there = stat(*target, &file) == 0;
    if (!there && errno != ENOENT) return mode_output_fail(err, errno, path, "be created");
    if (path[n - 1] == '/')
        return MODE_FAIL(err, MODE_E_CREATE, "%s: is a folder; expected a file, or nothing, in its place", path);
    char *dir = mode_path_folder(*target);
    st = check_folder(&folder, dir, path, err);
    if (!st && there && is_kept_from_us(&file, &folder))
        st = MODE_FAIL(err, MODE_E_PERM, "%s: cannot be replaced: it is another user's", path);
    free(dir);
    return st;
}

enum mode_status mode_output_file(const char *path, struct mode_error *err)
{
    char *target;
    enum mode_status st = check_file(&target, path, err);
    free(target);
    return st;
}

static bool is_same(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

enum mode_status mode_output_apart(const char *out, const char *const *inputs, size_t n, struct mode_error *err)
{
    struct stat to, folder = {0}, in;
    enum mode_status st = MODE_OK;
    char *real = stat(out, &to) == 0 ? realpath(out, NULL) : NULL;
    if (!real) return MODE_OK;
    char *dir = mode_path_folder(real);
    const bool in_folder = S_ISREG(to.st_mode) && stat(dir, &folder) == 0;
    for (size_t i = 0; !st && i < n; i++) {
        if (!inputs[i] || stat(inputs[i], &in) != 0) continue;
        if (is_same(&in, &to))
            st = MODE_FAIL(err, MODE_E_CREATE, "%s: is an input of this command (%s); the output needs another place",
                           out, inputs[i]);
        else if (in_folder && is_same(&in, &folder))
            st = MODE_FAIL(
                err, MODE_E_CREATE,
                "%s: is a file of the input folder %s, which it would replace; the output needs another place", out,
                inputs[i]);
    }
    free(dir);
    free(real);
    return st;
}

enum mode_status mode_output_folder_make(struct mode_output_folder *f, const char *path, struct mode_error *err)
{
    struct stat at;
    *f = (struct mode_output_folder){.path = mode_xstrdup(path)};
    size_t n = strlen(path);
    while (n > 1 && f->path[n - 1] == '/') f->path[--n] = '\0';
    f->there = n;
    while (f->there > 0) { /* the longest existing prefix */
        char *part = mode_xasprintf("%.*s", (int)f->there, f->path);
        const bool there = stat(part, &at) == 0;
        free(part);
        if (there) break;
        while (f->there > 0 && f->path[f->there - 1] != '/') f->there--;
        while (f->there > 1 && f->path[f->there - 1] == '/') f->there--;
    }
    enum mode_status st = n == 0 ? MODE_FAIL(err, MODE_E_CREATE, "an output's name is empty; expected a folder's path")
                                 : mode_dir_make(f->path, err);
    if (!st && faccessat(AT_FDCWD, f->path, W_OK | X_OK, AT_EACCESS) != 0)
        st = mode_output_fail(err, errno, path, "hold new files");
    if (st) mode_output_folder_close(f, true);
    return st;
}

void mode_output_folder_close(struct mode_output_folder *f, bool remove)
{
    while (remove && f->path && strlen(f->path) > f->there && (rmdir(f->path) == 0 || errno == ENOENT)) {
        char *slash = strrchr(f->path, '/');
        if (!slash) break;
        while (slash > f->path && slash[-1] == '/') slash--;
        *slash = '\0';
    }
    free(f->path);
    *f = (struct mode_output_folder){0};
}

static void set_free(struct mode_output_set *set)
{
    for (size_t i = 0; i < set->n; i++) {
        free(set->aside[i]);
        free(set->path[i]);
    }
    free(set->aside);
    free(set->path);
    *set = (struct mode_output_set){0};
}

enum mode_status mode_output_set_open(struct mode_output_set *set, const char *const *paths, size_t n,
                                      struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    *set = (struct mode_output_set){
        .n = n, .aside = mode_xcalloc(n + 1, sizeof(char *)), .path = mode_xcalloc(n + 1, sizeof(char *))};
    snprintf(set->mark, sizeof set->mark, ".new-%ld", (long)getpid());
    for (size_t i = 0; !st && i < n; i++)
        if (!(st = check_file(&set->path[i], paths[i], err)))
            set->aside[i] = mode_xasprintf("%s%s", set->path[i], set->mark);
    if (st) set_free(set);
    return st;
}

static void forget_mark(char *text, const char *mark)
{
    const size_t n = strlen(mark);
    for (char *at = text; (at = strstr(at, mark));) memmove(at, at + n, strlen(at + n) + 1);
}

static enum mode_status put_in_place(const struct mode_output_set *set, size_t i, struct mode_error *err)
{
    if (rename(set->aside[i], set->path[i]) != 0) return mode_output_fail(err, errno, set->path[i], "be created");
    char *dir = mode_path_folder(set->path[i]);
    enum mode_status st = mode_file_sync(dir, err);
    free(dir);
    return st;
}

enum mode_status mode_output_set_close(struct mode_output_set *set, enum mode_status st, struct mode_error *err)
{
    if (st && err && set->n > 0) forget_mark(err->text, set->mark);
    for (size_t i = 0; !st && i < set->n; i++) st = put_in_place(set, i, err);
    for (size_t i = 0; st && i < set->n; i++) unlink(set->aside[i]);
    set_free(set);
    return st;
}
