/* shard_ahead.h - the shards of an order by windows (shard_order.h), on this machine before they are read.
 *
 * A few threads fetch shards of other machines, whole, into the folder of shards in the order of their turns: those of
 * the windows that are read and, as far as the folder has room, as many of the turns after them. All of these are held;
 * what is behind is let go of, and goes from the folder when others need the room. Of files of this machine the system
 * is told that they will be read.
 *
 *     mode_shard_ahead_open(&a, order, paths, room, &err);
 *     mode_shard_ahead_need(a, from, to, end, &watch, &err); // waits for them; nobody reads meanwhile
 *     fd = mode_shard_ahead_file(a, shard);                  // any threads, until the next need
 *
 * A shard for which the folder has no room, because the windows of one batch are more than it holds or because other
 * trainings hold theirs, is none of its files: its pictures are to be asked for one by one. What failed ahead of its
 * turn is tried once more when it is needed.
 *
 * Threads: need and close belong to one. */
#ifndef MODE_PIPELINE_SHARD_AHEAD_H
#define MODE_PIPELINE_SHARD_AHEAD_H

#include "base/error.h"
#include "pipeline/shard_order.h"
#include "remote/link.h"

#include <stddef.h>
#include <stdint.h>

struct mode_shard_ahead;

/* path [n_shards of the run]: files, or pinned addresses; NULL: nothing is to be done for it. order and paths are
 * borrowed until close. room: bytes that the folder of shards may have. MODE_E_CONFIG: the system allows too few open
 * files; MODE_E_GENERIC: no thread to be had. */
enum mode_status mode_shard_ahead_open(struct mode_shard_ahead **ahead, const struct mode_shard_order *order,
                                       const char *const *path, size_t n_shards, uint64_t room, struct mode_error *err);
/* May be NULL inside. Downloads that go on are given up; what they have stays for the next process. */
void mode_shard_ahead_close(struct mode_shard_ahead **ahead);

/* Turns from .. to - 1 are read now, those before as a rule never again, those from end on never. Calls w while it
 * waits, with the bytes that are there and all of those that it waits for. Errors: those of mode_shard_hold. */
enum mode_status mode_shard_ahead_need(struct mode_shard_ahead *ahead, uint64_t from, uint64_t to, uint64_t end,
                                       const struct mode_remote_watch *w, struct mode_error *err);
/* The copy of a shard of another machine, open, if its turn is between from and to; -1: to be read by pictures. */
int mode_shard_ahead_file(const struct mode_shard_ahead *ahead, size_t shard);

/* NULL, or a sentence, which the caller frees: two windows of shards of other machines, which have so many bytes each,
 * do not fit a folder of room bytes. Sorts bytes. */
char *mode_shard_ahead_warning(uint64_t *bytes, size_t n, uint32_t window, uint64_t room);

#endif
