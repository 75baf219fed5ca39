/* internal.h - shared by the files of this folder; included nowhere else. */
#ifndef MODE_STORE_INTERNAL_H
#define MODE_STORE_INTERNAL_H

#include "store/artifacts.h"

#include <pthread.h>
#include <sys/stat.h>

struct verified { /* a blob verified in this process, and its stat data at that time */
    char digest[MODE_DIGEST_HEX];
    uint64_t dev, ino, size;
    int64_t mtime_ns;
};

struct mode_store {
    char *root, *tmp;
    char id[33];
    int lock;   /* open lock file, held shared; -1: this filesystem has no locks */
    bool alone; /* held exclusively */
    void (*tick)(void *ctx);
    void *tick_ctx;
    pthread_mutex_t mutex;  /* guards the table below */
    struct verified *table; /* open addressing by digest; cap is a power of two or 0 */
    size_t n, cap;
};

/* "<root>/<folder>/<name>"; malloc'd */
char *mode_store_path(const struct mode_store *s, const char *folder, const char *name);
void mode_store_tick(struct mode_store *s);
/* Latest modification time (seconds since 1970) of a path and its contents down to that depth; INT64_MAX: it has
 * vanished. */
int64_t mode_store_newest_mtime(const char *path, int depth);
/* The error for a failed call: doing = "be written". Full disk, limits and permissions get texts of their own. */
enum mode_status mode_store_fail(struct mode_error *err, int e, const char *path, const char *doing);
/* Digest of an open file from its start; ticks. */
enum mode_status mode_store_digest_fd(struct mode_store *s, char digest[MODE_DIGEST_HEX], uint64_t *size, int fd,
                                      const char *path, struct mode_error *err);
/* Write data to a fresh synced file below tmp/; *path is malloc'd and the file is the caller's to unlink. */
enum mode_status mode_store_temp(struct mode_store *s, char **path, const void *data, size_t size,
                                 struct mode_error *err);
/* Give the synced file `from` the name `to` unless that exists; *created says which. The folder of `to` is
 * made if need be and fsynced in both cases. `from` keeps its name. */
enum mode_status mode_store_link_once(bool *created, const char *from, const char *to, struct mode_error *err);
/* Renames the checkpoints of a task away in one step, then removes them; *removed (may be NULL) is incremented. */
enum mode_status mode_store_checkpoints_drop(struct mode_store *s, const char *key, uint64_t *removed,
                                             struct mode_error *err);
/* Create record `to` once from bytes. */
enum mode_status mode_store_put_once(struct mode_store *s, bool *created, const char *to, const void *data, size_t size,
                                     struct mode_error *err);

#endif
