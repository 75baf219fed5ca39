/* envelope.h - packing and unpacking of all wire messages (proto/envelope.proto).
 *
 * Bytes from a peer pass three checks before they are used: a size limit, an allocator with a hard budget (a 64 KiB
 * message of empty sub-messages would otherwise unpack to megabytes), and a validation of every field: string lengths
 * and UTF-8, counts of repeated fields, finite numbers, well-formed keys. Unknown enum values become 0.
 *
 *     Mode__Ping ping = MODE__PING__INIT;
 *     Mode__Envelope e;
 *     mode_envelope_init(&e, &counter, MODE__ENVELOPE__BODY_PING);
 *     e.ping = &ping;
 *     st = mode_envelope_pack(&bytes, &size, &e, MODE_WIRE_WORKER, &err);
 *
 *     struct mode_envelope *in;
 *     st = mode_envelope_unpack(&in, data, size, MODE_WIRE_WORKER, &err);
 *     switch (in->msg->body_case) ...
 *     mode_envelope_free(&in);
 *
 * Threads: no shared state. */
#ifndef MODE_MSG_ENVELOPE_H
#define MODE_MSG_ENVELOPE_H

#include "base/error.h"
#include "proto/envelope.pb-c.h"

#include <stddef.h>
#include <stdint.h>

#define MODE_WIRE_MAGIC UINT32_C(0x45446f4d)
#define MODE_WIRE_MAJOR 1
#define MODE_WIRE_MINOR 0

enum mode_wire { MODE_WIRE_WORKER, MODE_WIRE_ADMIN }; /* the two ports and their limits */

#define MODE_WIRE_WORKER_MAX    ((size_t)64 << 10) /* bytes of a message */
#define MODE_WIRE_ADMIN_MAX     ((size_t)1 << 20)
#define MODE_WIRE_WORKER_BUDGET ((size_t)4 << 20) /* bytes a message may unpack to */
#define MODE_WIRE_ADMIN_BUDGET  ((size_t)16 << 20)
#define MODE_WIRE_MAX_STRING    ((size_t)4 << 10)
#define MODE_WIRE_MAX_REPEATED  ((size_t)4096)
#define MODE_WIRE_MAX_LABELS    ((size_t)64)
#define MODE_WIRE_MAX_SLOTS     64
#define MODE_WIRE_MAX_LOG_TAIL  ((size_t)16 << 10)

/* An unpacked message and the memory it lives in. */
struct mode_envelope {
    Mode__Envelope *msg;
    void *arena;
};

/* Initialise e with magic, versions, the next id of *counter and the body's case; the caller sets the body.
 */
void mode_envelope_init(Mode__Envelope *e, uint64_t *counter, Mode__Envelope__BodyCase body);
/* Replaces bytes that are not UTF-8 by '?', in place: our texts contain file names, which may be any bytes, and are
 * truncated at buffer ends, possibly inside a character; the receiver would reject the whole message. NULL is fine. */
void mode_wire_text(char *s);
/* *data is malloc'd. MODE_E_VALUE when it would be larger than the port allows. */
enum mode_status mode_envelope_pack(uint8_t **data, size_t *size, const Mode__Envelope *e, enum mode_wire wire,
                                    struct mode_error *err);
/* MODE_E_FORMAT: malformed, wrong magic, a limit exceeded. MODE_E_CONFIG: another major version: one side must be
 * updated. MODE_E_MEMORY: over the budget. An unknown body is not an error (body_case is then
 * MODE__ENVELOPE__BODY__NOT_SET), nor is an unknown field. *out is NULL after failure. */
enum mode_status mode_envelope_unpack(struct mode_envelope **out, const void *data, size_t size, enum mode_wire wire,
                                      struct mode_error *err);
void mode_envelope_free(struct mode_envelope **e);
/* "hello"; "?" for none. */
const char *mode_envelope_name(const Mode__Envelope *e);

/* The same checks for any other packed message (a request, a commit record): unpack with a budget and check every
 * field. Free with mode_unpacked_free. max_string 0 = MODE_WIRE_MAX_STRING. */
struct mode_unpacked {
    ProtobufCMessage *msg; /* cast to the type of the descriptor */
    void *arena;
};
enum mode_status mode_unpack(struct mode_unpacked *out, const ProtobufCMessageDescriptor *type, const void *data,
                             size_t size, size_t budget, size_t max_string, struct mode_error *err);
void mode_unpacked_free(struct mode_unpacked *u);
/* The number of an unknown field, in m or in a nested message (*of), which a newer sender has set; 0: none. Most
 * messages may be used all the same; a request with unknown fields may not (msg/job.h). */
uint32_t mode_unknown_field(const ProtobufCMessage *m, const char **of);

#endif
