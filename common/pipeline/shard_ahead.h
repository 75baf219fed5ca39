/* shard_ahead.h - prefetches the shards of an order by windows (shard_order.h).
 *
 * A few threads fetch remote shards, whole, into the shard cache (a folder) in the order of their turns: those of the
 * windows being read and, as far as the cache has room, as many of the following turns. These are pinned in the cache;
 * earlier ones are released, and evicted when others need the room. For local files the kernel is advised that they
 * will be read (readahead).
 *
 *     mode_shard_ahead_open(&a, order, paths, n_shards, room, &err);
 *     mode_shard_ahead_need(a, from, to, end, &watch, &err); // waits for them; no thread may read meanwhile
 *     fd = mode_shard_ahead_file(a, shard);                  // any thread, until the next need
 *
 * A shard that does not fit, because the windows of one batch exceed the cache or other trainings pin theirs, is not
 * cached: its pictures are fetched one by one. A shard whose prefetch failed is retried when it is needed.
 *
 * Threads: need and close belong to one thread. */
#ifndef MODE_PIPELINE_SHARD_AHEAD_H
#define MODE_PIPELINE_SHARD_AHEAD_H

#include "base/error.h"
#include "pipeline/shard_order.h"
#include "remote/link.h"

#include <stddef.h>
#include <stdint.h>

struct mode_shard_ahead;

/* path [n_shards] of the run's shards: files, or pinned addresses; NULL: skip it. order and paths are borrowed until
 * close. room: capacity of the shard cache in bytes. MODE_E_CONFIG: the limit of open files is too low; MODE_E_GENERIC:
 * no thread. */
enum mode_status mode_shard_ahead_open(struct mode_shard_ahead **ahead, const struct mode_shard_order *order,
                                       const char *const *path, size_t n_shards, uint64_t room, struct mode_error *err);
/* *ahead may be NULL. Running downloads are aborted; partial files stay and are resumed by the next process. */
void mode_shard_ahead_close(struct mode_shard_ahead **ahead);

/* Turns from .. to - 1 are read now, earlier ones usually never again, those from end on never. Blocks until they are
 * cached; meanwhile calls w with the bytes done and to be waited for. Errors: those of mode_shard_hold. */
enum mode_status mode_shard_ahead_need(struct mode_shard_ahead *ahead, uint64_t from, uint64_t to, uint64_t end,
                                       const struct mode_remote_watch *w, struct mode_error *err);
/* File descriptor, borrowed, of a remote shard's copy with a turn in from .. to - 1; -1: not cached, or local. */
int mode_shard_ahead_file(const struct mode_shard_ahead *ahead, size_t shard);

/* NULL, or a warning, which the caller frees: two windows of remote shards, of bytes [n] each, do not fit a cache of
 * room bytes. Sorts bytes. */
char *mode_shard_ahead_warning(uint64_t *bytes, size_t n, uint32_t window, uint64_t room);

#endif
