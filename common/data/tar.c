#include "data/tar.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum {
    BLOCK = MODE_TAR_BLOCK,
    MAX_RECORDS = 1 << 20, /* bytes of one pax header */
    MAX_RATIO = 100
};
static const uint64_t max_unpacked = (uint64_t)4 << 30;

/* ---- opening ----------------------------------------------------------------------------------------------
 */

static bool all_zero(const uint8_t *p, uint64_t n)
{
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, (size_t)n - 1) == 0);
}

/* Octal with leading spaces, ended by a NUL or space, or base-256 (first bit set). False when malformed, negative or
 * above 2^63. */
static bool parse_number(const uint8_t *p, size_t n, uint64_t *out)
{
    uint64_t v = 0;
    size_t i = 0;
    if (p[0] & 0x80) {
        if (p[0] != 0x80) return false; /* negative, or too large */
        for (i = 1; i < n; i++) {
            if (v >> 55) return false;
            v = v << 8 | p[i];
        }
        *out = v;
        return true;
    }
    while (i < n && p[i] == ' ') i++;
    for (; i < n && p[i] >= '0' && p[i] <= '7'; i++) {
        if (v >> 60) return false;
        v = v << 3 | (uint64_t)(p[i] - '0');
    }
    if (i < n && p[i] != ' ' && p[i] != '\0') return false;
    *out = v;
    return true;
}

static bool checksum_ok(const uint8_t *h)
{
    uint64_t stored;
    int64_t sum = 0, signed_sum = 0; /* some old tars sum signed bytes */
    if (!parse_number(h + 148, 8, &stored)) return false;
    for (int i = 0; i < BLOCK; i++) {
        const uint8_t c = i >= 148 && i < 156 ? ' ' : h[i];
        sum += c;
        signed_sum += (int8_t)c;
    }
    return sum == (int64_t)stored || signed_sum == (int64_t)stored;
}

static bool looks_like_tar(const uint8_t *p, size_t n)
{
    if (n < BLOCK) return false;
    return all_zero(p, BLOCK) || checksum_ok(p);
}

/* Makes room for more unpacked bytes; exceeding the limit is an error. */
static enum mode_status make_room(struct mode_tar_data *d, size_t *cap, const char *path, struct mode_error *err)
{
    uint64_t limit = d->file_size * MAX_RATIO;
    if (limit > max_unpacked) limit = max_unpacked;
    if (d->size > limit)
        return MODE_FAIL(err, MODE_E_VALUE,
                         "%s: unpacks to more than %llu bytes (at most %d times its size and 4 GiB are allowed). HINT: "
                         "unpack it to a plain tar",
                         path, (unsigned long long)limit, MAX_RATIO);
    if (d->size < *cap) return MODE_OK;
    *cap = *cap ? *cap * 2 : (size_t)1 << 20;
    uint8_t *more = realloc(d->unpacked, *cap);
    if (!more) return MODE_FAIL(err, MODE_E_MEMORY, "%s: no memory to unpack more than %zu bytes", path, d->size);
    d->unpacked = more;
    return MODE_OK;
}

/* gzip with zlib, which verifies checksums; libarchive does not. Several members and trailing zeros are allowed. */
static enum mode_status unpack_gzip(struct mode_tar_data *d, const char *path, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    const uint8_t *p = d->map.data, *end = p + d->map.size;
    size_t cap = 0;
    z_stream z = {0};
    if (inflateInit2(&z, 15 + 16) != Z_OK) return MODE_FAIL(err, MODE_E_MEMORY, "%s: no memory to unpack", path);
    for (int rc = Z_OK;;) {
        if (rc == Z_STREAM_END) {
            while (p < end && *p == 0) p++;
            if (p == end) break;
            inflateReset(&z);
        }
        if ((st = make_room(d, &cap, path, err))) break;
        const size_t in = (size_t)(end - p) < UINT_MAX ? (size_t)(end - p) : UINT_MAX,
                     out = cap - d->size < UINT_MAX ? cap - d->size : UINT_MAX;
        z.next_in = (Bytef *)(uintptr_t)p;
        z.avail_in = (uInt)in;
        z.next_out = d->unpacked + d->size;
        z.avail_out = (uInt)out;
        rc = inflate(&z, Z_NO_FLUSH);
        p += in - z.avail_in;
        d->size += out - z.avail_out;
        const bool stuck = rc == Z_BUF_ERROR || (rc == Z_OK && p == end && z.avail_out > 0);
        if (rc != Z_STREAM_END && (rc != Z_OK || stuck)) {
            st = MODE_FAIL(err, MODE_E_FORMAT, "%s: is gzip and damaged at byte %zu: %s", path,
                           (size_t)(p - (const uint8_t *)d->map.data),
                           stuck   ? "it ends too early"
                           : z.msg ? z.msg
                                   : "?");
            break;
        }
    }
    inflateEnd(&z);
    return st;
}

/* The name of the format whose first bytes these are, or NULL. */
static const char *packed_as(const uint8_t *p, size_t n)
{
    static const struct {
        const char *name, *head;
        size_t n;
    } of[] = {{"gzip", "\x1f\x8b", 2}, {"zstd", "\x28\xb5\x2f\xfd", 4}, {"bzip2", "BZh", 3}, {"xz", "\xfd\x37zXZ", 5}};
    for (size_t i = 0; i < sizeof of / sizeof *of; i++)
        if (n >= of[i].n && memcmp(p, of[i].head, of[i].n) == 0) return of[i].name;
    return NULL;
}

/* libarchive gave up: for want of memory, or because of the bytes. */
static enum mode_status fail_unpacking(struct archive *a, const char *path, const char *name, size_t unpacked,
                                       struct mode_error *err)
{
    const char *why = archive_error_string(a);
    return MODE_FAIL(err, archive_errno(a) == ENOMEM ? MODE_E_MEMORY : MODE_E_FORMAT,
                     "%s: is %s and %s: %s (%zu bytes were unpacked)", path, name,
                     archive_errno(a) == ENOMEM ? "cannot be unpacked here" : "damaged",
                     why ? why : "it cannot be unpacked", unpacked);
}

static enum mode_status unpack(struct mode_tar_data *d, const char *path, bool *known, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    struct archive_entry *entry;
    size_t cap = 0;
    const char *name = packed_as(d->map.data, d->map.size);
    *known = name != NULL;
    if (!name) return MODE_OK;
    if (strcmp(name, "gzip") == 0) return unpack_gzip(d, path, err);
    struct archive *a = archive_read_new();
    if (!a) return MODE_FAIL(err, MODE_E_MEMORY, "%s: no memory to unpack", path);
    archive_read_support_filter_zstd(a);
    archive_read_support_filter_xz(a);
    archive_read_support_filter_bzip2(a);
    archive_read_support_format_raw(a);
    if (archive_read_open_memory(a, d->map.data, d->map.size) != ARCHIVE_OK ||
        archive_read_next_header(a, &entry) != ARCHIVE_OK || archive_filter_count(a) < 2)
        st = fail_unpacking(a, path, name, 0, err);
    while (!st && !(st = make_room(d, &cap, path, err))) {
        const la_ssize_t n = archive_read_data(a, d->unpacked + d->size, cap - d->size);
        if (n == 0) break;
        if (n < 0) {
            st = fail_unpacking(a, path, name, d->size, err);
            break;
        }
        d->size += (size_t)n;
    }
    archive_read_free(a);
    return st;
}

enum mode_status mode_tar_data_open(struct mode_tar_data *d, const char *path, struct mode_error *err)
{
    bool known = false;
    *d = (struct mode_tar_data){0};
    enum mode_status st = mode_file_map(path, &d->map, err);
    if (st) return st;
    d->data = d->map.data;
    d->size = d->map.size;
    d->file_size = d->map.size;
    if (d->file_size > MODE_TAR_MAX_BYTES) {
        st = MODE_FAIL(err, MODE_E_VALUE, "%s: %llu bytes, at most %llu are allowed in one shard", path,
                       (unsigned long long)d->file_size, (unsigned long long)MODE_TAR_MAX_BYTES);
        goto out;
    }
    if (d->size == 0) {
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: an empty file is not a tar (an empty tar has 1024 zero bytes)", path);
        goto out;
    }
    if (looks_like_tar(d->data, d->size)) return MODE_OK;
    d->size = 0;
    if ((st = unpack(d, path, &known, err))) goto out;
    if (known) {
        mode_file_unmap(&d->map);
        d->data = d->unpacked;
        d->compressed = true;
        if (looks_like_tar(d->data, d->size)) return MODE_OK;
    }
    const uint8_t *p = known ? d->data : d->map.data;
    const uint64_t n = known ? d->size : d->file_size;
    if (mode_file_is_lfs_pointer(p, n)) {
        st = MODE_FAIL(err, MODE_E_FORMAT,
                       "%s: is a Git LFS pointer, not the shard itself. HINT: run `git lfs pull` where it was cloned",
                       path);
        goto out;
    }
    st = MODE_FAIL(err, MODE_E_FORMAT, "%s: %s not a tar (%llu bytes, the first four are %02x %02x %02x %02x)%s", path,
                   known ? "unpacks to something that is" : "is", (unsigned long long)n, n > 0 ? p[0] : 0,
                   n > 1 ? p[1] : 0, n > 2 ? p[2] : 0, n > 3 ? p[3] : 0,
                   n > 1 && p[0] == '<' ? ". HINT: a web page in the place of a download?" : "");
out:
    mode_tar_data_close(d);
    return st;
}

void mode_tar_data_close(struct mode_tar_data *d)
{
    mode_file_unmap(&d->map);
    free(d->unpacked);
    *d = (struct mode_tar_data){0};
}

/* ---- walking ----------------------------------------------------------------------------------------------
 */

/* What extension headers said about the next member. */
struct pending {
    bool has_name, has_size, sparse, unusable;
    uint64_t size;
};

struct mode_tar mode_tar_walk(const struct mode_tar_data *d, const char *path)
{
    return (struct mode_tar){.data = d->data, .size = d->size, .path = path};
}

void mode_tar_clear(struct mode_tar *t)
{
    mode_str_clear(&t->name);
    mode_str_clear(&t->pax_name);
    mode_str_clear(&t->record);
}

static enum mode_status damaged(const struct mode_tar *t, uint64_t at, const char *what, struct mode_error *err)
{
    return MODE_FAIL(err, MODE_E_FORMAT, "%s: %s at byte %llu of %llu; the tar is damaged", t->path, what,
                     (unsigned long long)at, (unsigned long long)t->size);
}

static bool set_name(struct mode_str *to, const uint8_t *p, size_t n)
{
    mode_str_reset(to);
    mode_str_add(to, p, n);
    return n > 0 && n <= MODE_TAR_MAX_NAME && !memchr(p, '\0', n);
}

/* "<length> <key>=<value>\n" records */
static enum mode_status read_pax(struct mode_tar *t, struct pending *next, const uint8_t *p, uint64_t n, uint64_t at,
                                 struct mode_error *err)
{
    while (n > 0) {
        uint64_t length = 0, i = 0;
        for (; i < n && i < 8 && p[i] >= '0' && p[i] <= '9'; i++) length = length * 10 + (uint64_t)(p[i] - '0');
        if (i == 0 || i >= n || p[i] != ' ' || length <= i + 2 || length > n || p[length - 1] != '\n')
            return damaged(t, at, "a malformed pax header", err);
        const uint8_t *key = p + i + 1, *end = p + length - 1;
        const uint8_t *eq = memchr(key, '=', (size_t)(end - key));
        if (!eq) return damaged(t, at, "a malformed pax header", err);
        const size_t key_size = (size_t)(eq - key), size = (size_t)(end - eq - 1);
        if (key_size == 4 && memcmp(key, "path", 4) == 0) {
            next->has_name = true;
            if (!set_name(&t->pax_name, eq + 1, size)) next->unusable = true;
        } else if (key_size == 4 && memcmp(key, "size", 4) == 0) {
            uint64_t v = 0;
            for (size_t k = 0; k < size; k++) {
                const uint8_t c = eq[1 + k];
                if (c < '0' || c > '9' || v > UINT64_MAX / 20)
                    return damaged(t, at, "a pax size that is not a number", err);
                v = v * 10 + (uint64_t)(c - '0');
            }
            next->has_size = true;
            next->size = v;
        } else if (key_size > 11 && memcmp(key, "GNU.sparse.", 11) == 0)
            next->sparse = true;
        p += length;
        n -= length;
    }
    return MODE_OK;
}

/* ustar: prefix '/' name; others: name alone. Fields need not end with a NUL. */
static void name_of_header(struct mode_tar *t, const uint8_t *h)
{
    mode_str_reset(&t->name);
    if (memcmp(h + 257, "ustar\0", 6) == 0 && h[345]) {
        mode_str_add(&t->name, h + 345, strnlen((const char *)h + 345, 155));
        mode_str_add_char(&t->name, '/');
    }
    mode_str_add(&t->name, h, strnlen((const char *)h, 100));
}

static enum mode_tar_kind kind_of(uint8_t type, const struct mode_str *name)
{
    switch (type) {
    case '0':
    case '7': return MODE_TAR_FILE;
    case '\0': return name->len > 0 && name->data[name->len - 1] == '/' ? MODE_TAR_FOLDER : MODE_TAR_FILE;
    case '1':
    case '2': return MODE_TAR_LINK;
    case '3':
    case '4':
    case '6': return MODE_TAR_DEVICE;
    case '5': return MODE_TAR_FOLDER;
    case 'S': return MODE_TAR_SPARSE;
    default: return MODE_TAR_OTHER;
    }
}

/* Bytes to the next header; saturates instead of overflowing. */
static uint64_t padded(uint64_t size)
{
    return size > UINT64_MAX - BLOCK ? UINT64_MAX : (size + BLOCK - 1) / BLOCK * BLOCK;
}

static void cut_here(struct mode_tar *t, uint64_t at)
{
    t->cut = t->done = true;
    t->cut_at = at;
}

/* At the end marker at t->at: notes data after it that is not zero. */
static void note_end(struct mode_tar *t)
{
    uint64_t i = t->at;
    while (i < t->size && t->data[i] == 0) i++;
    if (i < t->size) t->after = i;
    t->done = true;
}

enum mode_status mode_tar_next(struct mode_tar *t, struct mode_tar_member *m, bool *got, struct mode_error *err)
{
    enum mode_status st;
    struct pending next = {0};
    const uint64_t first = t->at;
    *got = false;
    while (!t->done) {
        const uint64_t at = t->at, left = t->size - at;
        const uint8_t *h = t->data + at;
        if (left == 0 || (left < BLOCK && !all_zero(h, left))) {
            cut_here(t, first);
            return MODE_OK;
        }
        if (left < BLOCK || all_zero(h, BLOCK)) {
            note_end(t);
            return MODE_OK;
        }
        if (!checksum_ok(h)) return damaged(t, at, "a header that fails its checksum", err);
        uint64_t size;
        if (!parse_number(h + 124, 12, &size)) return damaged(t, at, "a member of impossible size", err);
        const uint8_t type = h[156];
        const uint64_t data_at = at + BLOCK, room = left - BLOCK;

        if (type == 'x' || type == 'g' || type == 'L' || type == 'K') { /* about the next member */
            if (size > MAX_RECORDS) return damaged(t, at, "an extension header of more than 1 MiB", err);
            if (size > room || padded(size) > room) {
                cut_here(t, first);
                return MODE_OK;
            }
            if (type == 'x' && (st = read_pax(t, &next, t->data + data_at, size, data_at, err))) return st;
            if (type == 'L') {
                const size_t n = strnlen((const char *)t->data + data_at, (size_t)size);
                next.has_name = true;
                if (!set_name(&t->pax_name, t->data + data_at, n)) next.unusable = true;
            }
            t->at = data_at + padded(size);
            continue;
        }

        if (++t->n_members > MODE_TAR_MAX_MEMBERS)
            return MODE_FAIL(err, MODE_E_VALUE, "%s: more than %d members", t->path, MODE_TAR_MAX_MEMBERS);
        if (next.has_name) {
            mode_str_reset(&t->name);
            mode_str_add(&t->name, t->pax_name.data, t->pax_name.len);
        } else
            name_of_header(t, h);
        *m = (struct mode_tar_member){.kind = kind_of(type, &t->name), .header = first, .offset = data_at};
        /* links, devices and folders have no data, whatever their size field says */
        if (m->kind == MODE_TAR_FILE || m->kind == MODE_TAR_SPARSE || m->kind == MODE_TAR_OTHER)
            m->size = next.has_size ? next.size : size;
        if (m->kind == MODE_TAR_FILE && next.sparse) m->kind = MODE_TAR_SPARSE;
        if (next.unusable) m->kind = MODE_TAR_OTHER;
        if (type == 'S') /* old GNU sparse: a chain of blocks lists the holes */
            for (bool more = h[482] != 0; more; more = t->data[m->offset - BLOCK + 504] != 0) {
                if (t->size - m->offset < BLOCK) {
                    cut_here(t, first);
                    return MODE_OK;
                }
                m->offset += BLOCK;
            }
        m->name = t->name.data;
        *got = true;
        m->whole = m->size <= t->size - m->offset;
        if (!m->whole) {
            m->size = t->size - m->offset;
            cut_here(t, first);
        } else if (padded(m->size) > t->size - m->offset)
            t->at = t->size; /* the padding is missing: the next step finds no end marker */
        else
            t->at = m->offset + padded(m->size);
        return MODE_OK;
    }
    return MODE_OK;
}
