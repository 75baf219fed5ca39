/* machines.h - the machines that do tasks together with this one, as the agent of the worker that leads them sees them.
 *
 * The leader listens; on each other machine a companion (join.h) comes, says what it brings, and stays. The worker asks
 * for tasks while all of them are there and none has processes of a task: so a task that begins has all its GPUs, and
 * one that cannot is left to other workers.
 *
 *     mode_machines_turn(m, now);                             // often
 *     if (mode_machines_ready(m)) ...                         // ask for a task
 *     mode_machines_lend(m, &others, key, fence);             // it came: goes to the compute process
 *     mode_machines_begin(m, &call);                          // which calls for them
 *     while ((news = mode_machines_news(m))) ...              // and wants to know who has ended
 *     mode_machines_end(m);                                   // it is over
 *
 * DESIGN: a companion ends its processes when its connection goes, and begins anew with JOIN: so the leader needs to
 * remember nothing of one that it cannot reach.
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
/* The allow list again, which SIGHUP asks for: who is no longer in it goes. One that cannot be read is logged, and the old
 * one stays in force. */
void mode_machines_read_keys(struct mode_machines *m);
/* For zmq_poll. */
void *mode_machines_handle(struct mode_machines *m);
/* Where it listens; borrowed. */
const char *mode_machines_endpoint(const struct mode_machines *m);
/* Read what came, ask who is silent, let go who is gone. now: mode_clock_s(). */
void mode_machines_turn(struct mode_machines *m, double now);
/* All are there, and idle. */
bool mode_machines_ready(const struct mode_machines *m);
/* For people: "2 machines, 16 GPUs" or "2 machines, 1 missing". */
void mode_machines_text(const struct mode_machines *m, char *text, size_t size);

void mode_machines_lend(struct mode_machines *m, struct mode_compute_others *others, const char *key, uint64_t fence);
void mode_machines_begin(struct mode_machines *m, const struct mode_compute_call *call);
/* The next thing to be told of the task, until it was; NULL: nothing. */
const struct mode_compute_news *mode_machines_news(const struct mode_machines *m);
void mode_machines_told(struct mode_machines *m);
/* A machine that takes part in the task is being stopped, and waits for its checkpoint. */
bool mode_machines_leaving(const struct mode_machines *m);
/* The task is over, however it ended; also when there was none. */
void mode_machines_end(struct mode_machines *m);

/* "HOST:PORT" where processes meet, of an endpoint "tcp://HOST:P": P + 1 unless port says another; false: too long. */
bool mode_team_place(char place[MODE_MEETING_PLACE], const char *endpoint, int port);
/* MODE_E_CONFIG: that, or what it names is not to be found. listens: as the leader. */
enum mode_status mode_team_check(const char *endpoint, bool listens, struct mode_error *err);

#endif
