/* file.h - whole files, safe replacement.
 *
 * Readers must never see half a file: mode_file_write_atomic writes a temporary beside the target, fsyncs it,
 * renames it over the target and fsyncs the folder. Errors name the path, once, and never the temporary's.
 *
 * One fault has one status, here and wherever else files are opened (docs/FORMATS.md, "Exit codes"):
 *   permission denied, or a file system that is read-only        MODE_E_PERM, of an input as of an output
 *   an input is not there, or a folder where a file is needed    MODE_E_NOINPUT
 *   an output has no folder, or its place is taken               MODE_E_CREATE
 *   disk full, device failure                                    MODE_E_IO */
#ifndef MODE_BASE_FILE_H
#define MODE_BASE_FILE_H

#include "base/error.h"
#include "base/path.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "<path>: cannot <doing>: <why>", for the errno e of an input or output; doing: "be opened". */
enum mode_status mode_input_fail(struct mode_error *err, int e, const char *path, const char *doing);
enum mode_status mode_output_fail(struct mode_error *err, int e, const char *path, const char *doing);
/* Checks an input folder: it exists, is a folder, and its files may be looked up and listed. */
enum mode_status mode_input_folder(const char *path, struct mode_error *err);
/* *target: what a rename to path would replace (a file or nothing), with links resolved; the caller frees.
 * MODE_E_CREATE: a device, a pipe or a folder is there. Other requirements of an output are checked before the work:
 * output.h. */
enum mode_status mode_output_target(char **target, const char *path, struct mode_error *err);

/* Read a whole file of at most max_bytes (0 = 1 GiB) into *data (malloc'd, NUL-terminated for convenience, the
 * NUL not counted; the caller frees). MODE_E_NOINPUT if it does not exist, MODE_E_VALUE if larger. A pipe is read to
 * its end; one without a writer is MODE_E_NOINPUT. */
enum mode_status mode_file_read(const char *path, size_t max_bytes, char **data, size_t *size, struct mode_error *err);
enum mode_status mode_file_write_atomic(const char *path, const void *data, size_t size, struct mode_error *err);
/* The same for a file in several parts, written in order (no copy of the whole). */
struct mode_file_part {
    const void *data; /* may be NULL when size is 0 */
    size_t size;
    /* for data that cannot be read directly: makes it readable until the next fetch; NULL: data is readable */
    const void *(*fetch)(void *ctx, const void *data, size_t size);
    void *ctx;
};
enum mode_status mode_file_write_parts(const char *path, const struct mode_file_part *parts, size_t n_parts,
                                       struct mode_error *err);
/* Flush a finished file / a folder's entries to disk. */
enum mode_status mode_file_sync(const char *path, struct mode_error *err);
/* mkdir -p; an existing folder is fine. */
enum mode_status mode_dir_make(const char *path, struct mode_error *err);
/* A new empty folder of this process in TMPDIR (or /tmp); the name is the caller's, to remove and to free. */
enum mode_status mode_dir_temporary(char **path, struct mode_error *err);
/* The folder for what is downloaded once: $MODE_CACHE, else ~/.cache/mode; the caller frees. */
char *mode_cache_folder(void);
/* rm -rf; a missing path is fine. */
enum mode_status mode_dir_remove(const char *path, struct mode_error *err);
/* Copy src to dst (atomic); hard-links when the filesystem allows and link is true. */
enum mode_status mode_file_copy(const char *src, const char *dst, bool link, struct mode_error *err);
bool mode_file_exists(const char *path);
/* flock(2) without waiting; how: LOCK_EX or LOCK_SH; path: for the error text. MODE_E_TEMP: held by another process.
 * MODE_E_CONFIG: the filesystem has no locks. */
enum mode_status mode_file_lock(int fd, int how, const char *path, struct mode_error *err);
/* Whether these bytes are a Git LFS pointer, which stands in for a large file until `git lfs pull`. */
bool mode_file_is_lfs_pointer(const void *data, uint64_t size);
/* A read-only mapping of a whole file. Empty files map to a non-NULL pointer with size 0. */
struct mode_mapping {
    const uint8_t *data;
    size_t size;
};
enum mode_status mode_file_map(const char *path, struct mode_mapping *map, struct mode_error *err);
void mode_file_unmap(struct mode_mapping *map);

/* SHA-256 as 64 lower-case hex digits and a NUL. */
#define MODE_DIGEST_HEX 65
void mode_digest_bytes(const void *data, size_t size, char hex[MODE_DIGEST_HEX]);
enum mode_status mode_digest_file(const char *path, char hex[MODE_DIGEST_HEX], uint64_t *size, struct mode_error *err);
/* Adds the line "<name> <digest>" of a folder's file: several files are identified by the digest of such lines. */
struct mode_str;
enum mode_status mode_digest_line(struct mode_str *lines, const char *dir, const char *name, struct mode_error *err);

#endif
