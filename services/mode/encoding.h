/* encoding.h - progress of encoding texts, for a verb at a terminal. */
#ifndef MODE_SERVICES_MODE_ENCODING_H
#define MODE_SERVICES_MODE_ENCODING_H

#include "base/error.h"

#include <stddef.h>

/* A mode_encode_tick_fn (models/bert.h); ctx is ignored. */
enum mode_status encoding_show(void *ctx, size_t done, size_t total);

#endif
