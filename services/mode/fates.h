/* fates.h - the fates of rejected samples in words, for `mode captions` and `mode train`. */
#ifndef MODE_SERVICES_MODE_FATES_H
#define MODE_SERVICES_MODE_FATES_H

#include "base/str.h"
#include "data/captions.h"

/* "180 no_caption, 1 truncated"; nothing if all were kept. */
void fates_add(struct mode_str *s, const uint64_t fate[MODE_FATE_COUNT]);
/* A hint for when no sample was kept, with a leading space: " HINT: ..."; "" when the fates' names suffice. */
const char *fates_hint(const uint64_t fate[MODE_FATE_COUNT]);

#endif
