/* tensor.h - a shape, a dtype and a pointer; always contiguous and row-major.
 *
 * The struct does not own its memory: the owner (an arena, a file mapping, a model) frees it.
 * Threads: reentrant. */
#ifndef MODE_TENSOR_TENSOR_H
#define MODE_TENSOR_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum mode_dtype {
    MODE_DTYPE_F32 = 1,
    MODE_DTYPE_F64,
    MODE_DTYPE_F16,
    MODE_DTYPE_BF16,
    MODE_DTYPE_I64,
    MODE_DTYPE_I32,
    MODE_DTYPE_I16,
    MODE_DTYPE_I8,
    MODE_DTYPE_U8,
    MODE_DTYPE_BOOL
};

enum { MODE_MAX_DIMS = 8 }; /* tensors of higher rank are refused when a file is read */

struct mode_tensor {
    void *data;                 /* host or backend memory; NULL = none yet             */
    int64_t dim[MODE_MAX_DIMS]; /* outermost first; unused trailing dims are 1         */
    int n_dims;                 /* 0 = a scalar                                        */
    enum mode_dtype dtype;
    const char *name; /* "visual.transformer.resblocks.3.mlp.c_fc.weight"; borrowed, may be NULL */
};

size_t mode_dtype_size(enum mode_dtype dtype);      /* bytes of an element */
const char *mode_dtype_name(enum mode_dtype dtype); /* safetensors' spelling: "F32", "I64" */

/* data is borrowed; dim [n_dims], 0 <= n_dims <= MODE_MAX_DIMS. */
struct mode_tensor mode_tensor_make(void *data, enum mode_dtype dtype, int n_dims, const int64_t *dim);
struct mode_tensor mode_tensor_1d(void *data, enum mode_dtype dtype, int64_t a);
struct mode_tensor mode_tensor_2d(void *data, enum mode_dtype dtype, int64_t a, int64_t b);
int64_t mode_tensor_count(const struct mode_tensor *t); /* elements */
size_t mode_tensor_bytes(const struct mode_tensor *t);
/* "[512, 768]" into buf, truncated to size bytes; returns buf. */
const char *mode_tensor_shape_text(const struct mode_tensor *t, char *buf, size_t size);
/* *out = a * b; false if it overflows. For shapes that come from files and peers. */
bool mode_mul_size(size_t a, size_t b, size_t *out);

static inline float *mode_f32(const struct mode_tensor *t)
{
    return (float *)t->data;
}

#endif
