#include "data/npy.h"

#include "base/file.h"
#include "base/str.h"

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
    case MODE_DTYPE_BF16: return NULL; /* NumPy has no such type */
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
