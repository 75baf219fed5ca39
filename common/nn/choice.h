/* choice.h - which backend is meant: "auto", and the precision that a task asks for.
 *
 * A device is a choice of who starts a process; the precision of products is a choice of who writes a run's spec,
 * because it changes results by more than rounding. docs/decisions/0015-backends-and-keys.md says what follows.
 *
 *     char why[MODE_BACKEND_WHY];
 *     st = mode_backend_choose(&be, why, "auto", "f32", &err);   // a GPU where one can be used, else "cpu"
 */
#ifndef MODE_NN_CHOICE_H
#define MODE_NN_CHOICE_H

#include "nn/backend.h"

enum { MODE_BACKEND_WHY = 240 };

/* Open backend `name`: "auto", which takes the processor for f32 where there is no GPU that can be used (but
 * not where one has failed: a machine that has GPUs is not to become a slow one in silence), or a name that
 * mode_backend_open knows. precision: "f32", "tf32" or "bf16", what a task
 * asks for, or NULL: whatever the name says. why (may be NULL) receives a sentence when auto did not take a GPU, else
 * "". Errors: MODE_E_VALUE: no such name or precision; MODE_E_DEVICE: the device is not here, or cannot compute so. */
enum mode_status mode_backend_choose(struct mode_backend **be, char why[MODE_BACKEND_WHY], const char *name,
                                     const char *precision, struct mode_error *err);

#endif
