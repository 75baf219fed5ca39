/* file.h - whole files, safe replacement, paths.
 *
 * Readers must never see half a file: mode_file_write_atomic writes a temporary beside the target, fsyncs it,
 * renames it over the target and fsyncs the folder. Errors name the path. */
#ifndef MODE_BASE_FILE_H
#define MODE_BASE_FILE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Read a whole file of at most max_bytes (0 = 1 GiB) into *data (malloc'd, NUL-terminated for convenience, the
 * NUL not counted; the caller frees). MODE_E_NOINPUT if it does not exist, MODE_E_VALUE if larger. */
enum mode_status mode_file_read(const char *path, size_t max_bytes, char **data, size_t *size, struct mode_error *err);
enum mode_status mode_file_write_atomic(const char *path, const void *data, size_t size, struct mode_error *err);
/* The same for a file made of several pieces, written one after another (no copy of a large whole). */
struct mode_file_part {
    const void *data; /* may be NULL when size is 0 */
    size_t size;
};
enum mode_status mode_file_write_parts(const char *path, const struct mode_file_part *parts, size_t n_parts,
                                       struct mode_error *err);
/* Flush a finished file / a folder's entries to disk. */
enum mode_status mode_file_sync(const char *path, struct mode_error *err);
/* mkdir -p; an existing folder is fine. */
enum mode_status mode_dir_make(const char *path, struct mode_error *err);
/* rm -rf; a missing path is fine. */
enum mode_status mode_dir_remove(const char *path, struct mode_error *err);
/* Copy src to dst (atomic); hard-links when the filesystem allows and link is true. */
enum mode_status mode_file_copy(const char *src, const char *dst, bool link, struct mode_error *err);
bool mode_file_exists(const char *path);
/* A read-only mapping of a whole file. Empty files map to a non-NULL pointer with size 0. */
struct mode_mapping {
    const uint8_t *data;
    size_t size;
};
enum mode_status mode_file_map(const char *path, struct mode_mapping *map, struct mode_error *err);
void mode_file_unmap(struct mode_mapping *map);

/* "dir/name"; the caller frees. */
char *mode_path_join(const char *dir, const char *name);
/* The part after the last '/'; borrowed from path. */
const char *mode_path_base(const char *path);

/* SHA-256 as 64 lower-case hex digits and a NUL. */
#define MODE_DIGEST_HEX 65
void mode_digest_bytes(const void *data, size_t size, char hex[MODE_DIGEST_HEX]);
enum mode_status mode_digest_file(const char *path, char hex[MODE_DIGEST_HEX], uint64_t *size, struct mode_error *err);

#endif
