/* digest_watch.h - looks on while files are digested, and stops it.
 *
 * A large file takes minutes. What mode_digest_file reads in the thread that set a watch is counted in it, for another
 * thread to say how far it is; asked to stop, it returns MODE_E_STOPPED.
 *
 *     struct mode_digest_watch w = {0};
 *     mode_digest_watch(&w);                       // this thread, from now on; NULL: nobody looks
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
