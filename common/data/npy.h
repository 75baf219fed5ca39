/* npy.h - NumPy .npy files: writes arrays (version 1.0, little-endian, C order), reads lists of 0 and 1.
 * Source: numpy.lib.format documentation. */
#ifndef MODE_DATA_NPY_H
#define MODE_DATA_NPY_H

#include "base/error.h"
#include "tensor/tensor.h"

enum mode_status mode_npy_write(const char *path, const struct mode_tensor *t, struct mode_error *err);

/* A file in memory that holds one list of n numbers, each 0 or 1 (bool, integers or floats of either byte order, any
 * version): out [n]. MODE_E_FORMAT with an error text that begins with `what`. */
enum mode_status mode_npy_read_flags(int32_t *out, int64_t n, const uint8_t *data, size_t size, const char *what,
                                     struct mode_error *err);

#endif
