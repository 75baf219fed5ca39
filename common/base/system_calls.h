/* system_calls.h - which system calls this process may still make: the lock of processes that read hostile bytes.
 *
 * The lock is a seccomp filter. A call that is not allowed kills the process with SIGSYS; the lock cannot be undone.
 *
 * Threads: of the caller alone; processes that lock themselves have no other. */
#ifndef MODE_BASE_SYSTEM_CALLS_H
#define MODE_BASE_SYSTEM_CALLS_H

#include <stdbool.h>

enum { MODE_LOCK_LINE = 3 }; /* the file descriptor of MODE_LOCK_DECODE */
enum mode_lock {
    MODE_LOCK_ALL,   /* nothing but the end of the thread                                          */
    MODE_LOCK_DECODE /* memory without code in it, the timer of processor time, one byte to and from MODE_LOCK_LINE */
};

/* False: this system does not allow it, and everything is as it was. With sanitizers, whose runtimes make calls of
 * their own, MODE_LOCK_DECODE and with ThreadSanitizer both are true without a lock. */
bool mode_system_calls_lock(enum mode_lock lock);
/* Would it allow it? Nothing is locked. */
bool mode_system_calls_can_lock(void);

#endif
