/* system_calls.h - which system calls this process may still make: the lock of processes that read hostile bytes.
 *
 * The lock is a seccomp filter. A call that is not allowed kills the process with SIGSYS; the lock cannot be undone.
 *
 * Threads: of the caller alone; processes that lock themselves have no other. */
#ifndef MODE_BASE_SYSTEM_CALLS_H
#define MODE_BASE_SYSTEM_CALLS_H

#include <stdbool.h>

/* Sanitizers make system calls and reserve memory of their own, those of threads under everything. */
enum { MODE_SANITIZED_NOT, MODE_SANITIZED_MEMORY, MODE_SANITIZED_THREADS };
#if defined(__SANITIZE_THREAD__)
#define MODE_SANITIZED MODE_SANITIZED_THREADS
#elif defined(__SANITIZE_ADDRESS__)
#define MODE_SANITIZED MODE_SANITIZED_MEMORY
#else
#define MODE_SANITIZED MODE_SANITIZED_NOT
#endif

enum { MODE_LOCK_LINE = 3 }; /* the file descriptor of MODE_LOCK_DECODE */
enum mode_lock {
    MODE_LOCK_ALL,   /* nothing but the end of the thread                                          */
    MODE_LOCK_DECODE /* memory without code in it, the timer of processor time, one byte to and from MODE_LOCK_LINE */
};

/* False: this system does not allow it, and everything is as it was. MODE_SANITIZED, MODE_LOCK_DECODE is true without a
 * lock, and so is the other with MODE_SANITIZED_THREADS. */
bool mode_system_calls_lock(enum mode_lock lock);
/* Would it allow it? Nothing is locked. */
bool mode_system_calls_can_lock(void);

#endif
