/* tfevents_reader.h - a second, simple reader of TensorBoard's event files, for tests: it knows the allowed fields and
 * fails the test at anything else, including a wrong checksum or a truncated record. */
#ifndef MODE_TESTS_TFEVENTS_READER_H
#define MODE_TESTS_TFEVENTS_READER_H

#include "base/file.h"
#include "base/str.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

enum { READER_TAGS = 16 };

struct read_event {
    double wall_s;
    uint64_t step;
    char version[32];
    bool start;
    size_t n;
    char tag[READER_TAGS][64];
    float value[READER_TAGS];
};

/* CRC-32C, four bits at a time, by a table. */
static inline uint32_t reader_masked_crc(const uint8_t *p, size_t n)
{
    static const uint32_t table[16] = {0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
                                       0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
                                       0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};
    uint32_t c = 0xffffffff;
    for (size_t i = 0; i < n; i++) {
        c = table[(c ^ p[i]) & 15] ^ c >> 4;
        c = table[(c ^ p[i] >> 4) & 15] ^ c >> 4;
    }
    c ^= 0xffffffff;
    return (c >> 15 | c << 17) + 0xa282ead8;
}

static inline uint64_t reader_varint(const uint8_t **p)
{
    uint64_t v = 0;
    for (int shift = 0;; shift += 7) {
        v |= (uint64_t)(**p & 0x7f) << shift;
        if (*(*p)++ < 0x80) return v;
    }
}

static inline void reader_value(struct read_event *e, const uint8_t *p, const uint8_t *end)
{
    assert_true(e->n < READER_TAGS);
    assert_int_equal(*p++, 0x0a);
    size_t k = reader_varint(&p);
    assert_true(k < sizeof e->tag[0]);
    memcpy(e->tag[e->n], p, k);
    p += k;
    assert_int_equal(*p++, 0x15);
    memcpy(&e->value[e->n++], p, 4);
    assert_true(p + 4 == end);
}

static inline void reader_event(struct read_event *e, const uint8_t *p, const uint8_t *end)
{
    *e = (struct read_event){0};
    while (p < end) {
        const uint8_t key = *p++;
        if (key == 0x09) {
            memcpy(&e->wall_s, p, 8);
            p += 8;
            continue;
        }
        const uint64_t v = reader_varint(&p);
        if (key == 0x10) {
            e->step = v;
            continue;
        }
        const uint8_t *inside = p;
        p += v;
        assert_true(p <= end);
        if (key == 0x1a) {
            assert_true(v < sizeof e->version);
            memcpy(e->version, inside, v);
        } else if (key == 0x3a) {
            assert_int_equal(v, 2);
            assert_memory_equal(inside, "\x08\x01", 2);
            e->start = true;
        } else {
            assert_int_equal(key, 0x2a);
            while (inside < p) {
                assert_int_equal(*inside++, 0x0a);
                const uint64_t n = reader_varint(&inside);
                reader_value(e, inside, inside + n);
                inside += n;
            }
        }
    }
    assert_true(p == end);
}

/* All records of a file's bytes; the caller frees. */
static inline struct read_event *reader_parse(size_t *n, const void *data, size_t size)
{
    const uint8_t *p = data, *end = p + size;
    struct read_event *all = NULL;
    for (*n = 0; p < end; ++*n) {
        uint64_t length;
        uint32_t sum;
        assert_true(end - p >= 16);
        memcpy(&length, p, 8);
        memcpy(&sum, p + 8, 4);
        assert_int_equal(sum, reader_masked_crc(p, 8));
        assert_true(length <= (uint64_t)(end - p) - 16);
        memcpy(&sum, p + 12 + length, 4);
        assert_int_equal(sum, reader_masked_crc(p + 12, length));
        all = mode_xrealloc(all, (*n + 1) * sizeof *all);
        reader_event(&all[*n], p + 12, p + 12 + length);
        p += 16 + length;
    }
    return all;
}

/* The only event file of a folder whose name ends so and that is not empty, NULL when there is none; the caller frees.
 */
static inline char *reader_find(const char *dir, const char *ending)
{
    DIR *d = opendir(dir);
    char *found = NULL;
    for (struct dirent *e; d && (e = readdir(d));) {
        const size_t n = strlen(e->d_name), k = strlen(ending);
        if (!strstr(e->d_name, "tfevents") || n < k || strcmp(e->d_name + n - k, ending) != 0) continue;
        struct stat s;
        char *path = mode_path_join(dir, e->d_name);
        assert_int_equal(stat(path, &s), 0);
        assert_true(s.st_size == 0 || !found);
        if (s.st_size > 0)
            found = path;
        else
            free(path);
    }
    if (d) closedir(d);
    return found;
}

static inline struct read_event *reader_load(size_t *n, const char *dir, const char *ending)
{
    char *path = reader_find(dir, ending), *data = NULL;
    size_t size;
    assert_non_null(path);
    assert_int_equal(mode_file_read(path, 0, &data, &size, NULL), MODE_OK);
    struct read_event *all = reader_parse(n, data, size);
    free(data);
    free(path);
    return all;
}

static inline const float *reader_value_of(const struct read_event *e, const char *tag)
{
    for (size_t i = 0; i < e->n; i++)
        if (strcmp(e->tag[i], tag) == 0) return &e->value[i];
    return NULL;
}

#endif
