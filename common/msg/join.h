/* join.h - a companion: lends the GPUs of its machine to a worker on another machine, its leader (machines.h).
 *
 * It has no connection to a coordinator. It connects to the leader, announces its GPUs, starts the processes that the
 * leader requests (beside.h), one per GPU, and reports how they end. When the connection is lost, or the leader is
 * silent, it kills them and waits for a leader to return. On SIGTERM or SIGINT it tells the leader, which brings the
 * task to a checkpoint; processes still running after the grace period are killed. A second signal: at once. */
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
