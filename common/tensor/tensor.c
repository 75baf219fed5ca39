#include "tensor/tensor.h"

#include "base/error.h"

#include <stdio.h>
#include <string.h>

size_t mode_dtype_size(enum mode_dtype dtype)
{
    switch (dtype) {
    case MODE_DTYPE_F64:
    case MODE_DTYPE_I64: return 8;
    case MODE_DTYPE_F32:
    case MODE_DTYPE_I32: return 4;
    case MODE_DTYPE_F16:
    case MODE_DTYPE_BF16:
    case MODE_DTYPE_I16: return 2;
    case MODE_DTYPE_I8:
    case MODE_DTYPE_U8:
    case MODE_DTYPE_BOOL: return 1;
    }
    MODE_ASSERT(!"a known dtype");
    return 0;
}

const char *mode_dtype_name(enum mode_dtype dtype)
{
    switch (dtype) {
    case MODE_DTYPE_F64: return "F64";
    case MODE_DTYPE_I64: return "I64";
    case MODE_DTYPE_F32: return "F32";
    case MODE_DTYPE_I32: return "I32";
    case MODE_DTYPE_F16: return "F16";
    case MODE_DTYPE_BF16: return "BF16";
    case MODE_DTYPE_I16: return "I16";
    case MODE_DTYPE_I8: return "I8";
    case MODE_DTYPE_U8: return "U8";
    case MODE_DTYPE_BOOL: return "BOOL";
    }
    return "?";
}

struct mode_tensor mode_tensor_make(void *data, enum mode_dtype dtype, int n_dims, const int64_t *dim)
{
    struct mode_tensor t = {.data = data, .n_dims = n_dims, .dtype = dtype};
    MODE_ASSERT(n_dims >= 0 && n_dims <= MODE_MAX_DIMS);
    for (int i = 0; i < MODE_MAX_DIMS; i++) t.dim[i] = i < n_dims ? dim[i] : 1;
    return t;
}

struct mode_tensor mode_tensor_1d(void *data, enum mode_dtype dtype, int64_t a)
{
    return mode_tensor_make(data, dtype, 1, &a);
}

struct mode_tensor mode_tensor_2d(void *data, enum mode_dtype dtype, int64_t a, int64_t b)
{
    int64_t dim[2] = {a, b};
    return mode_tensor_make(data, dtype, 2, dim);
}

int64_t mode_tensor_count(const struct mode_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->n_dims; i++) n *= t->dim[i];
    return n;
}

size_t mode_tensor_bytes(const struct mode_tensor *t)
{
    return (size_t)mode_tensor_count(t) * mode_dtype_size(t->dtype);
}

const char *mode_tensor_shape_text(const struct mode_tensor *t, char *buf, size_t size)
{
    size_t n = (size_t)snprintf(buf, size, "[");
    for (int i = 0; i < t->n_dims && n < size; i++)
        n += (size_t)snprintf(buf + n, size - n, "%s%lld", i ? ", " : "", (long long)t->dim[i]);
    if (n < size) snprintf(buf + n, size - n, "]");
    return buf;
}

bool mode_mul_size(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}
