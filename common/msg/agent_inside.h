/* agent_inside.h - internal to the agent: its state, and the messages it sends (agent_say.c); included nowhere else. */
#ifndef MODE_MSG_AGENT_INSIDE_H
#define MODE_MSG_AGENT_INSIDE_H

#include "base/clock.h"
#include "msg/agent.h"
#include "msg/runtime.h"

enum { MAX_REPORTS = 64, SENDS = 16, SAMPLES = 8 };
#define HELLO_AGAIN_S 2.0  /* until HELLO is repeated */
#define REPORT_MOST_S 10.0 /* longest interval between two sends of a report */

enum why { WHY_NONE, WHY_CANCEL, WHY_STOP, WHY_DROPPED, WHY_STALL };

struct sample {
    double at;
    uint64_t done;
};

struct work { /* a slot and the task in it */
    struct mode_slot proc;
    bool busy;
    struct mode_compute_job job;
    uint64_t stall_ms;
    char label[128];
    double began, changed_at;
    uint64_t changes;
    enum why why; /* why it was told to end */
    double kill_at;
    struct sample samples[SAMPLES]; /* of recent heartbeats, for the rate */
    size_t n_samples;
};

enum report_kind { REPORT_RESULT, REPORT_FAIL, REPORT_RELEASE };

struct report { /* to be sent until the coordinator acknowledges it with RESULT_ACK */
    enum report_kind kind;
    struct mode_compute_job job;
    struct mode_compute_end end;
    int signal, exit_code;
    uint64_t done, total;
    Mode__ReleaseReason reason;
    uint8_t *log;
    size_t n_log;
    double next_at, delay;
};

struct sent {
    uint64_t id;
    double at;
};

struct agent {
    const struct mode_agent_config *config;
    struct mode_store *store;
    struct mode_socket *socket;
    struct mode_slot_program program;
    struct work *slots;
    struct report reports[MAX_REPORTS];
    size_t n_reports;

    char session[33];
    uint64_t counter, epoch, ignored;
    bool linked, welcome;
    double heartbeat_s, lease_s;
    double hello_at, beat_at, health_at, complain_at; /* when next */
    double taken_since;                               /* since when our name is refused as taken; 0 = it is not */
    double hello_sent, acked, heard; /* latest times; acked: when the newest acknowledged heartbeat was SENT */
    struct sent sends[SENDS];
    size_t n_sends;
    int credit_sent;               /* -1 = none on this connection */
    char device[MODE_DEVICE_TEXT]; /* the device, for people, and whether all its machines are connected */
    char said[MODE_DEVICE_TEXT];   /* the same text in the last HELLO */
    double idle_since;

    int stop_signal;  /* of SIGTERM, SIGINT; 0 = none */
    bool stopping;    /* take nothing more */
    bool draining;    /* let running tasks finish */
    bool drained;     /* because the coordinator said so */
    double stop_at;   /* then stop running tasks */
    double silent_at; /* then exit without acknowledgements */
    bool done;
    int exit_code;
};

/* agent.c: handles a message from the coordinator. */
void mode_agent_hear(struct agent *a, const Mode__Envelope *e, double now);

/* agent_say.c: each function sends one message. `now`: mode_clock_s() of this turn of the loop. */
bool mode_agent_send(struct agent *a, Mode__Envelope *e);
void mode_agent_say_hello(struct agent *a, double now);
/* Sends only when it differs from the last one sent, or when `again`. */
void mode_agent_say_credit(struct agent *a, bool again);
void mode_agent_say_progress(struct agent *a, double now);
/* Also sets when it is due again. */
void mode_agent_say_report(struct agent *a, struct report *r, double now);
/* refused: the reason, NULL = accepted. */
void mode_agent_say_assign_ack(struct agent *a, const Mode__Assign *as, const char *refused);

#endif
