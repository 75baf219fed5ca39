/* npy.h - NumPy .npy files, version 1.0, little-endian, C order: export only.
 * Source: numpy.lib.format documentation. */
#ifndef MODE_DATA_NPY_H
#define MODE_DATA_NPY_H

#include "base/error.h"
#include "tensor/tensor.h"

enum mode_status mode_npy_write(const char *path, const struct mode_tensor *t, struct mode_error *err);

#endif
