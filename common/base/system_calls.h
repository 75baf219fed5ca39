/* system_calls.h - restricts the system calls of a process that reads untrusted bytes.
 *
 * The lock is a seccomp filter. A call that is not allowed kills the process with SIGSYS; the lock cannot be removed.
 *
 * Threads: applies to the calling thread; processes that lock themselves have no other. */
#ifndef MODE_BASE_SYSTEM_CALLS_H
#define MODE_BASE_SYSTEM_CALLS_H

#include <stdbool.h>

/* Sanitizers make system calls and reserve memory of their own; with TSan that holds for both locks. */
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
    MODE_LOCK_ALL,   /* only exit of the thread                                                    */
    MODE_LOCK_DECODE /* non-executable memory, the CPU timer, reads and writes on MODE_LOCK_LINE */
};

/* False: the system does not allow a filter, and nothing has changed. In builds with MODE_SANITIZED, MODE_LOCK_DECODE
 * returns true without locking, and with MODE_SANITIZED_THREADS so does MODE_LOCK_ALL. */
bool mode_system_calls_lock(enum mode_lock lock);
/* Whether the system allows a filter; nothing is locked. */
bool mode_system_calls_can_lock(void);

#endif
