/* ranks_option.h - the options of a verb that several processes can execute together: --ranks, --rank, --rendezvous. */
#ifndef MODE_SERVICES_MODE_RANKS_OPTION_H
#define MODE_SERVICES_MODE_RANKS_OPTION_H

#include "backend_option.h"
#include "base/options.h"
#include "dist/meeting.h"

struct ranks_options {
    int64_t n, rank;
    const char *rendezvous;
    double timeout_s;
};

/* type has a struct ranks_options named ranks */
#define RANKS_OPTIONS(type)                                                                                            \
    MODE_OPT_INT(type, ranks.n, "ranks", NULL, "N",                                                                    \
                 "number of processes that train this model, each on one GPU and its part of every batch"),            \
        MODE_OPT_INT(type, ranks.rank, "rank", "-1", "I", "with --ranks: which of them this is, from 0"),              \
        MODE_OPT_STR(type, ranks.rendezvous, "rendezvous", NULL, "PLACE",                                              \
                     "with --ranks: where they meet, the path of a socket (one machine) or HOST:PORT of process 0"),   \
        MODE_OPT_REAL(type, ranks.timeout_s, "rendezvous-timeout", "600", "S",                                         \
                      "with --ranks: seconds within which all must arrive")

/* for the table of ranges.h */
#define RANGES_RANKS RANGE("ranks", 0, MODE_RANKS_MAX), RANGE_FROM("rank", -1), RANGE_ABOVE("rendezvous-timeout", 0)

struct ranks {
    int rank, size; /* size 1: alone */
    char *place;
    double timeout_s;
};

/* Rank and size from the options, else from WORLD_SIZE, RANK, MASTER_ADDR and MASTER_PORT in the environment, else a
 * single process. With several processes the backend becomes a GPU's: --device, else LOCAL_RANK, else the rank. */
enum mode_status ranks_find(struct ranks *r, struct backend_options *backend, const struct ranks_options *o,
                            struct mode_error *err);
/* Opens the backend, then performs the rendezvous; *m is NULL for a single process. A process without a GPU reports
 * that to those that have arrived or arrive within a moment, and does not wait for the rest. */
enum mode_status ranks_meet(struct mode_meeting **m, struct mode_backend **be, const struct ranks *r,
                            const struct backend_options *backend, struct mode_error *err);
void ranks_clear(struct ranks *r);

#endif
