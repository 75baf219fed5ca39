#include "data/tfevents.h"

#include <string.h>

/* ---- framing ---- */

static uint32_t crc32c(const void *data, size_t n)
{
    const uint8_t *p = data;
    uint32_t crc = ~0u;
    for (size_t i = 0; i < n; i++) { /* fast enough: a few records of some hundred bytes per second */
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

/* Masked as in TFRecord, so that the CRC of data that contains its own CRC is not constant. */
static uint32_t masked_crc(const void *data, size_t n)
{
    uint32_t crc = crc32c(data, n);
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static void add_le(struct mode_str *out, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) mode_str_add_char(out, (char)(value >> 8 * i & 0xff));
}

static uint64_t read_le(const uint8_t *p, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) value |= (uint64_t)p[i] << 8 * i;
    return value;
}

static void add_record(struct mode_str *out, const struct mode_str *payload)
{
    uint8_t length[8];
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)((uint64_t)payload->len >> 8 * i);
    mode_str_add(out, length, sizeof length);
    add_le(out, masked_crc(length, sizeof length), 4);
    mode_str_add(out, payload->data, payload->len);
    add_le(out, masked_crc(payload->data, payload->len), 4);
}

/* ---- protobuf ---- */

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };
enum { WALL_TIME = 1, STEP = 2, FILE_VERSION = 3, SUMMARY = 5, SESSION_LOG = 7 }; /* Event */
enum { SUMMARY_VALUE = 1, VALUE_TAG = 1, VALUE_SIMPLE = 2 };
enum { LOG_STATUS = 1, LOG_STATUS_START = 1 };

static void add_varint(struct mode_str *out, uint64_t value)
{
    for (; value >= 0x80; value >>= 7) mode_str_add_char(out, (char)(value | 0x80));
    mode_str_add_char(out, (char)value);
}

static void add_key(struct mode_str *out, unsigned field, unsigned type)
{
    add_varint(out, field << 3 | type);
}

static void add_bytes(struct mode_str *out, unsigned field, const void *data, size_t n)
{
    add_key(out, field, BYTES);
    add_varint(out, n);
    mode_str_add(out, data, n);
}

static void begin_event(struct mode_str *out, double wall_s, uint64_t step)
{
    uint64_t bits;
    memcpy(&bits, &wall_s, sizeof bits);
    add_key(out, WALL_TIME, FIXED64);
    add_le(out, bits, 8);
    if (!step) return; /* the default is not written */
    add_key(out, STEP, VARINT);
    add_varint(out, step);
}

static void end_event(struct mode_str *out, struct mode_str *event)
{
    add_record(out, event);
    mode_str_clear(event);
}

void mode_tfevents_version(struct mode_str *out, double wall_s)
{
    static const char version[] = "brain.Event:2";
    struct mode_str event = {0};
    begin_event(&event, wall_s, 0);
    add_bytes(&event, FILE_VERSION, version, sizeof version - 1);
    end_event(out, &event);
}

void mode_tfevents_start(struct mode_str *out, double wall_s, uint64_t step)
{
    struct mode_str event = {0};
    begin_event(&event, wall_s, step);
    add_bytes(&event, SESSION_LOG, (const uint8_t[]){LOG_STATUS << 3 | VARINT, LOG_STATUS_START}, 2);
    end_event(out, &event);
}

static void add_summary(struct mode_str *out, const struct mode_scalar *s, size_t n)
{
    struct mode_str value = {0};
    for (size_t i = 0; i < n; i++) {
        const float f = (float)s[i].value;
        uint32_t bits;
        memcpy(&bits, &f, sizeof bits);
        mode_str_reset(&value);
        add_bytes(&value, VALUE_TAG, s[i].tag, strlen(s[i].tag));
        add_key(&value, VALUE_SIMPLE, FIXED32);
        add_le(&value, bits, 4);
        add_bytes(out, SUMMARY_VALUE, value.data, value.len);
    }
    mode_str_clear(&value);
}

void mode_tfevents_scalars(struct mode_str *out, double wall_s, uint64_t step, const struct mode_scalar *s, size_t n)
{
    struct mode_str event = {0}, summary = {0};
    add_summary(&summary, s, n);
    begin_event(&event, wall_s, step);
    add_bytes(&event, SUMMARY, summary.data, summary.len);
    end_event(out, &event);
    mode_str_clear(&summary);
}

/* ---- reading ---- */

static bool read_varint(uint64_t *value, const uint8_t *p, size_t n, size_t *at)
{
    *value = 0;
    for (unsigned shift = 0; shift < 64 && *at < n; shift += 7) {
        const uint8_t b = p[(*at)++];
        *value |= (uint64_t)(b & 0x7f) << shift;
        if (b < 0x80) return true;
    }
    return false;
}

static bool read_event(struct mode_tfevent *e, const uint8_t *p, size_t n)
{
    for (size_t at = 0; at < n;) {
        uint64_t key, value;
        if (!read_varint(&key, p, n, &at)) return false;
        switch (key & 7) {
        case VARINT:
            if (!read_varint(&value, p, n, &at)) return false;
            if (key >> 3 == STEP) e->step = value;
            break;
        case FIXED64: at += 8; break;
        case FIXED32: at += 4; break;
        case BYTES:
            if (!read_varint(&value, p, n, &at) || value > n - at) return false;
            if (key >> 3 == SUMMARY) {
                e->summary = p + at;
                e->n_summary = (size_t)value;
            }
            at += (size_t)value;
            break;
        default: return false;
        }
        if (at > n) return false;
    }
    return true;
}

bool mode_tfevents_next(struct mode_tfevent *e, const void *data, size_t size, size_t *at)
{
    enum { HEAD = 12, TAIL = 4 };
    const size_t left = size - *at;
    if (left < HEAD + TAIL) return false;
    const uint8_t *p = (const uint8_t *)data + *at;
    if (read_le(p + 8, 4) != masked_crc(p, 8)) return false;
    const uint64_t n = read_le(p, 8);
    if (n > left - HEAD - TAIL || read_le(p + HEAD + n, 4) != masked_crc(p + HEAD, (size_t)n)) return false;
    *e = (struct mode_tfevent){.record = p, .size = HEAD + (size_t)n + TAIL};
    *at += e->size;
    return read_event(e, p + HEAD, (size_t)n);
}

bool mode_tfevents_says(const struct mode_tfevent *e, const struct mode_scalar *s, size_t n)
{
    struct mode_str summary = {0};
    add_summary(&summary, s, n);
    const bool same = e->summary && summary.len > 0 && summary.len <= e->n_summary &&
                      memcmp(e->summary, summary.data, summary.len) == 0;
    mode_str_clear(&summary);
    return same;
}
