/* shards.h - shards of other machines as files of this one.
 *
 * A pinned address (address.h) is fetched once into the folder of shards, $MODE_SHARD_CACHE (else
 * <MODE_CACHE>/shards), and read there by whoever needs it; any other path is itself.
 *
 *     struct mode_shard_file f;
 *     if ((st = mode_shard_hold(&f, path, &watch, err))) ...
 *     ... open(f.path) ...
 *     mode_shard_release(&f);
 *
 * What is held stays. What is not goes, the longest unused first, when the folder would have more than
 * MODE_SHARD_CACHE_BYTES ("200G"; else half of what its disk could give it), or when its disk would have less free than
 * 1 GiB, or 2 % of a small disk. Of several processes that want one shard the first fetches it, the others wait. One that
 * is killed leaves what it has to the next, which goes on from there.
 *
 * A file is <digest of the pinned address>; with ".<boot>.part" behind it while it grows: after a crash of the machine
 * nobody knows what of it is on disk, so another boot begins anew. Its lock is the file itself: held shared by readers,
 * alone by whoever writes or removes it, gone with the process.
 *
 * Threads: any. */
#ifndef MODE_REMOTE_SHARDS_H
#define MODE_REMOTE_SHARDS_H

#include "remote/link.h"

struct mode_shard_file {
    char *path; /* on this machine */
    int hold;   /* the file's descriptor; -1: it is no copy of ours */
};

/* Errors: those of link.h; MODE_E_VALUE: the shard is another one than when the run was planned; MODE_E_CONFIG: it is
 * larger than all that the folder may have; MODE_E_TEMP: no room for two minutes, for others are in use; MODE_E_IO: the
 * disk is full. f is empty after a failure. */
enum mode_status mode_shard_hold(struct mode_shard_file *f, const char *path, const struct mode_remote_watch *w,
                                 struct mode_error *err);
void mode_shard_release(struct mode_shard_file *f);

/* n bytes at `at` of a pinned address: of its copy where that is here, else these bytes alone are fetched. *link is
 * opened when it is NULL and first needed, and serves the next call, too; the caller closes it. */
enum mode_status mode_shard_read(void *data, const char *pinned, uint64_t at, size_t n, struct mode_remote_link **link,
                                 const struct mode_remote_watch *w, struct mode_error *err);

/* Bytes that the folder of shards may have, as things are now. MODE_E_CONFIG: MODE_SHARD_CACHE_BYTES is no number. */
enum mode_status mode_shard_room(uint64_t *bytes, struct mode_error *err);
/* Another time than those two minutes (tests). */
void mode_shard_set_patience(double seconds);
/* That folder; the caller frees. */
char *mode_shard_folder(void);

#endif
