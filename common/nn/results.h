/* results.h - results of ops, copied to the host while later ops run.
 *
 *     mode_results_take(r, 0, features, n); // in stream order: later ops may overwrite features
 *     more_ops(be, ...);
 *     mode_results_wait(r); use(r->host);   // n bytes from offset 0; until the next take
 *
 * With two of them, used alternately, a device computes one batch while the host handles the one before.
 *
 * Threads: the backend's caller. */
#ifndef MODE_NN_RESULTS_H
#define MODE_NN_RESULTS_H

#include "nn/backend.h"

struct mode_results {
    struct mode_backend *be; /* borrowed */
    size_t bytes;
    void *host; /* owned; aligned to a page */
    void *impl; /* the backend's own */
};

/* MODE_E_MEMORY. */
enum mode_status mode_results_open(struct mode_results **r, struct mode_backend *be, size_t bytes,
                                   struct mode_error *err);
void mode_results_close(struct mode_results **r);
/* Copy n bytes of `from`, in the backend's memory, to offset `at` of host. */
void mode_results_take(struct mode_results *r, size_t at, const void *from, size_t n);
/* For all copies so far. */
void mode_results_wait(struct mode_results *r);

#endif
