/* ranks_option.h - the options of a verb that several processes may do together: --ranks, --rank, --rendezvous. */
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
                 "so many processes train this model, each on a GPU and on its part of every batch"),                  \
        MODE_OPT_INT(type, ranks.rank, "rank", "-1", "I", "with --ranks: which of them this is, from 0"),              \
        MODE_OPT_STR(type, ranks.rendezvous, "rendezvous", NULL, "PLACE",                                              \
                     "with --ranks: where they meet, a socket file's path (one machine) or HOST:PORT of process 0"),   \
        MODE_OPT_REAL(type, ranks.timeout_s, "rendezvous-timeout", "600", "S",                                         \
                      "with --ranks: seconds until all must have come")

/* Meet the others. *m is NULL when this process is alone: neither --ranks nor WORLD_SIZE, RANK, MASTER_ADDR and
 * MASTER_PORT in the environment. With others the backend becomes a GPU's: --device, else LOCAL_RANK, else the rank. */
enum mode_status ranks_meet(struct mode_meeting **m, struct backend_options *backend, const struct ranks_options *o,
                            struct mode_error *err);

#endif
