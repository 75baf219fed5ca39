/* beside.h - the processes that do a task together with the compute process (msg/job.h): the same program, which runs
 * the same work function on the same inputs. Who starts them is their parent: the compute process those of its machine
 * (team.c), a companion those of another one (join.c).
 *
 * DESIGN: they have no socket to anybody and no page: they are told nothing and asked nothing. The kernel ends them
 * when their parent ends, and what they log goes where it logs. */
#ifndef MODE_MSG_BESIDE_H
#define MODE_MSG_BESIDE_H

#include "msg/job.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct mode_beside { /* what all of a task's are told */
    const char *workspace, *backend, *key;
    uint64_t fence;
    const char *inputs;     /* the folder that the compute process made of them */
    const char *checkpoint; /* NULL: from the beginning */
    int size;
    const char *place;     /* where they meet, and */
    const uint8_t *secret; /* [MODE_TEAM_SECRET], what they say there */
    int threads;           /* of each */
    bool apart;            /* each in a process group of its own, away from the terminal's signals */
};

/* Process `rank` of them, with the gpu-th GPU of those that this process sees; -1 with errno. */
pid_t mode_beside_start(const struct mode_beside *b, int rank, int gpu);
/* That process. */
int mode_beside_main(const char *word, mode_work_fn *work, int argc, char **argv);
#define MODE_BESIDE_FLAG "--beside"

#endif
