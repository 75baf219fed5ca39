/* meeting.h - rendezvous of a group's processes, and detection of a process that has ended.
 *
 * Rank 0 listens at an address that all processes are given: a path (a Unix socket, for one machine) or host:port
 * (TCP). The others connect and send their rank. Connections stay open while the group lives: if one closes, its
 * process has ended. Nothing is encrypted, so TCP is for trusted networks only. If a secret is set, connections that do
 * not send it are dropped.
 *
 *     const struct mode_meeting_options o = {.rank = 1, .size = 4, .place = "/tmp/train.sock", .timeout_s = 60};
 *     st = mode_meeting_open(&m, &o, &err);
 *
 * Threads: one caller. */
#ifndef MODE_DIST_MEETING_H
#define MODE_DIST_MEETING_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MODE_MEETING_SECRET = 32 };

struct mode_meeting_options {
    int rank, size;              /* 0 <= rank < size <= MODE_RANKS_MAX */
    const char *place;           /* with a '/': a path; otherwise host:port of rank 0 */
    const uint8_t *secret;       /* [MODE_MEETING_SECRET], the same in all processes; NULL: none */
    double timeout_s;            /* for all processes to connect */
    bool (*stopping)(void *ctx); /* may be NULL; polled while waiting for the others; true: MODE_E_STOPPED */
    void *ctx;
};

struct mode_meeting {
    int rank, size;
    int *fd;    /* [size] rank 0: connections by rank, -1 for itself; elsewhere fd[0]: to rank 0 */
    char *path; /* rank 0: of the Unix socket, if any */
};

/* Options are borrowed for the call. On failure *m is NULL. MODE_E_VALUE: rank, size or place are invalid, or another
 * process does not match (the same rank twice, another size); MODE_E_CREATE: rank 0 cannot listen there; MODE_E_IO: no
 * socket, or rank 0's stops accepting connections; MODE_E_PEER: not all connected in time; MODE_E_STOPPED. */
enum mode_status mode_meeting_open(struct mode_meeting **m, const struct mode_meeting_options *o,
                                   struct mode_error *err);
/* All-gather in place, through rank 0: data [size, bytes], each process fills its own row. Blocks. For small data, and
 * for tests. MODE_E_PEER: a process has ended. */
enum mode_status mode_meeting_all_gather(struct mode_meeting *m, void *data, size_t bytes, struct mode_error *err);
/* Returns when all processes have called it. MODE_E_PEER. */
enum mode_status mode_meeting_barrier(struct mode_meeting *m, struct mode_error *err);
void mode_meeting_close(struct mode_meeting **m);

#endif
