/* DESIGN: a message unpacks into an arena with a hard cap, so a hostile one cannot exhaust memory, and everything is
 * freed at once. The checks walk the generated descriptors: new messages and fields are checked without changes
 * here. */
#include "msg/envelope.h"

#include "base/process.h"
#include "base/str.h"
#include "msg/job.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* ---- arena ---- */

struct block {
    struct block *next;
    size_t size, used;
    max_align_t data[];
};

struct arena {
    ProtobufCAllocator allocator;
    struct block *blocks;
    size_t budget, spent; /* bytes, block headers included */
    bool refused;
};

enum { BLOCK = 8 << 10, MAX_DEPTH = 16 };

static void *arena_alloc(void *ctx, size_t size)
{
    struct arena *a = ctx;
    if (size > a->budget) {
        a->refused = true;
        return NULL;
    }
    size = (size + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
    struct block *b = a->blocks;
    if (!b || b->size - b->used < size) {
        size_t payload = size > BLOCK ? size : BLOCK;
        if (sizeof *b + payload > a->budget - a->spent) payload = size;
        if (sizeof *b + payload > a->budget - a->spent || !(b = malloc(sizeof *b + payload))) {
            a->refused = true;
            return NULL;
        }
        a->spent += sizeof *b + payload;
        *b = (struct block){.next = a->blocks, .size = payload};
        a->blocks = b;
    }
    void *p = (char *)b->data + b->used;
    b->used += size;
    return p;
}

static void arena_free(void *ctx, void *p)
{
    (void)ctx;
    (void)p; /* all at once, by arena_clear */
}

static void arena_clear(struct arena *a)
{
    if (!a) return;
    for (struct block *b = a->blocks; b;) {
        struct block *next = b->next;
        free(b);
        b = next;
    }
    free(a);
}

/* ---- checks ---- */

static bool utf8_valid(const char *s, size_t n)
{
    while (n > 0) {
        utf8proc_int32_t c;
        utf8proc_ssize_t k = utf8proc_iterate((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, &c);
        if (k <= 0) return false;
        s += k;
        n -= (size_t)k;
    }
    return true;
}

static bool hex_valid(const char *s, size_t digits)
{
    return strlen(s) == digits && strspn(s, "0123456789abcdef") == digits;
}

static enum mode_status check_message(ProtobufCMessage *m, size_t max_string, int depth, struct mode_error *err);

static enum mode_status check_value(const ProtobufCMessageDescriptor *d, const ProtobufCFieldDescriptor *f, void *value,
                                    size_t max_string, int depth, struct mode_error *err)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_STRING: {
        const char *s = *(char **)value;
        if (!s || s == f->default_value) break;
        size_t n = strlen(s);
        if (n > max_string)
            return MODE_FAIL(err, MODE_E_FORMAT, "%s.%s: a text of %zu bytes, at most %zu are allowed", d->name,
                             f->name, n, max_string);
        if (!utf8_valid(s, n)) return MODE_FAIL(err, MODE_E_FORMAT, "%s.%s: not UTF-8", d->name, f->name);
        const bool is_key = strcmp(f->name, "key") == 0; /* a task's key is required; a digest may be unknown */
        if ((is_key || (strcmp(f->name, "digest") == 0 && n > 0)) && !hex_valid(s, 64))
            return MODE_FAIL(err, MODE_E_FORMAT, "%s.%s: \"%.80s\" is not 64 lower-case hex digits", d->name, f->name,
                             s);
        if (strcmp(f->name, "session") == 0 && n > 0 && !hex_valid(s, 32))
            return MODE_FAIL(err, MODE_E_FORMAT, "%s.%s: \"%.80s\" is not 32 lower-case hex digits", d->name, f->name,
                             s);
        break;
    }
    case PROTOBUF_C_TYPE_ENUM: {
        int *e = value;
        if (!protobuf_c_enum_descriptor_get_value(f->descriptor, *e)) *e = 0; /* from a newer minor version */
        break;
    }
    case PROTOBUF_C_TYPE_DOUBLE:
        if (!isfinite(*(double *)value))
            return MODE_FAIL(err, MODE_E_FORMAT, "%s.%s: not a finite number", d->name, f->name);
        break;
    case PROTOBUF_C_TYPE_FLOAT:
        if (!isfinite(*(float *)value))
            return MODE_FAIL(err, MODE_E_FORMAT, "%s.%s: not a finite number", d->name, f->name);
        break;
    case PROTOBUF_C_TYPE_MESSAGE: {
        ProtobufCMessage *sub = *(ProtobufCMessage **)value;
        if (sub && sub != f->default_value) return check_message(sub, max_string, depth + 1, err);
        break;
    }
    default: break;
    }
    return MODE_OK;
}

static size_t element_size(ProtobufCType t)
{
    switch (t) {
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE: return 8;
    case PROTOBUF_C_TYPE_BOOL: return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE: return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES: return sizeof(ProtobufCBinaryData);
    default: return 4;
    }
}

static enum mode_status check_message(ProtobufCMessage *m, size_t max_string, int depth, struct mode_error *err)
{
    const ProtobufCMessageDescriptor *d = m->descriptor;
    enum mode_status st = MODE_OK;
    if (depth > MAX_DEPTH) return MODE_FAIL(err, MODE_E_FORMAT, "%s: nested deeper than %d", d->name, MAX_DEPTH);
    for (unsigned i = 0; !st && i < d->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &d->fields[i];
        char *base = (char *)m;
        if (f->label == PROTOBUF_C_LABEL_REPEATED) {
            size_t n = *(size_t *)(void *)(base + f->quantifier_offset);
            char *items = *(char **)(void *)(base + f->offset);
            size_t most = strcmp(f->name, "labels") == 0 ? MODE_WIRE_MAX_LABELS : MODE_WIRE_MAX_REPEATED;
            if (n > most)
                return MODE_FAIL(err, MODE_E_FORMAT, "%s.%s: %zu items, at most %zu are allowed", d->name, f->name, n,
                                 most);
            for (size_t k = 0; !st && k < n; k++)
                st = check_value(d, f, items + k * element_size(f->type), max_string, depth, err);
        } else if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
            uint32_t which = *(uint32_t *)(void *)(base + f->quantifier_offset);
            if (which == f->id) st = check_value(d, f, base + f->offset, max_string, depth, err);
        } else
            st = check_value(d, f, base + f->offset, max_string, depth, err);
    }
    return st;
}

enum mode_status mode_unpack(struct mode_unpacked *out, const ProtobufCMessageDescriptor *type, const void *data,
                             size_t size, size_t budget, size_t max_string, struct mode_error *err)
{
    *out = (struct mode_unpacked){0};
    struct arena *a = mode_xcalloc(1, sizeof *a);
    a->allocator = (ProtobufCAllocator){arena_alloc, arena_free, a};
    a->budget = budget;
    ProtobufCMessage *m = protobuf_c_message_unpack(type, &a->allocator, size, data);
    enum mode_status st;
    if (!m && a->refused)
        st = MODE_FAIL(err, MODE_E_MEMORY, "%s: %zu bytes unpack to more than the %zu allowed", type->name, size,
                       budget);
    else if (!m)
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: %zu bytes that are not such a message, or a required field is missing",
                       type->name, size);
    else
        st = check_message(m, max_string ? max_string : MODE_WIRE_MAX_STRING, 0, err);
    if (st) {
        arena_clear(a);
        return st;
    }
    *out = (struct mode_unpacked){m, a};
    return MODE_OK;
}

void mode_unpacked_free(struct mode_unpacked *u)
{
    arena_clear(u->arena);
    *u = (struct mode_unpacked){0};
}

uint32_t mode_unknown_field(const ProtobufCMessage *m, const char **of)
{
    const ProtobufCMessageDescriptor *d = m->descriptor;
    uint32_t found = 0;
    *of = d->name;
    if (m->n_unknown_fields) return m->unknown_fields[0].tag;
    for (unsigned i = 0; !found && i < d->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &d->fields[i];
        const char *base = (const char *)m;
        if (f->type != PROTOBUF_C_TYPE_MESSAGE || f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) continue;
        const bool many = f->label == PROTOBUF_C_LABEL_REPEATED;
        const size_t n = many ? *(const size_t *)(const void *)(base + f->quantifier_offset) : 1;
        const void *at = base + f->offset;
        ProtobufCMessage *const *sub = many ? *(ProtobufCMessage * *const *)at : (ProtobufCMessage *const *)at;
        for (size_t k = 0; !found && k < n; k++)
            if (sub[k]) found = mode_unknown_field(sub[k], of);
    }
    return found;
}

/* ---- envelopes ---- */

static size_t max_size(enum mode_wire wire)
{
    return wire == MODE_WIRE_ADMIN ? MODE_WIRE_ADMIN_MAX : MODE_WIRE_WORKER_MAX;
}

void mode_wire_text(char *s)
{
    size_t left = s ? strlen(s) : 0;
    while (left > 0) {
        utf8proc_int32_t c;
        utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)left, &c);
        if (n <= 0) {
            *s = '?';
            n = 1;
        }
        s += n;
        left -= (size_t)n;
    }
}

void mode_envelope_init(Mode__Envelope *e, uint64_t *counter, Mode__Envelope__BodyCase body)
{
    mode__envelope__init(e);
    e->magic = MODE_WIRE_MAGIC;
    e->major = MODE_WIRE_MAJOR;
    e->minor = MODE_WIRE_MINOR;
    e->id = ++*counter;
    e->body_case = body;
}

enum mode_status mode_envelope_pack(uint8_t **data, size_t *size, const Mode__Envelope *e, enum mode_wire wire,
                                    struct mode_error *err)
{
    *data = NULL;
    *size = mode__envelope__get_packed_size(e);
    if (*size > max_size(wire))
        return MODE_FAIL(err, MODE_E_VALUE, "a %s message of %zu bytes, at most %zu are allowed on this port",
                         mode_envelope_name(e), *size, max_size(wire));
    *data = mode_xmalloc(*size);
    mode__envelope__pack(e, *data);
    return MODE_OK;
}

/* Checks ranges that descriptors do not express. */
static enum mode_status check_ranges(const Mode__Envelope *e, struct mode_error *err)
{
    switch (e->body_case) {
    case MODE__ENVELOPE__BODY_HELLO:
        if (e->hello->slots < 1 || e->hello->slots > MODE_WIRE_MAX_SLOTS)
            return MODE_FAIL(err, MODE_E_FORMAT, "HELLO: %u slots, expected 1 to %d", e->hello->slots,
                             MODE_WIRE_MAX_SLOTS);
        if (!e->hello->session[0]) return MODE_FAIL(err, MODE_E_FORMAT, "HELLO: without a session");
        break;
    case MODE__ENVELOPE__BODY_CREDIT:
        if (e->credit->n > MODE_WIRE_MAX_SLOTS)
            return MODE_FAIL(err, MODE_E_FORMAT, "CREDIT: for %u tasks, at most %d", e->credit->n, MODE_WIRE_MAX_SLOTS);
        break;
    case MODE__ENVELOPE__BODY_PROGRESS:
        if (e->progress->n_tasks > MODE_WIRE_MAX_SLOTS)
            return MODE_FAIL(err, MODE_E_FORMAT, "PROGRESS: of %zu tasks, at most %d", e->progress->n_tasks,
                             MODE_WIRE_MAX_SLOTS);
        break;
    case MODE__ENVELOPE__BODY_FAIL:
        if (e->fail->has_log_tail && e->fail->log_tail.len > MODE_WIRE_MAX_LOG_TAIL)
            return MODE_FAIL(err, MODE_E_FORMAT, "FAIL: a log of %zu bytes, at most %zu", e->fail->log_tail.len,
                             MODE_WIRE_MAX_LOG_TAIL);
        break;
    case MODE__ENVELOPE__BODY_JOIN:
        if (e->join->gpus < 1 || e->join->gpus > MODE_MOST_GPUS)
            return MODE_FAIL(err, MODE_E_FORMAT, "JOIN: %u GPUs, expected 1 to %d", e->join->gpus, MODE_MOST_GPUS);
        if (!e->join->session[0]) return MODE_FAIL(err, MODE_E_FORMAT, "JOIN: without a session");
        break;
    case MODE__ENVELOPE__BODY_BEGIN_RANKS: {
        const Mode__BeginRanks *b = e->begin_ranks;
        if (b->n < 1 || b->n > MODE_MOST_GPUS || b->first < 1 || b->size > MODE_WIRE_MAX_REPEATED ||
            b->first > b->size || b->n > b->size - b->first)
            return MODE_FAIL(err, MODE_E_FORMAT, "BEGIN_RANKS: %u processes from %u on, of %u", b->n, b->first,
                             b->size);
        if (b->port < 1 || b->port > 65535 || b->secret.len != MODE_TEAM_SECRET)
            return MODE_FAIL(err, MODE_E_FORMAT, "BEGIN_RANKS: port %u, a secret of %zu bytes", b->port, b->secret.len);
        break;
    }
    case MODE__ENVELOPE__BODY_RANK_ENDED:
        if (e->rank_ended->rank > MODE_WIRE_MAX_REPEATED || e->rank_ended->exit_code > 255 ||
            e->rank_ended->signal > 64)
            return MODE_FAIL(err, MODE_E_FORMAT, "RANK_ENDED: process %u, code %u, signal %u", e->rank_ended->rank,
                             e->rank_ended->exit_code, e->rank_ended->signal);
        break;
    case MODE__ENVELOPE__BODY_RESULT:
        if (e->result->seconds < 0) return MODE_FAIL(err, MODE_E_FORMAT, "RESULT: negative time");
        break;
    default: break;
    }
    return MODE_OK;
}

enum mode_status mode_envelope_unpack(struct mode_envelope **out, const void *data, size_t size, enum mode_wire wire,
                                      struct mode_error *err)
{
    struct mode_unpacked u;
    *out = NULL;
    if (size > max_size(wire))
        return MODE_FAIL(err, MODE_E_FORMAT, "a message of %zu bytes, at most %zu are allowed on this port", size,
                         max_size(wire));
    enum mode_status st = mode_unpack(&u, &mode__envelope__descriptor, data, size,
                                      wire == MODE_WIRE_ADMIN ? MODE_WIRE_ADMIN_BUDGET : MODE_WIRE_WORKER_BUDGET, 0,
                                      err);
    if (st) return st;
    Mode__Envelope *e = (Mode__Envelope *)u.msg;
    if (e->magic != MODE_WIRE_MAGIC)
        st = MODE_FAIL(err, MODE_E_FORMAT, "not a MoDE message: magic %08x, expected %08x", e->magic, MODE_WIRE_MAGIC);
    else if (e->major != MODE_WIRE_MAJOR)
        st = MODE_FAIL(err, MODE_E_CONFIG,
                       "protocol version %u.%u, this build speaks %d.%d. HINT: coordinator and workers must be of "
                       "compatible releases; update the older one",
                       e->major, e->minor, MODE_WIRE_MAJOR, MODE_WIRE_MINOR);
    else
        st = check_ranges(e, err);
    if (st) {
        mode_unpacked_free(&u);
        return st;
    }
    struct mode_envelope *env = mode_xmalloc(sizeof *env);
    *env = (struct mode_envelope){e, u.arena};
    *out = env;
    return MODE_OK;
}

void mode_envelope_free(struct mode_envelope **e)
{
    if (!*e) return;
    arena_clear((*e)->arena);
    free(*e);
    *e = NULL;
}

const char *mode_envelope_name(const Mode__Envelope *e)
{
    const ProtobufCFieldDescriptor *f = e->body_case ? protobuf_c_message_descriptor_get_field(
                                                           &mode__envelope__descriptor, (unsigned)e->body_case)
                                                     : NULL;
    return f ? f->name : "?";
}
