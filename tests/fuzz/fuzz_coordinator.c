/* Any bytes as messages from a hostile peer to the real coordinator: real store, real core, no Redis, no peers. Nothing
 * may crash, and every reply can be parsed by a worker and by `mode status`.
 *
 * An input is a sequence of messages, each preceded by MARK and a letter: w to the workers' port, a to the admin port,
 * anything else: time passes. A HELLO with code_version "ours" gets this build's instead, so that seeds outlive a
 * release. */
#include "server.h"

#include "base/log.h"
#include "base/str.h"
#include "msg/code_version.h"
#include "msg/status_json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Replace the real ones (--wrap, CMakeLists.txt): nothing is sent, Redis agrees to everything. */
enum mode_status __wrap_mode_socket_send(struct mode_socket *s, const uint8_t *route, size_t n_route,
                                         const Mode__Envelope *e, struct mode_error *err);
enum mode_status __wrap_redis_connect(struct redis *r, bool *fresh, struct mode_error *err);
bool __wrap_redis_is_up(const struct redis *r);
void __wrap_redis_move(struct redis *r, uint64_t epoch, const struct redis_move *move);
enum mode_status __wrap_redis_flush(struct redis *r, bool *ok, size_t *n_refused, bool *stale, struct mode_error *err);

static const char MARK[] = "|MODE|", ID[] = "0123456789abcdef0123456789abcdef";
static const char *const services[] = {"captions", "train", "evaluate"};
static char root[] = "/tmp/mode-fuzz-XXXXXX";
static struct server server;
static size_t n_moves;

static void readable(const Mode__Envelope *e, enum mode_wire wire)
{
    uint8_t *bytes;
    size_t n;
    struct mode_envelope *again;
    struct mode_error err = {0};
    if (mode_envelope_pack(&bytes, &n, e, wire, &err) || mode_envelope_unpack(&again, bytes, n, wire, &err)) {
        fprintf(stderr, "an answer that nobody can read: %s\n", err.text);
        abort();
    }
    mode_envelope_free(&again);
    free(bytes);
}

enum mode_status __wrap_mode_socket_send(struct mode_socket *s, const uint8_t *route, size_t n_route,
                                         const Mode__Envelope *e, struct mode_error *err)
{
    (void)route;
    (void)n_route;
    (void)err;
    readable(e, s == server.admins ? MODE_WIRE_ADMIN : MODE_WIRE_WORKER);
    return MODE_OK;
}

enum mode_status __wrap_redis_connect(struct redis *r, bool *fresh, struct mode_error *err)
{
    (void)r;
    (void)err;
    *fresh = false;
    return MODE_OK;
}

bool __wrap_redis_is_up(const struct redis *r)
{
    (void)r;
    return true;
}

void __wrap_redis_move(struct redis *r, uint64_t epoch, const struct redis_move *move)
{
    (void)r;
    (void)epoch;
    if (move->task->state > CORE_CANCELLED) abort();
    n_moves++;
}

enum mode_status __wrap_redis_flush(struct redis *r, bool *ok, size_t *n_refused, bool *stale, struct mode_error *err)
{
    (void)r;
    (void)err;
    for (; n_moves; n_moves--) *ok++ = true;
    *n_refused = 0;
    *stale = false;
    return MODE_OK;
}

static void end(void)
{
    server_close(&server);
    mode_dir_remove(root, NULL);
}

static void start(void)
{
    struct server_options o = {.workspace = root, .http = "", .redis_url = "redis://127.0.0.1:1", .min_free_mib = 0};
    struct mode_error err = {0};
    if (!mkdtemp(root)) abort();
    char *id = mode_path_join(root, "store-id");
    if (mode_file_write_atomic(id, ID, sizeof ID - 1, &err)) abort();
    free(id);
    if (server_open(&server, &o, &err)) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
    atexit(end);
    mode_log_set_level(MODE_LOG_ERROR);
    server.starting = false;
    server.redis_seen = true;
}

/* The state after a start, with a few tasks. */
static void begin(void)
{
    struct core_options o = CORE_OPTIONS_DEFAULT;
    char key[MODE_DIGEST_HEX];
    core_clear(&server.core);
    core_init(&server.core, &o, 1, server_now_ms());
    server.core.settled_ms = 0;
    server.n_routes = 0;
    server.n_notes = server.n_turned = server.n_held = 0;
    server.files_said_ms = 0;
    peaks_clear(&server.peaks);
    for (uint32_t i = 0; i < 6; i++) {
        memset(key, "abcdef"[i], sizeof key - 1);
        key[sizeof key - 1] = '\0';
        core_task_want(&server.core, key, services[i / 2], i == 2 ? "train/seed" : "captions/0000", "demo", i,
                       i % 2 ? 0 : 1, false, server_now_ms());
    }
    core_actions_clear(&server.core);
}

/* The bytes of a HELLO with "ours" replaced by this build's value. */
static uint8_t *with_ours(size_t *n, const uint8_t *data, size_t size)
{
    struct mode_envelope *in;
    uint8_t *out = NULL;
    char code[128];
    if (mode_envelope_unpack(&in, data, size, MODE_WIRE_WORKER, NULL)) return NULL;
    if (in->msg->body_case == MODE__ENVELOPE__BODY_HELLO && strcmp(in->msg->hello->code_version, "ours") == 0) {
        mode_code_version(code, sizeof code, in->msg->hello->service);
        in->msg->hello->code_version = code;
        if (mode_envelope_pack(&out, n, in->msg, MODE_WIRE_WORKER, NULL)) out = NULL;
    }
    mode_envelope_free(&in);
    return out;
}

static void message(char port, const uint8_t *data, size_t size)
{
    struct mode_packet p = {.n_route = 5, .data = data, .size = size};
    memcpy(p.route, "route", 5);
    if (port == 'w') {
        uint8_t *ours = with_ours(&p.size, data, size);
        if (ours) p.data = ours;
        server_worker_message(&server, &p);
        free(ours);
    } else if (port == 'a') { /* a submitted spec would be planned: fuzz_spec covers its text */
        struct mode_envelope *in;
        const bool read = mode_envelope_unpack(&in, data, size, MODE_WIRE_ADMIN, NULL) == MODE_OK;
        const bool submits = read && in->msg->body_case == MODE__ENVELOPE__BODY_SUBMIT;
        mode_envelope_free(&in);
        if (!submits) server_admin_message(&server, &p);
    } else {
        server_event(&server, &(struct core_event){.type = CORE_EV_TICK});
    }
}

static void check_status(void)
{
    struct status_memory *memory;
    Mode__Envelope e;
    struct mode_str text = {0};
    mode_envelope_init(&e, &server.message_id, MODE__ENVELOPE__BODY_STATUS_REPLY);
    e.status_reply = status_build(&memory, &server, NULL, true, SERVER_NOTES);
    char *json = mode_status_json(e.status_reply);
    status_fit(e.status_reply, MODE_WIRE_ADMIN_MAX - 1024);
    readable(&e, MODE_WIRE_ADMIN);
    http_failure_metrics(&text, &server.core);
    http_train_metrics(&text, &server.core);
    http_score_metrics(&text, &server.core);
    mode_str_clear(&text);
    free(json);
    status_free(&memory);
}

/* Leases, counts and lists agree. */
static void check_core(void)
{
    const struct core *c = &server.core;
    uint32_t active = 0;
    for (uint32_t t = 0; t < c->n_tasks; t++) {
        const struct core_task *x = &c->task[t];
        const bool is = x->state == CORE_LEASED || x->state == CORE_RETRY_WAIT;
        active += is;
        if (is != (x->active_at != CORE_NONE) || (is && c->active[x->active_at] != t)) abort();
        if (x->state == CORE_COMMITTED) abort(); /* nothing is: the store is empty */
    }
    if (active != c->n_active) abort();
    for (uint32_t w = 0; w < c->n_workers; w++) {
        uint32_t held = 0;
        for (uint32_t t = 0; t < c->n_tasks; t++) held += c->task[t].state == CORE_LEASED && c->task[t].worker == w;
        if (held != c->worker[w].held) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const size_t mark = sizeof MARK - 1;
    if (!server.store) start();
    begin();
    for (const uint8_t *at = memmem(data, size, MARK, mark), *next; at; at = next) {
        const uint8_t *body = at + mark + 1, *whole = data + size;
        if (body > whole) break;
        next = memmem(body, (size_t)(whole - body), MARK, mark);
        message((char)at[mark], body, (size_t)((next ? next : whole) - body));
        check_core();
    }
    check_status();
    return 0;
}
