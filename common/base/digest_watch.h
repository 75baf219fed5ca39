/* digest_watch.h - follows the digesting of files from another thread, and stops it.
 *
 * A large file takes minutes. The bytes that mode_digest_file reads in the thread that set a watch are counted in it,
 * so that another thread can report progress; when stop is set, it returns MODE_E_STOPPED.
 *
 *     struct mode_digest_watch w = {0};
 *     mode_digest_watch(&w);                       // this thread, from now on; NULL: no watch
 *
 * Threads: a watch is set by the thread that digests, read and stopped by any. */
#ifndef MODE_BASE_DIGEST_WATCH_H
#define MODE_BASE_DIGEST_WATCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct mode_digest_watch {
    _Atomic uint64_t bytes;
    atomic_bool stop;
};

void mode_digest_watch(struct mode_digest_watch *w);

#endif
