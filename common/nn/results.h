/* results.h - what ops make, on its way to the host while later ones run.
 *
 *     mode_results_take(r, 0, features, n); // behind the ops so far; later ones may write there again
 *     more_ops(be, ...);
 *     mode_results_wait(r); use(r->host);  // n bytes from 0 on; until they are taken again
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
    void *host; /* owned; aligned to a page */
    void *way;  /* the backend's own */
};

/* MODE_E_MEMORY. */
enum mode_status mode_results_open(struct mode_results **r, struct mode_backend *be, size_t bytes,
                                   struct mode_error *err);
void mode_results_close(struct mode_results **r);
/* The first n bytes of `from`, memory of the backend, to byte `at` of the host's and further. */
void mode_results_take(struct mode_results *r, size_t at, const void *from, size_t n);
/* For all that was taken. */
void mode_results_wait(struct mode_results *r);

#endif
