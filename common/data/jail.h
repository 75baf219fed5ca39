/* jail.h - run a piece of our code that reads hostile bytes in a process of its own that can do nothing but compute.
 *
 * The child has no signal handler to run, a limit on processor time, and from the first instruction of the work on no
 * system call but its own end (a seccomp filter: anything else kills it; open files are out of reach). It sees the
 * parent's memory as it was, takes its own from `scratch` and answers by writing into `out`, which is shared; the
 * parent must believe nothing it finds there. A child that crashes, runs on or tries a system call costs a sentence, no
 * more.
 *
 * Threads: any. */
#ifndef MODE_DATA_JAIL_H
#define MODE_DATA_JAIL_H

#include "base/error.h"

#include <stddef.h>

struct mode_jail {
    void *out, *scratch; /* zeroed, paged in as they are touched */
    size_t out_size, scratch_size;
};
typedef void mode_jail_fn(void *ctx, void *out, void *scratch, size_t scratch_size);

/* what names the work in errors: "x.pt". E_MEMORY; E_FORMAT: the child died of its input; E_GENERIC: no jail can be
 * made here (nothing was run). The jail is cleared by mode_jail_clear, also after a failure. */
enum mode_status mode_jail_run(struct mode_jail *jail, size_t out_size, size_t scratch_size, mode_jail_fn *work,
                               void *ctx, const char *what, struct mode_error *err);
void mode_jail_clear(struct mode_jail *jail);

#endif
