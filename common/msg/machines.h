/* machines.h - the other machines of a team, from the side of the leader's agent.
 *
 * The leader listens; a companion (join.h) on each other machine connects, announces its GPUs, and stays. The worker
 * requests tasks only while all of them are connected and idle: so a task that begins has all its GPUs, and otherwise
 * tasks are left to other workers.
 *
 *     mode_machines_turn(m, now);                             // often
 *     if (mode_machines_ready(m)) ...                         // request a task
 *     mode_machines_lend(m, &others, key, fence);             // a task arrived: goes to the compute process
 *     mode_machines_begin(m, &call);                          // which requests their processes
 *     while ((news = mode_machines_news(m))) ...              // and is told which ones have ended
 *     mode_machines_end(m);                                   // the task is over
 *
 * DESIGN: a companion kills its processes when its connection is lost, and starts over with JOIN: so the leader keeps
 * no state about one that it cannot reach.
 *
 * Threads: one caller. */
#ifndef MODE_MSG_MACHINES_H
#define MODE_MSG_MACHINES_H

#include "msg/runtime.h"
#include "msg/socket.h"

#include <stdbool.h>

struct mode_machines;

struct mode_machines_config {
    const char *endpoint; /* tcp://HOST:PORT: of this machine */
    const char *key_dir;  /* with the server's pair and the allow list */
    const char *word, *store_id, *workspace;
    int n, gpus; /* machines, this one included; GPUs of this one */
};

/* MODE_E_CONFIG, MODE_E_PERM, ... as mode_socket_bind. config is borrowed. */
enum mode_status mode_machines_open(struct mode_machines **m, struct mode_net *net,
                                    const struct mode_machines_config *config, struct mode_error *err);
void mode_machines_close(struct mode_machines **m);
/* Rereads the allow list, on SIGHUP, and drops machines that are no longer in it. If it cannot be read, that is logged
 * and the old list stays in force. */
void mode_machines_read_keys(struct mode_machines *m);
/* For zmq_poll. */
void *mode_machines_handle(struct mode_machines *m);
/* Where it listens; borrowed. */
const char *mode_machines_endpoint(const struct mode_machines *m);
/* Reads messages, pings silent machines, drops lost ones. now: mode_clock_s(). */
void mode_machines_turn(struct mode_machines *m, double now);
/* Whether all machines are connected and idle. */
bool mode_machines_ready(const struct mode_machines *m);
/* For people: "2 machines, 16 GPUs" or "2 machines, 1 missing". */
void mode_machines_text(const struct mode_machines *m, char *text, size_t size);

void mode_machines_lend(struct mode_machines *m, struct mode_compute_others *others, const char *key, uint64_t fence);
void mode_machines_begin(struct mode_machines *m, const struct mode_compute_call *call);
/* The next event to pass on to the compute process, until mode_machines_told; NULL: none. */
const struct mode_compute_news *mode_machines_news(const struct mode_machines *m);
void mode_machines_told(struct mode_machines *m);
/* Whether a machine that takes part in the task is being stopped and waits for a checkpoint. */
bool mode_machines_leaving(const struct mode_machines *m);
/* Ends the task, whatever its result; also fine without one. */
void mode_machines_end(struct mode_machines *m);

/* The rendezvous address "HOST:PORT" for an endpoint "tcp://HOST:P": PORT is P + 1 unless port is given; false: too
 * long. */
bool mode_team_place(char place[MODE_MEETING_PLACE], const char *endpoint, int port);
/* MODE_E_CONFIG: malformed, or the host cannot be resolved. listens: on the leader. */
enum mode_status mode_team_check(const char *endpoint, bool listens, struct mode_error *err);

#endif
