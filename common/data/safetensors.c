#include "data/safetensors.h"

#include "base/str.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH_BYTES = 8, ALIGN = 64, MAX_HEADER = 16 << 20, MAX_TENSORS = 100000 };
#define META_KEY "__metadata__"

static const enum mode_dtype dtypes[] = {MODE_DTYPE_F32, MODE_DTYPE_F64, MODE_DTYPE_F16, MODE_DTYPE_BF16,
                                         MODE_DTYPE_I64, MODE_DTYPE_I32, MODE_DTYPE_I16, MODE_DTYPE_I8,
                                         MODE_DTYPE_U8,  MODE_DTYPE_BOOL};

static bool dtype_of_name(const char *name, enum mode_dtype *dtype)
{
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++)
        if (strcmp(mode_dtype_name(dtypes[i]), name) == 0) {
            *dtype = dtypes[i];
            return true;
        }
    return false;
}

/* ---- reading ------------------------------------------------------------------------------------------- */

static enum mode_status parse_meta(struct mode_safetensors *f, const char *path, json_t *object, struct mode_error *err)
{
    const char *key;
    json_t *value;
    if (!json_is_object(object))
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: header: \"" META_KEY "\" is not an object of strings", path);
    f->meta = mode_xcalloc(json_object_size(object) + 1, sizeof *f->meta);
    json_object_foreach(object, key, value)
    {
        if (!json_is_string(value))
            return MODE_FAIL(err, MODE_E_FORMAT, "%s: header: \"" META_KEY "\" entry \"%.100s\" is not a string", path,
                             key);
        f->meta[f->n_meta++] = (struct mode_meta){mode_xstrdup(key), mode_xstrdup(json_string_value(value))};
    }
    return MODE_OK;
}

/* One entry {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}. */
static enum mode_status parse_tensor(struct mode_tensor *t, const char *path, const char *name, json_t *entry,
                                     const uint8_t *buffer, uint64_t buffer_size, struct mode_error *err)
{
    const char *dtype_name;
    json_t *shape;
    json_int_t begin, end;
    json_error_t why;
    if (json_unpack_ex(entry, &why, 0, "{s:s, s:o, s:[I,I!] !}", "dtype", &dtype_name, "shape", &shape, "data_offsets",
                       &begin, &end) != 0)
        return MODE_FAIL(err, MODE_E_FORMAT,
                         "%s: tensor \"%.100s\": its header entry must hold dtype, shape and data_offsets: %s", path,
                         name, why.text);
    if (!dtype_of_name(dtype_name, &t->dtype))
        return MODE_FAIL(err, MODE_E_FORMAT,
                         "%s: tensor \"%.100s\": unknown dtype \"%.20s\", expected one of F64 F32 F16 BF16 I64 I32 I16 "
                         "I8 U8 BOOL",
                         path, name, dtype_name);
    if (!json_is_array(shape) || json_array_size(shape) > MODE_MAX_DIMS)
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: tensor \"%.100s\": shape must be an array of at most %d extents",
                         path, name, MODE_MAX_DIMS);
    if (begin < 0 || end < begin || (uint64_t)end > buffer_size)
        return MODE_FAIL(err, MODE_E_FORMAT,
                         "%s: tensor \"%.100s\": data_offsets [%" PRId64 ", %" PRId64 ") do not lie in the %" PRIu64
                         " bytes of data that follow the header. HINT: a truncated download?",
                         path, name, (int64_t)begin, (int64_t)end, buffer_size);
    size_t bytes = mode_dtype_size(t->dtype);
    t->n_dims = (int)json_array_size(shape);
    for (int i = 0; i < MODE_MAX_DIMS; i++) t->dim[i] = 1;
    for (int i = 0; i < t->n_dims; i++) {
        json_t *extent = json_array_get(shape, (size_t)i);
        if (!json_is_integer(extent) || json_integer_value(extent) < 0)
            return MODE_FAIL(err, MODE_E_FORMAT, "%s: tensor \"%.100s\": extent %d of its shape is not a count", path,
                             name, i);
        t->dim[i] = json_integer_value(extent);
        if (!mode_mul_size(bytes, (size_t)t->dim[i], &bytes))
            return MODE_FAIL(err, MODE_E_FORMAT, "%s: tensor \"%.100s\": the size of its shape overflows", path, name);
    }
    if (bytes != (uint64_t)(end - begin)) {
        char text[160];
        return MODE_FAIL(err, MODE_E_FORMAT,
                         "%s: tensor \"%.100s\": %s of shape %s takes %zu bytes, its data_offsets span %" PRId64, path,
                         name, dtype_name, mode_tensor_shape_text(t, text, sizeof text), bytes, (int64_t)(end - begin));
    }
    t->data = (void *)(uintptr_t)(buffer + begin);
    t->name = mode_xstrdup(name);
    return MODE_OK;
}

static int by_offset(const void *a, const void *b)
{
    const struct mode_tensor *x = a, *y = b;
    const char *p = x->data, *q = y->data;
    if (p != q) return p < q ? -1 : 1;
    size_t m = mode_tensor_bytes(x), n = mode_tensor_bytes(y);
    if (m != n) return m < n ? -1 : 1; /* an empty tensor comes before the one that starts at the same byte */
    return strcmp(x->name, y->name);
}

/* Extents must follow each other from the first byte of the buffer to its last. */
static enum mode_status check_cover(const struct mode_safetensors *f, const char *path, const uint8_t *buffer,
                                    uint64_t buffer_size, struct mode_error *err)
{
    uint64_t at = 0;
    for (size_t i = 0; i < f->n_tensors; i++) {
        const struct mode_tensor *t = &f->tensors[i];
        uint64_t begin = (uint64_t)((const uint8_t *)t->data - buffer);
        if (begin != at)
            return MODE_FAIL(err, MODE_E_FORMAT,
                             "%s: tensor \"%.100s\" starts at data byte %" PRIu64 ", expected %" PRIu64
                             ": the extents %s",
                             path, t->name, begin, at, begin > at ? "leave a hole" : "overlap");
        at = begin + mode_tensor_bytes(t);
    }
    if (at != buffer_size)
        return MODE_FAIL(err, MODE_E_FORMAT,
                         "%s: the tensors cover %" PRIu64 " bytes of data, the file holds %" PRIu64 ": trailing bytes",
                         path, at, buffer_size);
    return MODE_OK;
}

static enum mode_status parse_header(struct mode_safetensors *f, const char *path, json_t *header,
                                     const uint8_t *buffer, uint64_t buffer_size, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    const char *name;
    json_t *entry;
    size_t n = json_object_size(header);
    if (n > MAX_TENSORS)
        return MODE_FAIL(err, MODE_E_VALUE, "%s: %zu tensors, at most %d are allowed", path, n, (int)MAX_TENSORS);
    f->tensors = mode_xcalloc(n + 1, sizeof *f->tensors);
    json_object_foreach(header, name, entry)
    {
        if (strcmp(name, META_KEY) == 0)
            st = parse_meta(f, path, entry, err);
        else if (!(st = parse_tensor(&f->tensors[f->n_tensors], path, name, entry, buffer, buffer_size, err)))
            f->n_tensors++;
        if (st) return st;
    }
    if (f->n_tensors > 1) qsort(f->tensors, f->n_tensors, sizeof *f->tensors, by_offset);
    return check_cover(f, path, buffer, buffer_size, err);
}

enum mode_status mode_safetensors_open(struct mode_safetensors *f, const char *path, struct mode_error *err)
{
    json_t *header = NULL;
    *f = (struct mode_safetensors){.path = mode_xstrdup(path)};
    enum mode_status st = mode_file_map(path, &f->map, err);
    if (st) goto out;

    const uint8_t *p = f->map.data;
    uint64_t n = 0;
    if (mode_file_is_lfs_pointer(p, f->map.size)) {
        st = MODE_FAIL(
            err, MODE_E_FORMAT,
            "%s: is a Git LFS pointer, not the tensors themselves. HINT: run `git lfs pull` where it was cloned", path);
        goto out;
    }
    if (f->map.size < LENGTH_BYTES) {
        st = MODE_FAIL(err, MODE_E_FORMAT,
                       "%s: %zu bytes, a safetensors file has at least 8. HINT: a truncated download?", path,
                       f->map.size);
        goto out;
    }
    for (int i = 0; i < LENGTH_BYTES; i++) n |= (uint64_t)p[i] << (8 * i);
    if (n > MAX_HEADER) {
        st = MODE_FAIL(err, MODE_E_FORMAT,
                       "%s: the header claims %" PRIu64 " bytes, at most %d are allowed. HINT: not a safetensors file?",
                       path, n, (int)MAX_HEADER);
        goto out;
    }
    if (n > f->map.size - LENGTH_BYTES) {
        st = MODE_FAIL(err, MODE_E_FORMAT,
                       "%s: the header claims %" PRIu64
                       " bytes, the file holds %zu after its first 8. HINT: a truncated "
                       "download?",
                       path, n, f->map.size - LENGTH_BYTES);
        goto out;
    }
    p += LENGTH_BYTES;
    if (n < 2 || p[0] != '{') {
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: the header does not start with \"{\": not a safetensors file", path);
        goto out;
    }
    json_error_t why;
    header = json_loadb((const char *)p, (size_t)n, JSON_REJECT_DUPLICATES, &why);
    if (!header) {
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s: the header is not JSON: %s at byte %d", path, why.text,
                       why.position + LENGTH_BYTES);
        goto out;
    }
    st = parse_header(f, path, header, p + n, f->map.size - LENGTH_BYTES - n, err);
out:
    json_decref(header);
    if (st) mode_safetensors_close(f);
    return st;
}

void mode_safetensors_close(struct mode_safetensors *f)
{
    for (size_t i = 0; i < f->n_tensors; i++) free((void *)(uintptr_t)f->tensors[i].name);
    for (size_t i = 0; i < f->n_meta; i++) {
        free(f->meta[i].key);
        free(f->meta[i].value);
    }
    free(f->tensors);
    free(f->meta);
    mode_file_unmap(&f->map);
    free(f->path);
    *f = (struct mode_safetensors){0};
}

const struct mode_tensor *mode_safetensors_find(const struct mode_safetensors *f, const char *name)
{
    for (size_t i = 0; i < f->n_tensors; i++)
        if (strcmp(f->tensors[i].name, name) == 0) return &f->tensors[i];
    return NULL;
}

const char *mode_safetensors_meta(const struct mode_safetensors *f, const char *key)
{
    for (size_t i = 0; i < f->n_meta; i++)
        if (strcmp(f->meta[i].key, key) == 0) return f->meta[i].value;
    return NULL;
}

enum mode_status mode_safetensors_need(const struct mode_safetensors *f, const char *name, enum mode_dtype dtype,
                                       int n_dims, const int64_t *dim, const struct mode_tensor **out,
                                       struct mode_error *err)
{
    char got[160];
    const struct mode_tensor *t = mode_safetensors_find(f, name);
    if (!t)
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: tensor \"%s\" is missing (the file holds %zu tensors)", f->path, name,
                         f->n_tensors);
    if (t->dtype != dtype)
        return MODE_FAIL(err, MODE_E_FORMAT, "%s: tensor \"%s\" is %s, expected %s", f->path, name,
                         mode_dtype_name(t->dtype), mode_dtype_name(dtype));
    bool same = n_dims < 0 || n_dims == t->n_dims;
    for (int i = 0; same && i < n_dims; i++) same = dim[i] < 0 || dim[i] == t->dim[i];
    if (!same) {
        struct mode_str want = {0};
        for (int i = 0; i < n_dims; i++) {
            mode_str_add_cstr(&want, i ? ", " : "");
            if (dim[i] < 0)
                mode_str_add_char(&want, '*');
            else
                mode_str_printf(&want, "%lld", (long long)dim[i]);
        }
        enum mode_status st = MODE_FAIL(err, MODE_E_FORMAT, "%s: tensor \"%s\" is %s, expected [%s]", f->path, name,
                                        mode_tensor_shape_text(t, got, sizeof got), want.data ? want.data : "");
        mode_str_clear(&want);
        return st;
    }
    *out = t;
    return MODE_OK;
}

/* ---- writing ------------------------------------------------------------------------------------------- */

/* jansson keeps insertion order, so the text depends only on the arguments. */
static enum mode_status make_header(char **text, const char *path, const struct mode_tensor *tensors, size_t n_tensors,
                                    const struct mode_meta *meta, size_t n_meta, struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    json_t *header = json_object(), *strings = n_meta ? json_object() : NULL;
    json_int_t at = 0;
    for (size_t i = 0; i < n_meta; i++) {
        json_t *value = json_string(meta[i].value);
        if (!value || json_object_get(strings, meta[i].key) || json_object_set_new(strings, meta[i].key, value) != 0) {
            st = MODE_FAIL(err, MODE_E_VALUE, "%s: metadata \"%.100s\" is given twice or is not UTF-8", path,
                           meta[i].key);
            goto out;
        }
    }
    if (strings) json_object_set(header, META_KEY, strings);
    for (size_t i = 0; i < n_tensors; i++) {
        const struct mode_tensor *t = &tensors[i];
        json_t *shape = json_array();
        for (int k = 0; k < t->n_dims; k++) json_array_append_new(shape, json_integer(t->dim[k]));
        json_int_t end = at + (json_int_t)mode_tensor_bytes(t);
        json_t *entry = json_pack("{s:s, s:o, s:[I,I]}", "dtype", mode_dtype_name(t->dtype), "shape", shape,
                                  "data_offsets", at, end);
        at = end;
        if (!t->name || !*t->name || strcmp(t->name, META_KEY) == 0 || json_object_get(header, t->name) ||
            json_object_set(header, t->name, entry) != 0) {
            json_decref(entry);
            st = MODE_FAIL(err, MODE_E_VALUE, "%s: tensor %zu: the name \"%.100s\" is empty, given twice or not UTF-8",
                           path, i, t->name ? t->name : "");
            goto out;
        }
        json_decref(entry);
    }
    *text = json_dumps(header, JSON_COMPACT);
    if (!*text) st = MODE_FAIL(err, MODE_E_MEMORY, "%s: no memory for the header", path);
out:
    json_decref(strings);
    json_decref(header);
    return st;
}

enum mode_status mode_safetensors_write(const char *path, const struct mode_tensor *tensors, size_t n_tensors,
                                        const struct mode_meta *meta, size_t n_meta, struct mode_error *err)
{
    return mode_safetensors_write_from(path, tensors, n_tensors, meta, n_meta, NULL, NULL, err);
}

enum mode_status mode_safetensors_write_from(const char *path, const struct mode_tensor *tensors, size_t n_tensors,
                                             const struct mode_meta *meta, size_t n_meta,
                                             const void *(*fetch)(void *ctx, const void *data, size_t size), void *ctx,
                                             struct mode_error *err)
{
    char *text = NULL;
    unsigned char length[LENGTH_BYTES];
    struct mode_str header = {0};
    enum mode_status st = make_header(&text, path, tensors, n_tensors, meta, n_meta, err);
    if (st) return st;
    mode_str_add_cstr(&header, text);
    while ((LENGTH_BYTES + header.len) % ALIGN != 0) mode_str_add_char(&header, ' ');
    for (int i = 0; i < LENGTH_BYTES; i++) length[i] = (unsigned char)((uint64_t)header.len >> (8 * i));

    struct mode_file_part *parts = mode_xcalloc(n_tensors + 2, sizeof *parts);
    parts[0] = (struct mode_file_part){.data = length, .size = sizeof length};
    parts[1] = (struct mode_file_part){.data = header.data, .size = header.len};
    for (size_t i = 0; i < n_tensors; i++)
        parts[i + 2] = (struct mode_file_part){tensors[i].data, mode_tensor_bytes(&tensors[i]), fetch, ctx};
    if (header.len > MAX_HEADER || n_tensors > MAX_TENSORS)
        st = MODE_FAIL(err, MODE_E_VALUE, "%s: %zu tensors with a header of %zu bytes: our reader would reject it",
                       path, n_tensors, header.len);
    else
        st = mode_file_write_parts(path, parts, n_tensors + 2, err);
    free(parts);
    mode_str_clear(&header);
    free(text);
    return st;
}
