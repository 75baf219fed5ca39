/* shards.h - a local cache of remote shards.
 *
 * A pinned address (address.h) is fetched once into the shard cache, the folder $MODE_SHARD_CACHE (else
 * <MODE_CACHE>/shards), and read there by all processes; any other path is returned as it is.
 *
 *     struct mode_shard_file f;
 *     if ((st = mode_shard_hold(&f, path, &watch, err))) ...
 *     ... open(f.path) ...
 *     mode_shard_release(&f);
 *
 * Held shards stay. Others are evicted, least recently used first, when the folder would exceed MODE_SHARD_CACHE_BYTES
 * ("200G"; else half of what its disk could give it), or when its disk would have less than 1 GiB free, or 2 % of a
 * small disk. Of several processes that need one shard the first fetches it and the others wait. If it is killed, the
 * next one resumes from the bytes that are there.
 *
 * A file is <digest of the pinned address>; with the suffix ".<boot>.part" while it is incomplete: after a crash of the
 * machine it is unknown which bytes reached the disk, so another boot starts over. The lock is on the file itself:
 * shared for readers, exclusive for writing or removing, released when the process ends.
 *
 * Threads: any. */
#ifndef MODE_REMOTE_SHARDS_H
#define MODE_REMOTE_SHARDS_H

#include "remote/link.h"

struct mode_shard_file {
    char *path; /* on this machine */
    int hold;   /* file descriptor; -1: not in the cache */
};

/* Errors: those of link.h; MODE_E_VALUE: the shard has changed since the run was planned; MODE_E_CONFIG: larger than
 * the limit of the cache; MODE_E_TEMP: no room for two minutes, because other shards are in use; MODE_E_IO: the disk is
 * full. f is empty after a failure. */
enum mode_status mode_shard_hold(struct mode_shard_file *f, const char *path, const struct mode_remote_watch *w,
                                 struct mode_error *err);
void mode_shard_release(struct mode_shard_file *f);

/* Reads n bytes at offset `at` of a pinned address: from the cached copy if there is one, else only these bytes are
 * fetched. *link is opened when it is NULL and needed, and may be reused by the next call; the caller closes it. */
enum mode_status mode_shard_read(void *data, const char *pinned, uint64_t at, size_t n, struct mode_remote_link **link,
                                 const struct mode_remote_watch *w, struct mode_error *err);

/* The current limit of the cache in bytes. MODE_E_CONFIG: MODE_SHARD_CACHE_BYTES is malformed. */
enum mode_status mode_shard_room(uint64_t *bytes, struct mode_error *err);
/* Replaces the two minutes (tests). */
void mode_shard_set_patience(double seconds);
/* The cache folder; the caller frees. */
char *mode_shard_folder(void);

#endif
