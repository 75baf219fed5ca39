/* torch_fixture.h - files as torch.save writes them, composed byte by byte. */
#ifndef MODE_TESTS_TORCH_FIXTURE_H
#define MODE_TESTS_TORCH_FIXTURE_H

#include "base/str.h"

#include <stdint.h>
#include <string.h>

static inline void put_le(struct mode_str *s, uint64_t x, int n)
{
    for (int i = 0; i < n; i++) mode_str_add_char(s, (char)(x >> (8 * i)));
}

static inline void put_text(struct mode_str *s, const char *text)
{
    mode_str_add_char(s, 'X');
    put_le(s, strlen(text), 4);
    mode_str_add_cstr(s, text);
}

static inline void put_int(struct mode_str *s, int32_t x)
{
    mode_str_add_char(s, 'J');
    put_le(s, (uint32_t)x, 4);
}

static inline void put_ints(struct mode_str *s, int n, const int64_t *x)
{
    mode_str_add_char(s, '(');
    for (int i = 0; i < n; i++) put_int(s, (int32_t)x[i]);
    mode_str_add_char(s, 't');
}

/* torch._utils._rebuild_tensor_v2(("storage", torch.<class>, key, "cpu", count), offset, dim, stride, False, {}) */
static inline void put_tensor(struct mode_str *s, const char *class, const char *key, int32_t count, int32_t offset,
                              int n, const int64_t *dim, const int64_t *stride, int legacy)
{
    mode_str_add_cstr(s, "ctorch._utils\n_rebuild_tensor_v2\n((");
    put_text(s, "storage");
    mode_str_printf(s, "ctorch\n%s\n", class);
    put_text(s, key);
    put_text(s, "cpu");
    put_int(s, count);
    if (legacy) mode_str_add_char(s, 'N');
    mode_str_add_cstr(s, "tQ");
    put_int(s, offset);
    put_ints(s, n, dim);
    put_ints(s, n, stride);
    mode_str_add_cstr(s, "\x89}tR");
}

struct torch_member {
    const char *name;
    const void *data;
    size_t size;
};

/* A zip of stored entries. wide: sizes in the 64-bit extra field and the 64-bit end record, as PyTorch writes them. */
static inline void put_zip(struct mode_str *s, const struct torch_member *m, int n, int wide)
{
    struct mode_str directory = {0};
    for (int i = 0; i < n; i++) {
        size_t local = s->len, len = strlen(m[i].name);
        mode_str_add(s, "PK\3\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 18);
        put_le(s, m[i].size, 4);
        put_le(s, m[i].size, 4);
        put_le(s, len, 2);
        put_le(s, 6, 2);
        mode_str_add_cstr(s, m[i].name);
        mode_str_add(s, "FB\2\0ZZ", 6); /* padding, as PyTorch aligns with */
        mode_str_add(s, m[i].data, m[i].size);
        mode_str_add(&directory, "PK\1\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
        put_le(&directory, wide ? UINT32_MAX : m[i].size, 4);
        put_le(&directory, wide ? UINT32_MAX : m[i].size, 4);
        put_le(&directory, len, 2);
        put_le(&directory, wide ? 28 : 0, 2);
        mode_str_add(&directory, "\0\0\0\0\0\0\0\0\0\0", 10);
        put_le(&directory, wide ? UINT32_MAX : local, 4);
        mode_str_add_cstr(&directory, m[i].name);
        if (wide) {
            put_le(&directory, 1, 2);
            put_le(&directory, 24, 2);
            put_le(&directory, m[i].size, 8);
            put_le(&directory, m[i].size, 8);
            put_le(&directory, local, 8);
        }
    }
    size_t at = s->len;
    mode_str_add(s, directory.data, directory.len);
    if (wide) {
        size_t end64 = s->len;
        mode_str_add(s, "PK\6\6", 4);
        put_le(s, 44, 8);
        mode_str_add(s, "\0\0\0\0\0\0\0\0\0\0\0\0", 12);
        put_le(s, (uint64_t)n, 8);
        put_le(s, (uint64_t)n, 8);
        put_le(s, directory.len, 8);
        put_le(s, at, 8);
        mode_str_add(s, "PK\6\7\0\0\0\0", 8);
        put_le(s, end64, 8);
        put_le(s, 1, 4);
    }
    mode_str_add(s, "PK\5\6\0\0\0\0", 8);
    put_le(s, (uint64_t)n, 2);
    put_le(s, (uint64_t)n, 2);
    put_le(s, directory.len, 4);
    put_le(s, wide ? UINT32_MAX : at, 4);
    put_le(s, 0, 2);
    mode_str_clear(&directory);
}

static const float torch_numbers[6] = {0, 1, 2, 3, 4, 5};

/* {"a": [2, 3], "t": its transpose, "row": its last row, "n": i64 scalar} over storages "0" (6 f32) and "1" (1 i64),
 * between head and tail. */
static inline void put_state_dict(struct mode_str *s, const char *head, const char *tail, int legacy)
{
    mode_str_add_cstr(s, head);
    mode_str_add_cstr(s, "ccollections\nOrderedDict\n)R(");
    put_text(s, "a");
    put_tensor(s, "FloatStorage", "0", 6, 0, 2, (int64_t[]){2, 3}, (int64_t[]){3, 1}, legacy);
    put_text(s, "t");
    put_tensor(s, "FloatStorage", "0", 6, 0, 2, (int64_t[]){3, 2}, (int64_t[]){1, 3}, legacy);
    put_text(s, "row");
    put_tensor(s, "FloatStorage", "0", 6, 3, 1, (int64_t[]){3}, (int64_t[]){1}, legacy);
    put_text(s, "n");
    put_tensor(s, "LongStorage", "1", 1, 0, 0, NULL, NULL, legacy);
    mode_str_add_char(s, 'u');
    mode_str_add_cstr(s, tail);
}

/* A whole zip file around one data.pkl and the two storages. */
static inline void put_torch_zip(struct mode_str *s, const void *pickle, size_t size, int wide)
{
    static const uint8_t seven[8] = {7};
    const struct torch_member m[] = {{"archive/data.pkl", pickle, size},
                                     {"archive/byteorder", "little", 6},
                                     {"archive/data/0", torch_numbers, sizeof torch_numbers},
                                     {"archive/data/1", seven, sizeof seven},
                                     {"archive/version", "3\n", 2}};
    put_zip(s, m, 5, wide);
}

#endif
