/* fates.h - the fates of rejected samples, and of skipped shards, in words, for `mode captions`, `mode train` and
 * `mode overlap`. */
#ifndef MODE_SERVICES_MODE_FATES_H
#define MODE_SERVICES_MODE_FATES_H

#include "base/str.h"
#include "pipeline/captions.h"

#define SKIP_BAD_SHARDS      "skip-bad-shards"
#define SKIP_BAD_SHARDS_HELP "skip shards that are not tars or are corrupt: at most one, or a tenth of them"

/* "180 no_caption, 1 truncated"; nothing if all were kept. */
void fates_add(struct mode_str *s, const uint64_t fate[MODE_FATE_COUNT]);
/* A hint for when no sample was kept, with a leading space: " HINT: ..."; "" when the fates' names suffice. */
const char *fates_hint(const uint64_t fate[MODE_FATE_COUNT]);

/* mode_captions_extract of one of n_shards. A skipped shard is reported and counted in n_bad; too many are an
 * error. Without skip_bad the error names the option. */
enum mode_status fates_extract(struct mode_captions *c, const char *out_path, const struct mode_captions_options *o,
                               uint64_t *n_bad, uint64_t n_shards, struct mode_error *err);
/* The same of a shard that something else found to be bad: err says why. */
enum mode_status fates_bad_shard(const char *path, bool skip_bad, uint64_t *n_bad, uint64_t n_shards,
                                 struct mode_error *err);

#endif
