/* agent.h - internal to the worker runtime: the loop that talks to the coordinator (agent.c), started by worker.c. */
#ifndef MODE_MSG_AGENT_H
#define MODE_MSG_AGENT_H

#include "msg/machines.h"
#include "store/artifacts.h"

struct mode_agent_config {
    const char *word, *argv0, *workspace;
    const char *name, *node; /* this worker, for people */
    struct mode_endpoint coordinator;
    uint64_t incarnation; /* 0 = none; see Hello */
    int slots, threads;
    const char *backend;            /* passed to work functions */
    const char *device;             /* its description, for people; "" = not known */
    int gpus;                       /* that one task may use, each with a process of its own: 1 or more */
    struct mode_machines *machines; /* of the same team; NULL = none; with machines there is one slot */
    double grace_s;                 /* how long running tasks may take to stop after SIGTERM */
    double idle_exit_s;             /* exit after this long without a task; 0 = never */
    bool stay; /* when drained, wait idle for SIGTERM, for workers that would be restarted after an exit */
    const char *health_file;
    int signal_fd; /* SIGTERM and SIGINT arrive here */
};

/* Runs until it is told to stop. Returns the exit code of the process. */
int mode_agent_run(const struct mode_agent_config *config, struct mode_store *store, struct mode_net *net);

#endif
