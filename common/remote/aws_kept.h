/* aws_kept.h - caches keys until they expire. Internal to common/remote.
 *
 * Expiring keys are refreshed early: in their last 15 minutes (the last quarter of a shorter lifetime) by one thread,
 * while the others use the old ones; in the last ten minutes (sixth) the others wait for it. While the source fails
 * they are used until they expire.
 *
 * Threads: any. */
#ifndef MODE_REMOTE_AWS_KEPT_H
#define MODE_REMOTE_AWS_KEPT_H

#include "remote/aws_fetch.h"

/* k: the caller's to clear, empty after a failure; *again: when to call again, seconds since 1970. Errors: those of
 * aws_fetch.h; MODE_E_NOINPUT: this machine has no keys, and never had any. */
enum mode_status mode__aws_keys_get(struct mode__aws_keys *k, int64_t *again, const struct mode__aws_source *s,
                                    const struct mode_remote_watch *w, struct mode_error *err);
/* Call when the store reports that these have expired: the next call fetches new ones. */
void mode__aws_keys_over(const char *id);

#endif
