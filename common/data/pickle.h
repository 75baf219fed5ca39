/* pickle.h - reads the subset of Python pickles that PyTorch checkpoints use, without executing anything.
 *
 * A pickle is a program for a small stack machine, dangerous because it may call any Python function. This reader has
 * no functions to call: a name is looked up in a fixed list (tensors, storages, OrderedDict, torch.Size, numpy
 * scalars), each entry of which means a plain value here; every other name and every opcode that checkpoints do not use
 * is refused, with the name and the byte. A pickle does not hold tensor data, only its location.
 *
 * Memory comes from one scratch block of fixed size, no system call is made (the reader runs where none is allowed,
 * data/jail.h), and the length of the input alone bounds every loop and recursion.
 *
 * Source:  Python's pickletools (protocols 2 to 5); torch/serialization.py and torch/_weights_only_unpickler.py for
 *          the names.
 * Threads: none shared. */
#ifndef MODE_DATA_PICKLE_H
#define MODE_DATA_PICKLE_H

#include "base/error.h"
#include "tensor/tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mode_scratch { /* a bump allocator */
    uint8_t *base;
    size_t size, used;
};
/* Zeroed, aligned to 16 bytes; NULL when the block is exhausted. */
void *mode_scratch_take(struct mode_scratch *s, size_t n, size_t size);

enum mode_pickle_kind {
    MODE_PICKLE_NONE,
    MODE_PICKLE_BOOL,
    MODE_PICKLE_INT,
    MODE_PICKLE_REAL,
    MODE_PICKLE_TEXT,
    MODE_PICKLE_BYTES, /* and integers of more than eight bytes, little-endian */
    MODE_PICKLE_LIST,  /* list or set */
    MODE_PICKLE_TUPLE,
    MODE_PICKLE_DICT,
    MODE_PICKLE_NAME,    /* an allowed name, not called */
    MODE_PICKLE_OBJECT,  /* of a TorchScript class: its attributes */
    MODE_PICKLE_STORAGE, /* data somewhere in the file */
    MODE_PICKLE_TENSOR,  /* a view of a storage */
    MODE_PICKLE_OTHER    /* a device, a dtype, a numpy scalar: allowed and ignored */
};

struct mode_pickle_value {
    enum mode_pickle_kind kind;
    union {
        int64_t integer; /* BOOL, INT; NAME: index of the list */
        double real;
        struct { /* TEXT, BYTES: borrowed from the input, not NUL-terminated */
            const char *data;
            size_t size;
        } text;
        struct { /* LIST, TUPLE; DICT, OBJECT: key, value, key, value ... */
            struct mode_pickle_value **item;
            size_t n, cap;
        } list;
        struct {
            enum mode_dtype dtype;
            const struct mode_pickle_value *key; /* TEXT */
            int64_t count;                       /* elements */
            struct mode_pickle_value *next;      /* the storage that was named before this one */
        } storage;
        struct {
            struct mode_pickle_value *storage;
            int64_t offset; /* elements; the whole view lies within storage->count, checked */
            int n_dims;
            int64_t dim[MODE_MAX_DIMS], stride[MODE_MAX_DIMS];
        } tensor;
    } as;
};

/* Reads one pickle that begins at byte *at of data; *at then points after its STOP. storages (may be NULL): the last
 * storage named, from which next leads through all of them. what names data in errors. E_FORMAT: malformed, or uses
 * something that is not allowed; E_MEMORY: scratch is exhausted. */
enum mode_status mode_pickle_read(struct mode_pickle_value **root, struct mode_pickle_value **storages, size_t *at,
                                  struct mode_scratch *scratch, const uint8_t *data, size_t size, const char *what,
                                  struct mode_error *err);
/* The value of a text key, or NULL; the last one of a repeated key. */
struct mode_pickle_value *mode_pickle_get(const struct mode_pickle_value *dict, const char *key);
bool mode_pickle_is_text(const struct mode_pickle_value *v, const char *text);

#endif
