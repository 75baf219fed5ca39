/* results.h - what ops make, on its way to the host while later ones run.
 *
 *     mode_results_take(r, features, n);   // behind the ops so far; later ones may write there again
 *     more_ops(be, ...);
 *     mode_results_wait(r); use(r->host);  // n bytes; until the next take
 *
 * Two of them, taken by turns, and a device computes one batch while the host is busy with the one before.
 *
 * Threads: the backend's caller. */
#ifndef MODE_NN_RESULTS_H
#define MODE_NN_RESULTS_H

#include "nn/backend.h"

struct mode_results {
    struct mode_backend *be; /* borrowed */
    size_t bytes;
    void *host; /* owned; aligned to 64 */
    void *way;  /* the backend's own */
};

/* MODE_E_MEMORY. */
enum mode_status mode_results_open(struct mode_results **r, struct mode_backend *be, size_t bytes,
                                   struct mode_error *err);
void mode_results_close(struct mode_results **r);
/* The first n bytes of `from`, memory of the backend. */
void mode_results_take(struct mode_results *r, const void *from, size_t n);
void mode_results_wait(struct mode_results *r);

#endif
