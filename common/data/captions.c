#include "data/captions.h"

#include "base/str.h"
#include "data/utf8.h"
#include "tensor/tensor.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* Layout: docs/FORMATS.md, "captions.bin". */
enum {
    VERSION = 1,       /* without boxes                               */
    VERSION_BOXES = 2, /* with boxes: readers of version 1 must reject it */
    HEADER_BYTES = 128,
    RECORD_BYTES = 64,
    BOX_BYTES = 16,
    CHECKED_FROM = 24, /* the checksum covers the file from here */
    MAX_SAMPLES = 2000000
};
static const char magic[8] = {'M', 'O', 'D', 'E', 'C', 'A', 'P', '\n'};

const char *mode_fate_name(enum mode_fate fate)
{
    switch (fate) {
#define X(name, code, text)                                                                                            \
    case MODE_FATE_##name: return text;
        MODE_FATE_MAP(X)
#undef X
    case MODE_FATE_COUNT: break;
    }
    return "?";
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t get64(const uint8_t *p)
{
    return get32(p) | (uint64_t)get32(p + 4) << 32;
}

static void put32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (8 * i));
}

static void put64(uint8_t *p, uint64_t v)
{
    put32(p, (uint32_t)v);
    put32(p + 4, (uint32_t)(v >> 32));
}

/* The string at offset (from the string table), length bytes and a NUL; NULL when the string table does not match. */
static const char *string_at(const uint8_t *strings, uint64_t strings_size, uint64_t offset, uint64_t length)
{
    if (offset >= strings_size || length >= strings_size - offset) return NULL;
    const char *s = (const char *)strings + offset;
    if (s[length] != '\0' || !mode_utf8_is_text(s, (size_t)length)) return NULL;
    return s;
}

/* Locates the parts of a mapped file. */
static const uint8_t *record_of(const struct mode_captions *c, uint32_t i)
{
    return (const uint8_t *)c->map.data + HEADER_BYTES + (size_t)i * RECORD_BYTES;
}

static const char *strings_of(const struct mode_captions *c)
{
    return (const char *)record_of(c, c->n_samples) + (size_t)c->n_boxes * BOX_BYTES;
}

struct mode_sample mode_captions_sample(const struct mode_captions *c, uint32_t i)
{
    if (c->samples) return c->samples[i];
    const uint8_t *r = record_of(c, i);
    const char *strings = strings_of(c);
    struct mode_sample s = {.image_offset = get64(r),
                            .image_size = get64(r + 8),
                            .width = get32(r + 32),
                            .height = get32(r + 36),
                            .caption_index = get32(r + 40),
                            .caption_count = get32(r + 44),
                            .fate = (uint8_t)get32(r + 48),
                            .n_boxes = get32(r + 60),
                            .key = strings + get64(r + 16),
                            .caption = strings + get64(r + 24)};
    if (s.n_boxes) s.boxes = c->boxes + c->box_at[i];
    return s;
}

/* Validates sample i of the file before it is used. */
static enum mode_status check_sample(const struct mode_captions *c, uint32_t i, const uint8_t *strings,
                                     uint64_t strings_size, const char *path, struct mode_error *err)
{
    const uint8_t *r = record_of(c, i);
    const uint32_t fate = get32(r + 48), index = get32(r + 40), count = get32(r + 44);
    const uint64_t offset = get64(r), size = get64(r + 8);
    const char *key = string_at(strings, strings_size, get64(r + 16), get32(r + 52)),
               *caption = string_at(strings, strings_size, get64(r + 24), get32(r + 56));
    if (fate >= MODE_FATE_COUNT)
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: sample %u has fate %u, the last known is %d", path, i, fate,
                         MODE_FATE_COUNT - 1);
    if (!key || !caption)
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: the %s of sample %u lies outside the strings or is not text", path,
                         key ? "caption" : "key", i);
    if (offset > c->data_size || size > c->data_size - offset)
        return MODE_FAIL(err, MODE_E_FORMAT,
                         "%s: the image of sample %u lies at byte %llu, %llu bytes; the tar has %llu", path, i,
                         (unsigned long long)offset, (unsigned long long)size, (unsigned long long)c->data_size);
    if (fate == MODE_FATE_KEPT && (size == 0 || caption[0] == '\0' || index >= count))
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: sample %u is kept but lacks an image or a caption", path, i);
    return MODE_OK;
}

enum mode_status mode_captions_load(struct mode_captions *c, const char *path, struct mode_error *err)
{
    *c = (struct mode_captions){0};
    enum mode_status st = mode_file_map(path, &c->map, err);
    if (st) return st;
    const uint8_t *p = c->map.data;
    const uint64_t size = c->map.size;
    if (size < HEADER_BYTES || memcmp(p, magic, sizeof magic) != 0) {
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: not a captions file (%llu bytes, expected the magic \"MODECAP\")", path,
                       (unsigned long long)size);
        goto out;
    }
    const uint32_t version = get32(p + 8), n_samples = get32(p + 12);
    if (version != VERSION && version != VERSION_BOXES) {
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: captions file of version %u, this build reads versions %d and %d", path,
                       version, VERSION, VERSION_BOXES);
        goto out;
    }
    const uint64_t check = XXH3_64bits(p + CHECKED_FROM, (size_t)size - CHECKED_FROM);
    if (get64(p + 16) != check) {
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: checksum %016llx stored, %016llx computed; the file is damaged", path,
                       (unsigned long long)get64(p + 16), (unsigned long long)check);
        goto out;
    }
    const uint64_t file_size = get64(p + 24), strings_size = get64(p + 32);
    const uint32_t n_boxes = version == VERSION_BOXES ? get32(p + 92) : 0;
    const uint64_t fixed = (uint64_t)n_samples * RECORD_BYTES + (uint64_t)n_boxes * BOX_BYTES;
    if (file_size != size || n_samples > MAX_SAMPLES || fixed > size - HEADER_BYTES ||
        strings_size != size - HEADER_BYTES - fixed) {
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: %llu bytes cannot hold %u samples and %llu bytes of strings", path,
                       (unsigned long long)size, n_samples, (unsigned long long)strings_size);
        goto out;
    }
    const uint8_t *records = p + HEADER_BYTES, *boxes = records + (size_t)n_samples * RECORD_BYTES,
                  *strings = boxes + (size_t)n_boxes * BOX_BYTES;
    c->shard_size = get64(p + 40);
    c->data_size = get64(p + 48);
    c->warn_duplicate_ext = get64(p + 56);
    c->warn_ignored_members = get64(p + 64);
    c->cut_at = get64(p + 72);
    const char *name = string_at(strings, strings_size, get64(p + 80), get32(p + 88));
    if (!name) {
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: the shard's name lies outside the strings or is not text", path);
        goto out;
    }
    c->shard_name = mode_xstrdup(name);
    if (get32(p + 104)) {
        c->bad = string_at(strings, strings_size, get64(p + 96), get32(p + 104));
        if (!c->bad || n_samples) {
            st = MODE_FAIL(err, MODE_E_FORMAT,
                           "%s: %u samples of a shard that was left out, or why it was lies outside the strings", path,
                           n_samples);
            goto out;
        }
    }
    c->rows = mode_xcalloc(n_samples, sizeof *c->rows);
    if (n_boxes) {
        c->boxes = mode_xcalloc(n_boxes, sizeof *c->boxes);
        c->box_at = mode_xcalloc(n_samples, sizeof *c->box_at);
    }
    c->n_samples = n_samples;
    for (uint32_t i = 0; i < n_boxes; i++) {
        const uint8_t *b = boxes + (size_t)i * BOX_BYTES;
        c->boxes[i] = (struct mode_box){get32(b), get32(b + 4), get32(b + 8), get32(b + 12)};
    }
    for (uint32_t i = 0; i < n_samples; i++) {
        if ((st = check_sample(c, i, strings, strings_size, path, err))) goto out;
        const uint32_t boxes_here = get32(record_of(c, i) + 60), fate = get32(record_of(c, i) + 48);
        if (boxes_here > n_boxes - c->n_boxes) {
            st = MODE_FAIL(err, MODE_E_FORMAT, "%s: sample %u has %u boxes, %u are left of %u", path, i, boxes_here,
                           n_boxes - c->n_boxes, n_boxes);
            goto out;
        }
        if (n_boxes) c->box_at[i] = c->n_boxes;
        c->n_boxes += boxes_here;
        c->fate_count[fate]++;
        if (fate != MODE_FATE_KEPT) continue;
        c->rows[c->n_rows++] = i;
        c->n_blurred += boxes_here > 0;
    }
    if (c->n_boxes != n_boxes)
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: %u boxes, the samples have %u", path, n_boxes, c->n_boxes);
out:
    if (st) mode_captions_clear(c);
    return st;
}

void mode_captions_clear(struct mode_captions *c)
{
    free(c->shard_name);
    free(c->rows);
    free(c->boxes);
    free(c->box_at);
    mode_file_unmap(&c->map);
    *c = (struct mode_captions){0};
}

static void add_string(struct mode_str *strings, uint8_t *offset, uint8_t *length, const char *text)
{
    const size_t n = strlen(text);
    put64(offset, strings->len);
    put32(length, (uint32_t)n);
    mode_str_add(strings, text, n + 1);
}

enum mode_status mode_captions_save(const struct mode_captions *c, const char *path, struct mode_error *err)
{
    struct mode_str file = {0}, strings = {0}, boxes = {0};
    uint8_t head[HEADER_BYTES] = {0}, record[RECORD_BYTES], box[BOX_BYTES];
    if (c->n_samples > MAX_SAMPLES)
        return MODE_FAIL(err, MODE_E_VALUE, "%s: %u samples, at most %d are stored", path, c->n_samples, MAX_SAMPLES);
    mode_str_add(&file, head, sizeof head);
    add_string(&strings, head + 80, head + 88, c->shard_name);
    if (c->bad) add_string(&strings, head + 96, head + 104, c->bad);
    for (uint32_t i = 0; i < c->n_samples; i++) {
        const struct mode_sample sample = mode_captions_sample(c, i), *s = &sample;
        memset(record, 0, sizeof record);
        put64(record, s->image_offset);
        put64(record + 8, s->image_size);
        add_string(&strings, record + 16, record + 52, s->key);
        add_string(&strings, record + 24, record + 56, s->caption);
        put32(record + 32, s->width);
        put32(record + 36, s->height);
        put32(record + 40, s->caption_index);
        put32(record + 44, s->caption_count);
        put32(record + 48, s->fate);
        put32(record + 60, s->n_boxes);
        for (uint32_t b = 0; b < s->n_boxes; b++) {
            put32(box, s->boxes[b].x0);
            put32(box + 4, s->boxes[b].y0);
            put32(box + 8, s->boxes[b].x1);
            put32(box + 12, s->boxes[b].y1);
            mode_str_add(&boxes, box, sizeof box);
        }
        mode_str_add(&file, record, sizeof record);
    }
    if (boxes.len) mode_str_add(&file, boxes.data, boxes.len);
    mode_str_add(&file, strings.data, strings.len);
    memcpy(head, magic, sizeof magic);
    put32(head + 8, boxes.len ? VERSION_BOXES : VERSION);
    put32(head + 92, (uint32_t)(boxes.len / BOX_BYTES));
    put32(head + 12, c->n_samples);
    put64(head + 24, file.len);
    put64(head + 32, strings.len);
    put64(head + 40, c->shard_size);
    put64(head + 48, c->data_size);
    put64(head + 56, c->warn_duplicate_ext);
    put64(head + 64, c->warn_ignored_members);
    put64(head + 72, c->cut_at);
    memcpy(file.data, head, sizeof head);
    put64((uint8_t *)file.data + 16, XXH3_64bits(file.data + CHECKED_FROM, file.len - CHECKED_FROM));
    enum mode_status st = mode_file_write_atomic(path, file.data, file.len, err);
    mode_str_clear(&file);
    mode_str_clear(&strings);
    mode_str_clear(&boxes);
    return st;
}
