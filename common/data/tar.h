/* tar.h - walk a tar without unpacking it, and write one.
 *
 *     struct mode_tar_data d;
 *     st = mode_tar_data_open(&d, path, &err);
 *     struct mode_tar t = mode_tar_walk(&d, path);
 *     while (!(st = mode_tar_next(&t, &m, &got, &err)) && got) ... d.data + m.offset, m.size bytes ...
 *     mode_tar_clear(&t);
 *     mode_tar_data_close(&d);
 *
 * Names are never used as paths. Links, devices, sparse files and the like are reported by kind, so that the
 * caller can count them. A header that fails its checksum is an error; a truncated tar is not: its complete members are
 * returned, then `cut` is set.
 *
 * Source:  POSIX.1-2001 pax and ustar; GNU tar manual, "Basic Tar Format" (long names, base-256 sizes).
 * Threads: tar data may be read by many; a walk or a writer belongs to one. */
#ifndef MODE_DATA_TAR_H
#define MODE_DATA_TAR_H

#include "base/error.h"
#include "base/file.h"
#include "base/str.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MODE_TAR_BLOCK = 512,
    MODE_TAR_MAX_MEMBERS = 2000000,
    MODE_TAR_MAX_NAME = 4096 /* bytes; a longer one makes the member MODE_TAR_OTHER */
};
#define MODE_TAR_MAX_BYTES ((uint64_t)64 << 30)

/* The bytes of a tar. Plain tars are mapped. Compressed ones (gzip, zstd, xz, bzip2, detected from the content) are
 * decompressed into memory: at most 100 times their size and 4 GiB. Offsets in a captions.bin refer to these bytes. */
struct mode_tar_data {
    const uint8_t *data;
    size_t size;
    uint64_t file_size; /* bytes of the file itself */
    bool compressed;
    struct mode_mapping map; /* the plain file */
    uint8_t *unpacked;
};
/* MODE_E_FORMAT when the file is not a tar; the error says what it seems to be. */
enum mode_status mode_tar_data_open(struct mode_tar_data *d, const char *path, struct mode_error *err);
void mode_tar_data_close(struct mode_tar_data *d);

enum mode_tar_kind { MODE_TAR_FILE, MODE_TAR_FOLDER, MODE_TAR_LINK, MODE_TAR_DEVICE, MODE_TAR_SPARSE, MODE_TAR_OTHER };

struct mode_tar_member {
    const char *name; /* bytes as stored, NUL-terminated; borrowed until the next step */
    enum mode_tar_kind kind;
    uint64_t header; /* byte position of the member's first header block */
    uint64_t offset; /* byte position of its data                        */
    uint64_t size;   /* bytes                                            */
    bool whole;      /* all of its data is present                       */
};

struct mode_tar {
    const uint8_t *data;
    uint64_t size;
    const char *path; /* for error texts; borrowed */
    uint64_t at;      /* next header             */
    uint64_t n_members;
    bool done;       /* at the end */
    bool cut;        /* truncated: in a header, in data, or without the end marker */
    uint64_t cut_at; /* byte position of the incomplete member (or end marker)           */
    uint64_t after;  /* byte position of the first byte past the end mark that is not zero; 0 = none */
    struct mode_str name, pax_name, record;
};
struct mode_tar mode_tar_walk(const struct mode_tar_data *d, const char *path);
/* The next member, or *got false at the end. MODE_E_FORMAT: damaged (with the byte position); MODE_E_VALUE:
 * more than MODE_TAR_MAX_MEMBERS. */
enum mode_status mode_tar_next(struct mode_tar *t, struct mode_tar_member *m, bool *got, struct mode_error *err);
void mode_tar_clear(struct mode_tar *t);

/* Write a tar whose bytes depend on names and data alone: mtime 0, mode 0444, owner 0 "mode". It appears
 * under path only when finished. Names: at most 4096 bytes; data: under 8 GiB. */
struct mode_tar_writer;
enum mode_status mode_tar_writer_open(struct mode_tar_writer **w, const char *path, struct mode_error *err);
enum mode_status mode_tar_writer_add(struct mode_tar_writer *w, const char *name, const void *data, size_t size,
                                     struct mode_error *err);
/* End mark, fsync, rename; then closed. */
enum mode_status mode_tar_writer_finish(struct mode_tar_writer **w, struct mode_error *err);
/* Discards an unfinished tar; NULL is fine. */
void mode_tar_writer_close(struct mode_tar_writer **w);

#endif
