/* choice.h - which backend to open: "auto", and the precision that a task requests.
 *
 * Whoever starts a process chooses the device; whoever writes a run's spec chooses the precision of GEMMs, because it
 * changes results by more than f32 rounding. docs/decisions/0015-backends-and-keys.md says what follows.
 *
 *     char why[MODE_BACKEND_WHY];
 *     st = mode_backend_choose(&be, why, "auto", "f32", &err);   // a GPU where one can be used, else "cpu" */
#ifndef MODE_NN_CHOICE_H
#define MODE_NN_CHOICE_H

#include "nn/backend.h"

enum { MODE_BACKEND_WHY = 240 };

/* Open backend `name`: "auto", which falls back to the CPU for f32 where there is no usable GPU (but not where one has
 * failed: a GPU machine must not become a slow one silently), or a name that mode_backend_open knows. precision: "f32",
 * "tf32" or "bf16", as a task requests it, or NULL: whatever the name implies. why (may be NULL) receives a sentence
 * when auto did not take a GPU, else "". Errors: MODE_E_VALUE: no such name or precision; MODE_E_DEVICE: the device is
 * not here, or cannot compute so. */
enum mode_status mode_backend_choose(struct mode_backend **be, char why[MODE_BACKEND_WHY], const char *name,
                                     const char *precision, struct mode_error *err);

#endif
