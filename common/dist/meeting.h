/* meeting.h - how the processes of a group find each other, and notice when one is gone.
 *
 * Rank 0 listens at a place that all of them are told: a path (a socket file, for one machine) or host:port. The others
 * connect and say who they are. The connections stay open as long as the group lives: their end is the end of the
 * process behind them. Nothing is encrypted: a port is for a network of one's own. Where all were given a secret, who does
 * not know it is a stranger.
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
    const char *place;           /* with a '/': a path; otherwise host:port, rank 0's host */
    const uint8_t *secret;       /* [MODE_MEETING_SECRET], the same everywhere; NULL: there is none */
    double timeout_s;            /* until all are there */
    bool (*stopping)(void *ctx); /* may be NULL; asked while waiting for the others to come */
    void *ctx;
};

struct mode_meeting {
    int rank, size;
    int *fd;    /* rank 0: [size] a connection to each, -1 for itself; elsewhere [1]: to rank 0 */
    char *path; /* of the socket file while rank 0 has one */
};

/* MODE_E_VALUE: rank, size or place make no sense, or another process does not fit (two of one rank, another size);
 * MODE_E_CREATE: rank 0 cannot listen there; MODE_E_PEER: not all came in time; MODE_E_STOPPED. */
enum mode_status mode_meeting_open(struct mode_meeting **m, const struct mode_meeting_options *o,
                                   struct mode_error *err);
/* data [size, bytes]: everyone's row, each process brings its own; by way of rank 0. For small things, and for tests.
 * MODE_E_PEER: a process has ended. */
enum mode_status mode_meeting_all_gather(struct mode_meeting *m, void *data, size_t bytes, struct mode_error *err);
/* Returns when all have come here. */
enum mode_status mode_meeting_barrier(struct mode_meeting *m, struct mode_error *err);
void mode_meeting_close(struct mode_meeting **m);

#endif
