/* torch_file.h - files of torch.save: which tensors they hold, and where in the file their data is.
 *
 *     struct mode_torch_file f;
 *     st = mode_torch_file_open(&f, "model.pt", &err);       // reads the pickle in a sandboxed process (data/jail.h)
 *     f.tensors[0].data                                     // in the mapping; copied only if it is a strided view
 *     mode_torch_file_close(&f);
 *
 * Both layouts: the zip of PyTorch 1.6 and later (entries stored, not compressed; TorchScript archives as well) and the
 * sequence of pickles before it. Nothing in the file is executed: data/pickle.h. A training checkpoint yields its
 * "state_dict", a TorchScript archive every tensor under its dotted path, any other file the dict itself; note says
 * what was ignored.
 *
 * Threads: an open file is read-only. */
#ifndef MODE_DATA_TORCH_FILE_H
#define MODE_DATA_TORCH_FILE_H

#include "base/file.h"
#include "data/pickle.h"
#include "tensor/tensor.h"

enum { MODE_TORCH_NOTE = 240, MODE_TORCH_MAX_TENSORS = 100000 };

struct mode_torch_file {
    struct mode_mapping map;
    size_t n_tensors;
    struct mode_tensor *tensors; /* in the order of the dict; names owned here; read-only, any alignment */
    void **copies;               /* of strided views, n_tensors of them, NULL where data lies in the mapping */
    char note[MODE_TORCH_NOTE];  /* "" or a sentence on what else the file holds */
};

/* Whether the first bytes are those of a zip or of a pickle. */
bool mode_torch_file_looks(const uint8_t *data, size_t size);
/* E_FORMAT: malformed, or a name or construct that is not allowed; the error names it and its byte. */
enum mode_status mode_torch_file_open(struct mode_torch_file *f, const char *path, struct mode_error *err);
void mode_torch_file_close(struct mode_torch_file *f);

/* ---- the pure part, which runs in the locked process; apart for tests and fuzzing ------------------------- */

struct mode_torch_entry {
    uint32_t name; /* byte of names */
    enum mode_dtype dtype;
    int n_dims;
    int64_t dim[MODE_MAX_DIMS], stride[MODE_MAX_DIMS]; /* elements */
    uint64_t begin, end;                               /* of the storage, bytes of the file */
    int64_t offset;                                    /* elements into the storage */
};
enum { MODE_TORCH_NAMES = 16 << 20 };
struct mode_torch_plan {
    enum mode_status status;
    char text[600]; /* of the failure */
    char note[MODE_TORCH_NOTE];
    uint32_t n_entries, n_names;
    struct mode_torch_entry entry[MODE_TORCH_MAX_TENSORS];
    char names[MODE_TORCH_NAMES]; /* NUL-terminated, concatenated */
};
void mode_torch_plan_make(struct mode_torch_plan *plan, struct mode_scratch *scratch, const uint8_t *data, size_t size);
/* Checks an untrusted plan against a file of `size` bytes. */
enum mode_status mode_torch_plan_check(const struct mode_torch_plan *plan, size_t size, struct mode_error *err);

#endif
