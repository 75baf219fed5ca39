/* agent.h - inside of the worker runtime: the loop that talks to the coordinator (agent.c), started by
 * worker.c. */
#ifndef MODE_MSG_AGENT_H
#define MODE_MSG_AGENT_H

#include "msg/machines.h"
#include "store/artifacts.h"

struct mode_agent_config {
    const char *word, *argv0, *workspace;
    const char *name, *node; /* who we are, for people */
    struct mode_endpoint coordinator;
    uint64_t incarnation; /* 0 = none; see Hello */
    int slots, threads;
    const char *backend;            /* what work functions are told to compute with */
    const char *device;             /* what that is, for people; "" = not known */
    int gpus;                       /* that one task may take, each with a process of its own: 1 or more */
    struct mode_machines *machines; /* that do tasks together with this one; NULL = none; then there is one slot */
    double grace_s;                 /* how long running tasks may take to stop after SIGTERM */
    double idle_exit_s;             /* exit after so long without a task; 0 = never */
    bool stay; /* drained: wait for SIGTERM and do nothing, where an exit would be followed by another start */
    const char *health_file;
    int signal_fd; /* SIGTERM and SIGINT arrive here */
};

/* Runs until it is told to stop. Returns the exit code of the process. */
int mode_agent_run(const struct mode_agent_config *config, struct mode_store *store, struct mode_net *net);

#endif
