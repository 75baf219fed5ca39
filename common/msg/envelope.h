/* envelope.h - packing and unpacking of everything on the wire (proto/envelope.proto).
 *
 * Bytes from a peer meet three walls before anyone looks at them: the size cap, an allocator with a hard
 * budget (a 64 KiB message of empty sub-messages would otherwise unpack to megabytes), and a check of every
 * field: string lengths and UTF-8, counts of repeated fields, finite numbers, well-formed keys. Enum values
 * we do not know become 0.
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
/* What is not UTF-8 becomes '?', in place: texts of ours hold names of files, which may hold anything, and are cut where
 * their room ends, in the middle of a letter; whoever gets them refuses the whole message. NULL is fine. */
void mode_wire_text(char *s);
/* *data is malloc'd. MODE_E_VALUE when it would be larger than the port allows. */
enum mode_status mode_envelope_pack(uint8_t **data, size_t *size, const Mode__Envelope *e, enum mode_wire wire,
                                    struct mode_error *err);
/* MODE_E_FORMAT: malformed, wrong magic, a limit broken. MODE_E_CONFIG: another major: one side must be updated.
 * MODE_E_MEMORY: over the budget. A body we do not know is no error: body_case is then MODE__ENVELOPE__BODY__NOT_SET,
 * nor is a field. *out is NULL after failure. */
enum mode_status mode_envelope_unpack(struct mode_envelope **out, const void *data, size_t size, enum mode_wire wire,
                                      struct mode_error *err);
void mode_envelope_free(struct mode_envelope **e);
/* "hello"; "?" for none. */
const char *mode_envelope_name(const Mode__Envelope *e);

/* The same walls for any other packed message (a request, a commit record): unpack with a budget and check
 * every field. Free with mode_unpacked_free. max_string 0 = MODE_WIRE_MAX_STRING. */
struct mode_unpacked {
    ProtobufCMessage *msg; /* cast to the type of the descriptor */
    void *arena;
};
enum mode_status mode_unpack(struct mode_unpacked *out, const ProtobufCMessageDescriptor *type, const void *data,
                             size_t size, size_t budget, size_t max_string, struct mode_error *err);
void mode_unpacked_free(struct mode_unpacked *u);
/* The number of a field, of m or of a message within it (*of), that its sender knew and this build does not; 0: none.
 * Most messages may be read all the same; a request that says more than its reader understands may not (msg/job.h). */
uint32_t mode_unknown_field(const ProtobufCMessage *m, const char **of);

#endif
