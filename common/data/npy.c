#include "data/npy.h"

#include "base/file.h"
#include "base/str.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const char *npy_descr(enum mode_dtype dtype)
{
    switch (dtype) {
    case MODE_DTYPE_F32: return "<f4";
    case MODE_DTYPE_F64: return "<f8";
    case MODE_DTYPE_F16: return "<f2";
    case MODE_DTYPE_I64: return "<i8";
    case MODE_DTYPE_I32: return "<i4";
    case MODE_DTYPE_I16: return "<i2";
    case MODE_DTYPE_I8: return "|i1";
    case MODE_DTYPE_U8: return "|u1";
    case MODE_DTYPE_BOOL: return "|b1";
    case MODE_DTYPE_BF16: return NULL; /* NumPy has no bf16 */
    }
    return NULL;
}

enum mode_status mode_npy_write(const char *path, const struct mode_tensor *t, struct mode_error *err)
{
    enum { MAGIC = 8, LENGTH = 2, ALIGN = 64 };
    const char *descr = npy_descr(t->dtype);
    if (!descr)
        return MODE_FAIL(err, MODE_E_VALUE, "%s: NumPy files cannot hold %s; convert to F32 first", path,
                         mode_dtype_name(t->dtype));
    struct mode_str dict = {0};
    mode_str_printf(&dict, "{'descr': '%s', 'fortran_order': False, 'shape': (", descr);
    for (int i = 0; i < t->n_dims; i++) mode_str_printf(&dict, "%s%lld", i ? ", " : "", (long long)t->dim[i]);
    mode_str_add_cstr(&dict, t->n_dims == 1 ? ",), }" : "), }");
    while ((MAGIC + LENGTH + dict.len + 1) % ALIGN != 0) mode_str_add_char(&dict, ' ');
    mode_str_add_char(&dict, '\n');

    unsigned char head[MAGIC + LENGTH] = {
        0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (unsigned char)(dict.len & 255), (unsigned char)(dict.len >> 8)};
    struct mode_file_part parts[3] = {{.data = head, .size = sizeof head},
                                      {.data = dict.data, .size = dict.len},
                                      {.data = t->data, .size = mode_tensor_bytes(t)}};
    enum mode_status st = mode_file_write_parts(path, parts, 3, err);
    mode_str_clear(&dict);
    return st;
}

/* The text after `'key':` in the header, without leading spaces; NULL when missing. */
static const char *value_of(const char *header, const char *key)
{
    const char *p = strstr(header, key);
    if (!p) return NULL;
    p += strlen(key);
    p += strspn(p, " ");
    return *p == ':' ? p + 1 + strspn(p + 1, " ") : NULL;
}

/* The single dimension of "(20,)"; -1: none, or several. */
static int64_t length_of(const char *shape)
{
    char *end;
    if (!shape || *shape != '(' || shape[1] < '0' || shape[1] > '9') return -1;
    long long n = strtoll(shape + 1, &end, 10);
    end += strspn(end, " ");
    if (*end != ',') return -1;
    end += 1 + strspn(end + 1, " ");
    return *end == ')' ? n : -1;
}

/* The bytes of the number one as an element: `size` bytes, in reverse order for big_endian. */
static bool one_of(uint8_t one[8], size_t *size, bool *big_endian, const char *descr)
{
    static const struct {
        char name[3];
        uint8_t size, top[2]; /* the two most significant bytes of 1.0 */
    } type[] = {{"b1", 1, {0}}, {"i1", 1, {0}},          {"u1", 1, {0}},          {"i2", 2, {0}},
                {"u2", 2, {0}}, {"i4", 4, {0}},          {"u4", 4, {0}},          {"i8", 8, {0}},
                {"u8", 8, {0}}, {"f2", 2, {0x3c, 0x00}}, {"f4", 4, {0x3f, 0x80}}, {"f8", 8, {0x3f, 0xf0}}};
    if (!descr || (*descr != '\'' && *descr != '"') || !strchr("<>|=", descr[1]) || !descr[1]) return false;
    *big_endian = descr[1] == '>';
    for (size_t i = 0; i < sizeof type / sizeof *type; i++) {
        if (strncmp(descr + 2, type[i].name, 2) != 0 || descr[4] != descr[0]) continue;
        *size = type[i].size;
        memset(one, 0, 8);
        if (descr[2] == 'f') {
            one[*size - 1] = type[i].top[0];
            one[*size - 2] = type[i].top[1];
        } else
            one[0] = 1;
        return true;
    }
    return false;
}

enum mode_status mode_npy_read_flags(int32_t *out, int64_t n, const uint8_t *data, size_t size, const char *what,
                                     struct mode_error *err)
{
    enum { MOST_HEADER = 4096 };
    static const uint8_t zero[8] = {0};
    char header[MOST_HEADER + 1];
    uint8_t one[8], element[8];
    size_t width, begin = 10, length;
    bool big_endian;
    if (size < 12 || memcmp(data, "\x93NUMPY", 6) != 0 || data[6] < 1 || data[6] > 3)
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: the labels are not a NumPy file", what);
    length = (size_t)data[8] | (size_t)data[9] << 8;
    if (data[6] > 1) {
        length |= (size_t)data[10] << 16 | (size_t)data[11] << 24;
        begin = 12;
    }
    if (length > MOST_HEADER || length > size - begin)
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: the NumPy file of the labels ends in its header", what);
    memcpy(header, data + begin, length);
    header[length] = '\0';
    if (!one_of(one, &width, &big_endian, value_of(header, "'descr'")))
        return MODE_FAIL(err, MODE_E_FORMAT,
                         "%s: the NumPy file of the labels holds neither bool nor integers nor floats", what);
    int64_t there = length_of(value_of(header, "'shape'"));
    if (there != n)
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: the labels are %s, expected a list of %lld, one per class", what,
                         there < 0 ? "no list" : "a list of another length", (long long)n);
    if ((size - begin - length) / width < (size_t)n)
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: the NumPy file of the labels is cut short", what);
    for (int64_t i = 0; i < n; i++) {
        const uint8_t *p = data + begin + length + (size_t)i * width;
        for (size_t k = 0; k < width; k++) element[k] = big_endian ? p[width - 1 - k] : p[k];
        out[i] = memcmp(element, one, width) == 0;
        if (!out[i] && memcmp(element, zero, width) != 0)
            return MODE_FAIL(err, MODE_E_FORMAT, "%s: label %lld is neither 0 nor 1", what, (long long)i);
    }
    return MODE_OK;
}
