/* fates.h - what became of samples that are no pairs, in words: `mode captions`, `mode train`. */
#ifndef MODE_SERVICES_MODE_FATES_H
#define MODE_SERVICES_MODE_FATES_H

#include "base/str.h"
#include "data/captions.h"

/* "180 no_caption, 1 truncated"; nothing where all were kept. */
void fates_add(struct mode_str *s, const uint64_t fate[MODE_FATE_COUNT]);
/* What to look at where not one was kept, from a blank on: " HINT: ..."; "" where the fates' names say it all. */
const char *fates_hint(const uint64_t fate[MODE_FATE_COUNT]);

#endif
