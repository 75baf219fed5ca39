/* Any bytes as messages from a coordinator to a worker's agent with a running task and an unsent result: nothing may
 * crash, and the agent's messages can be parsed by a coordinator. Its compute process is a socket.
 *
 * An input is a sequence of messages, each preceded by MARK. */
#include "msg/agent_inside.h"

#include "base/log.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Replaces the real one (--wrap, CMakeLists.txt). */
enum mode_status __wrap_mode_socket_send(struct mode_socket *s, const uint8_t *route, size_t n_route,
                                         const Mode__Envelope *e, struct mode_error *err);

enum { SLOTS = 2 };
static const char MARK[] = "|MODE|";
static struct mode_job_page page[SLOTS];
static struct work work[SLOTS];
static struct agent agent;
static int ends[SLOTS][2];
static struct mode_store *store;
static char root[] = "/tmp/mode-fuzz-XXXXXX";

enum mode_status __wrap_mode_socket_send(struct mode_socket *s, const uint8_t *route, size_t n_route,
                                         const Mode__Envelope *e, struct mode_error *err)
{
    uint8_t *bytes;
    size_t n;
    struct mode_envelope *again;
    struct mode_error why = {0};
    (void)s;
    (void)route;
    (void)n_route;
    (void)err;
    if (mode_envelope_pack(&bytes, &n, e, MODE_WIRE_WORKER, &why) ||
        mode_envelope_unpack(&again, bytes, n, MODE_WIRE_WORKER, &why)) {
        fprintf(stderr, "a message that no coordinator can read: %s\n", why.text);
        abort();
    }
    mode_envelope_free(&again);
    free(bytes);
    return MODE_OK;
}

static void key_of(char key[MODE_DIGEST_HEX], char c)
{
    memset(key, c, MODE_DIGEST_HEX - 1);
    key[MODE_DIGEST_HEX - 1] = '\0';
}

/* Slot 0 runs a...a with fence 1, slot 1 is idle, the result of b...b with fence 2 is not acknowledged yet. */
static void begin(double now)
{
    static const struct mode_agent_config config = {.word = "train",
                                                    .name = "train@n/1",
                                                    .node = "n",
                                                    .slots = SLOTS,
                                                    .backend = "cpu",
                                                    .device = "cpu",
                                                    .grace_s = 1,
                                                    .coordinator = {.endpoint = "ipc:///nowhere"}};
    struct mode_compute_job job;
    memset(work, 0, sizeof work);
    agent = (struct agent){
        .config = &config, .store = store, .slots = work, .linked = true, .welcome = true, .credit_sent = -1};
    snprintf(agent.session, sizeof agent.session, "%032d", 1);
    for (int i = 0; i < SLOTS; i++) {
        work[i].proc.pid = getpid(); /* a message alone never kills a process */
        work[i].proc.page = &page[i];
        work[i].proc.sock = ends[i][0];
        while (recv(ends[i][1], &job, sizeof job, MSG_DONTWAIT) > 0) continue;
    }
    work[0].busy = true;
    work[0].began = now;
    work[0].job.fence = 1;
    key_of(work[0].job.key, 'a');
    agent.reports[agent.n_reports++] = (struct report){.kind = REPORT_RESULT, .delay = 1, .job.fence = 2};
    key_of(agent.reports[0].job.key, 'b');
}

static void say_all(double now)
{
    mode_agent_say_hello(&agent, now);
    mode_agent_say_progress(&agent, now);
    mode_agent_say_credit(&agent, true);
    for (size_t i = 0; i < agent.n_reports; i++) mode_agent_say_report(&agent, &agent.reports[i], now);
}

/* It logs why, each time, and ends. */
static bool is_the_end(const Mode__Envelope *e)
{
    return e->body_case == MODE__ENVELOPE__BODY_REJECT &&
           e->reject->code != MODE__REJECT_CODE__REJECT_UNKNOWN_SESSION &&
           e->reject->code != MODE__REJECT_CODE__REJECT_STARTING &&
           e->reject->code != MODE__REJECT_CODE__REJECT_NAME_TAKEN;
}

static void check(void)
{
    if (agent.n_reports > 1) abort();
    for (int i = 0; i < SLOTS; i++)
        if (work[i].busy && strspn(work[i].job.key, "0123456789abcdef") != MODE_DIGEST_HEX - 1) abort();
    if (!(agent.heartbeat_s >= 0 && agent.heartbeat_s <= 60)) abort();
}

static void end(void)
{
    mode_store_close(&store);
    mode_dir_remove(root, NULL);
}

static void start(void)
{
    if (!mkdtemp(root) || mode_store_open(&store, root, NULL)) abort();
    atexit(end);
    for (int i = 0; i < SLOTS; i++)
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends[i]) != 0) abort();
    mode_log_set_level(MODE_LOG_ERROR);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const size_t mark = sizeof MARK - 1;
    double now = 1000;
    if (!store) start();
    begin(now);
    for (const uint8_t *at = memmem(data, size, MARK, mark), *next; at && !agent.done; at = next) {
        struct mode_envelope *in;
        const uint8_t *body = at + mark, *whole = data + size;
        next = memmem(body, (size_t)(whole - body), MARK, mark);
        const size_t n = (size_t)((next ? next : whole) - body);
        if (mode_envelope_unpack(&in, body, n, MODE_WIRE_WORKER, NULL)) continue;
        if (!is_the_end(in->msg)) mode_agent_hear(&agent, in->msg, now);
        mode_envelope_free(&in);
        check();
        now += 1;
    }
    say_all(now);
    return 0;
}
