/* join.h - a companion: what brings the GPUs of a machine to a worker on another one, its leader (machines.h).
 *
 * It knows no coordinator. It connects to the leader, says what it has, and starts the processes that it is told to
 * (beside.h), each with a GPU; how they end goes back. When the connection goes, or the leader is silent, it ends them
 * and waits for the next leader. SIGTERM, SIGINT: it says so, and the leader brings the task to a checkpoint; what still
 * runs after the grace is ended. The second signal: at once. */
#ifndef MODE_MSG_JOIN_H
#define MODE_MSG_JOIN_H

#include "msg/socket.h"
#include "store/artifacts.h"

struct mode_join_config {
    const char *word, *name;
    struct mode_endpoint leader;
    const char *device; /* what its GPUs are, for people; "" = not known */
    int gpus, threads;  /* threads of the machine; 0 = as many as processors */
    double grace_s;
    const char *health_file;
    int signal_fd; /* SIGTERM and SIGINT arrive here */
};

/* Runs until it is told to stop. Returns the exit code of the process. */
int mode_join_run(const struct mode_join_config *config, struct mode_store *store, struct mode_net *net);

#endif
