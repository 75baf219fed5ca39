/* safetensors.h - read and write safetensors files.
 *
 *     struct mode_safetensors f;
 *     st = mode_safetensors_open(&f, path, &err);            // maps, checks everything
 *     const struct mode_tensor *feat = mode_safetensors_find(&f, "feat");
 *     const char *id = mode_safetensors_meta(&f, "encoder_id");
 *     mode_safetensors_close(&f);
 *
 * Source:  https://huggingface.co/docs/safetensors (format). Checked on reading: header length against cap
 *          (16 MiB) and file, JSON object without duplicate names, known dtypes, shape product without
 *          overflow = extent, extents contiguous, non-overlapping and covering the buffer exactly, rank <= 8,
 *          at most 10^5 tensors. Errors name the file, the tensor, expected and got.
 * Threads: an open file is read-only. */
#ifndef MODE_DATA_SAFETENSORS_H
#define MODE_DATA_SAFETENSORS_H

#include "base/error.h"
#include "base/file.h"
#include "tensor/tensor.h"

struct mode_safetensors {
    char *path; /* for errors */
    struct mode_mapping map;
    size_t n_tensors;
    struct mode_tensor *tensors; /* in file order (ascending offset); data points into map, read-only,
                                    aligned to the dtype only if the writer aligned it (ours does: 64 bytes
                                    where possible); names owned here */
    size_t n_meta;
    struct mode_meta {
        char *key, *value;
    } * meta;
};

enum mode_status mode_safetensors_open(struct mode_safetensors *f, const char *path, struct mode_error *err);
void mode_safetensors_close(struct mode_safetensors *f);
/* NULL when absent; borrowed. */
const struct mode_tensor *mode_safetensors_find(const struct mode_safetensors *f, const char *name);
const char *mode_safetensors_meta(const struct mode_safetensors *f, const char *key);
/* Like find, but a missing tensor, another dtype or another shape is MODE_E_FORMAT. n_dims < 0: any shape;
 * dim[i] < 0: any extent. */
enum mode_status mode_safetensors_need(const struct mode_safetensors *f, const char *name, enum mode_dtype dtype,
                                       int n_dims, const int64_t *dim, const struct mode_tensor **out,
                                       struct mode_error *err);

/* Write tensors (in this order; names unique) and metadata. Same arguments, same bytes. Written to a temporary,
 * fsynced, renamed. meta may be NULL. */
enum mode_status mode_safetensors_write(const char *path, const struct mode_tensor *tensors, size_t n_tensors,
                                        const struct mode_meta *meta, size_t n_meta, struct mode_error *err);
/* The same for tensors whose data cannot be read directly: fetch (see struct mode_file_part) is called for each, in
 * turn. */
enum mode_status mode_safetensors_write_from(const char *path, const struct mode_tensor *tensors, size_t n_tensors,
                                             const struct mode_meta *meta, size_t n_meta,
                                             const void *(*fetch)(void *ctx, const void *data, size_t size), void *ctx,
                                             struct mode_error *err);

#endif
