/* jail.h - runs code that reads untrusted bytes in a sandboxed child process.
 *
 * The child has no signal handlers, a CPU time limit, and while it works it may make no system call except exit (a
 * seccomp filter: any other kills it, so open files are out of reach). It sees a copy of the parent's memory, allocates
 * from `scratch` and writes its result to `out`, which is shared; the parent must not trust what it finds there. A
 * child that crashes, runs too long or makes a system call only causes an error.
 *
 * Threads: any. */
#ifndef MODE_DATA_JAIL_H
#define MODE_DATA_JAIL_H

#include "base/error.h"

#include <stddef.h>

struct mode_jail {
    void *out, *scratch; /* zeroed, paged in on first use */
    size_t out_size, scratch_size;
};
typedef void mode_jail_fn(void *ctx, void *out, void *scratch, size_t scratch_size);

/* what names the work in errors: "x.pt". E_MEMORY; E_FORMAT: the child was killed or crashed; E_GENERIC: sandboxing is
 * not possible here (nothing was run). The jail is cleared by mode_jail_clear, also after a failure. */
enum mode_status mode_jail_run(struct mode_jail *jail, size_t out_size, size_t scratch_size, mode_jail_fn *work,
                               void *ctx, const char *what, struct mode_error *err);
void mode_jail_clear(struct mode_jail *jail);

#endif
