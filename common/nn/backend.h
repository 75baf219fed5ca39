/* backend.h - a compute device: the op table, its memory, its first error.
 *
 *     struct mode_backend *be;
 *     st = mode_backend_open(&be, "cpu", &err);      // "ref" | "cpu"
 *     ...
 *     mode_backend_close(&be); */
#ifndef MODE_NN_BACKEND_H
#define MODE_NN_BACKEND_H

#include "base/error.h"

struct mode_backend;

/* MODE_E_VALUE: no such backend; MODE_E_DEVICE: it is known, but this build or machine lacks it. */
enum mode_status mode_backend_open(struct mode_backend **be, const char *name, struct mode_error *err);
void mode_backend_close(struct mode_backend **be);

#endif
