/* beside.h - the further processes (ranks) that do a task together with the compute process (msg/job.h): the same
 * program, running the same work function on the same inputs. Their parent is the compute process (team.c) or, on
 * another machine, a companion (join.c).
 *
 * DESIGN: they have neither socket nor shared page: they receive no messages and send none. The kernel kills them when
 * their parent dies, and they log to its stderr. */
#ifndef MODE_MSG_BESIDE_H
#define MODE_MSG_BESIDE_H

#include "msg/job.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct mode_beside { /* common to all processes of a task */
    const char *workspace, *backend, *key;
    uint64_t fence;
    const char *inputs;     /* the folder of links that the compute process made */
    const char *checkpoint; /* NULL: from the beginning */
    int size;
    const char *place;     /* rendezvous address */
    const uint8_t *secret; /* [MODE_TEAM_SECRET], authenticates them there */
    int threads;           /* of each */
    bool apart;            /* each in its own process group, not reached by signals of the terminal */
};

/* Starts process `rank` with the gpu-th GPU visible to this process; -1 with errno on failure. */
pid_t mode_beside_start(const struct mode_beside *b, int rank, int gpu);
/* The main function of that process. */
int mode_beside_main(const char *word, mode_work_fn *work, int argc, char **argv);
#define MODE_BESIDE_FLAG "--beside"

#endif
